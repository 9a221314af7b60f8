"""Which repetitions of a benchmark count as undisturbed: those between two samples at the machine's full speed."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from _speed import Repetitions, Speed, repeat


def test_a_block_counts_if_every_core_had_its_full_speed_on_both_sides() -> None:
    speed = Speed(least={0: 1.0, 1: 2.0})
    calm, one_core, slightly = {0: 1.0, 1: 2.0}, {0: 1.0, 1: 3.0}, {0: 1.1, 1: 2.1}
    samples = [calm, slightly, one_core, calm, calm]
    blocks = [[5.0, 6.0, 7.0], [20.0], [30.0], [8.0]]
    figures = Repetitions(speed, blocks, samples).figures()
    assert figures["undisturbed"] == 6.5, "the first and the last block"
    assert figures["share_undisturbed"] == pytest.approx(4 / 6)
    assert figures["median"] == 7.5
    assert figures["least"] == 5.0


def test_what_is_full_speed_is_known_at_the_end() -> None:
    speed = Speed(least={0: 2.0})
    early = Repetitions(speed, [[4.0]], [{0: 2.0}, {0: 2.0}])
    assert early.figures()["undisturbed"] == 4.0
    speed.least[0] = 1.0  # a later sample was twice as fast
    assert early.figures()["undisturbed"] is None


def test_every_repetition_is_done_once_and_lies_between_two_samples() -> None:
    done: list[float] = []

    def work() -> float:
        done.append(float(len(done)))
        return done[-1]

    found = repeat(work, 25, Speed())
    assert [one for block in found.blocks for one in block] == done
    assert len(done) == 25
    assert len(found.samples) == len(found.blocks) + 1
    assert all(sample for sample in found.samples)
