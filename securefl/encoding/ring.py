"""Lanes: several integers in one 64-bit word, with room for the sum over all clients.

Legend: n clients, d integers in [0, M], lane width b = bits(n · M) <= value bits + ceil(log2 n), L = floor(64 / b)
lanes per word, W = ceil(d / L) words. Integer i sits in word i mod W, lane floor(i / W), so each lane is one
contiguous piece of the vector. SPEC: protocols/encoding/SPEC.md §4.

Words are added modulo 2^64. A lane's true sum is at most n · M < 2^b, so no lane carries into the next and
overflow cannot happen; what could overflow is refused when the object is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.types import IntegerVector, RingVector

__all__ = ["Lanes"]

WORD_BITS: Final = 64
#: A vector is at most 2**36 bytes long: what one mask key may produce (primitives.prg).
MAX_WORDS: Final = 2**33


@dataclass(frozen=True, slots=True)
class Lanes:
    """The packing of ``dimension`` integers, each at most ``max_value``, summed over at most ``clients`` clients.

    Raises :class:`ConfigurationError` when the sum does not fit a lane of 64 bits.
    """

    dimension: int
    max_value: int
    clients: int

    def __post_init__(self) -> None:
        if self.dimension < 1:
            raise ConfigurationError("the vector is empty: there is nothing to sum")
        if self.max_value < 1 or self.clients < 1:
            raise ConfigurationError("lanes need a largest value of at least 1 and at least one client")
        if self.bits > WORD_BITS:
            raise ConfigurationError(
                f"{self.clients} clients with values up to {self.max_value} need {self.bits} bits for the sum; "
                f"a word has {WORD_BITS}: use fewer value bits or smaller cohorts"
            )
        if self.words > MAX_WORDS:
            raise ConfigurationError(
                f"{self.dimension} values need {self.words} words; at most {MAX_WORDS} are possible"
            )

    @property
    def bits(self) -> int:
        """Lane width b."""
        return (self.clients * self.max_value).bit_length()

    @property
    def per_word(self) -> int:
        """Lanes per word L."""
        return WORD_BITS // self.bits

    @property
    def words(self) -> int:
        """Words W; the packed vector has 8 W bytes."""
        return -(-self.dimension // self.per_word)

    def check(self, values: IntegerVector) -> None:
        """Raises :class:`InvalidInputError` unless ``values`` is uint64[dimension] within [0, max_value]."""
        if not isinstance(values, np.ndarray):
            raise InvalidInputError(f"expected a numpy array of uint64 integers, got {type(values).__name__}")
        if values.dtype != np.uint64 or values.shape != (self.dimension,):
            raise InvalidInputError(
                f"expected uint64 integers of shape ({self.dimension},), got {values.dtype} of shape {values.shape}"
            )
        if int(values.max()) > self.max_value:
            raise InvalidInputError(f"an integer exceeds the largest value {self.max_value} of this round")

    def pack(self, values: IntegerVector) -> RingVector:
        """uint64[words] from uint64[dimension]; :meth:`check` is the caller's first step."""
        words = self.words
        packed = values[:words].astype("<u8", copy=True)
        for lane in range(1, self.per_word):
            piece = values[lane * words : (lane + 1) * words]
            if not piece.size:
                break
            # block by block, so that the shifted piece stays in the cache
            for start in range(0, piece.size, _BLOCK):
                block = piece[start : start + _BLOCK]
                target = packed[start : start + block.size]
                np.bitwise_or(target, block << np.uint64(lane * self.bits), out=target)
        return packed

    def unpack(self, packed: RingVector, count: int | None = None, out: IntegerVector | None = None) -> IntegerVector:
        """uint64[dimension] from uint64[words]: the inverse of :meth:`pack`, also after sums over the clients.

        ``count``: how many clients' vectors were added, if known. ``out``: where to write, instead of a new vector.
        Raises :class:`DecodeError` when bits are set where no lane is, or a sum exceeds what ``count`` clients can
        give: the words are not a sum of packed vectors.
        """
        if packed.shape != (self.words,):
            raise DecodeError(f"expected {self.words} words, got shape {packed.shape}")
        values = np.empty(self.dimension, dtype=np.uint64) if out is None else out
        lane_mask = np.uint64((1 << self.bits) - 1)
        for lane in range(self.per_word):
            piece = values[lane * self.words : (lane + 1) * self.words]
            np.right_shift(packed[: piece.size], np.uint64(lane * self.bits), out=piece)
            np.bitwise_and(piece, lane_mask, out=piece)
        if self._stray(packed):
            raise DecodeError("bits outside every lane are set: a mask did not cancel or a vector is damaged")
        if count is not None and int(values.max()) > count * self.max_value:
            raise DecodeError("a sum exceeds what the survivors can have given")
        return values

    def _stray(self, packed: RingVector) -> bool:
        # the first (dimension mod W) words carry one lane more than the others
        lanes, longer = divmod(self.dimension, self.words)
        pieces = ((packed[:longer], (lanes + 1) * self.bits), (packed[longer:], lanes * self.bits))
        return any(used < WORD_BITS and bool(np.any(piece >> np.uint64(used))) for piece, used in pieces)


_BLOCK: Final = 1 << 14
