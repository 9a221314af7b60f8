"""Many clients trained at once: their parameters stacked, the forward pass vmapped, one call of autograd per step.

The mathematics is that of :func:`securefl.fl.training.train`, client by client: the same batches in the same order from
the same seeds, the same optimiser. Results agree with it up to the rounding of float32 sums, which come in another
order. What is saved is the dispatch of small operations, which is most of the time while a client's step is small.

Clients are sorted by their number of steps and worked in groups. In a group the batch shrinks as clients finish, so
that unequal clients cost no padded steps; within a step, batches shorter than the longest are padded by an example of
their own client with weight zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.data import Dataset
from securefl.fl.models import load_tensors
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalResult, LocalTraining
from securefl.types import ClientId, Tensors

__all__ = ["Job", "layers_stack", "step_flops", "train_stacked", "worth_stacking"]

#: Layers that treat every example by itself, draw nothing at random and keep no state: a padded batch and a batch of
#: batches give each example what it would get alone.
_PURE: Final = frozenset(
    {
        *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Linear, nn.Embedding),
        *(nn.Conv1d, nn.Conv2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.LayerNorm, nn.GroupNorm),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softmax),
    }
)
#: Beyond either of these one client's step keeps a core busy by itself, or its parameters no longer stay in the cache
#: beside those of others: operations of a forward pass, and parameters. ``benchmarks/engine.py`` shows both sides.
LARGEST_STEP: Final = 4_000_000
LARGEST_MODEL: Final = 50_000
#: Parameters of all clients of a group together, and clients: what is worked on at a time stays small.
_GROUP_VALUES: Final = 1 << 20
_GROUP_CLIENTS: Final = 128


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One client's part of a round: ``rows`` of the dataset, and the node that seeds its training."""

    client: ClientId
    rows: NDArray[np.int64] = field(repr=False)
    seed: SeedTree


def layers_stack(module: nn.Module) -> bool:
    """Whether every layer is one of those known to treat examples alone, without randomness or state.

    Modules with a ``forward`` of their own are not looked into: for them the answer is no.
    """
    return all(type(layer) in _PURE or type(layer) is nn.Sequential for layer in module.modules())


def step_flops(module: nn.Module, dataset: Dataset, batch_size: int) -> int:
    """Floating-point operations of the forward pass of one batch, a figure of shapes alone."""
    from torch.utils.flop_counter import FlopCounterMode

    examples = torch.zeros((batch_size, *dataset.input_shape), device=next(module.parameters()).device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(examples)
    return int(counter.get_total_flops())


def worth_stacking(module: nn.Module, dataset: Dataset, settings: LocalTraining) -> bool:
    """Whether stacking is possible and faster. Decided by shapes, not by a clock: equal runs decide alike."""
    if settings.dpsgd is not None or not layers_stack(module):
        return False
    if sum(parameter.numel() for parameter in module.parameters()) > LARGEST_MODEL:
        return False
    return step_flops(module, dataset, settings.batch_size) <= LARGEST_STEP


def train_stacked(
    module: nn.Module,
    tensors: Tensors,
    dataset: Dataset,
    jobs: Sequence[Job],
    settings: LocalTraining,
    *,
    round: int,
    group: int | None = None,
) -> dict[ClientId, LocalResult]:
    """Train every client of ``jobs`` from ``tensors``; ``module`` is only a workspace. In the order of ``jobs``.

    ``group``: clients trained at a time, >= 1; by default as many as keep the group's parameters small.
    Raises :class:`~securefl.errors.InvalidInputError` for a client without examples and for training that is no longer
    finite, :class:`~securefl.errors.ConfigurationError` for a module or settings that only the sequential loop takes.
    """
    if settings.dpsgd is not None:
        raise ConfigurationError("the stacked engine does not train with example-level privacy: use the sequential one")
    if group is not None and group < 1:
        raise ConfigurationError(f"a group has at least one client, not {group}")
    for job in jobs:
        if len(job.rows) == 0:
            raise InvalidInputError(f"client {job.client} has no examples")
    load_tensors(module, tensors)
    module.train()
    fitting = max(1, min(_GROUP_CLIENTS, _GROUP_VALUES // sum(value.size for value in tensors.values())))
    size = fitting if group is None else group
    ordered = sorted(jobs, key=lambda job: -len(job.rows))
    results: dict[ClientId, LocalResult] = {}
    for start in range(0, len(ordered), size):
        results.update(_Group(module, tensors, dataset, ordered[start : start + size], settings).train(round))
    return {job.client: results[job.client] for job in jobs}


class _Group:
    """Clients with descending numbers of examples, and so of steps; their parameters in one tensor per layer."""

    def __init__(
        self, module: nn.Module, tensors: Tensors, dataset: Dataset, jobs: Sequence[Job], settings: LocalTraining
    ) -> None:
        self._jobs, self._settings, self._tensors = jobs, settings, tensors
        self._names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        self._device = next(module.parameters()).device
        self._stacked = [
            parameter.detach().unsqueeze(0).repeat(len(jobs), *(1 for _ in parameter.shape)).contiguous()
            for parameter in module.parameters()
            if parameter.requires_grad
        ]
        names = self._names

        def forward(parameters: tuple[torch.Tensor, ...], examples: torch.Tensor) -> torch.Tensor:
            return functional_call(module, dict(zip(names, parameters, strict=True)), (examples,))  # type: ignore[no-any-return]

        self._forward = vmap(forward, randomness="error")
        self._step = _stepper(settings)
        self._inputs = torch.from_numpy(dataset.inputs).to(self._device)
        self._targets = torch.from_numpy(dataset.targets).to(self._device)

    def train(self, round: int) -> dict[ClientId, LocalResult]:
        """All steps of all clients."""
        schedule = _Schedule(self._jobs, self._settings)
        loss_sums = torch.zeros(len(self._jobs), device=self._device)
        for step in range(schedule.steps[0]):
            rows, weights, counts = schedule.batch(step)
            active = len(rows)
            self._take_step(rows, weights, counts, schedule.last_epoch(step, active), loss_sums[:active])
        return self._results(schedule, loss_sums, round)

    def _take_step(
        self,
        rows: NDArray[np.int64],
        weights: NDArray[np.float32] | None,
        counts: NDArray[np.int64],
        last_epoch: NDArray[np.bool_],
        loss_sums: torch.Tensor,
    ) -> None:
        active, width = rows.shape
        at = torch.from_numpy(rows.reshape(-1)).to(self._device)
        examples = self._inputs[at].reshape(active, width, *self._inputs.shape[1:])
        leaves = [value[:active].detach().requires_grad_() for value in self._stacked]  # views: steps are in place
        scores = self._forward(tuple(leaves), examples)
        each = cross_entropy(scores.reshape(active * width, -1), self._targets[at], reduction="none")
        each = each.reshape(active, width)
        if weights is None:
            means = each.mean(dim=1)
        else:
            means = (each * torch.from_numpy(weights).to(self._device)).sum(dim=1)
        gradients = torch.autograd.grad(means.sum(), leaves, allow_unused=True, materialize_grads=True)
        self._step([leaf.detach() for leaf in leaves], gradients)
        if last_epoch.any():
            taken = torch.from_numpy(np.where(last_epoch, counts, 0).astype(np.float32)).to(self._device)
            loss_sums += means.detach() * taken

    def _results(self, schedule: _Schedule, loss_sums: torch.Tensor, round: int) -> dict[ClientId, LocalResult]:
        after = [value.cpu().numpy() for value in self._stacked]
        for name, value in zip(self._names, after, strict=True):
            value -= self._tensors[name]
        losses = loss_sums.cpu().numpy()
        finite = np.isfinite(losses)
        for value in after:
            finite &= np.isfinite(value.reshape(len(finite), -1)).all(axis=1)
        results = {}
        for at, job in enumerate(self._jobs):
            if not finite[at]:
                raise InvalidInputError(
                    f"the training of client {job.client} in round {round} is no longer finite; lower the learning rate"
                )
            update = {name: value[at] for name, value in zip(self._names, after, strict=True)}
            count = len(job.rows)
            results[job.client] = LocalResult(update, count, float(losses[at]) / count, schedule.steps[at])
        return results


class _Schedule:
    """Which rows each client takes in each step: the batches of the sequential loop, from the same seeds."""

    def __init__(self, jobs: Sequence[Job], settings: LocalTraining) -> None:
        size, epochs = settings.batch_size, settings.epochs
        self._size = size
        self._per_epoch = np.array([-(-len(job.rows) // size) for job in jobs])
        self.steps = [int(count) * epochs for count in self._per_epoch]
        self._epochs = epochs
        self._batches: list[list[NDArray[np.int64]]] = []
        for job in jobs:
            rng = job.seed.child("order").numpy()
            mine: list[NDArray[np.int64]] = []
            for _ in range(epochs):
                shuffled = job.rows[rng.permutation(len(job.rows))]
                mine += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
            self._batches.append(mine)

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.float32] | None, NDArray[np.int64]]:
        """Rows [active, width] of the clients that still have steps, their weights in its mean, and counts.

        The weights are ``None`` when every batch is full; a count is how many of a client's rows are its batch.
        """
        batches = [mine[step] for mine in self._batches if step < len(mine)]
        counts = np.array([len(batch) for batch in batches])
        width = int(counts.max())
        if int(counts.min()) == width:
            return np.stack(batches), None, counts
        rows = np.empty((len(batches), width), dtype=np.int64)
        for at, batch in enumerate(batches):
            rows[at, : len(batch)] = batch
            rows[at, len(batch) :] = batch[0]  # finite wherever the client's own examples are
        own = np.arange(width) < counts[:, None]
        return rows, (own / counts[:, None]).astype(np.float32), counts

    def last_epoch(self, step: int, active: int) -> NDArray[np.bool_]:
        """Which of the active clients are in their last epoch."""
        return np.asarray(step >= self._per_epoch[:active] * (self._epochs - 1))


_Step = Callable[[list[torch.Tensor], Sequence[torch.Tensor]], None]


def _stepper(settings: LocalTraining) -> _Step:
    """A function that moves the active clients' parameters, in place; state is kept per client, by its place."""
    return _adam(settings) if settings.optimizer == "adam" else _sgd(settings)


def _decayed(
    parameters: list[torch.Tensor], gradients: Sequence[torch.Tensor], settings: LocalTraining
) -> list[torch.Tensor]:
    if not settings.weight_decay:
        return list(gradients)
    return list(torch._foreach_add(list(gradients), parameters, alpha=settings.weight_decay))


def _sgd(settings: LocalTraining) -> _Step:
    velocity: list[torch.Tensor] = []

    @torch.no_grad()
    def step(parameters: list[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        nonlocal velocity
        direction = _decayed(parameters, gradients, settings)
        if settings.momentum:
            if velocity:
                velocity = [value[: len(parameters[0])] for value in velocity]  # those that finished stand at the end
                torch._foreach_mul_(velocity, settings.momentum)
                torch._foreach_add_(velocity, direction)
            else:
                velocity = [value.clone() for value in direction]
            direction = velocity
        torch._foreach_add_(parameters, direction, alpha=-settings.learning_rate)

    return step


def _adam(settings: LocalTraining) -> _Step:
    """[Kingma and Ba 2015, Algorithm 1] with torch.optim.Adam's constants; all clients are at the same step."""
    first, second, epsilon, taken = 0.9, 0.999, 1e-8, 0
    means: list[torch.Tensor] = []
    squares: list[torch.Tensor] = []

    @torch.no_grad()
    def step(parameters: list[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        nonlocal taken, means, squares
        direction, active = _decayed(parameters, gradients, settings), len(parameters[0])
        taken += 1
        means = [value[:active] for value in means] or [torch.zeros_like(value) for value in direction]
        squares = [value[:active] for value in squares] or [torch.zeros_like(value) for value in direction]
        torch._foreach_lerp_(means, direction, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, direction, direction, 1 - second)
        scale = torch._foreach_sqrt(squares)
        torch._foreach_div_(scale, (1 - second**taken) ** 0.5)
        torch._foreach_add_(scale, epsilon)
        torch._foreach_addcdiv_(parameters, means, scale, -settings.learning_rate / (1 - first**taken))

    return step
