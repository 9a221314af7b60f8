"""How far a machine was from its full speed while something was measured: a fixed piece of work, timed on every core.

Where a host is shared, a core computes at little more than half its speed while a neighbour uses its other half, and
times taken then say as much about the neighbour as about the program. Between repetitions the fixed work is timed; a
*slowdown* of 1.5 means that it took half as long again as it ever did in the same run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean, median
from time import perf_counter
from typing import Any, Final

_STEPS: Final = 4000
#: Repetitions between two samples take about as long.
_SECONDS_OF_A_BLOCK: Final = 0.02


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
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1), repr=False)

    def sample(self) -> dict[int, float]:
        """Seconds of the fixed work now, by core; on one core where this process may not choose.

        In a thread of its own: the caller stays on the core where the system had put it.
        """
        return self._thread.submit(self._sample).result()

    def _sample(self) -> dict[int, float]:
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

    def slowdown(self, samples: list[dict[int, float]]) -> float:
        """Mean over samples and cores, as far as the run knows by now what the machine can do."""
        return fmean(seconds / self.least[core] for sample in samples for core, seconds in sample.items())


@dataclass
class Repetitions:
    """Milliseconds of a job, and what the machine's speed was meanwhile."""

    speed: Speed
    milliseconds: list[float] = field(default_factory=list)
    samples: list[dict[int, float]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """To be asked at the end of the run, which knows best what the machine can do."""
        slowdown = self.speed.slowdown(self.samples)
        return {"median": median(self.milliseconds), "least": min(self.milliseconds), "slowdown": slowdown}


def repeat(work: Callable[[], float], repetitions: int, speed: Speed) -> Repetitions:
    """Do ``work``, which gives its milliseconds, so many times."""
    found = Repetitions(speed, samples=[speed.sample()])
    since = 0.0
    for _ in range(repetitions):
        found.milliseconds.append(work())
        since += 1e-3 * found.milliseconds[-1]
        if since > _SECONDS_OF_A_BLOCK:
            found.samples.append(speed.sample())
            since = 0.0
    return found
