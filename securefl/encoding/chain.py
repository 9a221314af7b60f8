"""Linear coders one after the other; none at all is the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Coder, LinearCoder, Shapes, size_of
from securefl.encoding.public import PublicRandomness
from securefl.errors import ConfigurationError
from securefl.types import Update

__all__ = ["Chain"]


@dataclass(frozen=True, slots=True)
class Chain:
    """``coders`` in the order in which a client applies them.

    Only the last may take several sums. Raises :class:`ConfigurationError` otherwise, and for one coder twice.
    """

    coders: tuple[LinearCoder, ...] = ()

    def __post_init__(self) -> None:
        names = [coder.name for coder in self.coders]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"a coder stands twice in the chain {', '.join(names)}")
        for coder in self.coders[:-1]:
            if coder.sums > 1:
                raise ConfigurationError(f"{coder.name} takes {coder.sums} sums: it must be the chain's last coder")

    @property
    def name(self) -> str:
        return "+".join(coder.name for coder in self.coders) or "none"

    @property
    def sums(self) -> int:
        return self.coders[-1].sums if self.coders else 1

    @property
    def drops(self) -> bool:
        return any(coder.drops for coder in self.coders)

    def describe(self) -> str:
        return ";".join(coder.describe() for coder in self.coders)

    def at(self, shapes: Shapes, public: PublicRandomness, state: Sequence[NDArray[np.float32]] = ()) -> _Chained:
        stages: list[Coder] = []
        for coder in self.coders:
            stage = coder.at(shapes, public, state if coder.sums > 1 else ())
            stages.append(stage)
            shapes = ((stage.sizes[0],),)
        return _Chained(size_of(shapes), tuple(stages))


@dataclass(frozen=True, slots=True)
class _Chained:
    identity_size: int
    stages: tuple[Coder, ...] = field(repr=False)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.stages[-1].sizes if self.stages else (self.identity_size,)

    def project(self, flat: Update, at: int) -> Update:
        for stage in self.stages[:-1]:
            flat = stage.project(flat, 0)
        return self.stages[-1].project(flat, at) if self.stages else flat

    def observe(self, at: int, mean: Update) -> None:
        if self.stages:
            self.stages[-1].observe(at, mean)

    def expand(self, mean: Update) -> Update:
        for stage in reversed(self.stages):
            mean = stage.expand(mean)
        return mean

    def state(self) -> Sequence[NDArray[np.float32]]:
        return self.stages[-1].state() if self.stages else ()
