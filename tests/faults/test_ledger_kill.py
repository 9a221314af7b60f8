"""kill -9 at random instants: never a released aggregate without its charge, never a round charged twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from securefl.dp import Ledger
from securefl.dp.events import Gaussian
from securefl.dp.filters import Budget, FilterKind
from securefl.dp.ledger import RoundState
from securefl.errors import PrivacyBudgetExceededError

BUDGET = Budget(50.0, 1e-5, kind=FilterKind.GAUSSIAN)
EVENT = Gaussian(30.0)


def run_rounds(folder: Path) -> None:
    """A run: resume, charge, release (a file, atomically), note it; until killed or the budget is spent."""
    with Ledger(folder / "ledger", run="kill", budget=BUDGET) as ledger:
        print("ready", flush=True)
        while True:
            number = ledger.next_round
            try:
                ledger.charge(number, EVENT)
            except PrivacyBudgetExceededError:
                print("spent", flush=True)
                return
            time.sleep(0.003)  # most kills land between charge and release
            (folder / f"{number}.part").write_bytes(b"aggregate")
            os.replace(folder / f"{number}.part", folder / f"{number}.released")
            ledger.released(number, b"aggregate")


def kill_and_resume(folder: Path, times: int) -> None:
    source = random.Random(7)
    for _ in range(times):
        child = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(source.uniform(0, 0.02))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with Ledger(folder / "ledger", run="kill") as ledger:
            rows = ledger.verify()
            charged = [row.round for row in rows if row.kind == "charge"]
            noted = {row.round for row in rows if row.kind == "released"}
            released = {int(path.stem) for path in folder.glob("*.released")}
            assert len(charged) == len(set(charged))
            assert noted <= released <= set(charged)
            assert sum(row.cost for row in rows) <= ledger.budget.limit
            if charged and charged[-1] not in noted:
                assert ledger.state(charged[-1]) is RoundState.CHARGED
                assert ledger.next_round == charged[-1] + 1  # its charge stands; it is not run again


def test_kill_twenty_times(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 20)


@pytest.mark.slow
def test_kill_two_hundred_times(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, 200)


if __name__ == "__main__":
    run_rounds(Path(sys.argv[1]))
