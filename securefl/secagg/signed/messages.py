"""The signatures of the signed masked sum, and the lists that the server passes on. SPEC secagg §11.2.

Legend: m clients in a list. Lengths are of the body; a frame adds 72 bytes (wire SPEC §2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Final

from securefl.errors import DecodeError
from securefl.primitives.identity import SIGNATURE_BYTES
from securefl.secagg.messages import Sealed
from securefl.secagg.params import Params
from securefl.types import ClientId, PartyId
from securefl.wire import Buffer, Reader, Writer

__all__ = ["ENTRY_BYTES", "PROTOCOL", "Kind", "Signatures", "box_bytes", "limits_of"]

#: This protocol's number in the envelope.
PROTOCOL: Final = 8
ENTRY_BYTES: Final = 4 + SIGNATURE_BYTES


class Kind(IntEnum):
    """Message numbers on the wire. What a signature is over carries the number of its own message."""

    SIGNED_KEYS = 1
    KEY_SIGNATURES = 2
    SIGNED_BOXES = 3
    BOX_SIGNATURES = 4
    SIGNED_REQUEST = 5
    REQUEST_SIGNATURES = 6


def limits_of(params: Params, *kinds: Kind) -> dict[int, int]:
    """The largest body of each kind: a signature, or 4 + 68 m bytes."""
    listed = 4 + len(params.clients) * ENTRY_BYTES
    single = (Kind.SIGNED_KEYS, Kind.SIGNED_REQUEST)
    return {int(kind): SIGNATURE_BYTES if kind in single else listed for kind in kinds}


def box_bytes(sealed: Sealed) -> bytes:
    """What a signature over a box is over: the sealed shares and, where there is one, the sealed pair secret."""
    return sealed.shares + (sealed.pair or b"")


@dataclass(frozen=True, slots=True)
class Signatures:
    """Who signed, or for whom. 4 + 68 m bytes: count, then id and signature, ids ascending. SPEC secagg §11.2.

    Server → client: KEY_SIGNATURES, BOX_SIGNATURES and REQUEST_SIGNATURES, by signer. Client → server: SIGNED_BOXES, by
    recipient of the box.
    """

    by_client: Mapping[ClientId, bytes] = field(repr=False)

    def encode(self) -> bytes:
        writer = Writer().u32(len(self.by_client))
        for client in sorted(self.by_client):
            writer.u32(client).raw(self.by_client[client], SIGNATURE_BYTES)
        return writer.done()

    @classmethod
    def decode(cls, body: Buffer, params: Params) -> Signatures:
        """Raises :class:`DecodeError` unless the clients are invited, distinct and ascending."""
        reader = Reader(body)
        count = reader.count(limit=len(params.clients), item_bytes=ENTRY_BYTES)
        pairs = [(PartyId(reader.u32()), bytes(reader.raw(SIGNATURE_BYTES))) for _ in range(count)]
        reader.end()
        if any(a >= b for (a, _), (b, _) in pairwise(pairs)) or any(client not in params for client, _ in pairs):
            raise DecodeError("a list of signatures repeats a client, is not ascending or names one not invited")
        return cls(dict(pairs))
