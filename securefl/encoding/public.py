"""Public randomness of a round: what every client and the server draw alike from one seed.

A stream is AES-128-CTR (``primitives.prg``) under a key derived from the run's public seed, the round and the purpose,
so that any language and version draws the same. SPEC: protocols/compression/SPEC.md §4.

The seed hides nothing. It has to be independent of the updates, since the guarantees (unbiasedness, concentration
after a rotation) are over its choice; and equal at all parties, which the context hash of the session checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.primitives.kdf import Label, derive
from securefl.primitives.prg import KEY_BYTES, stream_words

__all__ = ["PublicRandomness", "bits", "halves"]

SEED_BYTES = 32


@dataclass(frozen=True, slots=True)
class PublicRandomness:
    """``seed``: 32 public bytes of the run. ``round``: 0 … 2^32 − 1. Raises :class:`ConfigurationError` otherwise."""

    seed: bytes = field(repr=False)
    round: int

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_BYTES:
            raise ConfigurationError(f"a public seed has {SEED_BYTES} bytes, got {len(self.seed)}")
        if not 0 <= self.round < 2**32:
            raise ConfigurationError(f"the round must be within 0 to 2**32 - 1, got {self.round}")

    def key(self, purpose: str) -> bytes:
        """The stream key of a purpose in this round."""
        fields = (purpose.encode("ascii"), self.round.to_bytes(8, "big"))
        return derive(self.seed, Label.PUBLIC_STREAM, *fields, length=KEY_BYTES)


def bits(key: bytes, start: int, count: int) -> NDArray[np.uint8]:
    """uint8[count] of 0 and 1: bits ``start`` … of the stream, lowest bit of each byte first; start % 128 == 0."""
    words = np.empty(-(-count // 64), dtype="<u8")
    stream_words(key, start // 64, words)
    return np.unpackbits(words.view(np.uint8), count=count, bitorder="little")


def halves(key: bytes, start: int, count: int) -> NDArray[np.uint32]:
    """uint32[count]: 32-bit numbers ``start`` … of the stream, little-endian; start % 4 == 0."""
    words = np.empty(-(-count // 2), dtype="<u8")
    stream_words(key, start // 2, words)
    return words.view("<u4")[:count]
