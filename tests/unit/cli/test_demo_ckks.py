"""``securefl demo ckks`` tells what happened, and its figures are those of the session."""

import json

import pytest
from typer.testing import CliRunner

from securefl.cli import app
from securefl.errors import TooFewClientsError

pytest.importorskip("tenseal")


def _figures(*arguments):
    ran = CliRunner().invoke(app, ["demo", "ckks", "--values", "300", "--clients", "4", *arguments, "--json", "-"])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.output)


def test_the_sum_is_exact_over_the_survivors():
    found = _figures("--drop", "1")
    assert found["exact"] is True
    assert found["survivors"] == [1, 2, 3]
    assert {m["message"]: m["frames"] for m in found["messages"]} == {
        "PUBLIC_KEY": 4,
        "KEY_NOTICE": 1,
        "ENCRYPTED_INPUT": 3,
        "ENCRYPTED_SUM": 1,
        "RESULT": 1,
    }


def test_the_attack_is_told_in_figures():
    found = _figures("--drop", "0", "--attack", "--key-model", "shared_key")
    assert [one["recovered"] for one in found["attacks"]] == [True, True, False]
    assert "any single client" in found["trust"]


def test_too_many_dropouts_are_the_named_error():
    ran = CliRunner().invoke(app, ["demo", "ckks", "--values", "10", "--clients", "4", "--drop", "3"])
    assert isinstance(ran.exception, TooFewClientsError)
