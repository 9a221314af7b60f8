"""Who trains the clients of a round in this process: the tasks of a round in, each client's result out.

The seam between what an algorithm asks of a client (:mod:`securefl.fl.algorithms`) and how a simulation computes it.
:class:`SequentialEngine` is the reference: one client after the other. Another engine may train many at once; it gives
the same results up to the order of floating-point operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.fl import training
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree
from securefl.fl.training import GradientTerms, LocalResult, LocalTraining
from securefl.types import ClientId, Tensors

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Engine", "LocalTask", "SequentialEngine"]


@dataclass(frozen=True, slots=True, eq=False)
class LocalTask:
    """What one client computes in one round.

    ``rows``: of the engine's dataset. ``start``: the parameters that training starts from; the same object for many
    clients where they are equal. ``seed``: fixes the order of examples and random layers. ``terms``: what is added to
    every gradient. ``limit``: at most so many steps. ``trainable``: names of the tensors that
    move; ``None``: all.
    """

    client: ClientId
    rows: NDArray[np.int64] = field(repr=False)
    start: Tensors = field(repr=False)
    seed: SeedTree
    terms: GradientTerms = field(default_factory=GradientTerms, repr=False)
    limit: int | None = None
    trainable: frozenset[str] | None = None


class Engine(Protocol):
    """Trains all clients of a round."""

    def train(self, round: int, tasks: Sequence[LocalTask], settings: LocalTraining) -> dict[ClientId, LocalResult]:
        """One result per task. A result depends on its task alone, not on the others or their order.

        Raises as :func:`securefl.fl.training.train`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SequentialEngine:
    """One client after the other in the workspace ``module``: the reference semantics."""

    module: nn.Module = field(repr=False)
    dataset: Dataset

    def train(self, round: int, tasks: Sequence[LocalTask], settings: LocalTraining) -> dict[ClientId, LocalResult]:
        """See :class:`Engine`."""
        return {
            task.client: training.train(
                self.module,
                task.start,
                self.dataset,
                task.rows,
                settings,
                task.seed,
                client=task.client,
                round=round,
                terms=task.terms,
                limit=task.limit,
                trainable=task.trainable,
            )
            for task in tasks
        }
