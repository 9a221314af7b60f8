"""Fixed point by stochastic rounding: real values ↔ integers on one public grid.

Legend: clip range c, value bits b, h = 2^(b−1) − 1, step δ = c / h. A value x in [−c, c], scaled by s in (0, 1],
becomes floor(s·x/δ + h + u) with u uniform on [0, 1): an integer in [0, 2h] whose expectation is s·x/δ + h, so
the decoded sum is unbiased; the variance per value and client is at most δ²/4. Zero is on the grid.

u has 32 bits and comes from an AES-128-CTR stream keyed by the client's own seed, so it is secret in a
deployment and reproducible in a simulation; the bias of 32 bits is at most δ · 2^-32. From b = 24 on, h + u is
rounded to 53 bits: the bias is then at most δ · 2^(b−54), and zero leaves its point with at most that probability.
Another language that
follows SPEC (protocols/encoding/SPEC.md §3) gets the same integers: all operations are IEEE 754 double.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.primitives.kdf import Label, derive
from securefl.primitives.prg import KEY_BYTES, Keystream
from securefl.types import IntegerVector, Update

__all__ = ["SEED_BYTES", "FixedPoint", "Quantized", "require_finite"]

_BLOCK: Final = 1 << 14
MAX_VALUE_BITS: Final = 31
SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Quantized:
    """``values``: uint64[d] in [0, max_value]. ``clipped``: how many values lay beyond the clip range."""

    values: IntegerVector = field(repr=False)
    clipped: int


def require_finite(update: Update) -> float:
    """The largest magnitude in ``update``. Raises :class:`InvalidInputError` for NaN, infinities, or no values."""
    if not isinstance(update, np.ndarray) or isinstance(update, np.ma.MaskedArray):
        raise InvalidInputError(f"expected a numpy array of floats, got {type(update).__name__}")
    if not np.issubdtype(update.dtype, np.floating):
        raise InvalidInputError(f"expected an array of floats, got {update.dtype}")
    if update.size == 0:
        raise InvalidInputError("the update is empty: there is nothing to sum")
    # NaN propagates through min and max, so two passes over the data find everything.
    largest = max(abs(float(update.min())), abs(float(update.max())))
    if not math.isfinite(largest):
        where = int(np.flatnonzero(~np.isfinite(update.ravel()))[0])
        raise InvalidInputError(f"the update is not finite (first at flat index {where}): drop it, do not sum it")
    return largest


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """The public grid: ``clip_range`` c > 0 and ``value_bits`` b in 2 … 31."""

    clip_range: float
    value_bits: int

    def __post_init__(self) -> None:
        whole = isinstance(self.value_bits, int) and not isinstance(self.value_bits, bool)
        if not whole or not 2 <= self.value_bits <= MAX_VALUE_BITS:
            raise ConfigurationError(f"value_bits must be 2 to {MAX_VALUE_BITS}, got {self.value_bits!r}")
        if not isinstance(self.clip_range, (int, float)):
            raise ConfigurationError(f"clip_range must be a number, got {self.clip_range!r}")
        if not (math.isfinite(self.clip_range) and self.clip_range > 0 and math.isfinite(self.half / self.clip_range)):
            raise ConfigurationError(f"clip_range must be a finite number above 0, got {self.clip_range}")

    @property
    def half(self) -> int:
        """h: the integer that stands for zero."""
        return int(2 ** (self.value_bits - 1)) - 1

    @property
    def max_value(self) -> int:
        """2 h: the largest integer a value becomes."""
        return 2 * self.half

    @property
    def step(self) -> float:
        """δ: the distance of two grid points."""
        return self.clip_range / self.half

    def encode(
        self,
        update: Update,
        *,
        seed: bytes,
        scale: float = 1.0,
        clip: bool = False,
        out: IntegerVector | None = None,
    ) -> Quantized:
        """Integers of a flat ``update`` (float32 or float64 [d]), each value multiplied by ``scale`` in (0, 1].

        ``seed``: at least 32 secret bytes, used for this update only. ``clip``: clamp values beyond the clip range and
        count them, instead of raising. ``out``: uint64[d] to write to, instead of a new vector.
        Raises :class:`InvalidInputError` for values that cannot be encoded.
        """
        largest = require_finite(update)
        if update.ndim != 1:
            raise InvalidInputError(f"expected a flat vector, got shape {update.shape}")
        if len(seed) < SEED_BYTES:
            raise InvalidInputError(f"the rounding seed must have at least {SEED_BYTES} secret bytes, got {len(seed)}")
        if not 0 < scale <= 1:
            raise InvalidInputError(f"the scale must be above 0 and at most 1, got {scale}")
        if out is not None and (out.dtype != np.uint64 or out.shape != update.shape):
            raise InvalidInputError(f"out must be uint64 of shape {update.shape}, got {out.dtype} of shape {out.shape}")
        beyond = largest > self.clip_range
        if beyond and not clip:
            raise InvalidInputError(
                f"a value lies beyond clip_range = {self.clip_range:g}: raise clip_range or clip the update"
            )
        stream = Keystream(derive(seed, Label.ROUNDING_STREAM, length=KEY_BYTES))
        factor = scale * (self.half / self.clip_range)
        values = np.empty(update.size, dtype=np.uint64) if out is None else out
        random = np.empty(_BLOCK // 2, dtype="<u8")
        work = np.empty(_BLOCK, dtype=np.float64)
        noise = np.empty(_BLOCK, dtype=np.float64)
        clipped = 0
        for start in range(0, update.size, _BLOCK):
            piece = update[start : start + _BLOCK]
            x, u = work[: piece.size], noise[: piece.size]
            if beyond:
                np.copyto(x, piece)  # in double first: the clip range rounded to float32 may lie outside the grid
                clipped += int(np.count_nonzero(np.abs(x) > self.clip_range))
                np.clip(x, -self.clip_range, self.clip_range, out=x)
                np.multiply(x, factor, out=x)
            else:
                np.multiply(piece, factor, out=x, dtype=np.float64)
            stream.fill(random)  # 32 random bits per value
            np.multiply(random.view("<u4")[: piece.size], 2.0**-32, out=u)
            u += self.half
            x += u
            # x >= 0, so truncation is floor; int32 conversion is vectorised where uint64 is not
            np.minimum(x, self.max_value, out=x)
            values[start : start + piece.size] = x.astype(np.int32)
        return Quantized(values, clipped)

    def decode(self, total: IntegerVector, count: int) -> NDArray[np.float64]:
        """float64[d]: the sum of ``count`` clients' scaled values from the sum of their integers."""
        return self.decode_over(total.copy(), count)

    def decode_over(self, total: IntegerVector, count: int) -> NDArray[np.float64]:
        """:meth:`decode` within the memory of ``total``, which is lost."""
        centred = total.view(np.int64)
        centred -= count * self.half
        decoded: NDArray[np.float64] = total.view(np.float64)
        np.multiply(centred, self.step, out=decoded)
        return decoded
