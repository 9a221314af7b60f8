"""A run is killed in the middle of a round; what is resumed ends with the model of an unbroken run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from securefl.fl.config import load
from securefl.fl.run_folder import saved_config
from securefl.fl.runner import Run

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[data]
dataset = "breast-cancer"
clients = 6
[model]
hidden = [16]
[training]
rounds = 8
algorithm = "ALGORITHM"
server_optimizer = "yogi"
server_learning_rate = 0.03
[protection]
suite = "x25519"
[compression]
chain = ["random_projection", "rotated"]
fraction = 0.5
error_feedback = true
allow_error_feedback_with_adaptive_server = true
[faults]
dropout = 0.1
stragglers = 0.2
[personalization]
method = "METHOD"
"""
TIERS = """
[data]
clients = 6
[model]
hidden = [16]
[training]
rounds = 6
[protection]
suite = "x25519"
[faults]
dropout = 0.1
stragglers = 0.2
[tiers]
minimum_holders = 2
"""
#: Stops for good while a round is under way: after training, before its sum.
BROKEN = """
import sys, time
from pathlib import Path
from securefl.fl import collection as summing
from securefl.fl.config import load
from securefl.fl.runner import Run
whole = summing.run_session
def stuck(protection, context, *args, **kwargs):
    if context.round == 4:
        print("mid-round", flush=True)
        time.sleep(600)
    return whole(protection, context, *args, **kwargs)
summing.run_session = stuck
list(Run(load(Path(sys.argv[1])), Path(sys.argv[2])).rounds())
"""


@pytest.mark.parametrize(
    "text",
    [
        CONFIG.replace("ALGORITHM", "scaffold").replace("METHOD", "ditto"),
        CONFIG.replace("ALGORITHM", "fedprox").replace("METHOD", "fedper"),
        TIERS,
    ],
    ids=["scaffold and ditto", "fedprox and fedper", "tiers"],
)
def test_a_killed_run_is_resumed_bit_for_bit(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    whole = Run(load(file), tmp_path / "whole")
    list(whole.rounds())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BROKEN, str(file), str(tmp_path / "broken")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "mid-round"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    resumed = Run(saved_config(tmp_path / "broken"), tmp_path / "broken", resume=True)
    assert resumed.rounds_done == 3
    list(resumed.rounds())
    assert resumed.finish().result.model_hash == whole.finish().result.model_hash
    assert resumed.finish().personal == whole.finish().personal
