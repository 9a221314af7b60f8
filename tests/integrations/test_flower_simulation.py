"""``flwr run examples/flower_app`` in Flower's local simulation, as a user types it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: python3 dev.py integrations")
pytest.importorskip("ray", reason="ray is not installed: python3 dev.py integrations")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """``flwr run`` leaves a local SuperLink behind; it ends with the test."""
    home = tmp_path / "flwr-home"
    home.mkdir()
    bin_folder = Path(sys.executable).parent
    yield {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"FLWR_HOME={home}".encode() in variables and int(process.name) != os.getpid():
            try:
                os.kill(int(process.name), signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.slow
def test_flwr_run_in_the_local_simulation(environment: dict[str, str], tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "flwr"), "run", str(ROOT / "examples/flower_app"), "--stream"]
    command += ["--federation-config", "num-supernodes=6"]
    command += ["--run-config", "nodes=6 threshold=4 num-server-rounds=2 hidden=256 step-seconds=120.0"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, ran.stdout[-4000:] + ran.stderr[-2000:]
    rounds = json.loads(lines[0].removeprefix("RESULT "))["rounds"]
    assert [entry["survivors"] for entry in rounds] == [6, 6]
    assert [entry["exchanges"] for entry in rounds] == [4, 4]
    assert all(entry["check"]["exact"] for entry in rounds)
    assert rounds[-1]["accuracy"] > 0.7
