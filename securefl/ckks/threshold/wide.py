"""Arithmetic in Z_q[X]/(X^N + 1), N = 8192 and q = 2^208, exact. SPEC: protocols/ckks-threshold/SPEC.md §3.

A polynomial is eight planes of 26-bit limbs, ``int64[8, N]``, plane i holding bits 26 i … of every coefficient;
*canonical* when every limb is in [0, 2^26). The modulus is a power of two: hardness of ring-LWE does not ask for a
prime [Peikert, Regev, Stephens-Davidowitz 2017], and dropping low bits, packing and carrying become shifts.

Only one kind of product is needed: any polynomial times a ternary one. Limbs are balanced, a limb times the ternary
polynomial goes through complex transforms of length N/2 (R[X]/(X^N + 1) ≅ C[X]/(X^(N/2) − i)), and is rounded. The
error is bounded for every input by η·‖limb‖₂·max|T|, T the transform of the ternary polynomial, which is computed and
checked at every use [Higham 2002, Theorem 24.2]: rounding is exact or :func:`ternary_image` refuses. Not constant time.
"""

from __future__ import annotations

import math
from typing import Final, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from securefl.errors import ConfigurationError

__all__ = [
    "COEFFICIENT_BYTES",
    "DEGREE",
    "DROPPED_BITS",
    "LIMBS",
    "LIMB_BITS",
    "MODULUS_BITS",
    "Image",
    "Limbs",
    "add_words",
    "carry",
    "image",
    "limbs_of",
    "product",
    "ternary_image",
    "top",
    "words_of",
]

DEGREE: Final = 8192
LIMBS: Final = 8
LIMB_BITS: Final = 26
MODULUS_BITS: Final = LIMBS * LIMB_BITS
#: What c0 and decryption shares leave out: their low bits lie under the flooding noise.
DROPPED_BITS: Final = 80
COEFFICIENT_BYTES: Final = MODULUS_BITS // 8

Limbs: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]
Image: TypeAlias = NDArray[np.complex128]

_MASK: Final = (1 << LIMB_BITS) - 1
_HALF: Final = DEGREE // 2
_TWIST: Final = np.exp(1j * np.pi / DEGREE * np.arange(_HALF))
_UNTWIST: Final = _TWIST.conj()


def _largest_image() -> float:
    """The largest max|T| for which a product's rounding error stays below 1/4 for every balanced limb."""
    unit = 2.0**-53
    gamma = 4 * unit / (1 - 4 * unit)
    eta = math.log2(_HALF) * (unit + gamma * (math.sqrt(2) + unit))
    relative = 3 * eta + 8 * unit  # three transforms; two twists and one product, each of a few roundings
    norm = math.sqrt(DEGREE) * 2.0 ** (LIMB_BITS - 1)
    return 0.25 / (relative * norm)


LARGEST_IMAGE: Final = _largest_image()


def carry(limbs: Limbs, first: int = 0) -> Limbs:
    """Make ``int64[…, 8, N]`` canonical in place, from plane ``first`` up, modulo q; magnitudes below 2^62."""
    for plane in range(first, LIMBS):
        here = limbs[..., plane, :]
        if plane + 1 < LIMBS:
            limbs[..., plane + 1, :] += here >> LIMB_BITS
        here &= _MASK
    return limbs


def _folded(values: NDArray[np.float64] | Limbs) -> Image:
    folded = np.empty((*values.shape[:-1], _HALF), dtype=np.complex128)
    folded.real, folded.imag = values[..., :_HALF], values[..., _HALF:]
    folded *= _TWIST
    transformed: Image = scipy.fft.fft(folded, axis=-1, overwrite_x=True)
    return transformed


def image(limbs: Limbs) -> Image:
    """complex128[8, N/2]: the transforms of the balanced limbs of a canonical polynomial."""
    balanced = limbs.copy()
    for plane in range(LIMBS):
        here = balanced[plane]
        high = (here + (1 << (LIMB_BITS - 1))) >> LIMB_BITS
        here -= high << LIMB_BITS
        if plane + 1 < LIMBS:
            balanced[plane + 1] += high
    return _folded(balanced)


def ternary_image(ternary: NDArray[np.int8]) -> Image:
    """complex128[N/2] for :func:`product`. Raises :class:`ConfigurationError` for a polynomial with a transform so
    large that products might round wrongly: a random one has it with probability below 2^-10000.
    """
    transformed = _folded(ternary.astype(np.float64))
    if float(np.abs(transformed).max()) > LARGEST_IMAGE:
        raise ConfigurationError("a ternary polynomial is not random: exact products cannot be promised for it")
    return transformed


def product(a: Image, ternary: Image) -> Limbs:
    """int64[8, N], not yet canonical, magnitudes below 2^38: the product of the two polynomials, exact."""
    back = scipy.fft.ifft(a * ternary, axis=-1, overwrite_x=True)
    back *= _UNTWIST
    out = np.empty((LIMBS, DEGREE), dtype=np.int64)
    out[:, :_HALF], out[:, _HALF:] = np.rint(back.real), np.rint(back.imag)
    return out


def words_of(limbs: Limbs) -> Words:
    """uint64[4, n] from canonical limbs [8, n]: little-endian words of each coefficient; the last has 16 bits."""
    x = limbs.view(np.uint64)
    out = np.empty((4, limbs.shape[-1]), dtype=np.uint64)
    out[0] = x[0] | x[1] << 26 | x[2] << 52
    out[1] = x[2] >> 12 | x[3] << 14 | x[4] << 40
    out[2] = x[4] >> 24 | x[5] << 2 | x[6] << 28 | x[7] << 54
    out[3] = x[7] >> 10
    return out


def limbs_of(words: Words) -> Limbs:
    """int64[8, n], canonical, from uint64[4, n] with the last word below 2^16."""
    out = np.empty((LIMBS, words.shape[-1]), dtype=np.uint64)
    w0, w1, w2, w3 = words
    out[0], out[1], out[2] = w0, w0 >> 26, w0 >> 52 | w1 << 12
    out[3], out[4] = w1 >> 14, w1 >> 40 | w2 << 24
    out[5], out[6], out[7] = w2 >> 2, w2 >> 28, w2 >> 54 | w3 << 10
    out &= np.uint64(_MASK)
    return out.view(np.int64)


def top(limbs: Limbs) -> Words:
    """uint64[2, n]: the high 128 bits of coefficients [8, n], rounded to nearest, low word first; changes ``limbs``.

    ``limbs``: canonical. The result times 2^80 is within 2^79 of the coefficient, modulo q.
    """
    limbs[3] += 2  # 2^79
    x = carry(limbs, 3).view(np.uint64)
    out = np.empty((2, limbs.shape[-1]), dtype=np.uint64)
    out[0] = x[3] >> 2 | x[4] << 24 | x[5] << 50
    out[1] = x[5] >> 14 | x[6] << 12 | x[7] << 38
    return out


def add_words(total: Words, other: Words) -> None:
    """``total`` += ``other`` modulo 2^128, in place; both uint64[2, n]."""
    total[0] += other[0]
    total[1] += other[1]
    total[1] += total[0] < other[0]
