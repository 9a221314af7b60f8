"""Which rows each client of a group takes in each step: the batches of the sequential loop, from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securefl.fl.engine import LocalTask
from securefl.fl.training import LocalTraining, steps_per_round

__all__ = ["Schedule", "steps_of"]


def steps_of(task: LocalTask, settings: LocalTraining) -> int:
    """Steps that a client takes."""
    steps = steps_per_round(len(task.rows), settings)
    return steps if task.limit is None else min(steps, task.limit)


class Schedule:
    """The batches of clients whose steps descend; every client with examples."""

    def __init__(self, tasks: Sequence[LocalTask], settings: LocalTraining) -> None:
        self.steps = [steps_of(task, settings) for task in tasks]
        self._batches = [
            _batches(task, count, settings.batch_size) for task, count in zip(tasks, self.steps, strict=True)
        ]
        per_pass = np.array([-(-len(task.rows) // settings.batch_size) for task in tasks])
        self._last_pass = (np.array(self.steps) - 1) // per_pass * per_pass

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

    def in_last_pass(self, step: int, active: int) -> NDArray[np.bool_]:
        """Which of the active clients are in their last pass over their examples."""
        return np.asarray(step >= self._last_pass[:active])

    def seen_in_last_pass(self, at: int) -> int:
        """Examples that client ``at`` of the group takes in its last pass."""
        return sum(len(batch) for batch in self._batches[at][int(self._last_pass[at]) :])


def _batches(task: LocalTask, steps: int, size: int) -> list[NDArray[np.int64]]:
    rng = task.seed.child("order").numpy()
    mine: list[NDArray[np.int64]] = []
    while len(mine) < steps:
        shuffled = task.rows[rng.permutation(len(task.rows))]
        mine += [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return mine[:steps]
