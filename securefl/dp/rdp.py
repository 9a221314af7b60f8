"""Rényi differential privacy: cumulants K(λ) = λ·ε(λ+1) of the mechanisms whose exact loss law is not known.

Legend: α = λ + 1 > 1 the order, Δ2 and Δ1 the sensitivities, μ the total noise variance, q the sampling probability.
K is convex in λ with K(0) = 0, so a value between two integer orders is bounded by linear interpolation.

- Gaussian:   ε(α) = α / (2 z²), z the noise multiplier                     [Mironov 2017, Prop. 7]
- Skellam:    ε(α) <= αΔ2²/(2μ) + min{((2α−1)Δ2² + 6Δ1)/(4μ²), 3Δ1/(2μ)}     [Agarwal, Kairouz, Liu 2021, Thm 3.5;
              integer α > 1; per-coordinate terms add up, so it holds in any dimension]
- discrete Gaussian: ε(α) <= αΔ2²/(2σ²)                         [Canonne, Kamath, Steinke 2020, Thm 4, Cor. 16]
- Poisson sampling, add/remove: ε'(α) <= 1/(α−1) log((1−q)^(α−1) (1 + (α−1)q)
              + Σ_{k=2..α} C(α,k) (1−q)^(α−k) q^k e^((k−1)ε(k)))             [Zhu & Wang 2019, Thm 6, for the
              symmetric noises here; any mechanism: Steinke 2022, arXiv 2210.00597, §6.4]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, logsumexp

from securefl.dp.events import DiscreteGaussian, Gaussian, Skellam

__all__ = ["LAMBDAS", "Noise", "cumulant", "rdp_delta", "rdp_epsilon", "total_cumulant"]

Floats = NDArray[np.float64]
Noise = Gaussian | Skellam | DiscreteGaussian

_ORDERS: Final = np.concatenate([np.arange(2, 64), np.geomspace(64, 4096, 40).astype(np.int64)])
_SAMPLED_ORDERS: Final = np.concatenate([np.arange(2, 64), np.geomspace(64, 1024, 24).astype(np.int64)])
#: The λ at which totals are kept: all integer orders minus one, and points between the small ones.
LAMBDAS: Final[Floats] = np.unique(np.concatenate([np.arange(1, 81) / 8.0, _ORDERS - 1.0, _SAMPLED_ORDERS - 1.0]))


def _order_epsilon(noise: Noise, doubled: bool) -> Callable[[Floats], Floats]:
    """α ↦ ε(α) without sampling. ``doubled``: sensitivities count twice (replacement)."""
    factor = 2.0 if doubled else 1.0
    if isinstance(noise, Gaussian):
        rho = 0.5 * (factor / noise.noise_multiplier) ** 2
        return lambda orders: rho * orders
    l2 = factor * noise.l2_sensitivity
    if isinstance(noise, DiscreteGaussian):
        rho = 0.5 * l2 * l2 / noise.variance
        return lambda orders: rho * orders
    l1, mu = factor * noise.l1_sensitivity, noise.variance
    return lambda orders: (
        orders * l2 * l2 / (2 * mu)
        + np.minimum(((2 * orders - 1) * l2 * l2 + 6 * l1) / (4 * mu * mu), 3 * l1 / (2 * mu))
    )


def _sampled(orders: NDArray[np.int64], epsilon: Callable[[Floats], Floats], q: float) -> Floats:
    """(α−1) ε'(α) at integer ``orders`` for Poisson sampling with 0 < q < 1."""
    out = np.empty(orders.size)
    for i, alpha in enumerate(orders):
        a = int(alpha)
        k = np.arange(2, a + 1, dtype=np.float64)
        log_binomial = gammaln(a + 1) - gammaln(k + 1) - gammaln(a - k + 1)
        terms = log_binomial + (a - k) * math.log1p(-q) + k * math.log(q) + (k - 1) * epsilon(k)
        # the first two terms of the sum are 1 − Σ_{k>=2} C q^k (1−q)^(α−k): small cumulants need that form
        extra = log_binomial + (a - k) * math.log1p(-q) + k * math.log(q) + _log_expm1((k - 1) * epsilon(k))
        plain = float(logsumexp(extra))
        first = (a - 1) * math.log1p(-q) + math.log1p((a - 1) * q)
        out[i] = min(float(np.logaddexp(0.0, plain)), float(np.logaddexp(first, logsumexp(terms))))
        out[i] = max(out[i], 0.0) * (1 + 1e-9)
    return out


def _log_expm1(x: Floats) -> Floats:
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(x > 30, x, np.log(np.expm1(np.minimum(x, 30.0))))


@functools.lru_cache(maxsize=256)
def cumulant(noise: Noise, q: float, doubled: bool) -> Floats:
    """K at :data:`LAMBDAS` for one release; Poisson sampling with ``q`` only where not ``doubled``.

    Cached: do not write to the result.
    """
    epsilon = _order_epsilon(noise, doubled)
    if q == 0.0:
        return np.zeros(LAMBDAS.size)
    if q < 1.0 and doubled:
        q = 1.0  # no proof of amplification under replacement here: unamplified
    if q < 1.0:
        orders = _SAMPLED_ORDERS
        values = _sampled(orders, epsilon, q)
    else:
        orders = _ORDERS
        values = (orders - 1) * epsilon(orders.astype(np.float64))
    if isinstance(noise, (Gaussian, DiscreteGaussian)) and q == 1.0:
        return LAMBDAS * epsilon(LAMBDAS + 1.0)
    known = np.concatenate([[0.0], orders - 1.0])
    result = np.interp(LAMBDAS, known, np.concatenate([[0.0], values]))
    result[known[-1] < LAMBDAS] = np.inf
    return np.asarray(result, dtype=np.float64)


def total_cumulant(parts: Mapping[tuple[Noise, float, bool], int]) -> Floats:
    """Σ count · K over ``parts`` (noise, sampling probability, doubled) [Mironov 2017, Prop. 1]."""
    total = np.zeros(LAMBDAS.size)
    for (noise, q, doubled), times in parts.items():
        total += times * cumulant(noise, q, doubled)
    return total


def rdp_epsilon(total: Floats, delta: float) -> float:
    """ε for ``delta`` from cumulants [Canonne, Kamath, Steinke 2020, Prop. 12]."""
    bound = (total - math.log(delta) - np.log1p(LAMBDAS)) / LAMBDAS + np.log(LAMBDAS / (1 + LAMBDAS))
    return max(0.0, float(np.min(bound)))


def rdp_delta(total: Floats, epsilon: float) -> float:
    """δ for ``epsilon`` from cumulants (the same proposition, solved for δ)."""
    log_delta = total - LAMBDAS * epsilon - np.log1p(LAMBDAS) + LAMBDAS * np.log(LAMBDAS / (1 + LAMBDAS))
    return min(1.0, math.exp(min(0.0, float(np.min(log_delta)))))
