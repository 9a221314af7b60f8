"""Central noise: a trusted server adds discrete Gaussian noise to the exact integer sum.

The clients' integers come from the same grid and bounds as under distributed noise (:mod:`securefl.dp.rounding`),
so the sum's sensitivity is certain and no floating point touches the noise.  [Canonne, Kamath, Steinke 2020]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from securefl.dp.events import DiscreteGaussian, Event, PoissonSampled, integer, positive, probability
from securefl.dp.rounding import l2_bound, round_update
from securefl.dp.sampler import LOG2_DISTANCE, noise_table
from securefl.encoding.quantize import MAX_VALUE_BITS
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.types import IntegerVector, Update

__all__ = ["CentralNoise"]


@dataclass(frozen=True)
class CentralNoise:
    """The noise of one round on a trusted server.

    ``clip_norm``: ℓ2 bound of an update. ``noise_multiplier``: noise stddev over the sum's sensitivity. ``value_bits``:
    bits of a client's integers (they carry no noise). ``noise_stddev_limit``: in integer units; limits the scale.
    Raises :class:`ConfigurationError` when rounding would inflate the sensitivity by more than a quarter.
    """

    clip_norm: float
    dimension: int
    noise_multiplier: float
    value_bits: int = 20
    noise_stddev_limit: float = 16384.0

    def __post_init__(self) -> None:
        positive("clip_norm", self.clip_norm)
        positive("noise_multiplier", self.noise_multiplier)
        positive("noise_stddev_limit", self.noise_stddev_limit)
        integer("dimension", self.dimension, 1)
        integer("value_bits", self.value_bits, 2)
        if self.value_bits > MAX_VALUE_BITS:
            raise ConfigurationError(f"value_bits must be 2 to {MAX_VALUE_BITS}, got {self.value_bits}")
        if self.l2_sensitivity > 1.25 * self.scale * self.clip_norm:
            raise ConfigurationError(
                f"{self.value_bits} bits per value are too few for {self.dimension} values: raise value_bits "
                "(or, where the noise is what limits the scale, noise_stddev_limit)"
            )

    @cached_property
    def scale(self) -> float:
        """Integers per unit: what the bits hold, or what keeps the noise within its limit."""
        by_bits = float(2 ** (self.value_bits - 1) - 2) / self.clip_norm
        low, high = 0.0, by_bits
        if self.noise_multiplier * l2_bound(high, self.clip_norm, self.dimension) <= self.noise_stddev_limit:
            return by_bits
        while high - low > 1e-6 * by_bits:
            middle = (low + high) / 2
            fits = self.noise_multiplier * l2_bound(middle, self.clip_norm, self.dimension) <= self.noise_stddev_limit
            low, high = (middle, high) if fits else (low, middle)
        return low

    @cached_property
    def l2_sensitivity(self) -> float:
        """Δ2 of the integer sum to one client."""
        return l2_bound(self.scale, self.clip_norm, self.dimension)

    @cached_property
    def variance(self) -> Fraction:
        """σ² of the discrete Gaussian, integer units squared."""
        return Fraction(math.ceil((self.noise_multiplier * self.l2_sensitivity) ** 2 * 1024 * (1 + 1e-12)), 1024)

    @property
    def offset(self) -> int:
        """The integer that stands for zero."""
        return math.floor(self.scale * self.clip_norm) + 1

    @property
    def max_value(self) -> int:
        """The largest integer of a client."""
        return 2 * self.offset

    def encode(self, update: Update, entropy: Entropy | None = None) -> IntegerVector:
        """uint64[dimension] in [0, max_value]: a client's integers, without noise."""
        if not isinstance(update, np.ndarray) or update.shape != (self.dimension,):
            raise InvalidInputError(f"expected a flat update of {self.dimension} values")
        source = entropy if entropy is not None else SystemEntropy()
        values = round_update(
            update,
            scale=self.scale,
            clip_norm=self.clip_norm,
            coordinate_bound=self.offset,
            l2=self.l2_sensitivity,
            seed=source.token(32),
        )
        return (values + self.offset).view(np.uint64)

    def release(self, total: IntegerVector, survivors: int, entropy: Entropy | None = None) -> NDArray[np.float64]:
        """float64[dimension]: the noisy sum of ``survivors`` clients. Charge :meth:`event` before calling this."""
        integer("survivors", survivors, 1)
        if total.shape != (self.dimension,):
            raise InvalidInputError(f"expected a sum of {self.dimension} values")
        source = entropy if entropy is not None else SystemEntropy()
        noise = noise_table("discrete-gaussian", self.variance).draw(source.token(32), self.dimension)
        return (total.astype(np.int64) - survivors * self.offset + noise) / self.scale

    def event(self, sampling_probability: float = 1.0) -> Event:
        """What one round releases."""
        probability("sampling_probability", sampling_probability)
        noise = DiscreteGaussian(
            l2_sensitivity=self.l2_sensitivity,
            variance=float(self.variance),
            dimension=self.dimension,
            statistical_distance=min(1.0, self.dimension * 2.0**LOG2_DISTANCE),
        )
        return noise if sampling_probability == 1.0 else PoissonSampled(noise, sampling_probability)
