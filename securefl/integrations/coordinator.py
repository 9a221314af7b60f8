"""The server's side of one sum: it says whom to send what, takes answers, and closes exchanges.

It knows no engine and no time: the engine delivers, waits, and calls :meth:`Coordinator.close` when all have answered
or the deadline has passed.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from securefl.errors import DecodeError, FaultyClientError, LostPartyError, SecureFLError
from securefl.integrations.carried import Carried
from securefl.integrations.invitation import Invitation
from securefl.integrations.peers import HELPER
from securefl.integrations.vector import VectorCoder, context_of
from securefl.machine import Aborted, Completed, Event, Send, SumResult
from securefl.primitives.identity import Identity
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import HEADER_BYTES, Buffer

__all__ = ["Coordinator", "Deliveries"]

#: What is kept of the words of a party, which may be anybody's.
_WORDS: Final = 500
#: Frames by party; no frames for a party that is invited and nothing else.
Deliveries = dict[PartyId, list[Buffer]]


class Coordinator:
    """One sum. ``result``: when it is done. ``error``: when it ended without. ``failures``: why parties dropped out.

    ``identity``: what the server signs with, where the protection asks for it. ``exchange``: how many exchanges were
    closed. ``uploaded``, ``downloaded``: bytes of frames by party. Raises :class:`ConfigurationError` when the
    invitation proposes what cannot work.
    """

    def __init__(self, invitation: Invitation, identity: Identity | None = None) -> None:
        self.invitation = invitation
        self.coder = VectorCoder.of(invitation)
        self._carried = Carried(invitation, context_of(invitation, self.coder.coder))
        self._server = self._carried.server(Identity(os.urandom(32)) if identity is None else identity)
        self.exchange = 0
        self.result: SumResult | None = None
        self.error: Exception | None = None
        self.blamed: tuple[PartyId, ...] = ()
        self.failures: dict[PartyId, str] = {}
        self.uploaded: Counter[PartyId] = Counter()
        self.downloaded: Counter[PartyId] = Counter()
        self._early: list[Event] = list(self._server.start())
        self._helper_first = self._carried.has_helper  # its exchange comes before the clients are invited
        self._relayed: Deliveries = {}
        self._invited: set[PartyId] = set()
        self._modelled: set[PartyId] = set()

    @property
    def over(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not None or self.error is not None

    @property
    def due(self) -> bool:
        """Whether the present exchange asks clients for their vector."""
        return not self.over and not self._helper_first and self._carried.vector_due(self._server)

    @property
    def waiting_for(self) -> set[PartyId]:
        """Parties that have not answered in this exchange and have not failed."""
        if self.over:
            return set()
        waiting = {HELPER} if self._helper_first else set(self._server.waiting_for)
        return waiting - self.failures.keys() - (self.uploaded.keys() if self._helper_first else set())

    def begin(self) -> Deliveries:
        """Who is contacted first: the helper where there is one, or all clients."""
        return {HELPER: []} if self._helper_first else {client: [] for client in self.invitation.ids}

    def first_contact(self, party: PartyId) -> bool:
        """Whether this party has not been invited yet; from now on it has been."""
        new = party not in self._invited
        self._invited.add(party)
        return new

    def takes_model(self, party: PartyId) -> bool:
        """Whether the model goes to this party now: when its vector is due, once."""
        if not self.due or party == HELPER or party in self._modelled:
            return False
        self._modelled.add(party)
        return True

    def receive(self, sender: PartyId, frames: Sequence[Buffer]) -> None:
        """Take a party's answer; ``sender`` is whom the engine received it from.

        An answer that is no answer drops the party: :attr:`failures` says why.
        """
        for frame in frames:
            self.uploaded[sender] += memoryview(frame).nbytes
            try:
                recipient = self._recipient(sender, frame)
                if recipient == SERVER:
                    self._early += self._server.receive(bytes(frame))
                else:
                    self._relayed.setdefault(recipient, []).append(frame)
            except SecureFLError as error:
                self.failed(sender, f"{type(error).__name__}: {error}")
                return

    def _recipient(self, sender: PartyId, frame: Buffer) -> PartyId:
        """Who takes a frame here. A helper speaks to clients before they are asked. Clients speak to it beside their
        vector: their signatures, which the server takes, verifies and relays itself.
        """
        head = memoryview(frame)[:HEADER_BYTES]
        if head.nbytes < HEADER_BYTES or int.from_bytes(head[4:8], "big") != sender:
            raise FaultyClientError(f"party {sender} speaks for another", [sender])
        recipient = PartyId(int.from_bytes(head[8:12], "big"))
        if recipient == SERVER or (sender == HELPER and self._helper_first and recipient in self.invitation.ids):
            return recipient
        if recipient == HELPER and self.due and self._carried.attested and sender in self.invitation.ids:
            return SERVER
        raise FaultyClientError(f"party {sender} has nothing to say to party {recipient}", [sender])

    def failed(self, party: PartyId, reason: str) -> None:
        """This party will not answer any more. ``reason``: its own words; :attr:`failures` gets their last line."""
        self.failures.setdefault(party, _line_of(reason))

    def close(self) -> Deliveries:
        """End the exchange with those who answered: what to deliver next, until :attr:`over`."""
        if self.over:
            return {}
        self.exchange += 1
        if self._helper_first:
            self._helper_first = False
            # a key holder's key goes to the clients, and the server has asked them for nothing else
            events: list[Event] = [] if self._carried.vector_due(self._server) and self._relayed else self._closed()
        else:
            events = self._closed()
        deliveries, self._relayed = self._relayed, {}
        for event in events:
            match event:
                case Send(to, frame):
                    deliveries.setdefault(to, []).append(frame)
                case Completed(result):
                    self.result = result
                case Aborted(reason, blamed):
                    self.error, self.blamed = self._explained(reason), blamed
                case _:
                    raise DecodeError(f"a server does not give {type(event).__name__}")
        for to, frames in deliveries.items():
            self.downloaded[to] += sum(memoryview(frame).nbytes for frame in frames)
        return deliveries

    def _closed(self) -> list[Event]:
        events, self._early = self._early, []
        if not any(isinstance(event, (Completed, Aborted)) for event in events):  # a key holder's answer ends the sum
            events += self._server.close_round()
        return events

    def _explained(self, reason: Exception) -> Exception:
        """Why there is no sum, with what the helper said when it is the helper that is missing."""
        if HELPER not in self.failures:
            return reason
        return LostPartyError(f"{reason} ({self.failures[HELPER]})", HELPER)

    def dropped(self) -> Mapping[ClientId, str]:
        """Who was invited and is not in the sum, and why as far as it is known."""
        survivors = self.result.survivors if self.result is not None else ()
        gone = (client for client in self.invitation.ids if client not in survivors)
        return {client: self.failures.get(client) or self._unnamed(client) for client in gone}

    def _unnamed(self, client: ClientId) -> str:
        """Of a client that did not fail by itself: what ended the sum, if it is blamed for that. An embedder may invite
        by ways of its own: who spoke, or was spoken to, was asked.
        """
        if client in self.blamed:
            return _line_of(f"{type(self.error).__name__}: {self.error}")
        asked = client in self._invited or client in self.uploaded or client in self.downloaded
        return "did not answer in time" if asked else "was not asked: the sum ended before"


def _line_of(words: str) -> str:
    """The last line, printable and short: it goes into logs and reports."""
    lines = words.strip().splitlines() or ["an error without words"]
    line = "".join(character if character.isprintable() else "?" for character in lines[-1][: _WORDS + 1])
    return line if len(line) <= _WORDS else line[:_WORDS] + "…"
