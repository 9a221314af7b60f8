from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from securefl.errors import ConfigurationError, MissingExtraError
from securefl.fl.config import parse
from securefl.fl.interfaces import RoundPrivacy, RoundRecord
from securefl.fl.runner import Run
from securefl.fl.tracking import JsonLines, MLflow, TensorBoard, figures
from securefl.types import ClientId

RECORD = RoundRecord(3, 0.5, 1.25, 4, (ClientId(1), ClientId(3)), None, 10.0, 8.0, 6.0, 0.0, 0.1)
LOST = dataclasses.replace(RECORD, survivors=(), failed="x", upload_bytes_per_client=None)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _config(rounds: int) -> Any:
    values: dict[str, Any] = {"data": {"dataset": "breast-cancer", "clients": 3}, "protection": {"method": "plain"}}
    return parse(values).with_overrides(rounds=rounds)


def test_figures_are_the_numbers_that_there_are() -> None:
    assert figures(RECORD)["survivors"] == 2
    assert figures(RECORD)["upload_bytes_per_client"] == 10.0
    assert "upload_bytes_per_client" not in figures(LOST)
    assert "epsilon" not in figures(RECORD)
    assert figures(dataclasses.replace(RECORD, privacy=RoundPrivacy(2.5, 1.0)))["epsilon"] == 2.5


def test_every_round_is_a_line_once_also_after_a_break(tmp_path: Path) -> None:
    run = Run(_config(4), tmp_path)
    for record in run.rounds():
        assert len(_lines(tmp_path / "metrics.jsonl")) == record.round
        if record.round == 2:
            break
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"round": 3, "accur')  # as a crash in the middle of a line leaves it
    again = Run(_config(4), tmp_path, resume=True)
    list(again.rounds())
    lines = _lines(tmp_path / "metrics.jsonl")
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert lines[3]["accuracy"] == again.finish().result.accuracy


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write"):
        JsonLines(tmp_path / "missing" / "metrics.jsonl").begin([])
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.begin([])
    lines.path.unlink()
    lines.path.mkdir()
    with pytest.raises(ConfigurationError, match="cannot write"):
        lines.add(RECORD)


def test_tensorboard_gets_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, int]] = []
    writer = SimpleNamespace(add_scalar=lambda *values: seen.append(values), close=lambda: seen.append(("end", 0, 0)))
    monkeypatch.setitem(
        sys.modules,
        "torch.utils.tensorboard",
        SimpleNamespace(SummaryWriter=lambda folder: writer),  # type: ignore[arg-type]
    )
    tracker = TensorBoard(tmp_path)
    tracker.begin([RECORD])
    tracker.add(dataclasses.replace(RECORD, round=4))
    tracker.close()
    assert ("accuracy", 0.5, 3) in seen
    assert ("survivors", 2.0, 4) in seen
    assert seen[-1][0] == "end"


def test_mlflow_gets_parameters_and_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    module = SimpleNamespace(
        set_tracking_uri=seen.append,
        start_run=lambda: seen.append("start"),
        log_params=seen.append,
        log_metrics=lambda values, step: seen.append((values["accuracy"], step)),
        end_run=lambda: seen.append("end"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", module)  # type: ignore[arg-type]
    tracker = MLflow("folder", {"training.rounds": 3})
    tracker.begin([])
    tracker.add(RECORD)
    tracker.close()
    assert seen == ["folder", "start", {"training.rounds": 3}, (0.5, 3), "end"]


def test_without_the_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mlflow", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match="mlflow"):
        MLflow("folder", {})
    with pytest.raises(MissingExtraError, match="tensorboard"):
        TensorBoard(tmp_path)
