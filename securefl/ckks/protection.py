"""The CKKS sum behind the face that all protections share."""

from __future__ import annotations

from collections.abc import Mapping

from securefl.ckks import backend
from securefl.ckks.client import Client
from securefl.ckks.key_holder import KeyHolder
from securefl.ckks.keys import KeyRing
from securefl.ckks.params import KEY_HOLDER, Guard, KeyModel, ParameterSet, Params, Release, parameter_set
from securefl.ckks.server import Server
from securefl.errors import ConfigurationError
from securefl.machine import ClientRole, RoundContext
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.identity import Directory, Identity
from securefl.types import SERVER, ClientId, PartyId

__all__ = ["CKKSSum"]


class CKKSSum:
    """Sums under CKKS ciphertexts. This object plays all parties, and so holds what each of them would.

    ``key_model``: :class:`KeyModel`, whose ``trust`` says who can read what. ``flooding``: drown the noise of the sum
    before it is read; takes a parameter set with room for it. ``parameters``: a name of ``PARAMETER_SETS``; default:
    ``n4096-q60``, with flooding ``n8192-q112``. ``release``: to whom the sum goes. ``decryptions``: ciphertexts a key
    may open.

    ``guard``: reads foreign ciphertexts once in a process with limits before they are used (``transport.confined``).

    In a deployment each party makes its own role (:class:`Client`, :class:`Server`, :class:`KeyHolder`) from its own
    identity, a directory of the others' public keys and, the key holder only, a :class:`KeyRing`.

    Raises :class:`ConfigurationError` for flooding without room when the sum goes to the aggregator, and
    :class:`~securefl.errors.MissingExtraError` without TenSEAL.
    """

    def __init__(
        self,
        key_model: KeyModel = KeyModel.KEY_HOLDER,
        *,
        flooding: bool = False,
        parameters: str | None = None,
        release: Release = Release.AGGREGATOR,
        decryptions: int | None = None,
        entropy: Entropy | None = None,
        guard: Guard | None = None,
    ) -> None:
        backend.require()
        self._guard = guard
        chosen = parameter_set(parameters) if parameters else self.default_parameters(flooding)
        if flooding and chosen.flooding is None and release is Release.AGGREGATOR:
            chosen.flood_deviation(key_model, 2)  # raises: it has none
        self.key_model, self.release, self.parameters = key_model, release, chosen
        # What the key holder keeps to itself shows no noise to anybody: nothing is to be drowned.
        self.flooded = flooding and release is Release.AGGREGATOR
        self._entropy = entropy or SystemEntropy()
        self._decryptions = decryptions
        self._ring: KeyRing | None = None
        self._identities: dict[PartyId, Identity] = {}

    @staticmethod
    def default_parameters(flooding: bool) -> ParameterSet:
        """The set that is taken where none is named."""
        return parameter_set("n8192-q112" if flooding else "n4096-q60")

    @property
    def name(self) -> str:
        return "ckks"

    @property
    def vector_frame(self) -> int:
        return 0  # the encrypted vector is all that a client sends

    @property
    def trust(self) -> str:
        """The assumption of the key model, in one sentence."""
        return self.key_model.trust

    def params(self, context: RoundContext) -> Params:
        """The parameters of a round."""
        return Params.of(context, self.parameters, self.key_model, flooded=self.flooded, release=self.release)

    def client(self, context: RoundContext, me: ClientId) -> Client:
        params = self.params(context)
        shared = self.ring.key_for(params) if self.key_model is KeyModel.SHARED_KEY else None
        if me not in params:
            raise ConfigurationError(f"client {me} is not among the invited clients")
        return Client(params, me, self._identity(me), self.directory(context), shared=shared, entropy=self._entropy)

    def server(self, context: RoundContext) -> Server:
        identity, directory = self._identity(SERVER), self.directory(context)
        return Server(self.params(context), identity, directory, guard=self._guard)

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        params = self.params(context)
        holder = KeyHolder(
            params,
            self.ring,
            self._identity(KEY_HOLDER),
            self.directory(context),
            entropy=self._entropy,
            guard=self._guard,
        )
        return {KEY_HOLDER: holder}

    @property
    def ring(self) -> KeyRing:
        """The key holder's keys, made on first use."""
        if self._ring is None:
            self._ring = KeyRing(self.parameters, self.key_model, decryptions=self._decryptions)
        return self._ring

    def directory(self, context: RoundContext) -> Directory:
        """The public signing keys of a round's parties."""
        parties = (SERVER, KEY_HOLDER, *context.clients)
        return Directory({party: self._identity(party).public for party in parties})

    def _identity(self, party: PartyId) -> Identity:
        if party not in self._identities:
            self._identities[party] = Identity(self._entropy.token(32))
        return self._identities[party]

    def __repr__(self) -> str:
        return f"CKKSSum({self.key_model.label}, {self.parameters.name})"
