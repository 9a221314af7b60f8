"""Runs of unequal clients: what a client trains, what is summed, what stays closed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl import models
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.augmentation import Augmentation
from securefl.fl.config import Config, parse
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.engine import LocalTask
from securefl.fl.interfaces import Contribution
from securefl.fl.protections import protection_named
from securefl.fl.runner import Run
from securefl.fl.scoring import evaluate
from securefl.fl.seeds import SeedTree
from securefl.fl.tiered import TieredAggregator
from securefl.fl.tiered_engine import TieredEngine, evaluate_tiers
from securefl.fl.tiers import TierPlan
from securefl.fl.training import GradientTerms, LocalTraining, torch_threads, train
from securefl.machine import Protection
from securefl.types import ClientId, Tensors


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def _data() -> Dataset:
    rng = np.random.default_rng(0)
    targets = np.arange(160) % 4
    return from_arrays(np.eye(4)[targets] @ rng.standard_normal((4, 6)) + 0.3 * rng.standard_normal((160, 6)), targets)


DATA = _data()
MODULE = models.build("mlp", input_shape=(6,), classes=4, seeds=SeedTree(0), hidden=(8, 8))
START = models.tensors_of(MODULE)
TIERS = {ClientId(i): tier for i, tier in enumerate((1, 1, 2, 2, 3, 3, 3, 1), start=1)}
SETTINGS = LocalTraining(epochs=2, batch_size=8)


def _plan(kind: str = "width", *, nested: bool = False) -> TierPlan:
    sizes = (1, 2) if kind == "depth" else (0.25, 0.5, 1.0)
    tiers = {client: min(tier, len(sizes)) for client, tier in TIERS.items()}
    return TierPlan(MODULE, (6,), kind, sizes, tiers, nested=nested)  # type: ignore[arg-type]


def _tasks() -> list[LocalTask]:
    return [LocalTask(c, np.arange(c - 1, 160, 8), START, SeedTree(3).child(c)) for c in TIERS]


@pytest.mark.parametrize("kind", ["width", "rolling", "depth"])
def test_a_client_trains_its_slice_as_a_model_of_its_own(kind: str) -> None:
    plan, round = _plan(kind), 7
    results = TieredEngine(plan, DATA).train(round, _tasks(), SETTINGS)
    for task in _tasks():
        part = plan.slices(round)[plan.tiers[task.client] - 1]
        taken = part.take(START)
        start = {name: taken[name] for name, _ in part.module.named_parameters()}
        alone = train(part.module, start, DATA, task.rows, SETTINGS, task.seed, client=task.client, round=round)
        update = results[task.client].update
        found = part.take(update)
        assert max(float(np.abs(found[name] - value).max()) for name, value in alone.update.items()) < 1e-6
        assert results[task.client].loss == pytest.approx(alone.loss, abs=1e-5)
        assert (results[task.client].steps, results[task.client].weight) == (alone.steps, alone.weight)
        outside = part.mask(START)
        assert not any(value[~outside[name]].any() for name, value in update.items())


def test_images_are_varied_as_a_model_of_its_own_would_see_them() -> None:
    data = replace(DATA, inputs=np.ascontiguousarray(DATA.inputs[:, :4]))
    module = models.build("mlp", input_shape=(4,), classes=4, seeds=SeedTree(0), hidden=(8,))
    start = models.tensors_of(module)
    plan = TierPlan(module, (4,), "width", (0.5, 1.0), {ClientId(1): 2}, nested=False)
    task = LocalTask(ClientId(1), np.arange(40), start, SeedTree(3))
    settings = replace(SETTINGS, augmentation=Augmentation(shift=0.4))
    found = TieredEngine(plan, data).train(1, [task], settings)[task.client].update
    alone = train(module, start, data, task.rows, settings, task.seed, client=1, round=1)
    assert max(float(np.abs(found[name] - value).max()) for name, value in alone.update.items()) < 1e-6


def test_nested_training_moves_the_smaller_slices_too_and_nothing_outside() -> None:
    plan = _plan(nested=True)
    own = TieredEngine(_plan(), DATA).train(1, _tasks(), SETTINGS)
    results = TieredEngine(plan, DATA).train(1, _tasks(), SETTINGS)
    for client, tier in TIERS.items():
        outside = plan.slices(1)[tier - 1].mask(START)
        assert not any(value[~outside[name]].any() for name, value in results[client].update.items())
        same = all(np.array_equal(value, own[client].update[name]) for name, value in results[client].update.items())
        assert same == (tier == 1)


def test_only_plain_sgd_trains_slices() -> None:
    engine = TieredEngine(_plan(), DATA)
    for settings in (
        replace(SETTINGS, momentum=0.5),
        replace(SETTINGS, optimizer="adam"),
        replace(SETTINGS, weight_decay=1),
    ):
        with pytest.raises(ConfigurationError, match="plain sgd"):
            engine.train(1, _tasks(), settings)
    with pytest.raises(ConfigurationError, match="fedprox"):
        engine.train(1, [replace(_tasks()[0], terms=GradientTerms(proximal=1.0, anchor=START))], SETTINGS)
    with pytest.raises(InvalidInputError, match="no examples"):
        engine.train(1, [replace(_tasks()[0], rows=np.arange(0))], SETTINGS)
    with pytest.raises(InvalidInputError, match="client 1 in round 4 is no longer finite"):
        engine.train(4, _tasks(), replace(SETTINGS, learning_rate=1e20))


def test_evaluation_of_slices() -> None:
    plan = _plan()
    found = evaluate_tiers(plan, START, DATA)
    assert found[2] == evaluate(MODULE, START, DATA)
    assert len(set(found)) == 3


# ---- sums -----------------------------------------------------------------------------------------------------------


def _aggregator(protection: Protection, plan: TierPlan | None = None, minimum: int = 2) -> TieredAggregator:
    return TieredAggregator(protection, 5, plan or _plan(), minimum, FixedPoint(1.0, 16), 64)


def _contributions(plan: TierPlan, clients: list[ClientId] | None = None) -> dict[ClientId, Contribution]:
    results = TieredEngine(plan, DATA).train(1, _tasks(), SETTINGS)
    return {
        client: Contribution(results[client].update, 10 + client, bytes([client]) * 32)
        for client in (clients or list(TIERS))
    }


def _flat(tensors: Tensors) -> np.ndarray:
    return np.concatenate([value.reshape(-1) for value in tensors.values()]).astype(np.float64)


@pytest.mark.parametrize("kind", ["width", "rolling", "depth"])
def test_every_protection_is_plain_bit_for_bit_and_the_mean_of_the_holders(kind: str) -> None:
    plan = _plan(kind)
    contributions = _contributions(plan)
    means = {}
    for name in ("plain", "masked", "shared", *(["ckks"] if find_spec("tenseal") else [])):
        aggregate = _aggregator(protection_named(name, "x25519"), plan).aggregate(1, bytes(32), contributions)
        means[name] = aggregate.mean
        assert aggregate.survivors == tuple(TIERS)
        assert aggregate.total_weight == sum(given.weight for given in contributions.values())
    for protected in means.values():
        assert all(np.array_equal(value, protected[name]) for name, value in means["plain"].items())
    found = _flat(means["plain"])
    for tier, places in enumerate(plan.positions(1), start=1):
        holders = [client for client in TIERS if plan.tiers[client] >= tier]
        weight = sum(contributions[client].weight for client in holders)
        wanted = sum(_flat(contributions[client].tensors)[places] * contributions[client].weight for client in holders)
        # a value is off by less than a step of the grid, scaled to max_weight
        assert np.abs(found[places] - wanted / weight).max() < len(holders) * 64 / weight / (2**15 - 1)


def test_a_shell_of_too_few_keeps_its_old_value() -> None:
    plan = _plan()
    present = [client for client, tier in TIERS.items() if tier < 3 or client == 5]
    aggregate = _aggregator(protection_named("masked", "x25519"), plan).aggregate(
        1, bytes(32), _contributions(plan, present)
    )
    mean = _flat(aggregate.mean)
    first, second, third = plan.positions(1)
    assert mean[first].any()
    assert mean[second].any()
    assert not mean[third].any()
    assert _flat(_contributions(plan)[ClientId(5)].tensors)[third].any()


def test_uploads_are_proportional_to_the_slices() -> None:
    module = models.build("mlp", input_shape=(64,), classes=10, seeds=SeedTree(0), hidden=(128, 64))
    plan = TierPlan(module, (64,), "width", (0.25, 0.5, 1.0), TIERS)
    whole = models.tensors_of(module)
    given = {
        client: Contribution({name: np.zeros_like(value) for name, value in whole.items()}, 20, bytes(32))
        for client in TIERS
    }
    aggregate = _aggregator(protection_named("masked", "x25519"), plan).aggregate(1, bytes(32), given)
    for client, tier in TIERS.items():
        share = aggregate.vector_bytes[client] / aggregate.vector_bytes[ClientId(5)]
        assert share == pytest.approx(plan.parameters(tier) / plan.parameters(3), abs=0.06)


def test_what_cannot_be_summed() -> None:
    plan = _plan()
    if find_spec("tenseal"):
        with pytest.raises(ConfigurationError, match="threshold key model has no shells"):
            _aggregator(protection_named("ckks", key_model="threshold"), plan).check(START, list(TIERS))
    masked = protection_named("masked", "x25519")
    with pytest.raises(ConfigurationError, match="max_weight"):
        TieredAggregator(masked, 5, plan, 2, FixedPoint(1.0, 4), 64).check(START, list(TIERS))
    for name in ("masked", "plain"):  # what everybody holds opens, or nothing does
        few = {client: _contributions(plan)[client] for client in list(TIERS)[:5]}
        with pytest.raises(TooFewClientsError, match="fewer than 6"):
            _aggregator(protection_named(name, "x25519"), plan, minimum=6).aggregate(1, bytes(32), few)
    with pytest.raises(ConfigurationError, match="--shadow"):
        aggregator_of(parse({"tiers": {}, "protection": {"method": "plain"}}), 64, shadow=True, tiers=plan)
    wrong = {**_contributions(plan), ClientId(3): Contribution(START, 65, bytes(32))}
    with pytest.raises(InvalidInputError, match="client 3, round 1: a weight"):
        _aggregator(masked, plan).aggregate(1, bytes(32), wrong)


# ---- configuration and runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tiers": {"sizes": [0.5, 1]}}, "one of each per tier"),
        ({"tiers": {"sizes": [0.5, 0.25, 1]}}, "ascending"),
        ({"tiers": {"sizes": [0.25, 0.5, 0.9]}}, "the last of sizes is 1"),
        ({"tiers": {"slices": "depth"}}, "numbers of hidden layers"),
        ({"tiers": {"minimum_holders": 1}}, "minimum_holders"),
        ({"tiers": {"minimum_holders": 13}}, "more than"),
        ({"tiers": {}, "compression": {"chain": ["rotated"]}}, "compression"),
        ({"tiers": {}, "privacy": {}}, "privacy"),
        ({"tiers": {}, "personalization": {}}, "personalization"),
        ({"tiers": {}, "protection": {"method": "ckks", "key_model": "threshold"}}, "threshold"),
        ({"tiers": {}, "training": {"algorithm": "fedprox"}}, "fedprox"),
        ({"tiers": {}, "training": {"optimizer": "adam"}}, "adam"),
        ({"tiers": {}, "training": {"server_momentum": 0.5}}, "server_momentum"),
        ({"tiers": {}, "training": {"engine": "stacked"}}, "stacked"),
    ],
)
def test_configurations_that_are_refused(values: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(values)


def test_a_run_with_tiers_masked_plain_and_resumed(tmp_path) -> None:
    values = {
        "data": {"clients": 6},
        "model": {"hidden": [16]},
        "training": {"rounds": 3},
        "protection": {"suite": "x25519"},
        "faults": {"dropout": 0.1},
        "tiers": {"minimum_holders": 2},
    }
    hashes = set()
    for method in ("masked", "shared", "plain"):
        run = Run(parse(values).with_overrides(protect=method), tmp_path / method)
        list(run.rounds())
        finished = run.finish()
        hashes.add(finished.result.model_hash)
        assert [tier.clients for tier in finished.tiers] == [2, 2, 2]
        assert [tier.parameters for tier in finished.tiers] == [4 * 65 + 50, 8 * 65 + 90, 16 * 65 + 170]
        assert finished.tiers[2].accuracy == finished.result.accuracy
        assert finished.result.records[0].model_bytes == 4 * (310 + 610 + 1210) // 3
    resumed = Run(parse(values).with_overrides(rounds=2), tmp_path / "broken")
    list(resumed.rounds())
    again = Run(parse(values), tmp_path / "broken", resume=True)
    list(again.rounds())
    hashes.add(again.finish().result.model_hash)
    assert len(hashes) == 1
    assert Config().tiers is None
