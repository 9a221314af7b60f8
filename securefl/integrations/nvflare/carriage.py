"""Frames in NVFLARE's data exchange objects: arrays of bytes, which NVFLARE streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply

from securefl.errors import DecodeError, SecureFLError
from securefl.wire import Buffer

__all__ = [
    "COUNTED",
    "FRAMES",
    "HELLO",
    "INVITATION",
    "ME",
    "TASK",
    "dxo_in",
    "error_of",
    "frames_in",
    "refusal",
    "with_frames",
]

#: The protocol's own task, and fields of a task's meta data.
TASK: Final = "securefl"
FRAMES: Final = "securefl.frames"
INVITATION: Final = "invitation"
ME: Final = "me"
COUNTED: Final = "counted"
HELLO: Final = "hello"
ERROR: Final = "securefl.error"
MAX_FRAMES: Final = 2**17  # a helper has one for every client, and is sent one


def dxo_in(shareable: Shareable) -> DXO:
    """The data exchange object of a task or a result, its data a dict. Raises :class:`DecodeError` without one."""
    try:
        dxo = from_shareable(shareable)
    except (ValueError, TypeError, KeyError) as error:
        raise DecodeError(f"no data exchange object: {error}") from None
    if not isinstance(dxo.data, dict):
        raise DecodeError(f"a data exchange object of {type(dxo.data).__name__}; it must be a dict")
    return dxo


def with_frames(frames: Sequence[Buffer]) -> DXO:
    """What carries frames."""
    return DXO(DataKind.WEIGHT_DIFF, data={str(at): np.frombuffer(f, dtype=np.uint8) for at, f in enumerate(frames)})


def frames_in(data: Any) -> list[Buffer]:
    """The frames of such data. Raises :class:`DecodeError` for anything else."""
    if not isinstance(data, dict) or len(data) > MAX_FRAMES or set(data) != set(map(str, range(len(data)))):
        raise DecodeError("the frames of a message are not numbered from 0")
    frames: list[Buffer] = []
    for at in range(len(data)):
        array = data[str(at)]
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 1:
            raise DecodeError("a frame is an array of bytes")
        if array.size:  # a task without frames carries one empty array: NVFLARE sends no empty models
            frames.append(np.ascontiguousarray(array).data)
    return frames


def error_of(shareable: Shareable) -> str | None:
    """The sentence that a client left instead of an answer."""
    text = shareable.get_header(ERROR)
    return None if text is None else str(text)


def refusal(error: SecureFLError) -> Shareable:
    """An answer that says why there is none."""
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(ERROR, f"{type(error).__name__}: {error}")
    return reply
