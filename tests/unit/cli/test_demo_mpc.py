"""``securefl demo mpc``: it runs, its pictures are there, and its figures are right."""

import json

from typer.testing import CliRunner

from securefl.cli import app


def test_the_demo_shows_shares_and_gets_the_clear_answers(tmp_path) -> None:
    target = tmp_path / "figures.json"
    command = ["demo", "mpc", "--images", "20", "--epochs", "2", "--no-processes", "--json", str(target)]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    assert "the helper: the mask" in ran.output
    figures = json.loads(target.read_text())
    assert figures["agree"] == 20
    assert figures["largest_error"] < 5e-4
    assert figures["bytes"]["0>2"] == figures["bytes"]["1>2"] == 0
