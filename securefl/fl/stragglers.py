"""Simulated stragglers: clients that are slow in a round and give what they have when it closes.

What arrives late is a dropout (``aggregators.Dropouts``); this is the case of Li et al. 2020 (FedProx, section 5.2): a
part of the local steps, summed with the others' under the same weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from securefl.errors import ConfigurationError
from securefl.fl.engine import LocalTask
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining, steps_per_round

__all__ = ["Stragglers"]


@dataclass(frozen=True, slots=True)
class Stragglers:
    """Each client is slow with ``probability`` in [0, 1] in each round, and then does ``work`` in (0, 1) of its steps.

    At least one step is done. Raises :class:`~securefl.errors.ConfigurationError` for numbers out of range.
    """

    probability: float
    work: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.probability <= 1 and 0 < self.work < 1):
            raise ConfigurationError(
                f"stragglers lies in [0, 1] and straggler_work in (0, 1), not {self.probability} and {self.work}"
            )

    def slow(self, round: int, tasks: Sequence[LocalTask], settings: LocalTraining, seeds: SeedTree) -> list[LocalTask]:
        """The tasks, those of slow clients limited. The draw depends on seed, round and client only."""
        limited = []
        for task in tasks:
            if seeds.child("stragglers", round, task.client).numpy().random() < self.probability:
                steps = steps_per_round(len(task.rows), settings)
                task = replace(task, limit=max(1, int(self.work * steps)))
            limited.append(task)
        return limited
