"""For tests and vectors only: randomness that can be recorded, replayed or seeded.

Nothing in the package imports this module (a contract checks it). Masks made from these sources protect nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from securefl.primitives.entropy import SystemEntropy
from securefl.primitives.kem import PublicKey, seal

__all__ = ["RecordingEntropy", "ReplayEntropy", "SeededEntropy"]


class SeededEntropy:
    """Tokens are SHAKE256 of a seed and a counter; seals draw their ephemeral keys from OpenSSL all the same."""

    def __init__(self, seed: bytes | int) -> None:
        self._seed = seed if isinstance(seed, bytes) else seed.to_bytes(16, "big", signed=True)
        self._drawn = 0

    def token(self, length: int) -> bytes:
        self._drawn += 1
        return hashlib.shake_256(self._seed + self._drawn.to_bytes(8, "big")).digest(length)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        return seal(recipient, plaintext, info)


class RecordingEntropy:
    """Passes another source on and keeps what it gave: :attr:`tokens` and :attr:`seals`, in order."""

    def __init__(self, source: SystemEntropy | SeededEntropy | None = None) -> None:
        self._source = SystemEntropy() if source is None else source
        self.tokens: list[bytes] = []
        self.seals: list[bytes] = []

    def token(self, length: int) -> bytes:
        self.tokens.append(self._source.token(length))
        return self.tokens[-1]

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        self.seals.append(self._source.seal(recipient, plaintext, info))
        return self.seals[-1]


class ReplayEntropy:
    """Gives recorded tokens and seals again, in order. Raises ``LookupError`` when the caller draws other amounts."""

    def __init__(self, tokens: Sequence[bytes], seals: Sequence[bytes]) -> None:
        self._tokens, self._seals = list(tokens), list(seals)

    def token(self, length: int) -> bytes:
        if not self._tokens or len(self._tokens[0]) != length:
            raise LookupError(f"no recorded token of {length} bytes is next")
        return self._tokens.pop(0)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        if not self._seals:
            raise LookupError("no recorded seal is left")
        return self._seals.pop(0)

    @property
    def exhausted(self) -> bool:
        return not self._tokens and not self._seals
