"""One secure sum's payload: the integers of a grid and, behind them, the tail. SPEC: protocols/compression/SPEC.md §7.

With weights n_i and their bound N, client i's values are already multiplied by n_i / N; the decoded sum S and the
weights' sum W give the weighted mean S · N / W.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.encoding.compressor import Grid, Scale
from securefl.encoding.quantize import FixedPoint, Quantized, require_finite
from securefl.encoding.tail import Tail, checksum
from securefl.errors import HeadroomError, InvalidInputError, TooFewClientsError
from securefl.machine import Segment
from securefl.types import IntegerVector, Update

__all__ = ["Decoded", "FixedGrid", "Payload"]

#: The square of this, times any number of values that fits memory, is finite in float32.
_LARGEST: Final = 1e12


@dataclass(frozen=True, slots=True)
class FixedGrid:
    """:class:`~securefl.encoding.quantize.FixedPoint` as a grid of ``size`` values: needs no scale."""

    grid: FixedPoint
    size: int

    @property
    def segment(self) -> Segment:
        return Segment(self.size, self.grid.max_value)

    def encode(self, values: Update, *, seed: bytes, out: IntegerVector) -> int:
        return self.grid.encode(values, seed=seed, clip=True, out=out).clipped

    def decode(self, total: IntegerVector, count: int) -> Update:
        return self.grid.decode(total, count)

    def decode_over(self, total: IntegerVector, count: int) -> Update:
        return self.grid.decode_over(total, count)

    def noise(self, scale: Scale) -> float:
        return self.grid.step**2 / 4


@dataclass(frozen=True, slots=True)
class Decoded:
    """``mean``: of the clients' values, weighted. ``weight``: the sum of the weights. ``scale``: for the next round."""

    mean: Update
    weight: int
    scale: Scale


@dataclass(frozen=True, slots=True)
class Payload:
    """``grid``, ``max_weight`` N, ``reference``: the public mean square that energies are relative to, ``clients``."""

    grid: Grid
    max_weight: int
    reference: float
    clients: int

    @property
    def segments(self) -> tuple[Segment, Segment]:
        values = self.grid.segment
        return values, self._tail.segment

    @property
    def _tail(self) -> Tail:
        values = self.grid.segment
        narrow = 0 < values.window <= self.clients * values.max_value
        return Tail(self.max_weight, values if narrow else None)

    def encode(self, values: Update, weight: int, *, seed: bytes) -> Quantized:
        """uint64[all segments]; ``values``: the weighted values, float32. Raises :class:`InvalidInputError`."""
        largest = require_finite(values)
        count = self.grid.segment.size
        out = np.empty(count + self._tail.segment.size, dtype=np.uint64)
        if largest > _LARGEST:
            raise InvalidInputError("a value has no finite square in float32: clip the update")
        energy = float(np.dot(values, values)) / (values.size * self.reference)
        clipped = self.grid.encode(values, seed=seed, out=out[:count])
        self._tail.encode(weight, energy, out[:count], out[count:])
        return Quantized(out, clipped)

    def decode(self, total: IntegerVector, count: int, *, in_place: bool = False) -> Decoded:
        """The mean over ``count`` clients. ``in_place``: the mean takes the memory of ``total``, which is lost.

        Raises :class:`HeadroomError` when a sum left the narrow window, :class:`TooFewClientsError` without weight.
        """
        size = self.grid.segment.size
        weight, energy, check = self._tail.decode(total[size:])
        if check is not None and check != checksum(total[:size]):
            raise HeadroomError("a sum left the window of its narrow lanes: nothing of this round can be used")
        if weight < 1:
            raise TooFewClientsError("the survivors' weights sum to zero: there is no mean")
        sums = (self.grid.decode_over if in_place else self.grid.decode)(total[:size], count)
        mean_square = energy / count * self.reference
        square = float(np.dot(sums, sums)) / sums.size
        # rounding noise is in the decoded sum, and will be added anew to the next
        signal = max(0.0, square - count * self.grid.noise(Scale(mean_square, 0.0)))
        sums *= sums.dtype.type(self.max_weight / weight)
        return Decoded(sums, weight, Scale(mean_square, signal if math.isfinite(signal) else 0.0))
