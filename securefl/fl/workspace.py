"""What a module that many clients train in turn keeps of none of them: random layers and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from securefl.errors import ConfigurationError
from securefl.fl.seeds import SeedTree

if TYPE_CHECKING:
    from torch import nn

__all__ = ["constant_buffers", "random_layers"]


@contextmanager
def random_layers(seed: SeedTree) -> Iterator[None]:
    """Seed what draws from torch's global CPU generator (dropout), and give the generator back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.torch_seed())
        yield


@contextmanager
def constant_buffers(module: nn.Module) -> Iterator[None]:
    """Put buffers back, so that clients do not reach each other through the workspace; refuse changed floats."""
    before: Mapping[str, Any] = {name: buffer.clone() for name, buffer in module.named_buffers()}
    changed: list[str] = []
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            if not torch.equal(buffer, before[name]):
                if buffer.is_floating_point():
                    changed.append(name)
                with torch.no_grad():
                    buffer.copy_(before[name])
    if changed:
        raise ConfigurationError(
            f"local training changes the buffer {changed[0]!r}; only parameters are summed, so the global model "
            "would keep its first value"
        )
