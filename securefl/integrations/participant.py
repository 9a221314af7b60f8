"""A client of one sum that may live for one message at a time.

Engines start a process per message and keep only what it hands back. So a participant is made from the invitation or
from what :meth:`Participant.suspend` gave, takes one delivery, and is suspended again. It knows no engine: frames in,
frames out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from securefl.ckks.threshold import ThresholdClient
from securefl.errors import ConfigurationError, DecodeError, LocalProtocolError
from securefl.integrations.attested import AttestedClient
from securefl.integrations.carried import Carried
from securefl.integrations.invitation import MAX_INVITATION_BYTES, Invitation
from securefl.integrations.peers import Peers
from securefl.integrations.policy import Policy
from securefl.integrations.vector import VectorCoder, context_of
from securefl.machine import Aborted, ClientRole, Completed, Event, NeedInput, Send
from securefl.secagg import Client
from securefl.secagg.signed import SignedClient
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer, Reader, Writer

__all__ = ["Participant"]

#: Nothing that is suspended is longer than its boxes for 2^16 clients.
_LIMIT: Final = 2**28


class Participant:
    """One client in one sum. ``ready``: it waits for :meth:`provide`. ``over``: nothing more will come of it."""

    def __init__(self, invitation: Invitation, coder: VectorCoder, role: ClientRole) -> None:
        self.invitation = invitation
        self.coder = coder
        self.ready = self.over = False
        self._role = role

    @classmethod
    def invited(
        cls, proposal: Buffer, me: ClientId, policy: Policy, peers: Peers | None = None
    ) -> tuple[Participant, list[Buffer]]:
        """Answer an invitation: the participant and its first frames. ``peers``: who this client is, and whom it knows.

        Raises :class:`DecodeError`, what :meth:`Policy.check` and :meth:`Peers.check` raise: then nothing was sent.
        """
        invitation = Invitation.decode(proposal)
        policy.check(invitation, peers)
        known = peers if peers is not None else Peers.nobody()
        if invitation.identities:
            known.check(invitation, me)
        carried, coder = cls._carried(invitation)
        role = carried.client(me, known, policy.survivors_for(invitation), policy.minimum_threshold)
        participant = cls(invitation, coder, role)
        return participant, participant._frames(role.start())

    @staticmethod
    def _carried(invitation: Invitation) -> tuple[Carried, VectorCoder]:
        coder = VectorCoder.of(invitation)
        return Carried(invitation, context_of(invitation, coder.coder)), coder

    @classmethod
    def resume(cls, data: Buffer, peers: Peers | None = None) -> Participant:
        """The participant that :meth:`suspend` gave ``data``, once. Raises :class:`DecodeError` for other bytes."""
        reader = Reader(data)
        invitation = Invitation.decode(reader.blob(limit=MAX_INVITATION_BYTES))
        saved = reader.blob(limit=_LIMIT)
        reader.end()
        carried, coder = cls._carried(invitation)
        if invitation.protect != "masked" and not carried.threshold_key:
            raise DecodeError(f"a suspended participant of a {invitation.protect} sum")
        return cls(invitation, coder, carried.resume_client(saved, peers if peers is not None else Peers.nobody()))

    def suspend(self) -> bytes:
        """This participant, secrets included. Raises :class:`LocalProtocolError` when it is over or must be fed."""
        if self.over or not isinstance(self._role, (Client, SignedClient, ThresholdClient)):
            raise LocalProtocolError(f"a participant of a {self.invitation.protect} sum is not suspended here")
        return Writer().blob(self.invitation.encode()).blob(self._role.suspend()).done()

    def receive(self, frames: Sequence[Buffer]) -> list[Buffer]:
        """Take what the server delivered and return what to answer. Raises as the role does."""
        answers: list[Buffer] = []
        for frame in frames:
            answers += self._frames(self._role.receive(bytes(frame)))
        return answers

    def provide(self, values: IntegerVector) -> list[Buffer]:
        """Give the vector; return what to answer."""
        self.ready = False
        return self._frames(self._role.provide(values))

    def _frames(self, events: Sequence[Event]) -> list[Buffer]:
        frames: list[Buffer] = []
        for event in events:
            match event:
                case Send(to, frame):
                    if to != SERVER and not isinstance(self._role, AttestedClient):
                        raise ConfigurationError(f"{self.invitation.protect} needs party {to}, which is not here")
                    frames.append(frame)
                case NeedInput():
                    self.ready = True
                case Completed():
                    self.over = True
                case Aborted(reason):
                    self.over = True
                    raise reason
        return frames
