"""Packing: a vector of segments, each in lanes of its own, one after the other. SPEC: protocols/compression/SPEC.md §3.

A vector of one range is one :class:`~securefl.encoding.ring.Lanes`, word for word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from securefl.encoding.radix import RadixLanes
from securefl.encoding.ring import Lanes
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.machine import RoundContext, Segment
from securefl.types import IntegerVector, RingVector

__all__ = ["Packing"]


@dataclass(frozen=True)
class Packing:
    """The packing of ``segments``, summed over at most ``clients`` clients.

    Raises :class:`ConfigurationError` when a segment's sum does not fit its lanes.
    """

    segments: tuple[Segment, ...]
    clients: int

    def __post_init__(self) -> None:
        if not self.segments:
            raise ConfigurationError("the vector is empty: there is nothing to sum")
        _ = self.lanes  # raises when a sum does not fit

    @classmethod
    def of(cls, dimension: int, max_value: int, clients: int, segments: tuple[Segment, ...] = ()) -> Packing:
        """The packing of a context's fields: of ``segments``, or of one uniform segment when there are none.

        Raises :class:`ConfigurationError` when the segments contradict ``dimension`` or ``max_value``.
        """
        if not segments:
            return cls((Segment(dimension, max_value),), clients)
        if dimension != sum(part.size for part in segments) or max_value != max(part.max_value for part in segments):
            raise ConfigurationError("dimension is the sum of the segments' sizes, max_value their largest max_value")
        return cls(segments, clients)

    @classmethod
    def of_context(cls, context: RoundContext) -> Packing:
        """The packing of a round."""
        return cls.of(context.dimension, context.max_value, len(context.clients), context.segments)

    @cached_property
    def lanes(self) -> tuple[Lanes | RadixLanes, ...]:
        """One per segment."""
        return tuple(
            RadixLanes(part.size, part.max_value, self.clients, part.window)
            if part.window
            else Lanes(part.size, part.max_value, self.clients)
            for part in self.segments
        )

    @property
    def dimension(self) -> int:
        """Integers of the whole vector."""
        return sum(part.size for part in self.segments)

    @property
    def words(self) -> int:
        """Words of the whole vector; it has 8 words bytes."""
        return sum(part.words for part in self.lanes)

    @property
    def per_word(self) -> int:
        """Lanes per word of the first segment."""
        return self.lanes[0].per_word

    @property
    def bits(self) -> int:
        """Lane width of the first segment, whole bits."""
        first = self.lanes[0]
        return first.bits if isinstance(first, Lanes) else (first.window - 1).bit_length()

    def check(self, values: IntegerVector) -> None:
        """Raises :class:`InvalidInputError` unless ``values`` is uint64[dimension] with every segment in its range."""
        if values.dtype != np.uint64 or values.shape != (self.dimension,):
            raise InvalidInputError(
                f"expected uint64 integers of shape ({self.dimension},), got {values.dtype} of shape {values.shape}"
            )
        for lanes, piece in zip(self.lanes, self._pieces(values), strict=True):
            lanes.check(piece)

    def pack(self, values: IntegerVector) -> RingVector:
        """uint64[words] from uint64[dimension]; :meth:`check` is the caller's first step."""
        parts = [lanes.pack(piece) for lanes, piece in zip(self.lanes, self._pieces(values), strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def unpack(self, packed: RingVector, count: int | None = None) -> IntegerVector:
        """uint64[dimension]: the sums over ``count`` clients; all of them when ``None``.

        Raises :class:`DecodeError` when an exact segment's words are not a sum of ``count`` packed vectors.
        """
        if packed.shape != (self.words,):
            raise DecodeError(f"expected {self.words} words, got shape {packed.shape}")
        at = list(accumulate((part.words for part in self.lanes), initial=0))
        values = np.empty(self.dimension, dtype=np.uint64)
        for lanes, piece, (low, high) in zip(self.lanes, self._pieces(values), pairwise(at), strict=True):
            lanes.unpack(packed[low:high], self.clients if count is None else count, piece)
        return values

    def _pieces(self, values: IntegerVector) -> list[IntegerVector]:
        at = list(accumulate((part.size for part in self.segments), initial=0))
        return [values[low:high] for low, high in pairwise(at)]
