"""The hash that names a model: what clients are bound to, so that those with different models never cancel."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["model_hash"]


def model_hash(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """32 bytes: SHA-256 over the schema and the values.

    Per tensor, in order: the name, the dtype, the shape (each with its length), the bytes little-endian and row by
    row. Equal hashes mean equal names, order, shapes, dtypes and bits (so 0.0 and -0.0 differ).
    """
    digest = hashlib.sha256(b"securefl model v1")
    digest.update(len(tensors).to_bytes(8, "big"))
    for name, tensor in tensors.items():
        little = np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<"))
        schema = f"{little.dtype.str} {'x'.join(map(str, tensor.shape))}"
        for text in (name, schema):
            encoded = text.encode("utf-8")
            digest.update(len(encoded).to_bytes(8, "big") + encoded)
        digest.update(little.data)
    return digest.digest()
