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

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.primitives.prg import Keystream
from securefl.types import Update

__all__ = ["LARGEST_BLOCK", "Block", "Rotation", "block_length"]

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
        """``y`` group by group: float32[B, columns], with its columns and its place in the order of the work.

        ``y`` may be changed; it lives until the next group is asked for, in the same memory.
        """
        whole, rest = divmod(self.size, self.blocks)
        table = flat[: whole * self.blocks].reshape(whole, self.blocks)
        work = _Work(self)
        for columns, place in self.groups():
            piece = work.block(columns)
            piece[:whole] = table[:, columns]
            piece[whole:] = 0
            if rest > columns.start:
                last = flat[whole * self.blocks + columns.start : whole * self.blocks + min(rest, columns.stop)]
                piece[whole, : last.size] = last
            work.negate(piece)
            work.transform(piece)
            yield columns, place, piece

    def backward(self, source: Callable[[slice, Block], object], out: Update, factor: np.float32) -> None:
        """Write ``factor`` times B times the inverse of ``y`` to ``out``, float32[size], contiguous or not.

        ``source(columns, block)``: writes the group's ``y`` to ``block``, float32[B, columns]. A group's values go
        to the same places of a table [B, N] as its ``y`` came from, after these were read.
        """
        whole, rest = divmod(self.size, self.blocks)
        table = out[: whole * self.blocks].reshape(whole, self.blocks)
        work = _Work(self)
        for columns, _ in self.groups():
            piece = work.block(columns)
            source(columns, piece)
            work.transform(piece)
            piece *= factor
            work.negate(piece)
            table[:, columns] = piece[:whole]
            if rest > columns.start:
                last = out[whole * self.blocks + columns.start : whole * self.blocks + min(rest, columns.stop)]
                last[...] = piece[whole, : last.size]


class _Work:
    """Buffers of one group, which stay in the cache, and the sign stream, read in the order of the work."""

    def __init__(self, rotation: Rotation) -> None:
        power = rotation.block.bit_length() - 1
        self._outer, self._inner = 1 << (power - power // 2), 1 << (power // 2)
        widest = min(rotation.blocks, max(_GROUP, _WORK // rotation.block)) * rotation.block
        self._rows = rotation.block
        self._signs = Keystream(rotation.key)
        self._one, self._two = np.empty(widest, dtype=np.float32), np.empty(widest, dtype=np.float32)

    def block(self, columns: slice) -> Block:
        """float32[B, columns], the same memory every time."""
        width = columns.stop - columns.start
        return self._one[: self._rows * width].reshape(self._rows, width)

    def negate(self, x: Block) -> None:
        """Multiply by the next ``x.size`` signs of the stream."""
        words = np.empty(-(-x.size // 64), dtype="<u8")
        self._signs.fill(words)
        signs = self._two[: x.size]
        if x.size % 8:
            signs[...] = _SIGNS.take(words.view(np.uint8), axis=0).reshape(-1)[: x.size]
        else:
            octets = words.view(np.uint8)[: x.size // 8]
            _SIGNS.take(octets, axis=0, out=signs.reshape(-1, 8), mode="clip")  # "raise" would buffer the output
        x *= signs.reshape(x.shape)

    def transform(self, x: Block) -> None:
        """H_B x over the rows, in place; symmetric, so it is its own transpose."""
        between = self._two[: x.size]
        np.matmul(_MATRICES[self._outer], x.reshape(self._outer, -1), out=between.reshape(self._outer, -1))
        shape = (self._outer, self._inner, -1)
        np.matmul(_MATRICES[self._inner], between.reshape(shape), out=x.reshape(shape))


_MATRICES: Final = {1 << p: _sylvester(1 << p) for p in range(6)}
#: The signs of eight values by the octet of the stream that holds their bits, lowest first.
_SIGNS: Final = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").astype(
    np.float32
)
