"""Integer noise from an AES-128-CTR stream: exact up to a proven distance, no rejection, constant work per draw.

Legend: m slot bits, N = 2^m slots, B = 64 − m + 128 threshold bits, w_k integer weights with Σ w_k = 2^(m+B) = 2^192.

An alias table [Walker 1977; Vose 1991] in integers: slot i keeps its own value with probability t_i / 2^B and gives
its alias otherwise; Σ over slots is *exactly* w_k / 2^192. A draw takes one 64-bit word: its top m bits name
the slot, the rest is compared with the top of t_i. When they are equal (probability 2^-(64−m)), 128 fresh bits from
a second stream decide against the rest of t_i: the comparison is the full one of B bits, so no probability is
rounded when drawing. There is no loop whose length depends on a secret; table look-ups leave cache timing.

Distance of one draw from the ideal law (total variation), for K the cut and 2K + 1 <= N <= 2^20 values:
    tail beyond K                       <= 2^-128
    Miller's starting value             <= (2K + 1) p_(K+1) <= 2^20 · 2^-137 = 2^-117
    relative error of the weights       <= 2^-160
    rounding to Σ w = 2^192             <= (2K + 1) 2^-192 <= 2^-172
together <= 2^-116 (:data:`LOG2_DISTANCE`). 2^36 draws, a whole run of 1000 rounds of 2^26 values, stay below 2^-80.
The stream itself is AES-128 under a fresh key: computationally indistinguishable from uniform (primitives.prg).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from securefl.dp.weights import discrete_gaussian_weights, skellam_weights
from securefl.errors import ConfigurationError
from securefl.primitives.kdf import Label, derive
from securefl.primitives.prg import KEY_BYTES, MAX_STREAM_BYTES, stream_words

__all__ = ["LOG2_DISTANCE", "MAX_STDDEV", "WIDE_STDDEV", "NoiseTable", "noise_table", "wide_gaussian"]

#: log2 of the total variation distance of one draw from the ideal law.
LOG2_DISTANCE: Final = -116
#: Stddev of :func:`wide_gaussian`.
WIDE_STDDEV: Final = math.sqrt(341**2 * 1024**2 + 1024**2)
#: The table of a law with this stddev has 2^20 slots: larger ones would leave every cache.
MAX_STDDEV: Final = 32768.0
_REST_BITS: Final = 128
_BLOCK: Final = 1 << 13

Kind = Literal["skellam", "discrete-gaussian"]


@dataclass(frozen=True, slots=True, eq=False)
class NoiseTable:
    """Draws of one symmetric integer law. Build with :func:`noise_table`.

    ``variance``: of the law (for the discrete Gaussian: its parameter σ²). ``bound``: no draw exceeds it in magnitude.
    """

    variance: Fraction
    bound: int
    slot_bits: int
    _thresholds: NDArray[np.uint64] = field(repr=False)
    _values: NDArray[np.int32] = field(repr=False)
    _rest: NDArray[np.uint64] = field(repr=False)

    def draw(self, secret: bytes, count: int) -> NDArray[np.int64]:
        """``count`` independent integers. ``secret``: 32 bytes from an Entropy, used for this call only.

        Raises :class:`ConfigurationError` when one key cannot serve so many (2^33).
        """
        if count < 1 or 8 * count > MAX_STREAM_BYTES:
            raise ConfigurationError(f"one noise key serves 1 to {MAX_STREAM_BYTES // 8} integers, not {count}")
        key = derive(secret, Label.NOISE_STREAM, b"words", length=KEY_BYTES)
        out = np.empty(count, dtype=np.int64)
        words = np.empty(_BLOCK, dtype="<u8")
        slots = np.empty(_BLOCK, dtype=np.int64)
        thresholds = np.empty(_BLOCK, dtype=np.uint64)
        above = np.empty(_BLOCK, dtype=np.bool_)
        values = np.empty(_BLOCK, dtype=np.int32)
        shift = np.uint64(64 - self.slot_bits)
        for start in range(0, count, _BLOCK):
            size = min(_BLOCK, count - start)
            w, i, t, a, v = words[:size], slots[:size], thresholds[:size], above[:size], values[:size]
            stream_words(key, start, w)
            np.right_shift(w, shift, out=i.view(np.uint64))
            np.take(self._thresholds, i, out=t, mode="clip")
            np.greater_equal(w, t, out=a)
            np.left_shift(i, 1, out=i)
            np.add(i, a.view(np.uint8), out=i)
            np.take(self._values, i, out=v, mode="clip")
            np.equal(w, t, out=a)
            if a.any():
                self._settle_ties(secret, start, np.flatnonzero(a), i, v)
            out[start : start + size] = v
        return out

    def _settle_ties(
        self, secret: bytes, start: int, where: NDArray[np.intp], index: NDArray[np.int64], values: NDArray[np.int32]
    ) -> None:
        key = derive(secret, Label.NOISE_STREAM, b"ties", length=KEY_BYTES)
        fresh = np.empty(2, dtype="<u8")
        for at in where:
            stream_words(key, 2 * (start + int(at)), fresh)
            slot = int(index[at]) >> 1
            below = (int(fresh[0]), int(fresh[1])) < (int(self._rest[slot, 0]), int(self._rest[slot, 1]))
            values[at] = self._values[2 * slot + (0 if below else 1)]


def _alias(weights: list[int], slots: int, capacity: int) -> tuple[list[int], list[int]]:
    """Thresholds in [0, capacity) and aliases; Σ weights = slots · capacity exactly. [Vose 1991]"""
    remaining = weights + [0] * (slots - len(weights))
    alias = list(range(slots))
    small = [i for i, w in enumerate(remaining) if w < capacity]
    large = [i for i, w in enumerate(remaining) if w >= capacity]
    while small:
        i, j = small.pop(), large[-1]
        alias[i] = j
        remaining[j] -= capacity - remaining[i]
        if remaining[j] < capacity:
            large.pop()
            small.append(j)
    # what is left is full: its threshold is 0 and its alias itself
    for j in large:
        remaining[j] = 0
    return remaining, alias


@functools.lru_cache(maxsize=8)
def noise_table(kind: Kind, variance: Fraction) -> NoiseTable:
    """The table of a law; cached. Build time about 2 µs per unit of ``26 · stddev``.

    Raises :class:`ConfigurationError` for a variance that is not above 0 or a stddev above :data:`MAX_STDDEV`.
    """
    if not variance > 0:
        raise ConfigurationError(f"the noise variance must be above 0, got {variance}")
    if math.sqrt(variance) > MAX_STDDEV:
        raise ConfigurationError(
            f"the noise stddev {math.sqrt(variance):.0f} is above {MAX_STDDEV:.0f}: lower the scale"
        )
    half = skellam_weights(variance) if kind == "skellam" else discrete_gaussian_weights(variance)
    cut = len(half) - 1
    slot_bits = max(4, (2 * cut + 1 - 1).bit_length())
    total = half[0] + 2 * sum(half[1:])
    scaled = [(w << 192) // total for w in half]
    scaled[0] += (1 << 192) - scaled[0] - 2 * sum(scaled[1:])
    threshold_bits = 64 - slot_bits + _REST_BITS
    remaining, alias = _alias(scaled[:0:-1] + scaled, 1 << slot_bits, 1 << threshold_bits)
    prefixes = np.array([w >> _REST_BITS for w in remaining], dtype=np.uint64)
    slots = np.arange(1 << slot_bits, dtype=np.uint64)
    thresholds = (slots << np.uint64(64 - slot_bits)) | prefixes
    word = (1 << 64) - 1
    rest = np.array([((w >> 64) & word, w & word) for w in remaining], dtype=np.uint64)
    values = np.stack([np.arange(1 << slot_bits), np.array(alias)], axis=1).astype(np.int32) - np.int32(cut)
    return NoiseTable(variance, cut, slot_bits, thresholds, values.ravel(), rest)


def wide_gaussian(secret: bytes, count: int) -> NDArray[np.int64]:
    """``count`` discrete Gaussian integers of parameter σ = :data:`WIDE_STDDEV` (about 2^18.4), from one small table.

    341·X + Y with X, Y discrete Gaussians of parameter 1024: the mass at v is ρ_σ(v) Σ_x ρ_σ'(x − c_v), σ' > 2.99, and
    by Poisson summation the sum over the integers varies by a factor of at most 1 ± 2^-250 with c_v
    [Micciancio & Walter 2017, §3]. Distance per integer: two draws, at most 2^-115. ``secret``: as for ``draw``.
    """
    table = noise_table("discrete-gaussian", Fraction(1024**2))
    coarse = table.draw(derive(secret, Label.NOISE_STREAM, b"coarse"), count)
    coarse *= 341
    coarse += table.draw(derive(secret, Label.NOISE_STREAM, b"fine"), count)
    return coarse
