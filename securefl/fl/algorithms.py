"""What a client is asked to compute in a round, and what of it enters the protected sum.

:class:`Averaging` is federated averaging, with a proximal term FedProx. Whatever a client keeps between rounds is
taken over only when the server counted its update (the survivors are public), so that both sides agree on it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.fl.engine import LocalTask
from securefl.fl.seeds import SeedTree
from securefl.fl.training import GradientTerms, LocalResult
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

__all__ = ["Averaging", "LocalAlgorithm"]


class LocalAlgorithm(Protocol):
    """The clients' side of an algorithm, and what the server makes of the mean besides the model's step."""

    def tasks(
        self, round: int, tensors: Tensors, clients: Sequence[ClientId], workload: Workload, seeds: SeedTree
    ) -> list[LocalTask]:
        """What each of ``clients`` computes from the model ``tensors`` that it received.

        ``seeds``: the run's; a client trains by ``seeds.child("client", client, "round", round, "training")``.
        """
        ...

    def sends(self, tensors: Tensors) -> Tensors:
        """Arrays with the names, order, shapes and dtypes of what enters the sum, for the model ``tensors``."""
        ...

    def sent(self, result: LocalResult, client: ClientId) -> Tensors:
        """What of a client's result enters the sum: the same names and shapes for every client."""
        ...

    def received(self, mean: Tensors, survivors: Collection[ClientId]) -> Tensors:
        """Take the mean of what was sent; gives its part that is the mean of the model's updates."""
        ...

    def failed(self) -> None:
        """The round gave no mean: what clients were about to keep is dropped."""
        ...

    def describe(self) -> dict[str, object]:
        """Every setting, JSON-ready: part of a run's fingerprint."""
        ...

    def state(self) -> dict[str, NDArray[np.generic]]: ...
    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None: ...


@dataclass
class Averaging:
    """Federated averaging [McMahan et al. 2017]; with ``proximal`` μ > 0 FedProx [Li et al. 2020, Algorithm 2].

    FedProx adds μ/2 ‖w - w_global‖² to a client's loss, which holds it near the model that it was given.
    """

    proximal: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.proximal < np.inf:
            raise ConfigurationError(f"proximal is a number from 0, not {self.proximal}")

    def tasks(
        self, round: int, tensors: Tensors, clients: Sequence[ClientId], workload: Workload, seeds: SeedTree
    ) -> list[LocalTask]:
        """See :class:`LocalAlgorithm`."""
        terms = GradientTerms(proximal=self.proximal, anchor=tensors) if self.proximal else GradientTerms()
        return [
            LocalTask(
                client,
                workload.rows[client - 1],
                tensors,
                seeds.child("client", client, "round", round, "training"),
                terms,
            )
            for client in clients
        ]

    def sends(self, tensors: Tensors) -> Tensors:
        """The model's own."""
        return tensors

    def sent(self, result: LocalResult, client: ClientId) -> Tensors:
        """The update."""
        return result.update

    def received(self, mean: Tensors, survivors: Collection[ClientId]) -> Tensors:
        """The mean is that of the updates."""
        return mean

    def failed(self) -> None:
        """Nothing is kept."""

    def describe(self) -> dict[str, object]:
        """See :class:`LocalAlgorithm`."""
        return {"name": "averaging", "proximal": self.proximal}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Nothing is kept."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Nothing is kept."""
