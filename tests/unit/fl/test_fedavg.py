from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from securefl.errors import ConfigurationError, DecodeError, FaultyServerError, InvalidInputError, TooFewClientsError
from securefl.fl import models, partition
from securefl.fl.config import Config, parse
from securefl.fl.data import from_arrays
from securefl.fl.fedavg import FedAvg
from securefl.fl.interfaces import Aggregate, Contribution, RoundRecord, ServerView
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining, train
from securefl.fl.workload import Workload, prepare
from securefl.types import ClientId


class PlainAggregator:
    """The exact weighted mean in float64, over all clients but those in ``dropped[round]``."""

    def __init__(self, dropped: Mapping[int, Collection[int]] | None = None, threshold: int = 2) -> None:
        self.dropped = dropped or {}
        self.threshold = threshold
        self.calls: list[tuple[int, bytes, dict[ClientId, Contribution]]] = []
        self.largest = 0.0
        self.keep = False

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        if self.keep:
            self.calls.append((round, model_hash, dict(contributions)))
        survivors = tuple(c for c in contributions if c not in self.dropped.get(round, ()))
        if len(survivors) < self.threshold:
            raise TooFewClientsError(f"{len(survivors)} of at least {self.threshold}")
        arrays = [array for c in contributions.values() for array in c.tensors.values()]
        self.largest = max(self.largest, *(float(np.abs(array).max()) for array in arrays))
        total = sum(contributions[c].weight for c in survivors)
        mean = {
            name: np.asarray(
                sum(contributions[c].weight * contributions[c].tensors[name].astype(np.float64) for c in survivors)
                / total
            )
            for name in contributions[survivors[0]].tensors
        }
        sizes = {c: 10 * c for c in survivors}
        return Aggregate(mean, survivors, total, sizes, sizes, sizes, server_view=None)


def _workload(clients: int = 4, n: int = 60) -> Workload:
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 3
    inputs = np.eye(3, 4)[targets] * 2 + 0.5 * rng.standard_normal((n, 4))
    train_set, test_set = (from_arrays(inputs[k::2], targets[k::2], classes=3) for k in (0, 1))
    model = models.build("mlp", input_shape=(4,), classes=3, seeds=SeedTree(1), hidden=(6,))
    rows = partition.dirichlet(train_set.targets, clients, SeedTree(2), alpha=1.0, minimum=2)
    return Workload(model, train_set, test_set, rows)


WORKLOAD = _workload()
SETTINGS = LocalTraining(batch_size=4)


def _run(aggregator: PlainAggregator | None = None, **options: Any) -> FedAvg:
    options = {"rounds": 3, **options}
    return FedAvg(options.pop("workload", WORKLOAD), aggregator or PlainAggregator(), SETTINGS, **options)


def _same_but_time(a: RoundRecord, b: RoundRecord) -> bool:
    return dataclasses.replace(a, seconds=0.0) == dataclasses.replace(b, seconds=0.0)


# ------------------------------------------------------------------------------------------------- the bundled run


@pytest.mark.parametrize("seed", [0, 3])
def test_bundled_configuration_learns(seed: int) -> None:
    config = Config().with_overrides(seed=seed)
    workload, aggregator = prepare(config), PlainAggregator()
    assert len(workload.rows) == 20
    assert sum(workload.weights.values()) == len(workload.train)
    result = FedAvg.from_config(config, workload, aggregator).run()
    assert len(result.records) == 30
    assert result.accuracy >= 0.93
    assert aggregator.largest < 0.75  # the default clip_range, 1.0, clips nothing


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"name": "logistic"}},
        {"model": {"name": "cnn"}},
        {"data": {"partition": "shards"}},
        {"data": {"dataset": "breast-cancer"}},
        {"training": {"optimizer": "adam", "learning_rate": 0.003}},
        {"data": {"clients": 200}},
    ],
    ids=str,
)
def test_other_configurations_run(values: dict[str, dict[str, object]]) -> None:
    config = parse(values).with_overrides(rounds=2)
    result = FedAvg.from_config(config, prepare(config), PlainAggregator()).run()
    assert result.records[-1].test_loss < 3.0


# ------------------------------------------------------------------------------------------------- what a round does


def test_one_round_is_the_formula() -> None:
    aggregator = PlainAggregator()
    aggregator.keep = True
    result = _run(aggregator, rounds=1, server_learning_rate=0.5, seed=7, engine="sequential").run()
    before = models.tensors_of(WORKLOAD.model)
    assert aggregator.calls[0][:2] == (1, models.model_hash(before))
    updates = {}
    for client, rows in enumerate(WORKLOAD.rows, start=1):
        seed = SeedTree(7).child("client", client, "round", 1)
        module = _workload().model
        updates[client] = train(
            module, before, WORKLOAD.train, rows, SETTINGS, seed.child("training"), client=client, round=1
        )
        given = aggregator.calls[0][2][ClientId(client)]
        assert (given.weight, given.seed) == (len(rows), seed.child("rounding").bytes(32))
        assert models.model_hash(given.tensors) == models.model_hash(updates[client].update)
    total = sum(len(rows) for rows in WORKLOAD.rows)
    for name, value in before.items():
        step = sum(update.weight * update.update[name].astype(np.float64) for update in updates.values()) / total
        assert np.array_equal(result.tensors[name], (value + 0.5 * step).astype(np.float32))
    assert result.model_hash == models.model_hash(result.tensors).hex()


def test_records() -> None:
    run = _run(PlainAggregator({2: [3]}))
    seen = list(run.rounds_left())
    result = run.result()
    assert tuple(seen) == result.records
    assert [record.round for record in seen] == [1, 2, 3]
    assert [record.survivors for record in seen] == [(1, 2, 3, 4), (1, 2, 4), (1, 2, 3, 4)]
    assert seen[0].upload_bytes_per_client == 25.0
    assert seen[1].download_bytes_per_client == pytest.approx(70 / 3)
    assert all(record.clients == 4 and record.failed is None and record.seconds > 0 for record in seen)
    assert result.accuracy == seen[-1].accuracy
    assert "train" not in " ".join(vars(RoundRecord)["__dataclass_fields__"])  # no training loss leaves a client


def test_the_callers_model_and_earlier_results_stay_as_they_were() -> None:
    before = models.model_hash(models.tensors_of(WORKLOAD.model))
    run = _run(rounds=2)
    next(run.rounds_left())
    first = run.result()
    kept = {name: value.copy() for name, value in first.tensors.items()}
    run.run()
    assert models.model_hash(models.tensors_of(WORKLOAD.model)) == before
    assert all(np.array_equal(first.tensors[name], value) for name, value in kept.items())


def test_too_few_clients_is_a_failed_round_and_the_run_goes_on() -> None:
    result = _run(PlainAggregator({1: [1, 2, 3], 3: [1, 2, 3, 4]}), rounds=4).run()
    failed = [record.failed for record in result.records]
    assert failed == ["TooFewClientsError: 1 of at least 2", None, "TooFewClientsError: 0 of at least 2", None]
    first, second, third, fourth = result.records
    assert third.survivors == ()
    assert third.clients == 4
    assert third.upload_bytes_per_client is None
    assert third.clipped_fraction is None
    assert (third.accuracy, third.test_loss) == (second.accuracy, second.test_loss)  # the model stayed
    assert second.test_loss < first.test_loss
    assert fourth.test_loss < third.test_loss
    # Rounds 2 and 4 are what they would be without the failures between them: same seeds per round.
    only = _run(PlainAggregator({1: [1, 2, 3]}), rounds=2).run()
    assert _same_but_time(only.records[1], second)


def test_other_errors_end_the_run() -> None:
    class Broken:
        def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
            raise FaultyServerError("relayed nonsense")

    with pytest.raises(FaultyServerError):
        FedAvg(WORKLOAD, Broken(), SETTINGS, rounds=1).run()
    diverging = FedAvg(WORKLOAD, PlainAggregator(), LocalTraining(learning_rate=1e30, epochs=3), rounds=1)
    with pytest.raises(InvalidInputError, match="client 1 in round 1"):
        diverging.run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"mean": {**a.mean, "extra": np.zeros(1)}}, "does not have the model's tensors"),
        (lambda a: {"mean": dict(reversed(a.mean.items()))}, "does not have the model's tensors"),
        (lambda a: {"mean": {name: value[:1] for name, value in a.mean.items()}}, "does not have the model's tensors"),
        (lambda a: {"mean": {name: value * np.nan for name, value in a.mean.items()}}, "not finite"),
        (lambda a: {"mean": {name: np.full(value.shape, 1e300) for name, value in a.mean.items()}}, "not finite"),
        (lambda a: {"survivors": ()}, "survivors"),
        (lambda a: {"survivors": (1, 99)}, "survivors"),
    ],
)
def test_a_wrong_aggregate_is_refused(change: Callable[[Aggregate], dict[str, Any]], message: str) -> None:
    class Wrong(PlainAggregator):
        def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
            aggregate = super().aggregate(round, model_hash, contributions)
            return dataclasses.replace(aggregate, **change(aggregate))

    with pytest.raises(InvalidInputError, match=message):
        _run(Wrong()).run()


def test_the_last_server_view_is_in_the_result() -> None:
    view = ServerView(ClientId(1), np.ones(2, np.uint64), np.ones(2, np.uint64), 7)

    class Viewing(PlainAggregator):
        def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
            aggregate = super().aggregate(round, model_hash, contributions)
            return dataclasses.replace(aggregate, server_view=view if round == 2 else None)

    assert _run(Viewing()).run().server_view is view


# ------------------------------------------------------------------------------------------------- determinism


def test_same_seed_same_model() -> None:
    hashes = [_run(seed=seed).run().model_hash for seed in (0, 0, 1, SeedTree(1))]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]


def test_the_order_in_which_clients_are_trained_does_not_matter() -> None:
    class Reversed(FedAvg):
        def select(self, round: int) -> Collection[ClientId]:
            return list(super().select(round))[::-1]

    settings = LocalTraining(batch_size=4, momentum=0.5)
    model = models.build(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 3)),
        input_shape=(4,),
        classes=3,
        seeds=SeedTree(0),
    )
    workload = dataclasses.replace(WORKLOAD, model=model)
    a = FedAvg(workload, PlainAggregator(), settings, rounds=2).run()
    aggregator = PlainAggregator()
    aggregator.keep = True
    b = Reversed(workload, aggregator, settings, rounds=2).run()
    assert a.model_hash == b.model_hash
    assert list(aggregator.calls[0][2]) == [1, 2, 3, 4]  # a floating-point sum depends on the order of its terms


def test_torch_state_outside_does_not_matter_and_is_left_alone() -> None:
    torch.manual_seed(5)
    before, state = torch.get_num_threads(), torch.get_rng_state()
    first = _run().run().model_hash
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == before
    torch.manual_seed(6)
    assert _run().run().model_hash == first


def test_prepare_is_fixed_by_the_seed() -> None:
    def fingerprint(seed: int) -> str:
        config = Config().with_overrides(seed=seed)
        return FedAvg.from_config(config, prepare(config), PlainAggregator()).fingerprint

    assert fingerprint(0) == fingerprint(0) != fingerprint(1)


# ------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_resumed_run_is_bit_identical(tmp_path: Path, stop: int) -> None:
    dropped = {2: [1, 2, 3], 3: [2]}  # a failed round and a dropout on the way
    whole = _run(PlainAggregator(dropped), rounds=5).run()
    first = _run(PlainAggregator(dropped), rounds=5, checkpoint=tmp_path)
    for record in first.rounds_left():
        if record.round == stop:
            break
    again = _run(PlainAggregator(dropped), rounds=5, checkpoint=tmp_path)
    assert again.resume() == stop
    result = again.run()
    assert result.model_hash == whole.model_hash
    assert all(_same_but_time(a, b) for a, b in zip(result.records, whole.records, strict=True))


def test_a_finished_run_can_be_made_longer(tmp_path: Path) -> None:
    values: dict[str, Any] = {"data": {"dataset": "breast-cancer", "clients": 3}}
    short, long = (parse(values).with_overrides(rounds=rounds) for rounds in (1, 3))
    FedAvg.from_config(short, prepare(short), PlainAggregator(), checkpoint=tmp_path).run()
    run = FedAvg.from_config(long, prepare(long), PlainAggregator(), checkpoint=tmp_path)
    assert run.resume() == 1
    assert run.run().model_hash == FedAvg.from_config(long, prepare(long), PlainAggregator()).run().model_hash
    with pytest.raises(ConfigurationError, match="at round 3, beyond the 1"):
        FedAvg.from_config(short, prepare(short), PlainAggregator(), checkpoint=tmp_path).resume()


def test_resume_without_a_checkpoint_starts_at_the_beginning(tmp_path: Path) -> None:
    run = _run(checkpoint=tmp_path / "new")
    assert run.resume() == 0
    assert run.run().model_hash == _run().run().model_hash


def test_resume_is_refused_where_it_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="checkpoint directory"):
        _run().resume()
    run = _run(checkpoint=tmp_path)
    next(run.rounds_left())
    with pytest.raises(ConfigurationError, match="before its first round"):
        run.resume()


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"server_learning_rate": 0.5},
        {"config_digest": "x"},
        {"threads": 2},
        {"workload": _workload(clients=5)},
        {"workload": dataclasses.replace(WORKLOAD, model=models.mlp(4, [6], 3))},
        {"workload": dataclasses.replace(WORKLOAD, test=WORKLOAD.train)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_foreign_checkpoint_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    _run(checkpoint=tmp_path, rounds=1).run()
    with pytest.raises(ConfigurationError, match="belongs to another run"):
        _run(checkpoint=tmp_path, **options).resume()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    _run(checkpoint=tmp_path, rounds=1).run()
    (tmp_path / "tensors-1.npz").write_bytes(b"")
    with pytest.raises(DecodeError):
        _run(checkpoint=tmp_path).resume()


# ------------------------------------------------------------------------------------------------- construction


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"server_learning_rate": 0.0}, "server_learning_rate"),
        ({"server_learning_rate": float("nan")}, "server_learning_rate"),
        ({"seed": -1}, "non-negative"),
        ({"workload": dataclasses.replace(WORKLOAD, rows=[])}, "at least one client"),
        ({"workload": dataclasses.replace(WORKLOAD, rows=[np.array([], np.int64)])}, "rows of client 1"),
        ({"workload": dataclasses.replace(WORKLOAD, rows=[np.array([0]), np.array([30])])}, "rows of client 2"),
        ({"workload": dataclasses.replace(WORKLOAD, rows=[np.array([-1])])}, "not rows of"),
        ({"workload": dataclasses.replace(WORKLOAD, rows=[np.array([0.5])])}, "row numbers"),
        ({"workload": dataclasses.replace(WORKLOAD, model=models.mlp(4, [], 2))}, r"expected \(1, 3\)"),
        ({"workload": dataclasses.replace(WORKLOAD, model=models.mlp(7, [], 3))}, "does not take examples"),
        (
            {"workload": dataclasses.replace(WORKLOAD, test=from_arrays(np.ones((2, 4)), np.array([0, 1])))},
            "number of classes",
        ),
        (
            {"workload": dataclasses.replace(WORKLOAD, model=nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))},
            "running statistics",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        _run(**options)


def test_no_result_before_the_first_round() -> None:
    with pytest.raises(ConfigurationError, match="no result"):
        _run().result()
