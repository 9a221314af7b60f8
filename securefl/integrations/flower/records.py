"""Frames and tensors in Flower's records. Vectors travel as ArrayRecords, which Flower cuts into chunks."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from securefl.errors import DecodeError
from securefl.primitives.kdf import Label, tuple_hash
from securefl.wire import Buffer

__all__ = [
    "FRAMES",
    "KEY",
    "arguments_hash",
    "content_bytes",
    "frames_of",
    "put_frames",
    "tensors_of",
]

#: The record that makes a message one of ours, and the one that carries frames.
KEY: Final = "securefl"
FRAMES: Final = "securefl.frames"
MAX_FRAMES: Final = 2**17  # a helper has one for every client, and is sent one


def put_frames(content: RecordDict, frames: Sequence[Buffer]) -> None:
    """Add ``frames`` to ``content``, in order; nothing when there are none."""
    if frames:
        arrays = {str(at): Array(np.frombuffer(frame, dtype=np.uint8)) for at, frame in enumerate(frames)}
        content[FRAMES] = ArrayRecord(arrays)


def frames_of(content: RecordDict) -> list[Buffer]:
    """The frames in ``content``. Raises :class:`DecodeError` for a record that holds anything else."""
    record = content.array_records.get(FRAMES)
    if record is None:
        return []
    if len(record) > MAX_FRAMES or set(record) != set(map(str, range(len(record)))):
        raise DecodeError("the frames of a message are not numbered from 0")
    frames: list[Buffer] = []
    for at in range(len(record)):
        array = _numbers(record[str(at)], "a frame")
        if array.dtype != np.uint8 or array.ndim != 1:
            raise DecodeError("a frame is an array of bytes")
        frames.append(array.data)
    return frames


def content_bytes(content: RecordDict) -> int:
    """What a message's content weighs: the arrays' data and the other records as Flower serializes them."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    others = [*content.config_records.values(), *content.metric_records.values()]
    return arrays + sum(len(record.deflate()) for record in others)


def tensors_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Name → array, in the record's order. Raises :class:`DecodeError` for arrays that are none."""
    return {name: _numbers(array, "an array") for name, array in record.items()}


def _numbers(array: Array, what: str) -> NDArray[Any]:
    try:
        numbers: NDArray[Any] = array.numpy()
    except Exception as error:  # noqa: BLE001 - numpy's reader: tokens, zip files, memory that a header asks for, …
        raise DecodeError(f"{what} cannot be read: {error}") from None
    return numbers


def arguments_hash(records: Mapping[str, ConfigRecord]) -> bytes:
    """32 bytes over the configuration that the clients train with."""
    fields: list[bytes] = []
    for key in sorted(records):
        fields.append(key.encode())
        for name in sorted(records[key]):
            value = records[key][name]
            items = value if isinstance(value, list) else [value]
            fields += [name.encode(), type(value).__name__.encode(), str(len(items)).encode(), *map(_bytes, items)]
    return tuple_hash(Label.INVITATION, b"arguments", *fields)


def _bytes(value: object) -> bytes:
    if isinstance(value, float):
        return b"f" + struct.pack(">d", value)
    if isinstance(value, bytes):
        return b"b" + value
    return f"{type(value).__name__[0]}{value}".encode()
