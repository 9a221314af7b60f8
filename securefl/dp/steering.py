"""Where to look: the tilt, the window and the grid width for :mod:`securefl.dp.composition`, by plain quadrature.

Nothing rests on what is computed here: composition gives an upper bound for any tilt, window, cut and width; these make
it tight and fast. Legend as there: K(λ) = Σ T_k log E[e^(λ L_k)].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri_exp

from securefl.dp.pld import Direction, Step, loss_at, output_range

__all__ = ["Aim", "aim"]

Floats = NDArray[np.float64]

#: Mass (relative to δ) that may be cut off at the ends.
_LOG_NEGLIGIBLE: Final = math.log(1e-8)
#: Values of δ below e^-600 are not told apart.
_SMALLEST_LOG: Final = -600.0
_POINTS: Final = 801
_LAMBDAS: Final = np.geomspace(1e-5, 1e6, 133)
_NEAR: Final = np.geomspace(2e-3, 30.0, 24)
#: The most grid points of a step or a window.
_MAX_POINTS: Final = 3 << 15


@dataclass(frozen=True, slots=True)
class _Law:
    """One step by quadrature: losses (ascending) and log masses, used ``times`` times."""

    loss: Floats
    log_p: Floats
    times: int

    def cumulant(self, lambdas: Floats) -> Floats:
        exponent = self.log_p + lambdas[:, None] * self.loss
        peak = exponent.max(axis=1)
        return np.asarray(self.times * (peak + np.log(np.exp(exponent - peak[:, None]).sum(axis=1))), dtype=np.float64)

    def cut(self, tilt: float, uses: int) -> float:
        """A loss below which everything may be moved up to it at a cost of 1e-6 in K, all uses together."""
        tilted = self.log_p + tilt * self.loss
        room = float(logsumexp(tilted)) + math.log(1e-6 / uses)
        moved = np.logaddexp.accumulate(self.log_p) + tilt * self.loss
        return float(self.loss[max(0, int(np.searchsorted(moved > room, True)) - 1)])


def _law(step: Step, times: int, direction: str, tails: float) -> _Law:
    low, high = output_range(step, direction, tails)
    x = np.linspace(low, high, _POINTS)
    loss = loss_at(step, direction, x)
    log_base = -0.5 * (x / step.sigma) ** 2
    log_rest = math.log1p(-step.q) if step.q < 1 else -math.inf
    log_p = np.logaddexp(log_rest + log_base, math.log(step.q) - 0.5 * ((x - 1) / step.sigma) ** 2)
    if direction == Direction.ADD:
        log_p, loss = log_base[::-1], -loss[::-1]
    return _Law(loss, np.asarray(log_p - logsumexp(log_p)), times)


@dataclass(frozen=True, slots=True)
class Aim:
    """What :func:`aim` found: see the fields of the same name in :mod:`securefl.dp.composition`.

    ``centre``: the ε aimed at, or a Rényi estimate of it. ``cuts``: per step, the loss below which detail is dropped.
    ``extra``: the additional tilt that bounds the mass above the window best.
    """

    tails: float
    tilt: float
    centre: float
    low: float
    high: float
    extra: float
    cuts: tuple[float, ...]
    widest: float
    spread: float
    uses: int

    def width(self, size: float, fineness: float) -> float:
        """Grid width h for an ε of about ``size``.

        Splitting bins raises log E[e^(λL)] by at most λ(λ+1)h²/8, hence ε by T(λ+1)h²/8: kept small relative to ε,
        but no finer than a fraction of a step's own spread.
        """
        accurate = math.sqrt(8 * 0.3 * fineness**2 * max(size, 1e-12) / (self.uses * (self.tilt + 1)))
        accurate = max(fineness * self.spread, min(accurate, 5 * fineness / (self.tilt + 1)))
        h = max(accurate, self.widest / _MAX_POINTS, (self.high - self.low) / _MAX_POINTS)
        return max(min(h, (self.high - self.low) / 1024), self.widest / _MAX_POINTS)


def aim(steps: Mapping[Step, int], direction: str, *, delta: float | None, epsilon: float | None) -> Aim:
    """Steer for ``delta`` or for ``epsilon`` (one is given)."""
    uses = sum(steps.values())
    log_delta = math.log(delta) if delta is not None else -20.0
    laws: list[_Law] = []
    best, centre, tails = 0, 0.0, 0.0
    for _ in range(2):  # with a target ε the tails depend on δ, which is estimated first
        tails = -float(ndtri_exp(min(-20.0, log_delta + _LOG_NEGLIGIBLE - math.log(4 * uses))))
        laws = [_law(step, times, direction, tails) for step, times in steps.items()]
        total = sum((law.cumulant(_LAMBDAS) for law in laws), start=np.zeros(_LAMBDAS.size))
        shift = np.log(_LAMBDAS / (1 + _LAMBDAS))
        if epsilon is None:
            # ε(λ) of Rényi order λ + 1 [Canonne, Kamath, Steinke 2020, Prop. 12]
            bound = (total - log_delta - np.log1p(_LAMBDAS)) / _LAMBDAS + shift
            best = int(np.argmin(bound))
            centre = float(bound[best])
            break
        bound = total - _LAMBDAS * epsilon - np.log1p(_LAMBDAS) + _LAMBDAS * shift
        best = int(np.argmin(bound))
        if bound[best] < _SMALLEST_LOG:  # a milder tilt says "tiny" without leaving the doubles
            best = int(np.argmax(bound <= _SMALLEST_LOG))
        centre, log_delta = epsilon, min(-1e-3, max(float(bound[best]), _SMALLEST_LOG))
    while True:
        tilt = float(_LAMBDAS[best])
        cuts = tuple(law.cut(tilt, uses) for law in laws)
        widest = max(float(law.loss[-1]) - cut for law, cut in zip(laws, cuts, strict=True))
        if best == 0 or tilt * widest <= 20 * _MAX_POINTS:  # else the finest grid cannot resolve the tilt
            break
        best -= 1
    # the window: both ends by Chernoff bounds under the tilt
    near = np.concatenate([tilt * (1 + _NEAR), tilt * (1 - _NEAR)])
    gain = sum((law.cumulant(near) - law.cumulant(np.array([tilt])) for law in laws), start=np.zeros(near.size))
    ends = (gain - _LOG_NEGLIGIBLE) / (near - tilt)
    above, below = ends[: _NEAR.size], ends[_NEAR.size :]
    most = sum(law.times * float(law.loss[-1]) for law in laws)
    least = sum(law.times * float(law.loss[0]) for law in laws)
    high, low = min(most, float(above.min())), max(least, float(below.max()))
    spread = math.sqrt(sum(law.times * float(np.exp(law.log_p) @ np.maximum(law.loss, cut) ** 2)
                           for law, cut in zip(laws, cuts, strict=True)) / uses)  # fmt: skip
    return Aim(
        tails=tails,
        tilt=tilt,
        centre=centre,
        low=min(low, centre),
        high=max(high, centre),
        extra=float(tilt * _NEAR[int(np.argmin(above))]),
        cuts=cuts,
        widest=widest,
        spread=spread,
        uses=uses,
    )
