"""One client at its model's ends: the front, the head, and the middle elsewhere. [torch]

The learner is the same wherever the body runs and for every mode (:mod:`securefl.split.middle`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.errors import InvalidInputError
from securefl.split.engine import Rows
from securefl.split.middle import Middle, TransmittedBytes
from securefl.split.progress import Arrays, part_of, restore_part

__all__ = ["LearnedBatch", "Learner"]


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

    ``middle``: the body. ``head``: ``None`` where the server has the loss.
    ``activation_range``: activations are clamped to ±this before they are protected, and the clamp is part of the
    front (its gradient is 0 beyond the range); ``None``: not clamped.
    """

    def __init__(
        self,
        middle: Middle,
        front: nn.Module,
        head: nn.Module | None,
        *,
        learning_rate: float,
        momentum: float = 0.0,
        activation_range: float | None = None,
    ) -> None:
        self.front, self.head = front, head
        self._ends = nn.ModuleList([part for part in (front, head) if part is not None])
        self._middle, self._range = middle, activation_range
        parameters = [p for part in (front, head) if part is not None for p in part.parameters() if p.requires_grad]
        self._optimizer = (
            torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, foreach=True) if parameters else None
        )

    def state(self) -> Arrays:
        """Tensors and momenta of front and head, for :meth:`restore`."""
        return part_of(self._ends, self._optimizer)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises :class:`~securefl.errors.DecodeError` for the arrays of another model."""
        restore_part(self._ends, self._optimizer, arrays)

    @property
    def traffic(self) -> TransmittedBytes:
        """Bytes that went to the body and came back."""
        return self._middle.traffic

    def learn(self, inputs: torch.Tensor, labels: torch.Tensor) -> LearnedBatch:
        """One batch forward and backward, and one step of the front and head.

        Raises :class:`InvalidInputError` when activations, loss or gradients stop being finite.
        """
        if self._optimizer is not None:
            self._optimizer.zero_grad(set_to_none=True)
        activations = self._activations(inputs)
        rows = _rows(activations)
        if self.head is None:
            total, below = self._middle.labelled(rows, labels.numpy())
            self._step(activations, below, len(labels))
            return LearnedBatch(total, rows, None)
        outputs = torch.from_numpy(self._middle.outputs(rows, train=True)).requires_grad_(True)
        loss = cross_entropy(self.head(outputs), labels, reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = outputs.grad
        if gradient is None or not bool(torch.isfinite(loss)):
            raise InvalidInputError("the loss is no longer finite; lower the learning rate")
        self._step(activations, self._middle.input_gradient(gradient.numpy()), len(labels))
        return LearnedBatch(float(loss.detach()), rows, gradient.numpy())

    def predict(self, inputs: torch.Tensor) -> NDArray[np.int64]:
        """The classes of a batch, int64[B]; activations go the protected way, outputs come back."""
        with torch.no_grad():
            outputs = torch.from_numpy(self._middle.outputs(_rows(self._activations(inputs)), train=False))
            scores = outputs if self.head is None else self.head(outputs)
            return np.asarray(scores.argmax(1).numpy())

    def release(self, gradient: Rows, examples: int) -> None:
        """Send a weight gradient that may be seen (see :meth:`SplitClient.release`)."""
        self._middle.release(gradient, examples)

    def _activations(self, inputs: torch.Tensor) -> torch.Tensor:
        activations: torch.Tensor = self.front(inputs)
        return activations if self._range is None else activations.clamp(-self._range, self._range)

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


def _rows(activations: torch.Tensor) -> Rows:
    return np.ascontiguousarray(activations.detach().flatten(1).numpy(), dtype=np.float32)
