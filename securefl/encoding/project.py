"""Random projection: a fraction of the entries of a public random rotation.

Legend: d values, rotation R (``hadamard``, orthonormal), k of its entries kept (``sparsify.random_support``). Sent is
y = S R x, and R^T S^T y is the projection of x onto k random orthonormal directions (with padding: a contraction, since
what falls on the padding is cut off). Compared with random-k the
energy kept is close to k/d for every x, however spiky. Without error feedback it is scaled up to be unbiased, with
E‖x̂ − x‖² ≈ (d/k − 1) ‖x‖². [Ailon–Chazelle 2009, subsampled randomized Hadamard transform]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Shapes, size_of
from securefl.encoding.hadamard import Rotation
from securefl.encoding.public import PublicRandomness
from securefl.encoding.sparsify import RandomSupport, kept_count, random_support
from securefl.types import Update

__all__ = ["RandomProjection"]


@dataclass(frozen=True, slots=True)
class RandomProjection(RandomSupport):
    """Keep ``fraction`` of the rotated values. ``unbiased``: scale up instead of relying on error feedback."""

    NAME = "random_projection"

    def at(self, shapes: Shapes, public: PublicRandomness, state: Sequence[NDArray[np.float32]] = ()) -> _Projection:
        rotation = Rotation(size_of(shapes), public.key("projection rotation"))
        kept = kept_count(rotation.size, self.fraction)
        positions, sizes = random_support(rotation.padded, kept, public, "projection support")
        return _Projection(rotation, positions, sizes.astype(np.float32) if self.unbiased else None)


@dataclass(frozen=True, slots=True)
class _Projection:
    rotation: Rotation = field(repr=False)
    positions: NDArray[np.int64] = field(repr=False)
    factors: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.positions.size,)

    @property
    def _norm(self) -> np.float32:
        return np.float32(1 / math.sqrt(self.rotation.block))

    def project(self, flat: Update, at: int) -> Update:
        rotated = np.empty((self.rotation.block, self.rotation.blocks), dtype=np.float32)
        for columns, _, y in self.rotation.forward(flat):
            rotated[:, columns] = y
        kept: Update = rotated.reshape(-1)[self.positions]
        kept *= self._norm
        return kept

    def observe(self, at: int, mean: Update) -> None:
        """Nothing is carried over."""

    def expand(self, mean: Update) -> Update:
        rotated = np.zeros(self.rotation.padded, dtype=np.float32)
        rotated[self.positions] = mean if self.factors is None else mean * self.factors
        rotated *= self._norm
        table = rotated.reshape(self.rotation.block, self.rotation.blocks)
        flat = np.empty(self.rotation.size, dtype=np.float32)
        self.rotation.backward(lambda columns, block: np.copyto(block, table[:, columns]), flat, np.float32(1))
        return flat

    def state(self) -> Sequence[NDArray[np.float32]]:
        return ()
