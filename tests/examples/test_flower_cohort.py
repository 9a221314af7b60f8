"""The Flower app's cohort: whom the server waits for. Needs no Flower: a grid is what lists its nodes."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from securefl.errors import TooFewClientsError

APP = Path(__file__).resolve().parents[2] / "examples/flower_app/digits_app"
CONFIG = {"nodes": 0, "wait-seconds": 60.0, "protect": "masked", "key-model": "threshold"}


@pytest.fixture(scope="module")
def cohort() -> ModuleType:
    spec = importlib.util.spec_from_file_location("flower_app_cohort", APP / "cohort.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Arrivals:
    """A grid and its clock: ``times`` are when each node comes."""

    def __init__(self, *times: float) -> None:
        self.times, self.time = times, 0.0

    def get_node_ids(self) -> list[int]:
        return [at for at, time in enumerate(self.times) if time <= self.time]

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds


def there(cohort: ModuleType, grid: Arrivals, **config: Any) -> int:
    named = {key.replace("_", "-"): value for key, value in config.items()}
    return int(cohort.clients_there(grid, CONFIG | named, grid.now, grid.pause))


def test_those_that_are_there_are_the_cohort_once_no_more_come(cohort: ModuleType) -> None:
    grid = Arrivals(0, 0, 2.4, 4.6, 50)
    assert there(cohort, grid) == 4
    assert 7.5 <= grid.time <= 8.5


def test_a_number_that_is_asked_for_is_waited_for_and_no_longer(cohort: ModuleType) -> None:
    grid = Arrivals(0, 0, 30)
    assert there(cohort, grid, nodes=3) == 3
    assert grid.time == 30
    assert there(cohort, Arrivals(0, 0, 0, 0), nodes=3) == 4


def test_the_helper_is_no_client(cohort: ModuleType) -> None:
    assert there(cohort, Arrivals(0, 0, 0), protect="shared") == 2
    assert there(cohort, Arrivals(0, 0, 0), protect="ckks", key_model="key_holder") == 2
    assert there(cohort, Arrivals(0, 0, 0), protect="ckks") == 3


def test_too_few_are_an_error_that_names_the_setting_and_the_flag(cohort: ModuleType) -> None:
    grid = Arrivals(0, 0)
    with pytest.raises(TooFewClientsError, match=r'^2 clients .* nodes=9\).*"num-supernodes=9"'):
        there(cohort, grid, nodes=9)
    assert grid.time == 60
    with pytest.raises(TooFewClientsError, match=r"^1 clients .* is the helper; .* needs 2 .* nodes=0\)"):
        there(cohort, Arrivals(0, 0), protect="shared", wait_seconds=2)
    with pytest.raises(TooFewClientsError, match=r"^0 clients"):
        there(cohort, Arrivals(), protect="shared")
