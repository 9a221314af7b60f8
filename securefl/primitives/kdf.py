"""Domain-separated key derivation (HKDF-SHA256) and structured hashing (TupleHash256).

Every use in securefl has a :class:`Label`; the table below is the whole list. A label, and every context field,
enters with its length, so two uses can never collide by concatenation.

References: RFC 5869 (HKDF), NIST SP 800-185 §5 (TupleHash). SPEC: protocols/secagg/SPEC.md §4.
"""

from __future__ import annotations

from enum import Enum

from Crypto.Hash import TupleHash256
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

__all__ = ["Deriver", "Label", "commit", "derive", "info_bytes", "tuple_hash"]


class Label(Enum):
    """Domain-separation strings: one per purpose, never reused."""

    CONTEXT = b"securefl/v1/context"
    ROSTER = b"securefl/v1/secagg/roster"
    CHANNEL_KEY = b"securefl/v1/secagg/channel-key"
    MASK_KEY = b"securefl/v1/secagg/mask-key"
    PAIR_SECRET = b"securefl/v1/secagg/pair-secret"
    PAIR_STREAM = b"securefl/v1/secagg/pair-stream"
    SELF_STREAM = b"securefl/v1/secagg/self-stream"
    SELF_COMMITMENT = b"securefl/v1/secagg/self-commitment"
    SHARES_BOX = b"securefl/v1/secagg/shares-box"
    PAIR_BOX = b"securefl/v1/secagg/pair-box"
    SCHEMA = b"securefl/v1/encoding/schema"
    GRID = b"securefl/v1/encoding/grid"
    INVITATION = b"securefl/v1/integrations/invitation"
    ROUNDING_STREAM = b"securefl/v1/encoding/rounding"
    NOISE_STREAM = b"securefl/v1/dp/noise-stream"
    LEDGER_ROW = b"securefl/v1/dp/ledger-row"
    PUBLIC_STREAM = b"securefl/v1/encoding/public-stream"
    SHARE_STREAM = b"securefl/v1/shared/share-stream"
    SHARE_BOX = b"securefl/v1/shared/share-box"
    COMPRESSION = b"securefl/v1/encoding/compression"
    CKKS_KEY = b"securefl/v1/ckks/key"
    CKKS_UNIFORM = b"securefl/v1/ckks/uniform"
    CKKS_NOISE = b"securefl/v1/ckks/noise"
    CKKS_SIGNATURE = b"securefl/v1/ckks/signature"
    THRESHOLD_ATTEMPT = b"securefl/v1/ckks/threshold/attempt"
    THRESHOLD_REFERENCE = b"securefl/v1/ckks/threshold/reference"
    THRESHOLD_STREAM = b"securefl/v1/ckks/threshold/stream"
    THRESHOLD_ANNOUNCED = b"securefl/v1/ckks/threshold/announced"
    THRESHOLD_CHALLENGE = b"securefl/v1/ckks/threshold/challenge"
    MPC_STREAM = b"securefl/v1/mpc/stream"
    MPC_TOLD = b"securefl/v1/mpc/told"
    MPC_REPLICATED = b"securefl/v1/mpc/replicated"
    SPLIT_CONTEXT = b"securefl/v1/split/context"
    SPLIT_HANDOVER = b"securefl/v1/split/handover"


def info_bytes(label: Label, *fields: bytes) -> bytes:
    """The injective encoding of a label and context fields: each with a big-endian u32 length before it."""
    return b"".join([len(part).to_bytes(4, "big") + part for part in (label.value, *fields)])


def derive(secret: bytes, label: Label, *fields: bytes, length: int = 32) -> bytes:
    """``length`` bytes from ``secret`` for one purpose: HKDF-SHA256, salt of zeros, info = label and fields.

    Pre-conditions: ``secret`` has at least 128 bits of entropy; ``length`` <= 255 * 32.
    """
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info_bytes(label, *fields)).derive(secret)


class Deriver:
    """:func:`derive` from one secret, many times: what depends on the secret alone is computed once.

    HKDF-Extract is done here, HKDF-Expand in :meth:`derive` (RFC 5869 §2.2, §2.3): the same bytes.
    """

    __slots__ = ("_key",)

    def __init__(self, secret: bytes) -> None:
        self._key = HKDF.extract(SHA256(), None, secret)

    def derive(self, label: Label, *fields: bytes, length: int = 32) -> bytes:
        """As the function of this name, with its pre-conditions."""
        return HKDFExpand(algorithm=SHA256(), length=length, info=info_bytes(label, *fields)).derive(self._key)

    def __repr__(self) -> str:
        return "<Deriver>"


def tuple_hash(label: Label, *fields: bytes) -> bytes:
    """32 bytes: TupleHash256 of the fields, customised by the label (SP 800-185 §5)."""
    hasher = TupleHash256.new(digest_bytes=32, custom=label.value)
    hasher.update(*fields)
    return hasher.digest()


def commit(label: Label, secret: bytes, *fields: bytes) -> bytes:
    """32 bytes binding to a uniformly random 32-byte ``secret``, and hiding it (in the random-oracle model)."""
    return tuple_hash(label, secret, *fields)
