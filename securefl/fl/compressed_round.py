"""One round of compressed updates: what is public about it, and how a client encodes.

    update · n_i/N ─ + residual ─ linear coder ─ clip ─ grid ─▶ integers ─ (protected sum) ─▶ grid ─ coder ─▶ mean

What all parties must agree on (the coder and its public state, the seed, the scale, earlier sums) is hashed
into the session's context: a client that encodes otherwise has its frames refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.chain import Chain
from securefl.encoding.clipping import clip_to_norm
from securefl.encoding.compressor import Coder, Grid, Scale
from securefl.encoding.feedback import ErrorFeedback
from securefl.encoding.layout import Layout
from securefl.encoding.payload import Decoded, FixedGrid, Payload
from securefl.encoding.public import PublicRandomness
from securefl.encoding.quantize import FixedPoint, Quantized
from securefl.encoding.rotate import RotatedQuantizer
from securefl.fl.collection import Collected
from securefl.fl.interfaces import Contribution
from securefl.machine import RoundContext
from securefl.primitives.kdf import Label, derive, tuple_hash
from securefl.types import ClientId, Update

__all__ = ["CompressedRound", "Compression", "Terms"]

#: Scales below this are no scale: a model that no longer moves.
_SMALLEST = 1e-30


@dataclass(frozen=True, slots=True)
class Compression:
    """``coder``: linear, possibly none. ``quantizer``: ``None`` keeps the fixed-point grid. ``error_feedback``: keep
    what the coder drops. ``decay``: of the residual.
    """

    coder: Chain = field(default_factory=Chain)
    quantizer: RotatedQuantizer | None = field(default_factory=RotatedQuantizer)
    error_feedback: bool = True
    decay: float = 1.0

    @property
    def sums(self) -> int:
        """Secure sums per round."""
        return self.coder.sums

    @property
    def feeds_back(self) -> bool:
        """Whether clients keep residuals."""
        return self.error_feedback and self.coder.drops

    def describe(self) -> str:
        """Every setting in one line; enters the context hash."""
        grid = self.quantizer.describe() if self.quantizer else "fixed_point"
        return f"{self.coder.describe()}|{grid}|feedback={self.error_feedback},decay={self.decay!r}"


@dataclass(frozen=True, slots=True)
class Terms:
    """What does not change between the rounds of a run: see :class:`~securefl.fl.compressed.CompressedAggregator`."""

    compression: Compression
    threshold: int
    grid: FixedPoint
    max_weight: int
    session: bytes
    clip_norm: float | None = None


class CompressedRound:
    """One round's public set-up and the clients' side of it."""

    def __init__(
        self,
        terms: Terms,
        public: PublicRandomness,
        model_hash: bytes,
        layout: Layout,
        coder_state: Sequence[NDArray[np.float32]],
        feedback: ErrorFeedback,
        contributions: Mapping[ClientId, Contribution],
    ) -> None:
        self._terms, self._public, self._model_hash, self._layout = terms, public, model_hash, layout
        self._contributions, self._feedback = contributions, feedback
        compression = terms.compression
        shapes = tuple(spec.shape for spec in layout.tensors)
        self.coder: Coder = compression.coder.at(shapes, public, coder_state)
        self._agreed = [
            compression.describe().encode(),
            layout.schema_hash,
            public.seed,
            *(value.astype("<f4").tobytes() for value in coder_state),
        ]
        self._feeds_back = compression.feeds_back
        self._updates: dict[ClientId, Update] = {}
        self.scales: list[Scale | None] = []
        self.upload: dict[ClientId, int] = {}
        self.vector: dict[ClientId, int] = {}
        self.download: dict[ClientId, int] = {}
        self.clipped = self.encoded = 0

    def set_up(self, at: int, clients: tuple[ClientId, ...], scale: Scale | None) -> tuple[Payload, RoundContext]:
        """The payload and the context of sum ``at``."""
        terms, size = self._terms, self.coder.sizes[at]
        quantizer = terms.compression.quantizer
        grid: Grid = FixedGrid(terms.grid, size)
        reference = terms.grid.clip_range**2
        if quantizer is not None and scale is not None:
            grid = quantizer.at(size, len(clients), scale, self._public, at)
            reference = scale.mean_square
        payload = Payload(grid, terms.max_weight, reference, len(clients))
        numbers = (at, self._public.round, terms.max_weight, reference, scale.sum_square if scale else -1.0)
        encoding = tuple_hash(Label.COMPRESSION, *self._agreed, struct.pack(">QQQdd", *numbers))
        segments = payload.segments
        return payload, RoundContext(
            session=terms.session,
            round=self._public.round,
            clients=clients,
            dimension=sum(part.size for part in segments),
            max_value=max(part.max_value for part in segments),
            threshold=terms.threshold,
            model_hash=self._model_hash,
            segments=segments,
            encoding=encoding,
        )

    def encode(self, at: int, payload: Payload, client: ClientId) -> Quantized:
        """A client's part of sum ``at``. Raises :class:`InvalidInputError` for data that cannot be encoded."""
        contribution = self._contributions[client]
        update = self._update(client)
        values = self.coder.project(update, at)
        if at == len(self.coder.sizes) - 1:
            self._feed_back(client, update, values)
        if self._terms.clip_norm is not None:
            values = clip_to_norm(values, self._terms.clip_norm)
        seed = derive(contribution.seed, Label.ROUNDING_STREAM, b"sum", at.to_bytes(4, "big"))
        return payload.encode(values, contribution.weight, seed=seed)

    def _update(self, client: ClientId) -> Update:
        """The weighted update with the residual; kept for the second sum when there is one."""
        if client in self._updates:
            return self._updates[client]
        contribution = self._contributions[client]
        flat = self._layout.flatten(contribution.tensors)
        flat *= flat.dtype.type(contribution.weight / self._terms.max_weight)
        if self._feeds_back:
            flat = self._feedback.compensate(client, flat)
        if len(self.coder.sizes) > 1:
            self._updates[client] = flat
        return flat

    def _feed_back(self, client: ClientId, update: Update, values: Update) -> None:
        if self._feeds_back:
            residual = self.coder.expand(values)
            np.subtract(update, residual, out=residual)
            self._feedback.propose(client, residual)

    def learn(self, at: int, decoded: Decoded) -> None:
        """What sum ``at`` gave: the next round's scale, and what the next sum is bound to."""
        self.coder.observe(at, decoded.mean.astype(np.float32))
        found = decoded.scale
        self.scales.append(found if _SMALLEST < found.mean_square < np.inf else None)
        self._agreed.append(decoded.mean.astype("<f4").tobytes())

    def count(self, found: Collected) -> None:
        """Add what a session took."""
        self.clipped += found.clipped
        self.encoded += found.encoded
        outcome = found.outcome
        for mine, theirs in (
            (self.upload, outcome.uploaded),
            (self.vector, outcome.vector_bytes),
            (self.download, outcome.downloaded),
        ):
            for client, size in theirs.items():
                mine[client] = mine.get(client, 0) + size
