"""What compressors have in common: they commute with the sum.

An update goes through a *linear coder* (fewer values) and a *grid* (small integers). The server sees sums of integers
only, so each part must be a function of the sum:

    linear coder   y = A x with a public A, the same for all clients: Σ A x_i = A Σ x_i
    grid           integers on one public grid, the same for all clients, rounded without bias

What chooses positions or scales by a client's own data does not sum, or gives the data away, and is refused
(``rules``). Whatever is public about a round (seeds, scale, a mask's support, earlier sums) is bound into the
session's context, so that parties that disagree refuse each other's frames.

Error feedback: the part of an update that the coder dropped is added to the client's next update (``feedback``). A
coder then gives the projection itself; without feedback it is scaled up to be unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.public import PublicRandomness
from securefl.machine import Segment
from securefl.types import IntegerVector, Update

__all__ = ["Coder", "Grid", "LinearCoder", "Scale", "Shapes", "size_of"]

#: The shapes of the tensors that lie one after the other in a flat vector.
Shapes: TypeAlias = "tuple[tuple[int, ...], ...]"


def size_of(shapes: Shapes) -> int:
    """Values in a flat vector of these shapes."""
    return sum(math.prod(shape) for shape in shapes)


class Coder(Protocol):
    """A linear coder in one round: the same object at every client and at the server, but for what was observed.

    A round takes ``len(sizes)`` secure sums, mostly one. Before sum s+1 everybody observes the mean of sum s.
    """

    @property
    def sizes(self) -> tuple[int, ...]:
        """Values per client in each sum."""
        ...

    def project(self, flat: Update, at: int) -> Update:
        """A client's values for sum ``at``: linear in ``flat`` [d], given what was observed. May be a view."""
        ...

    def observe(self, at: int, mean: Update) -> None:
        """Take the public mean of sum ``at``: what the next sum, or the next round, starts from."""
        ...

    def expand(self, mean: Update) -> Update:
        """[d]: the estimate from the mean (or any linear combination) of the last sum. Linear."""
        ...

    def state(self) -> Sequence[NDArray[np.float32]]:
        """What the next round's coder starts from (public); after the last sum was observed."""
        ...


class LinearCoder(Protocol):
    """The settings of a linear coder: makes the :class:`Coder` of a round.

    ``name``: as typed in ``[compression] chain``. ``sums``: secure sums per round. ``drops``: whether it loses part
    of the update, so that error feedback has something to feed back.
    """

    @property
    def name(self) -> str: ...
    @property
    def sums(self) -> int: ...
    @property
    def drops(self) -> bool: ...

    def at(self, shapes: Shapes, public: PublicRandomness, state: Sequence[NDArray[np.float32]] = ()) -> Coder:
        """The round's coder. Raises :class:`ConfigurationError` when it does not fit the shapes."""
        ...

    def describe(self) -> str:
        """Every setting in one line; enters the context hash."""
        ...


@dataclass(frozen=True, slots=True)
class Scale:
    """What the last securely summed statistics say about the values of a sum.

    ``mean_square``: of one value of one client, averaged over clients. ``sum_square``: of one value of the sum.
    """

    mean_square: float
    sum_square: float


class Grid(Protocol):
    """Values of one sum ↔ integers of one segment, in one round."""

    @property
    def segment(self) -> Segment: ...

    def encode(self, values: Update, *, seed: bytes, out: IntegerVector) -> int:
        """Write uint64[segment.size] to ``out``; returns how many values were clipped. ``seed``: 32 secret bytes."""
        ...

    def decode(self, total: IntegerVector, count: int) -> Update:
        """The sum of ``count`` clients' values from the sum of their integers."""
        ...

    def decode_over(self, total: IntegerVector, count: int) -> Update:
        """:meth:`decode` within the memory of ``total``, which is lost: one model-sized buffer less."""
        ...

    def noise(self, scale: Scale) -> float:
        """Variance that rounding adds to one value of one client, an upper bound."""
        ...
