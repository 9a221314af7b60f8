"""The shared sum between parties with names: signed keys, and signed seeds.

In the shared sum the first server relays everything. Here the second server sends every client its signature over its
fresh public key, and a client seals nothing to a key without it; and a client signs the sealed seed that it sends, and
the second server sums no share of a seed without that. So a first server can put neither a key of its own in the second
one's place nor clients of its own making beside an honest one. Frames of protocol 9, body = signature; what is signed
is bound to the session's context. SPEC: protocols/shared/SPEC.md §9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from securefl.errors import AuthenticationError
from securefl.integrations.peers import HELPER
from securefl.machine import Event, Send
from securefl.mpc.summation.client import SharedClient
from securefl.mpc.summation.messages import Kind, SumRequest, limits_of
from securefl.mpc.summation.params import PROTOCOL as SHARED
from securefl.mpc.summation.params import Params
from securefl.primitives.identity import SIGNATURE_BYTES, Directory, Identity
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer, body_of, open_frame, seal_frame

__all__ = ["AttestedClient", "SignedSeeds", "attestations"]

PROTOCOL: Final = 9
ATTESTATION: Final = 1
SIGNED_SEED: Final = 2


def attestations(params: Params, identity: Identity, advertised: Buffer) -> list[Event]:
    """The second server's frames for the clients: its signature over the key in its frame ``advertised``."""
    signature = identity.sign(params.context_hash, ATTESTATION, HELPER, SERVER, body_of(advertised))
    return [
        Send(client, seal_frame(PROTOCOL, ATTESTATION, params.context_hash, HELPER, client, signature))
        for client in params.context.clients
    ]


class AttestedClient:
    """A client of the shared sum that takes the second server's key only with that server's signature, and signs."""

    def __init__(self, params: Params, me: ClientId, identity: Identity, directory: Directory) -> None:
        self._identity = identity
        self._inner = SharedClient(params, me)
        self._params, self._me, self._directory = params, me, directory
        self._signature = b""

    def start(self) -> Sequence[Event]:
        return self._inner.start()

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        return self._signed(self._inner.provide(values))

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Raises :class:`AuthenticationError` for a key that the second server did not sign, and as the client does."""
        context = self._params.context_hash
        if memoryview(frame).nbytes and memoryview(frame)[0] == PROTOCOL:
            limits = {ATTESTATION: SIGNATURE_BYTES}
            envelope = open_frame(frame, protocol=PROTOCOL, context=context, recipient=self._me, limits=limits)
            self._signature = bytes(envelope.body)
            return ()
        limits = limits_of(self._params, Kind.KEY)
        envelope = open_frame(frame, protocol=SHARED, context=context, recipient=self._me, limits=limits)
        if not self._signature:
            raise AuthenticationError("the second server's key came without its signature: nothing is sealed to it")
        self._directory.verify(self._signature, context, ATTESTATION, HELPER, SERVER, envelope.body)
        return self._signed(self._inner.receive(frame))

    def _signed(self, events: Sequence[Event]) -> Sequence[Event]:
        """The events, after a signature for the second server over the sealed seed if it is among them."""
        context, out = self._params.context_hash, list(events)
        for event in events:
            if isinstance(event, Send) and memoryview(event.frame)[2] == Kind.SEED:
                signature = self._identity.sign(context, SIGNED_SEED, self._me, HELPER, body_of(event.frame))
                out.insert(0, Send(HELPER, seal_frame(PROTOCOL, SIGNED_SEED, context, self._me, HELPER, signature)))
        return out


class SignedSeeds:
    """The second server's side: it takes signatures, and holds a request for a sum against them."""

    def __init__(self, params: Params, directory: Directory) -> None:
        self._params, self._directory = params, directory
        self._signatures: dict[ClientId, bytes] = {}

    def take(self, frame: Buffer) -> bool:
        """Whether ``frame`` was a client's signature. Raises :class:`DecodeError` for a damaged one."""
        if not memoryview(frame).nbytes or memoryview(frame)[0] != PROTOCOL:
            return False
        context, limits = self._params.context_hash, {SIGNED_SEED: SIGNATURE_BYTES}
        envelope = open_frame(frame, protocol=PROTOCOL, context=context, recipient=HELPER, limits=limits)
        self._signatures[envelope.sender] = bytes(envelope.body)
        return True

    def check(self, frame: Buffer) -> None:
        """Raises :class:`AuthenticationError` for a request that names a seed which its client did not sign."""
        params = self._params
        limits = limits_of(params, Kind.SUM_REQUEST)
        envelope = open_frame(frame, protocol=SHARED, context=params.context_hash, recipient=HELPER, limits=limits)
        for client, box in SumRequest.decode(envelope.body, params).boxes.items():
            signature = self._signatures.get(client)
            if signature is None:
                raise AuthenticationError(f"the seed of client {client} came without its signature: nothing is summed")
            self._directory.verify(signature, params.context_hash, SIGNED_SEED, client, HELPER, box)
