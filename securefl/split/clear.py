"""Modes in which the server computes on what it can read: ``plain``, ``quantized`` and ``noise``.

The body is any module. What differs is the coding of the client's rows: :class:`~securefl.split.coding.FloatRows`
(no protection), :class:`~securefl.split.coding.GridRows` (no bound), :class:`~securefl.split.coding.NoisyRows`
(a bound per example). The server's answers are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.errors import LocalProtocolError
from securefl.split.coding import RowCoding
from securefl.split.engine import PayloadLimits, Rows, float32_bytes, float32_rows
from securefl.wire import Buffer

__all__ = ["ClearClient", "ClearServer", "ClearShape"]


@dataclass(frozen=True, slots=True)
class ClearShape:
    """F, O, the largest batch and how the client's rows are coded. Both sides hold the same."""

    activations: int
    outputs: int
    max_batch: int
    coding: RowCoding
    gradient_coding: RowCoding

    @property
    def limits(self) -> PayloadLimits:
        most = self.max_batch
        return PayloadLimits(
            setup=0,
            activations=self.coding.size(most, self.activations),
            outputs=4 * most * self.outputs,
            gradient=self.gradient_coding.size(most, self.outputs),
            input_gradient=4 * most * self.activations,
        )


class ClearClient:
    """The client's engine. See :class:`~securefl.split.engine.ClientEngine`."""

    def __init__(self, shape: ClearShape) -> None:
        self._shape = shape

    @property
    def limits(self) -> PayloadLimits:
        return self._shape.limits

    def setup(self) -> bytes:
        return b""

    def activations(self, rows: Rows) -> bytes:
        return self._shape.coding.encode(rows)

    def outputs(self, payload: Buffer, batch: int) -> Rows:
        return float32_rows(payload, batch, self._shape.outputs, "outputs")

    def gradient(self, rows: Rows) -> bytes:
        return self._shape.gradient_coding.encode(rows)

    def input_gradient(self, payload: Buffer, batch: int) -> Rows:
        return float32_rows(payload, batch, self._shape.activations, "gradients")


class ClearServer:
    """The server's engine: autograd through the body, whose parameters' ``grad`` it adds to.

    ``activation_shape``: of one example, as the body wants it; its product is F.
    """

    def __init__(self, shape: ClearShape, body: nn.Module, activation_shape: tuple[int, ...]) -> None:
        self._shape, self._body, self._inner = shape, body, activation_shape
        self._open: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def limits(self) -> PayloadLimits:
        return self._shape.limits

    def setup(self, payload: Buffer) -> None:
        """Nothing is needed."""

    def forward(self, payload: Buffer, batch: int, *, train: bool) -> bytes:
        activations = self._tensor(payload, batch, train)
        with torch.set_grad_enabled(train):
            outputs = self._body(activations)
        self._open = (activations, outputs) if train else None
        return float32_bytes(outputs.detach().flatten(1).numpy())

    def backward(self, payload: Buffer, batch: int) -> bytes:
        if self._open is None:
            raise LocalProtocolError("there is no forward pass to go back through")
        activations, outputs = self._open
        gradient = self._shape.gradient_coding.decode(payload, batch, self._shape.outputs)
        outputs.backward(torch.from_numpy(gradient).reshape(outputs.shape))  # type: ignore[no-untyped-call]
        self._open = None
        return self._answer(activations)

    def learn(self, payload: Buffer, labels: NDArray[np.int64]) -> tuple[float, bytes]:
        activations = self._tensor(payload, len(labels), True)
        loss = cross_entropy(self._body(activations), torch.from_numpy(labels), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), self._answer(activations)

    def view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        return self._shape.coding.decode(payload, batch, self._shape.activations).astype(np.float64)

    def gradient_view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        return self._shape.gradient_coding.decode(payload, batch, self._shape.outputs).astype(np.float64)

    def _tensor(self, payload: Buffer, batch: int, train: bool) -> torch.Tensor:
        rows = self._shape.coding.decode(payload, batch, self._shape.activations)
        return torch.from_numpy(rows).reshape(batch, *self._inner).requires_grad_(train)

    @staticmethod
    def _answer(activations: torch.Tensor) -> bytes:
        gradient = activations.grad
        if gradient is None:  # a body that ignores its input
            gradient = torch.zeros_like(activations)
        return float32_bytes(gradient.flatten(1).numpy())
