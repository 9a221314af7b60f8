"""The client's side inside a ClientApp: ``ClientApp(mods=[SecureMod()])``, first in the list.

It answers the messages of the protocol by itself and calls the application's handler once per round, when the model
has come and its vector is asked for. What the handler returns leaves the client inside that vector only. Between two
messages the session stands, secrets included, in ``context.state``, which stays with the SuperNode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict

from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyServerError,
    InvalidInputError,
    SecureFLError,
)
from securefl.integrations.flower.records import (
    FRAMES,
    KEY,
    arguments_hash,
    frames_of,
    put_frames,
    tensors_of,
)
from securefl.integrations.flower.session import Session
from securefl.integrations.helper import Helper
from securefl.integrations.invitation import Invitation
from securefl.integrations.participant import Participant
from securefl.integrations.peers import HELPER, Peers
from securefl.integrations.policy import ROLE_KEY, Policy
from securefl.integrations.roll import CLIENT, HELPER_ROLE, ROLES
from securefl.integrations.tensors import arrays_hash, difference
from securefl.types import PartyId, Tensors
from securefl.wire import Buffer

__all__ = ["SecureMod"]

#: Flower's error codes: an application that raised; a mod whose precondition failed.
_FAILED: Final = 6

Handler = Callable[[Message, Context], Message]


class SecureMod:
    """A Flower mod. ``policy``: the application's own floors; the SuperNode's configuration may raise them.

    ``helper``: which SuperNodes are the key holder or second server, besides those whose configuration says
    ``securefl-role = "helper"``; for simulations, whose nodes have no configuration of their own.

    Messages that carry no invitation are refused unless the policy permits them: otherwise a server that does not use
    securefl, or leaves it out for one client, would simply be given the update.
    """

    def __init__(self, policy: Policy | None = None, *, helper: Callable[[Context], bool] | None = None) -> None:
        self._policy, self._helper = policy, helper

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer one message. Errors of this package become error replies; the session is then over here."""
        session = Session(context, message.metadata.run_id)
        try:
            policy = self._policy_for(context)
            if KEY in message.content.config_records:
                peers = Peers.of(context.node_config, session.identity_seed())
                turn = _Turn(message, context, call_next, policy, peers, session)
                return turn.help() if self._helps(context) else turn.answer()
            self._check_unprotected(message.metadata.message_type, policy)
        except SecureFLError as error:
            session.forget()
            return Message(Error(_FAILED, f"{type(error).__name__}: {error}"), reply_to=message)
        return call_next(message, context)

    def _helps(self, context: Context) -> bool:
        role = context.node_config.get(ROLE_KEY, CLIENT)
        if role not in ROLES:
            raise ConfigurationError(f"{ROLE_KEY} is {' or '.join(ROLES)}, not {role!r}")
        return role == HELPER_ROLE or (self._helper is not None and self._helper(context))

    def _policy_for(self, context: Context) -> Policy:
        of_node, of_code = Policy.of(context.node_config), self._policy
        if of_node is None or of_code is None:
            return of_node or of_code or Policy()
        return of_node.stricter(of_code)

    @staticmethod
    def _check_unprotected(message_type: str, policy: Policy) -> None:
        category = message_type.split(".", maxsplit=1)[0]
        if not getattr(policy, f"allow_unprotected_{category}", False):
            raise ConfigurationError(
                f"a {category} message without protection: this client answers it only where its policy says "
                f"allow_unprotected_{category}; the server must wrap its grid in SecureGrid"
            )


class _Turn:
    """One message of the protocol."""

    def __init__(
        self, message: Message, context: Context, call_next: Handler, policy: Policy, peers: Peers, session: Session
    ) -> None:
        self._message, self._context, self._call_next = message, context, call_next
        self._policy, self._peers, self._session = policy, peers, session
        self._record = message.content.config_records[KEY]

    def answer(self) -> Message:
        """A client's."""
        if "hello" in self._record:
            return self._present(CLIENT)
        frames = frames_of(self._message.content)
        if "invitation" in self._record:
            participant, answers = self._invited()
        else:
            participant, answers = Participant.resume(self._session.saved(), self._peers), []
        answers += participant.receive(frames)
        number = participant.invitation.round
        if participant.ready and self._record.get("model"):
            self._session.keep(number, None)  # a handler that dies must not leave a session that goes on
            answers += participant.provide(self._vector(participant))
        self._session.keep(number, None if participant.over else participant.suspend())
        return self._reply(answers)

    def help(self) -> Message:
        """The helper's: it opens sums and has no vector of its own, whatever the application's handler would give."""
        if "hello" in self._record:
            return self._present(HELPER_ROLE)
        if "invitation" in self._record:
            me, proposal = self._called()
            if me != HELPER:
                raise FaultyServerError("this node is a helper and no client")
            number = Invitation.decode(proposal).round
            self._session.check_new(number)
            helper, answers = Helper.invited(proposal, self._policy, self._peers)
        else:
            helper = Helper.resume(self._session.saved(), self._peers)
            number = helper.invitation.round
            self._session.keep(number, None)  # one opening, whatever happens next
            answers = helper.receive(frames_of(self._message.content))
        opened = "invitation" not in self._record or helper.over
        self._session.keep(number, None if opened else helper.suspend())
        return self._reply(answers)

    def _present(self, role: str) -> Message:
        """The roll call: a public key and a role."""
        content = RecordDict({KEY: ConfigRecord({"public": self._peers.identity.public, "role": role})})
        return Message(content, reply_to=self._message)

    # ---- the session ----------------------------------------------------------------------------------------

    def _called(self) -> tuple[int, bytes]:
        me, proposal = self._record.get("me"), self._record["invitation"]
        if not isinstance(me, int) or not isinstance(proposal, bytes):
            raise DecodeError("an invitation without an id for this client")
        return me, proposal

    def _invited(self) -> tuple[Participant, list[Buffer]]:
        me, proposal = self._called()
        participant, frames = Participant.invited(proposal, PartyId(me), self._policy, self._peers)
        invited = participant.invitation
        if self._message.metadata.message_type.split(".", maxsplit=1)[0] != invited.kind:
            raise FaultyServerError(f"a message of another type than the {invited.kind} that it invites to")
        self._session.check_new(invited.round)
        if invited.compression is not None and invited.compression.error_feedback:
            feedback, counted = self._session.feedback(), self._record.get("counted", 0)
            feedback.settle(counted if isinstance(counted, int) else 0)
            self._session.keep_feedback(feedback)
        return participant, frames

    # ---- the model and what becomes of it -------------------------------------------------------------------

    def _vector(self, participant: Participant) -> Any:
        """Check the model, let the application work, and encode what it returns."""
        invited, content = participant.invitation, self._message.content
        arrays = {key: record for key, record in content.array_records.items() if key != FRAMES}
        configs = {key: record for key, record in content.config_records.items() if key != KEY}
        if len(arrays) != 1:
            raise FaultyServerError(f"{len(arrays)} models came with the request; it must be one")
        before = tensors_of(next(iter(arrays.values())))
        if arrays_hash(before) != invited.model_hash:
            raise AuthenticationError("the model is not the one that this sum is bound to")
        if arguments_hash(configs) != invited.arguments_hash:
            raise AuthenticationError("the configuration is not the one that this sum is bound to")
        content.pop(KEY)
        content.pop(FRAMES, None)
        reply = self._call_next(self._message, self._context)
        if reply.has_error():
            raise InvalidInputError("the application answered with an error")
        metrics = list(reply.content.metric_records.values())
        if len(metrics) != 1:
            raise InvalidInputError(f"the application returned {len(metrics)} MetricRecords; it must be one")
        update = self._update(invited, before, reply) if invited.kind == "train" else {}
        weight = metrics[0].get(invited.weight_key)
        if isinstance(weight, float) and weight.is_integer():
            weight = int(weight)
        if isinstance(weight, bool) or not isinstance(weight, int):
            raise InvalidInputError(f"the metric {invited.weight_key!r}, the weight, must be a whole number")
        numbers = {k: v for k, v in metrics[0].items() if not isinstance(v, list)}
        if invited.compression is None or not invited.compression.error_feedback:
            return participant.coder.encode(update, weight, numbers)
        feedback = self._session.feedback()
        values = participant.coder.encode(update, weight, numbers, feedback)
        self._session.keep_feedback(feedback)
        return values

    @staticmethod
    def _update(invited: Invitation, before: dict[str, Any], reply: Message) -> Tensors:
        records = list(reply.content.array_records.values())
        if len(records) != 1:
            raise InvalidInputError(f"the application returned {len(records)} ArrayRecords; it must be one")
        return difference(before, tensors_of(records[0]), invited.layout)

    def _reply(self, frames: list[Buffer]) -> Message:
        content = RecordDict({KEY: ConfigRecord({"frames": len(frames)})})
        put_frames(content, frames)
        return Message(content, reply_to=self._message)
