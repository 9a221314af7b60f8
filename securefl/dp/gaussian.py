"""The Gaussian mechanism in closed form, and its Rényi divergence.

Legend: μ = sensitivity / stddev = 1 / noise multiplier; T independent uses with μ_i are one use with
μ² = Σ μ_i² (Dong, Roth, Su 2022, "Gaussian Differential Privacy", Cor. 3.3).

    δ(ε) = Φ(μ/2 − ε/μ) − e^ε Φ(−μ/2 − ε/μ)            [Balle & Wang 2018, Theorem 8]

Every result is rounded up by :data:`RELATIVE_ROUNDING`, which covers the error of ``log_ndtr`` in double precision.
"""

from __future__ import annotations

import math
from typing import Final

from scipy.optimize import brentq
from scipy.special import log_ndtr

__all__ = ["RELATIVE_ROUNDING", "gaussian_delta", "gaussian_epsilon", "gaussian_log_delta", "gaussian_mu"]

#: Upper bound on the relative error of the closed form as evaluated here (log_ndtr: < 1e-14, cancellation included).
RELATIVE_ROUNDING: Final = 1e-9


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """The log of δ(ε) of μ-GDP; −inf where it underflows. Pre-conditions: mu >= 0, epsilon finite."""
    if mu == 0.0:
        return -math.inf if epsilon >= 0 else math.log(-math.expm1(epsilon))
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    if second >= first:  # both tails equal to the last bit: the difference is below the rounding of either
        return first + math.log(RELATIVE_ROUNDING)
    return first + math.log(-math.expm1(second - first)) + RELATIVE_ROUNDING


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ(ε) of μ-GDP, an upper bound in [0, 1]."""
    log_delta = gaussian_log_delta(mu, epsilon)
    return min(1.0, math.exp(log_delta)) if log_delta > -745 else 0.0


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least ε >= 0 with δ(ε) <= ``delta`` under μ-GDP, rounded up. Pre-conditions: mu >= 0, 0 < delta < 1."""
    if mu == 0.0 or gaussian_log_delta(mu, 0.0) <= math.log(delta):
        return 0.0
    target = math.log(delta)
    # δ(ε) <= Φ(μ/2 − ε/μ) <= exp(−(ε/μ − μ/2)²/2) bounds ε from above
    high = mu * mu / 2 + mu * math.sqrt(2 * -target) + 1e-9
    root = brentq(lambda e: gaussian_log_delta(mu, e) - target, 0.0, high, xtol=1e-14, rtol=1e-13)
    return float(root) * (1 + 1e-12) + 1e-14


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest μ whose δ(``epsilon``) is at most ``delta``, rounded down: the inverse of the two above."""
    target = math.log(delta)
    low, high = 0.0, 1.0
    while gaussian_log_delta(high, epsilon) < target:
        low, high = high, 2 * high
        if high > 1e9:
            return high
    root = brentq(lambda m: gaussian_log_delta(m, epsilon) - target, low, high, xtol=1e-15, rtol=1e-13)
    return float(root) * (1 - 1e-12)
