"""A public random rotation: signs, then a Hadamard transform of interleaved blocks.

Legend: m values, block length B = 2^p <= 1024, N = ceil(m / B) blocks, zeros up to B N. Value i belongs to block
i mod N and is entry floor(i / N) of it, so every block samples the whole vector at even distances: layers of
different magnitude spread over all blocks, which is what a permutation would be for, without its memory traffic.

    y = H_B D x,  D = diag(±1) from the public stream,  H_B / √B orthonormal (Sylvester order)

By the signs each y is sub-Gaussian with variance ‖x_block‖², whatever x is [Ailon–Chazelle 2009; Suresh et al.
2017 §3], so one clip range suits all. H_B = H_{2^a} ⊗ H_{2^b}: two products with matrices of at most 32 × 32 per
block. Nothing here scales: ``y`` is √B times the orthonormal transform, exact in float32 for small integers.

Work goes by groups of 64 blocks, which stay in the cache; the streams are read in the order of the work: group,
entry, block (SPEC: protocols/compression/SPEC.md §5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.public import bits
from securefl.types import Update

__all__ = ["LARGEST_BLOCK", "Rotation", "block_length"]

LARGEST_BLOCK: Final = 1024
_GROUP: Final = 64
_WORK: Final = 1 << 16

Block = NDArray[np.float32]


def block_length(size: int) -> int:
    """B: the largest power of two up to 1024 that pads ``size`` values by at most max(3, size / 32)."""
    length = LARGEST_BLOCK
    while -size % length > max(3, size // 32):
        length //= 2
    return length


def _sylvester(order: int) -> NDArray[np.float32]:
    matrix = np.ones((1, 1), dtype=np.float32)
    while matrix.shape[0] < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.ascontiguousarray(matrix)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The rotation of vectors of ``size`` values under the stream ``key``."""

    size: int
    key: bytes

    @property
    def block(self) -> int:
        """B."""
        return block_length(self.size)

    @property
    def blocks(self) -> int:
        """N."""
        return -(-self.size // self.block)

    @property
    def padded(self) -> int:
        """Values after the rotation, B N."""
        return self.block * self.blocks

    def groups(self) -> Iterator[tuple[slice, int]]:
        """The groups: the columns (blocks) of each, and where its values start in the order of the work."""
        width = max(_GROUP, _WORK // self.block)
        for start in range(0, self.blocks, width):
            yield slice(start, min(start + width, self.blocks)), start * self.block

    def forward(self, flat: Update) -> Iterator[tuple[slice, int, Block]]:
        """``y`` group by group: float32[B, columns], with its columns and its place in the order of the work."""
        whole, rest = divmod(self.size, self.blocks)
        table = flat[: whole * self.blocks].reshape(whole, self.blocks)
        for columns, place in self.groups():
            piece = np.zeros((self.block, columns.stop - columns.start), dtype=np.float32)
            piece[:whole] = table[:, columns]
            if rest > columns.start:
                last = flat[whole * self.blocks + columns.start : whole * self.blocks + min(rest, columns.stop)]
                piece[whole, : last.size] = last
            piece *= self._signs(place, piece.size).reshape(piece.shape)
            yield columns, place, self._transform(piece)

    def backward(self, columns: slice, place: int, y: Block, out: Update) -> None:
        """Write ``H_B^T``-transformed, sign-restored values of one group into ``out`` [size]; B times the inverse."""
        whole, rest = divmod(self.size, self.blocks)
        x = self._transform(y)
        x *= self._signs(place, x.size).reshape(x.shape)
        out[: whole * self.blocks].reshape(whole, self.blocks)[:, columns] = x[:whole]
        if rest > columns.start:
            last = out[whole * self.blocks + columns.start : whole * self.blocks + min(rest, columns.stop)]
            last[...] = x[whole, : last.size]

    def _signs(self, place: int, count: int) -> NDArray[np.float32]:
        signs = bits(self.key, place, count).astype(np.float32)
        signs *= -2.0
        signs += 1.0
        return signs

    def _transform(self, x: Block) -> Block:
        """H_B x over the rows of float32[B, columns]; symmetric, so it is its own transpose."""
        power = self.block.bit_length() - 1
        outer, inner = 1 << (power - power // 2), 1 << (power // 2)
        y = np.matmul(_MATRICES[outer], x.reshape(outer, -1)).reshape(outer, inner, -1)
        y = np.matmul(_MATRICES[inner], y)
        result: Block = y.reshape(x.shape)
        return result


_MATRICES: Final = {1 << p: _sylvester(1 << p) for p in range(6)}
