"""The filters around a client's training task: what comes in is checked, what goes out is the protected vector.

``ModelFilter`` stands before the application's executor, checks the model and takes off what is ours; ``MaskFilter``
stands behind it and replaces whatever it returned. Both refuse a training task that no sum was agreed on for.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.filter import ContentBlockedException, Filter
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from securefl.errors import AuthenticationError, DecodeError, FaultyServerError, InvalidInputError, SecureFLError
from securefl.integrations.invitation import Invitation
from securefl.integrations.nvflare.carriage import COUNTED, FRAMES, INVITATION, ME, dxo_in, refusal, with_frames
from securefl.integrations.nvflare.site import Site
from securefl.integrations.policy import Policy
from securefl.integrations.tensors import arrays_hash, difference
from securefl.types import Tensors

__all__ = ["MaskFilter", "ModelFilter"]

_MODEL: Final = "securefl.model"


class ModelFilter(Filter):  # type: ignore[misc]  # nvflare is not in the checking environment
    """Before the application's executor (TASK_DATA): checks the model, takes the frames off.

    ``policy``: the same as the :class:`ProtocolExecutor`'s: under ckks with a key holder, and shared, the invitation
    comes with the training task.
    """

    def __init__(self, policy: dict[str, Any] | None = None) -> None:
        super().__init__()
        Policy.named(policy or {})  # a mistyped floor is refused when the job is made
        self.policy = policy

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The task without what is ours. Raises what makes NVFLARE answer without running the application."""
        site = Site(fl_ctx, self.policy)
        try:
            dxo = dxo_in(shareable)
            frames = dxo.meta.pop(FRAMES, None)
            invited = dxo.get_meta_prop(INVITATION) is not None
            participant = site.invited(dxo)[0] if invited else site.participant
            for name in (INVITATION, ME, COUNTED):
                dxo.meta.pop(name, None)
            if not isinstance(frames, list) or not all(isinstance(frame, bytes) for frame in frames):
                raise FaultyServerError("a training task without the frames that belong to it")
            before = {name: np.array(value) for name, value in dxo.data.items()}  # copies: some train in place
            strange = [name for name, value in before.items() if value.dtype.hasobject]
            if strange:
                raise DecodeError(f"the model's {strange[0]!r} is no array of numbers")
            if arrays_hash(before) != participant.invitation.model_hash:
                raise AuthenticationError("the model is not the one that this sum is bound to")
            if participant.receive(frames) or not participant.ready:
                raise FaultyServerError("the model came before the vector is due")
        except SecureFLError as error:
            site.go_on(None)
            self.log_warning(fl_ctx, f"{type(error).__name__}: {error}")
            raise ContentBlockedException(f"{type(error).__name__}: {error}") from None
        site.keep(_MODEL, before)
        return dxo.update_shareable(shareable)


class MaskFilter(Filter):  # type: ignore[misc]
    """Behind the application's executor (TASK_RESULT): the protected vector, and nothing else of what it returned."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """The frames of the vector. Raises what makes NVFLARE send an error instead of the result."""
        site = Site(fl_ctx, None)
        before = site.kept(_MODEL)
        site.keep(_MODEL, None)
        try:
            participant = site.participant
            if shareable.get_return_code() != ReturnCode.OK:
                raise InvalidInputError("the application answered with an error")
            if before is None:
                raise FaultyServerError("a result without a model that it started from")
            dxo = self._result(shareable)
            metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS) or {}
            if not isinstance(metrics, dict):
                raise InvalidInputError(f"the application's metrics are a {type(metrics).__name__}; it must be a dict")
            weight = dxo.get_meta_prop(participant.invitation.weight_key)
            update = self._update(dxo, before, participant.invitation)
            frames = participant.provide(participant.coder.encode(update, weight, metrics, site.feedback))
        except SecureFLError as error:
            site.go_on(None)
            self.log_warning(fl_ctx, f"{type(error).__name__}: {error}")
            return refusal(error)
        site.go_on(participant)
        return with_frames(frames).to_shareable()

    @staticmethod
    def _result(shareable: Shareable) -> DXO:
        try:
            return dxo_in(shareable)
        except DecodeError as error:
            raise InvalidInputError(f"the application's answer has {error}") from None

    @staticmethod
    def _update(dxo: DXO, before: dict[str, Any], invited: Invitation) -> Tensors:
        given = {name: np.asarray(value) for name, value in dxo.data.items()}
        if dxo.data_kind == DataKind.WEIGHTS:
            return difference(before, given, invited.layout)
        if dxo.data_kind != DataKind.WEIGHT_DIFF:
            raise InvalidInputError(f"the application returned {dxo.data_kind}; it must be weights or their difference")
        for name, value in given.items():
            if name not in before:
                raise InvalidInputError(f"the application returned a difference of {name!r}, which the model has not")
            if value.dtype.kind not in "fiu":
                raise InvalidInputError(f"the application's difference of {name!r} is of {value.dtype}, no numbers")
            if value.shape != before[name].shape:
                raise InvalidInputError(
                    f"the application's difference of {name!r} has the shape {value.shape}, not {before[name].shape}"
                )
        after = {name: before[name] + value for name, value in given.items()}
        return difference(before, {**before, **after}, invited.layout)
