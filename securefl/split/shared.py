"""The mode ``shared``: any body of supported layers, evaluated and trained on secret shares by computing parties.

    client   shares a                        ─▶ two servers and a helper (securefl.mpc): z = body(a) on shares
             z, head, labels, loss, shares dz ─▶ da, and dW added up, on shares
             da, backward through the front      one step of the weights, on shares

Nobody but the client sees a, z, dz or da, and nobody at all sees dW or the weights: both stay shared until somebody who
may asks for the weights (:meth:`SharedHost.reveal`). Fixed point with 16 binary places. SPEC split §8; mpc §8, §9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.cluster.importing import Imported, import_module
from securefl.cluster.servers import Servers
from securefl.cluster.tensors import SharedModel, SharedTensor
from securefl.errors import ConfigurationError, InvalidInputError, LocalProtocolError
from securefl.mpc.fixed import FRACTION
from securefl.mpc.headroom import check_training
from securefl.split.engine import Rows, check_rows
from securefl.split.middle import TransmittedBytes

__all__ = ["GROWTH_BITS", "SharedHost", "SharedMiddle", "SharedMode"]

#: The headroom is checked for weights up to 2^this times as large as the initial ones.
GROWTH_BITS = 2


@dataclass(frozen=True, slots=True, eq=False)
class SharedMode:
    """One run's shared body. ``activation_shape``, ``output_shape``: of one example. Build with :meth:`of`."""

    activation_range: float
    gradient_range: float
    max_batch: int
    activation_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    body: nn.Module = field(repr=False)
    imported: Imported = field(repr=False)
    #: No output within the promises is larger.
    output_range: float

    @classmethod
    def of(
        cls,
        body: nn.Module,
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
        *,
        activation_range: float,
        gradient_range: float,
        max_batch: int,
        momentum: float,
        clients: int,
    ) -> SharedMode:
        """``clients``: how many batches one step is made from.

        Raises :class:`ConfigurationError` for a body with layers that cannot be trained on shares, and for ranges with
        which values could leave the headroom.
        """
        imported = import_module(body)
        output_range = check_training(
            imported.graph,
            imported.parameters,
            input_shape=shapes[0],
            input_range=activation_range,
            gradient_range=gradient_range,
            examples=max_batch * clients,
            momentum=momentum,
            growth_bits=GROWTH_BITS,
        )
        return cls(activation_range, gradient_range, max_batch, *shapes, body, imported, output_range)

    @property
    def text(self) -> str:
        return f"shared {FRACTION} {self.activation_range!r} {self.gradient_range!r}"

    @property
    def clamps(self) -> float:
        return self.activation_range

    @property
    def hides_gradients(self) -> bool:
        """``False``: nobody needs to be given the body's gradient, the parties compute it on shares."""
        return False


class SharedHost:
    """The body at the computing parties, shared there when this is made, for any number of clients of one process."""

    def __init__(self, mode: SharedMode, servers: Servers, *, learning_rate: float, momentum: float) -> None:
        self.mode, self.servers = mode, servers
        self._rate, self._momentum = learning_rate, momentum
        self.model: SharedModel = servers.share(mode.body, limit=mode.activation_range)

    def middle(self) -> SharedMiddle:
        """One client's way to the body."""
        return SharedMiddle(self.mode, self.servers, self.model)

    def step(self, examples: int) -> None:
        """One step of the shared weights with the mean over ``examples`` of what was added up on shares."""
        self.model.step(lr=self._rate, momentum=self._momentum, divisor=float(examples))

    def reveal(self) -> dict[str, torch.Tensor]:
        """The body's weights, opened to this client: the one thing of a run that is opened, and only by this call."""
        return self.model.reveal_state_dict()


class SharedMiddle:
    """One client's rows to the parties and back. See :class:`~securefl.split.middle.Middle`."""

    def __init__(self, mode: SharedMode, servers: Servers, model: SharedModel) -> None:
        self.traffic = TransmittedBytes()
        self._mode, self._servers, self._model = mode, servers, model
        self._open: SharedTensor | None = None

    def outputs(self, activations: Rows, *, train: bool) -> Rows:
        mode = self._mode
        if len(activations) > mode.max_batch:
            raise InvalidInputError(
                f"a batch of {len(activations)} examples is larger than the {mode.max_batch} that headroom was checked "
                "for: split it, or raise batch_size when the session is made"
            )
        check_rows(activations, math.prod(mode.activation_shape), "activations", largest=mode.activation_range)
        before = self._servers.transferred
        x = self._servers.share(activations.reshape(-1, *mode.activation_shape), limit=mode.activation_range)
        shared = self._model.forward(x) if train else self._model(x)
        self._open = shared if train else None
        rows = self._received(shared, before)
        if float(np.abs(rows).max()) > mode.output_range:
            raise InvalidInputError(
                f"the body's outputs reach {np.abs(rows).max():.3g}, beyond the {mode.output_range:.3g} that headroom "
                "was checked for: its weights have grown too far; lower the learning rate"
            )
        return rows

    def input_gradient(self, gradient: Rows) -> Rows:
        mode = self._mode
        if self._open is None:
            raise LocalProtocolError("there is no forward pass to go back through")
        check_rows(gradient, math.prod(mode.output_shape), "gradients")
        if (peak := float(np.abs(gradient).max())) > mode.gradient_range:
            raise InvalidInputError(
                f"gradients reach {peak:.6g}, beyond the declared range of ±{mode.gradient_range:g}: raise "
                "gradient_range, or lower the learning rate"
            )
        before = self._servers.transferred
        shared = self._servers.share(gradient.reshape(-1, *mode.output_shape), limit=mode.gradient_range)
        output, self._open = self._open, None
        return self._received(self._model.backward(output, shared), before)

    def labelled(self, activations: Rows, labels: NDArray[np.int64]) -> tuple[float, Rows]:
        raise ConfigurationError("labels stay with the client under protect = 'shared'")

    def release(self, gradient: Rows, examples: int) -> None:
        raise ConfigurationError("the parties have the weight gradient, on shares: nothing is released")

    def _received(self, tensor: SharedTensor, before: tuple[int, int]) -> Rows:
        values = tensor.numpy().astype(np.float32)
        up, down = self._servers.transferred
        self.traffic.up += up - before[0]
        self.traffic.down += down - before[1]
        return values.reshape(len(values), -1)
