"""Training part by part: what is trained, what is sent, and that the parts make up the model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError
from securefl.fl import models
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.decomposition import cut_parts, train_by_parts, training_values
from securefl.fl.fedavg import FedAvg
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining, torch_threads
from securefl.fl.workload import Workload


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def _rings(n: int = 240) -> Dataset:
    """Not linearly separable: a ring around a blob, beside another blob."""
    rng, targets = np.random.default_rng(0), np.arange(n) % 3
    radius = np.array([0.5, 2.0, 0.5])[targets] + 0.15 * rng.standard_normal(n)
    angle = rng.uniform(0, 2 * np.pi, n)
    points = (
        radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        + np.array([4.0, 0]) * (targets == 2)[:, None]
    )
    return from_arrays(points, targets)


DATA = _rings()


def _workload(hidden: tuple[int, ...] = (24, 16)) -> Workload:
    model = models.build("mlp", input_shape=(2,), classes=3, seeds=SeedTree(0), hidden=hidden)
    return Workload(model, DATA, DATA, [np.arange(i, 240, 4) for i in range(4)])


def _aggregator(method: str = "plain") -> ProtectedAggregator:
    return ProtectedAggregator(protection_named(method, "x25519"), 3, FixedPoint(2.0, 20), 64)


def test_parts_are_the_models_layers_in_order() -> None:
    model = _workload().model
    for count in (1, 2, 3):
        parts = cut_parts(model, count)
        assert [layer for part in parts for layer in part] == list(model)
        assert all(any(True for _ in part.parameters()) for part in parts)
    for bad in (0, 4):
        with pytest.raises(ConfigurationError, match="1 to 3 parts"):
            cut_parts(model, bad)
    with pytest.raises(ConfigurationError, match="Sequential"):
        cut_parts(nn.Linear(2, 3), 1)


def test_the_model_is_trained_and_the_callers_stays() -> None:
    workload = _workload()
    before = models.model_hash(models.tensors_of(workload.model))
    trained = train_by_parts(workload, 3, _aggregator(), LocalTraining(steps=20), rounds=12)
    assert models.model_hash(models.tensors_of(workload.model)) == before
    assert trained.accuracy == trained.parts[-1].accuracy > 0.9
    linear = models.logistic_regression(2, 3)
    alone = FedAvg(Workload(linear, DATA, DATA, workload.rows), _aggregator(), LocalTraining(steps=20), rounds=36).run()
    assert trained.accuracy > alone.accuracy + 0.1  # the parts before the last one do learn something
    names = [name for name, _ in trained.model.named_parameters()]
    assert names == [name for name, _ in workload.model.named_parameters()]


def test_one_part_is_ordinary_training() -> None:
    workload = _workload()
    seeds = SeedTree(5)
    trained = train_by_parts(workload, 1, _aggregator(), LocalTraining(), rounds=3, seed=seeds)
    whole = FedAvg(workload, _aggregator(), LocalTraining(), rounds=3, seed=seeds.child("part", 1)).run()
    assert models.model_hash(models.tensors_of(trained.model)).hex() == whole.model_hash


def test_finished_parts_stay_and_only_the_part_in_training_is_sent() -> None:
    workload = _workload((8, 8))
    two = train_by_parts(workload, 2, _aggregator("masked"), LocalTraining(), rounds=2)
    plain = train_by_parts(workload, 2, _aggregator("plain"), LocalTraining(), rounds=2)
    assert models.model_hash(models.tensors_of(two.model)) == models.model_hash(models.tensors_of(plain.model))
    first, second = two.parts
    assert (first.parameters, second.parameters) == (3 * 8 + 9 * 3, 9 * 8 + 9 * 3)
    more = train_by_parts(workload, 2, _aggregator(), LocalTraining(learning_rate=0.01), rounds=1)
    assert not torch.equal(two.model[1].weight, more.model[1].weight)
    whole = FedAvg(workload, _aggregator(), LocalTraining(), rounds=1).run()
    assert max(part.upload_bytes or 0 for part in plain.parts) < (whole.records[0].upload_bytes_per_client or 0)


def test_values_while_training() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    # parameters and gradients; per example the input and what each of the four layers gives
    assert training_values(module, (2, 3), 5) == 2 * (28 + 10) + 5 * (6 + 6 + 4 + 4 + 2)
    module[1].weight.requires_grad = False
    assert training_values(module, (2, 3), 5) == 2 * (4 + 10) + 5 * 22
