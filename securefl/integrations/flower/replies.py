"""What the strategy gets for a round: one reply per node, which carries the sum's mean or says why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict

from securefl.integrations.vector import Means

__all__ = ["Replies"]

_CODE: Final = 0  # Flower's "unknown": none of its own reasons


class Replies:
    """``requests``: the strategy's messages by node. ``model_key``: of the one ArrayRecord that they carry, or ``None``
    for an evaluation. ``model``: its arrays. ``weight_key``: the metric that is the weight.
    """

    def __init__(
        self, requests: Mapping[int, Message], model_key: str | None, model: Mapping[str, Any], weight_key: str
    ) -> None:
        self._requests, self._model_key, self._model, self._weight_key = requests, model_key, model, weight_key

    def errors(self, nodes: Iterable[int], error: Exception) -> list[Message]:
        """The same error from each of ``nodes``."""
        reason = f"{type(error).__name__}: {error}"
        return [Message(Error(_CODE, reason), reply_to=self._requests[node]) for node in nodes]

    def means(self, means: Means, survivors: Iterable[int], lost: Mapping[int, str]) -> list[Message]:
        """The mean from each of ``survivors``; the reason from each of the ``lost``."""
        arrays = {name: Array(self._moved(name, array, means)) for name, array in self._model.items()}
        return [self._mean(node, means, arrays) for node in survivors] + [
            Message(Error(_CODE, f"left the sum: {why}"), reply_to=self._requests[node]) for node, why in lost.items()
        ]

    def _mean(self, node: int, means: Means, arrays: Mapping[str, Array]) -> Message:
        weight = means.total_weight / means.survivors
        content = RecordDict({"metrics": MetricRecord({self._weight_key: weight, **means.metrics})})
        if self._model_key is not None:
            content[self._model_key] = ArrayRecord(dict(arrays))
        return Message(content, reply_to=self._requests[node])

    @staticmethod
    def _moved(name: str, array: Any, means: Means) -> Any:
        if name not in means.update:
            return array
        moved = array.astype(np.float64) + means.update[name]
        return moved.astype(array.dtype)
