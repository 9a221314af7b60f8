"""Vectors of the transport: frame headers and HELLO. SPEC: protocols/transport/SPEC.md §3, §4."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from securefl.audit.checks import Case, Check, expect, refused
from securefl.transport.tls.frames import Hello, Kind, header, parse_header

__all__ = ["CHECKS"]


def _header(case: Case) -> None:
    limits = {Kind(int(kind)): limit for kind, limit in case.params["limits"].items()}
    data = case.bytes("data")
    if case.error is not None:
        refused(case.error, lambda: parse_header(data, limits))
        return
    kind, length = parse_header(data, limits)
    expect("kind and length", (kind.value, length), (case.expected["kind"], case.expected["length"]))
    expect("the header", header(kind, length), data)


def _hello(case: Case) -> None:
    body = case.bytes("body")
    if case.error is not None:
        refused(case.error, lambda: Hello.decode(body))
        return
    hello = Hello.decode(body)
    found = {"sender": hello.sender, "recipient": hello.recipient, "context": hello.context.hex()}
    expect("the fields", found, dict(case.expected))
    expect("the body", hello.encode(), body)


CHECKS: Final[Mapping[str, Check]] = {"header": _header, "hello": _hello}
