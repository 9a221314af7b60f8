"""Whether training on shares stays within the headroom, decided before anything is shared. SPEC mpc §8.

The forward pass is :func:`~securefl.mpc.graph.check_headroom`'s; here are δ and the gradients of the weights, from the
declared largest input, the declared largest gradient at the output and the number of examples of a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.mpc.fixed import HEADROOM_BITS, PRODUCT_FRACTION
from securefl.mpc.graph import Graph, Layer, check_headroom

__all__ = ["check_training"]

#: In the places of a product, of which comparisons subtract two.
_LARGEST = 2.0 ** (HEADROOM_BITS - 1 - PRODUCT_FRACTION)
#: What is left of the largest δ behind a layer: s(1 − s) is at most 1/4 whatever the error of s; of softmax it is
#: 2s(1 − s) and at most a hundred errors below 1e-4.
_SHRINKING: Final = {"sigmoid": 0.25, "softmax": 0.51}
Shape = tuple[int, ...]


def check_training(
    graph: Graph,
    parameters: Mapping[str, NDArray[np.float64]],
    *,
    input_shape: Sequence[int],
    input_range: float,
    gradient_range: float,
    examples: int,
    momentum: float = 0.0,
    growth_bits: int = 0,
) -> float:
    """The largest size of an output within the promise. Raises :class:`ConfigurationError` naming what breaks it.

    ``input_shape``: of one example. ``input_range``, ``gradient_range``: no larger value comes in, or as a gradient at
    the output. ``examples``: most that one step is made from. ``momentum``: of the steps. ``growth_bits``: the check
    still holds when training has made all weights 2^this times as large.
    """
    grown = Graph(tuple(_grown(layer, growth_bits) for layer in graph.layers))
    bounds = check_headroom(grown, input_range)
    shapes = _shapes(graph, parameters, tuple(input_shape))
    deltas = [0.0] * len(bounds)
    deltas[-1] = gradient_range
    for number in range(len(bounds) - 1, 0, -1):
        layer, delta = graph.layers[number], deltas[number]
        if layer.parameters:
            rows = examples * (math.prod(shapes[number][1:]) if layer.kind == "conv2d" else 1)
            _fits(layer, "the step of the weights", rows * delta * max(bounds[layer.inputs[0]], 1.0) / (1 - momentum))
            weight = np.abs(parameters[layer.parameters[0]]).sum(axis=1)
            if layer.window is not None:  # overlapping windows add up at a pixel
                weight = weight.reshape(-1, math.prod(layer.window.size)).sum(axis=1)
            delta *= float(weight.max()) * 2.0**growth_bits
            _fits(layer, "the gradient at its input", delta)
        elif layer.kind == "max_pool" and layer.window is not None:  # a pixel may be the largest of all windows over it
            window = layer.window
            delta *= math.prod(math.ceil(size / step) for size, step in zip(window.size, window.stride, strict=True))
        elif layer.kind in _SHRINKING:
            _fits(layer, "the gradient at its output", delta)
            delta *= _SHRINKING[layer.kind]
        for source in layer.inputs:
            deltas[source] += delta
            _fits(layer, "the gradient at its input", deltas[source])
    return bounds[-1]


def _grown(layer: Layer, bits: int) -> Layer:
    return replace(layer, gain=layer.gain + bits, offset=layer.offset + bits) if layer.parameters else layer


def _fits(layer: Layer, what: str, size: float) -> None:
    if size >= _LARGEST:
        raise ConfigurationError(
            f"{what} of {layer.name or layer.kind!r} could reach {size:.3g}, and {HEADROOM_BITS} bits hold "
            f"{_LARGEST:.3g} there: state smaller ranges, or make batches smaller"
        )


def _shapes(graph: Graph, parameters: Mapping[str, NDArray[np.float64]], input_shape: Shape) -> list[Shape]:
    """Of one example's values, by layer."""
    shapes: list[Shape] = []
    for layer in graph.layers:
        before = shapes[layer.inputs[0]] if layer.inputs else input_shape
        if layer.window is not None:
            if len(before) != 3:
                raise ConfigurationError(f"{layer.name or layer.kind!r} takes images, and gets {list(before)}")
            channels = parameters[layer.parameters[0]].shape[1] if layer.parameters else before[0]
            before = (channels, *layer.window.output(*before[1:]))
        elif layer.kind == "linear":
            if len(before) != 1 or parameters[layer.parameters[0]].shape[0] != before[0]:
                raise ConfigurationError(f"{layer.name or layer.kind!r} does not fit values of shape {list(before)}")
            before = (parameters[layer.parameters[0]].shape[1],)
        elif layer.kind == "flatten":
            before = (math.prod(before),)
        shapes.append(before)
    return shapes
