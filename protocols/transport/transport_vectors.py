"""The vectors of the transport, made by transport_ref."""

from __future__ import annotations

from typing import Any

import transport_ref as ref
from transport_ref import DecodeError, header, hello, parse_header, parse_hello

CONTEXT = bytes(range(32))
OPEN = {ref.DATA: 1000, ref.CLOSE: 0, ref.FAIL: 512}


def files() -> dict[str, Any]:
    return {"vectors/headers.json": headers(), "vectors/hello.json": hellos()}


def blocks() -> dict[str, str]:
    return {}


def refused(name: str, comment: str, origin: str, given: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "comment": comment, "derived_from": origin, "input": given, "error": {"type": "DecodeError"}}


def headers() -> dict[str, Any]:
    good = {
        "data": ("a message", header(ref.DATA, 258), ref.DATA, 258),
        "data-longest": ("as long as agreed", header(ref.DATA, 1000), ref.DATA, 1000),
        "data-empty": ("an empty message", header(ref.DATA, 0), ref.DATA, 0),
        "close": ("the end", header(ref.CLOSE, 0), ref.CLOSE, 0),
        "fail": ("a reason", header(ref.FAIL, 512), ref.FAIL, 512),
    }
    bad = {
        "kind-zero": ("kind 0", header(0, 258)),
        "kind-unknown": ("kind 7", header(7, 258)),
        "kind-not-now": ("a HELLO on an open link", header(ref.HELLO, 100)),
        "beyond-limit": ("one byte more than agreed", header(ref.DATA, 1001)),
        "close-with-body": ("CLOSE has no body", header(ref.CLOSE, 1)),
        "length-huge": ("2^56 − 1 bytes", header(ref.DATA, 2**56 - 1)),
    }
    tests = []
    for name, (comment, data, kind, length) in good.items():
        if parse_header(data, OPEN) != (kind, length):
            raise AssertionError(name)
        expected = {"kind": kind, "length": length}
        tests.append({"id": name, "comment": comment, "input": {"data": data.hex()}, "expected": expected})
    for name, (comment, data) in bad.items():
        try:
            parse_header(data, OPEN)
        except DecodeError:
            tests.append(refused(name, comment, "headers.json#data", {"data": data.hex()}))
        else:
            raise AssertionError(name)
    return {
        "spec": "protocols/transport/SPEC.md §3",
        "description": "input.data, eight bytes, under params.limits (largest length by kind) is expected, or refused.",
        "groups": [
            {"operation": "header", "params": {"limits": {str(k): v for k, v in OPEN.items()}}, "tests": tests},
        ],
    }


def hellos() -> dict[str, Any]:
    base = hello("server-0", "helper", CONTEXT)
    good = {
        "hello": ("two parties", "server-0", "helper", CONTEXT),
        "shortest-names": ("one character each", "a", "0", bytes(32)),
        "longest-names": ("63 characters each", "a" * 63, "b-" * 31 + "b", CONTEXT),
    }
    bad = {
        "empty": ("no bytes", b""),
        "cut-off": ("the last byte is missing", base[:-1]),
        "byte-left-over": ("one byte more", base + b"\0"),
        "magic-other": ("another protocol", b"S" + base[1:]),
        "version-other": ("version 2", base[:8] + b"\2" + base[9:]),
        "name-uppercase": ("Helper", hello("server-0", "Helper", CONTEXT)),
        "name-empty": ("no name", hello("", "helper", CONTEXT)),
        "name-with-dot": ("two labels", hello("server.0", "helper", CONTEXT)),
        "name-too-long": ("64 characters", hello("a" * 64, "helper", CONTEXT)),
        "name-not-ascii": ("a byte above 127", base[:-6] + b"help\xc3\xa9"),
    }
    tests = []
    for name, (comment, sender, recipient, context) in good.items():
        body = hello(sender, recipient, context)
        if parse_hello(body) != (sender, recipient, context):
            raise AssertionError(name)
        expected = {"sender": sender, "recipient": recipient, "context": context.hex()}
        tests.append({"id": name, "comment": comment, "input": {"body": body.hex()}, "expected": expected})
    for name, (comment, body) in bad.items():
        try:
            parse_hello(body)
        except DecodeError:
            tests.append(refused(name, comment, "hello.json#hello", {"body": body.hex()}))
        else:
            raise AssertionError(name)
    return {
        "spec": "protocols/transport/SPEC.md §4.1",
        "description": "input.body is the HELLO of expected, which encodes to it; or it is refused.",
        "groups": [{"operation": "hello", "params": {}, "tests": tests}],
    }
