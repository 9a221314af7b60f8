"""The shared sum behind the face that all protections share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from securefl.machine import ClientRole, RoundContext
from securefl.mpc.summation.client import SharedClient
from securefl.mpc.summation.params import SECOND_SERVER, Params
from securefl.mpc.summation.second import SecondServer
from securefl.mpc.summation.server import FirstServer
from securefl.primitives.kem import Suite
from securefl.types import ClientId, PartyId

__all__ = ["SharedSum"]


@dataclass(frozen=True, slots=True)
class SharedSum:
    """Two servers that must not collude. ``minimum_survivors``: the second server's own floor."""

    suite: Suite = Suite.MLKEM768_X25519
    minimum_survivors: int | None = None

    @property
    def name(self) -> str:
        return "shared"

    @property
    def vector_frame(self) -> int:
        return 1  # the sealed seed, then the vector

    def client(self, context: RoundContext, me: ClientId) -> SharedClient:
        return SharedClient(Params(context, self.suite), me)

    def server(self, context: RoundContext) -> FirstServer:
        return FirstServer(Params(context, self.suite))

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        """The second server."""
        return {SECOND_SERVER: SecondServer(Params(context, self.suite), minimum_survivors=self.minimum_survivors)}
