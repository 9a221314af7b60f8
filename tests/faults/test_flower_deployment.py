"""The deployment script: SuperLink with TLS and node authentication, SuperNodes as processes, kill -9."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: python3 dev.py integrations")

SCRIPT = Path(__file__).with_name("flower_deployment.py")


@pytest.mark.slow
def test_a_deployment_loses_supernodes_and_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "run"), "--nodes", "6", "--threshold", "4"]
    ran = subprocess.run([*command, "--quick"], capture_output=True, text=True, timeout=1500, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    figures = json.loads((tmp_path / "run" / "deployment.json").read_text())
    assert figures["problems"] == []
    assert figures["upload_ratio"] <= 0.75
    ((dead, step, run),) = figures["faults"]
    assert (dead, step) == (2, 2)
    assert [entry["survivors"] for entry in run["rounds"]] == [4, 4]
    assert all(entry["check"]["exact"] for entry in [*figures["masked"]["rounds"], *run["rounds"]])
