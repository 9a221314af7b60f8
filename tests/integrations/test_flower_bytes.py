"""Bytes of a sum under Flower, and compression in front of it: grids, residuals of nodes, what is refused."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: python3 dev.py integrations")

import flower_loopback
from flower_loopback import (
    LoopbackGrid,
    expected,
    run,
    secured,
    update_of,
    weight_of,
)
from flwr.serverapp import strategy

from securefl.errors import ConfigurationError
from securefl.integrations.flower.records import content_bytes

pytestmark = pytest.mark.usefixtures("server_app")


def test_bytes_are_less_than_those_of_plain_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_loopback, "SHAPES", {"w": (300, 400)})
    monkeypatch.setattr(flower_loopback, "START", {"w": np.zeros((300, 400), dtype=np.float32)})
    bare, masked = LoopbackGrid(8), LoopbackGrid(8)
    bare.mods = list
    run(bare, rounds=1)
    grid = secured(masked, value_bits=16, suite="mlkem768-x25519")
    run(grid, rounds=1)
    plain = sum(content_bytes(reply.content) for reply in bare.replies)
    assert grid.reports[0].reply_bytes == sum(content_bytes(reply.content) for reply in masked.replies)
    assert grid.reports[0].reply_bytes < 0.75 * plain


def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower_loopback, "SHAPES", {"w": (60, 100), "b": (40,)})
    monkeypatch.setattr(
        flower_loopback, "START", {n: np.full(s, 0.25, np.float32) for n, s in flower_loopback.SHAPES.items()}
    )


def wandering(mean_of: dict[str, np.ndarray], result: Any) -> float:
    """Relative distance of the model's way from the wanted one."""
    start = flower_loopback.START
    wanted = np.concatenate([(mean_of[name] - start[name]).ravel() for name in sorted(start)])
    found = np.concatenate([(result.arrays[name].numpy() - start[name]).ravel() for name in sorted(start)])
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def test_a_rotated_grid_is_the_mean_up_to_its_rounding_and_its_metrics_are_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large(monkeypatch)
    plain, compressed = LoopbackGrid(5), LoopbackGrid(5)
    fixed, rotated = (
        secured(plain, value_bits=16),
        secured(compressed, value_bits=16, metrics={"loss": 2.0}, compression={"chain": ["rotated"], "levels": 15}),
    )
    run(fixed, rounds=3)
    result = run(rotated, rounds=3)
    assert [report.failed for report in rotated.reports] == [None] * 3
    # Two of three sums are rounded to steps of 6/14 standard deviations, by at most half a step of deviation.
    assert wandering(expected(range(1, 6), 3), result) < np.sqrt(2 / 3) * (6 / 14) / 2
    wanted = sum(weight_of(n) / n for n in range(1, 6)) / sum(map(weight_of, range(1, 6)))
    assert result.train_metrics_clientapp[3]["loss"] == pytest.approx(wanted, abs=1e-3)
    # the first sum has no scale yet; the others have a few bits per value
    assert sum(rotated.reports[2].upload_bytes.values()) < 0.6 * sum(fixed.reports[2].upload_bytes.values())
    assert sum(rotated.reports[0].upload_bytes.values()) > 0.9 * sum(fixed.reports[0].upload_bytes.values())


def steady(node: int, round: int) -> dict[str, np.ndarray]:
    return update_of(node, 1)


@pytest.mark.parametrize("dies", [{}, {2: 2}])
def test_what_a_coder_drops_comes_back_if_the_node_was_counted(
    dies: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same update every round: with error feedback the sum of what was sent follows the sum of the updates."""
    large(monkeypatch)
    monkeypatch.setattr(flower_loopback, "update_of", steady)
    chain = {"chain": ["random_k"], "fraction": 0.5, "error_feedback": True}
    found = {}
    for feedback in (True, False):
        loopback = LoopbackGrid(5, dies=dict(dies))
        grid = secured(loopback, compression={**chain, "error_feedback": feedback}, threshold=3)
        result = run(grid, rounds=8)
        alive = [n for n in range(1, 6) if n not in dies]
        found[feedback] = wandering(expected(alive, 8), result)
        assert grid.reports[-1].survivors == tuple(alive)
        states = [set(loopback.contexts[n].state) for n in alive]
        assert all(("securefl.residual" in state) is feedback for state in states)
        if dies and feedback:
            residual = loopback.contexts[2].state["securefl.residual"]
            assert "kept" not in residual  # its vector never counted: nothing that was dropped comes back
    # Half of the values are sent in a round. A value that was last sent k rounds ago is k updates behind, E k² = 3 over
    # k drops in a row; without feedback each of the rounds errs by as much as its update, either way.
    assert found[True] == pytest.approx(np.sqrt(3) / 8, rel=0.1)
    assert found[False] == pytest.approx(1 / np.sqrt(8), rel=0.1)


def test_a_round_that_fails_leaves_the_residual_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    large(monkeypatch)
    loopback = LoopbackGrid(5)
    grid = secured(loopback, compression={"chain": ["random_k"], "fraction": 0.5, "error_feedback": True}, threshold=4)

    def kill(round: int, arrays: Any) -> None:
        loopback.dies = {2: 3, 4: 3} if round == 1 else {}  # they send their vectors and are gone

    run(grid, rounds=3, evaluate_fn=kill)
    assert [report.failed is None for report in grid.reports] == [True, False, True]
    assert grid.counted == dict.fromkeys(range(1, 6), 3)


def test_compression_that_cannot_work_is_refused() -> None:
    for bad in (
        {"chain": ["powersgd"]},
        {"chain": ["pruned", "rotated"]},
        {"chain": ["rotated", "random_k"]},
        {"chain": ["random_k", "random_projection"]},
        {"chain": []},
        {"fraction": 0.0},
        {"levels": 1},
        {"rank": 2},
    ):
        with pytest.raises(ConfigurationError):
            secured(LoopbackGrid(5), compression=bad)
    with pytest.raises(ConfigurationError, match="scales of their own"):
        secured(LoopbackGrid(9), compression={}, groups=3)
    fed_back = {"chain": ["random_k"], "error_feedback": True}
    with pytest.raises(ConfigurationError, match="momentum"):
        run(
            secured(LoopbackGrid(5), compression=fed_back),
            strategy.FedAvgM(fraction_evaluate=0.0, server_momentum=0.9),
        )
    with pytest.raises(ConfigurationError, match="adaptive"):
        run(secured(LoopbackGrid(5), compression=fed_back), strategy.FedAdam(fraction_evaluate=0.0))
