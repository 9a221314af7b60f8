"""Sorting networks on shared rows: which rows are compared is public, how they compare is not. SPEC robust §4.2.

The engine's networks (:mod:`securefl.mpc.sorting`) without the comparators that no wanted place depends on.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from securefl.mpc.operations import relu
from securefl.mpc.shared import Shared, concatenate
from securefl.mpc.sorting import layers

__all__ = ["network", "ordered"]

Layer = tuple[tuple[int, int], ...]


@lru_cache(maxsize=64)
def network(wires: int, wanted: tuple[int, ...]) -> tuple[Layer, ...]:
    """Layers of comparators (i, j), i < j, the smaller value to i, after which the ``wanted`` places are right."""
    needed, kept = set(wanted), list[Layer]()
    for layer in reversed(list(layers(wires))):
        used = tuple((i, j) for i, j in layer if i in needed or j in needed)
        needed.update(wire for pair in used for wire in pair)
        if used:
            kept.append(used)
    return tuple(reversed(kept))


def ordered(x: Shared, places: Collection[int]) -> Shared:
    """[len(places), d]: of each column of x [n, d], the elements at these places of its ascending order.

    Differences of elements must stay within the headroom. Five rounds per layer.
    """
    rows = [x[i : i + 1] for i in range(x.shape[0])]
    for layer in network(len(rows), tuple(sorted(places))):
        low = concatenate([rows[i] for i, _ in layer])
        high = concatenate([rows[j] for _, j in layer])
        excess = relu(low - high)
        smaller, larger = low - excess, high + excess
        for at, (i, j) in enumerate(layer):
            rows[i], rows[j] = smaller[at : at + 1], larger[at : at + 1]
    return concatenate([rows[place] for place in places])
