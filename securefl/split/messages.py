"""The messages of a split-learning session. SPEC: protocols/split/SPEC.md §3.

Bodies, big-endian: ``step`` u64, ``batch`` u32, then what the kind says. The payload's meaning is the mode's; its size
is bounded by the session's context before a byte of it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, DecodeError
from securefl.machine import MAX_SESSION_BYTES
from securefl.primitives.kdf import Label, tuple_hash
from securefl.split.engine import PayloadLimits
from securefl.types import PartyId
from securefl.wire import Buffer, Reader, Writer

__all__ = [
    "ACTIVATIONS",
    "GRADIENT",
    "INPUT_GRADIENT",
    "LABELLED",
    "MAX_BATCH",
    "OUTPUTS",
    "PROBE",
    "PROTOCOL",
    "SETUP",
    "WEIGHT_GRADIENT",
    "Batch",
    "SplitContext",
    "decode_batch",
    "encode_batch",
]

PROTOCOL: Final = 6
#: client → server
SETUP: Final = 1
ACTIVATIONS: Final = 2
LABELLED: Final = 3
PROBE: Final = 4
GRADIENT: Final = 5
WEIGHT_GRADIENT: Final = 6
#: server → client
OUTPUTS: Final = 7
INPUT_GRADIENT: Final = 8

MAX_BATCH: Final = 1 << 16
#: step, batch, loss: what stands before labels and payload at most.
_HEAD_BYTES: Final = 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class SplitContext:
    """What both sides must agree on; its hash stands in every frame.

    ``session``: 1 to 64 bytes naming the run. ``client``: its id, from 1. ``mode``: the protection's name and
    parameters, as text. ``activations``, ``outputs``: F and O, values per example. ``max_batch``: largest batch.
    ``classes``: number of labels where the server has the loss, 0 in the U shape (labels stay with the client).
    """

    session: bytes
    client: PartyId
    mode: str
    activations: int
    outputs: int
    max_batch: int
    classes: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.session) <= MAX_SESSION_BYTES:
            raise ConfigurationError(f"a session name has 1 to {MAX_SESSION_BYTES} bytes, got {len(self.session)}")
        if not 0 < self.client < 2**32:
            raise ConfigurationError("client ids lie within 1 to 2**32 - 1")
        if not 1 <= self.max_batch <= MAX_BATCH:
            raise ConfigurationError(f"batches have 1 to {MAX_BATCH} examples, not {self.max_batch}")
        if min(self.activations, self.outputs) < 1:
            raise ConfigurationError("a cut has at least one value on either side of the body")

    @property
    def hash(self) -> bytes:
        """32 bytes over all fields."""
        numbers = (self.client, self.activations, self.outputs, self.max_batch, self.classes)
        return tuple_hash(
            Label.SPLIT_CONTEXT, self.session, self.mode.encode(), *(number.to_bytes(8, "big") for number in numbers)
        )

    def to_server(self, limits: PayloadLimits) -> dict[int, int]:
        """Largest body per kind of message to the server."""
        labels = 4 * self.max_batch
        return {
            SETUP: limits.setup,
            ACTIVATIONS: _HEAD_BYTES + limits.activations,
            LABELLED: _HEAD_BYTES + labels + limits.activations,
            PROBE: _HEAD_BYTES + limits.activations,
            GRADIENT: _HEAD_BYTES + limits.gradient,
            WEIGHT_GRADIENT: _HEAD_BYTES + 4 * (self.activations + 1) * self.outputs,
        }

    def to_client(self, limits: PayloadLimits) -> dict[int, int]:
        """Largest body per kind of message to the client."""
        return {OUTPUTS: _HEAD_BYTES + limits.outputs, INPUT_GRADIENT: _HEAD_BYTES + limits.input_gradient}


@dataclass(frozen=True, slots=True)
class Batch:
    """One message about one batch. ``labels``: int64[batch] or none. ``loss``: sum over the examples, or none."""

    step: int
    batch: int
    payload: Buffer = field(repr=False)
    labels: NDArray[np.int64] | None = field(default=None, repr=False)
    loss: float | None = None


def encode_batch(message: Batch) -> bytes:
    """SPEC split §3."""
    writer = Writer().u64(message.step).u32(message.batch)
    if message.labels is not None:
        writer.raw(message.labels.astype(">u4").tobytes(), 4 * message.batch)
    if message.loss is not None:
        writer.raw(np.array(message.loss, ">f8").tobytes(), 8)
    return writer.raw(message.payload, memoryview(message.payload).nbytes).done()


def decode_batch(
    body: Buffer, context: SplitContext, *, step: int, labelled: bool = False, with_loss: bool = False
) -> Batch:
    """SPEC split §3. Raises :class:`DecodeError` for another step than ``step``, sizes and labels out of range."""
    reader = Reader(body)
    found, batch = reader.u64(), reader.u32()
    if found != step:
        raise DecodeError(f"the message is about step {found}; step {step} is under way")
    if not 1 <= batch <= context.max_batch:
        raise DecodeError(f"a batch of {batch} examples; 1 to {context.max_batch} can be right here")
    labels = loss = None
    if labelled:
        labels = np.frombuffer(reader.raw(4 * batch), ">u4").astype(np.int64)
        if labels.max() >= context.classes:
            raise DecodeError(f"labels lie in 0 to {context.classes - 1}")
    if with_loss:
        loss = float(np.frombuffer(reader.raw(8), ">f8")[0])
        if not np.isfinite(loss):
            raise DecodeError("the loss is not a finite number")
    return Batch(step, batch, reader.raw(reader.remaining), labels, loss)
