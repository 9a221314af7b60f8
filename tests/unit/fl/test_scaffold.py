from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import models
from securefl.fl.data import from_arrays
from securefl.fl.engine import SequentialEngine
from securefl.fl.scaffold import Scaffold
from securefl.fl.seeds import SeedTree
from securefl.fl.training import ExampleNoise, LocalTraining
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

RNG = np.random.default_rng(3)
DATA = from_arrays(RNG.standard_normal((12, 4)), np.arange(12) % 3, classes=3)
MODEL = models.build("mlp", input_shape=(4,), classes=3, seeds=SeedTree(1), hidden=(5,))
START = models.tensors_of(MODEL)
ROWS = [np.arange(0, 4), np.arange(4, 12)]
WORKLOAD = Workload(MODEL, DATA, DATA, ROWS)
CLIENTS = [ClientId(1), ClientId(2)]
ONE_STEP = LocalTraining(epochs=1, batch_size=8, learning_rate=0.1)


def _gradient(rows: np.ndarray) -> Tensors:
    models.load_tensors(MODEL, START)
    loss = cross_entropy(MODEL(torch.tensor(DATA.inputs[rows])), torch.tensor(DATA.targets[rows]))
    gradients = torch.autograd.grad(loss, list(MODEL.parameters()))
    return {name: value.numpy() for name, value in zip(START, gradients, strict=True)}


def _round(scaffold: Scaffold, survivors: tuple[int, ...] = (1, 2)) -> dict[ClientId, Tensors]:
    """One round that is summed over ``survivors``; what each client sent."""
    tasks = scaffold.tasks(1, START, CLIENTS, WORKLOAD, SeedTree(0))
    results = SequentialEngine(MODEL, DATA).train(1, tasks, ONE_STEP)
    sent = {client: scaffold.sent(result, client) for client, result in results.items()}
    assert list(sent[CLIENTS[0]]) == list(scaffold.sends(START))
    weights = {ClientId(client): len(ROWS[client - 1]) for client in survivors}
    mean = {
        name: np.asarray(sum(weights[c] * sent[c][name].astype(np.float64) for c in weights) / sum(weights.values()))
        for name in sent[CLIENTS[0]]
    }
    assert list(scaffold.received(mean, tuple(weights))) == list(START)
    return sent


def _drifts(scaffold: Scaffold) -> list[Tensors]:
    tasks = scaffold.tasks(2, START, CLIENTS, WORKLOAD, SeedTree(0))
    return [task.terms.drift or {} for task in tasks]


def _close(left: Tensors, right: Tensors) -> bool:
    return list(left) == list(right) and all(np.allclose(left[name], right[name], atol=1e-6) for name in left)


def test_after_one_full_step_the_variates_are_the_gradients() -> None:
    """With K = 1 and full batches option II gives c_i = ∇f_i(x), so c is the gradient of the weighted objective."""
    scaffold = Scaffold(ONE_STEP, 3.0, 2)
    _round(scaffold)
    whole = _gradient(np.arange(12))
    for rows, drift in zip(ROWS, _drifts(scaffold), strict=True):
        own = _gradient(rows)
        assert _close(drift, {name: whole[name] - own[name] for name in own})


def test_with_these_variates_a_step_is_one_on_the_whole_objective() -> None:
    scaffold = Scaffold(ONE_STEP, 3.0, 2)
    _round(scaffold)
    second = _round(scaffold)
    whole = _gradient(np.arange(12))
    for sent in second.values():
        assert _close({name: sent[name] for name in START}, {name: -0.1 * whole[name] for name in START})


def test_a_client_that_was_not_counted_keeps_its_variate() -> None:
    scaffold = Scaffold(ONE_STEP, 3.0, 2)
    _round(scaffold, survivors=(1,))
    first, second = _drifts(scaffold)
    half = {name: value / 2 for name, value in _gradient(ROWS[0]).items()}  # |S| / N = 1/2
    assert _close(second, half)
    assert _close(first, {name: -value for name, value in half.items()})
    scaffold.failed()
    assert _close(_drifts(scaffold)[1], half)


def test_a_failed_round_leaves_everything() -> None:
    scaffold = Scaffold(ONE_STEP, 3.0, 2)
    _round(scaffold)
    before = scaffold.state()
    tasks = scaffold.tasks(2, START, CLIENTS, WORKLOAD, SeedTree(0))
    for client, result in SequentialEngine(MODEL, DATA).train(2, tasks, ONE_STEP).items():
        scaffold.sent(result, client)
    scaffold.failed()
    after = scaffold.state()
    assert list(after) == list(before)
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_state_comes_back_whole() -> None:
    scaffold, again = Scaffold(ONE_STEP, 3.0, 2), Scaffold(ONE_STEP, 3.0, 2)
    _round(scaffold)
    again.restore({"scales": np.zeros(1), **scaffold.state()})
    assert all(_close(left, right) for left, right in zip(_drifts(scaffold), _drifts(again), strict=True))


def test_the_public_factor_cancels() -> None:
    """It sets the range that a variate fills, nothing else."""
    small, large = Scaffold(ONE_STEP, 1.0, 2), Scaffold(ONE_STEP, 8.0, 2)
    sent = _round(small)[CLIENTS[0]]["control 1.bias"], _round(large)[CLIENTS[0]]["control 1.bias"]
    assert np.allclose(8 * sent[0], sent[1])
    assert all(_close(left, right) for left, right in zip(_drifts(small), _drifts(large), strict=True))


def test_what_does_not_fit_is_refused() -> None:
    for settings in (
        LocalTraining(optimizer="adam"),
        LocalTraining(momentum=0.5),
        LocalTraining(weight_decay=0.1),
        LocalTraining(dpsgd=ExampleNoise(1.0, 1.0)),
    ):
        with pytest.raises(ConfigurationError, match="plain sgd"):
            Scaffold(settings, 1.0, 2)
    with pytest.raises(ConfigurationError, match="steps"):
        Scaffold(ONE_STEP, 0.0, 2)
    scaffold = Scaffold(ONE_STEP, 1.0, 2)
    scaffold.tasks(1, START, CLIENTS, WORKLOAD, SeedTree(0))
    with pytest.raises(InvalidInputError, match="lacks"):
        scaffold.received(START, (1, 2))
    with pytest.raises(InvalidInputError, match="not finite"):
        scaffold.received({name: value + np.nan for name, value in scaffold.sends(START).items()}, (1, 2))
