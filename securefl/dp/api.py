"""The three functions that users type: ``securefl.dp.epsilon``, ``.delta`` and ``.calibrate``."""

from __future__ import annotations

from securefl.dp.accountant import event_delta, event_epsilon
from securefl.dp.calibration import calibrate_noise, calibrate_rounds, calibrate_sampling, rounds_event
from securefl.dp.events import Gaussian, NeighboringRelation, PoissonSampled, integer
from securefl.errors import ConfigurationError

__all__ = ["calibrate", "delta", "epsilon"]


def epsilon(
    *,
    noise_multiplier: float,
    delta: float,
    sampling_probability: float = 1.0,
    rounds: int = 1,
    neighboring: NeighboringRelation | str = "add-remove",
) -> float:
    """ε at ``delta`` after ``rounds`` rounds of Gaussian noise on Poisson-sampled cohorts: an upper bound.

    ``noise_multiplier``: noise stddev on the sum over the clip norm. ``sampling_probability``: 1.0 when every client
    takes part in every round; below 1 only if each client joins by its own independent coin (not a fixed cohort).
    Raises :class:`~securefl.errors.ConfigurationError`. Within 0.2 % of the true value.
    """
    return event_epsilon(rounds_event(noise_multiplier, sampling_probability, rounds), delta, neighboring)


def delta(
    *,
    noise_multiplier: float,
    epsilon: float,
    sampling_probability: float = 1.0,
    rounds: int = 1,
    neighboring: NeighboringRelation | str = "add-remove",
) -> float:
    """δ at ``epsilon``: an upper bound; parameters as in :func:`epsilon`."""
    return event_delta(rounds_event(noise_multiplier, sampling_probability, rounds), epsilon, neighboring)


def calibrate(
    *,
    epsilon: float,
    delta: float,
    noise_multiplier: float | None = None,
    sampling_probability: float | None = None,
    rounds: int | None = None,
    population: int | None = None,
    neighboring: NeighboringRelation | str = "add-remove",
) -> float:
    """The one parameter left out of ``noise_multiplier``, ``rounds`` and ``sampling_probability``, for (ε, δ).

    Left out noise multiplier: the least (float). Left out rounds: the most (a whole number). Left out sampling
    probability: the largest; with ``population``, the largest *expected* cohort instead, in clients.
    ``sampling_probability`` may be left out beside the noise multiplier or the rounds: then it is 1.
    Raises :class:`~securefl.errors.ConfigurationError` when the target cannot be met, or when nothing is left out.
    """
    if population is not None:
        integer("population", population, 1)
    if noise_multiplier is None and rounds is not None:
        q = 1.0 if sampling_probability is None else sampling_probability
        return calibrate_noise(
            epsilon=epsilon, delta=delta, sampling_probability=q, rounds=rounds, neighboring=neighboring
        )
    if noise_multiplier is not None and rounds is None:
        q = 1.0 if sampling_probability is None else sampling_probability
        noise = Gaussian(noise_multiplier)
        event = noise if q == 1.0 else PoissonSampled(noise, q)
        return calibrate_rounds(event, epsilon=epsilon, delta=delta, neighboring=neighboring)
    if noise_multiplier is not None and rounds is not None and sampling_probability is None:
        q = calibrate_sampling(
            epsilon=epsilon, delta=delta, noise_multiplier=noise_multiplier, rounds=rounds, neighboring=neighboring
        )
        return q if population is None else float(int(q * population))
    raise ConfigurationError("calibrate finds one of noise_multiplier, rounds, sampling_probability: leave one out")
