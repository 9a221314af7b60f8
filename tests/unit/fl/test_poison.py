"""Poison in a run: a sum that hides its terms is destroyed by it, a rule on shared updates is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from securefl.errors import ConfigurationError
from securefl.fl.config import load, parse
from securefl.fl.interfaces import Contribution, RoundRecord
from securefl.fl.poison import Poison
from securefl.fl.runner import Run
from securefl.fl.seeds import SeedTree
from securefl.types import PartyId

BASE = {"data": {"clients": 8, "alpha": 1.0}, "training": {"rounds": 3}, "model": {"hidden": [16]}}


def _trained(folder: Path, **sections: object) -> list[RoundRecord]:
    run = Run(parse({**BASE, **sections}), folder)
    return list(run.rounds())


def test_the_same_clients_poison_in_every_round() -> None:
    everyone = [PartyId(i) for i in range(1, 21)]
    chosen = Poison(3).clients(everyone, SeedTree(5))
    assert len(chosen) == 3
    assert chosen == Poison(3).clients(everyone, SeedTree(5))
    assert chosen != Poison(3).clients(everyone, SeedTree(6))
    with pytest.raises(ConfigurationError, match="cannot be drawn"):
        Poison(21).clients(everyone, SeedTree(5))


def test_a_poisoned_update_is_a_multiple() -> None:
    given = Contribution({"w": np.array([1.0, -2.0], dtype=np.float32)}, 7, bytes(32))
    poisoned = Poison(1, -3.0).of(given)
    assert poisoned.tensors["w"].dtype == np.float32
    assert poisoned.tensors["w"].tolist() == [-3.0, 6.0]
    assert (poisoned.weight, poisoned.seed) == (7, bytes(32))


@pytest.mark.parametrize(("count", "factor"), [(0, -1.0), (-1, 2.0), (1, float("nan")), (1, float("inf"))])
def test_poison_that_cannot_be_is_refused(count: int, factor: float) -> None:
    with pytest.raises(ConfigurationError):
        Poison(count, factor)


def test_the_norm_bound_keeps_the_model_that_poison_destroys(tmp_path: Path) -> None:
    poison = {"poisoned": 2}
    clean = _trained(tmp_path / "clean", protection={"method": "plain"}, compression={"chain": []})
    broken = _trained(tmp_path / "broken", protection={"method": "plain"}, compression={"chain": []}, faults=poison)
    kept = _trained(
        tmp_path / "kept",
        protection={"method": "shared", "threshold": 5},
        robust={"rule": "norm_bound", "norm_bound": 3.0},
        faults=poison,
    )
    assert [len(record.survivors) for record in kept] == [6, 6, 6]
    assert kept[-1].accuracy > clean[-1].accuracy - 0.1
    assert broken[-1].accuracy < kept[-1].accuracy - 0.2


def test_a_bound_that_leaves_too_few_fails_the_round_and_not_the_run(tmp_path: Path) -> None:
    records = _trained(tmp_path, protection={"method": "shared"}, robust={"rule": "norm_bound", "norm_bound": 1e-6})
    assert all(record.failed is not None and "TooFewClients" in record.failed for record in records)


def test_the_example_is_a_configuration() -> None:
    config = load(Path(__file__).parents[3] / "examples" / "digits_robust.toml")
    assert config.robust is not None
    assert config.robust.norm_bound == 2.0
    assert config.compression.chain == ()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"protection": {"method": "masked"}}, "shared"),
        ({"robust": {"rule": "norm_bound"}}, "needs norm_bound"),
        ({"robust": {"rule": "median", "faulty": 0.1}}, "faulty has no effect"),
        ({"robust": {"rule": "mode"}}, "rule"),
        ({"compression": {"chain": ["fixed_point"]}}, "chain"),
        ({"privacy": {}}, "privacy"),
        ({"tiers": {}}, "tiers"),
        ({"training": {"algorithm": "scaffold"}}, "scaffold"),
        ({"protection": {"method": "shared", "max_weight": 64}}, "counts once"),
        ({"faults": {"poison_factor": 2.0}}, "without poisoned"),
    ],
)
def test_what_does_not_go_together_is_refused(sections: dict[str, object], words: str) -> None:
    given = {"protection": {"method": "shared"}, "robust": {"rule": "median"}, **sections}
    with pytest.raises(ConfigurationError, match=words):
        parse(given)
