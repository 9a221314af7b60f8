"""The messages of the masked sum: one frozen dataclass each, with its length. SPEC: protocols/secagg/SPEC.md §6.

Legend: n invited clients, m clients in a list, K public-key bytes of the suite, W words of the packed vector,
S(x) bytes of a seal of x bytes. Lengths are of the body; a frame adds 72 bytes (wire SPEC §2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Final

import numpy as np

from securefl.errors import DecodeError
from securefl.exchange import Abort
from securefl.primitives.shamir import SECRET_BYTES, SHARE_BYTES
from securefl.secagg.params import Params
from securefl.types import ClientId, PartyId, RingVector
from securefl.wire import Buffer, Reader, Writer

__all__ = [
    "Abort",
    "AdvertiseKeys",
    "EncryptedShares",
    "Kind",
    "MaskedInput",
    "Roster",
    "UnmaskRequest",
    "UnmaskShares",
    "client_limits",
    "server_limits",
]

COMMITMENT_BYTES: Final = 32


class Kind(IntEnum):
    """Message numbers on the wire."""

    ADVERTISE_KEYS = 1
    ROSTER = 2
    SHARE_KEYS = 3
    DELIVER_SHARES = 4
    MASKED_INPUT = 5
    UNMASK_REQUEST = 6
    UNMASK_SHARES = 7
    ABORT = 8


def _ids(reader: Reader, params: Params, item_bytes: int) -> int:
    return reader.count(limit=len(params.clients), item_bytes=item_bytes)


def _ascending(ids: Sequence[int], params: Params) -> tuple[ClientId, ...]:
    """Ids of a list: invited, distinct and ascending, so that a list has one encoding."""
    if any(a >= b for a, b in pairwise(ids)):
        raise DecodeError("a list of client ids is not ascending, or repeats one")
    if any(i not in params for i in ids):
        raise DecodeError("a list names a client that was not invited")
    return tuple(PartyId(i) for i in ids)


def _tier(client: int, params: Params) -> int:
    """The tier of a client named in a message; what stands after the name has its length from it."""
    if params.shells is not None and client not in params:
        raise DecodeError("a list names a client that was not invited")
    return 1 if params.shells is None else params.tier(PartyId(client))


@dataclass(frozen=True, slots=True)
class AdvertiseKeys:
    """Client → server, exchange 1. 2K + 32 bytes. SPEC §6.1.

    ``commitment`` binds the client to its self-mask seed; the mask key binds it to the seed of its pairwise masks.
    With shells: one commitment after the other, 32 bytes for each shell that the client holds.
    """

    channel_key: bytes
    mask_key: bytes
    commitment: bytes

    @staticmethod
    def length(params: Params, tier: int = 1) -> int:
        return 2 * params.suite.public_bytes + tier * COMMITMENT_BYTES

    def encode(self) -> bytes:
        return self.channel_key + self.mask_key + self.commitment

    def commitment_of(self, shell: int) -> bytes:
        """The commitment to the self-mask seed of a shell."""
        return self.commitment[(shell - 1) * COMMITMENT_BYTES : shell * COMMITMENT_BYTES]

    @classmethod
    def decode(cls, body: Buffer, params: Params, tier: int = 1) -> AdvertiseKeys:
        reader = Reader(body)
        result = cls._read(reader, params, tier)
        reader.end()
        return result

    @classmethod
    def _read(cls, reader: Reader, params: Params, tier: int) -> AdvertiseKeys:
        key_bytes = params.suite.public_bytes
        keys = bytes(reader.raw(key_bytes)), bytes(reader.raw(key_bytes))
        # both suites end in an X25519 key, whose highest bit is ignored (RFC 7748 §5): two spellings of one key
        # must not pass for two keys
        if any(key[-1] & 0x80 for key in keys):
            raise DecodeError("a public key is not in its canonical form: the highest bit of its X25519 part is set")
        return cls(*keys, bytes(reader.raw(COMMITMENT_BYTES * tier)))


@dataclass(frozen=True, slots=True)
class Roster:
    """Server → every client that advertised, exchange 1. 4 + m (2K + 36) bytes. SPEC §6.2.

    The keys of all clients that advertised, the recipient's own among them; the same bytes go to everyone.
    """

    keys: dict[ClientId, AdvertiseKeys]

    @staticmethod
    def limit(params: Params) -> int:
        return 4 + len(params.clients) * (4 + AdvertiseKeys.length(params, params.shell_count))

    def encode(self) -> bytes:
        writer = Writer().u32(len(self.keys))
        for client in sorted(self.keys):
            entry = self.keys[client].encode()
            writer.u32(client).raw(entry, len(entry))
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> Roster:
        reader = Reader(body)
        count = _ids(reader, params, 4 + AdvertiseKeys.length(params))
        pairs: list[tuple[int, AdvertiseKeys]] = []
        for _ in range(count):
            client = reader.u32()
            pairs.append((client, AdvertiseKeys._read(reader, params, _tier(client, params))))
        reader.end()
        ids = _ascending([client for client, _ in pairs], params)
        return cls(dict(zip(ids, (keys for _, keys in pairs), strict=True)))


@dataclass(frozen=True, slots=True)
class Sealed:
    """What one client sends another: the sealed shares and, from the lower to the higher id, the pair's secret."""

    shares: bytes
    pair: bytes | None


def shares_box_bytes(params: Params, tier: int = 1) -> int:
    """Bytes of a box of shares from a client of this tier: of its mask seed and of each self-mask seed."""
    return params.suite.sealed_bytes((1 + tier) * SHARE_BYTES)


def pair_box_bytes(params: Params) -> int:
    return params.suite.sealed_bytes(SECRET_BYTES)


@dataclass(frozen=True, slots=True)
class EncryptedShares:
    """Exchange 2, client → server by recipient (kind 3), server → client by sender (kind 4). SPEC §6.3, §6.4.

    4 + m (4 + S(66)) + h S(32) bytes, where h of the m boxes go from a lower to a higher id.
    """

    boxes: dict[ClientId, Sealed]

    @staticmethod
    def limit(params: Params) -> int:
        boxes = shares_box_bytes(params, params.shell_count) + pair_box_bytes(params)
        return 4 + len(params.clients) * (4 + boxes)

    def encode(self) -> bytes:
        writer = Writer().u32(len(self.boxes))
        for client in sorted(self.boxes):
            sealed = self.boxes[client]
            writer.u32(client).raw(sealed.shares, len(sealed.shares))
            if sealed.pair is not None:
                writer.raw(sealed.pair, len(sealed.pair))
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params, *, owner: ClientId, owner_sends: bool) -> EncryptedShares:
        """``owner``: the fixed end of all boxes, their sender in kind 3 (``owner_sends``) or recipient in kind 4."""
        reader = Reader(body)
        ids: list[int] = []
        boxes: list[Sealed] = []
        for _ in range(_ids(reader, params, 4 + shares_box_bytes(params))):
            other = reader.u32()
            tier = _tier(owner if owner_sends else other, params)
            shares = bytes(reader.raw(shares_box_bytes(params, tier)))
            low_to_high = owner < other if owner_sends else other < owner
            ids.append(other)
            boxes.append(Sealed(shares, bytes(reader.raw(pair_box_bytes(params))) if low_to_high else None))
        reader.end()
        if owner in ids:
            raise DecodeError("a client's shares are addressed to itself")
        return cls(dict(zip(_ascending(ids, params), boxes, strict=True)))


@dataclass(frozen=True, slots=True)
class MaskedInput:
    """Client → server, exchange 3. 8 W bytes: the packed vector plus masks, little-endian words. SPEC §6.5.

    With shells: the words of the shells that the client holds.
    """

    words: RingVector = field(repr=False)

    @staticmethod
    def length(params: Params, tier: int = 1) -> int:
        return 8 * params.packing.words_of(tier)

    def encode(self) -> memoryview:
        return np.ascontiguousarray(self.words, dtype="<u8").view(np.uint8).data

    @classmethod
    def decode(cls, body: Buffer, params: Params, tier: int = 1) -> MaskedInput:
        length = cls.length(params, tier)
        if memoryview(body).nbytes != length:
            raise DecodeError(f"a masked input has {length} bytes, got {memoryview(body).nbytes}")
        return cls(np.frombuffer(body, dtype="<u8"))


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """Server → every survivor, exchange 4. 8 + 4 m bytes: who survived and who dropped after sharing. SPEC §6.6."""

    survivors: tuple[ClientId, ...]
    dropped: tuple[ClientId, ...]

    @staticmethod
    def limit(params: Params) -> int:
        # Overlapping lists must be decodable, so that they can be refused for what they are.
        return 8 + 8 * len(params.clients)

    def encode(self) -> bytes:
        writer = Writer()
        for ids in (self.survivors, self.dropped):
            writer.u32(len(ids))
            for client in ids:
                writer.u32(client)
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> UnmaskRequest:
        reader = Reader(body)
        survivors = _ascending([reader.u32() for _ in range(_ids(reader, params, 4))], params)
        dropped = _ascending([reader.u32() for _ in range(_ids(reader, params, 4))], params)
        reader.end()
        return cls(survivors, dropped)


@dataclass(frozen=True, slots=True)
class UnmaskShares:
    """Client → server, exchange 4. 4 + 34 m bytes, m clients that shared keys. SPEC §6.7.

    For each of them, ascending: 1 and the share asked for (of the self-mask seed of a survivor, of the mask-key
    seed of a dropped client), or 0 and zeros when that client's box did not open. With shells: of a survivor one for
    each opened shell that it holds, ascending.
    """

    shares: tuple[bytes | None, ...] = field(repr=False)

    @staticmethod
    def limit(params: Params) -> int:
        return 4 + (1 + SHARE_BYTES) * len(params.clients) * params.shell_count

    def encode(self) -> bytes:
        writer = Writer().u32(len(self.shares))
        for share in self.shares:
            writer.u8(share is not None).raw(bytes(SHARE_BYTES) if share is None else share, SHARE_BYTES)
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> UnmaskShares:
        reader = Reader(body)
        shares: list[bytes | None] = []
        limit = len(params.clients) * params.shell_count
        for _ in range(reader.count(limit=limit, item_bytes=1 + SHARE_BYTES)):
            present, share = reader.u8(), bytes(reader.raw(SHARE_BYTES))
            if present not in (0, 1) or (not present and any(share)):
                raise DecodeError("a share is neither present nor absent")
            shares.append(share if present else None)
        reader.end()
        return cls(tuple(shares))


def client_limits(params: Params) -> dict[int, int]:
    """The largest body, in bytes, of every kind that a client takes."""
    return {
        Kind.ROSTER: Roster.limit(params),
        Kind.DELIVER_SHARES: EncryptedShares.limit(params),
        Kind.UNMASK_REQUEST: UnmaskRequest.limit(params),
        Kind.ABORT: Abort.LENGTH,
    }


def server_limits(params: Params) -> dict[int, int]:
    """The largest body, in bytes, of every kind that the server takes."""
    return {
        Kind.ADVERTISE_KEYS: AdvertiseKeys.length(params, params.shell_count),
        Kind.SHARE_KEYS: EncryptedShares.limit(params),
        Kind.MASKED_INPUT: 8 * params.packing.words,
        Kind.UNMASK_SHARES: UnmaskShares.limit(params),
    }
