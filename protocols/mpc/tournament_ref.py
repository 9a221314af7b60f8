"""Maxima by a tournament and the way back down to the winners, in plain Python on the operations of either engine.

SPEC.md §7, §8. A value is its three parts (components); ``relu`` and ``select`` are the engine's, on settled values.
The first gives also what the second needs to choose by the same bits again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RING = 2**64
Parts = list[list[int]]
Relu = Callable[[Parts], tuple[Parts, Any]]
Select = Callable[[Any, Parts], Parts]


def plus(a: Parts, b: Parts, sign: int = 1) -> Parts:
    return [[(u + sign * v) % RING for u, v in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]


def joined(rows: list[Parts]) -> Parts:
    return [[word for row in rows for word in row[party]] for party in range(3)]


def cut(values: Parts, size: int) -> list[Parts]:
    return [[part[at : at + size] for part in values] for at in range(0, len(values[0]), size)]


def play(rows: list[Parts], relu: Relu) -> tuple[Parts, list[tuple[int, Any]]]:
    """The largest of every column; and of each round how many pairs played, with their bits."""
    size, rounds = len(rows[0][0]), []
    while len(rows) > 1:
        paired = len(rows) - len(rows) % 2
        more, bits = relu(joined([plus(rows[i], rows[i + 1], -1) for i in range(0, paired, 2)]))
        rounds.append((paired // 2, bits))
        best = [plus(rows[2 * i + 1], piece) for i, piece in enumerate(cut(more, size))]
        rows = best + rows[paired:]
    return rows[0], rounds


def route(rounds: list[tuple[int, Any]], prize: Parts, select: Select) -> list[Parts]:
    """What each row gets of the prizes of the columns: all where it won, and 0 elsewhere."""
    size, rows = len(prize[0]), [prize]
    for pairs, bits in reversed(rounds):
        firsts = cut(select(bits, joined(rows[:pairs])), size)
        both = [half for i, first in enumerate(firsts) for half in (first, plus(rows[i], first, -1))]
        rows = both + rows[pairs:]
    return rows
