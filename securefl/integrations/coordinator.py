"""The server's side of one sum: it says whom to send what, takes answers, and closes exchanges.

It knows no engine and no time: the engine delivers, waits, and calls :meth:`Coordinator.close` when all have answered
or the deadline has passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from securefl.errors import DecodeError, FaultyClientError, SecureFLError
from securefl.integrations.invitation import Invitation
from securefl.integrations.vector import VectorCoder, context_of, protection_of
from securefl.machine import Aborted, Completed, Event, Send, SumResult
from securefl.types import ClientId, PartyId
from securefl.wire import HEADER_BYTES, Buffer

__all__ = ["Coordinator", "Deliveries"]

#: Frames by client.
Deliveries = dict[ClientId, list[Buffer]]


class Coordinator:
    """One sum. ``result``: when it is done. ``error``: when it ended without. ``failures``: why clients dropped out.

    ``exchange``: how many exchanges were closed. ``vector_exchange``: the one that asks clients for their vector.
    ``uploaded``, ``downloaded``: bytes of frames by client. Raises :class:`ConfigurationError` when the invitation
    proposes what cannot work.
    """

    def __init__(self, invitation: Invitation) -> None:
        self.invitation = invitation
        self.coder = VectorCoder.of(invitation)
        context = context_of(invitation, self.coder.coder)
        protection = protection_of(invitation)
        protection.client(context, context.clients[0])  # what no client could take part in is refused here
        self._server = protection.server(context)
        self.vector_exchange = protection.vector_frame
        self.exchange = 0
        self.result: SumResult | None = None
        self.error: Exception | None = None
        self.blamed: tuple[PartyId, ...] = ()
        self.failures: dict[ClientId, str] = {}
        self.uploaded: Counter[ClientId] = Counter()
        self.downloaded: Counter[ClientId] = Counter()
        self._early: list[Event] = list(self._server.start())

    @property
    def over(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not None or self.error is not None

    @property
    def waiting_for(self) -> set[ClientId]:
        """Clients that have not answered in this exchange and have not failed."""
        return set() if self.over else set(self._server.waiting_for) - self.failures.keys()

    def receive(self, sender: ClientId, frames: Sequence[Buffer]) -> None:
        """Take a client's answer; ``sender`` is whom the engine received it from.

        An answer that is no answer drops the client: :attr:`failures` says why.
        """
        for frame in frames:
            self.uploaded[sender] += memoryview(frame).nbytes
            try:
                if memoryview(frame).nbytes < HEADER_BYTES or int.from_bytes(frame[4:8], "big") != sender:
                    raise FaultyClientError(f"client {sender} speaks for another", [sender])
                self._early += self._server.receive(bytes(frame))
            except SecureFLError as error:
                self.failed(sender, f"{type(error).__name__}: {error}")
                return

    def failed(self, client: ClientId, reason: str) -> None:
        """This client will not answer any more."""
        self.failures.setdefault(client, reason)

    def close(self) -> Deliveries:
        """End the exchange with those who answered: what to deliver next, until :attr:`over`."""
        if self.over:
            return {}
        events, self._early = [*self._early, *self._server.close_round()], []
        self.exchange += 1
        deliveries: Deliveries = {}
        for event in events:
            match event:
                case Send(to, frame):
                    deliveries.setdefault(to, []).append(frame)
                    self.downloaded[to] += memoryview(frame).nbytes
                case Completed(result):
                    self.result = result
                case Aborted(reason, blamed):
                    self.error, self.blamed = reason, blamed
                case _:
                    raise DecodeError(f"a server does not give {type(event).__name__}")
        return deliveries

    def dropped(self) -> Mapping[ClientId, str]:
        """Who was invited and is not in the sum, and why as far as it is known."""
        survivors = self.result.survivors if self.result is not None else ()
        gone = (client for client in self.invitation.ids if client not in survivors)
        return {client: self.failures.get(client, "did not answer in time") for client in gone}
