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
from securefl.integrations.invitation import Invitation
from securefl.integrations.participant import Participant
from securefl.integrations.policy import Policy
from securefl.integrations.tensors import arrays_hash, difference
from securefl.types import PartyId, Tensors
from securefl.wire import Buffer

__all__ = ["SecureMod"]

#: Flower's error codes: an application that raised; a mod whose precondition failed.
_FAILED: Final = 6

Handler = Callable[[Message, Context], Message]


class SecureMod:
    """A Flower mod. ``policy``: the application's own floors; the SuperNode's configuration may raise them.

    Messages that carry no invitation are refused unless the policy permits them: otherwise a server that does not use
    securefl, or leaves it out for one client, would simply be given the update.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        self._policy = policy

    def __call__(self, message: Message, context: Context, call_next: Handler) -> Message:
        """Answer one message. Errors of this package become error replies; the session is then over here."""
        try:
            policy = self._policy_for(context)
            if KEY in message.content.config_records:
                return _Turn(message, context, call_next, policy).answer()
            self._check_unprotected(message.metadata.message_type, policy)
        except SecureFLError as error:
            context.state.pop(KEY, None)
            return Message(Error(_FAILED, f"{type(error).__name__}: {error}"), reply_to=message)
        return call_next(message, context)

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

    def __init__(self, message: Message, context: Context, call_next: Handler, policy: Policy) -> None:
        self._message, self._context, self._call_next, self._policy = message, context, call_next, policy
        self._record = message.content.config_records[KEY]
        self._run = message.metadata.run_id

    def answer(self) -> Message:
        if "invitation" in self._record:
            participant, frames = self._invited()
        else:
            participant = Participant.resume(self._saved("session", bytes))
            frames = participant.receive(frames_of(self._message.content))
        if participant.ready and self._has_model(participant.invitation):
            self._remember(participant, None)  # a handler that dies must not leave a session that goes on
            frames += participant.provide(self._vector(participant))
        self._remember(participant, None if participant.over else participant.suspend())
        return self._reply(frames)

    def _invited(self) -> tuple[Participant, list[Buffer]]:
        me, proposal = self._record.get("me"), self._record.get("invitation")
        if not isinstance(me, int) or isinstance(me, bool) or not isinstance(proposal, bytes):
            raise DecodeError("an invitation without an id for this client")
        participant, frames = Participant.invited(proposal, PartyId(me), self._policy)
        invited = participant.invitation
        if self._message.metadata.message_type.split(".", maxsplit=1)[0] != invited.kind:
            raise FaultyServerError(f"a message of another type than the {invited.kind} that it invites to")
        old = self._context.state.get(KEY)
        if isinstance(old, ConfigRecord) and old.get("run") == self._run and int(str(old["round"])) >= invited.round:
            raise FaultyServerError(
                f"sum {invited.round} of this run was answered already: its repetition with other clients would give "
                "away the difference"
            )
        return participant, frames

    def _saved(self, name: str, kind: type) -> Any:
        old = self._context.state.get(KEY)
        if not isinstance(old, ConfigRecord) or old.get("run") != self._run or not isinstance(old.get(name), kind):
            raise FaultyServerError("a message of a session that this client does not take part in (any more)")
        return old[name]

    def _remember(self, participant: Participant, session: bytes | None) -> None:
        fields = {"run": self._run, "round": participant.invitation.round}
        self._context.state[KEY] = ConfigRecord(fields if session is None else {**fields, "session": session})

    # ---- the model and what becomes of it -------------------------------------------------------------------

    def _has_model(self, invited: Invitation) -> bool:
        return bool(self._record.get("model"))

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
        return participant.coder.encode(update, weight, numbers)

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
