from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from securefl.errors import ConfigurationError, DecodeError
from securefl.fl import checkpoint as c
from securefl.fl.interfaces import RoundRecord
from securefl.types import ClientId

RECORD = RoundRecord(
    round=1,
    accuracy=0.1 + 0.2,  # not a short decimal: JSON must give the very same float back
    test_loss=1 / 3,
    clients=3,
    survivors=(ClientId(1), ClientId(3)),
    failed=None,
    upload_bytes_per_client=100.5,
    vector_bytes_per_client=90.0,
    download_bytes_per_client=80.0,
    clipped_fraction=0.0,
    seconds=0.25,
)
FAILED = dataclasses.replace(
    RECORD, round=2, survivors=(), failed="TooFewClientsError: 1 of 2", upload_bytes_per_client=None
)


def _state(rounds: int = 2) -> c.RunState:
    tensors = {
        "file": np.arange(6, dtype=np.float32).reshape(2, 3),  # a name that np.savez could not take as it is
        "../up/\u00e9": np.array(-0.0, np.float32),
        "a": np.array([np.pi], np.float32),
    }
    return c.RunState(tensors, (RECORD, FAILED)[:rounds])


def test_round_trip(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "checkpoint"
    assert not c.exists(directory)
    c.save(directory, _state(), "f")
    assert c.exists(directory)
    back = c.load(directory, "f")
    assert back.records == (RECORD, FAILED)
    assert back.round == 2
    assert list(back.tensors) == list(_state().tensors)
    for name, value in _state().tensors.items():
        assert back.tensors[name].tobytes() == value.tobytes()
        assert back.tensors[name].shape == value.shape
    assert isinstance(back.records[0].survivors, tuple)


def test_saving_again_replaces_and_leaves_no_rubbish(tmp_path: Path) -> None:
    c.save(tmp_path, _state(1), "f")
    c.save(tmp_path, _state(2), "f")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json", "tensors-2.npz"]


@pytest.mark.parametrize("survive", range(4))
def test_a_crash_leaves_the_old_checkpoint_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survive: int
) -> None:
    """Stop after ``survive`` calls of fsync (each file is synced, then its directory)."""
    c.save(tmp_path, _state(1), "f")
    calls, fsync = 0, os.fsync

    def crash(descriptor: int) -> None:
        nonlocal calls
        if calls == survive:
            raise KeyboardInterrupt
        calls += 1
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        c.save(tmp_path, _state(2), "f")
    monkeypatch.undo()
    # The last sync, of the directory after state.json, comes when both files are in place.
    assert c.load(tmp_path, "f").round == (2 if survive == 3 else 1)
    c.save(tmp_path, _state(2), "f")
    assert c.load(tmp_path, "f").round == 2


def test_none_and_foreign(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no checkpoint in"):
        c.load(tmp_path / "nowhere", "f")
    c.save(tmp_path, _state(), "f")
    with pytest.raises(ConfigurationError, match="belongs to another run"):
        c.load(tmp_path, "g")


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="cannot write the checkpoint"):
        c.save(tmp_path / "file", _state(), "f")


@pytest.mark.parametrize("name", ["state.json", "tensors-2.npz"])
def test_every_truncation_and_every_flipped_byte_is_found(tmp_path: Path, name: str) -> None:
    c.save(tmp_path, _state(), "f")
    path = tmp_path / name
    content = path.read_bytes()
    step = max(1, len(content) // 60)
    for position in range(0, len(content), step):
        path.write_bytes(content[:position])
        with pytest.raises(DecodeError):
            c.load(tmp_path, "f")
        damaged = bytearray(content)
        damaged[position] ^= 0x01
        if name == "state.json" and json_equal(content, bytes(damaged)):
            continue  # white space outside strings carries nothing
        path.write_bytes(damaged)
        with pytest.raises(DecodeError):
            c.load(tmp_path, "f")


def json_equal(a: bytes, b: bytes) -> bool:
    try:
        return bool(json.loads(a) == json.loads(b))
    except ValueError:
        return False


def test_missing_tensors(tmp_path: Path) -> None:
    c.save(tmp_path, _state(), "f")
    (tmp_path / "tensors-2.npz").unlink()
    with pytest.raises(DecodeError, match="damaged"):
        c.load(tmp_path, "f")


def _drop_names(body: dict[str, object]) -> None:
    del body["names"]


def _extra_name(body: dict[str, object]) -> None:
    body["names"] = ["a", "b", "c", "d"]


def _leave_the_directory(body: dict[str, object]) -> None:
    body["tensors"] = "../tensors-2.npz"


def _other_format(body: dict[str, object]) -> None:
    body["format"] = "securefl-checkpoint-0"


def _strange_record(body: dict[str, object]) -> None:
    body["records"] = [{"round": 1}]


def _no_records(body: dict[str, object]) -> None:
    body["records"] = 3


@pytest.mark.parametrize(
    "change", [_drop_names, _extra_name, _leave_the_directory, _other_format, _strange_record, _no_records]
)
def test_well_signed_nonsense(tmp_path: Path, change: Callable[[dict[str, object]], None]) -> None:
    c.save(tmp_path, _state(), "f")
    body = json.loads((tmp_path / "state.json").read_text())["state"]
    change(body)
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    document = {"state": body, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (tmp_path / "state.json").write_text(json.dumps(document))
    with pytest.raises(DecodeError):
        c.load(tmp_path, "f")


@pytest.mark.parametrize("array", [np.array([print], dtype=object), np.zeros(2, np.float64)], ids=["pickle", "float64"])
def test_pickles_and_other_dtypes_are_not_loaded(tmp_path: Path, array: np.ndarray) -> None:
    c.save(tmp_path, _state(), "f")
    np.savez(tmp_path / "tensors-2.npz", t0=array, t1=array, t2=array)
    body = json.loads((tmp_path / "state.json").read_text())["state"]
    body["tensors_sha256"] = hashlib.sha256((tmp_path / "tensors-2.npz").read_bytes()).hexdigest()
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    document = {"state": body, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    (tmp_path / "state.json").write_text(json.dumps(document))
    with pytest.raises(DecodeError, match=r"allow_pickle|float32"):
        c.load(tmp_path, "f")


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"state": {}}', '{"state": 1, "sha256": ""}', "[" * 100_000])
def test_state_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DecodeError):
        c.load(tmp_path, "f")
