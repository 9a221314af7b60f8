"""What the round loop and an aggregator exchange, and what a run records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.layout import Layout
from securefl.encoding.quantize import Quantized
from securefl.errors import SecureFLError
from securefl.machine import SumResult
from securefl.types import ClientId, IntegerVector, Tensors

__all__ = [
    "Aggregate",
    "Aggregator",
    "Coder",
    "Contribution",
    "LostRoundError",
    "RoundPrivacy",
    "RoundRecord",
    "RunPrivacy",
    "RunResult",
    "ServerView",
    "Stateful",
]


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """What one client gives to one round; it exists on that client only.

    ``tensors``: float32 arrays, the client's update (after - before), in the model's order.
    ``weight``: >= 1, the number of examples. ``seed``: 32 secret bytes for stochastic rounding: from the seed tree in
    a simulation, fresh from the operating system in a deployment.
    """

    tensors: Tensors = field(repr=False)
    weight: int
    seed: bytes = field(repr=False)


class LostRoundError(SecureFLError):
    """A round that was charged before an interruption: its result is lost and it is never run again."""


@dataclass(frozen=True, slots=True)
class RoundPrivacy:
    """``epsilon``: spent after the round, at the budget's δ. ``clip_norm``: of the next round."""

    epsilon: float
    clip_norm: float


@dataclass(frozen=True, slots=True, eq=False)
class ServerView:
    """One client's vector in one round, for a picture: what it gave and what the server received of it.

    ``sent``: uint64[d], the client's integers. ``received``: uint64[d], the lanes of the server's words, whatever they
    hold. ``largest``: the largest value a lane can hold.
    """

    client: ClientId
    sent: IntegerVector = field(repr=False)
    received: IntegerVector = field(repr=False)
    largest: int


@dataclass(frozen=True, slots=True, eq=False)
class Aggregate:
    """The result of one round over exactly ``survivors``.

    ``mean``: sum of weight times update over sum of weights, floating point, names and shapes of the contributions.
    ``survivors``: ascending ids. ``total_weight``: the sum of the survivors' weights.
    ``upload_bytes``: bytes each client sent, everything included. ``vector_bytes``: of these, the protected
    vector (the rest are keys and shares, which do not grow with the model). ``download_bytes``: bytes each received.
    ``clipped_fraction``: share of the values that lay outside the clip range, in [0, 1].
    ``server_view``: one client's message as the server saw it, for reports, or ``None``.
    ``relative_error``: ‖mean − plain mean‖² / ‖plain mean‖², where a simulation was asked to compare, else ``None``.
    """

    mean: Tensors = field(repr=False)
    survivors: tuple[ClientId, ...]
    total_weight: int
    upload_bytes: Mapping[ClientId, int] = field(repr=False)
    vector_bytes: Mapping[ClientId, int] = field(repr=False)
    download_bytes: Mapping[ClientId, int] = field(repr=False)
    clipped_fraction: float = 0.0
    server_view: ServerView | None = field(default=None, repr=False)
    relative_error: float | None = None
    privacy: RoundPrivacy | None = None


class Coder(Protocol):
    """Contributions to integers, and the sum of the integers to a mean."""

    @property
    def layout(self) -> Layout: ...
    @property
    def dimension(self) -> int:
        """Integers per client."""
        ...

    @property
    def max_value(self) -> int:
        """The largest integer of a client."""
        ...

    @property
    def encoding(self) -> bytes:
        """A hash of what clients must agree on to encode alike."""
        ...

    def encode(self, contribution: Contribution) -> Quantized: ...
    def decode(self, result: SumResult) -> tuple[Tensors, int]:
        """The mean over ``result.survivors`` and the sum of their weights."""
        ...


class RunPrivacy(Protocol):
    """What a run with differential privacy asks before, and tells after, each sum. See :mod:`securefl.fl.privacy`."""

    @property
    def minimum_survivors(self) -> int:
        """No sum over fewer clients may be opened."""
        ...

    def coder(self, layout: Layout) -> Coder | None:
        """This round's coder, or ``None`` for the ordinary one."""
        ...

    def before(self, round: int) -> None:
        """Raises :class:`~securefl.errors.PrivacyBudgetExceededError` or :class:`LostRoundError`."""
        ...

    def charge(self, round: int, coder: Coder, result: SumResult) -> None:
        """Commit the charge for the realised survivors; only then may the sum be decoded."""
        ...

    def released(self, round: int, coder: Coder, digest: bytes) -> RoundPrivacy:
        """Note that the round's mean, named by ``digest``, is out."""
        ...


class Aggregator(Protocol):
    """Anything that turns contributions into their weighted mean.

    One that keeps state between rounds has ``state()`` and ``restore(arrays)`` (:class:`Stateful`).
    """

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        """One round of summation.

        ``round``: 1, 2, … ``model_hash``: 32 bytes, hash of the global model that the clients started from.
        ``contributions``: by ascending client id; not to be kept after the call.
        Raises :class:`~securefl.errors.TooFewClientsError` when too few clients are left,
        :class:`~securefl.errors.HeadroomError` when a sum left its lanes, and :class:`LostRoundError`: the round is
        recorded as failed and the run goes on. Raises :class:`~securefl.errors.PrivacyBudgetExceededError` when the
        budget does not allow the round: the run ends with what it has. Every other error ends the run as an error.
        """
        ...


@runtime_checkable
class Stateful(Protocol):
    """What keeps arrays between rounds; they are part of a checkpoint."""

    def state(self) -> dict[str, NDArray[np.generic]]: ...
    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None: ...


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round as the simulation saw it.

    ``accuracy``, ``test_loss``: of the global model after the round, on the held-out test set. A client's
    training loss is a statement about its data and does not leave it in the clear: see ``metrics``.
    ``survivors``: ascending ids, empty when the round failed; ``failed``: then the reason, otherwise ``None``.
    The byte figures are means over the clients that sent anything, ``None`` when the round failed.
    ``metrics``: weighted means of the survivors' own figures, summed under protection; ``None`` where none are asked.
    ``balanced_accuracy``: the mean of the classes' own accuracies on the same test set.
    ``privacy``: what was spent after the round, ``None`` without differential privacy and when the round failed.
    ``seconds``: wall clock for training, aggregation and evaluation; the one field that is not reproducible.
    ``model_bytes``: the global model as each client downloads it. ``aggregate_error``: the aggregate's relative
    squared error in shadow runs.
    """

    round: int
    accuracy: float
    test_loss: float
    clients: int
    survivors: tuple[ClientId, ...]
    failed: str | None
    upload_bytes_per_client: float | None
    vector_bytes_per_client: float | None
    download_bytes_per_client: float | None
    clipped_fraction: float | None
    seconds: float
    model_bytes: int | None = None
    aggregate_error: float | None = None
    privacy: RoundPrivacy | None = None
    balanced_accuracy: float | None = None
    metrics: dict[str, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """A finished run: the global model, its records in order, and the model's hash in hexadecimal.

    ``server_view``: that of the last aggregate of this process, if the aggregator gave any. ``stopped``: why the run
    ended before its last round (the privacy budget), or ``None``.
    """

    tensors: Tensors = field(repr=False)
    records: tuple[RoundRecord, ...] = field(repr=False)
    model_hash: str
    server_view: ServerView | None = field(default=None, repr=False)
    stopped: str | None = None

    @property
    def accuracy(self) -> float:
        """Test accuracy after the last round, in [0, 1]."""
        return self.records[-1].accuracy
