import json

import pytest

from securefl.cli import output
from securefl.errors import ConfigurationError


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_667_000, "2.7 MB"), (3e12, "3000.0 GB")]
)
def test_bytes_with_a_unit(count, text):
    assert output.bytes_text(count) == text


def test_plain_lines_count_from_what_is_done(capsys):
    output.console.file = None
    with output.steps(3, done=1) as steps:
        steps.done("one")
        steps.done("two")
    assert capsys.readouterr().out == "[2/3] one\n[3/3] two\n"


def test_nothing_is_shown_when_asked_for_nothing(capsys):
    output.console.file = None
    with output.steps(2, show=False) as steps:
        steps.done("one")
    assert capsys.readouterr().out == ""


def test_json_goes_to_a_file_or_to_standard_output(tmp_path, capsys):
    output.write_json({"a": 1}, str(tmp_path / "x.json"))
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    output.write_json({"a": 2}, "-")
    assert json.loads(capsys.readouterr().out) == {"a": 2}
    output.write_json({"a": 3}, None)
    assert capsys.readouterr().out == ""


def test_json_that_cannot_be_written_is_a_named_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot write"):
        output.write_json({}, str(tmp_path / "no" / "x.json"))


def test_json_has_no_nan():
    with pytest.raises(ValueError, match="not JSON compliant"):
        output.write_json({"a": float("nan")}, "-")
