"""Who drops out of a simulated round on the way, and how many must stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from securefl.errors import TooFewClientsError
from securefl.fl.seeds import SeedTree
from securefl.transport.memory import Faults
from securefl.types import ClientId, PartyId

__all__ = ["Dropouts", "require_cohort", "threshold_of"]


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
