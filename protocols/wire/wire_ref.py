"""Reference for protocols/wire/SPEC.md: frames and fields. Clarity before speed; shares no code with securefl/."""

from __future__ import annotations

import struct

from Crypto.Cipher import AES

HEADER = struct.Struct(">BBBBIIIQ32s")  # protocol, version, kind, 0, sender, recipient, 0, length, context
VERSION = 1


class DecodeError(Exception):
    """Bytes that are no message of this protocol."""


def need(condition: bool, why: str) -> None:
    if not condition:
        raise DecodeError(why)


def checksum(covered: bytes) -> bytes:
    """SPEC §2.2: the AES-128-GCM tag of ``covered`` as associated data, key and nonce all zero."""
    return AES.new(bytes(16), AES.MODE_GCM, nonce=bytes(12)).update(covered).digest()


def seal_frame(protocol: int, kind: int, context: bytes, sender: int, recipient: int, body: bytes) -> bytes:
    """SPEC §2."""
    covered = HEADER.pack(protocol, VERSION, kind, 0, sender, recipient, 0, len(body), context) + body
    return covered + checksum(covered)


def open_frame(
    frame: bytes, protocol: int, context: bytes, recipient: int, limits: dict[int, int]
) -> tuple[int, int, bytes]:
    """``(kind, sender, body)``. SPEC §2; the checks in the order of the table there."""
    need(len(frame) >= HEADER.size + 16, "shorter than header and checksum")
    proto, version, kind, zero, sender, to, zeros, length, ctx = HEADER.unpack(frame[: HEADER.size])
    need(kind in limits, "a kind that does not come here")
    need(length <= limits[kind], "longer than this kind can be")
    need(length == len(frame) - HEADER.size - 16, "the announced length is not the length")
    need((proto, version, zero, zeros) == (protocol, VERSION, 0, 0), "another protocol or version")
    need(checksum(frame[:-16]) == frame[-16:], "wrong checksum")
    need(ctx == context, "another session, round, parameter set or model")
    need(to == recipient, "addressed to another party")
    return kind, sender, frame[HEADER.size : -16]


class Fields:
    """Takes a body apart, SPEC §3. ``uint`` and ``raw`` at the front, ``end`` when nothing may be left."""

    def __init__(self, data: bytes) -> None:
        self.data = bytes(data)

    def raw(self, size: int) -> bytes:
        need(size <= len(self.data), "the message ends too early")
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def uint(self, size: int) -> int:
        return int.from_bytes(self.raw(size), "big")

    def blob(self, limit: int) -> bytes:
        size = self.uint(4)
        need(size <= limit, "a field longer than it can be")
        return self.raw(size)

    def count(self, limit: int, item_bytes: int) -> int:
        """The count before a list: at most ``limit``, and the bytes for so many items are there."""
        items = self.uint(4)
        need(items <= limit and items * item_bytes <= len(self.data), "a list longer than it can be")
        return items

    def end(self) -> None:
        need(not self.data, "bytes are left over")
