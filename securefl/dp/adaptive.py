"""The clip norm learned privately: a geometric step towards a quantile of the update norms.

Legend: C clip norm, γ target quantile, η step, b_i = 1 if client i's update was within C, z_b stddev of the noise on
Σ (b_i − ½), z the noise multiplier the round is charged for, z_Δ the one the update noise is drawn with.

    C ← C · exp(−η (b̃ − γ)),  b̃ = ½ + (Σ (b_i − ½) + N(0, z_b²)) / n        [Andrew et al. 2021, Alg. 1]
    z_Δ = (z^-2 − (2 z_b)^-2)^(−1/2)                                            [ibid., Theorem 1]

The count has sensitivity ½, so it is a Gaussian release of noise multiplier 2 z_b; with the update's z_Δ the round
costs exactly one Gaussian release of noise multiplier z. The bit travels in the protected vector, as one more
coordinate; here it is scaled so that one joint ℓ2 bound and one noise serve both (:attr:`AdaptiveClip.bit_weight`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from securefl.dp.events import positive, probability
from securefl.errors import ConfigurationError

__all__ = ["AdaptiveClip"]


@dataclass(frozen=True, slots=True)
class AdaptiveClip:
    """The state of the adaptive clip norm; :meth:`update` gives the next state.

    ``noise_multiplier``: z, what a round is charged for. ``count_stddev``: z_b, in clients; above z / 2
    (a twentieth of the expected cohort is usual). ``target_quantile``: γ. ``step``: η. ``least``,
    ``most``: bounds of C.
    """

    clip_norm: float
    noise_multiplier: float
    count_stddev: float
    target_quantile: float = 0.5
    step: float = 0.2
    least: float = 1e-6
    most: float = 1e6

    def __post_init__(self) -> None:
        for name in ("clip_norm", "noise_multiplier", "count_stddev", "step", "least", "most"):
            positive(name, getattr(self, name))
        probability("target_quantile", self.target_quantile)
        if 2 * self.count_stddev <= self.noise_multiplier:
            raise ConfigurationError(
                f"count_stddev must exceed noise_multiplier / 2 = {self.noise_multiplier / 2:g}: "
                "the clipped count would cost more than the whole round"
            )
        if not self.least <= self.clip_norm <= self.most:
            raise ConfigurationError(f"clip_norm must lie between {self.least:g} and {self.most:g}")

    @property
    def update_noise_multiplier(self) -> float:
        """z_Δ: noise stddev on the update sum over C, a little above z."""
        return float((self.noise_multiplier**-2 - (2 * self.count_stddev) ** -2) ** -0.5)

    @property
    def bit_weight(self) -> float:
        """What ±½ is multiplied by when the bit joins the vector, so that each gets its own noise.

        The joint vector (update, w·(b − ½)) has norm at most √(C² + w²/4) = :attr:`joint_norm`; noise z · joint norm
        on every coordinate is z_Δ C on the update and z_b w on the count.
        """
        return self.update_noise_multiplier * self.clip_norm / self.count_stddev

    @property
    def joint_norm(self) -> float:
        """The ℓ2 bound of the joint vector: clip to this, add noise of multiplier z to it, charge z."""
        return math.hypot(self.clip_norm, self.bit_weight / 2)

    def bit(self, norm: float) -> float:
        """A client's extra coordinate: ± :attr:`bit_weight` / 2, for the ℓ2 ``norm`` of its update before clipping."""
        return self.bit_weight / 2 if norm <= self.clip_norm else -self.bit_weight / 2

    def update(self, noisy_bits: float, clients: int) -> AdaptiveClip:
        """The next state, from the noisy sum of the extra coordinate over ``clients`` clients."""
        if clients < 1 or not math.isfinite(noisy_bits):
            raise ConfigurationError("the clip norm needs a finite sum over at least one client")
        fraction = min(1.0, max(0.0, 0.5 + noisy_bits / self.bit_weight / clients))
        stepped = self.clip_norm * math.exp(-self.step * (fraction - self.target_quantile))
        return replace(self, clip_norm=min(self.most, max(self.least, stepped)))
