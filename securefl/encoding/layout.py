"""Named tensors ↔ one flat vector. The schema hash names the order, shapes and dtypes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securefl.errors import InvalidInputError
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import Tensors, Update

__all__ = ["Layout", "TensorSpec"]

_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its name, shape and dtype (float16, float32 or float64)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """The order in which a model's tensors stand in the flat vector; equal layouts have equal :attr:`schema_hash`."""

    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.floating]]) -> Layout:
        """The layout of these tensors, in their own order.

        Raises :class:`InvalidInputError` for no values at all or a tensor that is not of floats.
        """
        specs = []
        for name, tensor in tensors.items():
            kind = getattr(tensor, "dtype", type(tensor).__name__)
            if str(kind) not in _DTYPES:
                raise InvalidInputError(f"tensor {name!r} must be a float array ({', '.join(_DTYPES)}), got {kind}")
            specs.append(TensorSpec(name, tuple(tensor.shape), tensor.dtype.name))
        layout = cls(tuple(specs))
        if layout.dimension == 0:
            raise InvalidInputError("there are no values to sum: every tensor is empty")
        return layout

    @property
    def dimension(self) -> int:
        """Values in the flat vector."""
        return sum(spec.size for spec in self.tensors)

    @property
    def schema_hash(self) -> bytes:
        """32 bytes over names, shapes and dtypes, in order."""
        fields: list[bytes] = []
        for spec in self.tensors:
            shape = b"".join(axis.to_bytes(8, "big") for axis in spec.shape)
            fields += [spec.name.encode(), shape, spec.dtype.encode()]
        return tuple_hash(Label.SCHEMA, *fields)

    def flatten(self, tensors: Mapping[str, NDArray[np.floating]]) -> Update:
        """The flat vector, in the widest dtype of the layout. One copy is made.

        Raises :class:`InvalidInputError` when the tensors do not have exactly this layout, naming what differs.
        """
        if list(tensors) != [spec.name for spec in self.tensors]:
            raise InvalidInputError(f"the tensors are {list(tensors)}, expected {[spec.name for spec in self.tensors]}")
        flat = np.empty(self.dimension, dtype=np.result_type(np.float32, *(spec.dtype for spec in self.tensors)))
        start = 0
        for spec in self.tensors:
            tensor = tensors[spec.name]
            if not isinstance(tensor, np.ndarray):
                raise InvalidInputError(f"tensor {spec.name!r} must be a numpy array, got {type(tensor).__name__}")
            if tuple(tensor.shape) != spec.shape or tensor.dtype.name != spec.dtype:
                raise InvalidInputError(
                    f"tensor {spec.name!r} is {tensor.dtype.name}{list(tensor.shape)}, "
                    f"expected {spec.dtype}{list(spec.shape)}"
                )
            flat[start : start + spec.size].reshape(spec.shape)[...] = tensor
            start += spec.size
        return flat

    def unflatten(self, flat: Update) -> Tensors:
        """The tensors of a flat vector, each in its own dtype."""
        if flat.shape != (self.dimension,):
            raise InvalidInputError(f"expected a flat vector of {self.dimension} values, got shape {flat.shape}")
        tensors: Tensors = {}
        start = 0
        for spec in self.tensors:
            tensors[spec.name] = flat[start : start + spec.size].reshape(spec.shape).astype(spec.dtype)
            start += spec.size
        return tensors
