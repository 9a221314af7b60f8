"""Aggregation rules over vetted updates: [clients, dimension] of integers, every coordinate within ±largest.

What is opened is the return value and nothing else. SPEC robust §4 says for each rule what it bears and reveals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.mpc.fixed import HEADROOM_BITS
from securefl.mpc.gemm import Words, gemm
from securefl.mpc.operations import bilinear, matmul, negative, number, reveal, truncate
from securefl.mpc.robust.sorting import ordered
from securefl.mpc.shared import Shared

__all__ = ["accepted_sum", "median", "multi_krum", "trimmed_sum"]

Integers = NDArray[np.int64]


def _opened(x: Shared) -> Integers | None:
    words = reveal(x)
    return None if words is None else np.ascontiguousarray(words).view(np.int64) >> x.fraction


def accepted_sum(x: Shared, accepted: NDArray[np.bool_] | None) -> Integers | None:
    """int64[d] at the servers: the sum over the rows that ``accepted`` (public at the servers) marks."""
    party = x.party
    if party.is_helper:
        return _opened(Shared(party, x.shape[1:], x.fraction))
    if accepted is None or accepted.shape != x.shape[:1]:
        raise InvalidInputError("the servers need one verdict per row")
    return _opened(Shared(party, x.shape[1:], x.fraction, x.words[accepted].sum(axis=0, dtype=np.uint64)))


def median(x: Shared) -> Integers | None:
    """int64[d]: *twice* the coordinate median; for an even number of clients the sum of the two middle values.

    Bears fewer than half of the clients being arbitrary. [Yin et al. 2018, Algorithm 1, Option I]
    """
    n = x.shape[0]
    middle = ordered(x, sorted({(n - 1) // 2, n // 2}))
    return _opened(middle.sum(axis=0) if n % 2 == 0 else (middle * 2)[0])


def trimmed_sum(x: Shared, trim: int) -> Integers | None:
    """int64[d]: the sum of each coordinate's values without its ``trim`` smallest and ``trim`` largest.

    Bears ``trim`` arbitrary clients. [Yin et al. 2018, Algorithm 1, Option II]
    """
    n = x.shape[0]
    if not trim >= 0 or 2 * trim >= n:
        raise ConfigurationError(f"cannot trim {trim} at both ends of {n} clients")
    # The sum of all less the ends: only these have to be sorted out, and they are fewer comparators.
    if not trim:
        return _opened(x.sum(axis=0))
    ends = ordered(x, [*range(trim), *range(n - trim, n)])
    return _opened(x.sum(axis=0) - ends.sum(axis=0))


def _gram(a: Words, b: Words) -> Words:
    return gemm(a, np.ascontiguousarray(b.T))


def multi_krum(x: Shared, faulty: int, chosen: int, largest: int) -> Integers | None:
    """int64[d]: the sum of the ``chosen`` updates whose nearest n − faulty − 2 others are nearest to them.

    Bears ``faulty`` arbitrary clients, 2·faulty + 2 < n. Which updates were chosen is not opened. Equal scores: the
    lower row first. [Blanchard et al. 2017, §4 (Krum) and §5 (Multi-Krum)]
    """
    n = x.shape[0]
    nearest = n - faulty - 2
    if faulty < 0 or 2 * faulty + 2 >= n or not 1 <= chosen <= n - faulty:
        raise ConfigurationError(
            f"multi-Krum needs 2·faulty + 2 < clients and 1 to clients − faulty chosen, got {faulty} faulty and "
            f"{chosen} chosen of {n} clients"
        )
    if 8 * x.shape[1] * largest**2 >= 1 << HEADROOM_BITS:
        raise ConfigurationError(
            f"distances of {x.shape[1]} integers up to {largest} leave the {HEADROOM_BITS} bits of the headroom: use "
            "fewer value bits"
        )
    gram = bilinear(x, x, _gram)
    norms = gram[np.arange(n), np.arange(n)]
    distances = norms.reshape(n, 1) + norms.reshape(1, n) - gram * 2
    # Products are doubled; scores are sums of n distances, and are multiplied by n to break ties.
    needed = (8 * x.shape[1] * largest**2 * nearest * n).bit_length()
    if needed >= HEADROOM_BITS:
        distances = truncate(distances, needed - HEADROOM_BITS + 1)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)]).T  # [n − 1, n]
    columns = distances.with_fraction(0)[np.arange(n)[None, :], others]
    scores = ordered(columns, range(nearest)).sum(axis=0)
    ranked = (scores * n).add_words(np.arange(n, dtype=np.uint64))
    below = number(negative(ranked.reshape(1, n) - ranked.reshape(n, 1)))  # [i, j]: j's score is below i's
    rank = below.sum(axis=1)
    picked = number(negative(rank.add_words(np.array(-chosen, dtype=np.int64).view(np.uint64))))
    return _opened(matmul(picked.reshape(1, n), x)[0])
