"""Radix lanes: integers as the digits of 64-bit words in any base, where lanes of whole bits would waste room.

Legend: n clients, d integers in [0, M], window R (the base), L = floor(64 / log2 R) digits per word, W = ceil(d / L)
words. Integer i is digit floor(i / W) of word i mod W: word = Σ_j v_j · R^j (mod 2^64). SPEC: protocols/compression
§3.

A sum S over c clients is read in the R values around the middle of [0, c M]: from base = floor((c M + 1 − R) / 2) to
base + R − 1. With R >= n M + 1 that is every sum, and reading is exact. A narrower window holds sums that
concentrate; one outside comes back wrong by a multiple of R and moves its neighbour by one. Radix lanes cannot see
that: the sum of the integers themselves, carried in exact lanes, does (``securefl.encoding.tail``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.encoding.ring import MAX_WORDS
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.types import IntegerVector, RingVector

__all__ = ["RadixLanes", "digits_per_word", "widest_window"]

_MODULUS: Final = 2**64
_BLOCK: Final = 1 << 14


def digits_per_word(window: int) -> int:
    """L: the largest number of digits in base ``window`` with window^L <= 2^64."""
    digits, power = 0, window
    while power <= _MODULUS:
        digits, power = digits + 1, power * window
    return digits


def widest_window(window: int) -> int:
    """The largest base with as many digits per word as ``window`` has: room that costs nothing."""
    digits = digits_per_word(window)
    guess = int(_MODULUS ** (1 / digits)) + 2
    while guess**digits > _MODULUS:
        guess -= 1
    return guess


@dataclass(frozen=True, slots=True)
class RadixLanes:
    """The packing of ``dimension`` integers in [0, ``max_value``] whose sums are read in ``window`` values.

    Raises :class:`ConfigurationError` for a window that a single client can leave (below max_value + 1) or that does
    not fit a word.
    """

    dimension: int
    max_value: int
    clients: int
    window: int

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.max_value < 1 or self.clients < 1:
            raise ConfigurationError("radix lanes need integers, a largest value of at least 1, and clients")
        if not self.max_value < self.window <= 2**32:
            raise ConfigurationError(
                f"a window of {self.window} values does not hold one client's 0 to {self.max_value}, or exceeds 2**32"
            )
        if self.words > MAX_WORDS:
            raise ConfigurationError(f"{self.dimension} values need {self.words} words; at most {MAX_WORDS} fit")

    @property
    def exact(self) -> bool:
        """Whether every possible sum lies in the window."""
        return self.window > self.clients * self.max_value

    @property
    def per_word(self) -> int:
        return digits_per_word(self.window)

    @property
    def words(self) -> int:
        return -(-self.dimension // self.per_word)

    def check(self, values: IntegerVector) -> None:
        """Raises :class:`InvalidInputError` unless ``values`` is uint64[dimension] within [0, max_value]."""
        if values.dtype != np.uint64 or values.shape != (self.dimension,):
            raise InvalidInputError(
                f"expected uint64 integers of shape ({self.dimension},), got {values.dtype} of shape {values.shape}"
            )
        if int(values.max()) > self.max_value:
            raise InvalidInputError(f"an integer exceeds the largest value {self.max_value} of this round")

    def pack(self, values: IntegerVector) -> RingVector:
        """uint64[words] from uint64[dimension], by Horner's rule from the highest digit."""
        words, base = self.words, np.uint64(self.window)
        packed = np.zeros(words, dtype="<u8")
        for start in range(0, words, _BLOCK):
            target = packed[start : start + _BLOCK]
            for lane in reversed(range(self.per_word)):
                np.multiply(target, base, out=target)
                piece = values[lane * words + start : min((lane + 1) * words, lane * words + start + target.size)]
                target[: piece.size] += piece
        return packed

    def unpack(self, packed: RingVector, count: int, out: IntegerVector | None = None) -> IntegerVector:
        """uint64[dimension]: the sums over ``count`` clients, each in the window; see the module for sums outside."""
        if packed.shape != (self.words,):
            raise DecodeError(f"expected {self.words} words, got shape {packed.shape}")
        words, lanes, window = self.words, self.per_word, np.uint64(self.window)
        base = (count * self.max_value + 1 - self.window) // 2
        offset = np.uint64(base * sum(self.window**lane for lane in range(lanes)) % _MODULUS)
        shift = np.uint64(base % _MODULUS)
        values = np.empty(self.dimension, dtype=np.uint64) if out is None else out
        tail = self.dimension - (lanes - 1) * words  # digits in the last lane; may be <= 0
        for start in range(0, words, _BLOCK):
            rest = packed[start : start + _BLOCK] - offset
            if tail < words:  # the missing digits of short words are zero, not in the middle of the window
                rest += self._missing(start, rest.size, base)
            for lane in range(lanes):
                higher = rest // window
                rest -= higher * window
                piece = values[lane * words + start : min((lane + 1) * words, lane * words + start + rest.size)]
                np.add(rest[: piece.size], shift, out=piece)
                rest = higher
        if self.exact and int(values.max()) > count * self.max_value:
            raise DecodeError("a sum exceeds what the survivors can have given: a mask did not cancel")
        return values

    def _missing(self, start: int, size: int, base: int) -> RingVector:
        """What :meth:`unpack` took off too much in words that lack their highest digits."""
        correction = np.zeros(size, dtype=np.uint64)
        for lane in range(self.dimension // self.words, self.per_word):
            present = max(0, min(size, self.dimension - lane * self.words - start))
            correction[present:] += np.uint64(base * self.window**lane % _MODULUS)
        return correction
