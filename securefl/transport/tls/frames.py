"""Frames between two parties, without IO. SPEC: protocols/transport/SPEC.md §3, §4.

    header 8 bytes: kind u8 ‖ length u56, big-endian      body: length bytes

The length is checked against what can be right before the body is read or allocated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from securefl.errors import ConfigurationError, DecodeError
from securefl.wire import Buffer, Reader, Writer

__all__ = [
    "HEADER_BYTES",
    "HELLO_LIMIT",
    "MAX_LENGTH",
    "NOTICE_LIMIT",
    "Hello",
    "Kind",
    "check_name",
    "decode_notice",
    "encode_notice",
    "header",
    "parse_header",
]

VERSION: Final = 1
MAGIC: Final = b"securefl"
HEADER_BYTES: Final = 8
#: The largest length that the header can say.
MAX_LENGTH: Final = 2**56 - 1
CONTEXT_BYTES: Final = 32
MAX_NAME_BYTES: Final = 63
#: Largest body of a HELLO: all that is read of a peer before it is known.
HELLO_LIMIT: Final = len(MAGIC) + 1 + CONTEXT_BYTES + 2 * (4 + MAX_NAME_BYTES)
#: Largest body of a notice (REFUSE, FAIL).
NOTICE_LIMIT: Final = 512

# One DNS label [RFC 1035 §2.3.1], so that TLS itself compares it with the certificate's SAN.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class Kind(IntEnum):
    """Frame numbers on the wire."""

    HELLO = 1
    ACK = 2
    REFUSE = 3
    DATA = 4
    CLOSE = 5
    FAIL = 6


def check_name(name: str) -> str:
    """``name`` itself. Raises :class:`ConfigurationError` unless it is one lowercase DNS label (1 to 63 bytes)."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"a party's name has 1 to {MAX_NAME_BYTES} of a-z, 0-9 and inner hyphens, got {name!r}"
        )
    return name


def header(kind: Kind, length: int) -> bytes:
    """The 8 bytes before a body of ``length`` bytes. Precondition: 0 <= length <= MAX_LENGTH."""
    return (kind << 56 | length).to_bytes(HEADER_BYTES, "big")


def parse_header(data: Buffer, limits: Mapping[Kind, int]) -> tuple[Kind, int]:
    """Kind and length of the frame that begins with these 8 bytes.

    ``limits``: the kinds that can come now, each with its largest length. Raises :class:`DecodeError` for others.
    """
    word = int.from_bytes(data, "big")
    kind, length = word >> 56, word & MAX_LENGTH
    if kind not in limits:
        raise DecodeError(f"a frame of kind {kind} does not come here")
    if length > limits[Kind(kind)]:
        raise DecodeError(f"the frame announces {length} bytes; at most {limits[Kind(kind)]} can be right here")
    return Kind(kind), length


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks to whom about what. SPEC §4. ``context``: 32 bytes that both sides must have alike."""

    sender: str
    recipient: str
    context: bytes

    def encode(self) -> bytes:
        """49 bytes and the two names."""
        writer = Writer().raw(MAGIC, len(MAGIC)).u8(VERSION).raw(self.context, CONTEXT_BYTES)
        return writer.blob(self.sender.encode("ascii")).blob(self.recipient.encode("ascii")).done()

    @classmethod
    def decode(cls, body: Buffer) -> Hello:
        """Raises :class:`DecodeError` unless ``body`` is a whole HELLO of this version."""
        reader = Reader(body)
        if bytes(reader.raw(len(MAGIC))) != MAGIC:
            raise DecodeError("the peer does not speak this protocol")
        version = reader.u8()
        if version != VERSION:
            raise DecodeError(f"the peer speaks version {version} of the transport, this is version {VERSION}")
        context = bytes(reader.raw(CONTEXT_BYTES))
        names = [_ascii(reader.blob(limit=MAX_NAME_BYTES)) for _ in range(2)]
        reader.end()
        return cls(names[0], names[1], context)


def _ascii(piece: memoryview) -> str:
    try:
        return check_name(bytes(piece).decode("ascii"))
    except (UnicodeDecodeError, ConfigurationError):
        raise DecodeError("a HELLO carries something that is no party's name") from None


def encode_notice(text: str) -> bytes:
    """UTF-8 of at most NOTICE_LIMIT bytes, cut where needed."""
    return text.encode("utf-8", "replace")[:NOTICE_LIMIT]


def decode_notice(body: Buffer) -> str:
    """What a peer says of its failure: printable characters only, since it ends in terminals and logs."""
    text = bytes(body).decode("utf-8", "replace")
    return "".join(character if character.isprintable() else " " for character in text)
