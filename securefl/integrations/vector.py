"""Update, weight and metrics ─▶ one vector of integers; the sum of the vectors ─▶ their means.

Metrics ride behind the update as one more tensor, each divided by its public bound and multiplied by the clip range, so
that they share the update's grid and are weighted as it is. Nothing per client stands beside the vector.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.clipping import clip_to_norm
from securefl.encoding.compressor import Scale
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import SEED_BYTES, FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.interfaces import Coder, Contribution
from securefl.fl.pipeline import Pipeline
from securefl.integrations.compression import CompressedSum, Feedback
from securefl.integrations.invitation import METRICS, Invitation
from securefl.machine import RoundContext, SumResult
from securefl.types import IntegerVector, Tensors

__all__ = ["Means", "VectorCoder", "context_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """``update``: the weighted mean of the updates, float tensors by name. ``metrics``: the weighted means by name.

    ``total_weight``: of the survivors. ``survivors``: how many.
    """

    update: Tensors
    metrics: dict[str, float]
    total_weight: int
    survivors: int


@dataclass(frozen=True, slots=True)
class VectorCoder:
    """Both directions for one invitation. Raises :class:`ConfigurationError` when it proposes what cannot work."""

    invitation: Invitation
    coder: Coder | CompressedSum

    @classmethod
    def of(cls, invitation: Invitation) -> VectorCoder:
        """The coder that ``invitation`` describes."""
        proposed, noise = invitation, invitation.noise
        if proposed.compression is not None and proposed.layout:
            return cls(proposed, CompressedSum(proposed, proposed.compression))
        if noise is None:
            grid = FixedPoint(proposed.clip_range, proposed.value_bits)
            return cls(proposed, Pipeline(proposed.summed, grid, proposed.max_weight))
        if proposed.metrics:
            raise ConfigurationError("metrics have no noise of their own: leave them out under differential privacy")
        from securefl.dp.distributed import DistributedSkellam
        from securefl.fl.privacy import NoisyCoder  # brings pydantic, which masked sums do without

        mechanism = DistributedSkellam(
            noise.clip_norm,
            proposed.summed.dimension,
            noise.noise_multiplier,
            clients=noise.population,
            minimum_survivors=noise.minimum_survivors,
            colluders=noise.colluders,
            value_bits=proposed.value_bits,
        )
        return cls(proposed, NoisyCoder(proposed.summed, mechanism, proposed.value_bits))

    def encode(
        self, update: Tensors, weight: int, metrics: Mapping[str, float], feedback: Feedback | None = None
    ) -> IntegerVector:
        """One client's vector. ``update``: the tensors that the invitation names, and no others. ``feedback``: what a
        compressing client kept.

        Raises :class:`InvalidInputError` for values that cannot be summed, a weight beyond ``max_weight``, and a
        metric that was asked for and is missing; its text, which engines carry to the server, has none of them in it.
        Metrics that were not asked for are left out.
        """
        proposed, coder = self.invitation, self.coder
        if proposed.noise is None and not (type(weight) is int and 1 <= weight <= proposed.max_weight):
            raise InvalidInputError(
                f"the weight {proposed.weight_key!r} must be a whole number from 1 to {proposed.max_weight}, max_weight"
            )
        given = dict(update)
        if proposed.clip_norm and given:
            layout = Layout(proposed.layout)
            given = layout.unflatten(clip_to_norm(layout.flatten(given), proposed.clip_norm))
        extra = np.array([self._metric(name, bound, metrics) for name, bound in proposed.metrics], dtype=np.float64)
        if isinstance(coder, CompressedSum):
            return coder.encode(given, weight, extra, os.urandom(SEED_BYTES), feedback)
        if proposed.metrics:
            given[METRICS] = extra
        weight = 1 if proposed.noise is not None else weight
        return coder.encode(Contribution(given, weight, os.urandom(SEED_BYTES))).values

    @property
    def scale(self) -> Scale | None:
        """What a decoded compressed sum says about the next one's values."""
        return self.coder.scale if isinstance(self.coder, CompressedSum) else None

    def _metric(self, name: str, bound: float, metrics: Mapping[str, float]) -> float:
        value = metrics.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidInputError(f"the metric {name!r} is asked for and must be a finite number")
        return min(max(value / bound, -1.0), 1.0) * self.invitation.clip_range

    def decode(self, result: SumResult) -> Means:
        """The means over the survivors."""
        found: NDArray[np.floating]
        if isinstance(self.coder, CompressedSum):
            tensors, found, total = self.coder.decode(result)
        else:
            tensors, total = self.coder.decode(result)
            found = tensors.pop(METRICS, np.empty(0))
        scale = 1.0 / self.invitation.clip_range
        metrics = {
            name: float(value) * scale * bound
            for (name, bound), value in zip(self.invitation.metrics, found, strict=True)
        }
        return Means(tensors, metrics, total, len(result.survivors))


def context_of(invitation: Invitation, coder: Coder | CompressedSum) -> RoundContext:
    """The round context: it is bound to every byte of the invitation.

    Raises :class:`ConfigurationError` for numbers that cannot be.
    """
    return RoundContext(
        session=invitation.session,
        round=invitation.round,
        clients=invitation.ids,
        dimension=coder.dimension,
        max_value=coder.max_value,
        threshold=invitation.threshold,
        model_hash=invitation.model_hash,
        encoding=invitation.digest,
        segments=coder.segments if isinstance(coder, CompressedSum) else (),
    )
