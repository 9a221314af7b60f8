"""`securefl epsilon | calibrate | ledger | demo dp` as users type them; in this process."""

import contextlib
import io
import json
import shutil
from types import SimpleNamespace

import pytest

from securefl.__main__ import main
from securefl.cli import output


def securefl(*arguments):
    out, err = io.StringIO(), io.StringIO()
    output.console.file = out
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(map(str, arguments)))
            code = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            err.write(code + "\n")
            code = 1
    finally:
        output.console.file = None
    return SimpleNamespace(returncode=code or 0, stdout=out.getvalue(), stderr=err.getvalue())


def figures(*arguments):
    done = securefl(*arguments, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_epsilon_is_the_known_value():
    # fl1 of the accountants' table: exact 1.828244, tight to 0.2 %
    given = ("--noise-multiplier", 1, "--sampling-probability", 0.01, "--rounds", 1000, "--delta", 1e-5)
    assert 1.828244 <= figures("epsilon", *given)["epsilon"] < 1.828244 * 1.002


def test_replace_one_costs_more():
    given = ("epsilon", "--noise-multiplier", 2, "--rounds", 3, "--delta", 1e-5)
    assert figures(*given, "--neighboring", "replace-one")["epsilon"] > 1.5 * figures(*given)["epsilon"]


def test_calibrate_meets_its_target():
    found = figures("calibrate", "--epsilon", 3, "--sampling-probability", 0.1, "--rounds", 100, "--delta", 1e-5)
    given = ("--noise-multiplier", found["noise_multiplier"], "--sampling-probability", 0.1, "--rounds", 100)
    spent = figures("epsilon", *given, "--delta", 1e-5)["epsilon"]
    assert 0.995 * 3 < spent <= 3


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("--noise-multiplier", 2, "--sampling-probability", 0.1), "rounds"),
        (("--noise-multiplier", 2, "--rounds", 100), "sampling_probability"),
        (("--noise-multiplier", 2, "--rounds", 100, "--population", 1000), "expected_cohort"),
    ],
)
def test_whatever_is_left_out_is_found(given, name):
    assert figures("calibrate", "--epsilon", 3, "--delta", 1e-5, *given)[name] > 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("epsilon", "--noise-multiplier", 0, "--delta", 1e-5),
        ("epsilon", "--noise-multiplier", "nan", "--delta", 1e-5),
        ("epsilon", "--noise-multiplier", 1, "--delta", 0),
        ("epsilon", "--noise-multiplier", 1, "--delta", 1),
        ("epsilon", "--noise-multiplier", 1, "--delta", 1e-5, "--sampling-probability", 1.1),
        ("epsilon", "--noise-multiplier", 1, "--delta", 1e-5, "--neighboring", "near"),
        ("calibrate", "--epsilon", 0, "--delta", 1e-5, "--rounds", 1),
        (
            "calibrate",
            "--epsilon",
            1,
            "--delta",
            1e-5,
            "--rounds",
            1,
            "--noise-multiplier",
            1,
            "--sampling-probability",
            0.1,
        ),
        ("ledger", "show", "/nowhere"),
        ("ledger", "verify", "/nowhere"),
        ("demo", "dp", "--clients", 2),
    ],
)
def test_what_cannot_work_is_one_line(arguments):
    done = securefl(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ConfigurationError: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_sampling_is_said_to_mean_poisson_sampling():
    done = securefl("epsilon", "--noise-multiplier", 1, "--sampling-probability", 0.1, "--delta", 1e-5)
    assert "Poisson" in done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    config = folder / "c.toml"
    config.write_text(
        '[data]\nclients = 12\npartition = "iid"\n[model]\nname = "logistic"\n[training]\nrounds = 2\n'
        '[protection]\nsuite = "x25519"\nvalue_bits = 22\nthreshold = 0.8\n[privacy]\nepsilon = 20.0\n'
    )
    done = securefl("run", config, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "epsilon" in done.stdout
    return folder / "run"


def test_the_report_and_the_ledger_agree(run):
    report = json.loads((run / "report.json").read_text())
    shown = securefl("ledger", "show", run)
    assert f"epsilon spent {report['epsilon']:.4f}" in shown.stdout
    verified = securefl("ledger", "verify", run)
    assert verified.returncode == 0
    assert "2 charges (the pinned row among them)" in verified.stdout
    assert report["assumptions"]
    assert report["delta"] == 1e-5


def test_a_ledger_that_lost_its_last_rows_is_found_by_the_report(run, tmp_path):
    import sqlite3

    copy = tmp_path / "cut"
    shutil.copytree(run, copy)
    with sqlite3.connect(copy / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER no_delete")
        db.execute("DELETE FROM ledger WHERE position = (SELECT MAX(position) FROM ledger)")
    db.close()
    done = securefl("ledger", "verify", copy)
    assert done.returncode == 1
    assert done.stderr.startswith("error: AuthenticationError: ")


def test_a_changed_cost_is_found(run, tmp_path):
    import sqlite3

    copy = tmp_path / "changed"
    shutil.copytree(run, copy)
    with sqlite3.connect(copy / "ledger.sqlite") as db:
        db.execute("DROP TRIGGER no_update")
        db.execute("UPDATE ledger SET cost = cost / 2 WHERE kind = 'charge'")
    db.close()
    assert securefl("ledger", "verify", copy).stderr.startswith("error: AuthenticationError: ")


def test_demo_dp_ends_at_its_budget():
    told = figures("demo", "dp", "--clients", 6, "--values", 300, "--rounds", 3)
    assert told["refused_round"] is not None
    assert told["rounds"] >= 3
    assert told["epsilon"] <= told["budget"]
    # noise multiplier 4 sized for 4 of the 5 survivors: 4 * sqrt(5 / 4) on a clip norm of 1
    assert all(3.5 < stddev < 5.5 for stddev in told["noise_stddev_of_the_sum"])


def test_demo_dp_narrates():
    done = securefl("demo", "dp", "--clients", 6, "--rounds", 2)
    assert "epsilon spent" in done.stdout
    assert "PrivacyBudgetExceededError" in done.stdout


def test_plan_says_what_a_private_run_will_spend(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(
        '[data]\nclients = 12\npartition = "iid"\n[model]\nname = "logistic"\n[training]\nrounds = 3\n'
        "[protection]\nvalue_bits = 22\nthreshold = 0.8\n[privacy]\nepsilon = 20.0\n"
    )
    planned = figures("plan", path)
    assert 15 < planned["epsilon"] <= 20
    assert planned["noise_multiplier"] > 0
    assert planned["chain"] == []


def test_privacy_and_a_chain_are_refused_together(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[compression]\nchain = ["rotated"]\n[privacy]\nepsilon = 20.0\n')
    done = securefl("plan", path)
    assert done.returncode == 1
    assert "error: ConfigurationError: " in done.stderr
    assert "set chain = []" in done.stderr
