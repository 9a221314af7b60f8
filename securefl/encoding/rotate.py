"""The rotated quantizer: a public rotation, then few levels on a common grid, rounded stochastically.

Legend: m values per client, B the block length, L levels, M = L − 1, c the clip range after the rotation, step
δ = 2 c / M. With σ² the mean square of a client's value, averaged over clients and known from the last round's
securely summed statistics, c = k σ. The integer of a rotated value y is floor(clip(y, ±c)/δ + M/2 + u), u uniform:
within [0, M] and unbiased up to the clip. Rounding variance per value and client: at most δ²/4, and at most
δ E|y| when M is even (zero is on the grid); so the mean over n clients errs by at most m δ²/(4 n) in total, besides
what the clip took. [Suresh et al. 2017, "Distributed Mean Estimation with Limited Communication", §3, on a common
grid; Bonawitz et al. 2019, "Federated Learning with Autotuned Communication-Efficient Secure Aggregation"]

Width of the lanes: ``exact`` holds every possible sum. ``auto`` holds WINDOW standard deviations of the sum as the
last round showed them; a sum beyond is found by the check integers (``tail``), and that round gives no result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from securefl.encoding.compressor import Scale
from securefl.encoding.hadamard import Block, Rotation
from securefl.encoding.public import PublicRandomness
from securefl.encoding.radix import widest_window
from securefl.errors import ConfigurationError
from securefl.machine import Segment
from securefl.primitives.kdf import Label, derive
from securefl.primitives.prg import KEY_BYTES, Keystream
from securefl.types import IntegerVector, Update

__all__ = ["RotatedGrid", "RotatedQuantizer"]

MAX_LEVELS: Final = 255
#: Twice a sum has to be exact in float32.
MAX_SUM: Final = 2**23
#: One unit of the 16 random bits of a rounding.
_UNIT: Final = np.float32(2.0**-16)
#: Values that move at a time.
_MOVE: Final = 1 << 16
#: Half the window in standard deviations of the sum: 2e-9 per value for a Gaussian.
WINDOW: Final = 6.0


@dataclass(frozen=True, slots=True)
class RotatedQuantizer:
    """``levels`` L, 2 to 255 (odd: zero is on the grid). ``width``: of the lanes. ``clip_multiple`` k > 0.

    Values per word: about 64 / log2(window), e.g. 13 for L = 3, 20 clients, ``auto``. Public: the seed and σ.
    Raises :class:`ConfigurationError` for settings out of range.
    """

    levels: int = 3
    width: Literal["exact", "auto"] = "auto"
    clip_multiple: float = 3.0

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= MAX_LEVELS:
            raise ConfigurationError(f"levels must be 2 to {MAX_LEVELS}, got {self.levels}")
        if self.width not in ("exact", "auto"):
            raise ConfigurationError(f"width is 'exact' or 'auto', not {self.width!r}")
        if not (math.isfinite(self.clip_multiple) and self.clip_multiple > 0):
            raise ConfigurationError(f"clip_multiple must be a finite number above 0, got {self.clip_multiple}")

    @property
    def name(self) -> str:
        return "rotated"

    def describe(self) -> str:
        """Every setting in one line."""
        return f"rotated(levels={self.levels},width={self.width},clip_multiple={self.clip_multiple!r})"

    def noise(self, scale: Scale) -> float:
        """Variance that rounding adds to one value of one client, an upper bound."""
        step = 2 * self.clip_multiple * math.sqrt(scale.mean_square) / (self.levels - 1)
        return _noise(step, self.levels - 1, scale.mean_square)

    def at(self, size: int, clients: int, scale: Scale, public: PublicRandomness, sum_at: int = 0) -> RotatedGrid:
        """The grid of one sum of ``size`` values over ``clients``. ``scale.mean_square`` must be above 0."""
        clip_range = self.clip_multiple * math.sqrt(scale.mean_square)
        if not (math.isfinite(clip_range) and clip_range > 0):
            raise ConfigurationError(f"a rotated grid needs a scale above 0, got {scale.mean_square}")
        largest = self.levels - 1
        window = clients * largest + 1
        if window > MAX_SUM:
            raise ConfigurationError(f"{clients} clients with {self.levels} levels: their sum exceeds {MAX_SUM}")
        if self.width == "auto":
            step = 2 * clip_range / largest
            deviation = math.sqrt(scale.sum_square + clients * self.noise(scale)) / step
            window = min(window, max(largest + 1, 2 * math.ceil(WINDOW * deviation) + 1))
        window = min(widest_window(window), 2**32)
        return RotatedGrid(Rotation(size, public.key(f"rotation {sum_at}")), largest, clip_range, window)


def _noise(step: float, largest: int, mean_square: float) -> float:
    # E frac(1 − frac) <= 1/4, and <= E|y|/δ <= σ/δ where zero is on the grid
    quarter = step * step / 4
    return quarter if largest % 2 else min(quarter, step * math.sqrt(mean_square))


@dataclass(frozen=True, slots=True)
class RotatedGrid:
    """One round's grid: ``largest`` M, ``clip_range`` c after the rotation, ``window`` of the sum's lanes."""

    rotation: Rotation = field(repr=False)
    largest: int
    clip_range: float
    window: int

    @property
    def step(self) -> float:
        """δ."""
        return 2 * self.clip_range / self.largest

    @property
    def segment(self) -> Segment:
        return Segment(self.rotation.padded, self.largest, self.window)

    def encode(self, values: Update, *, seed: bytes, out: IntegerVector) -> int:
        """uint64[padded] into ``out``; see the module. Only buffers of one group of blocks are made."""
        stream = Keystream(derive(seed, Label.ROUNDING_STREAM, b"rotated", length=KEY_BYTES))
        factor = np.float32(1 / (math.sqrt(self.rotation.block) * self.step))
        half, largest = np.float32(self.largest / 2), np.float32(self.largest)
        table = out.reshape(self.rotation.block, self.rotation.blocks)
        clipped = 0
        for columns, _, y in self.rotation.forward(values):
            y *= factor
            if max(float(y.max()), -float(y.min())) > half:
                clipped += int(np.count_nonzero(y > half)) + int(np.count_nonzero(y < -half))
                np.clip(y, -half, half, out=y)
            words = np.empty(-(-y.size // 4), dtype="<u8")
            stream.fill(words)  # 16 random bits per value
            u = np.multiply(words.view("<u2")[: y.size].reshape(y.shape), _UNIT, dtype=np.float32)
            u += half + _UNIT / 2  # r/2^16 and its half unit are exact: one rounding, as in r + 1/2 first
            y += u
            np.minimum(y, largest, out=y)
            table[:, columns] = y.astype(np.uint8)
        return clipped

    def decode(self, total: IntegerVector, count: int) -> Update:
        """float32[m]: the sum of ``count`` clients' values. Exact integers up to 2^24 before the last product."""
        out = np.empty(self.rotation.size, dtype=np.float32)
        self._decode(total, count, out)
        return out

    def decode_over(self, total: IntegerVector, count: int) -> Update:
        """As :meth:`decode`: a group's values go where its integers were, and then all move together."""
        floats = total.view(np.float32)
        self._decode(total, count, floats[: 2 * self.rotation.size : 2])
        for start in range(0, self.rotation.size, _MOVE):  # forwards: nothing is overwritten before it was read
            stop = min(self.rotation.size, start + _MOVE)
            floats[start:stop] = floats[2 * start : 2 * stop : 2]
        return floats[: self.rotation.size]

    def _decode(self, total: IntegerVector, count: int, out: Update) -> None:
        table = total.view(np.int64).reshape(self.rotation.block, self.rotation.blocks)  # faster to convert
        middle = np.float32(count * self.largest)

        def centred(columns: slice, block: Block) -> None:
            np.copyto(block, table[:, columns], casting="unsafe")  # sums below 2^23: exact, also doubled
            np.multiply(block, np.float32(2), out=block)
            np.subtract(block, middle, out=block)

        self.rotation.backward(centred, out, np.float32(self.step / (2 * math.sqrt(self.rotation.block))))

    def noise(self, scale: Scale) -> float:
        return _noise(self.step, self.largest, scale.mean_square)
