"""The shared sum between parties with names: signed keys, and signed seeds.

In the shared sum the first server relays everything. Here the second server sends every client its signature over its
fresh public key, and a client seals nothing to a key without it; and a client signs the sealed seed that it sends, and
the second server sums no share of a seed without that. So a first server can put neither a key of its own in the second
one's place nor clients of its own making beside an honest one. Frames of protocol 9, body = signature; what is signed
is bound to the session's context. The first server's part is ``attested_first``. SPEC: protocols/shared/SPEC.md §9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from securefl.errors import AuthenticationError, DecodeError
from securefl.integrations.peers import HELPER
from securefl.machine import Event, Send
from securefl.mpc.summation.client import SharedClient
from securefl.mpc.summation.messages import Kind, SumRequest, limits_of
from securefl.mpc.summation.params import PROTOCOL as SHARED
from securefl.mpc.summation.params import Params
from securefl.mpc.summation.second import SecondServer
from securefl.primitives.entropy import Entropy
from securefl.primitives.identity import SIGNATURE_BYTES, Directory, Identity
from securefl.types import SERVER, ClientId, IntegerVector, PartyId
from securefl.wire import Buffer, body_of, open_frame, seal_frame

__all__ = ["SIGNED_SEED", "AttestedClient", "AttestedSecond", "is_own", "seed_signature_in"]

PROTOCOL: Final = 9
ATTESTATION: Final = 1
SIGNED_SEED: Final = 2


def is_own(frame: Buffer) -> bool:
    """Whether a frame carries a signature; the others are those of the shared sum."""
    view = memoryview(frame)
    return view.nbytes > 0 and view[0] == PROTOCOL


def _signature_in(frame: Buffer, params: Params, kind: int, recipient: PartyId) -> tuple[PartyId, bytes]:
    """``(sender, signature)``, not verified yet. Raises :class:`DecodeError` for anything else."""
    limits, context = {kind: SIGNATURE_BYTES}, params.context_hash
    envelope = open_frame(frame, protocol=PROTOCOL, context=context, recipient=recipient, limits=limits)
    if envelope.body.nbytes != SIGNATURE_BYTES:
        raise DecodeError(f"a signature has {SIGNATURE_BYTES} bytes, got {envelope.body.nbytes}")
    return envelope.sender, bytes(envelope.body)


def seed_signature_in(frame: Buffer, params: Params) -> tuple[ClientId, bytes]:
    """``(client, signature)`` in a SIGNED_SEED, not verified yet. Raises :class:`DecodeError` for anything else."""
    sender, signature = _signature_in(frame, params, SIGNED_SEED, HELPER)
    if sender not in params:
        raise DecodeError(f"a signature of party {sender}, which was not invited")
    return sender, signature


class AttestedClient:
    """A client of the shared sum that takes the second server's key only with that server's signature, and signs.

    ``directory``: the second server's public key by its id. ``entropy``: replaced only by tests and vectors.
    """

    def __init__(
        self,
        params: Params,
        me: ClientId,
        identity: Identity,
        directory: Directory,
        *,
        entropy: Entropy | None = None,
    ) -> None:
        self._identity = identity
        self._inner = SharedClient(params, me, entropy=entropy)
        self._params, self._me, self._directory = params, me, directory
        self._signature = b""

    def start(self) -> Sequence[Event]:
        return self._inner.start()

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        return self._signed(self._inner.provide(values))

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Raises :class:`AuthenticationError` for a key that the second server did not sign, :class:`DecodeError` for
        a frame that is no signature of that server for this client, and as the client does.
        """
        context = self._params.context_hash
        if is_own(frame):
            sender, signature = _signature_in(frame, self._params, ATTESTATION, self._me)
            if sender != HELPER:
                raise DecodeError(f"the second server attests its key, not party {sender}")
            self._signature = signature
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


class AttestedSecond:
    """The second server: it signs its key for the clients, and holds the request for a sum against their signatures.

    ``inner``: the second server of the plain form, not started. ``directory``: the clients' public keys.
    """

    def __init__(self, params: Params, inner: SecondServer, identity: Identity, directory: Directory) -> None:
        self._params, self._inner, self._identity, self._directory = params, inner, identity, directory
        self._signatures: dict[ClientId, bytes] = {}

    def start(self) -> Sequence[Event]:
        """The key for the first server, and for every client the signature over it."""
        params, events = self._params, list(self._inner.start())
        advertised = next(event.frame for event in events if isinstance(event, Send))
        signature = self._identity.sign(params.context_hash, ATTESTATION, HELPER, SERVER, body_of(advertised))
        for client in params.context.clients:
            frame = seal_frame(PROTOCOL, ATTESTATION, params.context_hash, HELPER, client, signature)
            events.append(Send(client, frame))
        return events

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        return self._inner.provide(values)

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take a client's signature, or the request, which names only clients whose signatures came before.

        Raises :class:`AuthenticationError` for a request that names a seed which its client did not sign,
        :class:`DecodeError` for a frame that is no signature of a client, and as the second server does.
        """
        if not is_own(frame):
            self._check(frame)
            return self._inner.receive(frame)
        sender, signature = seed_signature_in(frame, self._params)
        self._signatures[sender] = signature
        return ()

    def _check(self, frame: Buffer) -> None:
        params = self._params
        limits = limits_of(params, Kind.SUM_REQUEST)
        envelope = open_frame(frame, protocol=SHARED, context=params.context_hash, recipient=HELPER, limits=limits)
        for client, box in SumRequest.decode(envelope.body, params).boxes.items():
            signature = self._signatures.get(client)
            if signature is None:
                raise AuthenticationError(f"the seed of client {client} came without its signature: nothing is summed")
            self._directory.verify(signature, params.context_hash, SIGNED_SEED, client, HELPER, box)

    def suspend(self) -> bytes:
        """As :meth:`SecondServer.suspend`; signatures come with the request, so none is kept."""
        return self._inner.suspend()
