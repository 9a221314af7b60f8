"""The n-of-n sum behind the face that all protections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from securefl.ckks.threshold.client import ThresholdClient
from securefl.ckks.threshold.params import DEFAULT_STATISTICAL_BITS, ThresholdParams
from securefl.ckks.threshold.server import ThresholdServer
from securefl.machine import ClientRole, RoundContext
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.identity import Directory, Identity
from securefl.types import ClientId, PartyId

__all__ = ["TRUST", "ThresholdSum"]

#: The assumption of the key model, in one sentence.
TRUST: Final = (
    "every client holds a share of the key and the sum opens only with all of them: a server, and all other clients "
    "with it, learn nothing but the sum as long as the clients follow the protocol; who leaves costs a new attempt"
)


class ThresholdSum:
    """CKKS with an n-of-n key. This object plays all parties, and so holds what each of them would.

    ``statistical_bits``: least statistical security of the decryption shares. ``minimum_survivors``: each client's own
    floor, beyond the threshold. In a deployment each party makes its own role (:class:`ThresholdClient`,
    :class:`ThresholdServer`) from its own identity and a directory of the others' public keys.
    """

    def __init__(
        self,
        *,
        statistical_bits: int = DEFAULT_STATISTICAL_BITS,
        minimum_survivors: int | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        self.statistical_bits = statistical_bits
        self.minimum_survivors = minimum_survivors
        self._entropy: Entropy = SystemEntropy() if entropy is None else entropy
        self._identities: dict[ClientId, Identity] = {}

    @property
    def name(self) -> str:
        return "ckks"

    @property
    def vector_frame(self) -> int:
        return 2  # key share, confirmation, then the ciphertexts

    @property
    def trust(self) -> str:
        """The assumption of the key model, in one sentence."""
        return TRUST

    def params(self, context: RoundContext) -> ThresholdParams:
        """The parameters of a round."""
        return ThresholdParams.of(context, self.statistical_bits)

    def client(self, context: RoundContext, me: ClientId) -> ThresholdClient:
        return ThresholdClient(
            self.params(context),
            me,
            self._identity(me),
            self.directory(context),
            minimum_survivors=self.minimum_survivors,
            entropy=self._entropy,
        )

    def server(self, context: RoundContext) -> ThresholdServer:
        return ThresholdServer(self.params(context), self.directory(context))

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        return {}

    def directory(self, context: RoundContext) -> Directory:
        """The public signing keys of a round's clients."""
        return Directory({client: self._identity(client).public for client in context.clients})

    def _identity(self, client: ClientId) -> Identity:
        if client not in self._identities:
            self._identities[client] = Identity(self._entropy.token(32))
        return self._identities[client]

    def __repr__(self) -> str:
        return f"ThresholdSum({self.statistical_bits} statistical bits)"
