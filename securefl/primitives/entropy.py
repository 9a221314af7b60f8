"""Randomness: the operating system's, behind one source that tests and vectors can replace.

Everything secret that a role draws goes through an :class:`Entropy`: 32-byte seeds by :meth:`Entropy.token` and
HPKE seals by :meth:`Entropy.seal` (a seal draws an ephemeral key inside OpenSSL, so a replaying source hands out
recorded seals instead). Sources other than :class:`SystemEntropy` live in ``securefl.testing`` only.
"""

from __future__ import annotations

import os
from typing import Protocol

from securefl.primitives.kem import PublicKey, seal

__all__ = ["Entropy", "SystemEntropy"]


class Entropy(Protocol):
    """A source of secret randomness."""

    def token(self, length: int) -> bytes:
        """``length`` uniformly random bytes."""
        ...

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        """A fresh HPKE seal of ``plaintext`` to ``recipient``, bound to ``info``."""
        ...


class SystemEntropy:
    """The operating system's generator (``os.urandom``) and OpenSSL's, which it seeds."""

    def token(self, length: int) -> bytes:
        return os.urandom(length)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        return seal(recipient, plaintext, info)

    def __repr__(self) -> str:
        return "SystemEntropy()"
