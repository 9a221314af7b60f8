"""Figures of local training inside the protected vector: the server learns their weighted mean, and no client's.

A client's training loss is a statement about its data. Here it is one more value of its vector, under the same weight
and the same mask as the update: the sum gives Σ n_i loss_i / Σ n_i over the survivors and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.errors import ConfigurationError
from securefl.fl.training import LocalResult
from securefl.types import Tensors

__all__ = ["MaskedLoss"]

_NAME: Final = "metric train_loss"


@dataclass(frozen=True, slots=True)
class MaskedLoss:
    """The training loss as a value in [0, ``clip_range``], standing for 0 to ``bound`` nats; larger losses count as
    ``bound``. Both are public. Resolution: ``bound`` over the grid's half range, without bias.

    Raises :class:`~securefl.errors.ConfigurationError` for numbers that are not positive.
    """

    bound: float
    clip_range: float

    def __post_init__(self) -> None:
        if not (0 < self.bound < math.inf and 0 < self.clip_range < math.inf):
            raise ConfigurationError(f"bound and clip_range are positive, not {self.bound} and {self.clip_range}")

    def sends(self, tensors: Tensors) -> Tensors:
        """``tensors`` and the place of the loss behind them."""
        return {**tensors, _NAME: np.zeros(1, dtype=np.float32)}

    def sent(self, tensors: Tensors, result: LocalResult) -> Tensors:
        """What a client sends, with its loss."""
        share = min(max(result.loss, 0.0), self.bound) / self.bound
        return {**tensors, _NAME: np.array([share * self.clip_range], dtype=np.float32)}

    def received(self, mean: Tensors) -> tuple[Tensors, dict[str, float]]:
        """The mean without the loss, and the weighted mean of the losses in nats.

        Rounding may leave it a little below 0, which is cut.
        """
        rest = {name: value for name, value in mean.items() if name != _NAME}
        return rest, {"train_loss": max(0.0, float(mean[_NAME][0]) / self.clip_range * self.bound)}
