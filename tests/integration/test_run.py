"""`securefl run` and its siblings as users type them; in this process, so that torch is loaded once."""

import contextlib
import io
import json
import os
import subprocess
import sys
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
        if isinstance(code, str):  # what the interpreter does with it
            err.write(code + "\n")
            code = 1
    finally:
        output.console.file = None
    return SimpleNamespace(returncode=code or 0, stdout=out.getvalue(), stderr=err.getvalue())


def test_as_a_process_of_its_own():
    def run(*arguments):
        command = [sys.executable, "-m", "securefl", *arguments]
        env = {**os.environ, "NO_COLOR": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120, check=False)

    assert run("--version").stdout.startswith("securefl ")
    refused = run("run", "/nowhere.toml")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ConfigurationError: ")
    assert "Traceback" not in refused.stderr


def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    small = folder / "small.toml"
    small.write_text("[data]\nclients = 6\n[model]\nhidden = [16]\n[protection]\nsuite = 'x25519'\n")
    for name, options in {"plain": ["--protect", "plain"], "masked": ["--protect", "masked"]}.items():
        done = securefl("run", small, "--rounds", 3, "--out", folder / name, *options)
        assert done.returncode == 0, done.stderr
    return folder


def test_masked_and_plain_give_the_same_model(runs):
    plain, masked = report(runs / "plain"), report(runs / "masked")
    assert plain["model_hash"] == masked["model_hash"]
    assert plain["accuracy"] == masked["accuracy"]
    assert (plain["protect"], masked["protect"]) == ("plain", "masked")


def test_the_report_carries_what_the_design_promises(runs):
    found = report(runs / "masked")
    promised = (
        "protect rounds clients survivors accuracy epsilon delta noise_multiplier upload_bytes_per_client "
        "vector_bytes_per_client download_bytes_per_client parameters model_hash versions"
    )
    assert set(promised.split()) <= found.keys()
    assert found["epsilon"] is None
    assert "no differential privacy" in found["privacy"]
    assert found["survivors"] == [[1, 2, 3, 4, 5, 6]] * 3
    assert found["vector_bytes_per_client"] < 2.7 * found["parameters"] + 80


def test_the_page_is_self_contained(runs):
    page = (runs / "masked" / "report.html").read_text()
    assert "<svg" in page
    # no reference that a browser would fetch
    assert not [part for part in ("src=", "<link", "@import", "<script") if part in page]


def test_a_resumed_run_equals_an_unbroken_one(runs):
    straight = securefl("run", runs / "small.toml", "--rounds", 4, "--out", runs / "straight")
    assert straight.returncode == 0, straight.stderr
    broken = securefl("run", runs / "small.toml", "--rounds", 2, "--out", runs / "broken")
    assert broken.returncode == 0, broken.stderr
    resumed = securefl("run", "--resume", runs / "broken", "--rounds", 4)
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after round 2" in resumed.stdout
    assert report(runs / "broken")["model_hash"] == report(runs / "straight")["model_hash"]


def test_dropouts_are_survived_and_reported(runs):
    config = runs / "drops.toml"
    config.write_text(
        "[data]\nclients = 6\n[model]\nhidden = [16]\n[protection]\nsuite = 'x25519'\n[faults]\ndropout = 0.45\n"
    )
    done = securefl("run", config, "--rounds", 8, "--out", runs / "drops")
    assert done.returncode == 0, done.stderr
    found = report(runs / "drops")
    sizes = [len(each) for each in found["survivors"]]
    assert min(sizes) < 6
    assert found["failed_rounds"], "with this seed a round falls below the threshold"
    assert all("TooFewClientsError" in each["reason"] for each in found["failed_rounds"])
    assert "no sum" in done.stdout


def test_json_on_standard_output_is_nothing_but_json(runs):
    done = securefl("run", runs / "small.toml", "--rounds", 1, "--out", runs / "j", "--json", "-")
    assert json.loads(done.stdout)["rounds"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[data]\nclinets = 3\n", "clinets"),
        ("[dta]\n", "dta"),
        ("[protection]\nmethod = 'rot13'\n", "method"),
        ("[protection]\nthreshold = 0.2\n", "threshold"),
        ("[data]\nclients = 1\n", "clients"),
        ("[protection]\nvalue_bits = 60\n", "value_bits"),
        ("[data\n", "TOML"),
    ],
)
def test_a_bad_configuration_is_one_line_that_names_the_key(tmp_path, text, words):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    done = securefl("run", path, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ConfigurationError: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert words in done.stderr


def test_a_missing_file_is_named(tmp_path):
    done = securefl("run", tmp_path / "none.toml", "--out", tmp_path / "out")
    assert (done.returncode, "none.toml" in done.stderr) == (1, True)


def test_bad_usage_exits_with_2():
    assert securefl("run", "--no-such-option").returncode == 2
    assert securefl("no-such-command").returncode == 2


def test_demo_secagg():
    done = securefl("demo", "secagg", "--clients", 8, "--drop", 2)
    assert done.returncode == 0, done.stderr
    assert "equal to the plain sum in every integer" in done.stdout
    assert "what the server saw" in done.stdout


def test_demo_secagg_below_the_threshold_is_refused_by_name():
    done = securefl("demo", "secagg", "--clients", 5, "--drop", 3, "--suite", "x25519")
    assert done.returncode == 1
    assert "error: TooFewClientsError: " in done.stderr


def test_every_command_has_help():
    for command in (["run"], ["demo"], ["demo", "secagg"], ["selftest"], ["bench"]):
        assert securefl(*command, "--help").returncode == 0
