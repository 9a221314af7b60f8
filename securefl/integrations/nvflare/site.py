"""A site's own side of a job: its policy and identity from its local folder, and the session in the job's memory.

The folder is ``local/`` of the site's workspace: securefl-policy.toml, securefl-identity, securefl-peers.toml and
securefl-ckks.key, as far as they are there (:mod:`securefl.integrations.peers`). A job's author can only be stricter.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from nvflare.apis.dxo import DXO
from nvflare.apis.fl_context import FLContext

from securefl.errors import DecodeError, FaultyServerError
from securefl.integrations.compression import Feedback
from securefl.integrations.invitation import Invitation
from securefl.integrations.nvflare.carriage import COUNTED, INVITATION, ME
from securefl.integrations.participant import Participant
from securefl.integrations.peers import IDENTITY_KEY, KEY_FILE_KEY, PEERS_KEY, Peers
from securefl.integrations.policy import FILE_KEY, Policy
from securefl.types import PartyId
from securefl.wire import Buffer

__all__ = ["Site"]

FILES: Final = {
    FILE_KEY: "securefl-policy.toml",
    IDENTITY_KEY: "securefl-identity",
    PEERS_KEY: "securefl-peers.toml",
    KEY_FILE_KEY: "securefl-ckks.key",
}
_SESSION: Final = "securefl.session"
_ROUND: Final = "securefl.round"
_SEED: Final = "securefl.identity"
_RESIDUAL: Final = "securefl.residual"


class Site:
    """One site's context. ``policy``: the job author's floors, by the names of :class:`Policy`."""

    def __init__(self, fl_ctx: FLContext, policy: dict[str, Any] | None) -> None:
        self._ctx = fl_ctx
        self._of_job = policy or {}

    def _files(self) -> dict[str, str]:
        folder = Path(self._ctx.get_engine().get_workspace().get_site_config_dir())
        return {key: str(folder / name) for key, name in FILES.items() if (folder / name).exists()}

    @property
    def policy(self) -> Policy:
        """Field by field the stricter of the job's and the site's."""
        of_job, files = Policy.named(self._of_job), self._files()
        of_site = Policy.of({FILE_KEY: files[FILE_KEY]}) if FILE_KEY in files else None
        return of_job if of_site is None else of_site.stricter(of_job)

    @property
    def peers(self) -> Peers:
        """Who this site is, and whom it knows; without files an identity that lasts as long as the job."""
        if not isinstance(self.kept(_SEED), bytes):
            self.keep(_SEED, os.urandom(32))
        return Peers.of(self._files(), self.kept(_SEED))

    def kept(self, name: str) -> Any:
        """What :meth:`keep` kept."""
        return self._ctx.get_prop(name)

    def keep(self, name: str, value: Any) -> None:
        """In the memory of the site's process, for this job."""
        self._ctx.set_prop(name, value, private=True, sticky=True)

    @property
    def feedback(self) -> Feedback:
        """What this client's coder dropped in earlier sums of the job; in the memory of its process."""
        feedback = self.kept(_RESIDUAL)
        if not isinstance(feedback, Feedback):
            feedback = Feedback()
            self.keep(_RESIDUAL, feedback)
        return feedback

    @property
    def session(self) -> Any:
        """The participant or helper of the sum that is under way. Raises :class:`FaultyServerError` without one."""
        session = self.kept(_SESSION)
        if session is None:
            raise FaultyServerError("a message of a session that this client does not take part in (any more)")
        return session

    @property
    def participant(self) -> Participant:
        """The session of a client."""
        session = self.session
        if not isinstance(session, Participant):
            raise FaultyServerError("this site is a helper and no client")
        return session

    def go_on(self, session: Any) -> None:
        """Keep the session, unless it is over."""
        self.keep(_SESSION, None if session is None or session.over else session)

    def called(self, dxo: DXO) -> tuple[int, bytes]:
        """Who this site is to be, and the invitation. Raises :class:`FaultyServerError` for a repeated sum."""
        me, proposal = dxo.get_meta_prop(ME), dxo.get_meta_prop(INVITATION)
        if not isinstance(me, int) or isinstance(me, bool) or not isinstance(proposal, bytes):
            raise DecodeError("an invitation without an id for this client")
        number, last = Invitation.decode(proposal).round, self.kept(_ROUND)
        if last is not None and number <= last:
            raise FaultyServerError(
                f"sum {number} of this job was answered already: its repetition with other clients would give away "
                "the difference"
            )
        return me, proposal

    def invited(self, dxo: DXO) -> tuple[Participant, list[Buffer]]:
        """Answer an invitation as a client."""
        me, proposal = self.called(dxo)
        participant, frames = Participant.invited(proposal, PartyId(me), self.policy, self.peers)
        counted = dxo.get_meta_prop(COUNTED, 0)
        self.feedback.settle(counted if isinstance(counted, int) else 0)
        self.answered(participant)
        return participant, frames

    def answered(self, session: Any) -> None:
        """Note the sum's number and keep the session."""
        self.keep(_ROUND, session.invitation.round)
        self.go_on(session)
