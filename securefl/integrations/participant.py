"""A client of one sum that may live for one message at a time.

Engines start a process per message and keep only what it hands back. So a participant is made from the invitation or
from what :meth:`Participant.suspend` gave, takes one delivery, and is suspended again. It knows no engine: frames in,
frames out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from securefl.errors import ConfigurationError, DecodeError, LocalProtocolError
from securefl.integrations.invitation import MAX_INVITATION_BYTES, Invitation
from securefl.integrations.policy import Policy
from securefl.integrations.vector import VectorCoder, context_of, protection_of
from securefl.machine import Aborted, ClientRole, Completed, Event, NeedInput, RoundContext, Send
from securefl.secagg import Client, Params
from securefl.secagg.protection import MaskedSum
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer, Reader, Writer

__all__ = ["Participant"]

#: Nothing that is suspended is longer than its boxes for 2^16 clients.
_LIMIT: Final = 2**28


class Participant:
    """One client in one sum. ``ready``: it waits for :meth:`provide`. ``over``: nothing more will come of it."""

    def __init__(self, invitation: Invitation, coder: VectorCoder, context: RoundContext, role: ClientRole) -> None:
        self.invitation = invitation
        self.coder = coder
        self.ready = self.over = False
        self._context = context
        self._role = role

    @classmethod
    def invited(cls, proposal: Buffer, me: ClientId, policy: Policy) -> tuple[Participant, list[Buffer]]:
        """Answer an invitation: the participant and its first frames.

        Raises :class:`DecodeError`, and what :meth:`Policy.check` raises: then nothing was sent.
        """
        invitation = Invitation.decode(proposal)
        policy.check(invitation)
        coder = VectorCoder.of(invitation)
        context = context_of(invitation, coder.coder)
        protection = protection_of(invitation)
        if isinstance(protection, MaskedSum):
            role: ClientRole = Client(
                Params.of(context, protection.suite),
                me,
                minimum_survivors=policy.survivors_for(invitation),
                minimum_threshold=policy.minimum_threshold,
            )
        else:
            role = protection.client(context, me)
        participant = cls(invitation, coder, context, role)
        return participant, participant._frames(role.start())

    @classmethod
    def resume(cls, data: Buffer) -> Participant:
        """The participant that :meth:`suspend` gave ``data``, once. Raises :class:`DecodeError` for other bytes."""
        reader = Reader(data)
        invitation = Invitation.decode(reader.blob(limit=MAX_INVITATION_BYTES))
        saved = reader.blob(limit=_LIMIT)
        reader.end()
        coder = VectorCoder.of(invitation)
        context = context_of(invitation, coder.coder)
        protection = protection_of(invitation)
        if not isinstance(protection, MaskedSum):
            raise DecodeError(f"a suspended participant of a {invitation.protect} sum")
        return cls(invitation, coder, context, Client.resume(Params.of(context, protection.suite), saved))

    def suspend(self) -> bytes:
        """This participant, secrets included. Raises :class:`LocalProtocolError` when it is over or must be fed."""
        if self.over or not isinstance(self._role, Client):
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
                    if to != SERVER:
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
