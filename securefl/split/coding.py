"""Rows of numbers that travel where the server reads them: as they are, on a coarse grid, or clipped and noised.

Only :class:`NoisyRows` gives a bound on what a row tells about its example. :class:`GridRows` saves bytes and blurs;
nothing is proved about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from securefl.dp.events import DiscreteGaussian, positive
from securefl.dp.sampler import LOG2_DISTANCE, WIDE_STDDEV, wide_gaussian
from securefl.encoding.quantize import SEED_BYTES, FixedPoint
from securefl.errors import ConfigurationError, DecodeError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.split.engine import Rows, check_rows, float32_bytes, float32_rows
from securefl.wire import Buffer

__all__ = ["FloatRows", "GridRows", "NoisyRows", "RowCoding"]


class RowCoding(Protocol):
    """Rows to bytes and back."""

    def size(self, batch: int, width: int) -> int:
        """Bytes of ``batch`` rows."""
        ...

    def encode(self, rows: Rows) -> bytes: ...
    def decode(self, payload: Buffer, batch: int, width: int) -> Rows: ...


@dataclass(frozen=True, slots=True)
class FloatRows:
    """float32 as it is: no protection at all."""

    def size(self, batch: int, width: int) -> int:
        return 4 * batch * width

    def encode(self, rows: Rows) -> bytes:
        check_rows(rows, rows.shape[-1], "rows")
        return float32_bytes(rows)

    def decode(self, payload: Buffer, batch: int, width: int) -> Rows:
        return float32_rows(payload, batch, width, "rows")


@dataclass(frozen=True)
class GridRows:
    """Stochastic rounding to a grid of ``bits`` bits over ±``clip_range``, packed bit by bit.

    ``bits``: 2 to 16. Unbiased; an error of a value is below 2 · clip_range / (2^bits − 2). Rounding is seeded by
    fresh entropy. Raises :class:`InvalidInputError` for values beyond the range.
    """

    clip_range: float
    bits: int
    entropy: Entropy = field(default_factory=SystemEntropy, repr=False)

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise ConfigurationError(f"quantized activations have 2 to 16 bits, not {self.bits}")
        _ = self._grid

    @cached_property
    def _grid(self) -> FixedPoint:
        return FixedPoint(self.clip_range, self.bits)

    def size(self, batch: int, width: int) -> int:
        return -(-batch * width * self.bits // 8)

    def encode(self, rows: Rows) -> bytes:
        check_rows(rows, rows.shape[-1], "activations", largest=self.clip_range)
        values = self._grid.encode(rows.reshape(-1), seed=self.entropy.token(SEED_BYTES)).values
        places = np.arange(self.bits, dtype=np.uint64)
        return np.packbits((values[:, None] >> places & np.uint64(1)).astype(np.uint8)).tobytes()

    def decode(self, payload: Buffer, batch: int, width: int) -> Rows:
        count = batch * width
        if memoryview(payload).nbytes != self.size(batch, width):
            raise DecodeError(f"{batch} rows of {width} values have {self.size(batch, width)} bytes")
        bits = np.unpackbits(np.frombuffer(payload, np.uint8))
        if bits[count * self.bits :].any():
            raise DecodeError("the bits after the last value are not zero")
        places = np.left_shift(np.uint32(1), np.arange(self.bits, dtype=np.uint32))
        values = bits[: count * self.bits].reshape(count, self.bits) @ places
        if values.max(initial=0) > self._grid.max_value:
            raise DecodeError("a value lies beyond the grid")
        real = (values.astype(np.float64) - self._grid.half) * self._grid.step
        return real.astype(np.float32).reshape(batch, width)


@dataclass(frozen=True)
class NoisyRows:
    """Each row clipped to ℓ2 norm ``clip_norm``, put on a grid, and given discrete Gaussian noise of its own.

    ``noise_multiplier``: stddev over clip norm. ``width``: values per row. The noise is exact integer noise, so
    low-order bits of floating point carry nothing; charge :meth:`event` once per row released, judged under
    :attr:`~securefl.dp.events.NeighboringRelation.REPLACE_ONE` (who is in a batch is public, what it holds is not).
    """

    clip_norm: float
    noise_multiplier: float
    width: int
    entropy: Entropy = field(default_factory=SystemEntropy, repr=False)

    def __post_init__(self) -> None:
        positive("clip_norm", self.clip_norm)
        positive("noise_multiplier", self.noise_multiplier)
        if self._room < 0.5:
            raise ConfigurationError("rows are too wide for this noise multiplier: rounding would dominate")

    @property
    def _room(self) -> float:
        return 1 - self.noise_multiplier * math.sqrt(self.width) / WIDE_STDDEV

    @property
    def stddev(self) -> float:
        """Of the noise on each value; ``clip_norm · noise_multiplier`` and a little for the rounding."""
        return self.clip_norm * self.noise_multiplier / self._room

    def size(self, batch: int, width: int) -> int:
        return 4 * batch * width

    def encode(self, rows: Rows) -> bytes:
        check_rows(rows, self.width, "rows")
        step = self.stddev / WIDE_STDDEV
        exact = rows.astype(np.float64)
        norms = np.linalg.norm(exact, axis=1, keepdims=True)
        # the factor errs on the small side, so that no row exceeds the clip norm
        exact *= np.minimum(1.0, self.clip_norm * (1 - 1e-9) / np.maximum(norms, 0.5 * self.clip_norm))
        noise = wide_gaussian(self.entropy.token(32), exact.size).reshape(exact.shape)
        return float32_bytes(((np.rint(exact / step) + noise) * step).astype(np.float32))

    def decode(self, payload: Buffer, batch: int, width: int) -> Rows:
        return float32_rows(payload, batch, width, "rows")

    def event(self) -> DiscreteGaussian:
        """What one row releases about its example. Rounding moves a row by at most √width · step / 2."""
        return DiscreteGaussian(
            l2_sensitivity=WIDE_STDDEV / self.noise_multiplier,
            variance=WIDE_STDDEV**2,
            dimension=self.width,
            statistical_distance=min(1.0, self.width * 2.0 ** (LOG2_DISTANCE + 2)),
        )
