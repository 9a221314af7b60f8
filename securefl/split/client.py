"""The client's role: bytes in, bytes out. SPEC: protocols/split/SPEC.md §4.

One object serves one session of any number of batches. What it sends in which state stands in ``TRANSITIONS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, FaultyServerError, InvalidInputError
from securefl.machine import Machine, Send, TransitionTable
from securefl.split.engine import ClientEngine, Rows, float32_bytes
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
from securefl.wire import open_frame, seal_frame

__all__ = ["GradientIn", "OutputsIn", "SplitClient"]


@dataclass(frozen=True, slots=True)
class OutputsIn:
    """The body's outputs arrived. ``rows``: float32[B, O]. ``train``: whether a gradient is due."""

    rows: Rows = field(repr=False)
    train: bool


@dataclass(frozen=True, slots=True)
class GradientIn:
    """The gradient at the activations arrived. ``rows``: float32[B, F]. ``loss``: where the server has it, the sum."""

    rows: Rows = field(repr=False)
    loss: float | None = None


Event: TypeAlias = Send | OutputsIn | GradientIn


class State(Enum):
    NEW = auto()
    READY = auto()
    FORWARD = auto()
    PROBE = auto()
    OUTPUTS = auto()
    BACKWARD = auto()


class SplitClient(Machine):
    """Sends activations and gradients as its engine encodes them.

    Between batches the state is READY. In the U shape a batch is ``forward`` → OUTPUTS → ``backward`` →
    INPUT_GRADIENT; where the server has the loss it is ``labelled`` → INPUT_GRADIENT. ``probe`` asks for outputs only.
    """

    TRANSITIONS: ClassVar[TransitionTable] = {
        State.NEW: {"start": State.READY},
        State.READY: {
            "forward": State.FORWARD,
            "labelled": State.BACKWARD,
            "probe": State.PROBE,
            "release": State.READY,
        },
        State.FORWARD: {"OUTPUTS": State.OUTPUTS},
        State.PROBE: {"OUTPUTS": State.READY},
        State.OUTPUTS: {"backward": State.BACKWARD},
        State.BACKWARD: {"INPUT_GRADIENT": State.READY},
    }
    INITIAL = State.NEW

    def __init__(self, context: SplitContext, engine: ClientEngine) -> None:
        super().__init__()
        self._context, self._engine, self._hash = context, engine, context.hash
        self._limits = context.to_client(engine.limits)
        self._step = 0
        self._batch = 0

    def start(self) -> Sequence[Event]:
        self._advance("start")
        return [self._send(SETUP, self._engine.setup())]

    def forward(self, activations: Rows) -> Sequence[Event]:
        """``activations``: float32[B, F]. Raises :class:`InvalidInputError`; the state is then as before."""
        self._needs_labels(False)
        return self._up("forward", ACTIVATIONS, activations)

    def probe(self, activations: Rows) -> Sequence[Event]:
        """Outputs without training, for evaluation."""
        return self._up("probe", PROBE, activations)

    def labelled(self, activations: Rows, labels: NDArray[np.int64]) -> Sequence[Event]:
        """Activations and labels, both for the server."""
        self._needs_labels(True)
        if labels.shape != (len(activations),) or labels.min() < 0 or labels.max() >= self._context.classes:
            raise InvalidInputError(f"labels are int64[batch] within 0 to {self._context.classes - 1}")
        return self._up("labelled", LABELLED, activations, labels)

    def backward(self, gradient: Rows) -> Sequence[Event]:
        """``gradient``: float32[B, O], of the sum of the examples' losses at the body's outputs."""
        self._check("backward")
        if gradient.shape != (self._batch, self._context.outputs):
            raise InvalidInputError(f"the gradient must have shape {(self._batch, self._context.outputs)}")
        payload = self._engine.gradient(gradient)
        self._advance("backward")
        return [self._send(GRADIENT, encode_batch(Batch(self._step, self._batch, payload)))]

    def release(self, gradient: Rows, examples: int) -> Sequence[Event]:
        """A weight gradient that may be seen: float32[O, F + 1], clipped and noised, of about ``examples`` examples.

        The last column is the bias. Pre-condition: the caller has charged it.
        """
        self._check("release")
        if gradient.shape != (self._context.outputs, self._context.activations + 1):
            raise InvalidInputError("a weight gradient has one row per output, one column per activation and the bias")
        body = encode_batch(Batch(self._step, examples, float32_bytes(gradient)))
        return [self._send(WEIGHT_GRADIENT, body)]

    def receive(self, frame: bytes) -> Sequence[Event]:
        envelope = open_frame(
            frame, protocol=PROTOCOL, context=self._hash, recipient=self._context.client, limits=self._limits
        )
        if envelope.sender != SERVER:
            raise FaultyServerError("a split-learning client is answered by the server only")
        trigger = "OUTPUTS" if envelope.kind == OUTPUTS else "INPUT_GRADIENT"
        if trigger not in self.TRANSITIONS[self.state]:
            raise FaultyServerError(f"the server sent {trigger} to a client in state {self.state.name}")
        with_loss = envelope.kind == INPUT_GRADIENT and self._context.classes > 0
        message = decode_batch(envelope.body, self._context, step=self._step, with_loss=with_loss)
        if message.batch != self._batch:
            raise FaultyServerError(f"the server answered for {message.batch} examples, {self._batch} were sent")
        event: Event
        if envelope.kind == OUTPUTS:
            event = OutputsIn(self._engine.outputs(message.payload, self._batch), self.state is State.FORWARD)
        else:
            event = GradientIn(self._engine.input_gradient(message.payload, self._batch), message.loss)
        self._advance(trigger)
        return [event]

    def _needs_labels(self, wanted: bool) -> None:
        if wanted != (self._context.classes > 0):
            raise ConfigurationError("labels go to the server exactly where the session has classes (no U shape)")

    def _up(self, trigger: str, kind: int, rows: Rows, labels: NDArray[np.int64] | None = None) -> Sequence[Event]:
        self._check(trigger)
        if len(rows) > self._context.max_batch:
            raise InvalidInputError(
                f"a batch of {len(rows)} examples is larger than the packing of {self._context.max_batch}: split it, "
                "or raise batch_size when the session is made"
            )
        payload = self._engine.activations(rows)
        self._advance(trigger)
        self._step, self._batch = self._step + 1, len(rows)
        return [self._send(kind, encode_batch(Batch(self._step, self._batch, payload, labels)))]

    def _send(self, kind: int, body: bytes) -> Send:
        return Send(SERVER, seal_frame(PROTOCOL, kind, self._hash, self._context.client, SERVER, body))
