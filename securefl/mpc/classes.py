"""Rows of class scores: the largest of each, and class numbers as rows, both of one comparison. SPEC mpc §7."""

from __future__ import annotations

from typing import Final

import numpy as np

from securefl.mpc.fixed import FRACTION
from securefl.mpc.gemm import Words
from securefl.mpc.operations import negative, number, select
from securefl.mpc.party import Array
from securefl.mpc.shared import Shared, concatenate, stack
from securefl.mpc.tournament import maximum_along

__all__ = ["largest", "one_hot"]

#: From so many classes on ranks take fewer rounds than a tournament, which has five for every halving.
_LEAST_CLASSES: Final = 5
#: Pairs of all rows up to which the rounds that ranks save are worth their comparisons.
_MOST_PAIRS: Final = 1 << 13


def largest(x: Shared, labels: Shared | None = None) -> tuple[Shared, Shared | None]:
    """The largest of each row of [rows, classes], as [rows, 1]; and ``labels`` as by :func:`one_hot`.

    Few enough are all compared with each other, and the labels with their classes beside it: who wins n − 1 times is
    the largest (of equal ones the last), which is one more comparison. 11 rounds. Others go through a tournament.
    """
    rows, classes = x.shape
    first, second = np.triu_indices(classes, 1)
    if classes < _LEAST_CLASSES or rows * len(first) > _MOST_PAIRS:
        return maximum_along(x, 1).reshape(rows, 1), None if labels is None else one_hot(labels, classes)
    pairs = (x[:, second] - x[:, first]).reshape(-1)
    if labels is None:
        found, targets = number(negative(pairs)), None
    else:
        steps = _steps(labels, classes)
        both = number(negative(concatenate((pairs, steps.reshape(-1).with_fraction(x.fraction)))))
        found = both[: pairs.size]
        targets = _one_hot(both[pairs.size :].reshape(rows, classes - 1) * -1 + 1.0)
    # Of a pair the first wins where the second is smaller, otherwise the second.
    wins = np.zeros((len(first), classes), np.int64)
    wins[np.arange(len(first)), first] = 1
    wins[np.arange(len(first)), second] = -1
    matrix = wins.view(np.uint64)

    def counted(part: Array) -> Words:
        sums: Words = part.reshape(rows, -1) @ matrix
        return sums

    count = found.linear(counted, (rows, classes)).add_words(np.arange(classes, dtype=np.uint64))
    top = ~negative(count - float(classes - 1))
    return select(top, x).sum(axis=1, keepdims=True), targets


def _steps(labels: Shared, classes: int) -> Shared:
    """[rows, classes − 1]: label − k for k = 1 …"""
    return stack([labels.add_words(np.asarray(-k).astype(np.uint64)) for k in range(1, classes)], axis=1)


def _one_hot(reached: Shared) -> Shared:
    """From [label >= k], k = 1 …, to rows of 16 binary places."""
    first = reached[:, :1] * -1
    first = first.add_words(np.ones(first.shape, np.uint64))
    middle = reached[:, :-1] - reached[:, 1:]
    rows = [first, middle, reached[:, -1:]] if reached.shape[1] > 1 else [first, reached]
    return concatenate(rows, axis=1).widen(FRACTION)


def one_hot(labels: Shared, classes: int) -> Shared:
    """Class numbers 0 … classes − 1 to rows with a 1 at the class: [rows] to [rows, classes], of 16 binary places.

    ``labels`` has no binary places. One comparison per row and class but the first: [label >= k].
    """
    return _one_hot(number(~negative(_steps(labels, classes))))
