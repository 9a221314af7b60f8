from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from securefl.errors import ConfigurationError
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.config import parse
from securefl.fl.fedavg import FedAvg
from securefl.fl.local_metrics import MaskedLoss
from securefl.fl.plan import plan
from securefl.fl.tracking import figures
from securefl.fl.training import LocalResult
from securefl.fl.workload import prepare


def _values(protect: str = "plain", **training: Any) -> dict[str, Any]:
    return {
        "data": {"dataset": "breast-cancer", "clients": 5},
        "model": {"hidden": [4]},
        "training": {"rounds": 3, "train_loss": True, **training},
        "protection": {"method": protect, "suite": "x25519", "threshold": 3},
        "compression": {"chain": []},
        "faults": {"dropout": 0.2},
    }


def _run(protect: str = "plain", **training: Any) -> tuple[FedAvg, list[dict[int, tuple[float, int]]]]:
    """A finished run, and per round every client's (loss, examples)."""
    config = parse(_values(protect, **training))
    workload = prepare(config)
    run = FedAvg.from_config(config, workload, aggregator_of(config, 512))
    losses: list[dict[int, tuple[float, int]]] = []
    engine = run.engine.train

    class Spy:
        def train(self, *args: Any) -> Any:
            results = engine(*args)
            losses.append({client: (result.loss, result.weight) for client, result in results.items()})
            return results

    run.engine = Spy()
    run.run()
    return run, losses


@pytest.mark.parametrize("training", [{}, {"algorithm": "scaffold"}], ids=str)
def test_the_server_learns_the_weighted_mean_of_the_survivors(training: dict[str, Any]) -> None:
    run, losses = _run(**training)
    for record, round_losses in zip(run.records, losses, strict=True):
        counted = [round_losses[client] for client in record.survivors]
        mean = sum(loss * weight for loss, weight in counted) / sum(weight for _, weight in counted)
        assert record.metrics is not None
        assert record.metrics["train_loss"] == pytest.approx(mean, abs=4e-3)  # 4 ln 2 / 32767, times N over the weights
        assert figures(record)["train_loss"] == record.metrics["train_loss"]
    assert len({record.survivors for record in run.records}) > 1


def test_it_is_the_same_under_masks_and_leaves_the_model_as_it_is() -> None:
    plain, masked, without = _run()[0], _run("masked")[0], _run(train_loss=False)[0]
    assert plain.result().model_hash == masked.result().model_hash == without.result().model_hash
    assert [r.metrics for r in plain.records] == [r.metrics for r in masked.records]
    assert [r.metrics for r in without.records] == [None] * 3


def test_it_is_one_value_more() -> None:
    with_loss, without = parse(_values()), parse(_values(train_loss=False))
    assert plan(with_loss).sums[0].integers == plan(without).sums[0].integers + 1


def test_losses_beyond_the_bound_count_as_the_bound() -> None:
    loss = MaskedLoss(2.0, 0.5)
    update = {"w": np.ones(3, np.float32)}
    for given, expected in ((1.0, 1.0), (7.0, 2.0), (math.inf, 2.0)):
        sent = loss.sent(update, LocalResult(update, 4, given, 1))
        assert list(sent) == list(loss.sends(update))
        assert abs(sent["metric train_loss"]).max() <= 0.5
        rest, found = loss.received(sent)
        assert list(rest) == ["w"]
        assert found["train_loss"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"train_loss": True}}, "chain"),
        ({"training": {"train_loss": True}, "privacy": {}}, "one more release"),
    ],
    ids=str,
)
def test_what_does_not_go_with_it_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(values)
    with pytest.raises(ConfigurationError, match="positive"):
        MaskedLoss(0.0, 1.0)
