"""Running a network on shares, forwards and backwards. SPEC mpc §8.

Legend: δ of a layer is the gradient of the loss by its output, times what the mean over the batch divides by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.errors import ConfigurationError, InvalidInputError, LocalProtocolError
from securefl.mpc.bits import Bits
from securefl.mpc.convolution import (
    Window,
    average_pool,
    conv2d,
    conv2d_gradient,
    fold,
    max_pool_and_wins,
    max_pool_gradient,
)
from securefl.mpc.fixed import FRACTION
from securefl.mpc.functions import (
    one_hot,
    sigmoid,
    sigmoid_gradient,
    softmax,
    softmax_gradient,
    softmax_less_labels,
    to_fraction,
)
from securefl.mpc.graph import Graph, Layer
from securefl.mpc.operations import matmul, prepare, relu_and_sign, scale, select, truncate
from securefl.mpc.party import Array
from securefl.mpc.shared import Shared, concatenate

__all__ = ["LOSSES", "Network", "Pass"]

LOSSES = ("cross_entropy", "mse")
#: Layers that gradients pass by their output.
_KEPT: Final[Mapping[str, Callable[[Shared, Shared], Shared]]] = {
    "softmax": softmax_gradient,
    "sigmoid": sigmoid_gradient,
}
#: Significant bits of a learning rate over a batch size, when that is no power of two.
_RATE_BITS = 12


@dataclass(slots=True, eq=False)
class Pass:
    """What a forward pass leaves for its backward one, whenever that comes.

    ``shapes``: of every layer's values, the input's first. ``values``: by number of a weighted layer its input, of a
    softmax or sigmoid its output. ``chosen``: by number of a relu, which of its inputs were not negative; of a max
    pooling, who won in each round of its tournament. ``version``: of the weights.
    """

    shapes: list[tuple[int, ...]]
    values: dict[int, Shared]
    chosen: dict[int, tuple[Bits, ...]]
    version: int

    def tensors(self) -> list[Shared]:
        """The values, in order of their layers."""
        return [self.values[number] for number in sorted(self.values)]

    def bits(self) -> Iterator[Bits]:
        """All that chose, in order of their layers."""
        for number in sorted(self.chosen):
            yield from self.chosen[number]

    def map(self, change: Callable[[Shared], Shared], change_bits: Callable[[Bits], Bits]) -> Pass:
        """The same pass with every tensor replaced."""
        values = {number: change(tensor) for number, tensor in self.values.items()}
        chosen = {number: tuple(map(change_bits, several)) for number, several in self.chosen.items()}
        return Pass(self.shapes, values, chosen, self.version)


class Network:
    """A graph with its shared parameters, which :meth:`train` and :meth:`step` replace."""

    def __init__(self, graph: Graph, parameters: Mapping[str, Shared]) -> None:
        named = {name for layer in graph.layers for name in layer.parameters}
        if named != set(parameters):
            raise InvalidInputError("the parameters given are not those that the network names")
        self.graph = graph
        self.parameters = dict(parameters)
        self._velocity: dict[str, Shared] = {}
        self._gradients: dict[str, Shared] = {}
        self._spent: dict[str, Shared] = {}
        #: Of a bias what :meth:`_widened` gave, with what it was made of.
        self._wide: dict[str, tuple[Shared, Shared]] = {}
        self._version = 0

    @property
    def gradients(self) -> Mapping[str, Shared]:
        """What :meth:`backward` has added up since the last step, by parameter."""
        return self._gradients

    def tensors(self) -> list[Shared]:
        """Parameters, velocities of training with momentum and gradients not used yet, in order of their names."""
        kinds = (self.parameters, self._velocity, self._gradients)
        return [kept[name] for kept in kinds for name in sorted(kept)]

    def map(self, change: Callable[[Shared], Shared]) -> Network:
        """The same network with every tensor replaced."""
        other = Network(self.graph, {name: change(tensor) for name, tensor in self.parameters.items()})
        other._velocity = {name: change(tensor) for name, tensor in self._velocity.items()}
        other._gradients = {name: change(tensor) for name, tensor in self._gradients.items()}
        other._spent = {name: change(tensor) for name, tensor in self._spent.items()}
        other._version = self._version
        return other

    def forward(self, x: Shared) -> Shared:
        """The output. Where it is a product it is left untruncated, with the binary places of a product."""
        return self._run(x)[0][-1]

    def _run(self, x: Shared) -> tuple[list[Shared], dict[int, tuple[Bits, ...]]]:
        values: list[Shared] = []
        chosen: dict[int, tuple[Bits, ...]] = {}

        def narrow(number: int) -> Shared:
            values[number] = to_fraction(values[number], FRACTION)
            return values[number]

        for number, layer in enumerate(self.graph.layers):
            if layer.kind == "input":
                values.append(x)
            elif layer.kind == "relu":
                before = values[layer.inputs[0]]
                result, sign = relu_and_sign(before, before.fraction - FRACTION)
                values.append(result)
                chosen[number] = (sign,)
            elif layer.kind == "max_pool":  # comparisons need no truncation: it is left to whoever takes the maxima
                result, chosen[number] = max_pool_and_wins(values[layer.inputs[0]], _window(layer))
                values.append(result)
            elif layer.kind == "flatten":
                before = values[layer.inputs[0]]
                values.append(before.reshape(before.shape[0], math.prod(before.shape[1:])))
            else:
                values.append(self._apply(layer, [narrow(i) for i in layer.inputs]))
        return values, chosen

    def _apply(self, layer: Layer, inputs: list[Shared]) -> Shared:
        x = inputs[0]
        if layer.kind in {"linear", "conv2d"}:
            weight = self.parameters[layer.parameters[0]]
            if layer.kind == "linear":
                y = matmul(x, weight)
            else:
                y = conv2d(x, weight, _window(layer))
            if len(layer.parameters) == 2:
                bias = self._widened(layer.parameters[1], y.fraction)
                y = y + (bias if layer.kind == "linear" else bias.reshape(bias.shape[0], 1, 1))
            return y
        if layer.kind == "average_pool":
            return average_pool(x, _window(layer))
        if layer.kind == "add":
            return x + inputs[1]
        if layer.kind == "softmax":
            return softmax(x)
        if layer.kind == "sigmoid":
            return sigmoid(x)
        raise ConfigurationError(f"a network cannot have a layer of kind {layer.kind!r}")

    def _widened(self, name: str, fraction: int) -> Shared:
        """A parameter with more binary places; kept for as long as it is the same."""
        parameter = self.parameters[name]
        before, wide = self._wide.get(name, (None, None))
        if before is parameter and wide is not None and wide.fraction == fraction:
            return wide
        wide = parameter.widen(fraction - FRACTION)
        if not parameter.unsettled:  # what is settled later changes where it stands
            self._wide[name] = parameter, wide
        return wide

    # ---- training

    def train(self, x: Shared, targets: Shared, loss: str, learning_rate: float, momentum: float = 0.0) -> None:
        """One step of stochastic gradient descent on the mean loss over the rows of ``x``.

        ``targets``: class numbers [rows] without binary places, or values of the output's shape. ``loss``: one of
        :data:`LOSSES`. Raises :class:`ConfigurationError` for another, :class:`InvalidInputError` for other targets.
        """
        if loss not in LOSSES:
            raise ConfigurationError(f"the loss is one of {', '.join(LOSSES)}, not {loss!r}")
        output, kept = self.begin(x)
        output = to_fraction(output, FRACTION)
        numbers = len(targets.shape) == 1 and targets.fraction == 0
        if (*targets.shape, output.shape[1]) != output.shape if numbers else targets.shape != output.shape:
            raise InvalidInputError(f"targets of shape {list(targets.shape)} for outputs of {list(output.shape)}")
        if loss == "cross_entropy":
            delta = softmax_less_labels(output, targets) if numbers else softmax(output) - targets
            divisor = float(output.shape[0])
        else:
            delta = output - (one_hot(targets, output.shape[1]) if numbers else targets)
            divisor = output.size / 2
        waiting, self._gradients = self._gradients, {}
        self._backward(kept, delta, to_input=False)
        self.step(learning_rate, divisor, momentum)
        self._gradients = waiting

    def begin(self, x: Shared) -> tuple[Shared, Pass]:
        """:meth:`forward`, and what :meth:`backward` needs of it."""
        values, chosen = self._run(x)
        kept: dict[int, Shared] = {}
        for number, layer in enumerate(self.graph.layers):
            if layer.parameters:
                kept[number] = values[layer.inputs[0]]
            elif layer.kind in _KEPT:
                kept[number] = values[number]
        return values[-1], Pass([value.shape for value in values], kept, chosen, self._version)

    def backward(self, kept: Pass, delta: Shared) -> Shared:
        """Add up the gradients of all parameters, given that of the output; gives the one of the input.

        ``delta``: of the output's shape, 16 binary places, as the result. Nothing is averaged: gradients are those of
        whatever ``delta`` is the gradient of, and :meth:`step` divides. Raises :class:`InvalidInputError` for another
        ``delta``, :class:`LocalProtocolError` where the weights have moved since the forward pass.
        """
        if delta.shape != kept.shapes[-1] or delta.fraction != FRACTION:
            raise InvalidInputError(
                f"the gradient of the output is {list(kept.shapes[-1])} with {FRACTION} binary places, "
                f"got {list(delta.shape)} with {delta.fraction}"
            )
        if kept.version != self._version and not delta.party.is_helper:
            raise LocalProtocolError(
                "the weights have moved since that forward pass: go backward through every pass before the step"
            )
        below = self._backward(kept, delta, to_input=True)
        if below is None:
            raise AssertionError("asked for")
        return below

    def _backward(self, kept: Pass, delta: Shared, *, to_input: bool) -> Shared | None:
        """Adds to the gradients by parameter, as products give them; gives δ of the input where it is asked for."""
        shapes = kept.shapes
        deltas: dict[int, Shared] = {len(shapes) - 1: delta}

        def add(number: int, change: Shared) -> None:
            deltas[number] = deltas[number] + change if number in deltas else change

        for number in range(len(shapes) - 1, 0, -1):
            if number not in deltas:  # the output does not depend on it
                continue
            layer, delta = self.graph.layers[number], deltas.pop(number)
            source = layer.inputs[0]
            if layer.kind == "relu":
                add(source, select(kept.chosen[number][0], delta))
            elif layer.kind == "max_pool":
                add(source, max_pool_gradient(kept.chosen[number], delta, shapes[source], _window(layer)))
            elif layer.kind in _KEPT:
                add(source, _KEPT[layer.kind](kept.values[number], delta))
            elif layer.kind == "flatten":
                add(source, delta.reshape(*shapes[source]))
            elif layer.kind == "add":
                add(layer.inputs[0], delta)
                add(layer.inputs[1], delta)
            elif layer.kind in {"linear", "conv2d"}:
                below = self._weighted(layer, kept.values[number], delta, needed=to_input or source > 0)
                if below is not None:
                    add(source, below)
            else:  # average pooling
                add(source, _spread(delta, shapes[source], _window(layer)))
        return deltas.get(0)

    def _weighted(self, layer: Layer, x: Shared, delta: Shared, needed: bool) -> Shared | None:
        """Adds to the gradients of weight and bias; gives δ of the input where it is needed."""
        weight = self.parameters[layer.parameters[0]]
        prepare(x, delta, weight)
        if layer.kind == "conv2d":
            delta = delta.transpose(0, 2, 3, 1).reshape(-1, weight.shape[1])
            gradient = conv2d_gradient(x, delta, _window(layer))
        else:
            gradient = matmul(x.T, delta)
        self._accumulate(layer.parameters[0], gradient)
        if len(layer.parameters) == 2:
            self._accumulate(layer.parameters[1], delta.sum(axis=0).widen(gradient.fraction - delta.fraction))
        if not needed:
            return None
        below = matmul(delta, weight.T)
        if layer.kind == "conv2d":
            window, shape = _window(layer), x.shape
            below = below.linear(lambda part: fold(part, shape, window), shape)
        return truncate(below, below.fraction - FRACTION)

    def _accumulate(self, name: str, gradient: Shared) -> None:
        before = self._gradients.get(name)
        self._gradients[name] = gradient if before is None else before + gradient

    def step(self, learning_rate: float, divisor: float, momentum: float = 0.0, *, narrow: bool = False) -> None:
        """One step of stochastic gradient descent with all gradients since the last one, over ``divisor``.

        ``narrow``: give up places of the gradients before a factor of 12 bits instead of headroom; one round more.
        Raises :class:`LocalProtocolError` where there are no gradients.
        """
        gradients, self._gradients = self._gradients, {}
        if not gradients and self._spent:  # at the helper, after an audit of this very step, of which it knows nothing
            gradients = self._spent
        if not gradients:
            raise LocalProtocolError("there is no gradient to step by: go backward first")
        self._version += 1
        if (party := next(iter(gradients.values())).party).is_helper:
            self._spent = {name: Shared(party, value.shape, value.fraction) for name, value in gradients.items()}
        names = sorted(gradients)
        flat = concatenate([gradients[name].reshape(-1) for name in names])
        if narrow:
            flat = truncate(flat, _RATE_BITS)
        if momentum:
            mean = _scaled(flat, 1 / divisor)
            mean = mean.widen(max(0, 2 * FRACTION - mean.fraction))
            if self._velocity:
                before = concatenate([self._velocity[name].reshape(-1) for name in names])
                mean = mean + scale(before, momentum).widen(mean.fraction - 2 * FRACTION)
            flat = truncate(mean, mean.fraction - FRACTION)
            step = _scaled(flat, learning_rate)
        else:
            step = _scaled(flat, learning_rate / divisor)
        step = to_fraction(step, FRACTION)  # a rate of 1 or another power of two has nothing to drop
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
