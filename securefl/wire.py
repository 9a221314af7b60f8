"""The strict codec and the envelope every protocol message travels in.

Fixed fields, big-endian integers, lists with a u32 count, one encoding per value, leftovers refused. The size a
frame may have follows from the protocol's parameters and is checked *before* its bytes are read. Nothing on the
wire names a type to import: no pickle, no eval.

Frame (protocols/wire/SPEC.md §2)::

    protocol u8 | version u8 | kind u8 | 0 u8 | sender u32 | recipient u32 | 0 u32 | length u64 | context 32
    | body (length bytes) | checksum 16

The header has 56 bytes, so a body of 64-bit words is aligned when the frame is.

``context`` is the hash of everything both sides must agree on (session, round, parameters, model), so a frame of
another session is refused before its body is looked at. ``checksum`` is the AES-128-GCM tag of all that precedes it,
as associated data under the all-zero key and nonce (GMAC, NIST SP 800-38D): it finds accidents, at memory speed. Any
damage within one 16-byte block is always found, since GHASH is linear and its key invertible. It authenticates
nothing: the key is public; transport security or signatures do that.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from securefl.errors import DecodeError
from securefl.primitives.tag import TAG_BYTES, TAG_KEY_BYTES, gmac
from securefl.types import PartyId

__all__ = [
    "CHECKSUM_BYTES",
    "HEADER_BYTES",
    "OVERHEAD_BYTES",
    "Buffer",
    "Envelope",
    "Reader",
    "Writer",
    "body_length",
    "body_of",
    "open_frame",
    "seal_frame",
]

VERSION: Final = 1
_HEADER: Final = struct.Struct(">BBBBIIIQ32s")
HEADER_BYTES: Final = _HEADER.size
CHECKSUM_BYTES: Final = TAG_BYTES
OVERHEAD_BYTES: Final = HEADER_BYTES + CHECKSUM_BYTES
#: Of checksums: they find accidents, and authenticate nothing.
_PUBLIC_KEY: Final = bytes(TAG_KEY_BYTES)

Buffer: TypeAlias = "bytes | bytearray | memoryview"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A decoded frame. ``body`` is a view into the frame: no copy is made."""

    protocol: int
    kind: int
    context: bytes
    sender: PartyId
    recipient: PartyId
    body: memoryview = field(repr=False)
    checksum: bytes = field(repr=False)


def _checksum(*parts: Buffer) -> bytes:
    """GMAC under a public key: an error-detecting code."""
    return gmac(_PUBLIC_KEY, *parts)


def seal_frame(protocol: int, kind: int, context: bytes, sender: PartyId, recipient: PartyId, *parts: Buffer) -> bytes:
    """One frame around the concatenation of ``parts``. SPEC wire §2. One copy of the parts is made."""
    length = sum(memoryview(part).nbytes for part in parts)
    header = _HEADER.pack(protocol, VERSION, kind, 0, sender, recipient, 0, length, context)
    return b"".join((header, *parts, _checksum(header, *parts)))


def body_of(frame: Buffer) -> memoryview:
    """The body of a whole frame that was made or opened here, as a view: nothing is checked."""
    view = memoryview(frame)
    return view[HEADER_BYTES : HEADER_BYTES + view.nbytes - OVERHEAD_BYTES]


def body_length(header: Buffer, *, limits: Mapping[int, int]) -> int:
    """The body length that a header announces, for a stream reader: call it before the body is read or allocated.

    ``header``: exactly ``HEADER_BYTES``. ``limits``: the message kinds that can be right now, each with its largest
    body in bytes. Raises :class:`DecodeError` for another kind or a longer body.
    """
    if memoryview(header).nbytes != HEADER_BYTES:
        raise DecodeError(f"a frame header has {HEADER_BYTES} bytes, got {memoryview(header).nbytes}")
    _protocol, _version, kind, _zero, _sender, _recipient, _zeros, length, _context = _HEADER.unpack(header)
    if kind not in limits:
        raise DecodeError(f"messages of kind {kind} do not come here")
    if length > limits[kind]:
        raise DecodeError(f"the frame announces a body of {length} bytes; at most {limits[kind]} can be right here")
    return int(length)


def open_frame(
    frame: Buffer, *, protocol: int, context: bytes, recipient: PartyId, limits: Mapping[int, int]
) -> Envelope:
    """Check and take apart one frame. SPEC wire §2.

    ``limits``: as for :func:`body_length`. Raises :class:`DecodeError` for anything but a whole, canonical frame of
    this protocol and context that is addressed to ``recipient``.
    """
    view = memoryview(frame)
    if view.nbytes < OVERHEAD_BYTES:
        raise DecodeError(f"a frame has at least {OVERHEAD_BYTES} bytes, got {view.nbytes}: truncated")
    length = body_length(view[:HEADER_BYTES], limits=limits)
    if length != view.nbytes - OVERHEAD_BYTES:
        raise DecodeError(f"the frame announces {length} body bytes and carries {view.nbytes - OVERHEAD_BYTES}")
    proto, version, kind, zero, sender, to, zeros, length, found = _HEADER.unpack_from(view)
    if (proto, version, zero, zeros) != (protocol, VERSION, 0, 0):
        raise DecodeError(f"not a frame of protocol {protocol} version {VERSION}")
    if view[-CHECKSUM_BYTES:] != _checksum(view[:-CHECKSUM_BYTES]):
        raise DecodeError("the frame's checksum does not match its bytes: damaged on the way, send it again")
    if found != context:
        raise DecodeError("the frame belongs to another session, round, parameter set or model")
    if to != recipient:
        raise DecodeError(f"the frame is addressed to party {to}, this is party {recipient}")
    return Envelope(
        proto,
        kind,
        found,
        PartyId(sender),
        PartyId(to),
        view[HEADER_BYTES:-CHECKSUM_BYTES],
        bytes(view[-CHECKSUM_BYTES:]),
    )


class Writer:
    """Appends fields; :meth:`done` gives the bytes."""

    def __init__(self) -> None:
        self._parts: list[Buffer] = []

    def u8(self, value: int) -> Writer:
        return self._uint(value, 1)

    def u32(self, value: int) -> Writer:
        return self._uint(value, 4)

    def u64(self, value: int) -> Writer:
        return self._uint(value, 8)

    def raw(self, value: Buffer, length: int) -> Writer:
        """Exactly ``length`` bytes, without a prefix."""
        if memoryview(value).nbytes != length:
            raise ValueError(f"expected {length} bytes, got {memoryview(value).nbytes}")
        self._parts.append(value)
        return self

    def blob(self, value: Buffer) -> Writer:
        """Bytes of any length below 2**32, with a u32 prefix."""
        self.u32(memoryview(value).nbytes)
        self._parts.append(value)
        return self

    def done(self) -> bytes:
        return b"".join(self._parts)

    def _uint(self, value: int, size: int) -> Writer:
        try:
            self._parts.append(int(value).to_bytes(size, "big"))
        except OverflowError:
            raise ValueError(f"{value} does not fit {8 * size} bits") from None
        return self


class Reader:
    """Takes fields apart; every method raises :class:`DecodeError` when the bytes run out."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data)
        self._at = 0

    @property
    def remaining(self) -> int:
        return self._view.nbytes - self._at

    def u8(self) -> int:
        return int.from_bytes(self.raw(1), "big")

    def u32(self) -> int:
        return int.from_bytes(self.raw(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self.raw(8), "big")

    def raw(self, length: int) -> memoryview:
        if length > self.remaining:
            raise DecodeError(f"the message ends {length - self.remaining} bytes too early")
        piece = self._view[self._at : self._at + length]
        self._at += length
        return piece

    def blob(self, *, limit: int) -> memoryview:
        length = self.u32()
        if length > limit:
            raise DecodeError(f"a field of {length} bytes; at most {limit} can be right here")
        return self.raw(length)

    def count(self, *, limit: int, item_bytes: int) -> int:
        """A u32 list count, refused when it exceeds ``limit`` or the bytes that are left."""
        n = self.u32()
        if n > limit or n * item_bytes > self.remaining:
            raise DecodeError(
                f"a list of {n} items; at most {min(limit, self.remaining // item_bytes)} can be right here"
            )
        return n

    def end(self) -> None:
        if self.remaining:
            raise DecodeError(f"{self.remaining} bytes are left over after the message")
