"""Optimiser steps of many clients at once: parameters, gradients and state are stacked, client by client.

The clients that still train are the first ones; those that finished have dropped off the end and never come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from securefl.errors import ConfigurationError
from securefl.fl.engine import LocalTask
from securefl.fl.training import LocalTraining
from securefl.types import Tensors

__all__ = ["stack", "stepper", "with_terms"]

_Step = Callable[[list[torch.Tensor], Sequence[torch.Tensor]], None]


def stack(tensors: Sequence[Tensors], names: Sequence[str], device: torch.device) -> list[torch.Tensor]:
    """One tensor [clients, ...] per name, a copy."""
    if all(own is tensors[0] for own in tensors):
        return [torch.from_numpy(np.repeat(tensors[0][name][None], len(tensors), axis=0)).to(device) for name in names]
    return [torch.from_numpy(np.stack([own[name] for own in tensors])).to(device) for name in names]


def with_terms(step: _Step, tasks: Sequence[LocalTask], names: Sequence[str], device: torch.device) -> _Step:
    """``step`` on the gradients plus each client's own terms; ``step`` itself when they add nothing."""
    if any(task.terms.proximal and task.terms.anchor is None for task in tasks):
        raise ConfigurationError("a proximal term needs the anchor that it pulls to")
    drift = anchor = pull = None
    if any(task.terms.drift is not None for task in tasks):
        zeros = {name: np.zeros_like(tasks[0].start[name]) for name in names}
        drift = stack([zeros if task.terms.drift is None else task.terms.drift for task in tasks], names, device)
    if any(task.terms.proximal for task in tasks):
        anchor = stack(
            [task.start if task.terms.anchor is None else task.terms.anchor for task in tasks], names, device
        )
        pull = torch.tensor([task.terms.proximal for task in tasks], dtype=torch.float32, device=device)
    if drift is None and anchor is None:
        return step

    @torch.no_grad()
    def step_with_terms(parameters: list[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
        direction, active = list(gradients), len(parameters[0])
        if drift is not None:
            direction = list(torch._foreach_add(direction, [value[:active] for value in drift]))
        if anchor is not None and pull is not None:
            away = torch._foreach_sub(parameters, [value[:active] for value in anchor])
            factors = [pull[:active].reshape(-1, *(1 for _ in value.shape[1:])) for value in away]
            direction = list(torch._foreach_add(direction, torch._foreach_mul(away, factors)))
        step(parameters, direction)

    return step_with_terms


def stepper(settings: LocalTraining) -> _Step:
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
