"""A party between two messages, as bytes: for engines that start a process per message and keep what it returns.

The bytes hold the key share's seed and the input: they belong to the client's own process manager, never to the server,
and are replaced, not kept, when the next message has been answered: a party resumed twice from the same bytes could
give two decryption shares, which give its key away. The encoding is this package's own and no message.

    u8 version · u8 state · 32 context hash · u32 client · u32 minimum · u32 attempt · list of u32 clients · blob seed
    list of u32 parties · list of (u8 kind, 32 checksum) · blob plaintext · blob joint key · blob sum · blob sent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from securefl.ckks.threshold.messages import POLYNOMIAL_BYTES, JointKey, Sum
from securefl.ckks.threshold.params import ThresholdParams
from securefl.errors import DecodeError
from securefl.types import ClientId, PartyId
from securefl.wire import CHECKSUM_BYTES, Buffer, Reader, Writer

__all__ = ["SuspendedParty"]

VERSION: Final = 1
SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SuspendedParty:
    """What a :class:`~securefl.ckks.threshold.client.ThresholdClient` knows between two messages.

    ``state``: the number of its state. ``seed``: of the present attempt. ``seen``: message kind → checksum of the frame
    taken. ``plaintext``: uint64[2, C], the encoded input, or empty. ``joint``, ``announced``: the bodies of JOINT_KEY
    and SUM while they are needed. ``sent``: own c1 polynomials until the sum is announced.
    """

    state: int
    me: ClientId
    minimum: int
    attempt: int
    clients: tuple[ClientId, ...]
    seed: bytes = field(repr=False)
    parties: tuple[ClientId, ...]
    seen: Mapping[int, bytes]
    plaintext: Buffer = field(repr=False)
    joint: Buffer = field(repr=False)
    announced: Buffer = field(repr=False)
    sent: bytes = field(repr=False)

    def encode(self, params: ThresholdParams) -> bytes:
        """The bytes, bound to ``params``."""
        writer = Writer().u8(VERSION).u8(self.state).raw(params.context_hash, 32)
        writer.u32(self.me).u32(self.minimum).u32(self.attempt)
        _put_ids(writer, self.clients)
        writer.blob(self.seed)
        _put_ids(writer, self.parties)
        writer.u32(len(self.seen))
        for kind, checksum in self.seen.items():
            writer.u8(kind).raw(checksum, CHECKSUM_BYTES)
        return writer.blob(self.plaintext).blob(self.joint).blob(self.announced).blob(self.sent).done()

    @classmethod
    def decode(cls, data: Buffer, params: ThresholdParams) -> SuspendedParty:
        """Raises :class:`DecodeError` for anything but the bytes of a party of this very session."""
        reader = Reader(data)
        version, state = reader.u8(), reader.u8()
        if version != VERSION:
            raise DecodeError(f"a suspended party of version {version}; this is version {VERSION}")
        if bytes(reader.raw(32)) != params.context_hash:
            raise DecodeError("the suspended party belongs to another session, round, parameter set or model")
        me, minimum, attempt = PartyId(reader.u32()), reader.u32(), reader.u32()
        clients, seed, parties = _ids(reader, params), bytes(reader.blob(limit=SEED_BYTES)), _ids(reader, params)
        seen = {
            reader.u8(): bytes(reader.raw(CHECKSUM_BYTES))
            for _ in range(reader.count(limit=256, item_bytes=1 + CHECKSUM_BYTES))
        }
        plaintext = bytes(reader.blob(limit=16 * params.coefficients))
        joint, announced = (
            bytes(reader.blob(limit=JointKey.limit(params))),
            bytes(reader.blob(limit=Sum.length(params))),
        )
        sent = bytes(reader.blob(limit=POLYNOMIAL_BYTES * params.ciphertexts))
        reader.end()
        if me not in clients or len(seed) != SEED_BYTES or len(plaintext) not in (0, 16 * params.coefficients):
            raise DecodeError("the suspended party was not in its attempt, or lost its seed or input")
        if len(sent) % POLYNOMIAL_BYTES or not params.threshold <= minimum <= len(params.clients):
            raise DecodeError("the suspended party's ciphertexts or minimum do not fit the session")
        return cls(state, me, minimum, attempt, clients, seed, parties, seen, plaintext, joint, announced, sent)


def _put_ids(writer: Writer, ids: tuple[ClientId, ...]) -> None:
    writer.u32(len(ids))
    for client in ids:
        writer.u32(client)


def _ids(reader: Reader, params: ThresholdParams) -> tuple[ClientId, ...]:
    ids = tuple(PartyId(reader.u32()) for _ in range(reader.count(limit=len(params.clients), item_bytes=4)))
    if list(ids) != sorted(set(ids)) or any(client not in params for client in ids):
        raise DecodeError("the suspended party names clients that were not invited")
    return ids
