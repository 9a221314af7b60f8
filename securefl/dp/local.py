"""Local differential privacy: each client makes its own message private; nobody needs to be trusted.

The analytic Gaussian mechanism [Balle & Wang 2018, Alg. 1] under *replacement*: any two updates within the clip norm
C are 2 C apart, and each must yield nearly the same message. (The classic √(2 ln(1.25/δ))/ε is valid for ε < 1 only.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from securefl.dp.calibration import calibrate_noise
from securefl.dp.central import CentralNoise
from securefl.dp.events import Event, NeighboringRelation, integer
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.types import IntegerVector, Update

__all__ = ["LocalNoise"]


@dataclass(frozen=True)
class LocalNoise:
    """(``epsilon``, ``delta``)-local DP for one client's messages over ``rounds`` rounds it takes part in.

    Costs are judged under :attr:`NeighboringRelation.REPLACE_ONE`. ``clip_norm``: ℓ2 bound of an update.
    """

    epsilon: float
    delta: float
    clip_norm: float
    dimension: int
    rounds: int = 1
    value_bits: int = 24

    def __post_init__(self) -> None:
        integer("rounds", self.rounds, 1)
        _ = self._noise  # refuse what cannot work now, not in a round

    @cached_property
    def noise_multiplier(self) -> float:
        """Noise stddev over the clip norm, for one message."""
        # a thousandth of δ is kept for the distance of the integer noise from a Gaussian
        return calibrate_noise(
            epsilon=self.epsilon,
            delta=self.delta * (1 - 1e-3),
            sampling_probability=1.0,
            rounds=self.rounds,
            neighboring=self.relation,
        )

    @property
    def relation(self) -> NeighboringRelation:
        return NeighboringRelation.REPLACE_ONE

    @cached_property
    def _noise(self) -> CentralNoise:
        return CentralNoise(self.clip_norm, self.dimension, self.noise_multiplier, value_bits=self.value_bits)

    def privatize(self, update: Update, entropy: Entropy | None = None) -> NDArray[np.float64]:
        """float64[dimension]: the client's message, clipped, rounded to the grid and noised with fresh entropy."""
        source = entropy if entropy is not None else SystemEntropy()
        integers: IntegerVector = self._noise.encode(update, source)
        return self._noise.release(integers, 1, source)

    def event(self) -> Event:
        """What one message releases about its client (judge it under :attr:`relation`)."""
        return self._noise.event()
