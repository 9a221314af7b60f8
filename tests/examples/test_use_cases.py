"""The configurations of examples/: each starts and gets somewhere in a few rounds; whole runs are slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from securefl.fl.config import load
from securefl.fl.runner import Run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
#: File → rounds that a quick look takes, the accuracy after them, and after the whole run.
REACHES = {
    "hospitals": (10, 0.85, 0.96),
    "hospitals_logistic": (10, 0.85, 0.94),
    "fraud": (3, 0.93, 0.98),
    "keyboard": (5, 0.25, 0.49),
    "digits_cnn": (4, 0.5, 0.94),
    "digits_personal": (4, 0.6, 0.92),
}


def _records(name: str, out: Path, rounds: int | None, protect: str) -> float:
    run = Run(load(EXAMPLES / f"{name}.toml").with_overrides(rounds=rounds, protect=protect), out)
    return max(record.accuracy for record in run.rounds())


@pytest.mark.parametrize("name", REACHES)
def test_a_few_rounds_get_somewhere(name: str, tmp_path: Path) -> None:
    rounds, early, _ = REACHES[name]
    assert _records(name, tmp_path, rounds, "plain") >= early


@pytest.mark.slow
@pytest.mark.parametrize("name", REACHES)
def test_the_whole_run_gets_there(name: str, tmp_path: Path) -> None:
    assert _records(name, tmp_path, None, "masked") >= REACHES[name][2]


def test_every_use_case_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({name}.toml)" in listed for name in REACHES)
