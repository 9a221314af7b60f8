"""The client's executor for the protocol's own tasks: keys, shares, unmasking, and a helper's opening of the sum."""

from __future__ import annotations

from typing import Any

from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from securefl.errors import ConfigurationError, FaultyServerError, SecureFLError
from securefl.integrations.helper import Helper
from securefl.integrations.nvflare.carriage import HELLO, INVITATION, dxo_in, frames_in, refusal, with_frames
from securefl.integrations.nvflare.site import Site
from securefl.integrations.peers import HELPER
from securefl.integrations.policy import Policy
from securefl.integrations.roll import CLIENT, HELPER_ROLE, ROLES
from securefl.wire import Buffer

__all__ = ["ProtocolExecutor"]


class ProtocolExecutor(Executor):  # type: ignore[misc]  # nvflare is not in the checking environment
    """Answers the task "securefl". ``policy``: floors of the job's author, by the names of :class:`Policy`.

    ``role``: "client", or "helper" for the one site that is the key holder or second server; that site has no training
    task. The site's own floors are in ``local/securefl-policy.toml`` of its workspace and may only be stricter.
    Raises :class:`ConfigurationError` for another role, and for floors that are none.
    """

    def __init__(self, policy: dict[str, Any] | None = None, role: str = CLIENT) -> None:
        super().__init__()
        if role not in ROLES:
            raise ConfigurationError(f"a site's role is {' or '.join(ROLES)}, not {role!r}")
        Policy.named(policy or {})
        # under the arguments' names: NVFLARE writes components into the job's configuration
        self.policy, self.role = policy, role

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer one task; refusals are replies with an error."""
        site = Site(fl_ctx, self.policy)
        try:
            dxo = dxo_in(shareable)
            if dxo.get_meta_prop(HELLO):
                return with_frames([site.peers.identity.public, self.role.encode()]).to_shareable()
            frames = frames_in(dxo.data)
            invited = dxo.get_meta_prop(INVITATION) is not None
            if self.role == HELPER_ROLE:
                answers = self._opened(site, frames) if not invited else self._helping(site, dxo)
            elif invited:
                participant, answers = site.invited(dxo)
                answers += participant.receive(frames)
                site.go_on(participant)
            else:
                participant = site.participant
                answers = participant.receive(frames)
                site.go_on(participant)
        except SecureFLError as error:
            site.go_on(None)
            self.log_warning(fl_ctx, f"{type(error).__name__}: {error}")
            return refusal(error)
        return with_frames(answers).to_shareable()

    @staticmethod
    def _helping(site: Site, dxo: Any) -> list[Buffer]:
        me, proposal = site.called(dxo)
        if me != HELPER:
            raise FaultyServerError("this site is a helper and no client")
        helper, answers = Helper.invited(proposal, site.policy, site.peers)
        site.answered(helper)
        return answers

    @staticmethod
    def _opened(site: Site, frames: list[Buffer]) -> list[Buffer]:
        helper = site.session
        if not isinstance(helper, Helper):
            raise FaultyServerError("this site is a helper and no client")
        site.go_on(None)  # one opening, whatever happens next
        return helper.receive(frames)
