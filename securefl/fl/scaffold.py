"""SCAFFOLD: control variates that take out of a client's steps what sets it apart from the others.

Legend: x the model, y_i client i's after K_i steps of learning rate η, c_i its control variate, c the server's,
S the survivors among N clients. [Karimireddy et al. 2020, Algorithm 1, option II]

    client   y ← y - η (∇f_i(y) - c_i + c);   c_i⁺ = c_i - c + (x - y_i) / (K_i η);   sends y_i - x and c_i⁺ - c_i
    server   x by its optimizer from the mean of y_i - x;   c ← c + |S| / N · mean(c_i⁺ - c_i)

Both travel in one protected vector, under one weight and one mask, so the control variate of no client is seen. The
means are weighted by the number of examples as the update is, which makes c the gradient of the weighted objective.
A variate is sent times a public factor, η times the steps of an average client, so that it fills the same clip range
as an update. c_i⁺ is kept only when the server counted the client.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.engine import LocalTask
from securefl.fl.seeds import SeedTree
from securefl.fl.training import GradientTerms, LocalResult, LocalTraining
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

__all__ = ["Scaffold"]

_PREFIX: Final = "control "


@dataclass
class Scaffold:
    """The :class:`~securefl.fl.algorithms.LocalAlgorithm` of SCAFFOLD.

    ``training``: of the clients; plain SGD. ``average_steps``: > 0, public, of an average client in a round.
    ``population``: N. Raises :class:`ConfigurationError` for another optimizer: c_i⁺ is a mean gradient only then.
    """

    training: LocalTraining
    average_steps: float
    population: int
    _server: Tensors = field(default_factory=dict, init=False, repr=False)
    _clients: dict[ClientId, Tensors] = field(default_factory=dict, init=False, repr=False)
    _pending: dict[ClientId, Tensors] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        chosen = self.training
        if chosen.optimizer != "sgd" or chosen.momentum or chosen.weight_decay or chosen.dpsgd is not None:
            raise ConfigurationError("scaffold corrects plain sgd: no adam, momentum, weight decay or DP-SGD")
        if not self.average_steps > 0 or self.population < 1:
            raise ConfigurationError("scaffold needs a positive number of steps and at least 1 client")

    @property
    def _factor(self) -> float:
        return self.training.learning_rate * self.average_steps

    def tasks(
        self, round: int, tensors: Tensors, clients: Sequence[ClientId], workload: Workload, seeds: SeedTree
    ) -> list[LocalTask]:
        """See :class:`~securefl.fl.algorithms.LocalAlgorithm`."""
        self._pending.clear()
        if not self._server:
            self._server = {name: np.zeros_like(value) for name, value in tensors.items()}
        return [
            LocalTask(
                client,
                workload.rows[client - 1],
                tensors,
                seeds.child("client", client, "round", round, "training"),
                GradientTerms(drift=self._drift(client)),
            )
            for client in clients
        ]

    def _drift(self, client: ClientId) -> Tensors:
        own = self._clients.get(client)
        return self._server if own is None else {name: value - own[name] for name, value in self._server.items()}

    def sends(self, tensors: Tensors) -> Tensors:
        """The model's tensors, then a control variate for each."""
        return {**tensors, **{_PREFIX + name: value for name, value in tensors.items()}}

    def sent(self, result: LocalResult, client: ClientId) -> Tensors:
        """The update, and the change of the control variate times the public factor."""
        scale = np.float32(1 / (result.steps * self.training.learning_rate))
        change = {name: -self._server[name] - value * scale for name, value in result.update.items()}
        own = self._clients.get(client)
        self._pending[client] = change if own is None else {name: own[name] + value for name, value in change.items()}
        factor = np.float32(self._factor)
        return {**result.update, **{_PREFIX + name: np.asarray(value * factor) for name, value in change.items()}}

    def received(self, mean: Tensors, survivors: Collection[ClientId]) -> Tensors:
        """Move c; the survivors keep their new variates."""
        if any(_PREFIX + name not in mean or mean[_PREFIX + name].shape != v.shape for name, v in self._server.items()):
            raise InvalidInputError("the aggregator's mean lacks the control variates")
        share = len(survivors) / self.population / self._factor
        moved = {
            name: np.asarray(value + share * mean[_PREFIX + name].astype(np.float64), dtype=np.float32)
            for name, value in self._server.items()
        }
        if not all(np.isfinite(value).all() for value in moved.values()):
            raise InvalidInputError("the mean of the control variates is not finite")
        self._server = moved
        self._clients.update({client: value for client, value in self._pending.items() if client in survivors})
        self._pending.clear()
        return {name: value for name, value in mean.items() if not name.startswith(_PREFIX)}

    def failed(self) -> None:
        """No client was counted."""
        self._pending.clear()

    def describe(self) -> dict[str, object]:
        """See :class:`~securefl.fl.algorithms.LocalAlgorithm`."""
        return {"name": "scaffold", "average_steps": self.average_steps, "population": self.population}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """C and the clients' variates."""
        saved: dict[str, NDArray[np.generic]] = {f"control 0 {name}": value for name, value in self._server.items()}
        for client, own in self._clients.items():
            saved |= {f"control {client} {name}": value for name, value in own.items()}
        return saved

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        self._server, self._clients = {}, {}
        for key, value in saved.items():
            kind, _, rest = key.partition(" ")
            if kind != "control":
                continue
            owner, _, name = rest.partition(" ")
            held = self._clients.setdefault(ClientId(int(owner)), {}) if int(owner) else self._server
            held[name] = np.asarray(value, dtype=np.float32)
