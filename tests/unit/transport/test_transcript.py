"""A session's frames as lines of JSON: written, read again, and refused with the number of the line that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from securefl.errors import DecodeError
from securefl.machine import RoundContext
from securefl.primitives.kem import Suite
from securefl.secagg import MaskedSum
from securefl.transport.memory import run_session
from securefl.transport.transcript import Entry, Transcript

CONTEXT = RoundContext(b"session", 0, (1, 2, 3), 9, 50, 2, bytes(32))
LINE = '{"from": 1, "to": 0, "kind": 3, "frame": "01010300aa"}'


@pytest.fixture(scope="module")
def recorded() -> Transcript:
    transcript = Transcript()
    ones = np.ones(9, dtype=np.uint64)
    run_session(MaskedSum(Suite.X25519), CONTEXT, lambda _client: ones, observe=transcript)
    return transcript


def read(tmp_path: Path, text: str | bytes) -> Transcript:
    path = tmp_path / "session.jsonl"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Transcript.read(path)


def test_every_frame_of_a_session_is_kept_in_order(recorded: Transcript) -> None:
    kinds = [(entry.sender, entry.recipient, entry.kind) for entry in recorded]
    assert kinds[0] == (1, 0, 1)
    assert sorted(kind for sender, _, kind in kinds if sender == 0) == [2] * 3 + [4] * 3 + [6] * 3
    assert sorted(kind for sender, _, kind in kinds if sender == 2) == [1, 3, 5, 7]
    assert all(isinstance(entry.frame, bytes) and entry.frame[2] == entry.kind for entry in recorded)


def test_a_transcript_is_written_and_read_again(recorded: Transcript, tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    recorded.write(path)
    assert Transcript.read(path).entries == recorded.entries
    lines = path.read_text(encoding="ascii").splitlines()
    assert len(lines) == len(recorded.entries)
    first, entry = json.loads(lines[0]), recorded.entries[0]
    assert first == {"from": entry.sender, "to": entry.recipient, "kind": entry.kind, "frame": entry.frame.hex()}
    again = tmp_path / "again.jsonl"
    Transcript.read(path).write(again)
    assert again.read_bytes() == path.read_bytes()


def test_a_known_line(tmp_path: Path) -> None:
    assert read(tmp_path, LINE + "\n").entries == [Entry(1, 0, bytes.fromhex("01010300aa"))]
    Transcript([Entry(1, 0, bytes.fromhex("01010300aa"))]).write(tmp_path / "out")
    assert (tmp_path / "out").read_text() == LINE + "\n"


def test_an_observer_copies_what_it_is_shown() -> None:
    transcript, frame = Transcript(), bytearray(b"\1\1\5frame")
    transcript(1, 0, memoryview(frame))
    frame[:] = bytes(len(frame))
    assert transcript.entries[0].frame == b"\1\1\5frame"


def test_frames_do_not_print() -> None:
    assert repr(Entry(1, 0, b"\1\1\5frame")) == "Entry(sender=1, recipient=0)"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "null",
        "[]",
        "3",
        '"text"',
        "{}",
        "{",
        '{"from": 1, "to": 0, "kind": 3}',
        '{"to": 0, "kind": 3, "frame": "010103"}',
        '{"from": 1, "to": 0, "kind": 4, "frame": "010103"}',
        '{"from": 1, "to": 0, "kind": "3", "frame": "010103"}',
        '{"from": 1, "to": 0, "kind": 3, "frame": "0101"}',
        '{"from": 1, "to": 0, "kind": 3, "frame": ""}',
        '{"from": 1, "to": 0, "kind": 3, "frame": "01010"}',
        '{"from": 1, "to": 0, "kind": 3, "frame": "01010g"}',
        '{"from": 1, "to": 0, "kind": 3, "frame": 10103}',
        '{"from": null, "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": [], "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": "one", "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": NaN, "to": 0, "kind": 3, "frame": "010103"}',
        LINE + LINE,
    ],
)
def test_a_line_that_is_no_entry_is_named(bad: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"session\.jsonl, line 2: not a transcript entry"):
        read(tmp_path, f"{LINE}\n{bad}\n{LINE}\n")


@pytest.mark.parametrize(
    "bad",
    [
        b"\xff\xfe",
        '{"from": 1e999, "to": 0, "kind": 3, "frame": "010103"}',
        "[" * 100_000,
    ],
    ids=["not ASCII", "infinite sender", "deeply nested"],
)
def test_hostile_lines_are_named_too(bad: str | bytes, tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        read(tmp_path, bad)


@pytest.mark.parametrize(
    "bad",
    [
        '{"from": "1", "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": 1.7, "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": true, "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": -1, "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": 4294967296, "to": 0, "kind": 3, "frame": "010103"}',
        '{"from": 1, "to": 0, "kind": 3.0, "frame": "010103"}',
        '{"from": 1, "to": 0, "kind": 3, "frame": "01 01 03"}',
        '{"from": 1, "to": 0, "kind": 10, "frame": "01010A"}',
    ],
)
def test_an_entry_has_one_spelling(bad: str, tmp_path: Path) -> None:
    with pytest.raises(DecodeError):
        read(tmp_path, bad + "\n")


def test_an_empty_transcript_is_written_and_read_again(tmp_path: Path) -> None:
    Transcript().write(tmp_path / "empty.jsonl")
    assert Transcript.read(tmp_path / "empty.jsonl").entries == []
