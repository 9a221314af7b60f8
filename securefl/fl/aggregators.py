"""Aggregation under a protection: encode, run a session in this process, decode."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from securefl.encoding.compressor import Scale
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint
from securefl.errors import TooFewClientsError
from securefl.fl.collection import collect
from securefl.fl.dropouts import Dropouts, require_cohort, threshold_of
from securefl.fl.interfaces import Aggregate, Coder, Contribution, RoundPrivacy, RunPrivacy
from securefl.fl.pipeline import Pipeline
from securefl.machine import Protection, RoundContext, SumResult
from securefl.types import ClientId, Tensors

__all__ = ["ProtectedAggregator", "relative_error"]


@dataclass
class ProtectedAggregator:
    """The :class:`~securefl.fl.interfaces.Aggregator` of a simulated run, under any protection.

    ``threshold``: least number of survivors, a count or a function of the cohort's size.
    ``privacy``: differential privacy of the run, whose coder and ledger take over.
    ``grid``, ``max_weight``, ``clip_norm``: see :class:`~securefl.fl.pipeline.Pipeline`.
    ``session``: names the run; fresh randomness by default.
    ``record_view``: keep one client's integers beside what the server received of it, for reports.
    ``shadow``: measure the error of each aggregate against the plain mean, which only a simulation can.
    """

    protection: Protection
    threshold: int | Callable[[int], int]
    grid: FixedPoint
    max_weight: int
    clip_norm: float | None = None
    dropouts: Dropouts | None = None
    privacy: RunPrivacy | None = None
    record_view: bool = False
    shadow: bool = False
    session: bytes = field(default_factory=lambda: os.urandom(16))

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        """One round. Raises what the session ended with; :class:`TooFewClientsError` leaves the run going."""
        clients = tuple(sorted(contributions))
        require_cohort(self.threshold, len(clients))
        if self.privacy is not None:
            self.privacy.before(round)
        coder, context = self._set_up(round, model_hash, contributions[clients[0]].tensors, clients)
        faults = self.dropouts.faults(round, clients, self.protection.vector_frame) if self.dropouts else None
        found = collect(
            self.protection,
            context,
            lambda client: coder.encode(contributions[client]),
            faults=faults,
            watch=self.record_view,
        )
        result, outcome = found.result, found.outcome
        mean, total_weight, spent = self._release(round, coder, result)
        return Aggregate(
            mean=mean,
            survivors=result.survivors,
            total_weight=total_weight,
            upload_bytes=dict(outcome.uploaded),
            vector_bytes=dict(outcome.vector_bytes),
            download_bytes=dict(outcome.downloaded),
            clipped_fraction=found.clipped / (coder.layout.dimension * len(clients)),
            server_view=found.view,
            relative_error=relative_error(mean, contributions, result.survivors) if self.shadow else None,
            privacy=spent,
        )

    def _release(self, round: int, coder: Coder, result: SumResult) -> tuple[Tensors, int, RoundPrivacy | None]:
        """Decode the sum; under differential privacy only after its charge is on disk."""
        if self.privacy is None:
            mean, total_weight = coder.decode(result)
            return mean, total_weight, None
        self.privacy.charge(round, coder, result)
        mean, total_weight = coder.decode(result)
        digest = hashlib.sha256(b"".join(tensor.tobytes() for tensor in mean.values())).digest()
        return mean, total_weight, self.privacy.released(round, coder, digest)

    def contexts(
        self, tensors: Tensors, clients: tuple[ClientId, ...], scale: Scale | None
    ) -> tuple[RoundContext, ...]:
        """The contexts of a round's sums, for plans. ``scale``: that of the last round, ``None`` for the first."""
        return (self._set_up(0, bytes(32), tensors, clients)[1],)

    def check(self, tensors: Tensors, clients: Sequence[ClientId]) -> None:
        """Raises :class:`ConfigurationError` when updates like ``tensors`` of these clients cannot be summed."""
        _, context = self._set_up(0, bytes(32), tensors, tuple(sorted(clients)))
        self.protection.server(context)

    def _threshold_for(self, clients: int) -> int:
        """The threshold of a cohort; a sampled one is never opened below the survivors that the noise is sized for."""
        if self.privacy is not None and self.privacy.minimum_survivors > clients:
            count = self.privacy.minimum_survivors
            raise TooFewClientsError(f"{clients} clients were sampled; the noise is sized for {count} survivors")
        count = threshold_of(self.threshold, clients)
        return count if self.privacy is None else max(count, self.privacy.minimum_survivors)

    def _set_up(
        self, round: int, model_hash: bytes, tensors: Tensors, clients: tuple[ClientId, ...]
    ) -> tuple[Coder, RoundContext]:
        layout = Layout.of(tensors)
        coder: Coder = Pipeline(layout, self.grid, self.max_weight, self.clip_norm)
        if self.privacy is not None:
            coder = self.privacy.coder(layout) or coder
        return coder, RoundContext(
            session=self.session,
            round=round,
            clients=clients,
            dimension=coder.dimension,
            max_value=coder.max_value,
            threshold=self._threshold_for(len(clients)),
            model_hash=model_hash,
            encoding=coder.encoding,
        )


def relative_error(mean: Tensors, contributions: Mapping[ClientId, Contribution], counted: Sequence[ClientId]) -> float:
    """‖mean − plain‖² / ‖plain‖², where plain is the weighted mean of the counted clients in float64."""
    weight = sum(contributions[client].weight for client in counted)
    error = norm = 0.0
    for name, value in mean.items():
        plain = sum(contributions[c].tensors[name].astype(np.float64) * contributions[c].weight for c in counted)
        plain = np.asarray(plain) / weight
        error += float(np.square(value - plain).sum())
        norm += float(np.square(plain).sum())
    return error / norm if norm else 0.0
