"""What parties hold for a client: tensors and models, by their numbers."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.mpc.fixed import decode
from securefl.mpc.service import MAX_RATE

if TYPE_CHECKING:
    import torch

    from securefl.cluster.importing import Imported
    from securefl.cluster.servers import Servers

__all__ = ["SharedModel", "SharedTensor"]


class SharedTensor:
    """A tensor that the parties hold. ``+ - * @`` with another compute on shares."""

    def __init__(self, servers: Servers, number: int) -> None:
        self.servers = servers
        self.number = number
        weakref.finalize(self, servers._forget, number)

    def reveal(self) -> torch.Tensor:
        """The values, float32, to this client alone. Without torch use :meth:`numpy`."""
        import torch

        return torch.from_numpy(self.numpy()).float()

    def numpy(self) -> NDArray[np.float64]:
        """The values, float64, to this client alone."""
        words, shape, fraction = self.servers._get(self.number)
        return decode(words, fraction).reshape(shape)

    def _combine(self, how: str, other: SharedTensor) -> SharedTensor:
        number = self.servers._number()
        self.servers._compute("combine", how=how, left=self.number, right=other.number, output=number)
        return SharedTensor(self.servers, number)

    def __matmul__(self, other: SharedTensor) -> SharedTensor:
        """Matrix product, truncated to the binary places of the operands."""
        return self._combine("matmul", other)

    def __mul__(self, other: SharedTensor) -> SharedTensor:
        """Product element by element, truncated; shapes broadcast."""
        return self._combine("multiply", other)

    def __add__(self, other: SharedTensor) -> SharedTensor:
        return self._combine("add", other)

    def __sub__(self, other: SharedTensor) -> SharedTensor:
        return self._combine("subtract", other)

    def __repr__(self) -> str:
        return f"<SharedTensor {self.number}>"


class SharedModel:
    """A network whose weights the parties hold. Calling it gives the output, shared."""

    def __init__(self, servers: Servers, number: int, imported: Imported) -> None:
        self._servers = servers
        self.number = number
        self._imported = imported
        weakref.finalize(self, servers._forget, number)

    def __call__(self, x: SharedTensor) -> SharedTensor:
        """The output of the network for a batch of inputs."""
        output = self._servers._number()
        self._servers._compute("apply", model=self.number, input=x.number, output=output)
        return SharedTensor(self._servers, output)

    def train_step(
        self,
        x: SharedTensor,
        targets: SharedTensor,
        *,
        loss: str = "cross_entropy",
        lr: float,
        momentum: float = 0.0,
    ) -> None:
        """One step of stochastic gradient descent on the mean loss over the batch.

        ``targets``: class numbers [rows] (shared from an integer tensor), or values of the output's shape. ``loss``:
        "cross_entropy" or "mse". Weights move, so the range that was checked when the model was shared is from now on
        the caller's promise.
        """
        _check_rate(lr, momentum)
        self._servers._compute(
            "train", model=self.number, input=x.number, targets=targets.number, loss=loss, rate=lr, momentum=momentum
        )

    def forward(self, x: SharedTensor) -> SharedTensor:
        """The output, as calling the model gives it, kept open for :meth:`backward`.

        Any number of passes may be open; one ends when it was gone back through, or when its output is dropped.
        """
        output = self._servers._number()
        self._servers._compute("forward", model=self.number, input=x.number, output=output)
        return SharedTensor(self._servers, output)

    def backward(self, output: SharedTensor, gradient: SharedTensor) -> SharedTensor:
        """From the gradient of any loss by ``output`` to the one by the input of that forward pass; all stay shared.

        ``output``: of :meth:`forward`; ``gradient``: of its shape, shared by whoever has the loss. The gradients of the
        weights are added up at the servers, for :meth:`step`; nobody sees them. A pass is gone back through once.
        """
        below = self._servers._number()
        self._servers._compute("backward", of=output.number, gradient=gradient.number, output=below)
        return SharedTensor(self._servers, below)

    def step(self, *, lr: float, momentum: float = 0.0, divisor: float = 1.0) -> None:
        """One step of stochastic gradient descent with what :meth:`backward` added up since the last one.

        ``divisor``: by which the sum is divided, for the mean over that many examples. Weights move: see
        :meth:`train_step`.
        """
        _check_rate(lr, momentum)
        if not 1 <= divisor < math.inf:
            raise ConfigurationError(f"gradients are divided by at least 1, not by {divisor}")
        self._servers._compute("step", model=self.number, rate=lr, momentum=momentum, divisor=divisor)

    def reveal_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights, for ``load_state_dict`` of the module that was shared."""
        servers = self._servers
        values = {}
        for name in self._imported.parameters:
            number = servers._number()
            servers._tell("parameter", model=self.number, name=name, output=number)
            values[name] = SharedTensor(servers, number).numpy()
        return self._imported.state_dict(values)

    def __repr__(self) -> str:
        return f"<SharedModel {self.number}>"


def _check_rate(rate: float, momentum: float) -> None:
    if not 0 < rate < MAX_RATE or not 0 <= momentum < 1:
        raise ConfigurationError(
            f"a learning rate is above 0 and below {MAX_RATE:g}, a momentum from 0 to below 1; got {rate}, {momentum}"
        )
