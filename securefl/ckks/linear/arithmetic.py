"""Exact products modulo primes in double precision, and the noise of an answer. Legend: the package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.linear.layer import Integers
from securefl.ckks.ring import Residues, add_into, centered, lift, scaled, uniform
from securefl.primitives.entropy import Entropy
from securefl.primitives.prg import KEY_BYTES, Keystream

__all__ = ["divide", "flood", "multiply", "negacyclic", "place"]

_LIMB_BITS: Final = 30


def multiply(matrix: NDArray[np.float64], values: Residues, q: int, largest: int) -> Residues:
    """Matrix @ values mod q: uint64[r, m] from float64[r, k], integers within ±``largest``, and uint64[k, m]; exact.

    Two limbs of 30 bits; as many columns of the matrix at once as keep every sum below 2^53, so BLAS rounds nothing.
    """
    signed = centered(np.ascontiguousarray(values), q)
    low = ((signed + (1 << (_LIMB_BITS - 1))) & ((1 << _LIMB_BITS) - 1)) - (1 << (_LIMB_BITS - 1))
    limbs = low.astype(np.float64), ((signed - low) >> _LIMB_BITS).astype(np.float64)
    columns = 2**53 // (2 ** (_LIMB_BITS - 1) * largest) - 1
    total = np.zeros((len(matrix), values.shape[1]), dtype=np.uint64)
    for first in range(0, matrix.shape[1], columns):
        part = slice(first, first + columns)
        lower, upper = ((matrix[:, part] @ limb[part]).astype(np.int64) for limb in limbs)
        add_into(total, lift(lower, q), q)
        add_into(total, scaled(upper, 1 << _LIMB_BITS, q), q)
    return total


def place(u: NDArray[np.float64], exponents: NDArray[np.int64], values: Integers) -> None:
    """Add Σ values·X^(exponents·S) to a vector of blocks; X^N = −1, so a negative exponent wraps with its sign."""
    np.add.at(u, exponents % len(u), np.where(exponents < 0, -values, values).astype(np.float64))


def negacyclic(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrices of multiplication by Σ_e u_e X^(e S) along the blocks, side by side for all polynomials:
    float64[answers, n, polynomials·n] from float64[answers, polynomials, n].
    """
    answers, polynomials, n = u.shape
    # row k, column j holds u_(k − j), with the other sign below zero: windows of (−u, u) laid end to end
    doubled = np.concatenate((-u, u), axis=2)[:, :, ::-1]
    windows = np.lib.stride_tricks.sliding_window_view(doubled, n, axis=2)[:, :, :n][:, :, ::-1]
    return np.ascontiguousarray(windows.transpose(0, 2, 1, 3)).reshape(answers, n, polynomials * n)


def divide(rows: Sequence[Residues], primes: Sequence[int]) -> Residues:
    """round(x / p₁) modulo p₀ from x modulo p₀ and p₁; x itself where there is one prime."""
    if len(rows) == 1:
        return rows[0]
    first, second = primes
    rest = centered(rows[1], second)
    difference = rows[0].copy()
    add_into(difference, lift(-rest, first), first)
    return scaled(centered(difference, first), pow(second, -1, first), first)


def flood(entropy: Entropy, count: int, most: int, primes: Sequence[int]) -> list[Residues]:
    """Uniform integers on [−most·R, most·R), R the second prime or 1, modulo each prime."""
    words = np.empty(count + count % 2, dtype=np.uint64)
    Keystream(entropy.token(KEY_BYTES)).fill(words)
    # 64 bits to a range below 2^34, in double: its steps are unequal by 2^-19 of one at most, where R = 1 and the bound
    # itself is far larger; where there is a second prime, the part below it is exactly uniform
    high = np.floor(words[:count].astype(np.float64) * 2.0**-64 * (2 * most)).astype(np.int64) - most
    np.minimum(high, most - 1, out=high)
    if len(primes) == 1:
        return [lift(high, primes[0])]
    first, second = primes
    low = uniform(entropy.token(KEY_BYTES), count + count % 2, second)[:count]
    upper = scaled(high, second, first)
    add_into(upper, lift(low.view(np.int64), first), first)
    return [upper, low]
