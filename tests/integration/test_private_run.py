"""Runs with differential privacy, as users type them: budgets, ledgers, interruptions."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from securefl.dp import Ledger
from securefl.errors import ConfigurationError, PrivacyBudgetExceededError
from securefl.fl.config import parse
from securefl.fl.runner import Run

CONFIG = {
    "data": {"clients": 12, "partition": "iid"},
    "model": {"name": "logistic"},
    "training": {"rounds": 3},
    "protection": {"method": "plain", "value_bits": 22, "threshold": 0.8},
    "privacy": {"epsilon": 50.0, "clip_norm": 0.5},
}


def config(**sections):
    return parse({name: {**values, **sections.pop(name, {})} for name, values in CONFIG.items()} | sections)


def charged(folder):
    with Ledger(folder / "ledger.sqlite") as ledger:
        rows = ledger.verify()
    return [row.round for row in rows if row.kind == "charge"], [row.round for row in rows if row.kind == "released"]


@pytest.mark.parametrize("noise", ["distributed", "central", "local"])
def test_every_kind_of_noise_runs_and_states_what_it_spent(tmp_path, noise):
    run = Run(config(privacy={"noise": noise}), tmp_path)
    records = list(run.rounds())
    finished = run.finish()
    assert [record.failed for record in records] == [None] * 3
    assert 0 < finished.privacy.epsilon <= 50.0
    assert finished.privacy.epsilon == records[-1].privacy.epsilon
    assert charged(tmp_path) == ([1, 2, 3], [1, 2, 3])


def test_the_run_stops_at_its_budget(tmp_path):
    run = Run(config(training={"rounds": 60}, privacy={"noise_multiplier": 1.0, "epsilon": 12.0}), tmp_path)
    records = list(run.rounds())
    finished = run.finish()
    assert 1 <= len(records) < 60
    assert "PrivacyBudgetExceededError" in finished.result.stopped
    assert finished.privacy.epsilon <= 12.0


def test_a_budget_that_allows_no_round_is_an_error(tmp_path):
    with pytest.raises((ConfigurationError, PrivacyBudgetExceededError)):
        list(Run(config(privacy={"noise_multiplier": 0.2, "epsilon": 1.0}), tmp_path).rounds())


def test_a_resumed_run_spends_no_round_twice(tmp_path):
    first = Run(config(), tmp_path)
    rounds = first.rounds()
    next(rounds)
    del rounds
    first.privacy.ledger.close()
    resumed = Run(config(), tmp_path, resume=True)
    assert resumed.rounds_done == 1
    list(resumed.rounds())
    assert charged(tmp_path) == ([1, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("unit", ["user", "example"])
def test_a_resumed_run_without_the_ledger_of_its_rounds_is_refused(tmp_path, unit):
    chosen = config() if unit == "user" else config(privacy={"unit": "example"}, model={"name": "logistic"})
    first = Run(chosen, tmp_path)
    next(first.rounds())
    first.privacy.ledger.close()
    ledger = tmp_path / "ledger.sqlite"
    whole = ledger.rename(tmp_path / "moved")
    with pytest.raises(ConfigurationError, match=r"round 1 of this run is not in .*ledger\.sqlite"):
        Run(chosen, tmp_path, resume=True)
    whole.replace(ledger)
    assert Run(chosen, tmp_path, resume=True).rounds_done == 1


def test_a_round_lost_between_charge_and_release_is_skipped(tmp_path):
    first = Run(config(), tmp_path)
    rounds = first.rounds()
    next(rounds)
    first.privacy.ledger.charge(2, first.privacy.mechanism.event())  # and then the process dies
    first.privacy.ledger.close()
    resumed = Run(config(), tmp_path, resume=True)
    records = list(resumed.rounds())
    assert [record.round for record in records] == [2, 3]
    assert "LostRoundError" in records[0].failed
    assert records[1].failed is None
    assert charged(tmp_path) == ([1, 2, 3], [1, 3])


def test_a_ledger_of_an_earlier_run_is_not_overwritten(tmp_path):
    Run(config(), tmp_path).privacy.ledger.close()
    with pytest.raises(ConfigurationError, match="earlier run"):
        Run(config(), tmp_path)


def test_a_ledger_of_another_configuration_is_refused_on_resume(tmp_path):
    Run(config(), tmp_path).privacy.ledger.close()
    with pytest.raises(ConfigurationError):
        Run(config(training={"learning_rate": 0.2}), tmp_path, resume=True)


def test_example_level_privacy_runs_and_charges(tmp_path):
    run = Run(config(privacy={"unit": "example", "epsilon": 4.0, "clip_norm": 1.0}), tmp_path)
    assert run.privacy.noise_multiplier > 0.3
    list(run.rounds())
    finished = run.finish()
    assert 0 < finished.privacy.epsilon <= 4.0
    assert any("unit: example" in line for line in finished.privacy.assumptions)
    assert charged(tmp_path) == ([1, 2, 3], [1, 2, 3])


def test_poisson_sampled_cohorts(tmp_path):
    run = Run(
        config(data={"clients": 40}, protection={"threshold": 0.55}, privacy={"sampling_probability": 0.5}), tmp_path
    )
    records = list(run.rounds())
    assert len({record.clients for record in records}) > 1
    assert all(record.failed is None or "TooFewClientsError" in record.failed for record in records)


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_kill_9_never_releases_without_a_charge(tmp_path, delay):
    path = tmp_path / "c.toml"
    path.write_text(
        '[data]\nclients = 12\npartition = "iid"\n[model]\nname = "logistic"\n[training]\nrounds = 400\n'
        '[protection]\nmethod = "plain"\nvalue_bits = 22\nthreshold = 0.8\n'
        "[privacy]\nepsilon = 30.0\nnoise_multiplier = 40.0\nclip_norm = 0.5\n"
    )
    out = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "securefl", "run", str(path), "--out", str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in process.stdout:
            if "round 2:" in line:
                break
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    charges, releases = charged(out)
    state = json.loads((out / "checkpoint" / "state.json").read_text())
    done = len(state["state"]["records"])
    assert set(releases) <= set(charges)
    assert done <= len(charges) <= done + 1, "the model never carries an aggregate that was not charged"
    resumed = Run(parse(json.loads((out / "config.json").read_text())), out, resume=True)
    next(resumed.rounds())
    resumed.privacy.ledger.close()
    after, _ = charged(out)
    assert len(after) == len(set(after))
