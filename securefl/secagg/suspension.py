"""A client between two messages, as bytes: for engines that start a process per message and keep only what it returns.

The bytes hold the session's secrets: whoever reads them can open this client's input. They belong in the memory of the
client's own process manager, never on the way to the server, and are replaced, not kept, when the next message has
been answered: a session resumed twice from the same bytes could answer two different unmask requests.
SPEC: protocols/secagg/SPEC.md §7 (states); the encoding is this package's own and no message.

    u8 version · u8 state · 32 context hash · u32 client · u32 minimum
    blob seeds, 32 each: mask, self (one per shell), channel · blob roster hash · blob own shares, 33 each
    list of (u8 kind, 32 checksum) · list of u32 roster · list of (u32 id, blob box) · list of (u32 id, 32 pair secret)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from securefl.errors import DecodeError
from securefl.primitives.kem import SEED_BYTES
from securefl.primitives.shamir import SHARE_BYTES
from securefl.secagg.messages import shares_box_bytes
from securefl.secagg.params import Params
from securefl.types import ClientId, PartyId
from securefl.wire import CHECKSUM_BYTES, Buffer, Reader, Writer

__all__ = ["SuspendedClient"]

VERSION: Final = 1
HASH_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SuspendedClient:
    """What a :class:`~securefl.secagg.client.Client` knows between two messages.

    ``state``: the number of its state. ``seeds``: mask seed, self seeds, channel seed, 32
    bytes each. ``seen``: message kind →
    checksum of the frame taken. ``roster``: ids that advertised keys. ``boxes``: id → sealed shares for this client.
    """

    state: int
    me: ClientId
    minimum: int
    seeds: tuple[bytes, ...] = field(repr=False)
    roster_hash: bytes
    own_shares: tuple[bytes, ...] = field(repr=False)
    seen: Mapping[int, bytes]
    roster: frozenset[ClientId]
    boxes: Mapping[ClientId, bytes] = field(repr=False)
    pair_secrets: Mapping[ClientId, bytes] = field(repr=False)

    def encode(self, params: Params) -> bytes:
        """The bytes, bound to ``params``."""
        writer = Writer().u8(VERSION).u8(self.state).raw(params.context_hash, HASH_BYTES)
        writer.u32(self.me).u32(self.minimum)
        writer.blob(b"".join(self.seeds)).blob(self.roster_hash).blob(b"".join(self.own_shares))
        writer.u32(len(self.seen))
        for kind, checksum in self.seen.items():
            writer.u8(kind).raw(checksum, CHECKSUM_BYTES)
        writer.u32(len(self.roster))
        for client in sorted(self.roster):
            writer.u32(client)
        for secrets in (self.boxes, self.pair_secrets):
            writer.u32(len(secrets))
            for client, value in secrets.items():
                writer.u32(client).blob(value)
        return writer.done()

    @classmethod
    def decode(cls, data: Buffer, params: Params) -> SuspendedClient:
        """Raises :class:`DecodeError` for anything but the bytes of a client of this very session."""
        reader = Reader(data)
        version, state = reader.u8(), reader.u8()
        if version != VERSION:
            raise DecodeError(f"a suspended client of version {version}; this is version {VERSION}")
        if bytes(reader.raw(HASH_BYTES)) != params.context_hash:
            raise DecodeError("the suspended client belongs to another session, round, parameter set or model")
        me, minimum, n = PartyId(reader.u32()), reader.u32(), len(params.clients)
        if me not in params:
            raise DecodeError("the suspended client was not invited")
        shells = params.tier(me)
        seeds = _pieces(reader, SEED_BYTES, shells + 2)
        roster_hash, own = bytes(reader.blob(limit=HASH_BYTES)), _pieces(reader, SHARE_BYTES, shells)
        seen = {
            reader.u8(): bytes(reader.raw(CHECKSUM_BYTES))
            for _ in range(reader.count(limit=256, item_bytes=1 + CHECKSUM_BYTES))
        }
        roster = frozenset(PartyId(reader.u32()) for _ in range(reader.count(limit=n, item_bytes=4)))
        boxes, pairs = (
            {PartyId(reader.u32()): bytes(reader.blob(limit=limit)) for _ in range(reader.count(limit=n, item_bytes=8))}
            for limit in (shares_box_bytes(params, max(map(params.tier, params.clients))), SEED_BYTES)
        )
        reader.end()
        if any(client not in params for client in {*roster, *boxes, *pairs}):
            raise DecodeError("the suspended client names a client that was not invited")
        if len(seeds) != shells + 2 or len(roster_hash) not in (0, HASH_BYTES) or len(own) not in (0, shells):
            raise DecodeError("the suspended client holds too few seeds or shares")
        if not params.threshold <= minimum <= n:
            raise DecodeError(f"the suspended client's minimum of {minimum} does not fit the session")
        return cls(state, me, minimum, seeds, roster_hash, own, seen, roster, boxes, pairs)


def _pieces(reader: Reader, size: int, most: int) -> tuple[bytes, ...]:
    """A blob of up to ``most`` pieces of ``size`` bytes."""
    data = bytes(reader.blob(limit=most * size))
    if len(data) % size:
        raise DecodeError(f"a field of {len(data)} bytes is not made of pieces of {size}")
    return tuple(data[at : at + size] for at in range(0, len(data), size))
