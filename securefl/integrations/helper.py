"""The helper of a sum, one message at a time: a key holder of ckks, or the second server of shared.

It is invited before the clients, since they need its public key, and asked once more when the sum is to be opened. Like
a client it holds the invitation against its own policy and the keys that it was given. It knows no engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from securefl.ckks import KeyHolder, KeyModel
from securefl.ckks import Params as CKKSParams
from securefl.errors import LocalProtocolError
from securefl.integrations.attested import AttestedSecond
from securefl.integrations.carried import Carried
from securefl.integrations.invitation import MAX_INVITATION_BYTES, Invitation
from securefl.integrations.keyfile import charge, read_key
from securefl.integrations.peers import HELPER, Peers
from securefl.integrations.policy import Policy
from securefl.integrations.vector import VectorCoder, context_of
from securefl.machine import Aborted, Completed, Event, Send
from securefl.types import SERVER
from securefl.wire import Buffer, Reader, Writer

__all__ = ["Helper"]

#: Nothing that is suspended is longer than a key pair.
_LIMIT: Final = 2**24


class Helper:
    """One helper in one sum. ``over``: nothing more will come of it. Frames name their recipient themselves."""

    def __init__(
        self, invitation: Invitation, parameters: object, peers: Peers, role: KeyHolder | AttestedSecond
    ) -> None:
        self.invitation = invitation
        self.over = False
        self._parameters = parameters  # of the sum: they say which protection it has
        self._peers = peers
        self._role = role

    @classmethod
    def invited(cls, proposal: Buffer, policy: Policy, peers: Peers) -> tuple[Helper, list[Buffer]]:
        """Answer an invitation: the helper and its frames, for the server and for every client.

        Raises :class:`~securefl.errors.DecodeError`, what :meth:`Policy.check` and :meth:`Peers.check` raise.
        """
        invitation = Invitation.decode(proposal)
        policy.check(invitation, peers)
        peers.check(invitation, HELPER)
        carried = cls._carried(invitation)
        role = carried.helper(peers, policy.survivors_for(invitation))
        helper = cls(invitation, carried.parameters, peers, role)
        return helper, helper._frames(role.start())

    @classmethod
    def resume(cls, data: Buffer, peers: Peers) -> Helper:
        """The helper that :meth:`suspend` gave ``data``, once. Raises :class:`DecodeError` for other bytes."""
        reader = Reader(data)
        invitation = Invitation.decode(reader.blob(limit=MAX_INVITATION_BYTES))
        saved = bytes(reader.blob(limit=_LIMIT))
        reader.end()
        carried = cls._carried(invitation)
        return cls(invitation, carried.parameters, peers, carried.resume_helper(saved, peers))

    def suspend(self) -> bytes:
        """This helper, secrets included. Raises :class:`LocalProtocolError` when it is over."""
        if self.over:
            raise LocalProtocolError("this helper is done: it opens one sum per session")
        return Writer().blob(self.invitation.encode()).blob(self._role.suspend()).done()

    def receive(self, frames: Sequence[Buffer]) -> list[Buffer]:
        """Open the sum. Raises as the role does."""
        answers: list[Buffer] = []
        for frame in frames:
            self._charge()
            answers += self._frames(self._role.receive(bytes(frame)))
        return answers

    def _charge(self) -> None:
        """Count an opening of a key that outlives the sum, before it happens."""
        params = self._parameters
        path = self._peers.key_file
        if isinstance(params, CKKSParams) and params.key_model is KeyModel.SHARED_KEY and path is not None:
            charge(path, params.ciphertexts, read_key(path).parameters.decryptions)

    @staticmethod
    def _carried(invitation: Invitation) -> Carried:
        return Carried(invitation, context_of(invitation, VectorCoder.of(invitation).coder))

    def _frames(self, events: Sequence[Event]) -> list[Buffer]:
        frames: list[Buffer] = []
        for event in events:
            match event:
                case Send(_, frame):
                    frames.append(frame)
                case Completed():
                    self.over = True
                case Aborted(reason):
                    self.over = True
                    if not any(isinstance(other, Send) and other.to == SERVER for other in events):
                        raise reason
        return frames
