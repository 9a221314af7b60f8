"""Arithmetic in Z_q[X]/(X^N + 1) on arrays of residues, exact; primes q below 2^60.

Legend: N degree, q a prime, s a ternary polynomial (the secret key), h = N/2.

A product a·s is taken in floating point and rounded: a is cut into signed limbs, and each limb times s goes through
complex transforms of length h by the isomorphism of R[X]/(X^N + 1) with C[X]/(X^h − i). The error is bounded for
*every* input [Higham 2002, Theorem 24.2] by η·‖limb‖₂·max|S| with S the transform of s, which is known when a key is
loaded; the number of limbs is the smallest for which that bound stays below 1/4, so that rounding is exact. Nothing
here runs in constant time.

Residues are ``uint64`` below q; ``int64`` arrays are centred representatives. SPEC: protocols/ckks-sum/SPEC.md §3.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.primitives.prg import Keystream

__all__ = [
    "NOISE_LIMIT",
    "Multiplier",
    "Residues",
    "add_into",
    "centered",
    "lift",
    "noise",
    "normal",
    "scaled",
    "uniform",
]

Residues: TypeAlias = NDArray[np.uint64]
Integers: TypeAlias = NDArray[np.int64]

#: Largest magnitude of the centered binomial noise: 21 bits minus 21 bits, standard deviation 3.24 (SEAL's default).
NOISE_LIMIT: Final = 21
_MASK: Final = np.uint64((1 << NOISE_LIMIT) - 1)
_UNIT: Final = 2.0**-53
_ROWS: Final = 4


def add_into(total: Residues, other: Residues, q: int) -> None:
    """``total`` += ``other`` mod q, in place; both below q."""
    np.add(total, other, out=total)
    np.minimum(total, total - np.uint64(q), out=total)  # below q, the difference wraps around to a large number


def centered(residues: Residues, q: int) -> Integers:
    """The representatives in (−q/2, q/2)."""
    values = residues.view(np.int64)
    return np.where(values > q // 2, values - q, values)


def lift(integers: Integers, q: int) -> Residues:
    """Residues of integers of magnitude below 2^63."""
    remainders: Integers = np.mod(integers, np.int64(q))
    return remainders.view(np.uint64)


def scaled(integers: Integers, factor: int, q: int) -> Residues:
    """``integers``·``factor`` mod q. Integers of any int64 value in (−q, q); exact.

    Each half of 30 bits times the factor: the quotient by q is below 2^31, so that its floating-point estimate is off
    by at most one, and the remainder is exact modulo 2^64.
    """
    factor %= q
    high, low = integers >> 30, integers & ((1 << 30) - 1)
    upper = _times(high, factor * (1 << 30) % q, q)
    return lift(upper + _times(low, factor, q), q)


def _times(small: Integers, factor: int, q: int) -> Integers:
    """small·factor − round(small·factor/q)·q, of magnitude below q; |small| <= 2^42, factor < q < 2^60."""
    quotient: Integers = np.rint(small * (factor / q)).astype(np.int64)
    product: Integers = small * np.int64(factor)
    product -= quotient * np.int64(q)
    return product


def uniform(key: bytes, degree: int, q: int) -> Residues:
    """uint64[degree], uniform below q: the words of the AES-128-CTR stream of ``key``, cut to the bits of q, in order,
    those of q and above left out. SPEC §3.2.
    """
    stream, mask = Keystream(key), np.uint64((1 << q.bit_length()) - 1)
    found = np.empty(0, dtype=np.uint64)
    while found.size < degree:
        words = np.empty(degree + degree // 8 if found.size else degree, dtype=np.uint64)
        words = words[: words.size // 2 * 2]
        stream.fill(words)
        words &= mask
        found = np.concatenate((found, words[words < np.uint64(q)])) if found.size else words[words < np.uint64(q)]
    return found[:degree]


def noise(key: bytes, degree: int) -> Integers:
    """int64[degree] of centered binomial noise: word j of the stream of ``key`` gives the number of ones in its lowest
    21 bits, less that in the 21 bits above. SPEC §3.3.
    """
    words = np.empty(degree, dtype=np.uint64)
    Keystream(key).fill(words)
    ones: Integers = np.bitwise_count(words & _MASK).astype(np.int64)
    ones -= np.bitwise_count((words >> np.uint64(NOISE_LIMIT)) & _MASK)
    return ones


def normal(key: bytes, size: int) -> NDArray[np.float64]:
    """float64[size], size even: standard normal values by Box and Muller from the stream of ``key``. SPEC §3.4.

    Words 2 i and 2 i + 1 give values i and i + size/2, from uniforms of 53 bits: none exceeds sqrt(2·53·ln 2) = 8.58.
    """
    words = np.empty(size, dtype=np.uint64)
    Keystream(key).fill(words)
    first = ((words[::2] >> np.uint64(11)) + np.uint64(1)) * 2.0**-53  # in (0, 1]
    angle = (words[1::2] >> np.uint64(11)) * (2 * np.pi * 2.0**-53)
    radius = np.sqrt(-2 * np.log(first))
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))


class Multiplier:
    """Products with one fixed ternary polynomial. It holds the secret key: it never prints.

    ``ternary``: int8[N], values −1, 0, 1. Raises :class:`ConfigurationError` when it is not.
    """

    def __init__(self, ternary: NDArray[np.int8]) -> None:
        degree = ternary.size
        if degree < 4 or degree & (degree - 1) or not np.isin(ternary, (-1, 0, 1)).all():
            raise ConfigurationError("a secret key has a power of two of coefficients, each -1, 0 or 1")
        self._half = degree // 2
        self._twist = np.exp(1j * np.pi / degree * np.arange(self._half))
        self._image = scipy.fft.fft((ternary[: self._half] + 1j * ternary[self._half :]) * self._twist)
        self.limbs, self.error_bound = self._choose(float(np.abs(self._image).max()))

    def _choose(self, largest: float) -> tuple[int, float]:
        """The fewest limbs whose error is below 1/4 for every input. [Higham 2002, Theorem 24.2]"""
        depth = math.log2(self._half)
        gamma = 4 * _UNIT / (1 - 4 * _UNIT)
        eta = depth * (_UNIT + gamma * (math.sqrt(2) + _UNIT))
        relative = 3 * eta + 8 * _UNIT  # three transforms; two twists and one product, each of a few roundings
        for limbs in (2, 3, 4):
            norm = math.sqrt(self._half) * math.sqrt(2) * 2.0 ** (-(-60 // limbs) - 1)
            bound = relative * norm * largest
            if bound < 0.25:
                return limbs, bound
        raise ConfigurationError("the ring is too large for exact products in double precision")

    def times(self, a: Residues, q: int) -> Residues:
        """a·s mod q: uint64[…, N] from uint64[…, N]."""
        flat = a.reshape(-1, 2 * self._half)
        out = np.empty_like(flat)
        for at in range(0, flat.shape[0], _ROWS):
            out[at : at + _ROWS] = self._block(flat[at : at + _ROWS], q)
        return out.reshape(a.shape)

    def _block(self, a: Residues, q: int) -> Residues:
        width = -(-60 // self.limbs)
        rest, total = centered(a, q), None
        products: list[Integers] = []
        for limb in range(self.limbs):
            if limb + 1 < self.limbs:
                piece = ((rest + (1 << (width - 1))) & ((1 << width) - 1)) - (1 << (width - 1))
                rest = (rest - piece) >> width
            else:
                piece = rest
            products.append(self._small(piece))
        for limb, product in enumerate(products):
            term = _times(product, pow(2, width * limb, q), q)
            total = term if total is None else total + term
        assert total is not None  # noqa: S101 - there are at least two limbs
        return lift(total, q)

    def _small(self, limb: Integers) -> Integers:
        """limb·s over the integers."""
        half = self._half
        folded = np.empty((limb.shape[0], half), dtype=np.complex128)
        folded.real, folded.imag = limb[:, :half], limb[:, half:]
        folded *= self._twist
        image = scipy.fft.fft(folded, axis=-1, overwrite_x=True)
        image *= self._image
        back = scipy.fft.ifft(image, axis=-1, overwrite_x=True)
        back *= self._twist.conj()
        out = np.empty(limb.shape, dtype=np.int64)
        out[:, :half], out[:, half:] = np.rint(back.real), np.rint(back.imag)
        return out

    def __repr__(self) -> str:
        return "<Multiplier>"
