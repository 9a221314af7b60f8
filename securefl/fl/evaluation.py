"""How good models are: the shared one on the test set, and the clients' own on examples that each client held out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.fl.algorithms import LocalAlgorithm
from securefl.fl.local_head import LocalHead
from securefl.fl.scoring import Evaluation, evaluate
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ClientAccuracy", "Evaluator", "PersonalReport"]


@dataclass(frozen=True, slots=True)
class ClientAccuracy:
    """Accuracy on one client's held-out examples, of the shared model (``None`` where there is none) and its own."""

    client: ClientId
    examples: int
    shared: float | None
    personal: float


@dataclass(frozen=True, slots=True)
class PersonalReport:
    """What a simulation sees of all clients; a deployment sees a client's figures on that client only."""

    method: str
    clients: tuple[ClientAccuracy, ...] = field(repr=False)

    def mean(self, *, shared: bool = False) -> float | None:
        """The mean over clients, each counting the same; of the shared model with ``shared``."""
        values = self._values(shared)
        return None if values is None else fmean(values)

    def worst_tenth(self, *, shared: bool = False) -> float | None:
        """The mean over the worst tenth of the clients (at least one)."""
        values = self._values(shared)
        return None if values is None else fmean(sorted(values)[: math.ceil(len(values) / 10)])

    def _values(self, shared: bool) -> list[float] | None:
        values = [each.shared if shared else each.personal for each in self.clients]
        known = [value for value in values if value is not None]
        return known if len(known) == len(values) else None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluator:
    """``module``: a workspace. ``workload``: the test set and what clients held out."""

    module: nn.Module = field(repr=False)
    workload: Workload

    def shared(self, tensors: Tensors, algorithm: LocalAlgorithm) -> Evaluation:
        """The global model on the test set; where every client has a head of its own, theirs on held-out examples."""
        if not isinstance(algorithm, LocalHead):
            return evaluate(self.module, tensors, self.workload.test)
        held_out, accuracy, loss, balanced = self._held_out(), 0.0, 0.0, 0.0
        total = sum(map(len, held_out.values()))
        for client, rows in held_out.items():
            found = evaluate(self.module, algorithm.model(client, tensors), self.workload.train.subset(rows))
            accuracy += found.accuracy * len(rows) / total
            loss += found.loss * len(rows) / total
            balanced += found.balanced_accuracy * len(rows) / total
        return Evaluation(accuracy, loss, balanced)

    def accuracy(self, tensors: Tensors, rows: NDArray[np.int64]) -> float:
        """On rows of the training set."""
        return evaluate(self.module, tensors, self.workload.train.subset(rows)).accuracy

    def personal(self, method: str, own: Mapping[ClientId, Tensors], shared: Tensors | None) -> PersonalReport:
        """Every client's ``own`` model and the ``shared`` one, if there is one, on what the client held out."""
        found = tuple(
            ClientAccuracy(
                client,
                len(rows),
                None if shared is None else self.accuracy(shared, rows),
                self.accuracy(own[client], rows),
            )
            for client, rows in self._held_out().items()
        )
        return PersonalReport(method, found)

    def _held_out(self) -> dict[ClientId, NDArray[np.int64]]:
        if self.workload.held_out is None:
            raise ConfigurationError("personal models are evaluated on examples that each client held out: none were")
        return {ClientId(at): rows for at, rows in enumerate(self.workload.held_out, start=1)}
