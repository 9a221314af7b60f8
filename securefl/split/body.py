"""The server's part of the model and its optimizer. [torch]"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.errors import InvalidInputError
from securefl.split.progress import Arrays, part_of, restore_part

__all__ = ["Body", "linear_of"]


class Body:
    """``module`` is shared by the engines of all clients, which add to its gradients; :meth:`step` uses them up."""

    def __init__(self, module: nn.Module, *, learning_rate: float, momentum: float) -> None:
        self.module = module
        parameters = [p for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, foreach=True)
        self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> Arrays:
        """Parameters and momenta, for :meth:`restore`."""
        return part_of(self.module, self._optimizer)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raises :class:`~securefl.errors.DecodeError` for the arrays of another body."""
        restore_part(self.module, self._optimizer, arrays)

    def give(self, gradient: NDArray[np.floating[Any]]) -> None:
        """Set the gradient of a linear body: float[O, F + 1], the bias in the last column; a sum over examples."""
        linear = linear_of(self.module)
        if linear is None or not np.isfinite(gradient).all():
            raise InvalidInputError("a weight gradient is finite and belongs to a linear body")
        values = torch.from_numpy(np.ascontiguousarray(gradient, dtype=np.float32))
        linear.weight.grad = values[:, :-1].clone()
        if linear.bias is not None:
            linear.bias.grad = values[:, -1].clone()

    def step(self, examples: int) -> None:
        """One step with the mean over ``examples`` of what was accumulated."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(1.0 / examples)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def linear_of(module: nn.Module) -> nn.Linear | None:
    """The one linear layer that ``module`` is, or ``None``."""
    layers = [layer for layer in module.modules() if not any(True for _ in layer.children())]
    leaves = [layer for layer in layers if not isinstance(layer, nn.Identity)]
    if len(leaves) == 1 and isinstance(leaves[0], nn.Linear) and len(list(module.parameters())) <= 2:
        return leaves[0]
    return None
