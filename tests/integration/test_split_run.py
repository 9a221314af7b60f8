"""`securefl run` of configurations with [split], as users type them; in this process."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

from securefl.__main__ import main
from securefl.cli import output

SMALL = "[data]\nclients = 3\npartition = 'iid'\n[model]\nhidden = [8]\n[training]\nrounds = 1\nbatch_size = 200\n"
SMALL += "learning_rate = 0.05\n[protection]\nsuite = 'x25519'\n[split]\n"


def _securefl(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    output.console.file = out
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(map(str, arguments)))
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):
            err.write(code)
            code = 1
    finally:
        output.console.file = None
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    "more",
    ["protect = 'plain'", "protect = 'ckks'\nciphertexts = 'compact'", "protect = 'noise'", "protect = 'shared'"],
)
def test_a_run_leaves_a_report_that_says_what_it_protects(tmp_path: Path, more: str) -> None:
    if "ckks" in more:
        pytest.importorskip("tenseal")
    file = tmp_path / "split.toml"
    file.write_text(SMALL + more + "\n")
    code, out, err = _securefl("run", file, "--out", tmp_path / "out")
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    protect = report["protect"]
    assert report["statement"] in " ".join(out.split())
    assert ("no privacy against the server" in out) == (protect == "plain")
    assert (report["epsilon"] is not None) == (protect == "noise")
    assert (report["not_covered_by_epsilon"] is not None) == (protect == "noise")
    assert (tmp_path / "out" / "ledger.sqlite").exists() == (protect == "noise")
    assert (report["leakage"]["reconstruction"] > 0.5) == (protect == "plain")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What the server can rebuild" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )
    if protect == "noise":
        code, _, err = _securefl("run", file, "--out", tmp_path / "out")
        assert code == 1
        assert "privacy ledger" in err


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("after = 'encoder'", "no layer 'encoder' to cut after"),
        ("protect = 'plain'\nbits = 4", "bits has no effect"),
        ("protect = 'ckks'\nlabels = 'server'", "labels"),
        ("order = 'sequential'\nweight_gradient = 'summed'", "nobody to sum"),
        ("protekt = 'plain'", "did you mean 'protect'"),
        ("protect = 'ckks'\n[compression]\nfraction = 0.2", "[compression]"),
        ("protect = 'ckks'\n[privacy]\nepsilon = 2.0", "[privacy]"),
        ("after = '2'\nuntil = '1'", "runs before"),
        ("protect = 'shared'\ncluster = 'c.toml'\nparties = 'threads'", "remove them beside cluster"),
        ("protect = 'shared'\nactivation_range = 1e9", "normalise what comes before or state a smaller"),
        ("protect = 'plain'\nreveal = true", "reveal has no effect"),
    ],
)
def test_what_cannot_be_is_one_sentence(tmp_path: Path, more: str, sentence: str) -> None:
    file = tmp_path / "split.toml"
    file.write_text(SMALL + more + "\n")
    code, _, err = _securefl("run", file, "--out", tmp_path / "out")
    assert code == 1
    assert sentence in err
    assert err.startswith("error: ConfigurationError: ")
