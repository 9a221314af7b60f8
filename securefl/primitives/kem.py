"""Key pairs derived from 32-byte seeds, and HPKE seals to them, for two suites.

``x25519``            DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM                  RFC 9180
``mlkem768-x25519``   the X-Wing hybrid of ML-KEM-768 (FIPS 203) and X25519, same KDF and AEAD
                      draft-connolly-cfrg-xwing-kem §5.2 (key pair from a seed), draft-ietf-hpke-pq (KEM 0x647a)

A private key is a deterministic function of its seed, so revealing the seed (by Shamir reconstruction) reveals the
key, and comparing the recomputed public key checks the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from securefl.errors import AuthenticationError, ConfigurationError, DecodeError

__all__ = ["SEED_BYTES", "TAG_BYTES", "PrivateKey", "PublicKey", "Suite", "key_pair", "public_key", "seal", "unseal"]

SEED_BYTES: Final = 32
TAG_BYTES: Final = 16
_MLKEM_PUBLIC_BYTES: Final = 1184


class Suite(Enum):
    """A key-encapsulation suite. ``code`` is its number on the wire."""

    X25519 = ("x25519", 1, 32, 32)
    MLKEM768_X25519 = ("mlkem768-x25519", 2, 1216, 1120)

    def __init__(self, label: str, code: int, public_bytes: int, encapsulation_bytes: int) -> None:
        self.label = label
        self.code = code
        self.public_bytes = public_bytes
        self.encapsulation_bytes = encapsulation_bytes

    def sealed_bytes(self, plaintext_bytes: int) -> int:
        """Length of a seal: encapsulation + plaintext + tag."""
        return self.encapsulation_bytes + plaintext_bytes + TAG_BYTES


_HPKE: Final = {
    Suite.X25519: hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
    Suite.MLKEM768_X25519: hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its bytes on the wire, and OpenSSL's handle."""

    suite: Suite
    raw: bytes
    handle: X25519PublicKey | hpke.MLKEM768X25519PublicKey = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, repr=False)
class PrivateKey:
    """A private key; it never prints."""

    suite: Suite
    handle: X25519PrivateKey | hpke.MLKEM768X25519PrivateKey

    def __repr__(self) -> str:
        return f"PrivateKey({self.suite.label}, <redacted>)"


def key_pair(suite: Suite, seed: bytes) -> tuple[PrivateKey, PublicKey]:
    """The key pair of a uniformly random 32-byte ``seed``; the same seed gives the same pair.

    X25519: the seed is the private key (RFC 7748 §5 clamping inside). Hybrid: SHAKE256(seed, 96) gives the ML-KEM
    seeds d, z and the X25519 private key (X-Wing §5.2, expandDecapsulationKey).
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a key seed has {SEED_BYTES} bytes")
    if suite is Suite.X25519:
        x_private = X25519PrivateKey.from_private_bytes(seed)
        x_public = x_private.public_key()
        return PrivateKey(suite, x_private), PublicKey(suite, x_public.public_bytes_raw(), x_public)
    expanded = hashlib.shake_256(seed).digest(96)
    try:
        m_private = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    except UnsupportedAlgorithm:
        raise ConfigurationError(
            "this build of cryptography has no ML-KEM-768: install its wheel from PyPI, or use the suite x25519"
        ) from None
    x_private = X25519PrivateKey.from_private_bytes(expanded[64:])
    m_public, x_public = m_private.public_key(), x_private.public_key()
    public = PublicKey(
        suite,
        m_public.public_bytes_raw() + x_public.public_bytes_raw(),
        hpke.MLKEM768X25519PublicKey(m_public, x_public),
    )
    return PrivateKey(suite, hpke.MLKEM768X25519PrivateKey(m_private, x_private)), public


def public_key(suite: Suite, raw: bytes) -> PublicKey:
    """A public key from the wire. Raises :class:`DecodeError` when the bytes are not one."""
    if len(raw) != suite.public_bytes:
        raise DecodeError(f"a {suite.label} public key has {suite.public_bytes} bytes, got {len(raw)}")
    try:
        if suite is Suite.X25519:
            return PublicKey(suite, raw, X25519PublicKey.from_public_bytes(raw))
        return PublicKey(
            suite,
            raw,
            hpke.MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
                X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
            ),
        )
    except ValueError:
        # FIPS 203 §7.2: an encapsulation key must pass the modulus check.
        raise DecodeError(f"not a valid {suite.label} public key") from None


def seal(recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
    """HPKE base-mode single-shot seal: encapsulation ‖ ciphertext ‖ tag (RFC 9180 §6.1), bound to ``info``.

    Raises :class:`DecodeError` for a key that has no usable shared secret (low-order X25519 point, RFC 7748 §6.1).
    """
    try:
        return _HPKE[recipient.suite].encrypt(plaintext, recipient.handle, info)
    except ValueError:
        raise DecodeError(f"the {recipient.suite.label} public key yields no shared secret") from None


def unseal(private: PrivateKey, sealed: bytes | memoryview, info: bytes) -> bytes:
    """Open a seal. Raises :class:`AuthenticationError` when key, bytes or ``info`` are not those it was made with."""
    try:
        return _HPKE[private.suite].decrypt(sealed, private.handle, info)
    except (InvalidTag, ValueError):
        raise AuthenticationError("a seal does not open: wrong key, wrong context or damaged bytes") from None
