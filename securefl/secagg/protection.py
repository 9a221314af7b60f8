"""The masked sum behind the face that all protections share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securefl.machine import ClientRole, RoundContext
from securefl.primitives.kem import Suite
from securefl.secagg.client import Client
from securefl.secagg.params import Params
from securefl.secagg.server import Server
from securefl.types import ClientId, PartyId

__all__ = ["MaskedSum"]


@dataclass(frozen=True, slots=True)
class MaskedSum:
    """Pairwise masks (Bonawitz et al. 2017).

    ``minimum_survivors``, ``minimum_threshold``: each client's own floors, which hold whatever the server proposes.
    """

    suite: Suite = Suite.MLKEM768_X25519
    minimum_survivors: int | None = None
    minimum_threshold: int = 2

    @property
    def name(self) -> str:
        return "masked"

    @property
    def vector_frame(self) -> int:
        return 2  # keys, shares, then the masked input

    def client(self, context: RoundContext, me: ClientId) -> Client:
        return Client(
            Params.of(context, self.suite),
            me,
            minimum_survivors=self.minimum_survivors,
            minimum_threshold=self.minimum_threshold,
        )

    def server(self, context: RoundContext) -> Server:
        return Server(Params.of(context, self.suite))

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        return {}
