"""Reference for protocols/transport/SPEC.md §3 and §4.1: frame headers and HELLO. No code of securefl/."""

from __future__ import annotations

import re

HELLO, ACK, REFUSE, DATA, CLOSE, FAIL = range(1, 7)
MAGIC, VERSION = b"securefl", 1
NAME = re.compile(rb"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class DecodeError(Exception):
    """Bytes that cannot be right."""


def need(condition: bool, why: str) -> None:
    if not condition:
        raise DecodeError(why)


def header(kind: int, length: int) -> bytes:
    return bytes([kind]) + length.to_bytes(7, "big")


def parse_header(data: bytes, limits: dict[int, int]) -> tuple[int, int]:
    kind, length = data[0], int.from_bytes(data[1:8], "big")
    need(kind in limits, "a kind that cannot come now")
    need(length <= limits[kind], "longer than this kind can be")
    return kind, length


def hello(sender: str, recipient: str, context: bytes) -> bytes:
    names = b"".join(len(name).to_bytes(4, "big") + name.encode() for name in (sender, recipient))
    return MAGIC + bytes([VERSION]) + context + names


def parse_hello(body: bytes) -> tuple[str, str, bytes]:
    """``(sender, recipient, context)``."""
    need(len(body) >= 41, "cut off")
    need(body[:8] == MAGIC and body[8] == VERSION, "another protocol or version")
    names, rest = [], body[41:]
    for _ in range(2):
        need(len(rest) >= 4, "cut off")
        size = int.from_bytes(rest[:4], "big")
        need(size <= 63 and len(rest) >= 4 + size, "cut off, or too long")
        name, rest = rest[4 : 4 + size], rest[4 + size :]
        need(NAME.fullmatch(name) is not None, "not a name")
        names.append(name.decode())
    need(not rest, "bytes are left over")
    return names[0], names[1], body[9:41]
