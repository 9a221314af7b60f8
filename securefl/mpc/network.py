"""Running a network on shares, forwards and backwards. SPEC mpc §8.

Legend: δ of a layer is the gradient of the loss by its output, times what the mean over the batch divides by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.mpc.bits import Bits
from securefl.mpc.convolution import Window, average_pool, conv2d, fold, max_pool, unfold
from securefl.mpc.fixed import FRACTION
from securefl.mpc.functions import one_hot, sigmoid, softmax, to_fraction
from securefl.mpc.graph import Graph, Layer
from securefl.mpc.operations import matmul, prepare, relu_and_sign, scale, select, truncate
from securefl.mpc.party import Array
from securefl.mpc.shared import Shared, concatenate

__all__ = ["LOSSES", "Network"]

LOSSES = ("cross_entropy", "mse")
#: Significant bits of a learning rate over a batch size, when that is no power of two.
_RATE_BITS = 12


class Network:
    """A graph with its shared parameters, which :meth:`train` replaces."""

    def __init__(self, graph: Graph, parameters: Mapping[str, Shared]) -> None:
        named = {name for layer in graph.layers for name in layer.parameters}
        if named != set(parameters):
            raise InvalidInputError("the parameters given are not those that the network names")
        self.graph = graph
        self.parameters = dict(parameters)
        self._velocity: dict[str, Shared] = {}

    def tensors(self) -> list[Shared]:
        """Parameters and, of training with momentum, velocities, in order of their names."""
        return [kept[name] for kept in (self.parameters, self._velocity) for name in sorted(kept)]

    def map(self, change: Callable[[Shared], Shared]) -> Network:
        """The same network with every tensor replaced."""
        other = Network(self.graph, {name: change(tensor) for name, tensor in self.parameters.items()})
        other._velocity = {name: change(tensor) for name, tensor in self._velocity.items()}
        return other

    def forward(self, x: Shared) -> Shared:
        """The output. Where it is a product it is left untruncated, with twice the binary places."""
        return self._run(x)[0][-1]

    def _run(self, x: Shared) -> tuple[list[Shared], dict[int, Bits]]:
        values: list[Shared] = []
        signs: dict[int, Bits] = {}

        def narrow(number: int) -> Shared:
            values[number] = to_fraction(values[number], FRACTION)
            return values[number]

        for number, layer in enumerate(self.graph.layers):
            if layer.kind == "input":
                values.append(x)
            elif layer.kind == "relu":
                before = values[layer.inputs[0]]
                result, signs[number] = relu_and_sign(before, before.fraction - FRACTION)
                values.append(result)
            elif layer.kind == "flatten":
                before = values[layer.inputs[0]]
                values.append(before.reshape(before.shape[0], math.prod(before.shape[1:])))
            else:
                values.append(self._apply(layer, [narrow(i) for i in layer.inputs]))
        return values, signs

    def _apply(self, layer: Layer, inputs: list[Shared]) -> Shared:
        x = inputs[0]
        if layer.kind in {"linear", "conv2d"}:
            weight = self.parameters[layer.parameters[0]]
            if layer.kind == "linear":
                y = matmul(x, weight)
            else:
                y = conv2d(x, weight, _window(layer))
            if len(layer.parameters) == 2:
                bias = self.parameters[layer.parameters[1]].widen(y.fraction - FRACTION)
                y = y + (bias if layer.kind == "linear" else bias.reshape(bias.shape[0], 1, 1))
            return y
        if layer.kind == "max_pool":
            return max_pool(x, _window(layer))
        if layer.kind == "average_pool":
            return average_pool(x, _window(layer))
        if layer.kind == "add":
            return x + inputs[1]
        if layer.kind == "softmax":
            return softmax(x)
        if layer.kind == "sigmoid":
            return sigmoid(x)
        raise ConfigurationError(f"a network cannot have a layer of kind {layer.kind!r}")

    # ---- training

    def train(self, x: Shared, targets: Shared, loss: str, learning_rate: float, momentum: float = 0.0) -> None:
        """One step of stochastic gradient descent on the mean loss over the rows of ``x``.

        ``targets``: class numbers [rows] without binary places, or values of the output's shape. ``loss``: one of
        :data:`LOSSES`. Raises :class:`ConfigurationError` for a network that cannot be trained.
        """
        if loss not in LOSSES:
            raise ConfigurationError(f"the loss is one of {', '.join(LOSSES)}, not {loss!r}")
        values, signs = self._run(x)
        output = to_fraction(values[-1], FRACTION)
        values[-1] = output
        if len(targets.shape) == 1 and targets.fraction == 0:
            targets = one_hot(targets, output.shape[1])
        if targets.shape != output.shape:
            raise InvalidInputError(f"targets of shape {list(targets.shape)} for outputs of {list(output.shape)}")
        if loss == "cross_entropy":
            delta, divisor = softmax(output) - targets, float(output.shape[0])
        else:
            delta, divisor = output - targets, output.size / 2
        gradients = self._backward(values, signs, delta)
        self._step(gradients, learning_rate, divisor, momentum)

    def _backward(self, values: list[Shared], signs: dict[int, Bits], delta: Shared) -> dict[str, Shared]:
        """Gradients by parameter, summed over the batch, with 32 binary places."""
        deltas: dict[int, Shared] = {len(values) - 1: delta}
        gradients: dict[str, Shared] = {}

        def add(number: int, change: Shared) -> None:
            deltas[number] = deltas[number] + change if number in deltas else change

        for number in range(len(values) - 1, 0, -1):
            layer, delta = self.graph.layers[number], deltas.pop(number)
            source = layer.inputs[0]
            if layer.kind == "relu":
                add(source, select(signs[number], delta))
            elif layer.kind == "flatten":
                add(source, delta.reshape(*values[source].shape))
            elif layer.kind == "add":
                add(layer.inputs[0], delta)
                add(layer.inputs[1], delta)
            elif layer.kind in {"linear", "conv2d"}:
                below = self._weighted(layer, values[source], delta, gradients, needed=source > 0)
                if below is not None:
                    add(source, below)
            elif layer.kind == "average_pool":
                add(source, _spread(delta, values[source].shape, _window(layer)))
            else:
                raise ConfigurationError(
                    f"{layer.name or layer.kind!r} cannot be trained through on shares: use average pooling, and leave "
                    "softmax and sigmoid to the loss"
                )
        return gradients

    def _weighted(
        self, layer: Layer, x: Shared, delta: Shared, gradients: dict[str, Shared], needed: bool
    ) -> Shared | None:
        """Adds the gradients of weight and bias; gives δ of the input where it is needed."""
        weight = self.parameters[layer.parameters[0]]
        prepare(x, delta, weight)
        rows = x
        if layer.kind == "conv2d":
            delta = delta.transpose(0, 2, 3, 1).reshape(-1, weight.shape[1])
            rows = unfold(x, _window(layer))
        gradients[layer.parameters[0]] = matmul(rows.T, delta)
        if len(layer.parameters) == 2:
            gradients[layer.parameters[1]] = delta.sum(axis=0).widen(FRACTION)
        if not needed:
            return None
        below = matmul(delta, weight.T)
        if layer.kind == "conv2d":
            window, shape = _window(layer), x.shape
            below = below.linear(lambda part: fold(part, shape, window), shape)
        return truncate(below, below.fraction - FRACTION)

    def _step(self, gradients: dict[str, Shared], learning_rate: float, divisor: float, momentum: float) -> None:
        names = sorted(gradients)
        flat = concatenate([gradients[name].reshape(-1) for name in names])
        if momentum:
            mean = _scaled(flat, 1 / divisor)
            if self._velocity:
                before = concatenate([self._velocity[name].reshape(-1) for name in names])
                mean = mean + scale(before, momentum).widen(mean.fraction - 2 * FRACTION)
            flat = truncate(mean, mean.fraction - FRACTION)
            step = _scaled(flat, learning_rate)
        else:
            step = _scaled(flat, learning_rate / divisor)
        step = truncate(step, step.fraction - FRACTION)
        at = 0
        for name in names:
            parameter = self.parameters[name]
            piece = slice(at, at + parameter.size)
            if momentum:
                self._velocity[name] = flat[piece].reshape(*parameter.shape)
            self.parameters[name] = parameter - step[piece].reshape(*parameter.shape)
            at += parameter.size


def _window(layer: Layer) -> Window:
    if layer.window is None:
        raise ConfigurationError(f"{layer.name or layer.kind!r} has no window")
    return layer.window


def _scaled(x: Shared, factor: float) -> Shared:
    """Times a public number, rounded to 12 significant bits; a power of two is exact and costs no headroom."""
    mantissa, exponent = math.frexp(factor)
    whole = round(mantissa * 2**_RATE_BITS)
    if whole == 0:
        raise ConfigurationError("the learning rate must not be zero")
    while whole % 2 == 0:
        whole //= 2
        exponent += 1
    places = _RATE_BITS - exponent
    y: Shared = x * whole
    return y.with_fraction(x.fraction + places) if places > 0 else y.widen(-places).with_fraction(x.fraction)


def _spread(delta: Shared, shape: tuple[int, ...], window: Window) -> Shared:
    """δ through average pooling: each window's share back to its pixels."""
    height, width = window.size
    mean = truncate(scale(delta, 1 / (height * width), FRACTION), FRACTION)
    b, c, down, across = mean.shape

    def back(part: Array) -> Array:
        cells = np.broadcast_to(part[..., None, None], (b, c, down, across, height, width))
        return fold(cells.transpose(0, 2, 3, 1, 4, 5).reshape(b * down * across, -1), shape, window)

    return mean.linear(back, shape)
