"""Whether the machine had its full speed while something was measured: a fixed piece of work, timed on every core.

Where a host is shared, a core computes at little more than half its speed while a neighbour uses its other half. Times
taken then say little about the program, so they are told apart: a repetition is *undisturbed* if the fixed work, right
before and right after, took hardly longer on any core than it ever did in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Final

#: How much longer the fixed work may take, against the least of the run.
_DISTURBED: Final = 1.15
_STEPS: Final = 4000
_SECONDS_OF_A_BLOCK: Final = 0.01


def _fixed_work() -> float:
    start, total = perf_counter(), 0
    for step in range(_STEPS):
        total += step * step
    return perf_counter() - start


@dataclass
class Speed:
    """The machine during one run of a benchmark."""

    #: Seconds of the fixed work, by core: the least so far.
    least: dict[int, float] = field(default_factory=dict)

    def sample(self) -> dict[int, float]:
        """Seconds of the fixed work now, by core; on one core where this process may not choose."""
        if not hasattr(os, "sched_setaffinity"):
            return self._note(-1)
        allowed = os.sched_getaffinity(0)
        found: dict[int, float] = {}
        try:
            for core in sorted(allowed):
                os.sched_setaffinity(0, {core})
                found |= self._note(core)
        finally:
            os.sched_setaffinity(0, allowed)
        return found

    def _note(self, core: int) -> dict[int, float]:
        seconds = min(_fixed_work(), _fixed_work())  # the first may be interrupted by whoever worked before
        self.least[core] = min(self.least.get(core, seconds), seconds)
        return {core: seconds}

    def full(self, *samples: dict[int, float]) -> bool:
        """Whether every core had its full speed in all the samples, as far as the run knows it by now."""
        return all(seconds <= _DISTURBED * self.least[core] for sample in samples for core, seconds in sample.items())


@dataclass
class Repetitions:
    """Milliseconds of a job, in blocks with a sample of the machine's speed between them."""

    speed: Speed
    blocks: list[list[float]] = field(default_factory=list)
    samples: list[dict[int, float]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """To be asked at the end of the run, which knows the full speed best. ``undisturbed``: None where none was."""
        everything = [milliseconds for block in self.blocks for milliseconds in block]
        around = zip(self.blocks, self.samples, self.samples[1:], strict=False)
        calm = [one for block, before, after in around if self.speed.full(before, after) for one in block]
        return {
            "median": median(everything),
            "least": min(everything),
            "undisturbed": median(calm) if calm else None,
            "share_undisturbed": len(calm) / len(everything),
        }


def repeat(work: Callable[[], float], repetitions: int, speed: Speed) -> Repetitions:
    """Do ``work``, which gives its milliseconds, so many times."""
    found = Repetitions(speed, samples=[speed.sample()])
    done: Sequence[float] = ()
    while repetitions > 0:
        expected = 1e-3 * median(done) if done else _SECONDS_OF_A_BLOCK
        size = min(repetitions, max(1, int(_SECONDS_OF_A_BLOCK / max(expected, 1e-6))))
        done = [work() for _ in range(size)]
        found.blocks.append(list(done))
        found.samples.append(speed.sample())
        repetitions -= size
    return found
