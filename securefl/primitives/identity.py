"""Who says something: Ed25519 signatures (RFC 8032) over route, context and body. SPEC: ckks-sum §6.3, secagg §11.2.

A signature is checked before anything behind it is decoded. The envelope's checksum authenticates nothing (wire SPEC).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from securefl.errors import AuthenticationError, ConfigurationError
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import PartyId

__all__ = ["PUBLIC_BYTES", "SIGNATURE_BYTES", "Directory", "Identity"]

PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

Buffer: TypeAlias = "bytes | bytearray | memoryview"


def _digest(context: bytes, kind: int, sender: PartyId, recipient: PartyId, parts: tuple[Buffer, ...]) -> bytes:
    body = hashlib.sha256()
    for part in parts:
        body.update(part)
    route = bytes([kind]) + sender.to_bytes(4, "big") + recipient.to_bytes(4, "big")
    return tuple_hash(Label.CKKS_SIGNATURE, context, route, body.digest())


class Identity:
    """A party's signing key, from a uniformly random 32-byte seed. It never prints."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, context: bytes, kind: int, sender: PartyId, recipient: PartyId, *parts: Buffer) -> bytes:
        """64 bytes over the route, the context and the concatenation of ``parts``."""
        return self._key.sign(_digest(context, kind, sender, recipient, parts))

    def __repr__(self) -> str:
        return "Identity(<redacted>)"


@dataclass(frozen=True, slots=True)
class Directory:
    """Public keys by party id: whose frames are taken. What every party is given before the first session."""

    keys: Mapping[PartyId, bytes]

    def __post_init__(self) -> None:
        if any(len(key) != PUBLIC_BYTES for key in self.keys.values()):
            raise ConfigurationError(f"a directory maps parties to Ed25519 public keys of {PUBLIC_BYTES} bytes")

    def verify(
        self, signature: Buffer, context: bytes, kind: int, sender: PartyId, recipient: PartyId, *parts: Buffer
    ) -> None:
        """Raises :class:`AuthenticationError` unless ``sender`` is known and signed exactly this."""
        key = self.keys.get(sender)
        if key is None:
            raise AuthenticationError(f"party {sender} is not in the directory: its messages are not taken")
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(
                bytes(signature), _digest(context, kind, sender, recipient, parts)
            )
        except (InvalidSignature, ValueError):
            raise AuthenticationError(f"the signature of party {sender} does not verify: nothing was decoded") from None
