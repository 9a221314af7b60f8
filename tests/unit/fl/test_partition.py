from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import partition as p
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree

TARGETS = np.repeat(np.arange(10), 100)
INPUTS = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
DATA = Dataset(INPUTS, TARGETS, 10, "made", np.arange(1000) // 25)


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
    inputs = np.linspace(-1, 1, 3 * len(labels)).reshape(-1, 3).astype(np.float32)
    groups = labels // 2
    dataset = Dataset(inputs, labels, 5, "made", groups)
    least = {"iid": 1, "shards": 2, "natural": 1}.get(name, minimum or 1)
    try:
        parts = p.partition(name, dataset, clients, SeedTree(seed), alpha=alpha, minimum=minimum, exponent=alpha % 7)
    except ConfigurationError:
        too_few = clients * least > len(labels)
        assert (
            too_few or (name == "natural" and clients > len(set(groups))) or (name == "features" and len(labels) < 10)
        )
        return
    assert clients * least <= len(labels)
    assert len(parts) == clients
    assert min(map(len, parts)) >= least
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@pytest.mark.parametrize("name", p.NAMES)
def test_the_seed_decides(name: str) -> None:
    first, again, other = (p.partition(name, DATA, 20, SeedTree(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert (name == "natural") == all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


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
        p.partition(name, DATA, clients, SeedTree(0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", [TARGETS.astype(np.float32), TARGETS.reshape(2, 500)])
def test_targets_must_be_integers_in_a_row(targets: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="integers of shape"):
        p.iid(targets, 2, SeedTree(0))


def test_quantity_sizes_follow_the_power_law() -> None:
    sizes = sorted((len(part) for part in p.quantity(TARGETS, 4, SeedTree(0), exponent=1.0)), reverse=True)
    assert np.allclose(np.array(sizes) / 1000, np.array([12, 6, 4, 3]) / 25, atol=2e-3)
    assert {len(part) for part in p.quantity(TARGETS, 4, SeedTree(0), exponent=0.0)} == {250}
    steep = [len(part) for part in p.quantity(TARGETS, 20, SeedTree(0), exponent=6.0, minimum=7)]
    assert min(steep) == 7


def test_quantity_leaves_the_classes_alone() -> None:
    parts = p.quantity(TARGETS, 4, SeedTree(0), exponent=1.0)
    for part in parts:
        share = np.bincount(TARGETS[part], minlength=10) / len(part)
        assert abs(share - 0.1).max() < 0.09


def test_features_differ_in_their_main_direction_and_classes_do_not() -> None:
    inputs = INPUTS * np.array([9, 1, 1, 1], np.float32)
    parts = p.features(inputs, 10, SeedTree(0), alpha=0.1)
    means = np.array([inputs[part].mean(axis=0) for part in parts])
    assert means[:, 0].std() > 4
    assert means[:, 1:].std(axis=0).max() < 0.5
    even = np.array([inputs[part].mean(axis=0) for part in p.features(inputs, 10, SeedTree(0), alpha=1e6)])
    assert even[:, 0].std() < 1.5


def test_natural_groups_stay_whole_and_sizes_are_even() -> None:
    groups = np.repeat(np.arange(7), [100, 5, 40, 40, 30, 30, 55])
    parts = p.natural(groups, 3)
    assert all(len(set(groups[part]) & set(groups[other])) == 0 for part, other in pairwise(parts))
    assert sorted(len(part) for part in parts) == [90, 100, 110]
    with pytest.raises(ConfigurationError, match="7 groups, too few for 8"):
        p.natural(groups, 8)
    with pytest.raises(ConfigurationError, match="no groups of its own"):
        p.partition("natural", Dataset(INPUTS, TARGETS, 10, "made"), 3, SeedTree(0))


def test_vertical_divides_the_columns() -> None:
    parts = p.vertical(30, 4, SeedTree(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(30))
    assert {len(part) for part in parts} == {7, 8}
    assert all(np.all(np.diff(part) > 0) for part in parts)
    with pytest.raises(ConfigurationError, match="30 columns"):
        p.vertical(30, 31, SeedTree(0))
