"""The vectors of the wire format, made by wire_ref."""

from __future__ import annotations

from typing import Any

from wire_ref import DecodeError, Fields, checksum, open_frame, seal_frame

CONTEXT = bytes(range(32))
PARAMS = {"protocol": 1, "context": CONTEXT.hex(), "recipient": 7, "limits": {"3": 40, "5": 8}}
LIMITS = {3: 40, 5: 8}


def files() -> dict[str, dict[str, Any]]:
    return {"vectors/valid.json": valid(), "vectors/malformed.json": malformed(), "vectors/fields.json": fields()}


def blocks() -> dict[str, str]:
    return {}


def frame(kind: int = 3, body: bytes = b"body", sender: int = 9, **changes: int) -> bytes:
    values = {"protocol": 1, "context": CONTEXT, "recipient": 7, **changes}
    return seal_frame(values["protocol"], kind, values["context"], sender, values["recipient"], body)


def resealed(covered: bytes) -> bytes:
    """A forged frame whose checksum is right, so that only the one fault remains."""
    return covered + checksum(covered)


def valid() -> dict[str, Any]:
    cases = {
        "empty-body": ("a frame without a body", 3, b"", 9),
        "short-body": ("a few bytes", 3, b"body", 9),
        "one-block-and-one": ("17 bytes: one more than a block of the checksum", 3, bytes(range(17)), 9),
        "longest-body": ("exactly the limit of its kind", 3, bytes(range(40)), 9),
        "other-kind": ("another kind with a smaller limit", 5, bytes(8), 9),
        "from-the-server": ("party 0 is the server", 3, b"roster", 0),
        "highest-ids": ("the largest party id", 3, b"x", 2**32 - 1),
    }
    tests = []
    for name, (comment, kind, body, sender) in cases.items():
        bytes_ = frame(kind, body, sender)
        if open_frame(bytes_, 1, CONTEXT, 7, LIMITS) != (kind, sender, body):
            raise AssertionError(name)
        given = {"kind": kind, "sender": sender, "body": body.hex()}
        tests.append({"id": name, "comment": comment, "input": given, "expected": {"frame": bytes_.hex()}})
    return {
        "spec": "protocols/wire/SPEC.md §2",
        "description": (
            "Seal a frame of params.protocol from input.sender to params.recipient: it is expected.frame. Open "
            "expected.frame as params.recipient under params.limits (largest body by kind): it gives the input."
        ),
        "groups": [{"operation": "frame", "params": PARAMS, "tests": tests}],
    }


def malformed() -> dict[str, Any]:
    good = frame()
    covered = bytearray(good[:-16])

    def changed(at: int, value: int) -> bytes:
        copy = bytearray(covered)
        copy[at] = value
        return resealed(bytes(copy))

    cases = {
        "empty": ("no bytes at all", b""),
        "header-only": ("cut off after the header", good[:56]),
        "last-byte-missing": ("cut off before the last byte", good[:-1]),
        "byte-left-over": ("one byte after the checksum", good + b"\x00"),
        "kind-unknown": ("a kind that does not come here", changed(2, 4)),
        "kind-zero": ("kind 0", changed(2, 0)),
        "body-beyond-limit": ("one byte more than the kind's limit", frame(3, bytes(41))),
        "body-beyond-limit-of-its-kind": ("within another kind's limit, beyond its own", frame(5, bytes(9))),
        "length-too-small": ("announces one body byte less than there are", changed(23, 3)),
        "length-too-large": ("announces one body byte more than there are", changed(23, 5)),
        "length-huge": ("announces 2^63 bytes", changed(16, 0x80)),
        "protocol-other": ("a frame of protocol 2", frame(protocol=2)),
        "version-other": ("version 2", changed(1, 2)),
        "reserved-byte-set": ("the zero byte after the kind is 1", changed(3, 1)),
        "reserved-word-set": ("the zero word after the recipient is 1", changed(15, 1)),
        "checksum-flipped": ("one bit of the checksum", good[:-1] + bytes([good[-1] ^ 1])),
        "body-flipped": ("one bit of the body", good[:57] + bytes([good[57] ^ 0x10]) + good[58:]),
        "sender-flipped": ("one bit of the sender", good[:7] + bytes([good[7] ^ 1]) + good[8:]),
        "context-other": ("another session, round, parameter set or model", frame(context=CONTEXT[::-1])),
        "recipient-other": ("addressed to party 8", frame(recipient=8)),
    }
    tests = []
    for name, (comment, bytes_) in cases.items():
        try:
            open_frame(bytes_, 1, CONTEXT, 7, LIMITS)
        except DecodeError:
            tests.append(refused(name, comment, "valid.json#short-body", {"frame": bytes_.hex()}))
        else:
            raise AssertionError(name)
    return {
        "spec": "protocols/wire/SPEC.md §2",
        "description": (
            "Opening input.frame as params.recipient under params.limits is refused. Each frame has one fault; "
            "derived_from is the frame before. Checksums are right unless they are the fault."
        ),
        "groups": [{"operation": "frame", "params": PARAMS, "tests": tests}],
    }


LAYOUT = ["u8", "u32", "u64", "raw 3", "blob 8", "list 2 4"]


def fields() -> dict[str, Any]:
    def body(blob: bytes = b"abc", blob_size: int | None = None, items: tuple[int, ...] = (5, 6)) -> bytes:
        size = len(blob) if blob_size is None else blob_size
        head = b"\xff" + (2**32 - 1).to_bytes(4, "big") + (2**64 - 1).to_bytes(8, "big") + b"raw"
        listed = len(items).to_bytes(4, "big") + b"".join(item.to_bytes(4, "big") for item in items)
        return head + size.to_bytes(4, "big") + blob + listed

    good = body()
    tests: list[dict[str, Any]] = []
    for name, comment, blob, items in (
        ("all-fields", "every kind of field once", b"abc", (5, 6)),
        ("empty-blob-and-list", "the shortest body of this layout", b"", ()),
        ("longest-blob", "a blob of exactly its limit", b"12345678", (1,)),
    ):
        values = [255, 2**32 - 1, str(2**64 - 1), b"raw".hex(), blob.hex(), list(items)]
        tests.append(
            {
                "id": name,
                "comment": comment,
                "input": {"body": body(blob, items=items).hex()},
                "expected": {"fields": values},
            }
        )
    for name, comment, bytes_ in (
        ("body-empty", "no bytes", b""),
        ("integer-cut-off", "ends inside the u64", good[:9]),
        ("raw-cut-off", "ends inside the fixed bytes", good[:15]),
        ("blob-beyond-limit", "a blob of 9 bytes where 8 can be", body(b"123456789")),
        ("blob-cut-off", "a blob that announces more than there is", body(blob_size=8, items=())),
        ("list-beyond-limit", "three items where two can be", body(items=(5, 6, 7))),
        ("list-cut-off", "announces two items and carries one", good[:-4]),
        ("bytes-left-over", "one byte after the last field", good + b"\x00"),
    ):
        tests.append(refused(name, comment, "fields.json#all-fields", {"body": bytes_.hex()}))
    for test in tests:
        given = bytes.fromhex(test["input"]["body"])
        try:
            assert read(given) == test["expected"]["fields"], test["id"]
        except DecodeError:
            assert "error" in test, test["id"]
    return {
        "spec": "protocols/wire/SPEC.md §3",
        "description": (
            "input.body, taken apart by params.layout, gives expected.fields, and these written give input.body; "
            "or it is refused. 'raw n': n bytes. 'blob n': at most n bytes after a u32 length. 'list n 4': at "
            "most n integers u32 after a u32 count."
        ),
        "groups": [{"operation": "fields", "params": {"layout": LAYOUT}, "tests": tests}],
    }


def read(body: bytes) -> list[Any]:
    source = Fields(body)
    values = [source.uint(1), source.uint(4), str(source.uint(8)), source.raw(3).hex(), source.blob(8).hex()]
    values.append([source.uint(4) for _ in range(source.count(2, 4))])
    source.end()
    return values


def refused(name: str, comment: str, base: str, given: dict[str, Any], error: str = "DecodeError") -> dict[str, Any]:
    return {"id": name, "comment": comment, "derived_from": base, "input": given, "error": {"type": error}}
