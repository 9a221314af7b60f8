"""The largest of several along an axis, and the way back from it to the one that won. SPEC mpc §7, §8.

Neighbours play: of a pair the first stays if it is at least as large, so that of equal ones the first wins in the end.
An odd one out goes on to the next round as the last.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from securefl.mpc.bits import Bits
from securefl.mpc.operations import relu_and_sign, select
from securefl.mpc.shared import Shared, concatenate, stack

__all__ = ["maximum_along", "play", "route"]


def play(x: Shared) -> tuple[Shared, tuple[Bits, ...]]:
    """The largest along the first axis, which is removed; and who won, a tensor of bits for every round.

    ceil(log2 n) relus, n − 1 of each column in all. Differences must stay within the headroom.
    """
    wins: list[Bits] = []
    while (n := x.shape[0]) > 1:
        paired = n - n % 2
        second = x[1:paired:2]
        more, won = relu_and_sign(x[0:paired:2] - second)
        wins.append(won)
        best = second + more
        x = concatenate((best, x[paired:])) if n % 2 else best
    return x[0], tuple(wins)


def route(wins: Sequence[Bits], x: Shared) -> Shared:
    """From what the winners get to what all get, on a first axis of its own: ``x`` where one won, and 0 elsewhere.

    ``wins``: of :func:`play`. A select for every round of it, of bits that were used before.
    """
    x = x.reshape(1, *x.shape)
    for won in reversed(wins):
        pairs = won.shape[0]
        both = x[:pairs]
        first = select(won, both)
        played = stack((first, both - first), axis=1).reshape(2 * pairs, *x.shape[1:])
        x = concatenate((played, x[pairs:])) if x.shape[0] > pairs else played
    return x


def maximum_along(x: Shared, axis: int) -> Shared:
    """The largest element along an axis, which is removed."""
    return play(x.view(lambda array: np.moveaxis(array, axis, 0)))[0]
