"""The middle of the model as one client uses it, wherever it runs.

A batch is two exchanges in the U shape: activations → outputs, gradient → input gradient. :class:`Framed` makes them of
frames to one server, over any channel (a server in this process, a TLS link) and for every mode with an engine;
``shared`` has another that talks to computing parties.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.errors import FaultyServerError
from securefl.machine import Send
from securefl.split.client import GradientIn, OutputsIn, SplitClient
from securefl.split.engine import Rows

__all__ = ["Channel", "Framed", "Middle", "TransmittedBytes"]


class Channel(Protocol):
    """A way to the server and back. ``receive`` raises what ended the session."""

    def send(self, frame: bytes) -> None: ...
    def receive(self) -> bytes: ...


@dataclass
class TransmittedBytes:
    """Bytes that a client sent and was sent."""

    up: int = 0
    down: int = 0


class Middle(Protocol):
    """Rows to the body and back. Raises :class:`~securefl.errors.InvalidInputError` for rows that may not be sent."""

    traffic: TransmittedBytes

    def outputs(self, activations: Rows, *, train: bool) -> Rows:
        """The body's outputs, float32[B, O], for activations float32[B, F]; with ``train`` a gradient is due next."""
        ...

    def input_gradient(self, gradient: Rows) -> Rows:
        """float32[B, F] at the activations from float32[B, O] at the outputs, both of the sum of the losses."""
        ...

    def labelled(self, activations: Rows, labels: NDArray[np.int64]) -> tuple[float, Rows]:
        """Where the server has the loss: its sum over the batch, and the gradient at the activations."""
        ...

    def release(self, gradient: Rows, examples: int) -> None:
        """Send a weight gradient that may be seen (see :meth:`SplitClient.release`)."""
        ...


class Framed:
    """The body behind a channel to one server. ``role``: not yet started."""

    def __init__(self, role: SplitClient, channel: Channel) -> None:
        self.traffic = TransmittedBytes()
        self._role, self._channel = role, channel
        self._send(role.start())

    def outputs(self, activations: Rows, *, train: bool) -> Rows:
        self._send(self._role.forward(activations) if train else self._role.probe(activations))
        answer = self._receive()
        if not isinstance(answer, OutputsIn):
            raise FaultyServerError("the server owes the body's outputs")
        return answer.rows

    def input_gradient(self, gradient: Rows) -> Rows:
        self._send(self._role.backward(gradient))
        answer = self._receive()
        if not isinstance(answer, GradientIn):
            raise FaultyServerError("the server owes the gradient at the activations")
        return answer.rows

    def labelled(self, activations: Rows, labels: NDArray[np.int64]) -> tuple[float, Rows]:
        self._send(self._role.labelled(activations, labels))
        answer = self._receive()
        if not isinstance(answer, GradientIn) or answer.loss is None:
            raise FaultyServerError("the server owes the loss and the gradient at the activations")
        return answer.loss, answer.rows

    def release(self, gradient: Rows, examples: int) -> None:
        self._send(self._role.release(gradient, examples))

    def _send(self, events: Iterable[object]) -> None:
        for event in events:
            if isinstance(event, Send):
                frame = bytes(event.frame)
                self.traffic.up += len(frame)
                self._channel.send(frame)

    def _receive(self) -> object:
        frame = self._channel.receive()
        self.traffic.down += len(frame)
        events: Sequence[object] = self._role.receive(frame)
        return events[0]
