"""Against other people's accountants and clippers, where they are installed."""

from __future__ import annotations

import logging
import math
import os

import numpy as np
import pytest

from securefl.dp.accountant import event_epsilon
from securefl.dp.calibration import rounds_event

#: A full run takes 200 (about two minutes, nearly all of it the oracle's): SECUREFL_ORACLE_CASES=200.
CASES = int(os.environ.get("SECUREFL_ORACLE_CASES", "12"))


@pytest.mark.parametrize("index", range(CASES))
def test_close_above_dp_accounting(index: int) -> None:
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution", reason="dp-accounting is not installed")
    logging.disable(logging.WARNING)
    rng = np.random.default_rng(index)
    relation = "replace-one" if index % 4 == 3 else "add-remove"
    theirs = pld.NeighborRel.REPLACE_ONE if index % 4 == 3 else pld.NeighborRel.ADD_OR_REMOVE_ONE
    while True:
        sigma, q = math.exp(rng.uniform(math.log(0.4), math.log(12))), math.exp(rng.uniform(math.log(5e-4), 0))
        rounds, delta = int(math.exp(rng.uniform(0, math.log(3000)))), 10 ** rng.uniform(-9, -3)
        found = event_epsilon(rounds_event(sigma, q, rounds), delta, relation)
        if found < 60:  # beyond, the oracle needs minutes
            break

    def oracle(pessimistic: bool) -> float:
        one = pld.from_gaussian_mechanism(
            sigma,
            sampling_prob=q,
            value_discretization_interval=1e-4,
            pessimistic_estimate=pessimistic,
            neighboring_relation=theirs,
        )
        return float(one.self_compose(rounds).get_epsilon_for_delta(delta))

    assert found <= oracle(True) * 1.002 + 1e-6
    assert found >= oracle(False)


def test_unsampled_replacement_agrees_with_their_exact_value() -> None:
    pld = pytest.importorskip("dp_accounting.pld.privacy_loss_distribution", reason="dp-accounting is not installed")
    theirs = pld.from_gaussian_mechanism(1.0, neighboring_relation=pld.NeighborRel.REPLACE_ONE)
    assert event_epsilon(rounds_event(1.0, 1.0, 1), 1e-5, "replace-one") == pytest.approx(
        theirs.get_epsilon_for_delta(1e-5), rel=1e-4
    )


def test_clipped_sums_equal_opacus() -> None:
    torch = pytest.importorskip("torch", reason="torch is an extra")
    opacus = pytest.importorskip("opacus.grad_sample", reason="opacus is not installed")
    from torch import nn
    from torch.nn import functional as F

    from securefl.fl.dpsgd import ClippedGradients

    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )
    x, y = torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    sums, _ = ClippedGradients(model, 0.5).accumulate(x, y, lambda o, t: F.cross_entropy(o, t, reduction="none"))
    hooked = opacus.GradSampleModule(model, loss_reduction="sum")
    F.cross_entropy(hooked(x), y, reduction="sum").backward()
    each = [p.grad_sample for p in hooked.parameters()]
    norms = torch.sqrt(sum(g.flatten(1).square().sum(1) for g in each))
    factors = (0.5 / norms).clamp(max=1.0)
    for mine, theirs in zip(sums, each, strict=True):
        assert torch.allclose(mine, torch.tensordot(factors, theirs, dims=1), atol=1e-6, rtol=1e-5)
