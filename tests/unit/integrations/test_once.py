import multiprocessing
import os
import stat
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from securefl.errors import ConfigurationError
from securefl.integrations.once import Once
from securefl.integrations.policy import Policy


def test_a_name_is_claimed_once_by_whoever_asks(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert Once(folder, 7, 1).claim("sum 1")
    assert not Once(folder, 7, 1).claim("sum 1")
    assert Once(folder, 7, 1).claim("sum 11")
    assert Once(folder, 7, 1).claim("um 1")
    assert not Once(folder, 7, 1).claim("sum 11")
    assert Once(folder, 7, 2).claim("sum 1")
    assert Once(folder, 8, 1).claim("sum 1")


def test_others_may_not_read_it(tmp_path: Path) -> None:
    Once(tmp_path / "own", 7, 1).claim("sum 1")
    for path in (tmp_path / "own", *(tmp_path / "own").iterdir()):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077


def test_a_note_that_a_crash_cut_off_hides_no_later_one(tmp_path: Path) -> None:
    once = Once(tmp_path, 7, 1)
    once.claim("sum 1")
    with next(tmp_path.iterdir()).open("ab") as file:
        file.write(b"\nsu")
    assert once.claim("sum 2")
    assert not once.claim("sum 2")


def _claim(folder: Path, won: "SimpleQueue[list[int]]", go: str) -> None:
    while not os.path.exists(go):
        pass
    won.put([at for at in range(200) if Once(folder, 7, 1).claim(f"sum {at}")])


def test_of_processes_that_claim_at_once_one_gets_it(tmp_path: Path) -> None:
    spawned = multiprocessing.get_context("fork")
    won: SimpleQueue[list[int]] = spawned.SimpleQueue()
    go = tmp_path / "go"
    claims = [spawned.Process(target=_claim, args=(tmp_path / "notes", won, str(go))) for _ in range(3)]
    for process in claims:
        process.start()
    go.touch()
    for process in claims:
        process.join(30)
    assert sorted(at for _ in claims for at in won.get()) == list(range(200))


def test_what_runs_of_long_ago_left_is_thrown_away(tmp_path: Path) -> None:
    for run in (1, 2):
        Once(tmp_path, run, 1).claim("sum 1")
    os.utime(tmp_path / "1-1.once", (0, 0))
    (tmp_path / "other").touch()
    os.utime(tmp_path / "other", (0, 0))
    Once(tmp_path, 2, 1).claim("sum 2")
    assert (tmp_path / "1-1.once").exists()
    Once(tmp_path, 3, 1).claim("sum 1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2-1.once", "3-1.once", "other"]


def test_a_folder_that_cannot_be_written_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="securefl-state"):
        Once(tmp_path / "file", 7, 1).claim("sum 1")


def test_the_folder_is_a_setting_of_a_node_and_none_of_its_policy() -> None:
    assert Policy.of({"securefl-state": "/var/lib/securefl"}) == Policy()
