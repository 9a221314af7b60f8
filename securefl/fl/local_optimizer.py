"""Optimiser steps of one client: gradients in, parameters moved in place. For many at once: ``stacked_optimizer``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from securefl.errors import ConfigurationError
from securefl.types import Tensors

if TYPE_CHECKING:
    from securefl.fl.training import GradientTerms, LocalTraining

__all__ = ["Step", "optimizer_step", "with_terms"]

Step: TypeAlias = Callable[[Sequence[torch.Tensor]], None]


def optimizer_step(parameters: list[torch.Tensor], settings: LocalTraining) -> Step:
    """A function that takes the gradients and moves the parameters, in place."""
    if settings.optimizer == "adam":
        adam = torch.optim.Adam(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True)

        def adam_step(gradients: Sequence[torch.Tensor]) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
            adam.zero_grad(set_to_none=True)

        return adam_step

    velocity: list[torch.Tensor] = []

    # torch.optim.SGD computes the same; its bookkeeping costs a small model a fifth more per step.
    @torch.no_grad()
    def sgd_step(gradients: Sequence[torch.Tensor]) -> None:
        nonlocal velocity
        direction = list(gradients)
        if settings.weight_decay:
            direction = list(torch._foreach_add(direction, parameters, alpha=settings.weight_decay))
        if settings.momentum:
            if velocity:
                torch._foreach_mul_(velocity, settings.momentum)
                torch._foreach_add_(velocity, direction)
            else:
                velocity = [value.clone() for value in direction]
            direction = velocity
        torch._foreach_add_(parameters, direction, alpha=-settings.learning_rate)

    return sgd_step


def with_terms(step: Step, names: list[str], parameters: list[torch.Tensor], terms: GradientTerms) -> Step:
    """``step`` on the gradients plus ``terms``; ``step`` itself when they add nothing."""
    if terms.drift is None and not terms.proximal:
        return step
    if terms.proximal and terms.anchor is None:
        raise ConfigurationError("a proximal term needs the anchor that it pulls to")

    def arrays(tensors: Tensors) -> list[torch.Tensor]:
        return [torch.tensor(tensors[name], device=parameters[0].device) for name in names]

    drift = None if terms.drift is None else arrays(terms.drift)
    anchor = arrays(terms.anchor) if terms.proximal and terms.anchor is not None else None

    @torch.no_grad()
    def step_with_terms(gradients: Sequence[torch.Tensor]) -> None:
        direction = list(gradients)
        if drift is not None:
            direction = list(torch._foreach_add(direction, drift))
        if anchor is not None:
            direction = list(
                torch._foreach_add(direction, torch._foreach_sub(parameters, anchor), alpha=terms.proximal)
            )
        step(direction)

    return step_with_terms
