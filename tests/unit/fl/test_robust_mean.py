"""Training under rules on shares: poison is dropped or outvoted, and the rest is the mean in the clear."""

import os

import numpy as np
import pytest

from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl.dropouts import Dropouts
from securefl.fl.interfaces import Contribution
from securefl.fl.robust_mean import RULES, RobustMean
from securefl.fl.seeds import SeedTree

GRID = FixedPoint(1.0, 16)
STEP = 1.0 / (GRID.max_value // 2)


def contributions(clients=8, poisoned=(), seed=0):
    rng = np.random.default_rng(seed)
    given = {}
    for client in range(1, clients + 1):
        update = {"w": rng.normal(0.2, 0.05, (6, 5)).astype(np.float32), "b": rng.normal(0, 0.05, 3).astype(np.float32)}
        if client in poisoned:
            update = {name: np.full_like(value, -1.0) for name, value in update.items()}
        given[client] = Contribution(update, 10, os.urandom(32))
    return given


def flat(tensors):
    return np.concatenate([value.reshape(-1) for value in tensors.values()])


def test_the_norm_bound_drops_the_poisoned_and_the_rest_is_their_mean():
    given = contributions(poisoned=(4,))
    aggregator = RobustMean("norm_bound", 3, GRID, norm_bound=2.0)
    aggregate = aggregator.aggregate(1, bytes(32), given)
    assert aggregate.survivors == (1, 2, 3, 5, 6, 7, 8)
    assert aggregator.refused == {1: (4,)}
    assert aggregate.total_weight == 7
    plain = np.mean([flat(given[client].tensors) for client in aggregate.survivors], axis=0)
    assert np.abs(flat(aggregate.mean) - plain).max() < STEP
    assert {name: value.shape for name, value in aggregate.mean.items()} == {"w": (6, 5), "b": (3,)}


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "multi_krum"])
def test_rules_outvote_poison_within_the_range(rule):
    given = contributions(poisoned=(2, 7))
    aggregate = RobustMean(rule, 3, GRID, faulty=0.25).aggregate(1, bytes(32), given)
    honest = np.stack([flat(given[client].tensors) for client in given if client not in (2, 7)])
    assert (flat(aggregate.mean) >= honest.min(axis=0) - STEP).all()
    assert (flat(aggregate.mean) <= honest.max(axis=0) + STEP).all()
    if rule == "median":
        everyone = np.stack([flat(each.tensors) for each in given.values()])
        assert np.abs(flat(aggregate.mean) - np.median(everyone, axis=0)).max() < 2 * STEP


def test_bytes_are_a_word_per_value_and_a_seal():
    aggregate = RobustMean("median", 2, GRID).aggregate(1, bytes(32), contributions())
    assert aggregate.vector_bytes[1] == 8 * 33 + 72
    assert aggregate.upload_bytes[1] == 8 * 33 + 72 + 1168 + 72


def test_dropouts_are_left_out_and_too_few_open_nothing():
    aggregator = RobustMean("median", 2, GRID, dropouts=Dropouts(0.5, SeedTree(3)))
    aggregate = aggregator.aggregate(1, bytes(32), contributions())
    assert 2 <= len(aggregate.survivors) < 8
    with pytest.raises(TooFewClientsError):
        RobustMean("norm_bound", 8, GRID, norm_bound=2.0).aggregate(1, bytes(32), contributions(poisoned=(1,)))


@pytest.mark.parametrize(
    "given",
    [
        {"rule": "sum"},
        {"rule": "norm_bound"},
        {"rule": "norm_bound", "norm_bound": 0.0},
        {"rule": "median", "faulty": 0.5},
    ],
)
def test_what_cannot_work_is_refused(given):
    with pytest.raises(ConfigurationError):
        RobustMean(**{"threshold": 2, "grid": GRID, **given})


def test_values_that_are_no_update_name_the_client():
    given = contributions()
    given[3].tensors["b"][0] = np.nan
    with pytest.raises(InvalidInputError, match="client 3"):
        RobustMean("median", 2, GRID).aggregate(1, bytes(32), given)


def test_a_grid_whose_squares_do_not_fit_is_found_beforehand():
    tensors = {"w": np.zeros(2**12, np.float32)}
    RobustMean("median", 2, GRID).check(tensors, [1, 2])
    with pytest.raises(ConfigurationError, match="fewer value bits"):
        RobustMean("median", 2, FixedPoint(1.0, 28)).check(tensors, [1, 2])


@pytest.mark.parametrize(
    "rule", [rule if rule == "norm_bound" else pytest.param(rule, marks=pytest.mark.slow) for rule in RULES]
)
def test_training_under_poison(rule):
    """Two of ten clients send the opposite of what they learned, tenfold; the plain mean would go backwards."""
    pytest.importorskip("sklearn")
    from securefl.fl.config import parse
    from securefl.fl.fedavg import FedAvg
    from securefl.fl.workload import local_training, prepare

    config = parse(
        {"data": {"clients": 10, "partition": "iid"}, "model": {"hidden": [16]}, "training": {"local_epochs": 2}}
    )
    workload = prepare(config)

    class Poisoned:
        def __init__(self, inner):
            self.inner = inner

        def aggregate(self, round, model_hash, contributions):
            for client in (3, 8):
                for value in contributions[client].tensors.values():
                    value *= -10
            return self.inner.aggregate(round, model_hash, contributions)

    aggregator = RobustMean(rule, 3, GRID, norm_bound=4.0 if rule == "norm_bound" else None, faulty=0.2)
    aggregator.check({name: value.detach().numpy() for name, value in workload.model.named_parameters()}, range(1, 11))
    run = FedAvg(workload, Poisoned(aggregator), local_training(config), rounds=3, seed=0)
    assert run.run().accuracy > 0.7
