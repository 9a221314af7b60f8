from __future__ import annotations

import pytest

from securefl.errors import ConfigurationError
from securefl.fl.cohort import Cohort
from securefl.fl.seeds import SeedTree
from securefl.types import ClientId

EVERYONE = [ClientId(client) for client in range(1, 41)]


def test_everyone_by_default() -> None:
    assert Cohort().select(1, EVERYONE, SeedTree(0)) == EVERYONE


def test_a_fixed_cohort_has_its_size_and_changes_from_round_to_round() -> None:
    drawn = [Cohort(size=7).select(round, EVERYONE, SeedTree(0)) for round in range(1, 200)]
    assert all(len(set(each)) == 7 and each == sorted(each) for each in drawn)
    assert len({tuple(each) for each in drawn}) > 190
    joined = [sum(client in each for each in drawn) for client in EVERYONE]  # 34.8 each; 5.4 standard deviations
    assert 5 < min(joined) <= max(joined) < 65


def test_a_poisson_cohort_is_one_coin_each() -> None:
    sizes = [len(Cohort(probability=0.2).select(round, EVERYONE, SeedTree(1))) for round in range(300)]
    assert 7 < sum(sizes) / 300 < 9  # 8, with a standard deviation of 0.15
    assert len(set(sizes)) > 5


def test_the_draw_is_fixed_by_the_seed_and_the_round() -> None:
    for cohort in (Cohort(size=5), Cohort(probability=0.5)):
        assert cohort.select(3, EVERYONE, SeedTree(2)) == cohort.select(3, EVERYONE, SeedTree(2))
        assert cohort.select(3, EVERYONE, SeedTree(2)) != cohort.select(3, EVERYONE, SeedTree(3))


def test_what_cannot_be_drawn_is_refused() -> None:
    for build in (
        lambda: Cohort(0.5, 2),
        lambda: Cohort(0.0),
        lambda: Cohort(1.5),
        lambda: Cohort(size=0),
        lambda: Cohort(size=41).select(1, EVERYONE, SeedTree(0)),
    ):
        with pytest.raises(ConfigurationError):
            build()
