"""Distributed noise: every client adds its share of Skellam noise inside the ring, before protection.

Legend: s scale, c clip norm, d dimension, n clients, m minimum survivors, t colluders, z noise multiplier,
Δ2 the ℓ2 sensitivity of the integer sum (:mod:`securefl.dp.rounding`), μ₁ the noise variance of one client.

μ₁ = z² Δ2² / (m − t): the shares of the m − t honest survivors that are sure to be there add up to Skellam noise of
variance z² Δ2² (Skellam laws are closed under sums [Agarwal, Kairouz, Liu 2021, §3]). A round with v survivors has
the variance (v − t) μ₁ that no colluder knows, and is charged for that.

Nothing wraps. A client's integer is x + noise + offset with |x| <= coordinate bound and |noise| <= the table's cut,
both certain: the tail beyond the cut (below 2^-128 per draw) is part of the sampler's statistical distance, which
the event carries and the accountant charges to δ. So every integer lies in [0, max_value], as
:class:`securefl.encoding.ring.Lanes` requires, and P[wrap] = 0.

The scale is the largest that the bits allow, up to a client's noise stddev of ``noise_stddev_limit``: beyond it
precision gains nothing and the sampler's table leaves the cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from securefl.dp.calibration import calibrate_event
from securefl.dp.events import (
    Event,
    NeighboringRelation,
    PoissonSampled,
    SelfComposed,
    Skellam,
    integer,
    positive,
    probability,
)
from securefl.dp.rounding import ROUNDING_FAILURE, l1_bound, l2_bound, round_update
from securefl.dp.sampler import LOG2_DISTANCE, MAX_STDDEV, NoiseTable, noise_table
from securefl.dp.weights import skellam_cut
from securefl.encoding.quantize import MAX_VALUE_BITS
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.types import IntegerVector, Update

__all__ = ["DistributedSkellam"]

#: Rounding may inflate the sensitivity by this factor at most; a ring that forces more is refused.
_MOST_INFLATION = 1.25
#: Variances are kept on this grid (rounded up), so that equal parameters give equal tables everywhere.
_VARIANCE_GRAIN = 1 << 10


@dataclass(frozen=True)
class DistributedSkellam:
    """The noise of one round, as every client and the server compute it from public parameters.

    ``clip_norm``: ℓ2 bound of an update. ``noise_multiplier``: stddev of the sum's noise over its sensitivity, when
    ``minimum_survivors`` remain and ``colluders`` of them pool what they know. ``clients``: most clients in a round.
    ``value_bits``: bits of one client's integers, 2 … 31. ``coordinate_range``: values beyond it are cut (default:
    the clip norm, which cuts nothing); a smaller one, right after a rotation, buys precision.

    Raises :class:`ConfigurationError`; for a ring too small it says how many bits would do.
    """

    clip_norm: float
    dimension: int
    noise_multiplier: float
    clients: int
    minimum_survivors: int
    colluders: int = 0
    value_bits: int = 20
    coordinate_range: float | None = None
    noise_stddev_limit: float = 8192.0
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        positive("clip_norm", self.clip_norm)
        positive("noise_multiplier", self.noise_multiplier)
        if not 1e-6 <= self.noise_multiplier <= 1e6:  # beyond, floats do not carry the variance
            raise ConfigurationError(f"noise_multiplier must be 1e-06 to 1e+06, got {self.noise_multiplier:g}")
        integer("dimension", self.dimension, 1)
        integer("clients", self.clients, 1)
        integer("minimum_survivors", self.minimum_survivors, 1)
        integer("colluders", self.colluders, 0)
        integer("value_bits", self.value_bits, 2)
        positive("noise_stddev_limit", self.noise_stddev_limit)
        if self.coordinate_range is not None:
            positive("coordinate_range", self.coordinate_range)
        if self.value_bits > MAX_VALUE_BITS:
            raise ConfigurationError(f"value_bits must be 2 to {MAX_VALUE_BITS}, got {self.value_bits}")
        if self.noise_stddev_limit > MAX_STDDEV:
            raise ConfigurationError(f"noise_stddev_limit must be at most {MAX_STDDEV:g}")
        if self.minimum_survivors > self.clients:
            raise ConfigurationError("minimum_survivors must not exceed clients")
        if self.colluders >= self.minimum_survivors:
            raise ConfigurationError(
                f"with {self.colluders} colluders among {self.minimum_survivors} survivors no honest noise is left: "
                "raise minimum_survivors"
            )
        scale = self._best_scale(self.value_bits)
        if scale is None:
            enough = (b for b in range(self.value_bits + 1, MAX_VALUE_BITS + 1) if self._best_scale(b) is not None)
            bits = next(enough, None)
            advice = f"value_bits = {bits} would do" if bits else "raise minimum_survivors or lower the noise"
            raise ConfigurationError(f"{self.value_bits} bits per value are too few for the noise: {advice}")
        object.__setattr__(self, "scale", scale)

    # -- the scale

    def _local_variance(self, scale: float) -> Fraction:
        l2 = l2_bound(scale, self.clip_norm, self.dimension)
        exact = self.noise_multiplier**2 * l2**2 / (self.minimum_survivors - self.colluders) * (1 + 1e-12)
        return Fraction(math.ceil(exact * _VARIANCE_GRAIN), _VARIANCE_GRAIN)

    def _coordinate_bound(self, scale: float) -> int:
        return math.floor(scale * min(self.coordinate_range or self.clip_norm, self.clip_norm)) + 1

    def _fits(self, scale: float, bits: int) -> bool:
        variance = self._local_variance(scale)
        if variance > self.noise_stddev_limit**2:
            return False
        largest: int = self._coordinate_bound(scale) + skellam_cut(float(variance))
        return largest <= (1 << (bits - 1)) - 1

    def _best_scale(self, bits: int) -> float | None:
        """The largest scale that fits, to 1e-6; None when rounding would inflate the sensitivity too much."""
        low, high = 0.0, 2.0**bits / self.clip_norm
        while high - low > 1e-6 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self._fits(middle, bits) else (low, middle)
        if low == 0.0 or l2_bound(low, self.clip_norm, self.dimension) > _MOST_INFLATION * low * self.clip_norm:
            return None
        return low

    # -- what follows from it

    @cached_property
    def l2_sensitivity(self) -> float:
        """Δ2 in integer units."""
        return l2_bound(self.scale, self.clip_norm, self.dimension)

    @cached_property
    def client_variance(self) -> Fraction:
        """μ₁: variance of one client's noise, integer units squared."""
        return self._local_variance(self.scale)

    @cached_property
    def _table(self) -> NoiseTable:
        return noise_table("skellam", self.client_variance)

    @cached_property
    def offset(self) -> int:
        """The integer that stands for zero: the coordinate bound plus the largest noise."""
        return self._coordinate_bound(self.scale) + skellam_cut(float(self.client_variance))

    @property
    def max_value(self) -> int:
        """The largest integer of a client: for :class:`securefl.encoding.ring.Lanes`."""
        return 2 * self.offset

    def client_noise(self, entropy: Entropy | None = None) -> NDArray[np.int64]:
        """int64[dimension]: one client's share, from 32 fresh bytes of ``entropy``. Never the same twice."""
        source = entropy if entropy is not None else SystemEntropy()
        return self._table.draw(source.token(32), self.dimension)

    def encode(self, update: Update, entropy: Entropy | None = None) -> IntegerVector:
        """uint64[dimension] in [0, max_value]: clipped, rounded, bounded, noised, offset. Ready for protection.

        Raises :class:`InvalidInputError` for a wrong shape or values that are not finite.
        """
        if not isinstance(update, np.ndarray) or update.shape != (self.dimension,):
            raise InvalidInputError(f"expected a flat update of {self.dimension} values")
        source = entropy if entropy is not None else SystemEntropy()
        values = round_update(
            update,
            scale=self.scale,
            clip_norm=self.clip_norm,
            coordinate_bound=self._coordinate_bound(self.scale),
            l2=self.l2_sensitivity,
            seed=source.token(32),
        )
        values += self.client_noise(source)
        values += self.offset
        return values.view(np.uint64)

    def decode(self, total: IntegerVector, survivors: int) -> NDArray[np.float64]:
        """float64[dimension]: the noisy sum of the updates of ``survivors`` clients."""
        self._check_survivors(survivors)
        return (total.astype(np.int64) - survivors * self.offset) / self.scale

    def _check_survivors(self, survivors: int) -> None:
        if survivors < self.minimum_survivors:
            raise TooFewClientsError(
                f"{survivors} clients survived; the noise is sized for {self.minimum_survivors}: nothing may be opened"
            )
        if survivors > self.clients:
            raise ConfigurationError(f"{survivors} survivors are more than the {self.clients} clients of the round")

    def event(self, survivors: int | None = None, sampling_probability: float = 1.0) -> Event:
        """What one round released, with its realised ``survivors`` (default: the minimum, which is the plan).

        Raises :class:`TooFewClientsError` below the minimum.
        """
        count = self.minimum_survivors if survivors is None else survivors
        self._check_survivors(count)
        probability("sampling_probability", sampling_probability)
        noise = Skellam(
            l2_sensitivity=self.l2_sensitivity,
            l1_sensitivity=l1_bound(self.l2_sensitivity, self.dimension),
            variance=float(self.client_variance) * (count - self.colluders),
            dimension=self.dimension,
            statistical_distance=min(1.0, count * self.dimension * 2.0**LOG2_DISTANCE),
        )
        return noise if sampling_probability == 1.0 else PoissonSampled(noise, sampling_probability)

    @property
    def noise_stddev(self) -> float:
        """Stddev of the noise on the *real* sum with the minimum of survivors, all of them honest in the count."""
        return math.sqrt(float(self.client_variance) * self.minimum_survivors) / self.scale

    @property
    def rounding_failure(self) -> float:
        """How often an honest client's rounded vector is shortened."""
        return ROUNDING_FAILURE

    def calibrated(
        self,
        *,
        epsilon: float,
        delta: float,
        rounds: int,
        sampling_probability: float = 1.0,
        neighboring: NeighboringRelation | str = "add-remove",
    ) -> DistributedSkellam:
        """This plan with the least noise multiplier that meets (epsilon, delta) after ``rounds`` rounds."""
        integer("rounds", rounds, 1)

        def build(noise_multiplier: float) -> Event:
            plan = replace(self, noise_multiplier=noise_multiplier)
            return SelfComposed(plan.event(sampling_probability=sampling_probability), rounds)

        found = calibrate_event(
            build,
            epsilon=epsilon,
            delta=delta,
            neighboring=neighboring,
            guess=self.noise_multiplier,
            precision=1e-4,
        )
        return replace(self, noise_multiplier=found)
