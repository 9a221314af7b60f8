"""The messages of the shared sum: one frozen dataclass each, with its length. SPEC: protocols/shared/SPEC.md §6.

Legend: K public-key bytes of the suite, S bytes of a sealed seed, W words of the packed vector, m clients in a list.
Lengths are of the body; a frame adds 72 bytes (wire SPEC shared §2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np

from securefl.errors import DecodeError
from securefl.mpc.summation.params import Params
from securefl.types import ClientId, PartyId, RingVector
from securefl.wire import Buffer, Reader, Writer

__all__ = ["Blamed", "Kind", "SumRequest", "exact", "limits_of", "vector_body", "vector_of"]


class Kind(IntEnum):
    """Message numbers on the wire."""

    ADVERTISE_KEY = 1
    KEY = 2
    SEED = 3
    INPUT = 4
    SUM_REQUEST = 5
    SUM_SHARE = 6
    BLAMED = 7


def limits_of(params: Params, *kinds: Kind) -> dict[int, int]:
    """Largest bodies of the kinds that a role can get: K, K, S, 8 W, 4 + m (4 + S), 8 W and 4 + 4 m bytes."""
    n = len(params.context.clients)
    every = {
        Kind.ADVERTISE_KEY: params.suite.public_bytes,
        Kind.KEY: params.suite.public_bytes,
        Kind.SEED: params.box_bytes,
        Kind.INPUT: params.vector_bytes,
        Kind.SUM_REQUEST: 4 + n * (4 + params.box_bytes),
        Kind.SUM_SHARE: params.vector_bytes,
        Kind.BLAMED: 4 + 4 * n,
    }
    return {kind.value: every[kind] for kind in kinds}


def exact(kind: Kind, body: memoryview, params: Params) -> bytes:
    """A body of one fixed length (ADVERTISE_KEY, KEY, SEED). Raises :class:`DecodeError` for another length."""
    expected = limits_of(params, kind)[kind]
    if body.nbytes != expected:
        raise DecodeError(f"{kind.name} has {expected} bytes, got {body.nbytes}")
    return bytes(body)


def vector_of(kind: Kind, body: memoryview, words: int) -> RingVector:
    """uint64[words], a view of the frame (INPUT, SUM_SHARE), little-endian. Raises DecodeError for another length."""
    if body.nbytes != 8 * words:
        raise DecodeError(f"{kind.name} has {8 * words} bytes, got {body.nbytes}")
    return np.frombuffer(body, dtype="<u8")


def vector_body(words: RingVector) -> memoryview:
    """The bytes of :func:`vector_of`; no copy on a little-endian machine."""
    return np.ascontiguousarray(words, dtype="<u8").view(np.uint8).data


def _ids(ids: Sequence[int], params: Params) -> tuple[ClientId, ...]:
    if any(a >= b for a, b in pairwise(ids)):
        raise DecodeError("a list of client ids is not ascending, or repeats one")
    if any(client not in params for client in ids):
        raise DecodeError("a list names a client that was not invited")
    return tuple(PartyId(client) for client in ids)


@dataclass(frozen=True, slots=True)
class SumRequest:
    """First → second server: whose shares to sum, with their sealed seeds. 4 + m (4 + S) bytes. SPEC shared §6."""

    boxes: Mapping[ClientId, bytes] = field(repr=False)

    def encode(self) -> bytes:
        writer = Writer().u32(len(self.boxes))
        for client in sorted(self.boxes):
            writer.u32(client).raw(self.boxes[client], len(self.boxes[client]))
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> SumRequest:
        """Raises :class:`DecodeError` unless the clients are invited, distinct and ascending."""
        reader = Reader(body)
        count = reader.count(limit=len(params.context.clients), item_bytes=4 + params.box_bytes)
        pairs = [(reader.u32(), bytes(reader.raw(params.box_bytes))) for _ in range(count)]
        reader.end()
        ids = _ids([client for client, _ in pairs], params)
        return cls(dict(zip(ids, (box for _, box in pairs), strict=True)))


@dataclass(frozen=True, slots=True)
class Blamed:
    """Second server → first server: whose seals do not open; there is no sum. 4 + 4 m bytes. SPEC shared §6."""

    clients: tuple[ClientId, ...]

    def encode(self) -> bytes:
        writer = Writer().u32(len(self.clients))
        for client in self.clients:
            writer.u32(client)
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> Blamed:
        """Raises :class:`DecodeError` as :meth:`SumRequest.decode`, and for an empty list."""
        reader = Reader(body)
        ids = [reader.u32() for _ in range(reader.count(limit=len(params.context.clients), item_bytes=4))]
        reader.end()
        if not ids:
            raise DecodeError("BLAMED names nobody")
        return cls(_ids(ids, params))
