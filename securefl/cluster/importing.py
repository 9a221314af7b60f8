"""torch modules as graphs: ``torch.fx`` finds the operations, this module turns them into layers and weights.

Dropout is left out (evaluation), batch normalization is folded into the layer before it with its running statistics.
Whatever cannot be turned is refused by the path of its module.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from securefl.errors import ConfigurationError
from securefl.mpc.convolution import Window
from securefl.mpc.graph import Graph, Layer

__all__ = ["Imported", "import_module"]

Values = NDArray[np.float64]


@dataclass
class _Weights:
    """Weight [outputs, inputs…] and bias of a layer, as they are computed with: batch normalization folded in."""

    path: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    normalized_by: str | None = None


@dataclass
class Imported:
    """A graph and its parameters: float64, weights as [inputs, outputs]. :meth:`state_dict` is the way back."""

    graph: Graph
    parameters: dict[str, Values]
    _module: nn.Module
    _weights: dict[int, _Weights] = field(default_factory=dict)

    def state_dict(self, parameters: dict[str, Values]) -> dict[str, torch.Tensor]:
        """A ``state_dict`` of the module with these parameters. Folded batch normalization becomes the identity."""
        state = {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}
        modules = dict(self._module.named_modules())
        for weights in self._weights.values():
            prefix = f"{weights.path}." if weights.path else ""
            shape = weights.weight.shape
            flat = torch.from_numpy(np.ascontiguousarray(parameters[f"{prefix}weight"].T))
            state[f"{prefix}weight"] = flat.reshape(shape).to(state[f"{prefix}weight"].dtype)
            bias = parameters.get(f"{prefix}bias")
            if weights.normalized_by is not None:
                norm = f"{weights.normalized_by}."
                state[f"{norm}running_mean"].zero_()
                state[f"{norm}running_var"].fill_(1.0 - modules[weights.normalized_by].eps)
                if f"{norm}weight" in state:
                    state[f"{norm}weight"].fill_(1.0)
                    state[f"{norm}bias"].zero_()
                if f"{prefix}bias" not in state and bias is not None:  # the layer has no bias of its own: put it here
                    state[f"{norm}running_mean"] -= torch.from_numpy(bias).to(state[f"{norm}running_mean"].dtype)
                    continue
            if bias is not None:
                state[f"{prefix}bias"] = torch.from_numpy(bias).to(state[f"{prefix}bias"].dtype)
        return state


class _Importer:
    """Walks a traced module once."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.layers: list[Layer] = []
        self.weights: dict[int, _Weights] = {}
        self.numbers: dict[fx.Node, int] = {}
        self.sizes: set[fx.Node] = set()

    def run(self) -> Imported:
        single = _Tracer().is_leaf_module(self.module, "")
        try:
            # A single layer is traced as the only one of a sequence, and keeps its own, empty path.
            traced = _Tracer().trace(nn.Sequential(self.module) if single else self.module)
        except Exception as error:  # torch.fx lets through whatever the module's own code raises
            raise ConfigurationError(
                f"the module cannot be traced by torch.fx ({error}): write its forward without branches on values"
            ) from error
        uses: dict[fx.Node, int] = {}
        for step in traced.nodes:
            for source in step.all_input_nodes:
                uses[source] = uses.get(source, 0) + 1
        self.uses = uses
        modules = dict(self.module.named_modules())
        for step in traced.nodes:
            if step.op == "placeholder":
                if self.layers:
                    raise ConfigurationError("the module has more than one input; one tensor can be given")
                self.layers.append(Layer("input"))
                self.numbers[step] = 0
            elif step.op == "output":
                if step.args[0] not in self.numbers:
                    raise ConfigurationError("the module's output is not one tensor")
                if self.numbers[step.args[0]] != len(self.layers) - 1:
                    raise ConfigurationError("the module computes something that its output does not use")
            elif step.op == "call_module":
                path = "" if single else str(step.target)
                self.take(step, path, modules[path])
            elif step.op in {"call_function", "call_method"}:
                self.call(step)
            else:
                raise ConfigurationError(f"{step.target!r} is used outside a layer: put it into one of torch.nn's")
        return self.finish()

    def add(self, step: fx.Node, layer: Layer) -> None:
        self.numbers[step] = len(self.layers)
        self.layers.append(layer)

    def source(self, step: fx.Node, at: int = 0) -> int:
        given = step.args[at] if len(step.args) > at else None
        if not isinstance(given, fx.Node) or given not in self.numbers:
            raise ConfigurationError(f"{step.name!r} takes something other than a tensor of the network")
        return self.numbers[given]

    def take(self, step: fx.Node, path: str, module: nn.Module) -> None:
        """A layer of torch.nn."""
        source = self.source(step)
        if isinstance(module, nn.Identity | nn.Dropout | nn.Dropout1d | nn.Dropout2d):
            self.numbers[step] = source
        elif isinstance(module, nn.Linear):
            self.weigh(path, module.weight, module.bias)
            self.add(step, Layer("linear", (source,), path))
        elif isinstance(module, nn.Conv2d):
            window = _convolution(path, module)
            self.weigh(path, module.weight, module.bias)
            self.add(step, Layer("conv2d", (source,), path, window=window))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            self.normalize(step, path, module, source)
        else:
            self.add(step, _plain(path, module, source))

    def weigh(self, path: str, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if any(weights.path == path for weights in self.weights.values()):
            raise ConfigurationError(f"the layer {path!r} is used twice; give every use a layer of its own")
        self.weights[len(self.layers)] = _Weights(
            path, weight.detach().double(), None if bias is None else bias.detach().double()
        )

    def normalize(self, step: fx.Node, path: str, module: nn.Module, source: int) -> None:
        before = self.weights.get(source)
        alone = isinstance(step.args[0], fx.Node) and self.uses[step.args[0]] == 1
        mean, variance = module.running_mean, module.running_var
        if before is None or not alone or before.normalized_by is not None:
            raise ConfigurationError(
                f"batch normalization {path!r} must follow a linear or convolution layer that nothing else uses"
            )
        if not isinstance(mean, torch.Tensor) or not isinstance(variance, torch.Tensor):
            raise ConfigurationError(f"batch normalization {path!r} keeps no running statistics to fold in")
        factor = torch.rsqrt(variance.double() + float(module.eps))  # type: ignore[arg-type]
        shift = torch.zeros_like(factor)
        if isinstance(module.weight, torch.Tensor) and isinstance(module.bias, torch.Tensor):
            factor = factor * module.weight.detach().double()
            shift = module.bias.detach().double()
        before.weight = before.weight * factor.reshape(-1, *[1] * (before.weight.ndim - 1))
        bias = torch.zeros_like(factor) if before.bias is None else before.bias
        before.bias = (bias - mean.double()) * factor + shift
        before.normalized_by = path
        self.numbers[step] = source

    def call(self, step: fx.Node) -> None:
        """A function or a method."""
        name = step.target if isinstance(step.target, str) else getattr(step.target, "__name__", repr(step.target))
        sized = step.target is operator.getitem and step.args[0] in self.sizes
        rows = len(step.args) == 3 and step.args[1] in self.sizes and step.args[2] == -1
        from_second = step.kwargs.get("start_dim", step.args[1] if len(step.args) > 1 else 0) == 1
        if sized or step.target is getattr or name == "size":
            self.sizes.add(step)
        elif name in {"relu", "relu_"}:
            self.add(step, Layer("relu", (self.source(step),), step.name))
        elif name in {"sigmoid", "softmax"}:
            dim = step.kwargs.get("dim", step.args[1] if len(step.args) > 1 else -1)
            _last(step.name, dim)
            self.add(step, Layer(name, (self.source(step),), step.name))
        elif name in {"add", "iadd"}:
            self.add(step, Layer("add", (self.source(step), self.source(step, 1)), step.name))
        elif (name == "flatten" and from_second) or (name in {"view", "reshape"} and rows):
            self.add(step, Layer("flatten", (self.source(step),), step.name))
        elif name in _POOLINGS:
            self.add(step, replace(_pooling(step, name), inputs=(self.source(step),)))
        elif name == "dropout":
            self.numbers[step] = self.source(step)
        else:
            raise ConfigurationError(f"the operation {name!r} ({step.name}) is not supported on shares")

    def finish(self) -> Imported:
        parameters: dict[str, Values] = {}
        for number, weights in self.weights.items():
            prefix = f"{weights.path}." if weights.path else ""
            matrix = weights.weight.flatten(1).T.contiguous().numpy()
            bias = None if weights.bias is None else weights.bias.numpy()
            parameters[f"{prefix}weight"] = matrix
            names: tuple[str, ...] = (f"{prefix}weight",)
            if bias is not None:
                parameters[f"{prefix}bias"] = bias
                names = (*names, f"{prefix}bias")
            layer = self.layers[number]
            self.layers[number] = Layer(
                layer.kind, layer.inputs, layer.name, names, layer.window,
                _ceil_log2(np.abs(matrix).sum(axis=0).max()), _ceil_log2(0.0 if bias is None else np.abs(bias).max()),
            )  # fmt: skip
        if len(self.layers) < 2:
            raise ConfigurationError("the module computes nothing")
        return Imported(Graph(_maxima_first(self.layers)), parameters, self.module, self.weights)


def _maxima_first(layers: list[Layer]) -> tuple[Layer, ...]:
    """Max pooling goes before a relu that nothing else uses: the two commute, and the relu has fewer to compare."""
    layers = list(layers)
    uses = [source for layer in layers for source in layer.inputs]
    for number, (before, layer) in enumerate(pairwise(tuple(layers))):
        if (before.kind, layer.kind, layer.inputs) == ("relu", "max_pool", (number,)) and uses.count(number) == 1:
            layers[number] = replace(layer, inputs=before.inputs)
            layers[number + 1] = replace(before, inputs=(number,))
    return tuple(layers)


class _Tracer(fx.Tracer):
    """Every layer of torch.nn is one step; modules of the user's are looked into."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)


def _ceil_log2(value: float) -> int:
    """Rounded up to a power of two, so that little of the weights is told; −32 is as good as zero."""
    return max(-32, math.ceil(math.log2(value))) if value else -32


def _pair(value: int | tuple[int, ...] | str) -> tuple[int, int]:
    if isinstance(value, str):
        raise ConfigurationError(f"padding {value!r} has no sizes")
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _convolution(path: str, module: nn.Conv2d) -> Window:
    if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros" or module.padding == "same":
        raise ConfigurationError(f"the convolution {path!r} has groups, dilation or padding that shares do not support")
    padding = (0, 0) if module.padding == "valid" else _pair(module.padding)
    return Window(_pair(module.kernel_size), _pair(module.stride), padding)


def _last(path: str, dim: object) -> None:
    if dim not in {-1, 1, None}:
        raise ConfigurationError(f"{path!r} works along dimension {dim}; the last of [rows, classes] is supported")


def _pool(path: str, module: nn.MaxPool2d | nn.AvgPool2d, kind: str) -> Layer:
    usual: dict[str, Any] = {"ceil_mode": False, "dilation": 1, "return_indices": False}
    usual |= {"count_include_pad": True, "divisor_override": None}
    for option, value in usual.items():
        if getattr(module, option, value) not in {value, (value, value)}:
            raise ConfigurationError(f"the pooling {path!r} uses {option}, which shares do not support")
    window = Window(_pair(module.kernel_size), _pair(module.stride), _pair(module.padding))
    if kind == "max_pool":
        window.check_for_maxima()
    return Layer(kind, (), path, window=window)


#: Functions of torch.nn.functional: the layer that does the same, and the names of what follows the images.
_POOLINGS: Final[dict[str, tuple[str, Callable[..., Any], tuple[str, ...]]]] = {
    "max_pool2d": (
        "max_pool",
        nn.MaxPool2d,
        ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    ),
    "avg_pool2d": (
        "average_pool",
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
}


def _pooling(step: fx.Node, name: str) -> Layer:
    kind, module, names = _POOLINGS[name]
    given = {**dict(zip(names, step.args[1:], strict=False)), **step.kwargs}
    if any(isinstance(value, fx.Node) for value in given.values()) or not given.keys() <= set(names):
        raise ConfigurationError(f"the pooling {step.name!r} has sizes that depend on the input, or takes it by name")
    return _pool(step.name, module(**given), kind)


#: Layers without weights: type → (path, module) → layer without its input.
_PLAIN: Final[dict[type[nn.Module], Callable[[str, Any], Layer]]] = {
    nn.ReLU: lambda path, module: Layer("relu", (), path),
    nn.Sigmoid: lambda path, module: Layer("sigmoid", (), path),
    nn.MaxPool2d: lambda path, module: _pool(path, module, "max_pool"),
    nn.AvgPool2d: lambda path, module: _pool(path, module, "average_pool"),
}


def _plain(path: str, module: nn.Module, source: int) -> Layer:
    if isinstance(module, nn.Softmax):
        _last(path, module.dim)
        return Layer("softmax", (source,), path)
    if isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1):
        return Layer("flatten", (source,), path)
    make = _PLAIN.get(type(module))
    if make is None:
        raise ConfigurationError(
            f"the layer {path!r} ({type(module).__name__}) is not supported on shares: use Linear, Conv2d, BatchNorm, "
            "ReLU, MaxPool2d, AvgPool2d, Flatten, Dropout, Softmax or Sigmoid"
        )
    layer = make(path, module)
    return Layer(layer.kind, (source,), layer.name, window=layer.window)


def import_module(module: nn.Module) -> Imported:
    """Graph and parameters of a torch module. Raises :class:`ConfigurationError` naming what is not supported."""
    return _Importer(module).run()
