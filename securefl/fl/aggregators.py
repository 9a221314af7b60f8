"""Aggregation under a protection: encode, run a session in this process, decode."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Scale
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint
from securefl.encoding.radix import RadixLanes
from securefl.encoding.ring import Lanes
from securefl.encoding.shells import ShellPacking
from securefl.errors import InvalidInputError, TooFewClientsError
from securefl.fl.interfaces import Aggregate, Coder, Contribution, RoundPrivacy, RunPrivacy, ServerView
from securefl.fl.pipeline import Pipeline
from securefl.fl.seeds import SeedTree
from securefl.machine import Protection, RoundContext, SumResult
from securefl.transport.memory import Faults, run_session
from securefl.types import SERVER, ClientId, IntegerVector, PartyId, Tensors
from securefl.wire import HEADER_BYTES, Buffer

__all__ = ["Dropouts", "ProtectedAggregator", "View", "relative_error", "require_cohort", "threshold_of"]


@dataclass(frozen=True)
class Dropouts:
    """Simulated dropouts: each client drops out of each round with ``probability``, before one of its four messages.

    The draw depends on the seed, round and client only, so every protection loses the same clients.
    """

    probability: float
    seeds: SeedTree

    def faults(self, round: int, clients: Sequence[ClientId], vector_frame: int) -> Faults:
        """``vector_frame``: which of its frames carries a client's vector; a protection may have fewer than others."""
        drop_after: dict[PartyId, int] = {}
        for client in clients:
            draw = self.seeds.child(round, client).numpy()
            if draw.random() < self.probability:
                # three places before the vector is out, one after: then the client still counts
                place = int(draw.integers(-2, 2))
                drop_after[client] = max(0, vector_frame + place)
        return Faults(drop_after=drop_after)


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
        clipped = 0
        view = View(clients[0], context, self.protection.vector_frame) if self.record_view else None

        def input_of(client: ClientId) -> IntegerVector:
            nonlocal clipped
            try:
                encoded = coder.encode(contributions[client])
            except InvalidInputError as error:
                raise InvalidInputError(f"client {client}, round {round}: {error}") from None
            clipped += encoded.clipped
            if view is not None and client == view.client:
                view.sent = encoded.values.copy()
            return encoded.values

        faults = self.dropouts.faults(round, clients, self.protection.vector_frame) if self.dropouts else None
        outcome = run_session(self.protection, context, input_of, faults=faults, observe=view)
        for _, error in outcome.failures:
            if isinstance(error, InvalidInputError):
                raise error  # a simulation's own data is wrong: say so instead of counting a dropout
        result = outcome.unwrap()
        mean, total_weight, spent = self._release(round, coder, result)
        return Aggregate(
            mean=mean,
            survivors=result.survivors,
            total_weight=total_weight,
            upload_bytes=dict(outcome.uploaded),
            vector_bytes=dict(outcome.vector_bytes),
            download_bytes=dict(outcome.downloaded),
            clipped_fraction=clipped / (coder.layout.dimension * len(clients)),
            server_view=view.done() if view is not None else None,
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


def threshold_of(threshold: int | Callable[[int], int], clients: int) -> int:
    """The least number of survivors of a cohort of ``clients``."""
    return threshold(clients) if callable(threshold) else threshold


def require_cohort(threshold: int | Callable[[int], int], clients: int) -> None:
    """Raises :class:`TooFewClientsError` when so few were sampled into a round that it cannot give a sum."""
    if clients == 0:
        raise TooFewClientsError("no client was sampled into this round")
    count = threshold_of(threshold, clients)
    if count > clients:
        raise TooFewClientsError(f"{clients} clients were sampled into the round; its threshold is {count}")


class View:
    """An observer that keeps one client's vector as the server received it."""

    def __init__(self, client: ClientId, context: RoundContext, vector_frame: int) -> None:
        self.client = client
        self.sent: IntegerVector | None = None
        self._received: NDArray[np.uint64] | None = None
        self._lanes = (
            ShellPacking.of_context(context).parts[0].lanes[0]
        )  # the values; what stands behind them is not drawn
        self._frames_left = vector_frame

    def __call__(self, sender: PartyId, recipient: PartyId, frame: Buffer) -> None:
        if sender != self.client or recipient != SERVER:
            return
        if self._frames_left == 0:
            carried = (memoryview(frame).nbytes - HEADER_BYTES) // 8  # a ciphertext may be shorter than packed words
            words = np.frombuffer(frame, dtype="<u8", offset=HEADER_BYTES, count=min(self._lanes.words, carried))
            self._received = _lane_values(self._lanes, words)
        self._frames_left -= 1

    def done(self) -> ServerView | None:
        """``None`` when the client dropped out before its vector."""
        if self.sent is None or self._received is None:
            return None
        sent = self.sent[: min(self._lanes.dimension, self._received.size)]
        return ServerView(self.client, sent, self._received, _base(self._lanes) - 1)


def _base(lanes: Lanes | RadixLanes) -> int:
    return lanes.window if isinstance(lanes, RadixLanes) else 1 << lanes.bits


def _lane_values(lanes: Lanes | RadixLanes, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The words cut into lanes, whatever they hold: for a picture, not for a sum."""
    base, pieces = np.uint64(_base(lanes)), []
    for _ in range(lanes.per_word):
        pieces.append(words % base)
        words = words // base
    return np.concatenate(pieces)[: lanes.dimension]


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
