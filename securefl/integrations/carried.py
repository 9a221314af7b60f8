"""The protections that engines carry, and each party's role in one sum.

Two parties' sums (masked, plain, threshold ckks) need clients and the server. The others need a *helper* besides: the
key holder of ckks, or the second server of shared. It is one more node of the engine, run by somebody who does not
collude with the server, and never a client.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from securefl import ckks
from securefl.ckks.threshold import ThresholdClient, ThresholdParams, ThresholdServer
from securefl.errors import ConfigurationError
from securefl.fl.protections import THRESHOLD, key_model_named, suite_named
from securefl.integrations.attested import AttestedClient, AttestedSecond
from securefl.integrations.attested_first import AttestedFirst
from securefl.integrations.invitation import Invitation
from securefl.integrations.keyfile import read_key
from securefl.integrations.peers import HELPER, Peers, directory_of
from securefl.machine import ClientRole, RoundContext, ServerRole
from securefl.mpc.summation import Params as SharedParams
from securefl.mpc.summation import SecondServer
from securefl.plain import PlainClient, PlainServer
from securefl.primitives.identity import Directory, Identity
from securefl.secagg import Client, Params, Server
from securefl.secagg.signed import SignedClient, SignedServer
from securefl.types import ClientId
from securefl.wire import Buffer

__all__ = ["CARRIED", "Carried", "needs_helper"]

CARRIED: Final = ("masked", "plain", "ckks", "shared")
#: In these states of its role the server waits for the clients' vectors.
_VECTOR_STATES: Final = {"masked": "MASK", "plain": "OPEN", "ckks": "COLLECT", "threshold": "INPUT"}


def needs_helper(protect: str, key_model: str) -> bool:
    """Whether a sum has a key holder or a second server."""
    return protect == "shared" or (protect == "ckks" and key_model != THRESHOLD)


class Carried:
    """Makes the roles of one sum. Raises :class:`ConfigurationError` for an invitation that cannot work.

    ``context``: of the round, bound to every byte of the invitation.
    """

    def __init__(self, invitation: Invitation, context: RoundContext) -> None:
        if invitation.protect not in CARRIED:
            raise ConfigurationError(
                f"there is no protection {invitation.protect!r} inside other systems; there are {', '.join(CARRIED)}"
            )
        self.invitation, self.context = invitation, context
        self.threshold_key = invitation.protect == "ckks" and invitation.key_model == THRESHOLD
        self.has_helper = needs_helper(invitation.protect, invitation.key_model)
        #: Whether clients sign what they seal for the helper; those frames are the server's to take, and to relay.
        self.attested = invitation.protect == "shared"
        self.signed = invitation.protect == "masked" and bool(invitation.identities)
        self._check()

    def _check(self) -> None:
        invitation = self.invitation
        if invitation.key_model and invitation.protect != "ckks":
            raise ConfigurationError(f"a key model belongs to ckks, not to {invitation.protect}")
        if invitation.protect in ("ckks", "shared") and not invitation.identities:
            raise ConfigurationError(f"a sum under {invitation.protect} names the public keys of its parties")
        if self.has_helper and not invitation.helper:
            raise ConfigurationError(f"a sum under {invitation.protect} names its helper")
        if invitation.flooding and (self.threshold_key or invitation.protect != "ckks"):
            raise ConfigurationError("flooding belongs to ckks with one key; decryption shares are always flooded")
        _ = self._masked if invitation.protect == "masked" else self.parameters  # raises what cannot work

    def vector_due(self, server: ServerRole) -> bool:
        """Whether the server's present exchange is the one that asks clients for their vector."""
        if isinstance(server, (SignedServer, AttestedFirst)):
            return server.vector_due
        state = getattr(server, "state", None)
        name = "threshold" if self.threshold_key else self.invitation.protect
        return getattr(state, "name", "") == _VECTOR_STATES[name]

    # ---- roles ----------------------------------------------------------------------------------------------

    def client(self, me: ClientId, peers: Peers, survivors: int, threshold: int) -> ClientRole:
        """A client's role. ``survivors``, ``threshold``: its own floors."""
        params = self.parameters
        match params:
            case ThresholdParams():
                return ThresholdClient(params, me, peers.identity, self._directory, minimum_survivors=survivors)
            case ckks.Params():
                shared = read_key(peers.key_file) if params.key_model is ckks.KeyModel.SHARED_KEY else None
                return ckks.Client(params, me, peers.identity, self._directory, shared=shared)
            case SharedParams():
                return AttestedClient(params, me, peers.identity, self._directory)
        if self.invitation.protect == "plain":
            return PlainClient(self.context, me)
        if self.signed:
            return SignedClient(
                self._masked,
                me,
                peers.identity,
                self._directory,
                minimum_survivors=survivors,
                minimum_threshold=threshold,
            )
        return Client(self._masked, me, minimum_survivors=survivors, minimum_threshold=threshold)

    def resume_client(self, data: Buffer, peers: Peers) -> ClientRole:
        """The role that a client suspended. Raises :class:`DecodeError`; sums of one message are never suspended."""
        if isinstance(self.parameters, ThresholdParams):
            return ThresholdClient.resume(self.parameters, data, peers.identity, self._directory)
        if self.signed:
            return SignedClient.resume(self._masked, data, peers.identity, self._directory)
        return Client.resume(self._masked, data)

    def server(self, identity: Identity) -> ServerRole:
        """The aggregator's role."""
        params = self.parameters
        match params:
            case ThresholdParams():
                return ThresholdServer(params, self._directory)
            case ckks.Params():
                return ckks.Server(params, identity, self._directory)
            case SharedParams():
                return AttestedFirst(params, self._directory)
        if self.invitation.protect == "plain":
            return PlainServer(self.context)
        return SignedServer(self._masked, self._directory) if self.signed else Server(self._masked)

    def helper(self, peers: Peers, survivors: int) -> ckks.KeyHolder | AttestedSecond:
        """The helper's role. ``survivors``: its own floor."""
        params = self.parameters
        if isinstance(params, SharedParams):
            return self._second(params, SecondServer(params, minimum_survivors=survivors), peers)
        if not isinstance(params, ckks.Params):
            raise ConfigurationError(f"a sum under {self.invitation.protect} has no helper")
        key = read_key(peers.key_file) if params.key_model is ckks.KeyModel.SHARED_KEY else None
        ring = ckks.KeyRing(params.parameters, params.key_model, key=key)
        return ckks.KeyHolder(params, ring, peers.identity, self._directory)

    def resume_helper(self, data: Buffer, peers: Peers) -> ckks.KeyHolder | AttestedSecond:
        """The role that the helper suspended."""
        params = self.parameters
        if isinstance(params, SharedParams):
            return self._second(params, SecondServer.resume(params, data), peers)
        if not isinstance(params, ckks.Params):
            raise ConfigurationError(f"a sum under {self.invitation.protect} has no helper")
        return ckks.KeyHolder.resume(params, data, peers.identity, self._directory)

    def _second(self, params: SharedParams, inner: SecondServer, peers: Peers) -> AttestedSecond:
        return AttestedSecond(params, inner, peers.identity, self._directory)

    # ---- parameters -----------------------------------------------------------------------------------------

    @property
    def _directory(self) -> Directory:
        return directory_of(self.invitation)

    @cached_property
    def _masked(self) -> Params:
        return Params.of(self.context, suite_named(self.invitation.suite))

    @cached_property
    def parameters(self) -> ThresholdParams | ckks.Params | SharedParams | None:
        """Of ckks and shared; ``None`` for the other protections."""
        invitation = self.invitation
        if self.threshold_key:
            return ThresholdParams.of(self.context)
        if invitation.protect == "ckks":
            parameters = ckks.CKKSSum.default_parameters(invitation.flooding)
            model = key_model_named(invitation.key_model)
            return ckks.Params.of(self.context, parameters, model, flooded=invitation.flooding)
        if invitation.protect == "shared":
            return SharedParams(self.context, suite_named(invitation.suite))
        return None


assert HELPER == ckks.KEY_HOLDER  # noqa: S101 - both helpers have the id that no client may have
