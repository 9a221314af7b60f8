"""Packing a vector of nested shells: each shell in words of its own, one after the other, so that what a client of
tier t sends is a prefix of the whole. SPEC: protocols/shells/SPEC.md §3.

A vector without shells is one shell that everybody holds, word for word as :class:`~securefl.encoding.packing.Packing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from securefl.encoding.packing import Packing
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.machine import RoundContext, Segment, Shells
from securefl.types import IntegerVector, RingVector

__all__ = ["ShellPacking"]


@dataclass(frozen=True)
class ShellPacking:
    """``parts``: one packing per shell, whose headroom is for the shell's holders. ``shells``: ``None`` for one part.

    Raises :class:`ConfigurationError` when a shell's sum does not fit its lanes or the sizes contradict each other.
    """

    parts: tuple[Packing, ...]
    shells: Shells | None = None

    @classmethod
    def of(
        cls,
        dimension: int,
        max_value: int,
        clients: int,
        segments: tuple[Segment, ...] = (),
        shells: Shells | None = None,
    ) -> ShellPacking:
        """The packing of a context's fields."""
        if shells is None:
            return cls((Packing.of(dimension, max_value, clients, segments),))
        if segments:
            raise ConfigurationError("a vector has shells or segments, not both")
        if sum(shells.sizes) != dimension or len(shells.tiers) != clients:
            raise ConfigurationError("dimension is the sum of the shells' sizes, and every client has one tier")
        holders = [max(1, shells.holders(shell)) for shell in range(1, len(shells.sizes) + 1)]
        parts = tuple(Packing.of(size, max_value, count) for size, count in zip(shells.sizes, holders, strict=True))
        return cls(parts, shells)

    @classmethod
    def of_context(cls, context: RoundContext) -> ShellPacking:
        """The packing of a round."""
        return cls.of(context.dimension, context.max_value, len(context.clients), context.segments, context.shells)

    @cached_property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The words of each shell: ``(first, one past the last)``."""
        return tuple(pairwise(accumulate((part.words for part in self.parts), initial=0)))

    @property
    def words(self) -> int:
        """Words of the whole vector; it has 8 words bytes."""
        return self.ranges[-1][1]

    def words_of(self, tier: int) -> int:
        """Words of a client of this tier: the first of the whole vector."""
        return self.ranges[tier - 1][1]

    def dimension_of(self, tier: int) -> int:
        """Integers of a client of this tier."""
        return sum(part.dimension for part in self.parts[:tier])

    def check(self, values: IntegerVector, tier: int = 1) -> None:
        """Raises :class:`InvalidInputError` unless ``values`` is uint64[dimension_of(tier)] within the range."""
        if len(self.parts) > 1 and (values.dtype != np.uint64 or values.shape != (self.dimension_of(tier),)):
            raise InvalidInputError(
                f"expected uint64 integers of shape ({self.dimension_of(tier)},) for tier {tier}, "
                f"got {values.dtype} of shape {values.shape}"
            )
        for part, piece in zip(self.parts[:tier], self._pieces(values, tier), strict=True):
            part.check(piece)

    def pack(self, values: IntegerVector, tier: int = 1) -> RingVector:
        """uint64[words_of(tier)] from uint64[dimension_of(tier)]; :meth:`check` is the caller's first step."""
        packed = [part.pack(piece) for part, piece in zip(self.parts[:tier], self._pieces(values, tier), strict=True)]
        return packed[0] if len(packed) == 1 else np.concatenate(packed)

    def unpack(self, total: RingVector, survivors: Sequence[int]) -> IntegerVector:
        """uint64[dimension]: the sums over survivors of these tiers, 0 in shells that may not be opened over them.

        Raises :class:`DecodeError` when an opened shell's words are not a sum of packed vectors.
        """
        if self.shells is None:
            return self.parts[0].unpack(total, len(survivors))
        if total.shape != (self.words,):
            raise DecodeError(f"expected {self.words} words, got shape {total.shape}")
        values = np.zeros(sum(self.shells.sizes), dtype=np.uint64)
        opened = self.shells.opened(survivors)
        for shell, (piece, (low, high)) in enumerate(
            zip(self._pieces(values, len(self.parts)), self.ranges, strict=True), start=1
        ):
            if shell in opened:
                piece[:] = self.parts[shell - 1].unpack(total[low:high], self.shells.holders(shell, survivors))
        return values

    def _pieces(self, values: IntegerVector, tier: int) -> list[IntegerVector]:
        if len(self.parts) == 1:
            return [values]
        at = accumulate((part.dimension for part in self.parts[:tier]), initial=0)
        return [values[low:high] for low, high in pairwise(at)]
