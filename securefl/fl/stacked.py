"""Many clients trained at once: their parameters stacked, the forward pass vmapped, one call of autograd per step.

The mathematics is that of :func:`securefl.fl.training.train`, client by client: the same batches in the same order from
the same seeds, the same optimiser. Results agree with it up to the rounding of float32 sums, which come in another
order. What is saved is the dispatch of small operations, which is most of the time while a client's step is small.

Clients are sorted by their number of steps and worked in groups. In a group the batch shrinks as clients finish, so
that unequal clients cost no padded steps; within a step, batches shorter than the longest are padded by an example of
their own client with weight zero.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from securefl.fl.engine import LocalTask, SequentialEngine
from securefl.fl.models import Tokens, load_tensors
from securefl.fl.schedule import Schedule, steps_of
from securefl.fl.stacked_optimizer import stack, stepper, with_terms
from securefl.fl.training import LocalResult, LocalTraining
from securefl.types import ClientId

__all__ = ["StackedEngine", "layers_stack", "step_flops", "worth_stacking"]

#: Layers that treat every example by itself, draw nothing at random and keep no state: a padded batch and a batch of
#: batches give each example what it would get alone.
_PURE: Final = frozenset(
    {
        *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Linear, nn.Embedding, Tokens),
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


@dataclass(frozen=True, slots=True, eq=False)
class StackedEngine:
    """An :class:`~securefl.fl.engine.Engine` that trains many clients at once in the workspace ``module``.

    ``group``: clients trained at a time, >= 1; by default as many as keep the group's parameters small. Results do not
    depend on the order of tasks; in their last bits they do depend on who else is trained.
    """

    module: nn.Module = field(repr=False)
    dataset: Dataset
    group: int | None = None

    def train(self, round: int, tasks: Sequence[LocalTask], settings: LocalTraining) -> dict[ClientId, LocalResult]:
        """See :class:`~securefl.fl.engine.Engine`.

        Raises :class:`~securefl.errors.InvalidInputError` for a client without examples and for training that is no
        longer finite, :class:`~securefl.errors.ConfigurationError` for what only the sequential engine trains.
        """
        if settings.dpsgd is not None:
            raise ConfigurationError('example-level privacy trains one client at a time: engine = "sequential"')
        if self.group is not None and self.group < 1:
            raise ConfigurationError(f"a group has at least one client, not {self.group}")
        for task in tasks:
            if len(task.rows) == 0:
                raise InvalidInputError(f"client {task.client} has no examples")
        if not tasks:
            return {}
        if any(task.trainable is not None for task in tasks):  # layers that stay: rare, and once in a run
            return SequentialEngine(self.module, self.dataset).train(round, tasks, settings)
        _refuse_what_mixes(self.module)
        load_tensors(self.module, tasks[0].start)
        self.module.train()
        size = self.group
        if size is None:
            size = max(1, min(_GROUP_CLIENTS, _GROUP_VALUES // sum(value.size for value in tasks[0].start.values())))
        ordered = sorted(tasks, key=lambda task: (-steps_of(task, settings), task.client))
        results: dict[ClientId, LocalResult] = {}
        for start in range(0, len(ordered), size):
            try:
                results.update(_Group(self.module, self.dataset, ordered[start : start + size], settings).train(round))
            except RuntimeError as error:  # what torch says when a forward cannot be vmapped
                raise ConfigurationError(
                    f'the stacked engine cannot train this model ({str(error).splitlines()[0]}): engine = "sequential"'
                ) from error
        return {task.client: results[task.client] for task in tasks}


def _refuse_what_mixes(module: nn.Module) -> None:
    """Padding would change what a layer that mixes examples computes; dropout could not draw what it draws alone."""
    for name, layer in module.named_modules():
        if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)):
            raise ConfigurationError(
                f'the layer {name!r} ({type(layer).__name__}) mixes examples or draws at random: engine = "sequential"'
            )


class _Group:
    """Clients with descending numbers of steps; their parameters in one tensor per layer."""

    def __init__(
        self, module: nn.Module, dataset: Dataset, tasks: Sequence[LocalTask], settings: LocalTraining
    ) -> None:
        self._tasks, self._settings = tasks, settings
        self._names = names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
        self._device = next(module.parameters()).device
        self._stacked = stack([task.start for task in tasks], names, self._device)

        def forward(parameters: tuple[torch.Tensor, ...], examples: torch.Tensor) -> torch.Tensor:
            return functional_call(module, dict(zip(names, parameters, strict=True)), (examples,))  # type: ignore[no-any-return]

        self._forward = vmap(forward, randomness="error")
        self._step = with_terms(stepper(settings), tasks, names, self._device)
        self._inputs = torch.from_numpy(dataset.inputs).to(self._device)
        self._targets = torch.from_numpy(dataset.targets).to(self._device)

    def train(self, round: int) -> dict[ClientId, LocalResult]:
        """All steps of all clients."""
        schedule = Schedule(self._tasks, self._settings)
        loss_sums = torch.zeros(len(self._tasks), device=self._device)
        for step in range(schedule.steps[0]):
            rows, weights, counts = schedule.batch(step)
            active = len(rows)
            self._take_step(rows, weights, counts, schedule.in_last_pass(step, active), loss_sums[:active])
        return self._results(schedule, loss_sums, round)

    def _take_step(
        self,
        rows: NDArray[np.int64],
        weights: NDArray[np.float32] | None,
        counts: NDArray[np.int64],
        in_last_pass: NDArray[np.bool_],
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
        if in_last_pass.any():
            taken = torch.from_numpy(np.where(in_last_pass, counts, 0).astype(np.float32)).to(self._device)
            loss_sums += means.detach() * taken

    def _results(self, schedule: Schedule, loss_sums: torch.Tensor, round: int) -> dict[ClientId, LocalResult]:
        after = [value.cpu().numpy() for value in self._stacked]
        losses = loss_sums.cpu().numpy()
        finite = np.isfinite(losses)
        moved = {}
        for name, value in zip(self._names, after, strict=True):
            finite &= np.isfinite(value.reshape(len(finite), -1)).all(axis=1)
            moved[name] = value - self._starts(name)
        for at, task in enumerate(self._tasks):
            if not finite[at]:
                raise InvalidInputError(
                    f"the training of client {task.client} in round {round} is no longer finite; "
                    "lower the learning rate"
                )
        return {
            task.client: LocalResult(
                {name: value[at, ...] for name, value in moved.items()},  # an array also for a parameter of shape ()
                len(task.rows),
                float(losses[at]) / schedule.seen_in_last_pass(at),
                schedule.steps[at],
            )
            for at, task in enumerate(self._tasks)
        }

    def _starts(self, name: str) -> NDArray[np.float32]:
        """What the clients started from: one row for all where that is the same."""
        first = self._tasks[0].start
        if all(task.start is first for task in self._tasks):
            return first[name][None]
        return np.stack([task.start[name] for task in self._tasks])
