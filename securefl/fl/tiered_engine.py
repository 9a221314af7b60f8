"""Training of unequal clients: each works on its tier's slice and moves nothing else of the model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.data import Dataset
from securefl.fl.engine import LocalTask
from securefl.fl.scoring import Evaluation, evaluate
from securefl.fl.slices import Slice
from securefl.fl.tiers import TierPlan
from securefl.fl.training import LocalResult, LocalTraining, steps_per_round
from securefl.types import ClientId, Tensors

__all__ = ["TieredEngine", "evaluate_tiers"]


@dataclass(frozen=True, eq=False)
class TieredEngine:
    """An :class:`~securefl.fl.engine.Engine` for a :class:`~securefl.fl.tiers.TierPlan`.

    A result's update has the whole model's shapes and is 0 outside the client's slice. Plain SGD only: state of an
    optimizer would be that of another slice in the next step.
    """

    plan: TierPlan
    dataset: Dataset = field(repr=False)

    def train(self, round: int, tasks: Sequence[LocalTask], settings: LocalTraining) -> dict[ClientId, LocalResult]:
        """See :class:`~securefl.fl.engine.Engine`.

        Raises :class:`~securefl.errors.ConfigurationError` for settings other than plain SGD.
        """
        if settings.optimizer != "sgd" or settings.momentum or settings.weight_decay or settings.dpsgd is not None:
            raise ConfigurationError("slices are trained by plain sgd, without momentum, weight decay or dpsgd")
        slices = self.plan.slices(round)
        return {task.client: self._train(round, task, settings, slices) for task in tasks}

    def model_bytes(self, whole: int, clients: Collection[ClientId]) -> int:
        """What the clients download of a model of ``whole`` bytes, on average: each its slice."""
        sizes = [self.plan.parameters(tier) for tier in range(1, len(self.plan.sizes) + 1)]
        return int(whole * sum(sizes[self.plan.tiers[client] - 1] for client in clients) / (sizes[-1] * len(clients)))

    def _train(self, round: int, task: LocalTask, settings: LocalTraining, slices: Sequence[Slice]) -> LocalResult:
        if task.terms.drift is not None or task.terms.proximal:
            raise ConfigurationError("slices are trained by fedavg: fedprox and scaffold do not go with tiers")
        if len(task.rows) == 0:
            raise InvalidInputError(f"client {task.client} has no examples")
        tier = self.plan.tiers[task.client]
        own, start = slices[tier - 1], task.start
        whole = {name: torch.from_numpy(value.copy()) for name, value in start.items()}
        inputs, targets = torch.from_numpy(self.dataset.inputs), torch.from_numpy(self.dataset.targets)
        rng, draws = task.seed.child("order").numpy(), task.seed.child("slices").numpy()
        total = steps_per_round(len(task.rows), settings)
        total = total if task.limit is None else min(total, task.limit)
        vary = None
        if settings.augmentation is not None:
            vary = settings.augmentation.at(self.dataset.input_shape, task.seed.child("augmentation").torch())
        done = 0
        losses: list[torch.Tensor] = []  # of the last pass's batches
        sizes: list[int] = []
        while done < total:
            order = task.rows[rng.permutation(len(task.rows))]
            losses, sizes = [], []
            for at in range(0, len(order), settings.batch_size):
                if done == total:
                    break
                rows = torch.from_numpy(order[at : at + settings.batch_size])
                part = slices[int(draws.integers(0, tier))] if self.plan.nested else own
                batch = inputs[rows] if vary is None else vary(inputs[rows])
                losses.append(_step(part, whole, batch, targets[rows], settings.learning_rate))
                sizes.append(len(rows))
                done += 1
        update = {name: whole[name].numpy() - value for name, value in start.items()}
        loss = float(np.dot([float(value) for value in losses], sizes)) / sum(sizes)
        if not (np.isfinite(loss) and all(np.isfinite(value).all() for value in update.values())):
            raise InvalidInputError(
                f"the training of client {task.client} in round {round} is no longer finite; lower the learning rate"
            )
        return LocalResult(update, len(task.rows), loss, done)


def _step(
    part: Slice, whole: dict[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor, rate: float
) -> torch.Tensor:
    """One step of SGD on the slice, in place in the whole model."""
    views = part.views(whole)
    found = views if views is not None else {n: whole[n][part.place(n, whole[n].shape)] for n in part.kept}
    leaves = {name: value.detach().requires_grad_() for name, value in found.items()}
    part.module.train()
    loss = cross_entropy(functional_call(part.module, leaves, (inputs,)), targets)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    with torch.no_grad():
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            if views is not None:
                leaf.sub_(gradient, alpha=rate)  # a view of the whole model
            else:
                whole[name][part.place(name, whole[name].shape)] = leaf - rate * gradient
    return loss.detach()


def evaluate_tiers(plan: TierPlan, tensors: Tensors, dataset: Dataset, *, round: int = 1) -> tuple[Evaluation, ...]:
    """Each tier's slice of the global model, as a model of its own."""
    return tuple(_evaluate(part, tensors, dataset) for part in plan.slices(round))


def _evaluate(part: Slice, tensors: Tensors, dataset: Dataset) -> Evaluation:
    module: nn.Module = part.module
    taken = part.take(tensors)
    return evaluate(module, {name: taken[name] for name, _ in module.named_parameters()}, dataset)
