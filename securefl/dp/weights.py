"""Integer weights of integer noise laws, by exact arithmetic in Python integers.

Legend: μ the variance (rational), p_k the mass at k, K the cut. All laws are symmetric;
each function returns the weights of k = 0 … K, proportional to p_k up to a relative error below 2^-160, with
Σ_{|k|>K} p_k <= 2^:data:`LOG2_TAIL`.

- Skellam: p_k = e^-μ I_k(μ). Miller's recurrence I_(k−1) = I_(k+1) + (2k/μ) I_k, downwards from x_(K+1) = 0,
  x_K = 2^192. Every term is positive, so flooring keeps x̃_k in [(1 − 2^-190)^(K−k), 1] · x_k. The exact solution is
  proportional to I_k ± (I_(K+1)/𝒦_(K+1)) 𝒦_k, and 𝒦_k increases with k: an absolute error of at most p_(K+1) each.
  Tail: P[X >= k] <= exp(r − μ − k asinh(k/μ)), r = √(μ² + k²) (Chernoff).
- discrete Gaussian: p_k ∝ e^(−k²/2σ²) by ratios: w_(k+1) = w_k ρ_k, ρ_(k+1) = ρ_k c, in fixed point of 512 bits; k
  roundings of ρ and of w each leave a relative error of at most k² 2^-300 (weights stay above 2^340).
  [Canonne, Kamath, Steinke 2020]
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

from securefl.errors import ConfigurationError

__all__ = ["LOG2_TAIL", "discrete_gaussian_weights", "skellam_cut", "skellam_weights"]

#: log2 of the mass that may lie beyond the cut, both sides together.
LOG2_TAIL: Final = -128
_BITS: Final = 512


def skellam_cut(variance: float) -> int:
    """The least K with 2 P[X > K] <= 2^LOG2_TAIL, with a margin of 8 bits for the rounding of the search."""
    limit = (LOG2_TAIL - 9) * math.log(2)

    def log_tail(k: int) -> float:
        root = math.hypot(variance, k)
        return k * k / (root + variance) - k * math.asinh(k / variance)

    low, high = 0, 1
    while log_tail(high) > limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if log_tail(middle) > limit else (low, middle)
    return high


def skellam_weights(variance: Fraction) -> list[int]:
    """Weights of k = 0 … K for the symmetric Skellam law. Pre-condition: variance > 0, stddev <= 2^17."""
    cut = skellam_cut(float(variance))
    numerator, twice = variance.numerator, 2 * variance.denominator
    weights = [0] * (cut + 1)
    above, here = 0, 1 << 192
    weights[cut] = here
    for k in range(cut, 0, -1):
        above, here = here, above + (twice * k * here) // numerator
        weights[k - 1] = here
    return weights


def _exp_negative(x: Fraction) -> int:
    """⌊2^512 e^(−x)⌉ up to a few units, for 0 <= x: Taylor after halving the argument to below 2^-8."""
    halvings = max(0, math.ceil(math.log2(float(x) + 1e-300)) + 8)
    one = 1 << (_BITS + 64)
    small = (x.numerator << (_BITS + 64)) // (x.denominator << halvings)
    total, term = one, one
    for j in range(1, 200):
        term = (term * small) >> (_BITS + 64)
        term //= j
        if not term:
            break
        total += -term if j % 2 else term
    for _ in range(halvings):
        total = (total * total) >> (_BITS + 64)
    return total >> 64


def discrete_gaussian_weights(variance_parameter: Fraction) -> list[int]:
    """Weights of k = 0 … K for p_k ∝ e^(−k²/2σ²). Pre-condition: 0 < σ² , σ <= 2^17."""
    sigma = math.sqrt(float(variance_parameter))
    # Σ_{|k|>K} p_k <= 2 e^(−K²/2σ²) (the sum is below its Gaussian counterpart, CKS20 Prop. 1)
    cut = math.ceil(sigma * math.sqrt(2 * math.log(2) * (-LOG2_TAIL + 10))) + 1
    ratio = _exp_negative(1 / (2 * variance_parameter))
    growth = _exp_negative(1 / variance_parameter)
    if ratio == 0 or growth == 0:
        raise ConfigurationError("the variance of the discrete Gaussian is too small to sample")
    weights = [1 << _BITS]
    for _ in range(cut):
        weights.append((weights[-1] * ratio) >> _BITS)
        ratio = (ratio * growth) >> _BITS
    return weights
