"""``securefl demo mpc``: it runs on either engine, its pictures are there, and its figures are right."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from securefl.cli import app, demo_mpc
from securefl.errors import ConfigurationError


def demonstrate(path: Path, engine: str) -> tuple[str, dict[str, Any]]:
    command = ["demo", "mpc", "--images", "20", "--epochs", "2", "--no-processes", "--json", str(path)]
    ran = CliRunner().invoke(app, [*command, "--engine", engine])
    assert ran.exit_code == 0, ran.output
    return ran.output, json.loads(path.read_text())


@pytest.mark.parametrize("engine", ["dealer", "replicated"])
def test_the_demo_shows_shares_and_gets_the_clear_answers(engine: str, tmp_path: Path) -> None:
    output, figures = demonstrate(tmp_path / "figures.json", engine)
    titles = {
        "dealer": ["server 1's share", "opened: image + mask", "the helper: the mask"],
        "replicated": ["component 2", "any two parties", "party 0: 0 + 1", "party 2: 2 + 0"],
    }
    assert all(title in output for title in titles[engine])
    assert figures["engine"] == engine
    assert figures["agree"] == 20
    assert figures["largest_error"] < 5e-4
    assert figures["shares_error"] <= 2.0**-17
    to_the_third = figures["bytes"]["0>2"] + figures["bytes"]["1>2"]
    assert to_the_third == 0 if engine == "dealer" else to_the_third > 0


def test_what_a_party_of_three_holds_is_two_components_and_neither_is_the_image() -> None:
    """The pictures are of what the parties had: no one's components correlate with the image, any two make it up."""
    lines: list[str] = []
    image = np.linspace(0, 1, 64).reshape(1, 64)
    words = [np.random.default_rng(k).integers(0, 2**64, (1, 64), np.uint64) for k in range(2)]
    components = [*words, np.round(image * 2**16).astype(np.uint64) - words[0] - words[1]]
    seen = [{"part": components[me], "second": components[(me + 1) % 3]} for me in range(3)]
    total = demo_mpc._show_replicated(image, seen, lines.append)
    assert demo_mpc._distance(total, image) <= 2.0**-17
    top, bottom = lines[:9], lines[10:19]

    def pixels(shown: list[str], column: int) -> str:
        return "".join(line[18 * column : 18 * column + 16] for line in shown[1:])

    clear = pixels(top, 0)
    assert pixels(bottom, 0) == clear
    for shown in (top, bottom):
        for column in (1, 2, 3):
            assert sum(a == b for a, b in zip(pixels(shown, column), clear, strict=True)) < 64  # of 128, by chance 26
    seen[1]["second"] = seen[1]["part"]
    with pytest.raises(ConfigurationError, match="party 1 does not hold"):
        demo_mpc._show_replicated(image, seen, lines.append)


def test_another_engine_is_refused() -> None:
    ran = CliRunner().invoke(app, ["demo", "mpc", "--engine", "steam"])
    assert isinstance(ran.exception, ConfigurationError)
    assert "dealer or replicated" in str(ran.exception)
