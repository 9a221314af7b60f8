"""Rounds of pfl 0.6 on the torch model and data of ``benchmarks/engine.py``, as pfl's own benchmarks set them up.

pfl's parts do the work: ``PyTorchModel``, ``FederatedAveraging``, ``SimulatedBackend``, weighting by examples. What
stands here is what a user of pfl writes. pfl does not shuffle a user's examples; they are put into the order that the
other engines draw when the user's dataset is made, so that all give the same model.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.pytorch import PyTorchTensorDataset
from pfl.hyperparam import NNTrainHyperParams
from pfl.metrics import Weighted
from pfl.model.pytorch import PyTorchModel
from torch import nn
from torch.nn.functional import cross_entropy

#: The rows of client c (from 0) in round r (from 1), in the order of training.
OrderOf = Callable[[int, int], NDArray[np.int64]]


class _Classifier(nn.Module):
    """What pfl asks of a model: ``loss`` and ``metrics``."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.body(inputs)

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor, **_: object) -> torch.Tensor:
        self.train()
        return cross_entropy(self(inputs), targets)

    @torch.no_grad()
    def metrics(self, inputs: torch.Tensor, targets: torch.Tensor, **_: object) -> dict[str, Weighted]:
        self.eval()
        return {"loss": Weighted(float(cross_entropy(self(inputs), targets, reduction="sum")), len(targets))}


class PflRounds:
    """``module`` is trained in place. ``order_of``: see :data:`OrderOf`; looked up, never computed, in a round."""

    def __init__(
        self,
        module: nn.Module,
        inputs: NDArray[np.float32],
        targets: NDArray[np.int64],
        clients: Sequence[int],
        order_of: OrderOf,
        *,
        batch_size: int,
        learning_rate: float,
    ) -> None:
        self._module, self._round, self._loop = module, 0, asyncio.new_event_loop()
        x, y = torch.from_numpy(inputs), torch.from_numpy(targets)

        def user_dataset(client: int) -> PyTorchTensorDataset:
            order = torch.from_numpy(order_of(client, self._round))
            return PyTorchTensorDataset((x[order], y[order]), user_id=str(client))

        users = itertools.cycle(clients)  # all of them in every round
        data = FederatedDataset(user_dataset, lambda: next(users))
        classifier = _Classifier(module)
        self._model = PyTorchModel(classifier, torch.optim.SGD, torch.optim.SGD(classifier.parameters(), lr=1.0))
        self._backend = SimulatedBackend(training_data=data, val_data=data, postprocessors=[WeightByDatapoints()])
        self._algorithm = FederatedAveraging()
        self._params = NNAlgorithmParams(
            central_num_iterations=0,
            evaluation_frequency=1 << 30,  # the first round alone, which warms up
            train_cohort_size=len(clients),
            val_cohort_size=None,
        )
        self._training = NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=learning_rate, local_batch_size=batch_size
        )

    def round(self) -> float:
        """Seconds of the next round, by pfl's own loop."""
        self._round += 1
        params = replace(self._params, central_num_iterations=self._round)
        asyncio.set_event_loop(self._loop)  # pfl asks for the thread's, which only the main thread has by itself
        started = perf_counter()
        self._algorithm.run(params, self._backend, self._model, self._training, send_metrics_to_platform=False)
        return perf_counter() - started

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The model after the last round."""
        return {name: value.detach().numpy().copy() for name, value in self._module.named_parameters()}
