"""The second server's key, signed: so that clients seal their seeds to the server that they know and to no other.

In the shared sum the first server relays the second one's fresh public key. Here the second server sends every client
its signature over that key and the session's context, and a client seals nothing to a key without it. The signature
travels as a frame of its own before the key: protocol 9, one kind, body = signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from securefl.errors import AuthenticationError
from securefl.integrations.peers import HELPER
from securefl.machine import Event, Send
from securefl.mpc.summation.client import SharedClient
from securefl.mpc.summation.messages import Kind, limits_of
from securefl.mpc.summation.params import PROTOCOL as SHARED
from securefl.mpc.summation.params import Params
from securefl.primitives.identity import SIGNATURE_BYTES, Directory, Identity
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import HEADER_BYTES, OVERHEAD_BYTES, Buffer, open_frame, seal_frame

__all__ = ["AttestedClient", "attestations"]

PROTOCOL: Final = 9
ATTESTATION: Final = 1


def attestations(params: Params, identity: Identity, advertised: Buffer) -> list[Event]:
    """The second server's frames for the clients: its signature over the key in its frame ``advertised``."""
    view = memoryview(advertised)
    key = view[HEADER_BYTES : HEADER_BYTES + view.nbytes - OVERHEAD_BYTES]
    signature = identity.sign(params.context_hash, ATTESTATION, HELPER, SERVER, key)
    return [
        Send(client, seal_frame(PROTOCOL, ATTESTATION, params.context_hash, HELPER, client, signature))
        for client in params.context.clients
    ]


class AttestedClient:
    """A client of the shared sum that takes the second server's key only with that server's signature."""

    def __init__(self, params: Params, me: ClientId, directory: Directory) -> None:
        self._inner = SharedClient(params, me)
        self._params, self._me, self._directory = params, me, directory
        self._signature = b""

    def start(self) -> Sequence[Event]:
        return self._inner.start()

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        return self._inner.provide(values)

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
        return self._inner.receive(frame)
