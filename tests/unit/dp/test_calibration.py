"""Calibration returns values that meet their target, and no more than needed."""

from __future__ import annotations

import pytest

import securefl.dp as dp
from securefl.dp.calibration import calibrate_rounds
from securefl.dp.events import Gaussian
from securefl.errors import ConfigurationError


@pytest.mark.parametrize(
    ("q", "rounds", "exact"), [(0.01, 1000, 0.813586), (0.1, 100, 1.674751), (1.0, 100, 13.905935)]
)
def test_noise_for_epsilon_three(q: float, rounds: int, exact: float) -> None:
    z = dp.calibrate(epsilon=3, delta=1e-5, sampling_probability=q, rounds=rounds)
    assert exact * (1 - 1e-6) <= z <= exact * 1.001
    spent = dp.epsilon(noise_multiplier=z, sampling_probability=q, rounds=rounds, delta=1e-5)
    assert 3 * 0.999 < spent <= 3


def test_rounds_are_the_most_that_fit() -> None:
    rounds = int(dp.calibrate(epsilon=3, delta=1e-5, noise_multiplier=1.7, sampling_probability=0.1))
    parameters = {"noise_multiplier": 1.7, "sampling_probability": 0.1, "delta": 1e-5}
    assert dp.epsilon(rounds=rounds, **parameters) <= 3 < dp.epsilon(rounds=rounds + 1, **parameters)
    assert calibrate_rounds(Gaussian(0.1), epsilon=1.0, delta=1e-5) == 0


def test_sampling_probability_and_clients() -> None:
    q = dp.calibrate(epsilon=3, delta=1e-5, noise_multiplier=1.7, rounds=100)
    assert dp.epsilon(noise_multiplier=1.7, sampling_probability=q, rounds=100, delta=1e-5) <= 3
    assert dp.epsilon(noise_multiplier=1.7, sampling_probability=q * 1.01, rounds=100, delta=1e-5) > 3
    clients = dp.calibrate(epsilon=3, delta=1e-5, noise_multiplier=1.7, rounds=100, population=1000)
    assert clients == int(q * 1000)


def test_replacement_needs_more_noise() -> None:
    target = {"epsilon": 3.0, "delta": 1e-5, "sampling_probability": 0.05, "rounds": 50}
    assert dp.calibrate(**target, neighboring="replace-one") > 1.1 * dp.calibrate(**target)


@pytest.mark.parametrize(
    "bad",
    [
        {"epsilon": 0},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"delta": 0.0},
        {"sampling_probability": 2.0},
        {"sampling_probability": 0.0},
        {"rounds": 0},
        {"noise_multiplier": 1.0},
        {"rounds": None},
    ],
)
def test_bad_targets(bad: dict[str, object]) -> None:
    good: dict[str, object] = {"epsilon": 1.0, "delta": 1e-5, "sampling_probability": 0.1, "rounds": 10}
    with pytest.raises(ConfigurationError):
        dp.calibrate(**(good | bad))  # type: ignore[arg-type]


def test_unreachable_targets_say_so() -> None:
    with pytest.raises(ConfigurationError, match="no sampling probability"):
        dp.calibrate(epsilon=1e-6, delta=1e-12, noise_multiplier=0.1, rounds=100000)
