"""The messages of the n-of-n sum. SPEC: protocols/ckks-threshold/SPEC.md §7.

Numbers are big-endian; vectors are planes of little-endian words, as on the other wires of this package. All lengths
follow from the parameters, so that a size is checked before a byte is read; residues have no invalid values. The
client's signature stands behind the bodies of KEY_SHARE, INPUT and SHARE, and is checked before they are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.threshold.params import SHARE_BYTES, ThresholdParams
from securefl.ckks.threshold.wide import COEFFICIENT_BYTES, DEGREE, LIMBS, Words
from securefl.errors import DecodeError
from securefl.exchange import Abort
from securefl.primitives.identity import SIGNATURE_BYTES
from securefl.types import ClientId, PartyId
from securefl.wire import OVERHEAD_BYTES, Buffer, Reader, Writer

__all__ = [
    "Abort",
    "Confirm",
    "Confirmed",
    "Input",
    "JointKey",
    "KeyShare",
    "Kind",
    "Restart",
    "Share",
    "Sum",
    "client_limits",
    "server_limits",
    "session_bytes",
]

POLYNOMIAL_BYTES: Final = COEFFICIENT_BYTES * DEGREE
SUM_BYTES: Final = 4 * LIMBS * DEGREE

LimbSums = NDArray[np.uint32]


class Kind(IntEnum):
    """Message numbers, in the order of the protocol."""

    KEY_SHARE = 1
    JOINT_KEY = 2
    CONFIRM_KEY = 3
    KEY_CONFIRMED = 4
    INPUT = 5
    SUM = 6
    CONFIRM_SUM = 7
    SUM_CONFIRMED = 8
    SHARE = 9
    RESTART = 10
    ABORT = 11


def _exactly(body: Buffer, length: int, what: str) -> memoryview:
    view = memoryview(body)
    if view.nbytes != length:
        raise DecodeError(f"{what} has {length} bytes here, got {view.nbytes}")
    return view


def write_polynomial(words: Words) -> bytes:
    """26 N bytes: three planes of 64-bit words and one of 16-bit words."""
    return b"".join((words[:3].astype("<u8", copy=False).tobytes(), words[3].astype("<u2").tobytes()))


def read_polynomial(body: Buffer) -> Words:
    """uint64[4, N]."""
    view = memoryview(body)
    words = np.empty((4, DEGREE), dtype=np.uint64)
    words[:3] = np.frombuffer(view[: 24 * DEGREE], dtype="<u8").reshape(3, DEGREE)
    words[3] = np.frombuffer(view[24 * DEGREE :], dtype="<u2")
    return words


def _listed(clients: tuple[ClientId, ...]) -> bytes:
    writer = Writer().u32(len(clients))
    for client in clients:
        writer.u32(client)
    return writer.done()


def _clients(reader: Reader, params: ThresholdParams) -> tuple[ClientId, ...]:
    count = reader.count(limit=len(params.clients), item_bytes=4)
    ids = tuple(PartyId(reader.u32()) for _ in range(count))
    if list(ids) != sorted(set(ids)) or any(client not in params for client in ids):
        raise DecodeError("a list of clients is not ascending, or names one that was not invited")
    return ids


@dataclass(frozen=True, slots=True)
class KeyShare:
    """Client → server. 26 N bytes: b_i = −a·s_i + e_i. SPEC §7."""

    words: Words = field(repr=False)

    def encode(self) -> bytes:
        return write_polynomial(self.words)

    @classmethod
    def decode(cls, body: Buffer) -> KeyShare:
        return cls(read_polynomial(_exactly(body, POLYNOMIAL_BYTES, "a key share")))


@dataclass(frozen=True, slots=True)
class JointKey:
    """Server → every party. 4 + 4 m + 32 N bytes: the m parties, and Σ b_i limb by limb. SPEC §7."""

    parties: tuple[ClientId, ...]
    sums: LimbSums = field(repr=False)

    @staticmethod
    def limit(params: ThresholdParams) -> int:
        return 4 + 4 * len(params.clients) + SUM_BYTES

    def encode(self) -> bytes:
        return _listed(self.parties) + self.sums.astype("<u4", copy=False).tobytes()

    @classmethod
    def decode(cls, body: Buffer, params: ThresholdParams) -> JointKey:
        reader = Reader(body)
        parties = _clients(reader, params)
        sums = np.frombuffer(_exactly(reader.raw(reader.remaining), SUM_BYTES, "a joint key"), dtype="<u4")
        return cls(parties, sums.reshape(LIMBS, DEGREE))


@dataclass(frozen=True, slots=True)
class Confirm:
    """Client → server, twice. 80 bytes: the fingerprint of what the client sent, and its signature. SPEC §7."""

    fingerprint: bytes
    signature: bytes

    LENGTH: ClassVar[int] = 80

    def encode(self) -> bytes:
        return self.fingerprint + self.signature

    @classmethod
    def decode(cls, body: Buffer) -> Confirm:
        view = _exactly(body, cls.LENGTH, "a confirmation")
        return cls(bytes(view[:16]), bytes(view[16:]))


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Server → every party, twice. 80 m bytes: all confirmations, in the order of the parties. SPEC §7."""

    items: tuple[Confirm, ...]

    @staticmethod
    def limit(params: ThresholdParams) -> int:
        return Confirm.LENGTH * len(params.clients)

    def encode(self) -> bytes:
        return b"".join(item.encode() for item in self.items)

    @classmethod
    def decode(cls, body: Buffer, parties: int) -> Confirmed:
        view = _exactly(body, Confirm.LENGTH * parties, "the list of confirmations")
        size = Confirm.LENGTH
        return cls(tuple(Confirm.decode(view[at : at + size]) for at in range(0, view.nbytes, size)))


@dataclass(frozen=True, slots=True)
class Input:
    """Client → server. 16 C + 26 N m bytes: c0 of the C coefficients in use, c1 of the m ciphertexts. SPEC §7."""

    c0: Words = field(repr=False)
    c1: tuple[memoryview, ...] = field(repr=False)

    @staticmethod
    def length(params: ThresholdParams) -> int:
        return params.input_bytes

    @classmethod
    def decode(cls, body: Buffer, params: ThresholdParams) -> Input:
        view = _exactly(body, cls.length(params), "an input")
        at = SHARE_BYTES * params.coefficients
        c0 = np.frombuffer(view[:at], dtype="<u8").reshape(2, params.coefficients)
        return cls(c0, tuple(view[low : low + POLYNOMIAL_BYTES] for low in range(at, view.nbytes, POLYNOMIAL_BYTES)))


@dataclass(frozen=True, slots=True)
class Sum:
    """Server → every party. 32 N m bytes: Σ c1 limb by limb, of the m ciphertexts. SPEC §7."""

    sums: LimbSums = field(repr=False)

    @staticmethod
    def length(params: ThresholdParams) -> int:
        return SUM_BYTES * params.ciphertexts

    def encode(self) -> memoryview:
        return np.ascontiguousarray(self.sums, dtype="<u4").view(np.uint8).reshape(-1).data

    @classmethod
    def decode(cls, body: Buffer, params: ThresholdParams) -> Sum:
        view = _exactly(body, cls.length(params), "a sum")
        return cls(np.frombuffer(view, dtype="<u4").reshape(params.ciphertexts, LIMBS, DEGREE))


@dataclass(frozen=True, slots=True)
class Share:
    """Client → server. 16 C bytes: the high 128 bits of (Σ c1)·s_i + flooding noise. SPEC §7."""

    words: Words = field(repr=False)

    @staticmethod
    def length(params: ThresholdParams) -> int:
        return SHARE_BYTES * params.coefficients

    def encode(self) -> memoryview:
        return np.ascontiguousarray(self.words, dtype="<u8").view(np.uint8).reshape(-1).data

    @classmethod
    def decode(cls, body: Buffer, params: ThresholdParams) -> Share:
        view = _exactly(body, cls.length(params), "a decryption share")
        return cls(np.frombuffer(view, dtype="<u8").reshape(2, params.coefficients))


@dataclass(frozen=True, slots=True)
class Restart:
    """Server → the parties that are left: begin again among them, under fresh keys. 4 + 4 m bytes. SPEC §7."""

    clients: tuple[ClientId, ...]

    @staticmethod
    def limit(params: ThresholdParams) -> int:
        return 4 + 4 * len(params.clients)

    def encode(self) -> bytes:
        return _listed(self.clients)

    @classmethod
    def decode(cls, body: Buffer, params: ThresholdParams) -> Restart:
        reader = Reader(body)
        clients = _clients(reader, params)
        reader.end()
        return cls(clients)


def client_limits(params: ThresholdParams) -> dict[int, int]:
    """The largest body, in bytes, of every kind that a client takes."""
    return {
        Kind.JOINT_KEY: JointKey.limit(params),
        Kind.KEY_CONFIRMED: Confirmed.limit(params),
        Kind.SUM: Sum.length(params),
        Kind.SUM_CONFIRMED: Confirmed.limit(params),
        Kind.RESTART: Restart.limit(params),
        Kind.ABORT: Abort.LENGTH,
    }


def server_limits(params: ThresholdParams) -> dict[int, int]:
    """The largest body, in bytes, of every kind that the server takes."""
    return {
        Kind.KEY_SHARE: POLYNOMIAL_BYTES + SIGNATURE_BYTES,
        Kind.CONFIRM_KEY: Confirm.LENGTH,
        Kind.INPUT: Input.length(params) + SIGNATURE_BYTES,
        Kind.CONFIRM_SUM: Confirm.LENGTH,
        Kind.SHARE: Share.length(params) + SIGNATURE_BYTES,
    }


def session_bytes(params: ThresholdParams) -> tuple[int, int]:
    """Bytes of all frames that one client sends, and is sent, in a session that everybody stays in."""
    up, down = server_limits(params), client_limits(params)
    taken = (Kind.JOINT_KEY, Kind.KEY_CONFIRMED, Kind.SUM, Kind.SUM_CONFIRMED)
    return sum(up.values()) + len(up) * OVERHEAD_BYTES, sum(down[kind] for kind in taken) + len(taken) * OVERHEAD_BYTES
