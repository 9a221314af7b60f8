"""``flwr run examples/flower_app`` in Flower's local simulation, as a user types it after the documents.

The environment is Flower's own but for where it keeps its files, so that a run goes wrong here where it would for them.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: python3 dev.py integrations")
pytest.importorskip("ray", reason="ray is not installed: python3 dev.py integrations")

ROOT = Path(__file__).resolve().parents[2]
PLAIN = "flwr run examples/flower_app --stream"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """``flwr run`` leaves a local SuperLink behind; it ends with the test."""
    home = tmp_path / "flwr-home"
    home.mkdir()
    bin_folder = Path(sys.executable).parent
    yield {
        **{key: value for key, value in os.environ.items() if not key.startswith("FLWR_")},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),  # beside one that the user may have running
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
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


def printed(line: str, environment: dict[str, str]) -> str:
    """What the command line printed, from the project's root."""
    command = shlex.split(line)
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)
    return ran.stdout + ran.stderr


def rounds_of(output: str) -> list[dict[str, Any]]:
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert lines, output[-6000:]
    return list(json.loads(lines[0].removeprefix("RESULT "))["rounds"])


@pytest.mark.slow
def test_the_plain_command_of_the_documents_runs(environment: dict[str, str]) -> None:
    for document in ("examples/README.md", "examples/flower_app/pyproject.toml", "docs/flower.md"):
        assert PLAIN in (ROOT / document).read_text()
    rounds = rounds_of(printed(PLAIN, environment))
    assert [entry["survivors"] for entry in rounds] == [2, 2, 2]
    assert all(entry["check"]["exact"] for entry in rounds)
    assert rounds[-1]["accuracy"] > 0.9


@pytest.mark.slow
def test_more_supernodes_are_all_in_the_sum_and_too_few_are_named(environment: dict[str, str]) -> None:
    few = printed(PLAIN + " --run-config 'nodes=6 wait-seconds=1.0'", environment)
    assert "TooFewClientsError: 2 clients are there after 1 s; this run needs 6 (its setting nodes=6)" in few
    shorter = "num-server-rounds=2 hidden=256 step-seconds=120.0"
    rounds = rounds_of(printed(f"{PLAIN} --federation-config 'num-supernodes=6' --run-config '{shorter}'", environment))
    assert [entry["survivors"] for entry in rounds] == [6, 6]
    assert [entry["exchanges"] for entry in rounds] == [4, 4]
    assert all(entry["check"]["exact"] for entry in rounds)
    assert rounds[-1]["accuracy"] > 0.7
