"""Fixed point in Z_2^64: real numbers as integers of ``fraction`` binary places, negatives in two's complement.

SPEC mpc §3. Products have the sum of the two fractions (matrix products one place more) until they are truncated, and
every value, truncated or not, must stay below 2^62 in size (:data:`HEADROOM_BITS`): then truncation and comparison
never fail.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securefl.errors import InvalidInputError
from securefl.mpc.gemm import Words

__all__ = ["FRACTION", "HEADROOM_BITS", "PRODUCT_FRACTION", "check_values", "decode", "encode"]

#: Binary places of values unless said otherwise.
FRACTION: Final = 16
#: Of matrix products of such values: their double is what engines compute.
PRODUCT_FRACTION: Final = 2 * FRACTION + 1
#: |z| < 2^62 for every value of a computation, in units of its last binary place.
HEADROOM_BITS: Final = 62


#: Values encoded at one time: what is between stays in the cache.
_BLOCK: Final = 1 << 14


def _most(fraction: int, limit: float | None) -> float:
    return 2.0 ** (HEADROOM_BITS - fraction) if limit is None else limit


def check_values(values: ArrayLike, fraction: int = FRACTION, limit: float | None = None) -> None:
    """Raises :class:`InvalidInputError` for values that :func:`encode` does not take."""
    real, most = np.asarray(values), _most(fraction, limit)
    if real.size and not max(real.max(), -float(real.min())) <= most:  # a NaN compares false
        raise InvalidInputError(
            f"values to share must be finite and at most {most:g} in size: clip, rescale, or state a larger range"
        )


def encode(values: float | ArrayLike, fraction: int = FRACTION, limit: float | None = None) -> Words:
    """uint64 of the same shape: ``rint(values · 2^fraction)``, ties to even, mod 2^64.

    ``limit``: the largest size a value may have; by default what the headroom holds. Raises
    :class:`InvalidInputError` for values that are not finite or larger.
    """
    if isinstance(values, (int, float)):  # constants of formulas: without arrays it is sooner done
        if not abs(values) <= _most(fraction, limit):
            check_values(values, fraction, limit)
        return np.array(round(float(values) * 2.0**fraction) % 2**64, np.uint64)
    real = np.asarray(values)
    words = np.empty(real.shape, np.int64)
    flat, out = real.reshape(-1), words.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float64)
        check_values(block, fraction, limit)
        block *= 2.0**fraction
        np.rint(block, out=block)
        out[start : start + _BLOCK] = block
    return words.view(np.uint64)


def decode(words: Words, fraction: int = FRACTION) -> NDArray[np.float64]:
    """float64 of the same shape: the signed integers over 2^fraction."""
    return np.ldexp(words.view(np.int64).astype(np.float64), -fraction)
