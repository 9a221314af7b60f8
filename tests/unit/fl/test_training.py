from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import models
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.scoring import check_fits, evaluate
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalResult, LocalTraining, torch_threads, train
from securefl.types import Tensors


def _blobs(n: int = 90, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return from_arrays(centres[targets] + 0.5 * rng.standard_normal((n, 4)), targets)


DATA = _blobs()
ROWS = np.arange(0, 90, 2)  # 45 examples: batches of 16, 16, 13


def _model() -> nn.Module:
    return models.build("mlp", input_shape=(4,), classes=3, seeds=SeedTree(0), hidden=(8,))


def _train(
    settings: LocalTraining, *, module: nn.Module | None = None, rows: np.ndarray = ROWS, seed: int = 0
) -> LocalResult:
    module = module or _model()
    return train(module, models.tensors_of(module), DATA, rows, settings, SeedTree(seed), client=4, round=9)


def _hash(tensors: Tensors) -> bytes:
    return models.model_hash(tensors)


@pytest.mark.parametrize(
    "settings",
    [
        LocalTraining(),
        LocalTraining(epochs=3, learning_rate=0.05, momentum=0.9, weight_decay=0.01),
        LocalTraining(epochs=2, weight_decay=0.1),
        LocalTraining(epochs=2, learning_rate=0.01, optimizer="adam", weight_decay=0.01),
    ],
    ids=["sgd", "momentum", "decay", "adam"],
)
def test_same_steps_as_torch_optim(settings: LocalTraining) -> None:
    module = _model()
    before = models.tensors_of(module)
    result = _train(settings, module=module)

    reference = _model()
    if settings.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            reference.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            reference.parameters(),
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
    rng, total = SeedTree(0).child("order").numpy(), 0.0
    for _ in range(settings.epochs):
        order, total = ROWS[rng.permutation(len(ROWS))], 0.0
        for start in range(0, len(order), settings.batch_size):
            batch = order[start : start + settings.batch_size]
            optimizer.zero_grad()
            loss = cross_entropy(reference(torch.tensor(DATA.inputs[batch])), torch.tensor(DATA.targets[batch]))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * len(batch)
    after = models.tensors_of(reference)
    for name, update in result.update.items():
        assert update == pytest.approx(after[name] - before[name], abs=1e-6)
    assert result.loss == pytest.approx(total / len(ROWS), rel=1e-5)
    assert (result.weight, result.steps) == (45, 3 * settings.epochs)


def test_deterministic_and_seeded() -> None:
    hashes = [_hash(_train(LocalTraining(), seed=seed).update) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_dropout_layers_are_seeded_and_torch_is_left_alone() -> None:
    def once(seed: int) -> bytes:
        module = models.build(
            lambda: nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 3)),
            input_shape=(4,),
            classes=3,
            seeds=SeedTree(0),
        )
        return _hash(_train(LocalTraining(batch_size=45), module=module, seed=seed).update)

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = once(0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert once(0) == first != once(1)


def test_the_starting_point_is_the_tensors_given() -> None:
    module, tensors = _model(), models.tensors_of(_model())
    before = _hash(tensors)
    results = [
        train(module, tensors, DATA, ROWS, LocalTraining(), SeedTree(0), client=1, round=1).update for _ in range(2)
    ]
    assert _hash(results[0]) == _hash(results[1])  # the second did not start where the first ended
    assert _hash(tensors) == before


class _Custom(nn.Module):
    """A scalar parameter, an unused one, a frozen one, and buffers of two kinds."""

    def __init__(self, *, moving: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.moving = moving
        self.register_buffer("average", torch.zeros(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.average: torch.Tensor
        self.calls: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(x) * self.scale + self.frozen + self.average
        if self.training:
            self.calls += 1
            if self.moving:
                self.average += y.detach().mean(dim=0)
        return y


def test_scalars_unused_and_frozen_parameters() -> None:
    module = _Custom(moving=False)
    result = _train(LocalTraining(), module=module)
    assert list(result.update) == ["scale", "unused", "linear.weight", "linear.bias"]
    assert isinstance(result.update["scale"], np.ndarray)
    assert result.update["scale"].shape == ()
    assert result.update["scale"] != 0
    assert not result.update["unused"].any()
    assert int(module.calls) == 0  # integer buffers are put back


def test_a_floating_buffer_that_moves_is_refused_and_put_back() -> None:
    module = _Custom(moving=True)
    with pytest.raises(ConfigurationError, match="'average'"):
        _train(LocalTraining(), module=module)
    assert not module.average.any()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_that_diverges_names_client_and_round(optimizer: str) -> None:
    with pytest.raises(InvalidInputError, match="client 4 in round 9"):
        _train(LocalTraining(epochs=3, learning_rate=1e30, optimizer=optimizer))  # type: ignore[arg-type]


def test_a_divergence_in_the_very_last_step_is_seen() -> None:
    with pytest.raises(InvalidInputError, match="no longer finite"):
        _train(LocalTraining(batch_size=45, learning_rate=1e30, weight_decay=1e30))


def test_no_examples() -> None:
    with pytest.raises(InvalidInputError, match="client 4 has no examples"):
        _train(LocalTraining(), rows=np.array([], np.int64))


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"learning_rate": 1e31},
        {"optimizer": "lbfgs"},
        {"momentum": 1.0},
        {"momentum": -0.1},
        {"momentum": 0.5, "optimizer": "adam"},
        {"weight_decay": -1.0},
        {"weight_decay": float("nan")},
        {"weight_decay": 1e31},
    ],
    ids=str,
)
def test_bad_settings(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        LocalTraining(**options)  # type: ignore[arg-type]


def test_evaluate() -> None:
    module = _model()
    tensors = models.tensors_of(module)
    whole, pieces = (evaluate(module, tensors, DATA, batch_size=size) for size in (1024, 7))
    assert whole.accuracy == pieces.accuracy
    assert whole.loss == pytest.approx(pieces.loss)
    scores = module(torch.tensor(DATA.inputs))
    assert whole.accuracy == float((scores.argmax(1).numpy() == DATA.targets).mean())
    assert whole.loss == pytest.approx(float(cross_entropy(scores, torch.tensor(DATA.targets)).detach()))
    trained = _train(LocalTraining(epochs=20), module=module).update
    after = evaluate(module, {name: tensors[name] + trained[name] for name in tensors}, DATA)
    assert after.accuracy > 0.95
    assert after.loss < whole.loss


def test_evaluate_takes_read_only_data_and_refuses_infinite_losses() -> None:
    inputs = DATA.inputs.copy()
    inputs.setflags(write=False)
    module = _model()
    tensors = models.tensors_of(module)
    evaluate(module, tensors, Dataset(inputs, DATA.targets, 3, "frozen"))
    huge = {name: np.full_like(value, 3e38) for name, value in tensors.items()}
    with pytest.raises(InvalidInputError, match="no longer finite"):
        evaluate(module, huge, DATA)


def test_check_fits() -> None:
    check_fits(_model(), DATA)
    with pytest.raises(ConfigurationError, match=r"\(1, 2\).*expected \(1, 3\)"):
        check_fits(models.mlp(4, [], 2), DATA)
    with pytest.raises(ConfigurationError, match="does not take examples of shape"):
        check_fits(models.mlp(5, [], 3), DATA)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before
