"""Calibration: the noise, the rounds, the sampling probability or the cohort that meets a target (ε, δ).

Each search runs on the accountant's own upper bound and returns a value on the safe side of the root: what it returns
meets the target when it is put back. Costs are monotone in every parameter searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.optimize import brentq

from securefl.dp.accountant import event_delta, event_epsilon
from securefl.dp.events import Event, Gaussian, NeighboringRelation, PoissonSampled, SelfComposed, integer, probability
from securefl.dp.gaussian import gaussian_mu
from securefl.errors import ConfigurationError

__all__ = ["calibrate_event", "calibrate_noise", "calibrate_rounds", "calibrate_sampling", "rounds_event"]

#: Noise multipliers that are searched.
_SMALLEST, _LARGEST = 1e-2, 1e5
_COARSE = 0.15


def rounds_event(noise_multiplier: float, sampling_probability: float, rounds: int) -> Event:
    """``rounds`` rounds of Gaussian noise on Poisson-sampled cohorts (q = 1: everyone takes part)."""
    integer("rounds", rounds)
    probability("sampling_probability", sampling_probability)
    noise = Gaussian(noise_multiplier)
    return SelfComposed(noise if sampling_probability == 1.0 else PoissonSampled(noise, sampling_probability), rounds)


def _target(epsilon: float, delta: float) -> None:
    if isinstance(epsilon, bool) or not (isinstance(epsilon, (int, float)) and 0.0 < epsilon < math.inf):
        raise ConfigurationError(f"epsilon must be a finite number above 0, got {epsilon!r}")
    probability("delta", delta, open_interval=True)


def calibrate_event(
    build: Callable[[float], Event],
    *,
    epsilon: float,
    delta: float,
    neighboring: NeighboringRelation | str = "add-remove",
    guess: float = 1.0,
    precision: float = 1e-5,
) -> float:
    """The least x (to ``precision`` relative, rounded up) for which ``build(x)`` meets (epsilon, delta).

    ``build`` must cost less for a larger x (noise). Raises :class:`ConfigurationError` when no x up to 1e5 does.
    """
    _target(epsilon, delta)
    log_delta = math.log(delta)

    def miss(log_x: float, fineness: float) -> float:
        value = event_delta(build(math.exp(log_x)), epsilon, neighboring, fineness)
        return (math.log(value) if value > 0 else -800.0) - log_delta

    at = math.log(min(max(guess, _SMALLEST), _LARGEST))
    step, low, high = 0.15, -math.inf, math.inf
    while math.isinf(low) or math.isinf(high):
        if miss(at, _COARSE) <= 0:
            high, at = at, at - step
        else:
            low, at = at, at + step
        step *= 2
        if at < math.log(_SMALLEST) and math.isinf(low):
            return math.exp(high)
        if at > math.log(_LARGEST):
            raise ConfigurationError(f"no noise multiplier up to {_LARGEST:g} meets epsilon = {epsilon:g}")
    root = float(brentq(miss, low, high, args=(_COARSE,), xtol=2e-4))
    # the coarse bound is a little above the fine one: step down by secants on the fine one
    f_root = miss(root, 0.04)
    other = root + (3e-4 if f_root > 0 else -3e-4)
    f_other = miss(other, 0.04)
    for _ in range(4):
        slope = (f_other - f_root) / (other - root) if other != root else 0.0
        if slope >= 0:
            break
        following = other - f_other / slope + precision / 2
        root, f_root, other, f_other = other, f_other, following, miss(following, 0.04)
        if -precision * 2 * abs(slope) <= f_other <= 0:
            break
    candidates = [x for x, f in ((root, f_root), (other, f_other)) if f <= 0]
    found = min(candidates) if candidates else max(root, other)
    while event_epsilon(build(math.exp(found)), delta, neighboring) > epsilon:
        found += precision
        precision *= 2
    return math.exp(found)


def calibrate_noise(
    *,
    epsilon: float,
    delta: float,
    sampling_probability: float,
    rounds: int,
    neighboring: NeighboringRelation | str = "add-remove",
) -> float:
    """The least noise multiplier for ``rounds`` rounds at (epsilon, delta)."""
    _target(epsilon, delta)
    integer("rounds", rounds, 1)
    probability("sampling_probability", sampling_probability)
    if sampling_probability == 0.0:
        raise ConfigurationError("a sampling probability of 0 needs no noise: nothing is released")
    doubled = NeighboringRelation.of(neighboring) is NeighboringRelation.REPLACE_ONE
    # [Balle & Wang 2018, Alg. 1]
    unsampled = math.sqrt(rounds) * (2.0 if doubled else 1.0) / gaussian_mu(epsilon, delta)
    if sampling_probability == 1.0:
        while event_epsilon(rounds_event(unsampled, 1.0, rounds), delta, neighboring) > epsilon:
            unsampled *= 1 + 1e-12
        return unsampled
    return calibrate_event(
        lambda z: rounds_event(z, sampling_probability, rounds),
        epsilon=epsilon,
        delta=delta,
        neighboring=neighboring,
        guess=max(unsampled * sampling_probability, 0.5),
    )


def calibrate_rounds(
    event: Event, *, epsilon: float, delta: float, neighboring: NeighboringRelation | str = "add-remove"
) -> int:
    """The most releases of ``event`` within (epsilon, delta); 0 when one is too many."""
    _target(epsilon, delta)

    def fits(rounds: int) -> bool:
        return event_epsilon(SelfComposed(event, rounds), delta, neighboring) <= epsilon

    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
        if high > 10**9:
            raise ConfigurationError("more than 10^9 rounds fit the budget: it is no limit")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def calibrate_sampling(
    *,
    epsilon: float,
    delta: float,
    noise_multiplier: float,
    rounds: int,
    neighboring: NeighboringRelation | str = "add-remove",
) -> float:
    """The largest Poisson sampling probability within (epsilon, delta), to 1e-5 relative, rounded down.

    Times the population it is the expected cohort. Raises :class:`ConfigurationError` when none down to 1e-9 fits.
    """
    _target(epsilon, delta)

    def fits(q: float) -> bool:
        return event_epsilon(rounds_event(noise_multiplier, q, rounds), delta, neighboring) <= epsilon

    if fits(1.0):
        return 1.0
    low, high = math.log(1e-9), 0.0
    if not fits(math.exp(low)):
        raise ConfigurationError("no sampling probability meets this target: add noise or take fewer rounds")
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(math.exp(middle)) else (low, middle)
    return math.exp(low)
