"""The first server of the attested form: it takes a seed only with its client's signature, and relays that signature.

The second server sums nothing when one seed that it is asked for is not signed. So the first server looks as well,
before the request names anybody: a client whose signature is missing or does not verify is left out alone, and costs
nobody else the sum. This replaces no check of the second server's. SPEC: protocols/shared/SPEC.md §9.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from securefl.errors import AuthenticationError, FaultyClientError, ProtocolError
from securefl.integrations.attested import SIGNED_SEED, is_own, seed_signature_in
from securefl.integrations.peers import HELPER
from securefl.machine import Event, Send
from securefl.mpc.summation.messages import Kind, limits_of
from securefl.mpc.summation.params import PROTOCOL as SHARED
from securefl.mpc.summation.params import Params
from securefl.mpc.summation.server import FirstServer
from securefl.primitives.identity import Directory
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import HEADER_BYTES, Buffer, body_of, open_frame

__all__ = ["AttestedFirst"]


class AttestedFirst:
    """The aggregator: as :class:`~securefl.mpc.summation.server.FirstServer`, for clients that sign their seeds.

    It is also given the frames that clients address to the second server, and relays of them, beside the request, the
    signatures of those that the request names and no others. ``directory``: the clients' public keys.
    """

    def __init__(self, params: Params, directory: Directory) -> None:
        self._params, self._directory = params, directory
        self._inner = FirstServer(params)
        self._unverified: dict[ClientId, bytes] = {}  # frames whose seed has not come
        self._verified: dict[ClientId, bytes] = {}

    @property
    def vector_due(self) -> bool:
        """Whether the present exchange asks clients for their vector."""
        return self._inner.state.name == "INPUT"

    @property
    def waiting_for(self) -> Collection[PartyId]:
        """Parties whose messages of the present exchange have not arrived whole."""
        return self._inner.waiting_for

    def start(self) -> Sequence[Event]:
        return self._inner.start()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from a client or the second server. A client's signature comes before its seed; until the
        seed is there, the last one counts.

        Raises as the first server does, and :class:`AuthenticationError` for a seed without a signature of its
        client's that verifies, :class:`DecodeError` for a frame that is no signature of a client for the second
        server, :class:`FaultyClientError` for another signature behind the seed; nothing changes then.
        """
        if is_own(frame):
            return self._hold(frame)
        view, params = memoryview(frame), self._params
        if not self.vector_due or view.nbytes < HEADER_BYTES or view[2] != Kind.SEED:
            return self._inner.receive(frame)
        context, limits = params.context_hash, limits_of(params, Kind.SEED)
        envelope = open_frame(frame, protocol=SHARED, context=context, recipient=SERVER, limits=limits)
        client = envelope.sender
        if client not in params or client in self._verified:
            return self._inner.receive(frame)  # a stranger's; or the same again, and another one is refused there
        signed = self._unverified.get(client)
        if signed is None:
            raise AuthenticationError(f"the seed of client {client} came without its signature: it is left out")
        self._directory.verify(body_of(signed), context, SIGNED_SEED, client, HELPER, envelope.body)
        events = self._inner.receive(frame)
        self._verified[client] = self._unverified.pop(client)
        return events

    def _hold(self, frame: Buffer) -> Sequence[Event]:
        client, _ = seed_signature_in(frame, self._params)
        verified = self._verified.get(client)
        if verified is not None:
            if verified != bytes(frame):
                raise FaultyClientError(f"client {client} sent another signature behind its seed", [client])
            return ()  # the same frame again: transports may repeat
        if not self.vector_due:
            raise ProtocolError(f"SIGNED_SEED from client {client} came outside its exchange")
        self._unverified[client] = bytes(frame)
        return ()

    def close_round(self) -> Sequence[Event]:
        """End the present exchange. After the clients', the signatures of the survivors go before the request."""
        requesting, left_out = self.vector_due, frozenset(self._inner.waiting_for)
        events = self._inner.close_round()
        self._unverified.clear()
        if not requesting or not any(isinstance(event, Send) for event in events):
            return events
        signed = [Send(HELPER, self._verified[client]) for client in sorted(self._verified.keys() - left_out)]
        return [*signed, *events]
