"""The client's side of an NVFLARE job: an executor for the protocol's own tasks, and filters around the training task.

The executor answers the tasks "securefl" (keys, shares, unmasking). The training task runs in the application's own
executor: ``ModelFilter`` stands before it, checks the model and takes off what is ours, ``MaskFilter`` stands behind it
and replaces whatever it returned by the masked vector. Both refuse a training task that no sum was agreed on for. All
three find the session in the job's own context, in the memory of the client's process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.filter import ContentBlockedException, Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from securefl.errors import AuthenticationError, DecodeError, FaultyServerError, InvalidInputError, SecureFLError
from securefl.integrations.invitation import Invitation
from securefl.integrations.participant import Participant
from securefl.integrations.policy import FILE_KEY, Policy
from securefl.integrations.tensors import arrays_hash, difference
from securefl.types import PartyId, Tensors
from securefl.wire import Buffer

__all__ = ["FRAMES", "TASK", "MaskFilter", "ModelFilter", "ProtocolExecutor", "error_of", "frames_in", "with_frames"]

TASK: Final = "securefl"
FRAMES: Final = "securefl.frames"
ERROR: Final = "securefl.error"
_SESSION: Final = "securefl.session"
_ROUND: Final = "securefl.round"
_MODEL: Final = "securefl.model"
POLICY_FILE: Final = "securefl-policy.toml"
MAX_FRAMES: Final = 64


def with_frames(frames: list[Buffer]) -> DXO:
    """What carries frames: arrays of bytes, which NVFLARE streams."""
    return DXO(DataKind.WEIGHT_DIFF, data={str(at): np.frombuffer(f, dtype=np.uint8) for at, f in enumerate(frames)})


def frames_in(data: Any) -> list[Buffer]:
    """The frames of such data. Raises :class:`DecodeError` for anything else."""
    if not isinstance(data, dict) or len(data) > MAX_FRAMES or set(data) != set(map(str, range(len(data)))):
        raise DecodeError("the frames of a message are not numbered from 0")
    frames: list[Buffer] = []
    for at in range(len(data)):
        array = data[str(at)]
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 1:
            raise DecodeError("a frame is an array of bytes")
        frames.append(np.ascontiguousarray(array).data)
    return frames


def error_of(shareable: Shareable) -> str | None:
    """The sentence that a client left instead of an answer."""
    text = shareable.get_header(ERROR)
    return None if text is None else str(text)


def _refusal(error: SecureFLError) -> Shareable:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(ERROR, f"{type(error).__name__}: {error}")
    return reply


def _keep(fl_ctx: FLContext, name: str, value: Any) -> None:
    fl_ctx.set_prop(name, value, private=True, sticky=True)


def _participant(fl_ctx: FLContext) -> Participant:
    participant = fl_ctx.get_prop(_SESSION)
    if not isinstance(participant, Participant):
        raise FaultyServerError("a message of a session that this client does not take part in (any more)")
    return participant


class ProtocolExecutor(Executor):  # type: ignore[misc]  # nvflare is not in the checking environment
    """Answers the protocol's own tasks. ``policy``: floors of the job's author, by the names of :class:`Policy`.

    The site's own are in ``local/securefl-policy.toml`` of its workspace and may only be stricter.
    """

    def __init__(self, policy: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.policy = policy  # under the argument's name: NVFLARE writes components into the job's configuration

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Answer one task; refusals are replies with an error."""
        try:
            dxo = from_shareable(shareable)
            if dxo.get_meta_prop("invitation") is not None:
                frames = self._invited(dxo, fl_ctx)
            else:
                frames = self._go_on(dxo, fl_ctx)
        except SecureFLError as error:
            _keep(fl_ctx, _SESSION, None)
            self.log_warning(fl_ctx, f"{type(error).__name__}: {error}")
            return _refusal(error)
        return with_frames(frames).to_shareable()

    def _invited(self, dxo: DXO, fl_ctx: FLContext) -> list[Buffer]:
        me, proposal = dxo.get_meta_prop("me"), dxo.get_meta_prop("invitation")
        if not isinstance(me, int) or isinstance(me, bool) or not isinstance(proposal, bytes):
            raise DecodeError("an invitation without an id for this client")
        number, last = Invitation.decode(proposal).round, fl_ctx.get_prop(_ROUND)
        if last is not None and number <= last:
            raise FaultyServerError(
                f"sum {number} of this job was answered already: its repetition with other clients would give away "
                "the difference"
            )
        participant, frames = Participant.invited(proposal, PartyId(me), self._policy_for(fl_ctx))
        _keep(fl_ctx, _ROUND, number)
        _keep(fl_ctx, _SESSION, participant)
        return frames

    @staticmethod
    def _go_on(dxo: DXO, fl_ctx: FLContext) -> list[Buffer]:
        participant = _participant(fl_ctx)
        frames = participant.receive(frames_in(dxo.data))
        if participant.over:
            _keep(fl_ctx, _SESSION, None)
        return frames

    def _policy_for(self, fl_ctx: FLContext) -> Policy:
        of_job = Policy(**(self.policy or {}))
        folder = fl_ctx.get_engine().get_workspace().get_site_config_dir()
        file = Path(folder) / POLICY_FILE
        of_site = Policy.of({FILE_KEY: str(file)}) if file.exists() else None
        return of_job if of_site is None else of_site.stricter(of_job)


class ModelFilter(Filter):  # type: ignore[misc]
    """Before the application's executor (TASK_DATA): checks the model, takes the frames off."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The task without what is ours. Raises what makes NVFLARE answer without running the application."""
        try:
            participant, dxo = _participant(fl_ctx), from_shareable(shareable)
            frames = dxo.meta.pop(FRAMES, None)
            if not isinstance(frames, list) or not all(isinstance(frame, bytes) for frame in frames):
                raise FaultyServerError("a training task without the frames that belong to it")
            before = {name: np.asarray(value) for name, value in dxo.data.items()}
            if arrays_hash(before) != participant.invitation.model_hash:
                raise AuthenticationError("the model is not the one that this sum is bound to")
            participant.receive(frames)
            if not participant.ready:
                raise FaultyServerError("the model came before the vector is due")
        except SecureFLError as error:
            _keep(fl_ctx, _SESSION, None)
            self.log_warning(fl_ctx, f"{type(error).__name__}: {error}")
            raise ContentBlockedException(f"{type(error).__name__}: {error}") from None
        _keep(fl_ctx, _MODEL, before)
        return dxo.update_shareable(shareable)


class MaskFilter(Filter):  # type: ignore[misc]
    """Behind the application's executor (TASK_RESULT): the masked vector, and nothing else of what it returned."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The frames of the masked vector. Raises what makes NVFLARE send an error instead of the result."""
        before = fl_ctx.get_prop(_MODEL)
        _keep(fl_ctx, _MODEL, None)
        try:
            participant = _participant(fl_ctx)
            if shareable.get_return_code() != ReturnCode.OK:
                raise InvalidInputError("the application answered with an error")
            if before is None:
                raise FaultyServerError("a result without a model that it started from")
            dxo = from_shareable(shareable)
            metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS) or {}
            weight = dxo.get_meta_prop(participant.invitation.weight_key)
            update = self._update(dxo, before, participant.invitation)
            frames = participant.provide(participant.coder.encode(update, weight, metrics))
        except SecureFLError as error:
            _keep(fl_ctx, _SESSION, None)
            self.log_warning(fl_ctx, f"{type(error).__name__}: {error}")
            return _refusal(error)
        if participant.over:
            _keep(fl_ctx, _SESSION, None)
        return with_frames(frames).to_shareable()

    @staticmethod
    def _update(dxo: DXO, before: dict[str, Any], invited: Invitation) -> Tensors:
        given = {name: np.asarray(value) for name, value in dxo.data.items()}
        if dxo.data_kind == DataKind.WEIGHTS:
            return difference(before, given, invited.layout)
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            raise InvalidInputError(f"the application returned {dxo.data_kind}; it must be weights or their difference")
        after = {name: before[name] + given[name] for name in given if name in before}
        return difference(before, {**before, **after}, invited.layout)
