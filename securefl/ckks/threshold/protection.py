"""The n-of-n sum behind the face that all protections share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from securefl.ckks.threshold.client import ThresholdClient
from securefl.ckks.threshold.params import DEFAULT_STATISTICAL_BITS, ThresholdParams
from securefl.ckks.threshold.server import ThresholdServer
from securefl.machine import ClientRole, RoundContext
from securefl.types import ClientId, PartyId

__all__ = ["ThresholdSum"]


@dataclass(frozen=True, slots=True)
class ThresholdSum:
    """CKKS with an n-of-n key: nobody can open anything alone, every party is needed to open the sum.

    ``minimum_survivors``: each client's own floor, beyond the threshold. ``statistical_bits``: of decryption shares.
    ``identities``, ``signing_keys``: see :class:`ThresholdClient`; a deployment gives each client its own key only.
    """

    minimum_survivors: int | None = None
    statistical_bits: int = DEFAULT_STATISTICAL_BITS
    identities: Mapping[ClientId, bytes] | None = None
    signing_keys: Mapping[ClientId, Ed25519PrivateKey] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return "ckks"

    @property
    def vector_frame(self) -> int:
        return 2  # key share, confirmation, then the ciphertexts

    def client(self, context: RoundContext, me: ClientId) -> ThresholdClient:
        return ThresholdClient(
            ThresholdParams.of(context, self.statistical_bits),
            me,
            minimum_survivors=self.minimum_survivors,
            identities=self.identities,
            signing_key=None if self.signing_keys is None else self.signing_keys.get(me),
        )

    def server(self, context: RoundContext) -> ThresholdServer:
        return ThresholdServer(ThresholdParams.of(context, self.statistical_bits))

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        return {}
