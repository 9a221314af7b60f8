"""How good a run is, and what the server would see of it: what only a simulation can put side by side. [torch]"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.fl.data import Dataset
from securefl.split.engine import Rows
from securefl.split.member import Member
from securefl.split.modes import FramedMode
from securefl.split.shared import SharedMode
from securefl.split.views import observer

__all__ = ["Judge"]


class Judge:
    """``member``: the first client, whose ends are everybody's after a round. ``body``: the server's part, which
    nobody has under ``shared``. ``test``: what accuracy is measured on, in batches of ``batch_size``.
    """

    def __init__(
        self, member: Member, body: nn.Module, mode: FramedMode | SharedMode, test: Dataset, batch_size: int
    ) -> None:
        self._member, self._body, self._mode, self._test, self._batch_size = member, body, mode, test, batch_size
        self._shared = isinstance(mode, SharedMode)

    def accuracy(self) -> float:
        """Of the composed model on the test set; only a simulation can put the parts side by side.

        The ends are those of the client that trained last (parallel clients hold the same after the average). Under
        ``shared`` nobody has the body, and the test set goes the protected way.
        """
        if self._shared:
            return float((self.protected_predictions(self._test.inputs) == self._test.targets).mean())
        front, head = self.ends()
        with torch.no_grad():
            activations = front(torch.from_numpy(self._test.inputs.copy()))
            if self._mode.clamps is not None:
                activations = activations.clamp(-self._mode.clamps, self._mode.clamps)
            outputs = self._body(activations)
            scores = outputs if head is None else head(outputs)
        return float((scores.argmax(1).numpy() == self._test.targets).mean())

    def protected_predictions(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Classes by the first client through the protected path, int64[n]: what inference costs and gives."""
        learner = self._member.learner
        pieces = np.array_split(inputs, -(-len(inputs) // self._batch_size))
        return np.concatenate([learner.predict(torch.from_numpy(piece.copy())) for piece in pieces])

    def server_views(self, data: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """What the server would hold of each example of ``data`` now: of its activations, and of its gradient.

        For leakage figures: nothing is sent. The second is ``None`` where the server has the labels.
        """
        _, head = self.ends()
        views, gradients = [], []
        seen = observer(self._mode)
        for rows in np.array_split(np.arange(len(data)), -(-len(data) // self._batch_size)):
            activations, outputs = self._through(torch.from_numpy(data.inputs[rows]))
            gradient = None
            if head is not None:
                outputs.requires_grad_(True)
                loss = cross_entropy(head(outputs), torch.from_numpy(data.targets[rows]), reduction="sum")
                gradient = torch.autograd.grad(loss, [outputs])[0].numpy()
            view, gradient_view = seen(activations, gradient)
            views.append(view)
            if gradient_view is not None:
                gradients.append(gradient_view)
        return np.concatenate(views), np.concatenate(gradients) if gradients else None

    def _through(self, inputs: torch.Tensor) -> tuple[Rows, torch.Tensor]:
        """Activations and outputs of the body as they are now; nothing is trained."""
        front, _ = self.ends()
        with torch.no_grad():
            activations = front(inputs)
            if self._mode.clamps is not None:
                activations = activations.clamp(-self._mode.clamps, self._mode.clamps)
            rows = np.ascontiguousarray(activations.flatten(1).numpy())
            if self._shared:
                return rows, torch.from_numpy(self._member.middle.outputs(rows, train=False))
            return rows, self._body(activations).flatten(1)

    def ends(self) -> tuple[nn.Module, nn.Module | None]:
        """Front and head of the client that trained last: it handed them to the first."""
        learner = self._member.learner
        return learner.front, learner.head
