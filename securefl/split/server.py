"""The server's role towards one client: bytes in, bytes out. SPEC: protocols/split/SPEC.md §4.

The body stands behind the engine and may serve many clients; *when* its parameters move is the caller's affair
(``training``: after each batch, or after a batch of every client).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.errors import FaultyClientError
from securefl.machine import Machine, Send, TransitionTable
from securefl.split.engine import Rows, ServerEngine, float32_rows
from securefl.split.messages import (
    ACTIVATIONS,
    GRADIENT,
    INPUT_GRADIENT,
    LABELLED,
    OUTPUTS,
    PROBE,
    PROTOCOL,
    SETUP,
    WEIGHT_GRADIENT,
    Batch,
    SplitContext,
    decode_batch,
    encode_batch,
)
from securefl.types import SERVER
from securefl.wire import Buffer, Envelope, open_frame, seal_frame

__all__ = ["BatchDone", "LossEngine", "SplitServer", "WeightsIn"]


class LossEngine(ServerEngine, Protocol):
    """A server engine that has the loss as well: plain split learning without a head."""

    def learn(self, payload: Buffer, labels: NDArray[np.int64]) -> tuple[float, bytes]:
        """(sum of the losses, the gradient at the activations); the body's gradient is accumulated."""
        ...


@dataclass(frozen=True, slots=True)
class BatchDone:
    """A batch went forward and backward. ``examples``: its size."""

    examples: int


@dataclass(frozen=True, slots=True)
class WeightsIn:
    """A released weight gradient: float32[O, F + 1], the sum over about ``examples`` examples."""

    gradient: Rows = field(repr=False)
    examples: int


Event: TypeAlias = Send | BatchDone | WeightsIn


class State(Enum):
    NEW = auto()
    READY = auto()
    GRADIENT = auto()


_NAMES = {SETUP: "SETUP", ACTIVATIONS: "ACTIVATIONS", LABELLED: "LABELLED", PROBE: "PROBE", GRADIENT: "GRADIENT"}
_NAMES[WEIGHT_GRADIENT] = "WEIGHT_GRADIENT"


class SplitServer(Machine):
    """Answers one client. A frame that does not fit raises :class:`FaultyClientError` and changes nothing."""

    TRANSITIONS: ClassVar[TransitionTable] = {
        State.NEW: {"SETUP": State.READY},
        State.READY: {
            "ACTIVATIONS": State.GRADIENT,
            "LABELLED": State.READY,
            "PROBE": State.READY,
            "WEIGHT_GRADIENT": State.READY,
        },
        State.GRADIENT: {"GRADIENT": State.READY},
    }
    INITIAL = State.NEW

    def __init__(self, context: SplitContext, engine: ServerEngine) -> None:
        super().__init__()
        self._context, self._engine, self._hash = context, engine, context.hash
        self._limits = context.to_server(engine.limits)
        self._step = 0
        self._batch = 0

    def start(self) -> Sequence[Event]:
        """Nothing is sent before the client's set-up."""
        return ()

    def receive(self, frame: bytes) -> Sequence[Event]:
        envelope = open_frame(frame, protocol=PROTOCOL, context=self._hash, recipient=SERVER, limits=self._limits)
        if envelope.sender != self._context.client:
            raise FaultyClientError(f"party {envelope.sender} is not this session's client", [envelope.sender])
        trigger = _NAMES[envelope.kind]
        if trigger not in self.TRANSITIONS[self.state]:
            raise FaultyClientError(f"{trigger} does not come in state {self.state.name}", [envelope.sender])
        handler: Callable[[Envelope], Sequence[Event]] = getattr(self, f"_on_{trigger.lower()}")
        events = handler(envelope)
        self._advance(trigger)
        return events

    def _on_setup(self, envelope: Envelope) -> Sequence[Event]:
        self._engine.setup(envelope.body)
        return ()

    def _on_activations(self, envelope: Envelope) -> Sequence[Event]:
        message = self._next(envelope)
        answer = self._engine.forward(message.payload, message.batch, train=True)
        return [self._reply(OUTPUTS, message, answer)]

    def _on_probe(self, envelope: Envelope) -> Sequence[Event]:
        message = self._next(envelope)
        answer = self._engine.forward(message.payload, message.batch, train=False)
        return [self._reply(OUTPUTS, message, answer)]

    def _on_labelled(self, envelope: Envelope) -> Sequence[Event]:
        engine = self._engine
        if self._context.classes == 0 or not hasattr(engine, "learn"):
            raise FaultyClientError("labels do not come in the U shape", [envelope.sender])
        message = decode_batch(envelope.body, self._context, step=self._step + 1, labelled=True)
        loss, answer = engine.learn(message.payload, message.labels)
        return [self._reply(INPUT_GRADIENT, message, answer, loss), BatchDone(message.batch)]

    def _on_gradient(self, envelope: Envelope) -> Sequence[Event]:
        message = decode_batch(envelope.body, self._context, step=self._step)
        if message.batch != self._batch:
            raise FaultyClientError("the gradient is for another number of examples", [envelope.sender])
        answer = self._engine.backward(message.payload, message.batch)
        return [self._reply(INPUT_GRADIENT, message, answer), BatchDone(message.batch)]

    def _on_weight_gradient(self, envelope: Envelope) -> Sequence[Event]:
        message = decode_batch(envelope.body, self._context, step=self._step)
        width = self._context.activations + 1
        rows = float32_rows(message.payload, self._context.outputs, width, "weight gradient")
        return [WeightsIn(rows, message.batch)]

    def _next(self, envelope: Envelope) -> Batch:
        if self._context.classes and envelope.kind == ACTIVATIONS:
            raise FaultyClientError("in this session activations come with labels", [envelope.sender])
        return decode_batch(envelope.body, self._context, step=self._step + 1)

    def _reply(self, kind: int, message: Batch, payload: bytes, loss: float | None = None) -> Send:
        self._step, self._batch = message.step, message.batch
        body = encode_batch(Batch(message.step, message.batch, payload, loss=loss))
        return Send(self._context.client, seal_frame(PROTOCOL, kind, self._hash, SERVER, self._context.client, body))
