"""One client at its model's ends: the front, the head, and a channel to the server in between. [torch]

A batch is two exchanges in the U shape: activations → outputs, gradient → input gradient. The learner is the same over
any channel (a server in this process, a TLS link) and for every mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.errors import FaultyServerError, InvalidInputError
from securefl.machine import Send
from securefl.split.client import GradientIn, OutputsIn, SplitClient
from securefl.split.engine import Rows

__all__ = ["Channel", "LearnedBatch", "Learner", "TransmittedBytes"]


class Channel(Protocol):
    """A way to the server and back. ``receive`` raises what ended the session."""

    def send(self, frame: bytes) -> None: ...
    def receive(self) -> bytes: ...


@dataclass
class TransmittedBytes:
    """Bytes of frames a client sent and was sent."""

    up: int = 0
    down: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class LearnedBatch:
    """What one batch left with the client. ``loss``: sum over the examples. Private to the client, all of it.

    ``activations``: float32[B, F]. ``gradient``: float32[B, O] at the body's outputs, none where the server has the
    loss.
    """

    loss: float
    activations: Rows = field(repr=False)
    gradient: Rows | None = field(repr=False)

    def weight_gradient(self) -> Rows:
        """float32[O, F + 1]: Σ dz aᵀ, the gradient of a linear body, its bias in the last column."""
        if self.gradient is None:
            raise InvalidInputError("this client never had the gradient at the outputs")
        ones = np.ones((len(self.activations), 1), dtype=np.float32)
        return np.asarray(self.gradient.T @ np.hstack([self.activations, ones]), dtype=np.float32)


class Learner:
    """Trains a client's front and head by plain SGD with momentum.

    ``role``: a :class:`SplitClient`, not yet started. ``head``: ``None`` where the server has the loss.
    ``activation_range``: activations are clamped to ±this before they are protected, and the clamp is part of the
    front (its gradient is 0 beyond the range); ``None``: not clamped.
    """

    def __init__(
        self,
        role: SplitClient,
        channel: Channel,
        front: nn.Module,
        head: nn.Module | None,
        *,
        learning_rate: float,
        momentum: float = 0.0,
        activation_range: float | None = None,
    ) -> None:
        self.front, self.head = front, head
        self.traffic = TransmittedBytes()
        self._role, self._channel, self._range = role, channel, activation_range
        parameters = [p for part in (front, head) if part is not None for p in part.parameters() if p.requires_grad]
        self._optimizer = (
            torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, foreach=True) if parameters else None
        )
        self._send(role.start())

    def learn(self, inputs: torch.Tensor, labels: torch.Tensor) -> LearnedBatch:
        """One batch forward and backward, and one step of the front and head.

        Raises :class:`InvalidInputError` when activations, loss or gradients stop being finite.
        """
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)
        activations = self._activations(inputs)
        rows = _rows(activations)
        if self.head is None:
            self._send(self._role.labelled(rows, labels.numpy()))
            answer = self._receive()
            if not isinstance(answer, GradientIn) or answer.loss is None:
                raise FaultyServerError("the server owes the loss and the gradient at the activations")
            self._step(activations, answer.rows, len(labels))
            return LearnedBatch(answer.loss, rows, None)
        self._send(self._role.forward(rows))
        outputs = self._outputs().requires_grad_(True)
        loss = cross_entropy(self.head(outputs), labels, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = outputs.grad
        if gradient is None or not bool(torch.isfinite(loss)):
            raise InvalidInputError("the loss is no longer finite; lower the learning rate")
        self._send(self._role.backward(gradient.numpy()))
        answer = self._receive()
        if not isinstance(answer, GradientIn):
            raise FaultyServerError("the server owes the gradient at the activations")
        self._step(activations, answer.rows, len(labels))
        return LearnedBatch(float(loss.detach()), rows, gradient.numpy())

    def predict(self, inputs: torch.Tensor) -> NDArray[np.int64]:
        """The classes of a batch, int64[B]; activations go the protected way, outputs come back."""
        with torch.no_grad():
            self._send(self._role.probe(_rows(self._activations(inputs))))
            outputs = self._outputs()
            scores = outputs if self.head is None else self.head(outputs)
            return np.asarray(scores.argmax(1).numpy())

    def release(self, gradient: Rows, examples: int) -> None:
        """Send a weight gradient that may be seen (see :meth:`SplitClient.release`)."""
        self._send(self._role.release(gradient, examples))

    def _activations(self, inputs: torch.Tensor) -> torch.Tensor:
        activations: torch.Tensor = self.front(inputs)
        return activations if self._range is None else activations.clamp(-self._range, self._range)

    def _outputs(self) -> torch.Tensor:
        answer = self._receive()
        if not isinstance(answer, OutputsIn):
            raise FaultyServerError("the server owes the body's outputs")
        return torch.from_numpy(answer.rows)

    def _step(self, activations: torch.Tensor, gradient: Rows, examples: int) -> None:
        """``gradient``: of the sum of losses; the optimizer sees that of the mean."""
        if activations.requires_grad:
            activations.backward(torch.from_numpy(gradient).reshape(activations.shape))  # type: ignore[no-untyped-call]
        if self._optimizer is not None:
            scale = 1.0 / examples
            for group in self._optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.mul_(scale)
            self._optimizer.step()

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


def _rows(activations: torch.Tensor) -> Rows:
    return np.ascontiguousarray(activations.detach().flatten(1).numpy(), dtype=np.float32)
