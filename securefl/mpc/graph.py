"""A network as data: layers that every party knows, without weights. SPEC mpc §8.

A graph comes over a wire, so it is read strictly: known kinds, inputs that exist, no other fields. Whether values can
leave the headroom is decided here, before anything is computed (:func:`check_headroom`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from securefl.errors import ConfigurationError, DecodeError
from securefl.mpc.convolution import Window
from securefl.mpc.fixed import FRACTION, HEADROOM_BITS, PRODUCT_FRACTION

__all__ = ["KINDS", "Graph", "Layer", "check_headroom"]

#: Kind of a layer → how many inputs it has.
KINDS: Final = {
    "input": 0,
    "linear": 1,
    "conv2d": 1,
    "relu": 1,
    "max_pool": 1,
    "average_pool": 1,
    "flatten": 1,
    "add": 2,
    "softmax": 1,
    "sigmoid": 1,
}
_WINDOWED: Final = {"conv2d", "max_pool", "average_pool"}
_WEIGHTED: Final = {"linear", "conv2d"}
MAX_LAYERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation. ``inputs``: numbers of earlier layers. ``name``: where it stands in the owner's model.

    ``parameters``: of linear and conv2d, the names of weight and bias (or of the weight alone); a weight is
    [inputs, outputs], a convolution's [channels·height·width, filters]. ``gain``: |outputs| <= 2^gain · |inputs| +
    2^offset for the largest values, a promise of the model's owner (see :func:`check_headroom`).
    """

    kind: str
    inputs: tuple[int, ...] = ()
    name: str = ""
    parameters: tuple[str, ...] = ()
    window: Window | None = None
    gain: int = 0
    offset: int = 0

    def to_data(self) -> dict[str, Any]:
        data: dict[str, Any] = {"kind": self.kind, "inputs": list(self.inputs), "name": self.name}
        if self.kind in _WEIGHTED:
            data |= {"parameters": list(self.parameters), "gain": self.gain, "offset": self.offset}
        if self.window is not None:
            data["window"] = [*self.window.size, *self.window.stride, *self.window.padding]
        return data

    @classmethod
    def from_data(cls, data: object, number: int) -> Layer:
        """Raises :class:`DecodeError` for anything but what :meth:`to_data` gives."""
        if not isinstance(data, Mapping) or data.get("kind") not in KINDS:
            raise DecodeError(f"layer {number} of the network is of no known kind")
        kind = data["kind"]
        fields = {"kind", "inputs", "name"}
        fields |= {"parameters", "gain", "offset"} if kind in _WEIGHTED else set()
        fields |= {"window"} if kind in _WINDOWED else set()
        if set(data) != fields:
            raise DecodeError(f"layer {number} of the network, a {kind}, has other fields than {sorted(fields)}")
        inputs, name = _integers(data["inputs"], 0, number - 1), data["name"]
        if len(inputs) != KINDS[kind] or not isinstance(name, str):
            raise DecodeError(f"layer {number} of the network, a {kind}, has {KINDS[kind]} input(s) and a name")
        window = None
        if kind in _WINDOWED:
            numbers = _integers(data["window"], 0, 1 << 16)
            if len(numbers) != 6 or not all(numbers[:4]):
                raise DecodeError(f"the window of layer {number} has six sizes")
            window = Window((numbers[0], numbers[1]), (numbers[2], numbers[3]), (numbers[4], numbers[5]))
        if kind not in _WEIGHTED:
            return cls(kind, inputs, name, (), window)
        parameters = data["parameters"]
        if not (
            isinstance(parameters, Sequence)
            and 1 <= len(parameters) <= 2
            and all(isinstance(p, str) for p in parameters)
        ):
            raise DecodeError(f"layer {number} of the network, a {kind}, names a weight and perhaps a bias")
        gain, offset = _integers([data["gain"], data["offset"]], -64, 64)
        return cls(kind, inputs, name, tuple(parameters), window, gain, offset)


def _integers(data: object, low: int, high: int) -> tuple[int, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise DecodeError("a list of integers is due")
    if not all(type(value) is int and low <= value <= high for value in data):
        raise DecodeError(f"integers from {low} to {high} are due")
    return tuple(data)


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in order; the first is the only input, the last the output."""

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        kinds = [layer.kind for layer in self.layers]
        if len(kinds) < 2 or kinds[0] != "input" or "input" in kinds[1:]:
            raise DecodeError("a network begins with its one input, and does something with it")

    def to_data(self) -> list[dict[str, Any]]:
        return [layer.to_data() for layer in self.layers]

    @classmethod
    def from_data(cls, data: object) -> Graph:
        if not isinstance(data, list) or len(data) > MAX_LAYERS:
            raise DecodeError(f"a network is a list of at most {MAX_LAYERS} layers")
        return cls(tuple(Layer.from_data(layer, number) for number, layer in enumerate(data)))


def check_headroom(graph: Graph, input_range: float) -> tuple[float, ...]:
    """The largest size of each layer's values, when no input is larger than ``input_range``.

    Raises :class:`ConfigurationError` naming the layer where a product could reach 2^62 in units of its last place:
    then truncation and comparison could fail, silently.
    """
    bounds: list[float] = []
    for layer in graph.layers:
        before = [bounds[i] for i in layer.inputs]
        places = FRACTION
        if layer.kind == "input":
            bound = input_range
        elif layer.kind in _WEIGHTED:
            bound, places = 2.0**layer.gain * before[0] + 2.0**layer.offset, PRODUCT_FRACTION
        elif layer.kind == "add":
            bound = sum(before)
        elif layer.kind in {"softmax", "sigmoid"}:
            bound = 1.0
        else:
            bound, places = before[0], 2 * FRACTION if layer.kind == "average_pool" else FRACTION
        # Comparisons subtract two values, and a rounding may add one unit.
        if 2 * bound * 2.0**places + 2 >= 2.0**HEADROOM_BITS:
            raise ConfigurationError(
                f"values of {layer.name or layer.kind!r} could reach {bound:.3g}, and {HEADROOM_BITS} bits hold "
                f"{2.0 ** (HEADROOM_BITS - 1 - places):.3g} there: normalise what comes before or state a smaller range"
            )
        bounds.append(bound)
    return tuple(bounds)
