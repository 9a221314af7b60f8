from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import models
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.seeds import SeedTree
from securefl.fl.stacked import Job, layers_stack, train_stacked, worth_stacking
from securefl.fl.training import ExampleNoise, LocalResult, LocalTraining, torch_threads, train
from securefl.types import ClientId


def _images(n: int = 120) -> Dataset:
    rng = np.random.default_rng(1)
    targets = np.arange(n) % 4
    shapes = rng.standard_normal((4, 8, 8))
    return from_arrays(shapes[targets] + 0.3 * rng.standard_normal((n, 8, 8)), targets)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


DATA = _images()
#: Unequal on purpose: one example, less than a batch, whole batches, a short last batch.
SIZES = (1, 3, 16, 21, 40, 8)
SETTINGS = {
    "sgd": LocalTraining(epochs=2, batch_size=8),
    "momentum": LocalTraining(epochs=3, batch_size=8, learning_rate=0.05, momentum=0.9, weight_decay=0.01),
    "adam": LocalTraining(epochs=2, batch_size=8, learning_rate=0.005, optimizer="adam", weight_decay=0.01),
    "whole": LocalTraining(epochs=1, batch_size=64),
}


def _jobs(seed: int = 0) -> list[Job]:
    ends = np.cumsum(SIZES)
    return [
        Job(ClientId(i), np.arange(end - size, end), SeedTree(seed).child(i))
        for i, (size, end) in enumerate(zip(SIZES, ends, strict=True), start=1)
    ]


def _model(name: str) -> nn.Module:
    return models.build(name, input_shape=(8, 8), classes=4, seeds=SeedTree(3), hidden=(12, 6))


def _one_by_one(module: nn.Module, jobs: list[Job], settings: LocalTraining) -> dict[ClientId, LocalResult]:
    tensors = models.tensors_of(module)
    return {
        job.client: train(module, tensors, DATA, job.rows, settings, job.seed, client=job.client, round=1)
        for job in jobs
    }


def _distance(first: dict[ClientId, LocalResult], second: dict[ClientId, LocalResult]) -> float:
    assert list(first) == list(second)
    largest = 0.0
    for client, result in first.items():
        other = second[client]
        assert (result.weight, result.steps, list(result.update)) == (other.weight, other.steps, list(other.update))
        assert result.loss == pytest.approx(other.loss, abs=1e-6)
        for name, value in result.update.items():
            assert other.update[name].shape == value.shape
            assert other.update[name].dtype == np.float32
            largest = max(largest, float(np.abs(value - other.update[name]).max()))
    return largest


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "logistic"])
def test_same_results_as_the_sequential_loop(name: str, settings: LocalTraining) -> None:
    module = _model(name)
    expected = _one_by_one(module, _jobs(), settings)
    found = train_stacked(module, models.tensors_of(_model(name)), DATA, _jobs(), settings, round=1)
    assert _distance(expected, found) <= 1e-6
    # the comparison can fail: other seeds give other batches
    if settings.batch_size < 64:
        other = train_stacked(module, models.tensors_of(_model(name)), DATA, _jobs(seed=1), settings, round=1)
        assert _distance_of_updates(expected, other) > 1e-4


def _distance_of_updates(first: dict[ClientId, LocalResult], second: dict[ClientId, LocalResult]) -> float:
    return max(
        float(np.abs(value - second[client].update[name]).max())
        for client, result in first.items()
        for name, value in result.update.items()
    )


def test_groups_and_the_order_of_clients_change_nothing_but_rounding() -> None:
    module, settings = _model("cnn"), SETTINGS["momentum"]
    tensors = models.tensors_of(module)
    one = train_stacked(module, tensors, DATA, _jobs(), settings, round=1)
    pairs = train_stacked(module, tensors, DATA, _jobs()[::-1], settings, round=1, group=2)
    assert list(pairs) == list(one)[::-1]
    assert _distance_of_updates(one, pairs) <= 1e-6


def test_the_global_model_and_the_workspace_of_others_stay() -> None:
    module = _model("mlp")
    tensors = models.tensors_of(module)
    before = models.model_hash(tensors)
    train_stacked(module, tensors, DATA, _jobs(), SETTINGS["sgd"], round=1)
    assert models.model_hash(tensors) == before
    assert models.model_hash(models.tensors_of(module)) == before


def test_frozen_parameters() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))
    module[1].weight.requires_grad = False
    module[5].bias.requires_grad = False
    tensors = models.tensors_of(module)
    expected = _one_by_one(module, _jobs(), SETTINGS["sgd"])
    found = train_stacked(module, tensors, DATA, _jobs(), SETTINGS["sgd"], round=1)
    assert "1.weight" not in found[ClientId(1)].update
    assert _distance(expected, found) <= 1e-6


def test_a_client_that_diverges_is_named_and_no_other() -> None:
    inputs = DATA.inputs.copy()
    jobs = _jobs()
    inputs[jobs[3].rows] *= 1e18
    data = Dataset(inputs, DATA.targets, DATA.classes, "scaled")
    module = _model("mlp")
    with pytest.raises(InvalidInputError, match="client 4 in round 7"):
        train_stacked(module, models.tensors_of(module), data, jobs, SETTINGS["sgd"], round=7)


def test_what_cannot_be_stacked() -> None:
    module = _model("mlp")
    tensors = models.tensors_of(module)
    with pytest.raises(ConfigurationError, match="example-level"):
        train_stacked(module, tensors, DATA, _jobs(), LocalTraining(dpsgd=ExampleNoise(1.0, 1.0)), round=1)
    with pytest.raises(ConfigurationError, match="group"):
        train_stacked(module, tensors, DATA, _jobs(), SETTINGS["sgd"], round=1, group=0)
    empty = [Job(ClientId(1), np.arange(0), SeedTree(0))]
    with pytest.raises(InvalidInputError, match="client 1 has no examples"):
        train_stacked(module, tensors, DATA, empty, SETTINGS["sgd"], round=1)


def test_only_layers_that_treat_examples_alone_are_stacked_by_default() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    assert layers_stack(_model("cnn"))
    for layer in (nn.Dropout(0.1), nn.BatchNorm1d(4, track_running_stats=False), Own()):
        assert not layers_stack(nn.Sequential(nn.Linear(2, 4), layer))
        assert not worth_stacking(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), layer), DATA, SETTINGS["sgd"])


def test_large_steps_and_large_models_are_left_to_the_sequential_loop() -> None:
    small, settings = _model("mlp"), SETTINGS["sgd"]
    assert worth_stacking(small, DATA, settings)
    assert not worth_stacking(small, DATA, LocalTraining(batch_size=100_000))
    assert not worth_stacking(models.mlp(64, (512, 64), 4), DATA, settings)
    assert not worth_stacking(small, DATA, LocalTraining(dpsgd=ExampleNoise(1.0, 1.0)))
