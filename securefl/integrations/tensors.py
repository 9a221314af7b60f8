"""A model's tensors as an engine hands them over: which are summed, in which order, and their hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from securefl.encoding.fingerprint import model_hash
from securefl.encoding.layout import Layout, TensorSpec
from securefl.errors import FaultyServerError, InvalidInputError
from securefl.types import Tensors

__all__ = ["arrays_hash", "difference", "floating", "layout_of"]


def floating(tensors: Mapping[str, NDArray[Any]], keep: Sequence[str]) -> Tensors:
    """The tensors that are summed: all but ``keep``, by name, so that both sides have them in one order.

    Raises :class:`InvalidInputError` for tensors that are not of floats and not kept.
    """
    summed: Tensors = {}
    for name in sorted(tensors):
        if name in keep:
            continue
        if tensors[name].dtype.name not in ("float16", "float32", "float64"):
            raise InvalidInputError(
                f"the tensor {name!r} is of {tensors[name].dtype}, whose mean is not meant: name it in "
                "keep=…, and every party keeps the global model's"
            )
        summed[name] = tensors[name]
    return summed


def layout_of(tensors: Tensors) -> tuple[TensorSpec, ...]:
    """The specs of tensors to be summed."""
    return Layout.of(tensors).tensors


def arrays_hash(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """32 bytes over the whole model, whatever order it came in."""
    return model_hash({name: tensors[name] for name in sorted(tensors)})


def difference(
    before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]], layout: tuple[TensorSpec, ...]
) -> Tensors:
    """What was added to ``before``, of the tensors that ``layout`` names.

    Raises :class:`InvalidInputError` when the application changed names, shapes or types, and
    :class:`FaultyServerError` when ``layout`` describes another model than ``before``.
    """
    if set(after) != set(before):
        raise InvalidInputError("the application returned other tensors than it was given")
    keep = sorted(set(before) - {spec.name for spec in layout})
    old, new = floating(before, keep), floating(after, keep)
    if layout_of(old) != layout:
        raise FaultyServerError("the invitation describes another model than the one that came")
    if layout_of(new) != layout:
        raise InvalidInputError("the application changed the shape or type of a tensor")
    return {name: new[name] - old[name] for name in new}
