from __future__ import annotations

import numpy as np
import pytest

from securefl.errors import ConfigurationError
from securefl.fl.config import parse
from securefl.fl.engine import LocalTask
from securefl.fl.seeds import SeedTree
from securefl.fl.stragglers import Stragglers
from securefl.fl.training import LocalTraining
from securefl.types import ClientId

TASKS = [LocalTask(ClientId(c), np.arange(8 * c), {}, SeedTree(c)) for c in range(1, 101)]
SETTINGS = LocalTraining(epochs=2, batch_size=8)


def test_slow_clients_do_a_part_of_their_steps() -> None:
    slow = Stragglers(0.3, 0.5).slow(1, TASKS, SETTINGS, SeedTree(0))
    limited = [task for task in slow if task.limit is not None]
    assert 15 < len(limited) < 45  # 30 expected; more than three standard deviations
    assert all(task.limit == max(1, task.client) for task in limited)  # 2 epochs of `client` batches, halved
    assert [task.client for task in slow] == [task.client for task in TASKS]


def test_at_least_one_step() -> None:
    slow = Stragglers(1.0, 0.01).slow(1, TASKS, LocalTraining(steps=3), SeedTree(0))
    assert {task.limit for task in slow} == {1}


def test_the_draw_depends_on_seed_round_and_client_alone() -> None:
    def who(round: int, seed: int, tasks: list[LocalTask]) -> set[int]:
        slow = Stragglers(0.3).slow(round, tasks, SETTINGS, SeedTree(seed))
        return {task.client for task in slow if task.limit is not None}

    assert who(1, 0, TASKS) == who(1, 0, TASKS[::-1])
    assert who(1, 0, TASKS) & set(range(1, 51)) == who(1, 0, TASKS[:50])
    assert who(1, 0, TASKS) != who(2, 0, TASKS) != who(2, 1, TASKS)


def test_what_is_refused() -> None:
    for build in (lambda: Stragglers(1.1), lambda: Stragglers(0.5, 0.0), lambda: Stragglers(0.5, 1.0)):
        with pytest.raises(ConfigurationError, match="stragglers"):
            build()
    with pytest.raises(ConfigurationError, match="no effect"):
        parse({"faults": {"straggler_work": 0.3}})
    with pytest.raises(ConfigurationError, match="DP-SGD"):
        parse({"faults": {"stragglers": 0.3}, "privacy": {"unit": "example"}})
