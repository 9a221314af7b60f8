from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import models
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.engine import LocalTask, SequentialEngine
from securefl.fl.seeds import SeedTree
from securefl.fl.stacked import StackedEngine, layers_stack, worth_stacking
from securefl.fl.training import ExampleNoise, GradientTerms, LocalResult, LocalTraining, torch_threads
from securefl.types import ClientId, Tensors


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


def _tasks(start: Tensors, seed: int = 0) -> list[LocalTask]:
    ends = np.cumsum(SIZES)
    return [
        LocalTask(ClientId(i), np.arange(end - size, end), start, SeedTree(seed).child(i))
        for i, (size, end) in enumerate(zip(SIZES, ends, strict=True), start=1)
    ]


def _model(name: str) -> nn.Module:
    return models.build(name, input_shape=(8, 8), classes=4, seeds=SeedTree(3), hidden=(12, 6))


def _both(
    module: nn.Module, tasks: list[LocalTask], settings: LocalTraining
) -> tuple[dict[ClientId, LocalResult], dict[ClientId, LocalResult]]:
    return (
        SequentialEngine(module, DATA).train(1, tasks, settings),
        StackedEngine(module, DATA).train(1, tasks, settings),
    )


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
def test_same_results_as_the_sequential_engine(name: str, settings: LocalTraining) -> None:
    module = _model(name)
    start = models.tensors_of(module)
    expected, found = _both(module, _tasks(start), settings)
    assert _distance(expected, found) <= 1e-6
    if settings.batch_size < 64:  # the comparison can fail: other seeds give other batches
        other = StackedEngine(module, DATA).train(1, _tasks(start, seed=1), settings)
        assert _distance_of_updates(expected, other) > 1e-4


@pytest.mark.parametrize("settings", [SETTINGS["momentum"], SETTINGS["adam"]], ids=["momentum", "adam"])
def test_starts_terms_and_limits_of_each_client(settings: LocalTraining) -> None:
    module = _model("mlp")
    start = models.tensors_of(module)
    rng = np.random.default_rng(0)

    def near(size: float) -> Tensors:
        return {
            name: (value + size * rng.standard_normal(value.shape)).astype(np.float32) for name, value in start.items()
        }

    plain, *others = _tasks(start)
    changed = [
        replace(others[0], terms=GradientTerms(drift={k: v - start[k] for k, v in near(0.01).items()})),
        replace(others[1], terms=GradientTerms(proximal=0.5, anchor=near(0.1))),
        replace(others[2], limit=2),
        replace(others[3], start=near(0.1), limit=4, terms=GradientTerms(proximal=0.1, anchor=start)),
        others[4],
    ]
    expected, found = _both(module, [plain, *changed], settings)
    assert _distance(expected, found) <= 1e-6
    without, _ = _both(module, [plain, *others], settings)
    assert all(_distance_of_updates({c: without[c]}, expected) > 1e-5 for c in (2, 3, 4, 5))


def test_a_fixed_number_of_steps() -> None:
    module = _model("mlp")
    expected, found = _both(module, _tasks(models.tensors_of(module)), LocalTraining(steps=7, batch_size=8))
    assert {result.steps for result in found.values()} == {7}
    assert _distance(expected, found) <= 1e-6


def _distance_of_updates(first: dict[ClientId, LocalResult], second: dict[ClientId, LocalResult]) -> float:
    return max(
        float(np.abs(value - second[client].update[name]).max())
        for client, result in first.items()
        for name, value in result.update.items()
    )


def test_groups_and_the_order_of_clients_change_nothing_but_rounding() -> None:
    module, settings = _model("cnn"), SETTINGS["momentum"]
    tasks = _tasks(models.tensors_of(module))
    one = StackedEngine(module, DATA).train(1, tasks, settings)
    turned = StackedEngine(module, DATA).train(1, tasks[::-1], settings)
    assert list(turned) == list(one)[::-1]
    assert _distance_of_updates(one, turned) == 0
    pairs = StackedEngine(module, DATA, group=2).train(1, tasks, settings)
    assert _distance_of_updates(one, pairs) <= 1e-6


def test_the_models_given_stay() -> None:
    module = _model("mlp")
    start = models.tensors_of(module)
    before = models.model_hash(start)
    StackedEngine(module, DATA).train(1, _tasks(start), SETTINGS["sgd"])
    assert models.model_hash(start) == before


def test_frozen_parameters() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))
    module[1].weight.requires_grad = False
    module[5].bias.requires_grad = False
    expected, found = _both(module, _tasks(models.tensors_of(module)), SETTINGS["sgd"])
    assert "1.weight" not in found[ClientId(1)].update
    assert _distance(expected, found) <= 1e-6


def test_a_client_that_diverges_is_named_and_no_other() -> None:
    module = _model("mlp")
    tasks = _tasks(models.tensors_of(module))
    inputs = DATA.inputs.copy()
    inputs[tasks[3].rows] *= 1e18
    data = Dataset(inputs, DATA.targets, DATA.classes, "scaled")
    with pytest.raises(InvalidInputError, match="client 4 in round 7"):
        StackedEngine(module, data).train(7, tasks, SETTINGS["sgd"])


def test_what_cannot_be_stacked() -> None:
    module = _model("mlp")
    tasks = _tasks(models.tensors_of(module))
    with pytest.raises(ConfigurationError, match="example-level"):
        StackedEngine(module, DATA).train(1, tasks, LocalTraining(dpsgd=ExampleNoise(1.0, 1.0)))
    with pytest.raises(ConfigurationError, match="group"):
        StackedEngine(module, DATA, group=0).train(1, tasks, SETTINGS["sgd"])
    with pytest.raises(ConfigurationError, match="anchor"):
        StackedEngine(module, DATA).train(1, [replace(tasks[0], terms=GradientTerms(proximal=1.0))], SETTINGS["sgd"])
    with pytest.raises(InvalidInputError, match="client 1 has no examples"):
        StackedEngine(module, DATA).train(1, [replace(tasks[0], rows=np.arange(0))], SETTINGS["sgd"])
    assert StackedEngine(module, DATA).train(1, [], SETTINGS["sgd"]) == {}


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(4, track_running_stats=False), nn.Dropout1d()])
def test_layers_that_mix_examples_or_draw_are_refused_even_when_asked_for(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), layer)
    with pytest.raises(ConfigurationError, match="sequential"):
        StackedEngine(module, DATA).train(1, _tasks(models.tensors_of(module)), SETTINGS["sgd"])


def test_a_forward_that_looks_at_its_values_is_refused_by_name() -> None:
    class Peeking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.linear(x.flatten(1))
            return -scores if scores.sum() > 0 else scores

    module = Peeking()
    with pytest.raises(ConfigurationError, match="cannot train this model"):
        StackedEngine(module, DATA).train(1, _tasks(models.tensors_of(module)), SETTINGS["sgd"])


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
