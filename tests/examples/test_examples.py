"""Every numbered example runs, and says what it is there to show."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))

#: File → a line that it prints, or the end of one, when it has shown what it is there for.
SHOWS = {
    "01_secure_sum.py": "masked and plain give the same integers",
    "02_dropouts_and_blame.py": "client 2 returns wrong shares: sum 111110 is exact, suspects (2,)",
    "03_private_fedavg.py": "the same model with and without masks",
    "04_your_own_transport.py": "survivors: 1 2 3 5 | their sum is exact",
    "05_private_inference.py": "two sharings of one image: no word in common, the same sum",
    "06_train_on_shares.py": "in the clear",
    "07_robust_aggregation.py": "poisoned updates were dropped or outvoted, and no update was read",
    "08_embed_in_another_system.py": "survivors: 1 2 3 5 | dropped: {4: 'did not answer in time'}",
    "09_weak_devices.py": "the edge trains 4,650 of 7,770 parameters",
}


def test_every_example_is_listed() -> None:
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES] == sorted(SHOWS)
    for path in EXAMPLES:
        assert f"({path.name})" in listed


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(path)]
    ran = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert SHOWS[path.name] in ran.stdout
    assert not list(tmp_path.iterdir())  # an example leaves nothing behind
