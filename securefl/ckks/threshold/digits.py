"""Integers as digits of 128-bit coefficients. SPEC: protocols/ckks-threshold/SPEC.md §4.

Legend: n clients, M largest integer of a segment, R = n·M + 1 its base, k digits per coefficient, C coefficients of the
segment, δ the exponent of the lattice's distance. Integer i of a segment is digit floor(i / C) of its coefficient
i mod C: m = Σ_j v_j·R^j, and the coefficient is m·2^δ. Digits of a sum of n clients never carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.ckks.threshold.wide import Words
from securefl.errors import DecodeError
from securefl.types import IntegerVector

__all__ = ["PLAIN_BITS", "Run", "read", "write"]

#: Bits of a coefficient that carries plaintext and what is left of the noise.
PLAIN_BITS: Final = 128
_BLOCK: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Run:
    """One segment: ``size`` integers up to ``max_value`` in ``coefficients`` of ``digits`` each, base ``base``.

    ``first_value``, ``first``: where its integers and its coefficients begin.
    """

    size: int
    max_value: int
    base: int
    digits: int
    first_value: int
    first: int

    @property
    def coefficients(self) -> int:
        return -(-self.size // self.digits)

    @property
    def piece_bits(self) -> int:
        """w: coefficients are worked in pieces of w bits, such that R·2^w <= 2^64."""
        bits = (self.base - 1).bit_length()
        return 32 if bits <= 32 else 16 if bits <= 48 else 8

    def pieces(self, digits: int) -> int:
        """Pieces of a number of that many digits."""
        largest: int = self.base**digits - 1
        return -(-largest.bit_length() // self.piece_bits)

    def values(self, vector: IntegerVector, digit: int, low: int, high: int) -> IntegerVector:
        """The integers that are digit ``digit`` of the run's coefficients ``low`` … ``high``: a view."""
        begin, end = self.first_value + digit * self.coefficients, self.first_value + self.size
        return vector[min(begin + low, end) : min(begin + high, end)]


def write(run: Run, vector: IntegerVector, out: Words, shift: int) -> None:
    """Write the run's coefficients into its part of ``out``, uint64[2, all coefficients], low words first."""
    width, mask, base = np.uint64(run.piece_bits), np.uint64((1 << run.piece_bits) - 1), np.uint64(run.base)
    for low in range(0, run.coefficients, _BLOCK):
        high = min(low + _BLOCK, run.coefficients)
        pieces = np.zeros((run.pieces(run.digits), high - low), dtype=np.uint64)
        for digit in reversed(range(run.digits)):
            given = run.values(vector, digit, low, high)
            over = np.zeros(high - low, dtype=np.uint64)
            over[: given.size] = given
            for piece in pieces[: run.pieces(run.digits - digit)]:  # [Knuth, TAOCP 2, 4.3.1]
                np.multiply(piece, base, out=piece)
                piece += over
                np.right_shift(piece, width, out=over)
                piece &= mask
        target = out[:, run.first + low : run.first + high]
        target[...] = 0
        for at, piece in enumerate(pieces):
            _or_shifted(target, piece, at * run.piece_bits + shift)


def _or_shifted(target: Words, piece: Words, shift: int) -> None:
    word, bit = divmod(shift, 64)
    target[word] |= piece << np.uint64(bit)
    if bit and word == 0:
        target[1] |= piece >> np.uint64(64 - bit)


def read(run: Run, opened: Words, vector: IntegerVector, shift: int, bound: int, clients: int) -> None:
    """Write into ``vector`` the sums that ``opened``, uint64[2, all coefficients] modulo 2^128, says of this run.

    ``bound``: the most by which a coefficient can lie off its multiple of 2^shift. Raises :class:`DecodeError` for a
    coefficient farther off, or for digits that are no sum of ``clients`` clients.
    """
    width, base = run.piece_bits, np.uint64(run.base)
    half, mask = np.uint64(1 << (shift - 1)), np.uint64((1 << width) - 1)
    off_limit, limit = np.int64(bound), clients * run.max_value
    for low in range(0, run.coefficients, _BLOCK):
        high = min(low + _BLOCK, run.coefficients)
        block = opened[:, run.first + low : run.first + high]
        w0 = block[0] + half
        w1 = block[1] + (w0 < half)
        off = (w0 & np.uint64((1 << shift) - 1)).view(np.int64) - np.int64(1 << (shift - 1))
        if int(np.abs(off).max()) > off_limit:
            raise DecodeError("a decrypted sum lies off the lattice: a decryption share or a ciphertext is not right")
        pieces = [
            _shifted_out(w0, w1, at * width + shift) & mask if at * width + shift < PLAIN_BITS else np.zeros_like(w0)
            for at in range(-(-PLAIN_BITS // width))
        ]
        for digit in range(run.digits):
            rest = np.zeros_like(w0)
            for at in reversed(range(len(pieces))):
                rest <<= np.uint64(width)
                rest |= pieces[at]
                pieces[at] = rest // base
                rest -= pieces[at] * base
            target = run.values(vector, digit, low, high)
            target[...] = rest[: target.size]
            if int(rest.max()) > limit or rest[target.size :].any():
                raise DecodeError(f"a digit of a decrypted sum is no sum of {clients} clients")
            while pieces and not pieces[-1].any():
                pieces.pop()
        if pieces:
            raise DecodeError(f"a decrypted sum is no sum of {clients} clients")


def _shifted_out(w0: Words, w1: Words, shift: int) -> Words:
    word, bit = divmod(shift, 64)
    if word:
        return w1 >> np.uint64(bit)
    if not bit:
        return w0
    return w0 >> np.uint64(bit) | w1 << np.uint64(64 - bit)
