"""The messages of the CKKS sum: one frozen dataclass each, with its length. SPEC: protocols/ckks-sum/SPEC.md §6.

Legend: C ciphertexts of a client, V bytes of their first polynomials (coefficients in use) and W of both polynomials,
m survivors, d integers. Lengths are of the body without its signature (64 bytes, at the end of every body); a frame
adds 72 bytes (wire SPEC §2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import ClassVar, Final

import numpy as np

from securefl.ckks.params import PROTOCOL, KeyModel, Params
from securefl.errors import DecodeError
from securefl.primitives.identity import SIGNATURE_BYTES, Directory, Identity
from securefl.types import ClientId, IntegerVector, PartyId
from securefl.wire import Buffer, Reader, Writer, open_frame, seal_frame

__all__ = [
    "KEY_ID_BYTES",
    "SEED_BYTES",
    "Abort",
    "EncryptedInput",
    "EncryptedSum",
    "KeyNotice",
    "Kind",
    "PublicKey",
    "Receipt",
    "Result",
    "ciphertext_places",
    "open_signed",
    "seal_signed",
]

KEY_ID_BYTES: Final = 32
SEED_BYTES: Final = 32


class Kind(IntEnum):
    """Message numbers on the wire."""

    PUBLIC_KEY = 1
    KEY_NOTICE = 2
    ENCRYPTED_INPUT = 3
    ENCRYPTED_SUM = 4
    RESULT = 5
    RECEIPT = 6
    ABORT = 7


def seal_signed(
    params: Params, identity: Identity, kind: Kind, sender: PartyId, recipient: PartyId, *parts: Buffer
) -> bytes:
    """One frame around ``parts`` and the sender's signature over them. SPEC §6.3."""
    signature = identity.sign(params.context_hash, kind, sender, recipient, *parts)
    return seal_frame(PROTOCOL, kind, params.context_hash, sender, recipient, *parts, signature)


def open_signed(
    params: Params, directory: Directory, frame: Buffer, recipient: PartyId, limits: Mapping[Kind, int]
) -> tuple[Kind, PartyId, memoryview]:
    """Kind, sender and body of a frame that its sender signed. SPEC §6.3.

    ``limits``: the kinds that can come, each with its largest body (without signature). Raises :class:`DecodeError`
    for what is no such frame and :class:`~securefl.errors.AuthenticationError` for a signature that does not verify;
    the body was not looked at before.
    """
    sizes = {int(kind): size + SIGNATURE_BYTES for kind, size in limits.items()}
    envelope = open_frame(frame, protocol=PROTOCOL, context=params.context_hash, recipient=recipient, limits=sizes)
    if envelope.body.nbytes < SIGNATURE_BYTES:
        raise DecodeError("the message ends before its signature")
    body, signature = envelope.body[:-SIGNATURE_BYTES], envelope.body[-SIGNATURE_BYTES:]
    directory.verify(signature, params.context_hash, envelope.kind, envelope.sender, recipient, body)
    return Kind(envelope.kind), envelope.sender, body


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Key holder → every client. 32 bytes, and the public key under ``key_holder``. SPEC §6.4.

    ``polynomials``: the wire form of (b, a) over all primes; empty under ``shared_key``.
    """

    key_id: bytes
    polynomials: memoryview = field(repr=False)

    @staticmethod
    def length(params: Params) -> int:
        public = params.parameters.public_key_bytes if params.key_model is KeyModel.KEY_HOLDER else 0
        return KEY_ID_BYTES + public

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> PublicKey:
        _exact(body, cls.length(params))
        view = memoryview(body)
        return cls(bytes(view[:KEY_ID_BYTES]), view[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class KeyNotice:
    """Key holder → server. 32 bytes: which key this session is under. SPEC §6.5."""

    key_id: bytes

    @classmethod
    def decode(cls, body: Buffer) -> KeyNotice:
        _exact(body, KEY_ID_BYTES)
        return cls(bytes(body))


def ciphertext_places(
    params: Params, *, whole: bool, numbers: Iterable[int] | None = None
) -> list[tuple[slice, slice]]:
    """Where (c0, c1) of each of the ciphertexts ``numbers`` (``None``: all) stand among their bytes. SPEC §6.2.

    c1 is empty unless ``whole``.
    """
    second = params.parameters.polynomial_bytes if whole else 0
    places, at = [], 0
    for number in range(params.ciphertexts) if numbers is None else numbers:
        middle = at + params.first_bytes(number)
        places.append((slice(at, middle), slice(middle, middle + second)))
        at = middle + second
    return places


@dataclass(frozen=True, slots=True)
class EncryptedInput:
    """Client → server. 32 + W bytes under ``key_holder``, 64 + V under ``shared_key``. SPEC §6.6.

    ``seed``: of the uniform halves, under ``shared_key``. ``ciphertexts``: C times (c0, c1), or C times c0.
    """

    key_id: bytes
    seed: bytes
    ciphertexts: memoryview = field(repr=False)

    @staticmethod
    def seed_bytes(params: Params) -> int:
        return 0 if params.key_model is KeyModel.KEY_HOLDER else SEED_BYTES

    @staticmethod
    def ciphertext_bytes(params: Params, tier: int | None = None) -> int:
        """Of a client of ``tier``; ``None``: of one that holds everything."""
        numbers = None if tier is None else range(params.ciphertexts_of(tier))
        return params.vector_bytes(whole=params.key_model is KeyModel.KEY_HOLDER, numbers=numbers)

    @classmethod
    def length(cls, params: Params, tier: int | None = None) -> int:
        return KEY_ID_BYTES + cls.seed_bytes(params) + cls.ciphertext_bytes(params, tier)

    @classmethod
    def decode(cls, body: Buffer, params: Params, tier: int = 1) -> EncryptedInput:
        _exact(body, cls.length(params, tier))
        view, head = memoryview(body), KEY_ID_BYTES + cls.seed_bytes(params)
        return cls(bytes(view[:KEY_ID_BYTES]), bytes(view[KEY_ID_BYTES:head]), view[head:])


@dataclass(frozen=True, slots=True)
class EncryptedSum:
    """Server → key holder. 36 + 4m + W bytes; with shells, W of the opened ones. SPEC §6.7, shells §9."""

    key_id: bytes
    survivors: tuple[ClientId, ...]
    ciphertexts: memoryview = field(repr=False)

    @staticmethod
    def head(key_id: bytes, survivors: tuple[ClientId, ...]) -> bytes:
        writer = Writer().raw(key_id, KEY_ID_BYTES).u32(len(survivors))
        for client in survivors:
            writer.u32(client)
        return writer.done()

    @staticmethod
    def limit(params: Params) -> int:
        return KEY_ID_BYTES + 4 + 4 * len(params.clients) + params.vector_bytes(whole=True)

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> EncryptedSum:
        reader = Reader(body)
        key_id = bytes(reader.raw(KEY_ID_BYTES))
        ids = [reader.u32() for _ in range(reader.count(limit=len(params.clients), item_bytes=4))]
        if any(a >= b for a, b in pairwise(ids)):
            raise DecodeError("the list of survivors is not ascending, or repeats one")
        if any(i not in params for i in ids):
            raise DecodeError("the list of survivors names a client that was not invited")
        survivors = tuple(PartyId(i) for i in ids)
        ciphertexts = reader.raw(params.vector_bytes(whole=True, numbers=params.opened(survivors)))
        reader.end()
        return cls(key_id, survivors, ciphertexts)


@dataclass(frozen=True, slots=True)
class Result:
    """Key holder → server. 8d bytes: the sums, little-endian. SPEC §6.8."""

    values: IntegerVector = field(repr=False)

    @staticmethod
    def length(params: Params) -> int:
        return 8 * params.dimension

    def encode(self) -> memoryview:
        return np.ascontiguousarray(self.values, dtype="<u8").view(np.uint8).data

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> Result:
        _exact(body, cls.length(params))
        return cls(np.frombuffer(body, dtype="<u8").astype(np.uint64))


@dataclass(frozen=True, slots=True)
class Receipt:
    """Key holder → server, where the sum stays with the key holder. No bytes: the session is done. SPEC §6.9."""

    @classmethod
    def decode(cls, body: Buffer) -> Receipt:
        _exact(body, 0)
        return cls()


@dataclass(frozen=True, slots=True)
class Abort:
    """Key holder → server: no sum was released. 1 byte, the reason. SPEC §6.10."""

    reason: int

    TOO_FEW_CLIENTS = 1
    NOT_A_SUM = 2
    ANOTHER_KEY = 3
    KEY_SPENT = 4

    SENTENCES: ClassVar[Mapping[int, str]] = {
        TOO_FEW_CLIENTS: "fewer survivors than the threshold",
        NOT_A_SUM: "the ciphertext does not decrypt to a sum of the survivors",
        ANOTHER_KEY: "the sum is under another key",
        KEY_SPENT: "the key has opened this round already, or as much as it may",
    }

    def encode(self) -> bytes:
        return bytes([self.reason])

    @classmethod
    def decode(cls, body: Buffer) -> Abort:
        _exact(body, 1)
        reason = memoryview(body)[0]
        if reason not in cls.SENTENCES:
            raise DecodeError("an abort without a known reason")
        return cls(reason)


def _exact(body: Buffer, length: int) -> None:
    if memoryview(body).nbytes != length:
        raise DecodeError(f"this message has {length} bytes, got {memoryview(body).nbytes}")
