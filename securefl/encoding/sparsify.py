"""Random-k on a shared public support.

Legend: d values, k kept. The vector is cut into k strata, stratum j from floor(j d / k) to floor((j + 1) d / k) − 1,
and one value of each is kept: every value of stratum j with probability 1/s_j, s_j its size (d/k up to rounding).
No sorting, no duplicates, O(k). SPEC: protocols/compression/SPEC.md §6.

Without error feedback values are multiplied by s_j: unbiased, E‖x̂ − x‖² = Σ (s_j − 1) x² ≈ (d/k − 1) ‖x‖², which
does *not* fall with the number of clients, since all share the support. With error feedback nothing is multiplied, and
the place in each stratum is drawn once per ceil(d / k) rounds and then moves on by one each round, so that every
value is sent at least once in so many rounds and no residual grows old.

Positions chosen by a client's data are no option: they give the data away and their sums have few contributors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Shapes, size_of
from securefl.encoding.public import PublicRandomness, halves
from securefl.errors import ConfigurationError
from securefl.types import Update

__all__ = ["RandomK", "RandomSupport", "kept_count", "random_support"]


def kept_count(dimension: int, fraction: float) -> int:
    """k: ``fraction`` of ``dimension``, rounded, at least 1. Raises :class:`ConfigurationError` outside (0, 1]."""
    if not (math.isfinite(fraction) and 0 < fraction <= 1):
        raise ConfigurationError(f"fraction must lie in (0, 1], got {fraction}")
    return max(1, round(fraction * dimension))


def random_support(
    dimension: int, kept: int, public: PublicRandomness, purpose: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64[kept], ascending positions in [0, dimension), and int64[kept], the sizes of their strata.

    Raises :class:`ConfigurationError` when ``kept`` is not within 1 to ``dimension``.
    """
    if not 1 <= kept <= dimension:
        raise ConfigurationError(f"k must be 1 to {dimension} (the number of values), got {kept}")
    bounds = np.arange(kept + 1, dtype=np.int64) * dimension // kept
    sizes = np.diff(bounds)
    draws = halves(public.key(purpose), 0, kept).astype(np.int64)
    return bounds[:-1] + ((draws * sizes) >> 32), sizes  # uniform up to s_j / 2^32


@dataclass(frozen=True, slots=True)
class RandomSupport:
    """What coders with a random public support have in common: how much they keep, and what that makes of a value.

    ``fraction``: of the values, kept. ``unbiased``: scale up instead of relying on error feedback.
    """

    NAME: ClassVar[str]

    fraction: float
    unbiased: bool = False

    def __post_init__(self) -> None:
        kept_count(1, self.fraction)

    @property
    def name(self) -> str:
        return self.NAME

    @property
    def sums(self) -> int:
        return 1

    @property
    def drops(self) -> bool:
        return True

    def describe(self) -> str:
        return f"{self.NAME}(fraction={self.fraction!r},unbiased={self.unbiased})"


@dataclass(frozen=True, slots=True)
class RandomK(RandomSupport):
    """Keep ``fraction`` of the values. ``unbiased``: scale up instead of relying on error feedback."""

    NAME = "random_k"

    def at(self, shapes: Shapes, public: PublicRandomness, state: Sequence[NDArray[np.float32]] = ()) -> _Support:
        dimension = size_of(shapes)
        kept = kept_count(dimension, self.fraction)
        positions, sizes = random_support(dimension, kept, public, "random_k")
        return _Support(dimension, positions, sizes.astype(np.float32) if self.unbiased else None)


@dataclass(frozen=True, slots=True)
class _Support:
    """A restriction to public positions, with or without factors for the way back."""

    dimension: int
    positions: NDArray[np.int64] = field(repr=False)
    factors: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.positions.size,)

    def project(self, flat: Update, at: int) -> Update:
        kept: Update = flat[self.positions]
        return kept

    def observe(self, at: int, mean: Update) -> None:
        """Nothing is carried over."""

    def expand(self, mean: Update) -> Update:
        flat = np.zeros(self.dimension, dtype=mean.dtype)
        flat[self.positions] = mean if self.factors is None else mean * self.factors
        return flat

    def state(self) -> Sequence[NDArray[np.float32]]:
        return ()


@dataclass(frozen=True, slots=True, eq=False)
class PrunedSupport:
    """Only the values where a public mask stands: those of a pruned model.

    ``mask``: bool[d]; decided from the public model, never from an update. What lies outside is dropped for good, so
    there is nothing to feed back. Raises :class:`ConfigurationError` for a mask that keeps nothing.
    """

    mask: NDArray[np.bool_] = field(repr=False)

    def __post_init__(self) -> None:
        if self.mask.ndim != 1 or self.mask.dtype != np.bool_ or not self.mask.any():
            raise ConfigurationError("a mask is a flat array of booleans that keeps at least one value")

    @property
    def name(self) -> str:
        return "pruned"

    @property
    def sums(self) -> int:
        return 1

    @property
    def drops(self) -> bool:
        return False

    def describe(self) -> str:
        bits = np.packbits(self.mask, bitorder="little").tobytes().hex()
        return f"pruned(size={self.mask.size},mask={bits})"

    def at(self, shapes: Shapes, public: PublicRandomness, state: Sequence[NDArray[np.float32]] = ()) -> _Support:
        if size_of(shapes) != self.mask.size:
            raise ConfigurationError(f"the mask is for {self.mask.size} values, the model has {size_of(shapes)}")
        return _Support(self.mask.size, np.flatnonzero(self.mask))
