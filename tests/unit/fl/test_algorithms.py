from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from securefl.errors import ConfigurationError
from securefl.fl import models
from securefl.fl.algorithms import Averaging
from securefl.fl.data import from_arrays
from securefl.fl.engine import LocalTask, SequentialEngine
from securefl.fl.seeds import SeedTree
from securefl.fl.training import GradientTerms, LocalTraining
from securefl.types import ClientId, Tensors

RNG = np.random.default_rng(3)
DATA = from_arrays(RNG.standard_normal((12, 4)), np.arange(12) % 3, classes=3)
MODEL = models.build("mlp", input_shape=(4,), classes=3, seeds=SeedTree(1), hidden=(5,))
START = models.tensors_of(MODEL)
ROWS = np.arange(12)


def _update(terms: GradientTerms, epochs: int = 3) -> Tensors:
    task = LocalTask(ClientId(1), ROWS, START, SeedTree(0), terms)
    settings = LocalTraining(epochs=epochs, batch_size=12, learning_rate=0.2)  # full batches: no order to mind
    return SequentialEngine(MODEL, DATA).train(1, [task], settings)[ClientId(1)].update


def test_terms_are_those_of_the_formula() -> None:
    """Three steps on loss + <drift, w> + μ/2 ‖w - anchor‖², by autograd on that very loss."""
    drift = {name: 0.1 * RNG.standard_normal(value.shape).astype(np.float32) for name, value in START.items()}
    anchor = {name: value + np.float32(0.3) for name, value in START.items()}
    models.load_tensors(MODEL, START)
    parameters = dict(MODEL.named_parameters())
    for _ in range(3):
        loss = cross_entropy(MODEL(torch.tensor(DATA.inputs)), torch.tensor(DATA.targets))
        for name, value in parameters.items():
            loss = loss + (value * torch.tensor(drift[name])).sum()
            loss = loss + 0.35 * (value - torch.tensor(anchor[name])).square().sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for value, gradient in zip(parameters.values(), gradients, strict=True):
                value -= 0.2 * gradient
    expected = {name: value.detach().numpy() - START[name] for name, value in parameters.items()}
    update = _update(GradientTerms(drift, 0.7, anchor))
    assert all(np.allclose(update[name], expected[name], atol=1e-6) for name in START)
    assert not np.allclose(update["1.weight"], _update(GradientTerms())["1.weight"], atol=1e-3)


def test_fedprox_holds_clients_near_the_model() -> None:
    def far(proximal: float) -> float:
        (task,) = Averaging(proximal).tasks(1, START, [ClientId(1)], _Workload(), SeedTree(0))  # type: ignore[arg-type]
        results = SequentialEngine(MODEL, DATA).train(1, [task], LocalTraining(epochs=20, batch_size=3))
        return float(np.linalg.norm(results[ClientId(1)].update["1.weight"]))

    assert far(0.0) > 1.2 * far(0.5) > 1.2 * far(2.0)


class _Workload:
    rows = (ROWS,)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="proximal"):
        Averaging(-0.1)
    with pytest.raises(ConfigurationError, match="anchor"):
        _update(GradientTerms(proximal=1.0))
