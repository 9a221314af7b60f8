import json

import numpy as np
import pytest

from securefl.audit import figures, report
from securefl.errors import ConfigurationError
from securefl.fl.config import parse
from securefl.fl.interfaces import RoundRecord, RunResult, ServerView
from securefl.fl.runner import FinishedRun


def record(round, failed=None, upload=1000.0):
    survivors = () if failed else (1, 2, 3)
    figures = (None, None, None, None) if failed else (upload, 400.0, 2000.0, 0.01)
    return RoundRecord(round, 0.5 + round / 10, 0.3, 4, survivors, failed, *figures, 0.1)


def finished(*records, view=None, **protection):
    config = parse({"data": {"clients": 4}, "protection": protection})
    return FinishedRun(config, RunResult({}, tuple(records), "ab" * 32, view), 120, 1.0)


VIEW = ServerView(1, np.arange(121, dtype=np.uint64), np.arange(121, dtype=np.uint64)[::-1].copy(), 2**18 - 1)


def test_means_are_over_the_rounds_that_gave_a_sum():
    built = report.build(
        finished(record(1, upload=1000), record(2, "TooFewClientsError: 1 left"), record(3, upload=3000))
    )
    assert built["upload_bytes_per_client"] == 2000
    assert built["vector_bytes_per_client"] == 400
    assert built["survivors"] == [[1, 2, 3], [], [1, 2, 3]]
    assert built["failed_rounds"] == [{"round": 2, "reason": "TooFewClientsError: 1 left"}]
    assert built["accuracy"] == pytest.approx(0.8)
    json.dumps(built, allow_nan=False)


def test_a_run_without_any_sum_has_no_byte_figures():
    assert report.build(finished(record(1, "none")))["upload_bytes_per_client"] is None


def test_few_clients_are_told_that_no_useful_epsilon_exists():
    assert "too few" in report.privacy_sentence("masked", 20)
    assert "too few" not in report.privacy_sentence("masked", 1000)
    assert "saw every client's update" in report.privacy_sentence("plain", 20)


@pytest.mark.parametrize("view", [None, VIEW])
@pytest.mark.parametrize("method", ["masked", "plain"])
def test_the_page(view, method):
    run = finished(record(1), record(2, "TooFewClientsError: <1> left"), view=view, method=method)
    page = report.render(report.build(run), run)
    assert page.count("<svg") == (3 if view else 2)
    assert "&lt;1&gt; left" in page, "reasons are escaped"
    assert ("the server saw every client" in page) == (method == "plain")


def test_a_folder_that_cannot_be_written_is_a_named_error(tmp_path):
    run = finished(record(1))
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigurationError, match="cannot write"):
        report.write(report.build(run), run, blocked)


def test_pictures_are_reproducible():
    def draw():
        return figures.learning_curve([1, 2, 3], [0.1, 0.5, 0.9])

    first, second = draw(), draw()
    strip = lambda text: [line for line in text.splitlines() if "id=" not in line and "#" not in line]  # noqa: E731
    assert strip(first) == strip(second)


@pytest.mark.parametrize("size", [1, 2, 5, 4096, 5000])
def test_any_size_of_vector_can_be_shown(size):
    values = np.arange(size, dtype=np.uint64)
    assert figures.server_view(ServerView(1, values, values, 2**20)).startswith("<svg")
