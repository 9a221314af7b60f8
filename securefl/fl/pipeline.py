"""update ─ clip ─ quantize ─▶ integers ─ (protected sum) ─▶ integers ─ dequantize ─▶ aggregate.

The only module that knows both tensors and integers. The integers are fixed here, before any protection sees them, so
every protection yields the same sum, bit for bit. A client's weight rides as the last integer of its vector.

With weights n_i, a public bound N >= n_i and the grid's encoding q: client i gives q(Δ_i · n_i / N) and n_i; the
decoded sums S and W give the weighted mean S · N / W. SPEC: protocols/encoding/SPEC.md §5.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from securefl.encoding.clipping import clip_to_norm
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint, Quantized
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl.interfaces import Contribution
from securefl.machine import SumResult
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import Tensors

__all__ = ["Pipeline"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Encodes contributions and decodes their sum.

    ``layout``: of the update's tensors. ``grid``: clip range and value bits. ``max_weight``: N, the largest weight a
    client may have; public. ``clip_norm``: ℓ2 bound on the whole update, or ``None``.
    Raises :class:`ConfigurationError` when a weight of ``max_weight`` does not fit an integer of the grid.
    """

    layout: Layout
    grid: FixedPoint
    max_weight: int
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_weight <= self.grid.max_value:
            raise ConfigurationError(
                f"max_weight = {self.max_weight} does not fit the lane of {self.grid.value_bits} value bits "
                f"(1 to {self.grid.max_value}): raise value_bits to at least {self.max_weight.bit_length() + 1}"
            )

    @property
    def dimension(self) -> int:
        """Integers per client: the values and the weight."""
        return self.layout.dimension + 1

    @property
    def encoding(self) -> bytes:
        """32 bytes over layout, grid, largest weight and clip norm: clients that differ in one must not be summed."""
        numbers = (self.grid.clip_range, float(self.grid.value_bits), float(self.max_weight), self.clip_norm or 0.0)
        return tuple_hash(Label.GRID, self.layout.schema_hash, *(struct.pack(">d", number) for number in numbers))

    def encode(self, contribution: Contribution) -> Quantized:
        """uint64[dimension] and how many values lay beyond the clip range.

        Raises :class:`InvalidInputError` for values that are not finite, tensors of another layout, or a weight that
        is not an integer from 1 to ``max_weight``.
        """
        weight = contribution.weight
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= self.max_weight:
            raise InvalidInputError(
                f"a weight must be an integer from 1 to {self.max_weight} (max_weight), got {weight!r}"
            )
        flat = self.layout.flatten(contribution.tensors)
        if self.clip_norm is not None:
            flat = clip_to_norm(flat, self.clip_norm)
        values = np.empty(self.dimension, dtype=np.uint64)
        scale = weight / self.max_weight
        encoded = self.grid.encode(flat, seed=contribution.seed, scale=scale, clip=True, out=values[:-1])
        values[-1] = weight
        return Quantized(values, encoded.clipped)

    def decode(self, result: SumResult) -> tuple[Tensors, int]:
        """The weighted mean over ``result.survivors``, in float64 per tensor, and the sum of their weights."""
        total_weight = int(result.values[-1])
        if total_weight < 1:
            raise TooFewClientsError("the survivors' weights sum to zero: there is no mean")
        sums = self.grid.decode(result.values[:-1], len(result.survivors))
        sums *= self.max_weight / total_weight
        return self.layout.unflatten(sums), total_weight
