"""How close Skellam and discrete Gaussian noise are to a rounded Gaussian: what lets them use the tight accountant.

Legend: μ the variance, s² = μ − 1/12, p_k the Skellam mass, g_k the mass of N(0, s²) rounded to the nearest integer,
t = k/√μ, H4(t) = t⁴ − 6t² + 3, ρ = log(p_k / g_k).

Theorem 1. Skellam, μ >= 1000: KL(p ‖ g) <= 1 / (32 μ²) per coordinate. (Asymptotically 1 / (48 μ²).)
Theorem 2. Discrete Gaussian with parameter σ² = μ >= 1000: KL(p ‖ g) <= 1 / (1000 μ⁴) per coordinate.

Proof (protocols/dp/SPEC.md §5 has every constant). Shift the contour of the Bessel integral to its saddle:
p_k = e^(r − μ − k asinh(k/μ)) J, r = √(μ² + k²), J = (1/2π) ∫ e^(r(cos θ − 1)) cos(k(θ − sin θ)) dθ, an integral of
reals. Taylor's theorem with the remainders of alternating series gives, for |k| <= μ,
ρ = H4(t)/(24 μ) + E with |E| <= (t⁶/60 + t⁴/6 + t² + 1)/μ². With KL <= ½ E_g[ρ² e^|ρ|] and E[H4²] = 24 the claim
follows with a margin of a third; |k| > μ has mass below e^(−0.4 μ). For Theorem 2, E alone remains:
|ρ| <= (t⁴/2880 + t²/200 + 1/200)/μ².

A Gaussian added to integers and rounded is post-processing of the Gaussian mechanism. Over T adaptive releases of d
coordinates the joint laws are within total variation τ <= √(T d) / (8 μ) (chain rule and Pinsker), for each of the
two neighbors, so  δ_Skellam(ε) <= δ_Gauss(ε) + (1 + e^ε) τ.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["CERTIFIED_VARIANCE", "divergence_bound", "equivalent_stddev"]

#: The least variance for which the theorems are proven.
CERTIFIED_VARIANCE: Final = 1000.0


def divergence_bound(variance: float, dimension: int, *, skellam: bool) -> float:
    """KL(noise ‖ rounded Gaussian) of one release of ``dimension`` coordinates; inf below the proven range.

    ``variance``: integer units squared. ``skellam``: Theorem 1, else Theorem 2 (discrete Gaussian).
    """
    if variance < CERTIFIED_VARIANCE:
        return math.inf
    return dimension / (32.0 * variance**2) if skellam else dimension / (1000.0 * variance**4)


def equivalent_stddev(variance: float) -> float:
    """s: the stddev of the Gaussian whose rounding the theorems compare with (integer units)."""
    return math.sqrt(variance - 1.0 / 12.0)
