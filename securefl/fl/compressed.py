"""Aggregation of compressed updates under any protection.

One round is one secure sum, or as many as the coder takes; what happens in it is in ``compressed_round``. The first
round, and every round after one that gave no scale, uses the fixed-point grid of ``[protection]``: its statistics set
the scale of the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Scale
from securefl.encoding.feedback import ErrorFeedback
from securefl.encoding.layout import Layout
from securefl.encoding.payload import Decoded
from securefl.encoding.public import PublicRandomness
from securefl.encoding.quantize import FixedPoint
from securefl.errors import HeadroomError, InvalidInputError
from securefl.fl.aggregators import relative_error
from securefl.fl.collection import collect
from securefl.fl.compressed_round import CompressedRound, Compression, Terms
from securefl.fl.dropouts import Dropouts, require_cohort, threshold_of
from securefl.fl.interfaces import Aggregate, Contribution, ServerView
from securefl.machine import Protection, RoundContext
from securefl.transport.memory import Faults
from securefl.types import ClientId, Tensors

__all__ = ["CompressedAggregator", "Compression"]


@dataclass
class CompressedAggregator:
    """The :class:`~securefl.fl.interfaces.Aggregator` of a simulated run with compression.

    ``public_seed``: 32 bytes known to all, chosen before any update. The other fields are those of
    :class:`~securefl.fl.aggregators.ProtectedAggregator`. ``prune``: makes a round's compression from the run's, for a
    public mask that changes (``fl.pruning``). State is kept between rounds: scales, the coder's public state and the
    clients' residuals (:meth:`state`).
    """

    protection: Protection
    threshold: int | Callable[[int], int]
    compression: Compression
    grid: FixedPoint
    max_weight: int
    public_seed: bytes
    clip_norm: float | None = None
    dropouts: Dropouts | None = None
    record_view: bool = False
    shadow: bool = False
    session: bytes = field(default_factory=lambda: os.urandom(16))
    prune: Callable[[Compression], Compression] | None = None

    def __post_init__(self) -> None:
        self.feedback = ErrorFeedback(self.compression.decay)
        self._scales: list[Scale | None] = [None] * self.compression.sums
        self._coder_state: list[NDArray[np.float32]] = []
        self._layout: Layout | None = None

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        """One round. Raises as ``ProtectedAggregator.aggregate``, and :class:`HeadroomError` (the run goes on)."""
        clients = tuple(sorted(contributions))
        require_cohort(self.threshold, len(clients))
        layout = Layout.of(contributions[clients[0]].tensors)
        if self._layout is not None and layout != self._layout:
            raise InvalidInputError("the model changed its tensors between rounds: residuals and scales do not fit it")
        self._layout = layout
        faults = self.dropouts.faults(round, clients, self.protection.vector_frame) if self.dropouts else None
        work = self._round(round, model_hash, layout, contributions, self._threshold_for(len(clients)))
        try:
            decoded, counted, view = self._sum(work, clients, faults)
        except BaseException as error:
            self.feedback.commit(())
            if isinstance(error, HeadroomError):  # the scale promised too much
                self._scales = [None] * self.compression.sums
            raise
        self.feedback.commit(counted)
        self._scales, self._coder_state = [*work.scales], [*work.coder.state()]
        mean = layout.unflatten(work.coder.expand(decoded.mean.astype(np.float32)))
        return Aggregate(
            mean=mean,
            survivors=counted,
            total_weight=decoded.weight,
            upload_bytes=work.upload,
            vector_bytes=work.vector,
            download_bytes=work.download,
            clipped_fraction=work.clipped / max(1, work.encoded),
            server_view=view,
            relative_error=relative_error(mean, contributions, counted) if self.shadow else None,
        )

    def _sum(
        self, work: CompressedRound, clients: tuple[ClientId, ...], faults: Faults | None
    ) -> tuple[Decoded, tuple[ClientId, ...], ServerView | None]:
        """The round's sums, one after the other; the second is over the survivors of the first."""
        at = 0
        while True:
            payload, context = work.set_up(at, clients, self._scales[at])
            found = collect(
                self.protection,
                context,
                partial(work.encode, at, payload),
                faults=faults,
                watch=self.record_view,
            )
            work.count(found)
            result = found.result
            decoded = payload.decode(result.values, len(result.survivors), in_place=True)
            work.learn(at, decoded)
            at += 1
            if at == self.compression.sums:
                return decoded, result.survivors, found.view
            clients, faults = result.survivors, None  # dropouts are drawn once a round

    def _round(
        self,
        round: int,
        model_hash: bytes,
        layout: Layout,
        contributions: Mapping[ClientId, Contribution],
        threshold: int,
    ) -> CompressedRound:
        compression = self.compression if self.prune is None else self.prune(self.compression)
        terms = Terms(compression, threshold, self.grid, self.max_weight, self.session, self.clip_norm)
        public = PublicRandomness(self.public_seed, round)
        return CompressedRound(terms, public, model_hash, layout, self._coder_state, self.feedback, contributions)

    def _threshold_for(self, clients: int) -> int:
        """The threshold of a cohort; all sums of its round have the same."""
        return threshold_of(self.threshold, clients)

    def contexts(
        self, tensors: Tensors, clients: tuple[ClientId, ...], scale: Scale | None
    ) -> tuple[RoundContext, ...]:
        """The contexts of a round's sums, for plans. ``scale``: that of the last round, ``None`` for the first."""
        work = self._round(0, bytes(32), Layout.of(tensors), {}, self._threshold_for(len(clients)))
        return tuple(work.set_up(at, clients, scale)[1] for at in range(self.compression.sums))

    def check(self, tensors: Tensors, clients: Sequence[ClientId]) -> None:
        """Raises :class:`ConfigurationError` when updates like ``tensors`` of these clients cannot be summed."""
        invited = tuple(sorted(clients))
        for scale in (None, Scale(1.0, 1.0)):
            for context in self.contexts(tensors, invited, scale):
                self.protection.server(context)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """What the next round depends on, for a checkpoint."""
        scales = [(s.mean_square, s.sum_square) if s else (np.nan, np.nan) for s in self._scales]
        saved: dict[str, NDArray[np.generic]] = {"scales": np.array(scales, dtype=np.float64)}
        saved |= {f"coder {at}": value for at, value in enumerate(self._coder_state)}
        saved |= {f"residual {client}": value for client, value in self.feedback.residuals.items()}
        return saved

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        pairs = np.asarray(saved["scales"], dtype=np.float64).tolist()
        self._scales = [None if np.isnan(mean) else Scale(mean, total) for mean, total in pairs]
        self._coder_state, residuals = [], {}
        for name, value in saved.items():
            kind, _, number = name.partition(" ")
            if kind == "coder":
                self._coder_state.append(np.asarray(value, dtype=np.float32))
            elif kind == "residual":
                residuals[ClientId(int(number))] = np.asarray(value, dtype=np.float32)
        self.feedback.residuals = residuals
