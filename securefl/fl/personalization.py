"""Models of one's own: what each client makes of the global model on its own examples. None of it leaves the client.

- :class:`FineTune`: some more steps from the global model, of all layers or the last one only.
- :class:`Interpolate`: α · global + (1 - α) · local, weight by weight, where local is the fine-tuned global model (a
  local model trained alone lies in another valley, and the mean of the two is poor).
- :class:`Ditto`: a personal model v trained beside the shared one in every round, with λ/2 ‖v - w‖² added to its loss
  [Li et al. 2021, Algorithm 1].

The fourth, a head that is never shared, is an algorithm of its own (:mod:`securefl.fl.local_head`). The protected sum
is the same as without. Every client evaluates on examples that it never trained on (``Workload.held_out``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.fl.engine import Engine, LocalTask
from securefl.fl.models import head_of
from securefl.fl.seeds import SeedTree
from securefl.fl.training import GradientTerms, LocalTraining
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

__all__ = ["Ditto", "Evaluate", "FineTune", "Interpolate", "Personalizer", "Site"]

#: Mixing shares that a client tries when it may choose; the first of the best is taken, so that ties go to 1/2.
_ALPHAS = (0.5, 0.25, 0.75, 0.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """Where personal models are trained: ``engine``, ``workload``, ``training`` of a round, the run's ``seeds``."""

    engine: Engine
    workload: Workload
    training: LocalTraining
    seeds: SeedTree


class Evaluate(Protocol):
    """Accuracy in [0, 1] of ``tensors`` on the ``rows`` of the training set."""

    def __call__(self, tensors: Tensors, rows: NDArray[np.int64]) -> float: ...


class Personalizer(Protocol):
    """Makes personal models; what it keeps between rounds is the clients' own."""

    def during(self, round: int, received: Tensors, clients: Sequence[ClientId], site: Site) -> None:
        """A round in which ``clients`` received the model ``received``."""
        ...

    def models(self, tensors: Tensors, site: Site, evaluate: Evaluate) -> dict[ClientId, Tensors]:
        """Every client's model, from the final global one."""
        ...

    def describe(self) -> dict[str, object]:
        """Every setting, JSON-ready: part of a run's fingerprint."""
        ...

    def state(self) -> dict[str, NDArray[np.generic]]: ...
    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None: ...


@dataclass(frozen=True)
class FineTune:
    """``steps`` >= 1 mini-batches at ``learning_rate`` from the global model; ``head``: of the last layer only."""

    steps: int = 35
    learning_rate: float = 0.1
    head: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigurationError(f"fine-tuning takes at least 1 step, not {self.steps}")

    def during(self, round: int, received: Tensors, clients: Sequence[ClientId], site: Site) -> None:
        """Nothing happens before the end."""

    def models(self, tensors: Tensors, site: Site, evaluate: Evaluate) -> dict[ClientId, Tensors]:
        """See :class:`Personalizer`."""
        return self.tuned(tensors, site, site.workload.rows, "fine-tune")

    def tuned(
        self, tensors: Tensors, site: Site, rows: Sequence[NDArray[np.int64]], purpose: str
    ) -> dict[ClientId, Tensors]:
        """Every client's model, fine-tuned on its ``rows``."""
        only = frozenset(head_of(tensors)) if self.head else None
        tasks = [
            LocalTask(ClientId(c), own, tensors, site.seeds.child("client", c, purpose), trainable=only)
            for c, own in enumerate(rows, start=1)
        ]
        settings = replace(site.training, steps=self.steps, learning_rate=self.learning_rate, dpsgd=None)
        results = site.engine.train(0, tasks, settings)
        return {client: _sum(tensors, result.update) for client, result in results.items()}

    def describe(self) -> dict[str, object]:
        """See :class:`Personalizer`."""
        return {"name": "fine_tune", "steps": self.steps, "learning_rate": self.learning_rate, "head": self.head}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Nothing is kept."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Nothing is kept."""


@dataclass(frozen=True)
class Interpolate:
    """α · global + (1 - α) · fine-tuned, ``alpha`` in [0, 1].

    ``choose``: each client takes the α that serves a quarter of its training examples best, which are left out of the
    fine-tuning that decides, and only of that.
    """

    tune: FineTune = field(default_factory=FineTune)
    alpha: float = 0.5
    choose: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigurationError(f"alpha lies in [0, 1], not {self.alpha}")

    def during(self, round: int, received: Tensors, clients: Sequence[ClientId], site: Site) -> None:
        """Nothing happens before the end."""

    def models(self, tensors: Tensors, site: Site, evaluate: Evaluate) -> dict[ClientId, Tensors]:
        """See :class:`Personalizer`."""
        tuned = self.tune.models(tensors, site, evaluate)
        chosen = self._chosen(tensors, site, evaluate) if self.choose else {}
        return {client: _mixed(tensors, local, chosen.get(client, self.alpha)) for client, local in tuned.items()}

    def _chosen(self, tensors: Tensors, site: Site, evaluate: Evaluate) -> dict[ClientId, float]:
        parts = [_quarter(rows, site.seeds.child("alpha", at)) for at, rows in enumerate(site.workload.rows, start=1)]
        trial = self.tune.tuned(tensors, site, [kept for kept, _ in parts], "alpha")
        found: dict[ClientId, float] = {}
        for client, local in trial.items():
            judged = parts[client - 1][1]
            scores = [evaluate(_mixed(tensors, local, alpha), judged) for alpha in _ALPHAS]
            found[client] = _ALPHAS[scores.index(max(scores))]
        return found

    def describe(self) -> dict[str, object]:
        """See :class:`Personalizer`."""
        return {"name": "interpolate", "alpha": self.alpha, "choose": self.choose, "tune": self.tune.describe()}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Nothing is kept."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Nothing is kept."""


@dataclass
class Ditto:
    """``pull`` λ >= 0: how strongly a personal model is held near the shared one.

    A personal model starts as the first global model that its client received and trains as local training does, in
    every round that the client joins, whether or not that round gave a sum.
    """

    pull: float = 0.1
    _models: dict[ClientId, Tensors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.pull < math.inf:
            raise ConfigurationError(f"pull is a number from 0, not {self.pull}")

    def during(self, round: int, received: Tensors, clients: Sequence[ClientId], site: Site) -> None:
        """See :class:`Personalizer`."""
        terms = GradientTerms(proximal=self.pull, anchor=received) if self.pull else GradientTerms()
        tasks = [
            LocalTask(
                client,
                site.workload.rows[client - 1],
                self._models.get(client, received),
                site.seeds.child("client", client, "round", round, "personal"),
                terms,
            )
            for client in clients
        ]
        for task in tasks:
            self._models[task.client] = task.start
        for client, result in site.engine.train(round, tasks, replace(site.training, dpsgd=None)).items():
            self._models[client] = _sum(self._models[client], result.update)

    def models(self, tensors: Tensors, site: Site, evaluate: Evaluate) -> dict[ClientId, Tensors]:
        """The personal models; the global one for clients that never joined."""
        return {client: self._models.get(client, tensors) for client in site.workload.weights}

    def describe(self) -> dict[str, object]:
        """See :class:`Personalizer`."""
        return {"name": "ditto", "pull": self.pull}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The personal models."""
        return {f"personal {c} {name}": value for c, own in self._models.items() for name, value in own.items()}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        self._models = {}
        for key, value in saved.items():
            kind, _, rest = key.partition(" ")
            if kind == "personal":
                client, _, name = rest.partition(" ")
                self._models.setdefault(ClientId(int(client)), {})[name] = np.asarray(value, dtype=np.float32)


def _sum(start: Tensors, update: Tensors) -> Tensors:
    return {name: value + update[name] for name, value in start.items()}


def _mixed(shared: Tensors, local: Tensors, alpha: float) -> Tensors:
    part = np.float32(alpha)
    return {name: np.asarray(part * value + (np.float32(1) - part) * local[name]) for name, value in shared.items()}


def _quarter(rows: NDArray[np.int64], seeds: SeedTree) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(three quarters, one quarter), at least one row on either side; both all of it where there is only one."""
    if len(rows) < 2:
        return rows, rows
    order = seeds.numpy().permutation(rows)
    cut = max(1, len(rows) // 4)
    return np.sort(order[cut:]), np.sort(order[:cut])
