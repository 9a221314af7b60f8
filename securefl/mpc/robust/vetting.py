"""Which updates may enter a rule: every coordinate in range, and the ℓ2 norm bounded. SPEC robust §3.

A client can share any words. Without the range check a norm says nothing: Σ x² is computed modulo 2^64 and a huge x can
have a small one. The check compares all 64 bits, so no words pass that are not integers within the range.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.mpc.bits import Bits
from securefl.mpc.fixed import HEADROOM_BITS
from securefl.mpc.gemm import Words
from securefl.mpc.operations import bilinear, negative, reveal_bits
from securefl.mpc.robust.logic import all_of_rows, both
from securefl.mpc.shared import Shared, concatenate

__all__ = ["check_rows", "in_range", "norm_within", "squared_norms", "vet"]

#: Values compared at one time: what is dealt and computed for them stays within some tens of megabytes.
_BLOCK: Final = 1 << 20


def check_rows(x: Shared, largest: int) -> None:
    """Raises :class:`InvalidInputError` for what is not a matrix of integers, and :class:`ConfigurationError` when a
    squared norm of entries up to ``largest`` could leave the headroom.
    """
    if len(x.shape) != 2 or x.fraction or not x.size:
        raise InvalidInputError(f"updates are a matrix [clients, dimension] of integers, got {x!r}")
    if not largest >= 1 or x.shape[1] * largest**2 >= 1 << HEADROOM_BITS:
        raise ConfigurationError(
            f"{x.shape[1]} squares of integers up to {largest} leave the {HEADROOM_BITS} bits of the headroom: "
            "use fewer value bits"
        )


def in_range(x: Shared, largest: int) -> Bits:
    """[n]: whether −largest <= x <= largest in every coordinate of a row of x [n, d]. Sound for any words."""
    n, d = x.shape
    step = max(8, _BLOCK // (2 * n) // 8 * 8)
    blocks = []
    for start in range(0, d, step):
        block = x[:, start : start + step]
        room = np.array(largest, dtype=np.uint64)
        sides = concatenate([block.add_words(room), (-block).add_words(room)], axis=1)
        spare = -sides.shape[1] % 8
        if spare:  # zeros are in range
            sides = concatenate([sides, Shared(x.party, (n, spare), 0)], axis=1)
        blocks.append(all_of_rows(~negative(sides)))
    verdict = blocks[0]
    for block_verdict in blocks[1:]:
        verdict = both(verdict, block_verdict)
    return verdict


def _row_products(a: Words, b: Words) -> Words:
    return np.asarray(np.einsum("nd,nd->n", a, b))


def squared_norms(x: Shared) -> Shared:
    """[n]: Σ x² of each row, modulo 2^63, with one binary place: the norm only where the row is in range."""
    return bilinear(x, x, _row_products)


def norm_within(x: Shared, bound_squared: int) -> Bits:
    """[n]: whether Σ x² <= bound_squared, for rows that are in range."""
    return ~negative((-squared_norms(x)).add_words(np.array(2 * bound_squared, dtype=np.uint64)))


def vet(x: Shared, largest: int, bound_squared: int | None = None) -> NDArray[np.bool_] | None:
    """bool[n] at the servers, ``None`` at the helper: which rows are in range and within the norm bound.

    ``largest``: of the size of a coordinate. ``bound_squared``: of the squared ℓ2 norm, in the same units; ``None``:
    the range alone. One bit per client is opened, which check failed is not.
    """
    check_rows(x, largest)
    verdict = in_range(x, largest)
    if bound_squared is not None:
        if not 0 <= bound_squared < 1 << HEADROOM_BITS:
            raise ConfigurationError(f"the squared norm bound must be within 0 to 2^{HEADROOM_BITS}")
        verdict = both(verdict, norm_within(x, bound_squared))
    opened = reveal_bits(verdict)
    return None if opened is None else opened.astype(bool)
