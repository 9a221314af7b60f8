"""Compressed sums inside engines: what a server asks for, the vector of one sum, and what clients keep between sums.

The chain is that of ``[compression]`` (securefl.encoding): a linear coder with a public support, then a grid. The scale
of the rotated grid comes from the sum before, so that the first sum of a run, and one after a lost round, uses the
fixed-point grid. Metrics do not go through the coder: they are a segment of their own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from securefl.encoding import rules
from securefl.encoding.chain import Chain
from securefl.encoding.compressor import Grid, LinearCoder, Scale
from securefl.encoding.feedback import ErrorFeedback
from securefl.encoding.layout import Layout
from securefl.encoding.payload import FixedGrid, Payload
from securefl.encoding.project import RandomProjection
from securefl.encoding.public import PublicRandomness
from securefl.encoding.quantize import FixedPoint
from securefl.encoding.rotate import RotatedQuantizer
from securefl.encoding.sparsify import RandomK
from securefl.errors import ConfigurationError
from securefl.integrations.invitation import Invitation
from securefl.integrations.terms import CODERS, LARGEST_SCALE, SMALLEST_SCALE, CompressionTerms
from securefl.machine import Segment, SumResult
from securefl.primitives.kdf import Label, derive
from securefl.types import ClientId, IntegerVector, PartyId, Tensors

__all__ = ["CompressedSum", "Compressor", "Feedback"]

_GRIDS: Final = ("rotated", "fixed_point")
#: The one client of a client's own residual.
_ME: Final[ClientId] = PartyId(1)


@dataclass
class Feedback:
    """What a client's coder dropped, kept on that client. ``kept``: of counted sums. ``pending``: of sum ``number``."""

    kept: NDArray[np.float32] | None = field(default=None, repr=False)
    pending: NDArray[np.float32] | None = field(default=None, repr=False)
    number: int = 0

    def settle(self, counted: int) -> None:
        """Take ``pending`` for ``kept`` if the server counted that sum; drop it otherwise."""
        if self.pending is not None and self.number == counted:
            self.kept = self.pending
        self.pending = None


class Compressor:
    """The server's side of a run: its settings, public seed, and the scale that the last sum gave.

    ``settings``: keys of ``[compression]``: chain, fraction, levels, clip_multiple, error_feedback, decay, and the
    flags of ``securefl.encoding.rules``. Raises :class:`ConfigurationError` for others and for what cannot work.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        given: dict[str, Any] = {"chain": ("random_k", "rotated"), "fraction": 0.1, "levels": 3, "clip_multiple": 3.0}
        given |= {"error_feedback": None, "decay": 1.0, **settings}
        self._allowed = [name for name in given if name.startswith("allow_") and given.pop(name)]
        unknown = sorted(given.keys() - {"chain", "fraction", "levels", "clip_multiple", "error_feedback", "decay"})
        if unknown:
            raise ConfigurationError(f"compression has no {unknown[0]!r} inside other systems")
        chain = tuple(given["chain"])
        coders = [name for name in chain if name not in _GRIDS]
        if len(coders) > 1 or len(chain) - len(coders) > 1 or (coders and chain[0] != coders[0]):
            raise ConfigurationError(f"chain = {list(chain)}: at most one of {', '.join(CODERS)}, then the grid")
        feedback = given["error_feedback"]
        if feedback is None:  # where it was measured to help: see docs/compression.md
            feedback = "random_projection" in chain
        self._terms = CompressionTerms(
            coder=coders[0] if coders else "",
            fraction=float(given["fraction"]),
            levels=int(given["levels"]) if "rotated" in chain else 0,
            clip_multiple=float(given["clip_multiple"]),
            error_feedback=bool(feedback and coders),
            decay=float(given["decay"]),
            seed=os.urandom(32),
        )
        self._scale: Scale | None = None

    @property
    def terms(self) -> CompressionTerms:
        """What the next invitation says."""
        scale = self._scale or Scale(0.0, 0.0)
        values = {name: getattr(self._terms, name) for name in CompressionTerms.__dataclass_fields__}
        return CompressionTerms(**{**values, "mean_square": scale.mean_square, "sum_square": scale.sum_square})

    def check_server(self, protect: str, momentum: float, adaptive: bool) -> None:
        """Raises :class:`ConfigurationError` for a strategy that error feedback diverges under."""
        plan = rules.Plan(protect, self._terms.error_feedback, momentum, adaptive)
        rules.check(plan, self._allowed)

    def learn(self, scale: Scale | None) -> None:
        """The next sum's scale, from the last; ``None`` after a sum that could not be used."""
        usable = scale is not None and SMALLEST_SCALE < scale.mean_square < LARGEST_SCALE
        self._scale = scale if usable else None


class CompressedSum:
    """Both directions of one compressed sum. Raises :class:`ConfigurationError` for terms that cannot work."""

    def __init__(self, invitation: Invitation, terms: CompressionTerms) -> None:
        if invitation.noise is not None:
            raise ConfigurationError("noise is sized for the whole update: not in a compressed sum")
        self._invitation, self._terms = invitation, terms
        self._layout = Layout(invitation.layout)
        public = PublicRandomness(terms.seed, invitation.round)
        chain = Chain(tuple(_coders(terms)))
        self._drops = chain.drops and terms.error_feedback
        self._coder = chain.at(tuple(spec.shape for spec in invitation.layout), public)
        self._fixed = FixedPoint(invitation.clip_range, invitation.value_bits)
        size, scale = self._coder.sizes[0], Scale(terms.mean_square, terms.sum_square)
        grid: Grid = FixedGrid(self._fixed, size)
        reference = self._fixed.clip_range**2
        if terms.levels and scale.mean_square > 0:
            quantizer = RotatedQuantizer(terms.levels, "auto", terms.clip_multiple)
            grid, reference = quantizer.at(size, invitation.clients, scale, public, 0), scale.mean_square
        self._payload = Payload(grid, invitation.max_weight, reference, invitation.clients)
        self.scale: Scale | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Of the vector: the coder's values, their tail, the metrics."""
        count = len(self._invitation.metrics)
        return (*self._payload.segments, *((Segment(count, self._fixed.max_value),) if count else ()))

    @property
    def dimension(self) -> int:
        """Integers per client."""
        return sum(part.size for part in self.segments)

    @property
    def max_value(self) -> int:
        """The largest integer of a client."""
        return max(part.max_value for part in self.segments)

    def encode(
        self, update: Tensors, weight: int, metrics: NDArray[np.float64], seed: bytes, feedback: Feedback | None
    ) -> IntegerVector:
        """One client's vector. ``metrics``: within ±clip_range. ``feedback``: what this client kept; its pending
        residual is replaced. Raises :class:`~securefl.errors.InvalidInputError` as the payload does.
        """
        # the payload refuses a weight that is none
        share = weight / self._invitation.max_weight if type(weight) is int else 1.0
        flat = self._layout.flatten(update)
        flat = flat * flat.dtype.type(share)
        residuals = ErrorFeedback(self._terms.decay)
        if self._drops and feedback is not None and feedback.kept is not None:
            residuals.residuals[_ME] = feedback.kept
            flat = residuals.compensate(_ME, flat)
        values = self._coder.project(flat, 0)
        if self._drops and feedback is not None:
            residuals.propose(_ME, flat - self._coder.expand(values))
            residuals.commit((_ME,))
            feedback.pending, feedback.number = residuals.residuals[_ME], self._invitation.round
        rounding = derive(seed, Label.ROUNDING_STREAM, b"sum", bytes(4))
        encoded = self._payload.encode(np.asarray(values), weight, seed=rounding).values
        if not metrics.size:
            return encoded
        rounding = derive(seed, Label.ROUNDING_STREAM, b"metrics", bytes(4))
        extra = self._fixed.encode(metrics, seed=rounding, scale=share, clip=True).values
        return np.concatenate((encoded, extra))

    def decode(self, result: SumResult) -> tuple[Tensors, NDArray[np.floating], int]:
        """The means of the update and of the metrics (within ±clip_range), and the weights' sum; sets :attr:`scale`.

        Raises :class:`~securefl.errors.HeadroomError` when a sum left its narrow lanes.
        """
        count, size = len(result.survivors), sum(part.size for part in self._payload.segments)
        decoded = self._payload.decode(result.values[:size], count)
        self.scale = decoded.scale
        mean = self._layout.unflatten(self._coder.expand(decoded.mean.astype(np.float32)))
        metrics = self._fixed.decode(result.values[size:], count) if size < result.values.size else np.empty(0)
        return mean, metrics * (self._invitation.max_weight / decoded.weight), decoded.weight


def _coders(terms: CompressionTerms) -> list[LinearCoder]:
    unbiased = not terms.error_feedback
    if terms.coder == "random_k":
        return [RandomK(terms.fraction, unbiased=unbiased)]
    return [RandomProjection(terms.fraction, unbiased=unbiased)] if terms.coder else []
