"""FedPer: a shared body, and a last layer of each client's own that never leaves it. [Arivazhagan et al. 2019]

A client trains both from the body that it received and the head that it keeps, and sends the body's update only: the
protected vector is shorter by the head. The cut between them is also where split learning cuts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.algorithms import Averaging
from securefl.fl.engine import LocalTask
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalResult
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

__all__ = ["LocalHead"]


@dataclass
class LocalHead:
    """The :class:`~securefl.fl.algorithms.LocalAlgorithm` of FedPer. ``names``: the head's tensors.

    ``inner``: how the body is trained. The server's copy of the head stays as the run started it.
    """

    names: frozenset[str]
    inner: Averaging = field(default_factory=Averaging)
    _heads: dict[ClientId, Tensors] = field(default_factory=dict, init=False, repr=False)
    _pending: dict[ClientId, Tensors] = field(default_factory=dict, init=False, repr=False)
    _first: Tensors = field(default_factory=dict, init=False, repr=False)

    def tasks(
        self, round: int, tensors: Tensors, clients: Sequence[ClientId], workload: Workload, seeds: SeedTree
    ) -> list[LocalTask]:
        """See :class:`~securefl.fl.algorithms.LocalAlgorithm`."""
        self._pending.clear()
        self._first = {name: tensors[name] for name in tensors if name in self.names}
        return [
            self.inner.tasks(round, self.model(client, tensors), [client], workload, seeds)[0] for client in clients
        ]

    def model(self, client: ClientId, tensors: Tensors) -> Tensors:
        """The client's own model: the body of ``tensors`` and its head."""
        return {**tensors, **self._heads.get(client, {})}

    def sends(self, tensors: Tensors) -> Tensors:
        """The body. Raises :class:`ConfigurationError` when there is none."""
        body = self._body(tensors)
        if not body:
            raise ConfigurationError("fedper shares every layer but the last, and this model has no other layer")
        return body

    def _body(self, tensors: Tensors) -> Tensors:
        return {name: value for name, value in tensors.items() if name not in self.names}

    def sent(self, result: LocalResult, client: ClientId) -> Tensors:
        """The body's update; the head's is kept."""
        own = self._heads.get(client, self._first)
        self._pending[client] = {name: value + result.update[name] for name, value in own.items()}
        return self._body(result.update)

    def received(self, mean: Tensors, survivors: Collection[ClientId]) -> Tensors:
        """The survivors keep their new heads."""
        if self.names & set(mean):
            raise InvalidInputError("the aggregator's mean has a head, which no client sends")
        self._heads.update({client: head for client, head in self._pending.items() if client in survivors})
        self._pending.clear()
        return mean

    def failed(self) -> None:
        """No client was counted."""
        self._pending.clear()

    def describe(self) -> dict[str, object]:
        """See :class:`~securefl.fl.algorithms.LocalAlgorithm`."""
        return {"name": "fedper", "head": sorted(self.names), "inner": self.inner.describe()}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The heads."""
        return {f"head {c} {name}": value for c, own in self._heads.items() for name, value in own.items()}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        self._heads = {}
        for key, value in saved.items():
            kind, _, rest = key.partition(" ")
            if kind == "head":
                client, _, name = rest.partition(" ")
                self._heads.setdefault(ClientId(int(client)), {})[name] = np.asarray(value, dtype=np.float32)
