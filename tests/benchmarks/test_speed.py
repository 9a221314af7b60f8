"""The slowdown that benchmarks print: against the least time of the whole run, on every core."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _speed import Repetitions, Speed, repeat


def test_the_slowdown_is_the_mean_over_samples_and_cores() -> None:
    speed = Speed(least={0: 1.0, 1: 2.0})
    figures = Repetitions(speed, [5.0, 9.0, 7.0], [{0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}]).figures()
    assert figures == {"median": 7.0, "least": 5.0, "slowdown": pytest.approx((1 + 1 + 2 + 1.5) / 4)}


def test_what_the_machine_can_do_is_known_at_the_end() -> None:
    speed = Speed(least={0: 2.0})
    early = Repetitions(speed, [4.0], [{0: 2.0}])
    assert early.figures()["slowdown"] == 1
    speed.least[0] = 1.0  # a later sample was twice as fast
    assert early.figures()["slowdown"] == 2


def test_every_repetition_is_done_once_with_samples_in_between() -> None:
    done: list[float] = []

    def work() -> float:
        done.append(5.0 + len(done))
        return done[-1]

    found = repeat(work, 25, Speed())
    assert found.milliseconds == done
    assert len(done) == 25
    assert 5 < len(found.samples) < 25
    assert all(sample for sample in found.samples)
    assert found.figures()["slowdown"] >= 1
