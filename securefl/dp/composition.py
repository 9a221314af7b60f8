"""Composition of privacy losses: one real FFT under an exponential tilt, every error on the safe side.

Legend: steps k with laws of loss p_k on the grid h·ℤ (:mod:`securefl.dp.pld`), used T_k times; S the sum of all
losses; K(λ) = Σ T_k log E[e^(λ L_k)]; N the FFT length.

    δ(ε) = E[(1 − e^(ε−S))_+] = e^K(λ) · Ẽ[e^(−λS) (1 − e^(ε−S))_+]

where Ẽ is over the tilted laws p̃_k(l) ∝ p_k(l) e^(λl). λ is the saddle point, so the tilted sum has its mass
where δ is decided and the rounding errors of the FFT are small *relative to δ*, however small δ is.

Why the result is an upper bound:
1. Each p_k dominates the true step (connect the dots), and so does their composition [Zhu, Dong, Wang 2022, Thm 10].
2. The circular convolution adds to each entry of the window what lies a multiple of N away: it only adds.
   What lies above the window is charged by a Chernoff bound on the tilted sum; what is infinite is charged to δ.
3. FFT rounding: each Fourier coefficient of a law (mass 1) has error at most γ = 8 log2(N) u + 32 u
   [Higham 2002, §24.1, pointwise form, radix-independent], so the T-th powers have error at most T γ |f|^(T−1),
   and each entry of the inverse at most η = mean_k(Σ_k T_k γ |f|^(T−1) + 2γ |f|^T). η is added to every entry.
4. Rounded losses: ε is raised by Σ T_k · drift_k. Sums and exponentials: δ is raised by 1e-9 relative.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import logsumexp

from securefl.dp.pld import Direction, Step, discretise
from securefl.dp.steering import Aim, aim

__all__ = ["PrivacyCurve", "compose"]

Floats = NDArray[np.float64]

_UNIT_ROUNDOFF: Final = 2.0**-53
_FINENESS: Final = 0.04


@dataclass(frozen=True, slots=True)
class PrivacyCurve:
    """An upper bound of ε ↦ δ(ε) around one point of it: :meth:`delta` and :meth:`epsilon` never under-report."""

    losses: Floats
    #: log of Σ_{j > m} r_j and of Σ_{j > m} r_j e^(−(l_j − l_m)), r_j the untilted masses with their error
    log_above: Floats
    log_discounted: Floats
    constant: float  # infinite mass and mass above the window
    drift: float

    def _log_delta_grid(self) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = -np.expm1(np.minimum(self.log_discounted - self.log_above, 0.0))
            return np.where(np.isneginf(self.log_above), -np.inf, self.log_above + np.log(gap + 1e-12))

    def delta(self, epsilon: float) -> float:
        """δ(``epsilon``) <= the returned value, in [0, 1]."""
        at = epsilon - self.drift
        m = int(np.searchsorted(self.losses, at, side="right")) - 1
        if m < 0:
            return 1.0
        if m >= self.losses.size - 1:
            return min(1.0, self.constant)
        value = math.exp(min(0.0, float(self._log_delta_grid()[m])))
        if at > self.losses[m] and self.log_above[m] > -math.inf:
            # between grid points the discrete curve is linear in e^ε
            gap = float(self.log_discounted[m] - self.log_above[m]) + (at - float(self.losses[m]))
            inside = math.exp(min(0.0, float(self.log_above[m]))) * (max(0.0, -math.expm1(min(gap, 0.0))) + 1e-12)
            value = min(value, inside)
        return min(1.0, value * (1 + 1e-9) + self.constant)

    def epsilon(self, delta: float) -> float:
        """The least ε for which this curve proves ``delta``; inf when the window does not reach it."""
        room = delta - self.constant
        if room <= 0:
            return math.inf
        log_room = math.log(room) - 1e-9
        fits = self._log_delta_grid() <= log_room
        fits[-1] = True
        m = int(np.argmax(fits))
        if m == 0:
            return float(self.losses[0]) + self.drift
        high = float(self.losses[m])
        # on (l_(m−1), l_m): A − e^(ε − l_(m−1)) B = δ
        ratio = math.exp(min(700.0, log_room - float(self.log_above[m - 1])))
        rest = 1.0 + 1e-12 - ratio
        if rest > 0:
            inside = float(self.losses[m - 1] + self.log_above[m - 1] - self.log_discounted[m - 1]) + math.log(rest)
            if self.losses[m - 1] <= inside <= high:
                high = inside + 1e-13
        return high + self.drift


def compose(
    steps: Mapping[Step, int],
    direction: str,
    *,
    delta: float | None = None,
    epsilon: float | None = None,
    fineness: float = _FINENESS,
) -> PrivacyCurve:
    """The privacy curve of all ``steps`` (with their counts, >= 1) near ``delta`` or near ``epsilon`` (one is given).

    A larger ``fineness`` is faster and looser; the result is an upper bound at every fineness.
    """
    if epsilon is not None and direction == Direction.ADD and all(step.q < 1 for step in steps):
        most = -sum(times * math.log1p(-step.q) for step, times in steps.items())
        if epsilon >= most * (1 + 1e-9):  # without the client, no output is more than (1−q)^-T times as likely
            return _nothing_above(epsilon)
    aimed = aim(steps, direction, delta=delta, epsilon=epsilon)
    width = aimed.width(aimed.centre, fineness)
    curve = _convolve(steps, direction, aimed, width)
    if delta is not None:
        # rare large losses: the Rényi estimate of ε, which chose the grid, may be many times too large
        reached = curve.epsilon(delta)
        finer = aimed.width(reached, fineness) if 0 < reached < aimed.centre else width
        if finer < 0.8 * width:
            curve = _convolve(steps, direction, aimed, finer)
    return curve


def _nothing_above(epsilon: float) -> PrivacyCurve:
    """The curve of a sum of losses that never exceeds ``epsilon``: δ(ε) = 0."""
    none = np.full(2, -np.inf)
    return PrivacyCurve(np.array([epsilon, epsilon + 1.0]), none, none, 0.0, 0.0)


def _convolve(steps: Mapping[Step, int], direction: str, aimed: Aim, h: float) -> PrivacyCurve:
    tilt, low, high = aimed.tilt, aimed.low, aimed.high
    length = next_fast_len(math.ceil((high - low) / h) + 64, real=True)
    start = math.floor(low / h) - 16
    gamma = (8 * math.log2(length) + 32) * _UNIT_ROUNDOFF
    product = np.ones(length // 2 + 1, dtype=np.complex128)
    grown = np.ones(length // 2 + 1)  # Π (|f_k| + γ)^T_k
    relative = np.zeros(length // 2 + 1)  # Σ T_k γ / (|f_k| + γ)
    log_mass, drift, offset, log_survive = 0.0, 0.0, 0, 0.0
    laws: list[tuple[Floats, Floats, int]] = []
    for (step, times), cut in zip(steps.items(), aimed.cuts, strict=True):
        law = discretise(step, direction, h, aimed.tails, cut)
        losses: Floats = (law.first + np.arange(law.p.size, dtype=np.float64)) * h
        with np.errstate(divide="ignore"):
            log_tilted = np.log(law.p) + tilt * losses
        log_norm = float(logsumexp(log_tilted))
        tilted: Floats = np.exp(log_tilted - log_norm)
        folded = np.zeros(-(-tilted.size // length) * length)
        folded[: tilted.size] = tilted
        spectrum = rfft(folded.reshape(-1, length).sum(axis=0))
        magnitude = np.abs(spectrum) + gamma
        product *= spectrum**times
        grown *= magnitude**times
        relative += times * gamma / magnitude
        log_mass += times * log_norm
        drift += times * law.drift
        offset += times * law.first
        log_survive += times * math.log1p(-min(law.infinite, 0.5))
        laws.append((losses, tilted, times))
    weight = np.full(grown.size, 2.0)
    weight[0] = 1.0
    error = float(weight @ (grown * (relative + 2 * gamma))) / length
    masses = np.maximum(np.roll(irfft(product, length), (offset - start) % length), 0.0) + error
    # far below the centre the untilted weights e^(−λ l) would swamp the range of doubles
    totals = (start + np.arange(length)) * h
    keep = slice(int(np.searchsorted(totals, aimed.centre - max(300.0 / tilt, 4 * h))), None)
    totals, masses = totals[keep], masses[keep]
    # suffix sums in logarithms: r_j = masses_j e^(K − λ l_j)
    log_r = np.log(masses) + log_mass - tilt * totals
    reference = float(log_r.max())
    r = np.exp(log_r - reference)
    above = np.append(np.cumsum(r[::-1])[::-1][1:], 0.0)
    # discounted_m = Σ_{j>m} r_j e^(−(l_j − l_m)): a backward recursion, done by blocks of bounded exponent
    discounted = _discounted_suffix(r, h)
    with np.errstate(divide="ignore"):
        log_above, log_discounted = np.log(above) + reference, np.log(discounted) + reference
    top = _log_above_window(laws, float(totals[-1]), aimed.extra)
    constant = -math.expm1(log_survive) + math.exp(min(0.0, top + log_mass - tilt * float(totals[-1])))
    return PrivacyCurve(totals, log_above, log_discounted, constant, drift)


def _discounted_suffix(r: Floats, h: float) -> Floats:
    """D_m = Σ_{j>m} r_j e^(−(j−m)h), rounded down where it is rounded at all (a smaller D gives a larger δ)."""
    length = r.size
    block = max(1, min(length, int(300.0 / h)))
    out = np.empty(length)
    carry = 0.0  # D at the first index of the block above, plus that entry
    for stop in range(length, 0, -block):
        begin = max(0, stop - block)
        scale = np.exp(-h * np.arange(stop - begin + 1))
        suffix = np.cumsum((r[begin:stop] * scale[:-1])[::-1])[::-1]  # Σ_{i>=j} r_i e^(−(i−begin)h)
        inner = np.append(suffix[1:], 0.0)
        out[begin:stop] = inner / scale[:-1] + carry * (scale[stop - begin] / scale[:-1])
        carry = r[begin] + out[begin]
    return out


def _log_above_window(laws: list[tuple[Floats, Floats, int]], top: float, extra: float) -> float:
    """The log of a Chernoff bound on the tilted mass above ``top``:

    exp(Σ T log Ẽ[e^(λ'L)] − λ' top) with λ' = ``extra``.
    """
    if sum(times * float(losses[-1]) for losses, _, times in laws) <= top:
        return -math.inf
    total = -extra * top
    for losses, tilted, times in laws:
        exponent = extra * losses
        peak = float(exponent.max())
        total += times * (peak + math.log(float(np.exp(exponent - peak) @ tilted) + 1e-300))
    return min(0.0, total)
