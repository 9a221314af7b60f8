"""Privacy loss distributions on a grid: upper bounds of one step of a (subsampled) Gaussian mechanism.

Legend: σ noise multiplier, q sampling probability, P and Q the worst pair of output distributions, L = log dP/dQ
the privacy loss, h the grid width, δ(ε) = E_P[(1 − e^(ε−L))_+].

Worst pairs, along the one direction in which neighbors differ:
- remove one client:  P = (1−q) N(0,σ²) + q N(1,σ²),  Q = N(0,σ²)    [Zhu, Dong, Wang 2022, Theorem 11]
- add one client:     the same pair, exchanged                       [ibid.; both must be taken: Lebeda et al. 2024]
- replace one client: P = (1−q) N(0,σ²) + q N(1,σ²),  Q = (1−q) N(0,σ²) + q N(−1,σ²)
                                                     [Schuchardt et al. 2024; its own mirror image, so one suffices]

Discretisation, *connect the dots* [Doroshenko et al. 2022, §3]: between the outputs x_i and x_(i+1) where the loss
is i·h and (i+1)·h, a bin with masses p (under P) and r (under Q) is split over the two grid points so that both
masses are kept: a = (p − r e^(ih)) / (1 − e^(−h)) goes up, p − a goes down. Merging the two points again gives the bin
back, so the discrete pair dominates. From there on only the law of L under P counts, and any shift of mass to a
higher loss keeps the bound (δ grows with L): all rounding below is towards higher losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["Direction", "LossGrid", "Step", "discretise", "loss_at", "output_range"]

Floats = NDArray[np.float64]

#: Error granted to the losses at computed grid outputs, per unit of the largest logarithm involved (32 ulp).
_LOSS_ROUNDING: Final = 2.0**-48
#: Error granted to Φ, relative to its value (scipy's ndtr: a few ulp).
_PHI_ROUNDING: Final = 8e-16


class Direction:
    """Which worst pair: names for :class:`Step`."""

    REMOVE: Final = "remove"
    ADD: Final = "add"
    REPLACE: Final = "replace"


@dataclass(frozen=True, slots=True)
class Step:
    """One subsampled Gaussian step: σ and q in (0, 1]."""

    sigma: float
    q: float


@dataclass(frozen=True, slots=True)
class LossGrid:
    """The law of L under P: mass ``p[j]`` at loss (``first`` + j)·h, and ``infinite`` mass at +∞.

    ``drift``: how much larger than its grid point a loss may be by rounding (added to ε once per step).
    """

    first: int
    p: Floats
    infinite: float
    drift: float


def output_range(step: Step, direction: str, tails: float) -> tuple[float, float]:
    """The outputs [low, high] outside of which P and Q have mass at most 2 Φ(−tails) each."""
    low = -tails * step.sigma - (1.0 if direction == Direction.REPLACE else 0.0)
    return low, tails * step.sigma + 1.0


def loss_at(step: Step, direction: str, x: Floats) -> Floats:
    """The remove (or replace) loss log dP/dQ at outputs ``x``, increasing in x; the add loss is its negative."""
    variance = step.sigma**2
    log_q, log_rest = math.log(step.q), (math.log1p(-step.q) if step.q < 1 else -math.inf)
    loss = np.logaddexp(log_rest, log_q + (2 * x - 1) / (2 * variance))
    if direction == Direction.REPLACE:
        loss = loss - np.logaddexp(log_rest, log_q - (2 * x + 1) / (2 * variance))
    return np.asarray(loss, dtype=np.float64)


def _output_at(step: Step, direction: str, loss: Floats) -> Floats:
    """The inverse of :func:`loss_at`; −inf where no output has so low a loss."""
    variance = step.sigma**2
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if direction == Direction.REPLACE:
            if step.q == 1.0:
                return variance * loss / 2
            # y = e^(x/σ²) solves q a y² + (1−q)(1−e^ε) y − q a e^ε = 0, a = e^(−1/2σ²): y = e^(ε/2 + asinh B)
            half = np.abs(loss) / 2
            log_sinh = np.where(half > 1e-300, half + np.log(-np.expm1(-2 * half)) - math.log(2), -np.inf)
            log_b = math.log1p(-step.q) - math.log(step.q) + 1 / (2 * variance) + log_sinh
            big = log_b > 300
            arc = np.where(big, log_b + math.log(2), np.arcsinh(np.exp(np.where(big, 0.0, log_b))))
            return np.asarray(variance * (loss / 2 + np.sign(loss) * arc), dtype=np.float64)
        # e^ε = 1 − q + q e^((2x−1)/2σ²)
        large = np.abs(loss - 14.75) > 15.25  # the form that does not cancel or overflow there
        shifted = loss + np.log1p((step.q - 1) * np.exp(-loss))
        inner = np.where(large, shifted, np.log(np.expm1(loss) + step.q))
        out = 0.5 + variance * (inner - math.log(step.q))
    return np.where(np.isnan(out), -np.inf, out)


def _bin_masses(edges: Floats, mean: float, sigma: float) -> tuple[Floats, Floats]:
    """N(mean, σ²) mass between consecutive edges, relatively accurate in both tails, and the error of each."""
    z = (edges - mean) / sigma
    lower, upper = ndtr(z), ndtr(-z)
    right = z[1:] > 0
    mass = np.where(right, upper[:-1] - upper[1:], lower[1:] - lower[:-1])
    return mass, _PHI_ROUNDING * np.where(right, upper[:-1], lower[1:])


def discretise(step: Step, direction: str, h: float, tails: float, lowest: float = -math.inf) -> LossGrid:
    """The dominating loss law of ``step`` on the grid h·ℤ, tails cut at ``tails`` standard deviations.

    Losses below ``lowest`` are moved up to about ``lowest``.

    Pre-conditions: h > 0; the grid has at most a few 10^6 points (the caller chose h).
    """
    low, high = output_range(step, direction, tails)
    ends = loss_at(step, direction, np.array([low, high]))
    first, last = math.floor(ends[0] / h), math.ceil(ends[1] / h)
    below = math.floor(max(lowest, -1e300) / h) - 1  # one bin lower: the merged bin is nearly empty
    if direction == Direction.ADD:
        merged = -below < last
        last = max(first + 2, min(last, -below))
    else:
        merged = below > first
        first = min(last - 2, max(first, below))
    grid = np.arange(first, last + 1, dtype=np.float64) * h
    edges = _output_at(step, direction, grid)
    edges = np.maximum.accumulate(np.clip(edges, low, high))
    edges[0], edges[-1] = low, high  # the end bins hold whatever lies beyond a cut
    base, base_error = _bin_masses(edges, 0.0, step.sigma)
    moved, moved_error = _bin_masses(edges, 1.0, step.sigma)
    p = (1 - step.q) * base + step.q * moved
    p_error = (1 - step.q) * base_error + step.q * moved_error
    r, r_error = base, base_error
    if direction == Direction.REPLACE:
        other, other_error = _bin_masses(edges, -1.0, step.sigma)
        r = (1 - step.q) * base + step.q * other
        r_error = (1 - step.q) * base_error + step.q * other_error
    if direction == Direction.ADD:
        # exchange the roles: losses change sign, bins run backwards
        p, p_error, r, r_error = r[::-1], r_error[::-1], p[::-1], p_error[::-1]
        grid, first = -grid[::-1], -last
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        growth = np.exp(np.minimum(grid[:-1], 700.0))  # a cap moves mass up, which is allowed
        up = (p - r * growth + 2 * (p_error + r_error * growth)) / -math.expm1(-h)
    up = np.clip(np.where(np.isfinite(up), up, p), 0.0, p)
    if merged:
        up[0] = p[0]  # it holds everything below: all of it goes up
    mass = np.zeros(grid.size)
    mass[1:] += up
    mass[:-1] += p - up
    tail = 2 * float(ndtr(-tails))
    mass[1] += tail  # outputs beyond the low end have a loss below the second grid point
    logs = 4.0 + float(np.abs(grid[[0, -1]]).max()) + abs(math.log(step.q))
    return LossGrid(first, mass, tail, _LOSS_ROUNDING * logs)
