"""Matrix products modulo 2^64: the one function in which torch may work, where it is installed.

``torch.mm`` on int64 wraps modulo 2^64 like unsigned arithmetic does and runs, in present releases, near the speed of a
float64 product; numpy's integer product is a plain loop. Where torch is missing or its integers are slow, the product
is put together from float64 products of 22-bit limbs, which are exact: 2^21 · 2^21 · K < 2^53 for K up to 2048.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Words", "by_limbs", "gemm", "use"]

#: Elements of Z_2^64.
Words: TypeAlias = NDArray[np.uint64]
Product: TypeAlias = Callable[[Words, Words], Words]

_LIMB_BITS: Final = 22
_LIMB_DEPTH: Final = 2048
#: Below this many multiplications numpy's loop is done before another library is entered.
_SMALL: Final = 1 << 12


def _limbs(words: Words) -> list[NDArray[np.float64]]:
    """Three float64 arrays with words = a + b·2^22 + c·2^44 (mod 2^64), each limb signed and at most 2^21 in size."""
    parts = []
    rest = words.view(np.int64)
    for _ in range(2):
        low = ((rest + (1 << (_LIMB_BITS - 1))) & ((1 << _LIMB_BITS) - 1)) - (1 << (_LIMB_BITS - 1))
        parts.append(low.astype(np.float64))
        rest = (rest - low) >> _LIMB_BITS
    parts.append(rest.astype(np.float64))
    return parts


def by_limbs(left: Words, right: Words) -> Words:
    """``left @ right`` mod 2^64 by six float64 products per 2048 terms. Shapes [m, k] and [k, n]."""
    total = np.zeros((left.shape[0], right.shape[1]), dtype=np.int64)
    for start in range(0, left.shape[1], _LIMB_DEPTH):
        a = _limbs(np.ascontiguousarray(left[:, start : start + _LIMB_DEPTH]))
        b = _limbs(np.ascontiguousarray(right[start : start + _LIMB_DEPTH]))
        for i in range(3):
            for j in range(3 - i):
                total += (a[i] @ b[j]).astype(np.int64) << (_LIMB_BITS * (i + j))
    return total.view(np.uint64)


def _by_torch(left: Words, right: Words) -> Words:
    import torch

    result: Words = (
        torch.mm(torch.from_numpy(left.view(np.int64)), torch.from_numpy(right.view(np.int64))).numpy().view(np.uint64)
    )
    return result


def _torch_is_there() -> bool:
    try:
        import torch  # noqa: F401  its presence is the question
    except ImportError:
        return False
    return True


_chosen: list[Product] = []


def use(product: Product) -> None:
    """Fix how matrices are multiplied; whoever owns a clock may measure the two once (``securefl.cluster`` does)."""
    _chosen[:] = [product]


@cache
def _default() -> Product:
    return _by_torch if _torch_is_there() else by_limbs


def candidates() -> tuple[Product, ...]:
    """The ways that work here."""
    return (_by_torch, by_limbs) if _torch_is_there() else (by_limbs,)


def gemm(left: Words, right: Words) -> Words:
    """``left @ right`` mod 2^64. uint64 [m, k] and [k, n] give uint64 [m, n]."""
    m, k = left.shape
    if m * k * right.shape[1] <= _SMALL:
        product: Words = left @ right
        return product
    # A vector with a matrix is a walk through the matrix; products of matrices first put it into blocks.
    if m == 1:
        row: Words = np.einsum("i,ij->j", left[0], right).reshape(1, -1)
        return row
    if right.shape[1] == 1:
        column: Words = np.einsum("ij,j->i", left, right[:, 0]).reshape(-1, 1)
        return column
    return (_chosen[0] if _chosen else _default())(left, right)
