"""Error feedback: what a client's coder dropped comes back with its next update. Kept by the client, never sent.

    p = update + decay · residual;   sent: A p;   new residual = p − A⁺ A p

The new residual replaces the old one only when the server counted the update (the survivors are public): otherwise
the part that was sent would be lost. [Karimireddy et al. 2019, "Error Feedback Fixes SignSGD", Algorithm 2]
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.types import ClientId, Update

__all__ = ["ErrorFeedback"]


@dataclass
class ErrorFeedback:
    """The residuals of clients; in a deployment a client holds one, its own.

    ``decay`` in [0, 1]: how much of a residual comes back. Raises :class:`ConfigurationError` otherwise.
    """

    decay: float = 1.0
    residuals: dict[ClientId, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    _pending: dict[ClientId, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.decay) and 0 <= self.decay <= 1):
            raise ConfigurationError(f"decay must lie in [0, 1], got {self.decay}")

    def compensate(self, client: ClientId, update: Update) -> Update:
        """``update`` + decay · residual, in place.

        Raises :class:`InvalidInputError` when the model changed its shape between rounds.
        """
        residual = self.residuals.get(client)
        if residual is None:
            return update
        if residual.shape != update.shape:
            raise InvalidInputError(
                f"client {client} holds a residual of {residual.size} values; the update has {update.size}: "
                "the model changed its shape between rounds"
            )
        update += np.float32(self.decay) * residual if self.decay != 1.0 else residual
        return update

    def propose(self, client: ClientId, residual: Update) -> None:
        """The residual to keep if the update counts; float32[d]. Raises :class:`InvalidInputError` unless finite."""
        if not math.isfinite(float(np.dot(residual, residual))):
            raise InvalidInputError(f"the residual of client {client} is not finite: reset it")
        self._pending[client] = residual.astype(np.float32, copy=False)

    def commit(self, counted: Collection[ClientId]) -> None:
        """End of the round: residuals of the clients that were counted replace the old ones."""
        self.residuals.update({client: value for client, value in self._pending.items() if client in counted})
        self._pending.clear()

    def reset(self, client: ClientId) -> None:
        """Forget a client's residual."""
        self.residuals.pop(client, None)
