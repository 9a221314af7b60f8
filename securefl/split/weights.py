"""How the weight gradient of a linear body reaches a server that saw neither activations nor gradients.

dW = Σ_b dz_b [a_b, 1]ᵀ is the product of the two matrices that are hidden. In the clear it would undo the hiding: with
dz beside it, a = pinv(dzᵀ) dW for batches up to O − 1 examples; alone, at batch 1, a is its row space. So it leaves a
client in one of two ways only:

- **summed** (:func:`summed`): each step, over the batches of all clients, by the protected sum. The server learns the
  sum over at least two clients and more examples than a row of W can separate (:func:`check_summed`); no ε is claimed.
- **noised** (:class:`NoisedGradient`): one client's, with every example's term clipped and discrete Gaussian noise
  added, charged per example.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from securefl.dp.events import DiscreteGaussian, positive
from securefl.dp.sampler import LOG2_DISTANCE, WIDE_STDDEV
from securefl.errors import ConfigurationError
from securefl.fl.dpsgd import add_noise
from securefl.fl.summation import secure_sum
from securefl.primitives.entropy import Entropy
from securefl.split.engine import Rows
from securefl.split.learner import LearnedBatch

__all__ = ["NoisedGradient", "SummedGradient", "check_summed", "summed"]

#: Of the protected sum: 2^-23 of the range, far below what a step can feel.
_VALUE_BITS = 24


@dataclass(frozen=True, slots=True)
class SummedGradient:
    """``gradient``: float64[O, F + 1], the sum over ``clients``. ``upload_bytes``: the largest of a client."""

    gradient: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = field(repr=False)
    clients: int
    upload_bytes: int


def check_summed(clients: int, examples: int, outputs: int, features: int) -> None:
    """Raises :class:`ConfigurationError` unless the sum hides its terms at least from linear algebra.

    Two clients at least; and more examples than min(O, F + 1), the largest rank of dW: up to that number the sum's row
    space *is* the span of the activations.
    """
    if clients < 2:
        raise ConfigurationError(
            "a weight gradient summed over one client is that client's: use weight_gradient = 'noised', or more clients"
        )
    rank = min(outputs, features + 1)
    if examples <= rank:
        raise ConfigurationError(
            f"a step sums {examples} examples and the weight gradient has rank up to {rank}: the sum would span the "
            "very activations; raise batch_size or the number of clients, or use weight_gradient = 'noised'"
        )


def summed(batches: Mapping[str, LearnedBatch], *, protect: str, largest: float, suite: str) -> SummedGradient:
    """The protected sum of all clients' weight gradients of one step.

    ``largest``: a public bound on the magnitude of one client's value; beyond it values are clipped.
    Raises as :func:`~securefl.fl.summation.secure_sum`.
    """
    gradients = {name: np.clip(batch.weight_gradient(), -largest, largest) for name, batch in batches.items()}
    total = secure_sum(gradients, protect=protect, clip_range=largest, value_bits=_VALUE_BITS, suite=suite)
    return SummedGradient(total.sum, len(total.survivors), max(total.upload_bytes.values()))


@dataclass(frozen=True)
class NoisedGradient:
    """Per-example clipping to ``clip_norm`` (of the O x (F + 1) matrix) and noise of ``noise_multiplier`` · clip norm.

    An example's term has rank 1, so its norm is ‖dz_b‖ · ‖[a_b, 1]‖ and no per-example matrix is formed.
    """

    clip_norm: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("clip_norm", self.clip_norm)
        positive("noise_multiplier", self.noise_multiplier)

    def of(self, batch: LearnedBatch, entropy: Entropy | None = None) -> Rows:
        """float32[O, F + 1], which may be seen once :meth:`event` is charged."""
        if batch.gradient is None:
            raise ConfigurationError("this client never had the gradient at the outputs")
        extended = np.hstack([batch.activations, np.ones((len(batch.activations), 1), np.float32)]).astype(np.float64)
        gradient = batch.gradient.astype(np.float64)
        norms = np.linalg.norm(gradient, axis=1) * np.linalg.norm(extended, axis=1)
        factors = np.minimum(1.0, self.clip_norm * (1 - 1e-9) / np.maximum(norms, 1e-300))
        total = torch.from_numpy((gradient * factors[:, None]).T @ extended)
        noisy = add_noise([total], clip_norm=self.clip_norm, noise_multiplier=self.noise_multiplier, entropy=entropy)
        return np.asarray(noisy[0].numpy(), dtype=np.float32)

    def event(self, values: int) -> DiscreteGaussian:
        """What one pass over a client's examples releases about each: it is in one batch. ``values``: O · (F + 1)."""
        return DiscreteGaussian(
            l2_sensitivity=WIDE_STDDEV / self.noise_multiplier,
            variance=WIDE_STDDEV**2,
            dimension=values,
            statistical_distance=min(1.0, values * 2.0 ** (LOG2_DISTANCE + 2)),
        )
