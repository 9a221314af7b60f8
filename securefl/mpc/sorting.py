"""Sorting along the first axis by a fixed network, and order statistics. SPEC mpc §7.

Batcher's merge exchange sorts n values in about (log2 n)²/2 layers; the comparisons of a layer, over all columns, are
one relu. What is compared does not depend on values, so nothing is revealed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from securefl.mpc.operations import relu
from securefl.mpc.party import Array
from securefl.mpc.shared import Shared

__all__ = ["layers", "median", "sort"]


def layers(n: int) -> Iterator[list[tuple[int, int]]]:
    """Pairs (i, j), i < j, to be put in order, layer by layer. [Knuth 3, §5.2.2, Algorithm M]"""
    t = (n - 1).bit_length()
    p = 1 << (t - 1) if t else 0
    while p:
        q, r, d = 1 << (t - 1), 0, p
        while True:
            yield [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q >> 1, p
        p >>= 1


def sort(x: Shared) -> Shared:
    """[n, …] with every column ascending. Five rounds for each layer."""
    n = x.shape[0]
    for pairs in layers(n):
        if not pairs:
            continue
        low, high = [i for i, _ in pairs], [j for _, j in pairs]
        excess = relu(x[low] - x[high])
        x = _add_rows(_add_rows(x, low, -excess), high, excess)
    return x


def _add_rows(x: Shared, rows: list[int], change: Shared) -> Shared:
    """Plus ``change`` at some rows, each named once."""

    def spread(part: Array) -> Array:
        result = np.zeros(x.shape, part.dtype)
        result[rows] = part
        return result

    return x + change.linear(spread, x.shape)


def median(x: Shared) -> Shared:
    """The median of every column of [n, …]; for an even n the mean of the middle two.

    An odd n keeps the fraction; an even one gives a place more, exactly.
    """
    n = x.shape[0]
    ordered = sort(x)
    if n % 2:
        return ordered[n // 2]
    both = ordered[n // 2 - 1] + ordered[n // 2]
    return both.with_fraction(x.fraction + 1)
