"""Vectors of the wire format: frames and fields. SPEC: protocols/wire/SPEC.md §2, §3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from securefl.audit.checks import Case, Check, expect, refused
from securefl.types import PartyId
from securefl.wire import HEADER_BYTES, Envelope, Reader, Writer, body_length, open_frame, seal_frame

__all__ = ["CHECKS"]


def _frame(case: Case) -> None:
    params = case.params
    context, recipient = bytes.fromhex(params["context"]), PartyId(params["recipient"])
    limits = {int(kind): limit for kind, limit in params["limits"].items()}

    def opened(frame: bytes) -> Envelope:
        return open_frame(frame, protocol=params["protocol"], context=context, recipient=recipient, limits=limits)

    if case.error is not None:
        refused(case.error, lambda: opened(case.bytes("frame")))
        return
    kind, sender, body = case.input["kind"], PartyId(case.input["sender"]), case.bytes("body")
    frame = bytes.fromhex(case.expected["frame"])
    parts = (body[:1], memoryview(body[1:]))  # the body may come in pieces
    expect("the frame", seal_frame(params["protocol"], kind, context, sender, recipient, *parts), frame)
    envelope = opened(frame)
    expect("the envelope", (envelope.kind, envelope.sender, bytes(envelope.body)), (kind, sender, body))
    expect("the body length in the header", body_length(frame[:HEADER_BYTES], limits=limits), len(body))


def _fields(case: Case) -> None:
    layout: list[str] = case.params["layout"]
    body = case.bytes("body")
    if case.error is not None:
        refused(case.error, lambda: _read(layout, body))
        return
    fields = case.expected["fields"]
    expect("the fields", _read(layout, body), fields)
    expect("the body", _written(layout, fields), body)


def _read(layout: list[str], body: bytes) -> list[Any]:
    reader = Reader(body)
    fields: list[Any] = []
    for item in layout:
        kind, *sizes = item.split()
        if kind == "u8":
            fields.append(reader.u8())
        elif kind == "u32":
            fields.append(reader.u32())
        elif kind == "u64":
            fields.append(str(reader.u64()))
        elif kind == "raw":
            fields.append(bytes(reader.raw(int(sizes[0]))).hex())
        elif kind == "blob":
            fields.append(bytes(reader.blob(limit=int(sizes[0]))).hex())
        else:
            count = reader.count(limit=int(sizes[0]), item_bytes=int(sizes[1]))
            fields.append([reader.u32() for _ in range(count)])
    reader.end()
    return fields


def _written(layout: list[str], fields: list[Any]) -> bytes:
    writer = Writer()
    for item, value in zip(layout, fields, strict=True):
        kind, *sizes = item.split()
        if kind == "u8":
            writer.u8(value)
        elif kind == "u32":
            writer.u32(value)
        elif kind == "u64":
            writer.u64(int(value))
        elif kind == "raw":
            writer.raw(bytes.fromhex(value), int(sizes[0]))
        elif kind == "blob":
            writer.blob(bytes.fromhex(value))
        else:
            writer.u32(len(value))
            for entry in value:
                writer.u32(entry)
    return writer.done()


CHECKS: Final[Mapping[str, Check]] = {"frame": _frame, "fields": _fields}
