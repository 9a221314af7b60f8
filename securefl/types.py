"""Identifiers and array aliases shared by every layer (standard library and numpy only)."""

from __future__ import annotations

from typing import Final, NewType, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SERVER", "ClientId", "IntegerVector", "PartyId", "RingVector", "Tensors", "Update"]

#: A party on the wire: 0 is the server, clients are 1 .. 2**32 - 1.
PartyId = NewType("PartyId", int)
ClientId: TypeAlias = PartyId

SERVER: Final = PartyId(0)

#: uint64[d]: one integer per value of an update, each at most the protection's ``max_value``.
IntegerVector: TypeAlias = NDArray[np.uint64]
#: uint64[words]: packed lanes, arithmetic modulo 2**64.
RingVector: TypeAlias = NDArray[np.uint64]
#: float32[d] or float64[d]: a flat update.
Update: TypeAlias = NDArray[np.floating]
#: Named tensors of a model, in the model's own order.
Tensors: TypeAlias = "dict[str, NDArray[np.floating]]"
