from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import partition as p
from securefl.fl.seeds import SeedTree

TARGETS = np.repeat(np.arange(10), 100)


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(p.NAMES),
    targets=st.lists(st.integers(0, 4), min_size=1, max_size=120),
    clients=st.integers(1, 30),
    seed=st.integers(0, 2**32),
    alpha=st.sampled_from([1e-9, 0.01, 0.5, 1.0, 1e6]),
    minimum=st.one_of(st.none(), st.integers(1, 6)),
)
def test_every_example_is_used_exactly_once(
    name: str, targets: list[int], clients: int, seed: int, alpha: float, minimum: int | None
) -> None:
    labels = np.array(targets, np.int64)
    least = {"iid": 1, "shards": 2, "dirichlet": minimum or 1}[name]
    try:
        parts = p.partition(name, labels, clients, SeedTree(seed), alpha=alpha, minimum=minimum)
    except ConfigurationError:
        assert clients * least > len(labels)
        return
    assert clients * least <= len(labels)
    assert len(parts) == clients
    assert min(map(len, parts)) >= least
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("name", p.NAMES)
def test_the_seed_decides(name: str) -> None:
    first, again, other = (p.partition(name, TARGETS, 20, SeedTree(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(part) for part in p.iid(TARGETS, 7, SeedTree(0))]
    assert max(sizes) - min(sizes) == 1


def test_shards_hold_few_classes() -> None:
    parts = p.shards(TARGETS, 50, SeedTree(0), shards_per_client=2)
    assert {len(part) for part in parts} == {20}
    assert max(len(np.unique(TARGETS[part])) for part in parts) <= 2


def _skew(alpha: float) -> float:
    """Mean share of a client's most frequent class."""
    parts = p.dirichlet(TARGETS, 20, SeedTree(0), alpha=alpha)
    return float(np.mean([np.bincount(TARGETS[part]).max() / len(part) for part in parts]))


def test_small_alpha_is_skewed_and_large_is_iid() -> None:
    assert _skew(0.05) > 0.6 > _skew(0.5) > 0.25 > _skew(1000.0)


def test_default_minimum_is_ten_or_half_an_equal_share() -> None:
    assert min(len(part) for part in p.dirichlet(TARGETS, 20, SeedTree(0), alpha=0.01)) >= 10
    assert min(len(part) for part in p.dirichlet(TARGETS, 200, SeedTree(0), alpha=0.01)) >= 2
    assert min(len(part) for part in p.dirichlet(TARGETS, 1000, SeedTree(0), alpha=0.01)) == 1


@pytest.mark.parametrize(
    ("name", "clients", "options", "message"),
    [
        ("iid", 1001, {}, "1000 examples cannot give 1001 clients"),
        ("shards", 501, {}, "at least 2 each"),
        ("shards", 10, {"shards_per_client": 0}, "at least 1 shard"),
        ("dirichlet", 1001, {}, "1000 examples"),
        ("dirichlet", 100, {"minimum": 11}, "at least 11 each"),
        ("dirichlet", 10, {"minimum": 0}, "at least 1 example"),
        ("dirichlet", 10, {"alpha": 0.0}, "alpha"),
        ("dirichlet", 10, {"alpha": float("nan")}, "alpha"),
        ("dirichlet", 10, {"alpha": float("inf")}, "alpha"),
        ("dirichlet", 10, {"alpha": 1e308}, "alpha"),
        ("dirichlet", 0, {}, "at least 1 client"),
        ("iid", -1, {}, "at least 1 client"),
        ("pathological", 10, {}, "iid, shards, dirichlet"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_impossible_requests(name: str, clients: int, options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        p.partition(name, TARGETS, clients, SeedTree(0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", [TARGETS.astype(np.float32), TARGETS.reshape(2, 500)])
def test_targets_must_be_integers_in_a_row(targets: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="integers of shape"):
        p.iid(targets, 2, SeedTree(0))
