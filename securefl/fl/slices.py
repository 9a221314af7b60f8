"""Slices of a model: smaller models whose parameters are parts of the whole model's.

``width``: of every hidden layer the first units [Diao et al. 2021, HeteroFL]; ``rolling``: a window of units that moves
on by one each round [Alam et al. 2022, FedRolex]; ``depth``: the first hidden layers of equal width, and the head.
Slices of one round are nested: what a smaller one keeps, a larger one keeps too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.errors import ConfigurationError
from securefl.types import Tensors

__all__ = ["Slice", "depth_slice", "width_slice"]

_Units = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Slice:
    """A smaller model: ``module``, and for each of its parameters the units kept along the first axes.

    The names of ``module``'s parameters are those of the whole model; a parameter that is not in ``kept`` is not in
    the slice. An entry of ``None`` keeps an axis whole.
    """

    module: nn.Module = field(repr=False)
    kept: Mapping[str, tuple[_Units | None, ...]] = field(repr=False)

    def take(self, tensors: Tensors) -> Tensors:
        """Copies of the slice's parameters out of the whole model's."""
        return {name: np.ascontiguousarray(tensors[name][self._place(name, tensors)]) for name in self.kept}

    def put(self, part: Tensors, whole: Tensors) -> None:
        """Write the slice's parameters into the whole model's, in place."""
        for name, value in part.items():
            whole[name][self._place(name, whole)] = value

    def mask(self, tensors: Tensors) -> dict[str, NDArray[np.bool_]]:
        """Which parameters of the whole model the slice has."""
        found = {name: np.zeros(value.shape, dtype=np.bool_) for name, value in tensors.items()}
        for name in self.kept:
            found[name][self._place(name, tensors)] = True
        return found

    def views(self, whole: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """The slice's parameters as views of the whole model's tensors; ``None`` where units do not lie together."""
        found = {}
        for name, axes in self.kept.items():
            view = whole[name]
            for axis, units in enumerate(axes):
                if units is None:
                    continue
                if int(units[-1] - units[0]) + 1 != len(units) or np.any(np.diff(units) != 1):
                    return None
                view = view.narrow(axis, int(units[0]), len(units))
            found[name] = view
        return found

    def place(self, name: str, shape: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """The index of a parameter's kept part in a torch tensor of ``shape``."""
        return tuple(torch.from_numpy(axis) for axis in np.ix_(*self._axes(name, shape)))

    def _place(self, name: str, tensors: Tensors) -> tuple[_Units, ...]:
        return np.ix_(*self._axes(name, tensors[name].shape))

    def _axes(self, name: str, shape: Sequence[int]) -> list[_Units]:
        axes = self.kept[name]
        full = (*axes, *(None for _ in range(len(shape) - len(axes))))
        return [np.arange(size) if units is None else units for units, size in zip(full, shape, strict=True)]


def width_slice(module: nn.Module, input_shape: Sequence[int], keep: Callable[[int], _Units]) -> Slice:
    """The slice with the units ``keep(width)`` (ascending) of every hidden layer; the last layer gives all classes.

    ``module``: an ``nn.Sequential`` of Linear, Conv2d (one group) and layers without parameters.
    Raises :class:`~securefl.errors.ConfigurationError` for other layers.
    """
    layers = _layers(module)
    last = max((at for at, layer in enumerate(layers) if isinstance(layer, (nn.Linear, nn.Conv2d))), default=-1)
    shapes = _shapes(layers, input_shape)
    kept: dict[str, tuple[_Units | None, ...]] = {}
    smaller: list[nn.Module] = []
    units: _Units | None = None  # of what flows between the layers; None: all
    for at, layer in enumerate(layers):
        before = shapes[at]
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            given = units
            width = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            units = None if at == last else keep(width)
            if isinstance(layer, nn.Conv2d) and layer.groups != 1:
                raise ConfigurationError("slices take convolutions of one group")
            smaller.append(_smaller(layer, given, units))
            kept[f"{at}.weight"] = (units, given)
            if layer.bias is not None:
                kept[f"{at}.bias"] = (units,)
        elif isinstance(layer, nn.Flatten) and units is not None and len(before) > 1:
            inner = math.prod(before[1:])  # a channel becomes as many features as it has places
            units = (units[:, None] * inner + np.arange(inner)).reshape(-1)
            smaller.append(copy.deepcopy(layer))
        elif any(True for _ in layer.parameters()) or (isinstance(layer, nn.Unflatten) and units is not None):
            raise ConfigurationError(
                f"width slices take Linear, Conv2d and layers without parameters, not {type(layer).__name__}"
            )
        else:
            smaller.append(copy.deepcopy(layer))
    if last < 0 or not any(units is not None for axes in kept.values() for units in axes):
        raise ConfigurationError("the model has no hidden layer to take a slice of")
    return Slice(nn.Sequential(*smaller), kept)


def depth_slice(module: nn.Module, hidden: int) -> Slice:
    """The slice that keeps the first ``hidden`` hidden layers and the head.

    ``module``: an ``nn.Sequential`` whose hidden Linear layers beyond the first have equal width in and out.
    Raises :class:`~securefl.errors.ConfigurationError` for others, and when there are not so many.
    """
    layers = _layers(module)
    linear = [at for at, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    if not 1 <= hidden < len(linear):
        raise ConfigurationError(f"the model has {max(0, len(linear) - 1)} hidden layers; depth {hidden} is not one")
    for at in linear[1:-1]:
        layer = layers[at]
        if not isinstance(layer, nn.Linear) or layer.in_features != layer.out_features:
            raise ConfigurationError("depth slices need hidden Linear layers of equal width, such as hidden = [64, 64]")
    gone = set(range(linear[hidden], linear[-1]))
    smaller = [nn.Identity() if at in gone else copy.deepcopy(layer) for at, layer in enumerate(layers)]
    names = [name for at in linear if at not in gone for name, _ in layers[at].named_parameters(prefix=str(at))]
    return Slice(nn.Sequential(*smaller), dict.fromkeys(names, ()))


def _layers(module: nn.Module) -> list[nn.Module]:
    if type(module) is not nn.Sequential or any(type(layer) is nn.Sequential for layer in module):
        raise ConfigurationError("slices are of an nn.Sequential of layers")
    return list(module)


def _shapes(layers: Sequence[nn.Module], input_shape: Sequence[int]) -> list[tuple[int, ...]]:
    """The shape of one example before each layer."""
    shapes, value = [], torch.zeros(1, *input_shape)
    with torch.no_grad():
        for layer in layers:
            shapes.append(tuple(value.shape[1:]))
            value = layer(value)
    return shapes


def _smaller(layer: nn.Linear | nn.Conv2d, given: _Units | None, units: _Units | None) -> nn.Module:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        wide = layer.in_features if given is None else len(given)
        return nn.Linear(wide, layer.out_features if units is None else len(units), bias=bias)
    return nn.Conv2d(
        layer.in_channels if given is None else len(given),
        layer.out_channels if units is None else len(units),
        layer.kernel_size,  # type: ignore[arg-type]
        stride=layer.stride,  # type: ignore[arg-type]
        padding=layer.padding,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        bias=bias,
        padding_mode=layer.padding_mode,
    )
