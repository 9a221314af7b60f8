"""PowerSGD: the best public rank-r approximation that two dependent sums find.

Legend: tensor l as a matrix M (m × n: first axis by the rest), rank r, Q (n × r) public.

    sum 1   P = mean of M_i Q;   P̂ = its columns made orthonormal (Gram–Schmidt, in double, in order)
    sum 2   Q' = mean of M_i^T P̂;   the estimate is P̂ Q'^T = P̂ P̂^T M̄, and Q' is the next round's Q

Both sums are linear in the updates. Tensors with one axis, or where r (m + n) >= m n, go whole, in the second sum.
Error: ‖(I − P̂P̂^T) M̄‖², fed back per client. Values per client: Σ r m in the first sum, Σ r n + the rest in the
second. [Vogels et al. 2019, "PowerSGD", Algorithm 1]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Shapes
from securefl.encoding.public import PublicRandomness, halves
from securefl.errors import ConfigurationError
from securefl.types import Update

__all__ = ["PowerSGD"]

#: A column this much smaller than the largest carries no direction.
_NEGLIGIBLE: Final = 1e-6

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PowerSGD:
    """``rank`` r, at least 1. Raises :class:`ConfigurationError` when no tensor gets smaller at that rank."""

    rank: int

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigurationError(f"rank must be at least 1, got {self.rank}")

    @property
    def name(self) -> str:
        return "powersgd"

    @property
    def sums(self) -> int:
        return 2

    @property
    def drops(self) -> bool:
        return True

    def describe(self) -> str:
        return f"powersgd(rank={self.rank})"

    def at(self, shapes: Shapes, public: PublicRandomness, state: Sequence[NDArray[np.float32]] = ()) -> _Factors:
        plan = tuple(_part(shape, self.rank) for shape in shapes)
        if not any(part.low_rank for part in plan):
            raise ConfigurationError(f"rank = {self.rank} makes no tensor of this model smaller")
        fresh = _fresh(plan, self.rank, public)
        if state and [q.shape for q in state] != [q.shape for q in fresh]:
            raise ConfigurationError("the model has changed its shape since the last round")
        bases = [_revived(old, new) for old, new in zip(state, fresh, strict=True)] if state else fresh
        return _Factors(plan, self.rank, bases)


@dataclass(frozen=True, slots=True)
class _Part:
    rows: int
    columns: int
    low_rank: bool

    @property
    def size(self) -> int:
        return self.rows * self.columns


def _part(shape: tuple[int, ...], rank: int) -> _Part:
    rows, columns = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (math.prod(shape), 1)
    return _Part(rows, columns, rank * (rows + columns) < rows * columns)


def _fresh(plan: Sequence[_Part], rank: int, public: PublicRandomness) -> list[Matrix]:
    """Public start: numbers uniform in [−1, 1), in order of the tensors, row by row."""
    sizes = [part.columns * rank for part in plan if part.low_rank]
    draws = halves(public.key("powersgd"), 0, sum(sizes)).astype(np.float64) * 2.0**-31 - 1.0
    pieces = np.split(draws.astype(np.float32), np.cumsum(sizes)[:-1])
    return [piece.reshape(-1, rank) for piece in pieces]


def _revived(old: Matrix, fresh: Matrix) -> Matrix:
    """``old`` with its negligible columns replaced: a column of zeros would stay one for good."""
    norms = np.sqrt(np.einsum("ij,ij->j", old, old, dtype=np.float64))
    dead = norms <= _NEGLIGIBLE * norms.max()
    return np.where(dead, fresh, old) if dead.any() else old


def _orthonormal(matrix: NDArray[np.float32]) -> Matrix:
    """Gram–Schmidt over the r columns, twice for accuracy; negligible columns become zero."""
    result = matrix.astype(np.float64)
    floor = _NEGLIGIBLE * float(np.sqrt((result * result).sum(axis=0)).max())
    for at in range(result.shape[1]):
        column = result[:, at]
        for _ in range(2):
            column -= result[:, :at] @ (result[:, :at].T @ column)
        norm = math.sqrt(float(column @ column))
        result[:, at] = column / norm if norm > floor else 0.0
    return result.astype(np.float32)


@dataclass(slots=True)
class _Factors:
    plan: tuple[_Part, ...]
    rank: int
    bases: Sequence[Matrix] = field(repr=False)
    directions: list[Matrix] = field(default_factory=list, repr=False)
    found: list[Matrix] = field(default_factory=list, repr=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        low = [part for part in self.plan if part.low_rank]
        whole = sum(part.size for part in self.plan if not part.low_rank)
        return (self.rank * sum(p.rows for p in low), self.rank * sum(p.columns for p in low) + whole)

    def project(self, flat: Update, at: int) -> Update:
        if at == 1 and not self.directions:
            raise ConfigurationError("the first sum has to be observed before the second is projected")
        pieces: list[Update] = []
        start, number = 0, 0
        for part in self.plan:
            values = flat[start : start + part.size]
            start += part.size
            if part.low_rank:
                matrix = values.reshape(part.rows, part.columns)
                product = matrix @ self.bases[number] if at == 0 else matrix.T @ self.directions[number]
                pieces.append(product.reshape(-1))
                number += 1
            elif at == 1:
                pieces.append(values)
        return np.concatenate(pieces)

    def observe(self, at: int, mean: Update) -> None:
        if mean.shape != (self.sizes[at],):
            raise ConfigurationError(f"sum {at} has {self.sizes[at]} values, got shape {mean.shape}")
        if at == 1:
            self._keep(mean)
            return
        rows = [part.rows * self.rank for part in self.plan if part.low_rank]
        pieces = np.split(mean.astype(np.float32), np.cumsum(rows)[:-1])
        self.directions = [_orthonormal(piece.reshape(-1, self.rank)) for piece in pieces]

    def expand(self, mean: Update) -> Update:
        flat = np.empty(sum(part.size for part in self.plan), dtype=np.float32)
        start, taken, number = 0, 0, 0
        for part in self.plan:
            target = flat[start : start + part.size]
            start += part.size
            if part.low_rank:
                count = part.columns * self.rank
                q = mean[taken : taken + count].astype(np.float32).reshape(part.columns, self.rank)
                np.matmul(self.directions[number], q.T, out=target.reshape(part.rows, part.columns))
                number += 1
            else:
                count = part.size
                target[...] = mean[taken : taken + count]
            taken += count
        return flat

    def _keep(self, mean: Update) -> None:
        self.found, taken = [], 0
        for part in self.plan:
            count = part.columns * self.rank if part.low_rank else part.size
            if part.low_rank:
                self.found.append(mean[taken : taken + count].astype(np.float32).reshape(-1, self.rank))
            taken += count

    def state(self) -> Sequence[NDArray[np.float32]]:
        return self.found
