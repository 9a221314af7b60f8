"""What the next round of a run depends on, as arrays: to stop after a round, and to go on bit for bit. [torch]

    body/<tensor>              the server's part           body/momentum/<i>          of its optimizer
    <client>/ends/<tensor>     a client's front and head   <client>/momentum/<i>      of its optimizer

Keys, masks and ciphertexts are of a session and are made anew; the order of examples follows from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.errors import DecodeError, InvalidInputError
from securefl.fl.models import load_tensors, tensors_of

__all__ = ["Arrays", "part_of", "restore_part"]

Arrays: TypeAlias = dict[str, NDArray[Any]]


def part_of(module: nn.Module, optimizer: torch.optim.Optimizer | None) -> Arrays:
    """Trainable tensors and momenta; nothing for a part that does not train."""
    if optimizer is None:
        return {}
    found: Arrays = {f"tensor/{name}": value for name, value in tensors_of(module).items()}
    for at, parameter in enumerate(_parameters(optimizer)):
        momentum = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if momentum is not None:
            found[f"momentum/{at}"] = momentum.numpy().copy()
    return found


def restore_part(
    module: nn.Module, optimizer: torch.optim.Optimizer | None, arrays: Mapping[str, NDArray[Any]]
) -> None:
    """The reverse of :func:`part_of`. Raises :class:`DecodeError` for arrays of another model, and changes nothing."""
    if optimizer is None:
        if arrays:
            raise DecodeError("the checkpoint trains a part of the model that this run does not")
        return
    tensors: Arrays = {}
    momenta: dict[int, NDArray[Any]] = {}
    for name, value in arrays.items():
        kind, _, rest = name.partition("/")
        if kind == "tensor":
            tensors[rest] = value
        elif kind == "momentum" and rest.isdecimal():
            momenta[int(rest)] = value
        else:
            raise DecodeError(f"the checkpoint has an array {name!r}, which no part of a model has")
    parameters = _parameters(optimizer)
    for at, value in momenta.items():
        if not 0 <= at < len(parameters) or value.dtype != np.float32 or value.shape != tuple(parameters[at].shape):
            raise DecodeError(f"the checkpoint's momentum {at} does not fit the model")
    try:
        load_tensors(module, tensors)
    except InvalidInputError as error:
        raise DecodeError(f"the checkpoint is of another model: {error}") from None
    for at, value in momenta.items():
        optimizer.state[parameters[at]]["momentum_buffer"] = torch.from_numpy(value.copy())


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
