from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securefl.encoding.weights import WeightFormat
from securefl.errors import ConfigurationError
from securefl.fl import models
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.config import parse
from securefl.fl.engine import SequentialEngine
from securefl.fl.evaluation import ClientAccuracy, PersonalReport
from securefl.fl.fedavg import FedAvg
from securefl.fl.local_head import LocalHead
from securefl.fl.personalization import Ditto, FineTune, Interpolate, Personalizer, Site
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining, torch_threads, train
from securefl.fl.workload import Workload, hold_out, prepare
from securefl.types import ClientId, Tensors

METHODS: dict[str, dict[str, Any]] = {
    "fine_tune": {"method": "fine_tune", "steps": 5},
    "head": {"method": "fine_tune", "steps": 5, "layers": "head"},
    "interpolate": {"method": "interpolate", "steps": 5},
    "chosen": {"method": "interpolate", "steps": 5, "choose_alpha": True},
    "ditto": {"method": "ditto"},
    "fedper": {"method": "fedper"},
}


def _run(
    method: str | None,
    protect: str = "plain",
    checkpoint: Path | None = None,
    compression: dict[str, Any] | None = None,
    **training: Any,
) -> FedAvg:
    config = parse(
        {
            "data": {"dataset": "breast-cancer", "clients": 5, "alpha": 0.3},
            "model": {"hidden": [6]},
            "training": {"rounds": 3, "local_steps": 4, "engine": "sequential", **training},
            "protection": {"method": protect, "suite": "x25519", "threshold": 3},
            "compression": compression or {"chain": []},
            "faults": {"dropout": 0.2},
            **({} if method is None else {"personalization": METHODS[method]}),
        }
    )
    workload = prepare(config)
    aggregator = aggregator_of(config, 512)
    return FedAvg.from_config(config, workload, aggregator, checkpoint=checkpoint)


def _hash(own: dict[ClientId, Tensors] | None) -> list[bytes]:
    assert own is not None
    assert sorted(own) == [1, 2, 3, 4, 5]
    return [models.model_hash(own[client]) for client in sorted(own)]


@pytest.fixture(scope="module")
def tuned() -> FedAvg:
    run = _run("fine_tune")
    run.run()
    return run


# ------------------------------------------------------------------------------------------------- what stays the same


@pytest.mark.parametrize("method", METHODS)
def test_the_same_under_every_protection_and_after_a_break(method: str, tmp_path: Path) -> None:
    plain, begun, again = _run(method), _run(method, "plain", tmp_path), _run(method, "plain", tmp_path)
    whole = plain.run()
    for protect in ("masked", "shared", *(["ckks"] if find_spec("tenseal") else [])):
        protected = _run(method, protect)
        assert protected.run().model_hash == whole.model_hash
        assert _hash(protected.personal_models()) == _hash(plain.personal_models())
        assert protected.personal_report() == plain.personal_report()
    next(begun.rounds_left())
    assert again.resume() == 1
    assert again.run().model_hash == whole.model_hash
    assert _hash(again.personal_models()) == _hash(plain.personal_models())
    assert again.personal_report() == plain.personal_report()


@pytest.mark.parametrize("method", ["fine_tune", "interpolate", "ditto"])
def test_the_shared_model_is_that_of_the_run_without(method: str) -> None:
    """On the same training rows: what clients make for themselves changes nothing that they send."""
    own, without = _run(method), _run(None)
    without = FedAvg(
        own.workload, without.aggregator, own.settings, rounds=3, seed=0, server=own.server, engine=own.engine
    )
    assert own.run().model_hash == without.run().model_hash
    assert without.personal_models() is None
    assert without.personal_report() is None


# ------------------------------------------------------------------------------------------------- each method


def _models(run: FedAvg, personalizer: Personalizer) -> dict[ClientId, Tensors]:
    run.personalizer = personalizer
    own = run.personal_models()
    assert own is not None
    return own


def test_fine_tuning_is_local_training_from_the_global_model(tuned: FedAvg) -> None:
    shared = tuned.result().tensors
    own = _models(tuned, FineTune(5, 0.02))
    settings = LocalTraining(steps=5, learning_rate=0.02)
    for client, rows in enumerate(tuned.workload.rows, start=1):
        seed = SeedTree(0).child("client", client, "fine-tune")
        module = prepare(parse({"data": {"dataset": "breast-cancer"}, "model": {"hidden": [6]}})).model
        with torch_threads(1):
            update = train(module, shared, tuned.workload.train, rows, settings, seed, client=client, round=0).update
        assert all(np.array_equal(own[ClientId(client)][name], shared[name] + update[name]) for name in shared)


def test_the_head_alone_moves(tuned: FedAvg) -> None:
    shared = tuned.result().tensors
    for own in _models(tuned, FineTune(5, 0.1, head=True)).values():
        moved = {name for name in shared if not np.array_equal(own[name], shared[name])}
        assert moved == {"3.weight", "3.bias"} == set(models.head_of(shared))


def test_interpolation_lies_between(tuned: FedAvg) -> None:
    shared, local = tuned.result().tensors, _models(tuned, FineTune(5, 0.1))
    quarter = _models(tuned, Interpolate(FineTune(5, 0.1), alpha=0.25))
    for client, own in quarter.items():
        for name, value in shared.items():
            assert np.allclose(own[name], 0.25 * value + 0.75 * local[client][name], atol=1e-6)
    assert _hash(_models(tuned, Interpolate(FineTune(5, 0.1), alpha=1.0))) == 5 * [models.model_hash(shared)]
    assert _hash(_models(tuned, Interpolate(FineTune(5, 0.1), alpha=0.0))) == _hash(local)


def test_a_chosen_share_never_looks_at_what_was_held_out(tuned: FedAvg) -> None:
    seen: list[np.ndarray] = []
    trained: list[list[np.ndarray]] = []

    class Spy:
        def train(self, round: int, tasks: Any, settings: LocalTraining) -> Any:
            trained.append([task.rows for task in tasks])
            return tuned.engine.train(round, tasks, settings)

    site = Site(Spy(), tuned.workload, tuned.settings, SeedTree(0))

    def evaluate(tensors: Tensors, rows: np.ndarray) -> float:
        seen.append(rows)
        return float(tensors["3.bias"][0])  # the larger this bias, the better: all or nothing

    with torch_threads(1):
        own = Interpolate(FineTune(5, 0.1), choose=True).models(tuned.result().tensors, site, evaluate)
    ends = _hash(_models(tuned, Interpolate(FineTune(5, 0.1), alpha=0.0))), models.model_hash(tuned.result().tensors)
    assert all(digest in (*ends[0], ends[1]) for digest in _hash(own))
    held_out = set(np.concatenate(list(tuned.workload.held_out or ())).tolist())
    assert seen
    assert not held_out & set(np.concatenate(seen).tolist())
    assert [len(rows) for rows in trained] == [5, 5]  # the model to keep, then the one that decides
    judged = [set(rows.tolist()) for rows in seen[::5]]  # five shares are tried on the same rows
    for own_rows, decider, judge in zip(tuned.workload.rows, trained[1], judged, strict=True):
        assert not judge & set(decider.tolist())
        assert judge | set(decider.tolist()) == set(own_rows.tolist())


def test_dittos_model_is_pulled_to_the_shared_one() -> None:
    def away(pull: float) -> float:
        run = _run("ditto")
        run.personalizer = Ditto(pull)
        run.run()
        shared = run.result().tensors
        return sum(
            float(np.linalg.norm(own["1.weight"] - shared["1.weight"]))
            for own in (run.personal_models() or {}).values()
        )

    assert away(0.0) > 1.1 * away(1.0) > 1.1 * away(4.0)


def test_dittos_clients_that_never_joined_have_the_shared_model() -> None:
    ditto, shared = Ditto(), {"w": np.ones(2, np.float32)}
    site = Site(SequentialEngine(None, None), _two(), LocalTraining(), SeedTree(0))  # type: ignore[arg-type]
    assert ditto.models(shared, site, lambda tensors, rows: 0.0) == {1: shared, 2: shared}


def _two() -> Workload:
    return Workload(None, None, None, [np.arange(2), np.arange(2)])  # type: ignore[arg-type]


def test_a_private_head_never_enters_the_sum() -> None:
    run = _run("fedper")
    assert isinstance(run.algorithm, LocalHead)
    sent: list[list[str]] = []
    aggregate = run.aggregator.aggregate

    def spy(round: int, model_hash: bytes, contributions: Any) -> Any:
        sent.extend(list(given.tensors) for given in contributions.values())
        return aggregate(round, model_hash, contributions)

    run.aggregator.aggregate = spy  # type: ignore[method-assign]
    result = run.run()
    assert sent
    assert all(names == ["1.weight", "1.bias"] for names in sent)
    start = models.tensors_of(run.workload.model)
    assert np.array_equal(result.tensors["3.weight"], start["3.weight"])  # the server's copy stays
    assert not np.array_equal(result.tensors["1.weight"], start["1.weight"])
    own = run.personal_models() or {}
    assert all(np.array_equal(own[client]["1.weight"], result.tensors["1.weight"]) for client in own)
    assert len({own[client]["3.weight"].tobytes() for client in own}) > 1
    report = run.personal_report()
    assert report is not None
    weighted = sum(each.personal * each.examples for each in report.clients) / sum(e.examples for e in report.clients)
    assert result.accuracy == pytest.approx(weighted)
    assert report.mean(shared=True) is None


def test_a_head_is_kept_only_when_the_client_was_counted() -> None:
    run = _run("fedper")
    algorithm, start = run.algorithm, models.tensors_of(run.workload.model)
    assert isinstance(algorithm, LocalHead)
    everyone = list(run.workload.weights)
    tasks = algorithm.tasks(1, start, everyone, run.workload, SeedTree(0))
    for client, result in run.engine.train(1, tasks, run.settings).items():
        algorithm.sent(result, client)
    algorithm.received({name: value for name, value in start.items() if name.startswith("1")}, (2, 3))
    heads = {c for c in everyone if not np.array_equal(algorithm.model(c, start)["3.weight"], start["3.weight"])}
    assert heads == {2, 3}


def test_personal_models_start_from_what_a_client_downloaded() -> None:
    run = _run("fine_tune", compression={"chain": [], "download_bits": 4})
    run.run()
    received, _ = WeightFormat(4).round_trip(run.result().tensors)
    assert isinstance(run.personalizer, FineTune)
    with torch_threads(1):
        wanted = run.personalizer.models(received, run._site, run._evaluator.accuracy)
    assert _hash(run.personal_models()) == _hash(wanted)
    report = run.personal_report()
    assert report is not None
    held = run.workload.held_out
    assert held is not None
    assert report.clients[0].shared == run._evaluator.accuracy(received, held[0])


# ------------------------------------------------------------------------------------------------- what is held out


def test_held_out_rows_are_never_trained_on() -> None:
    targets = np.array([0] * 7 + [1] * 2 + [2] + [0, 1])
    kept, held = hold_out([np.arange(10), np.arange(10, 12)], targets, 0.3, SeedTree(0))
    assert [len(rows) for rows in held] == [3, 1]
    assert sorted(np.concatenate([*kept, *held])) == list(range(12))
    assert all((np.diff(rows) > 0).all() for rows in (*kept, *held))
    assert np.bincount(targets[held[0]], minlength=3).tolist() == [2, 1, 0]  # the only example of a class is trained on
    with pytest.raises(ConfigurationError, match="client 1 has a single example"):
        hold_out([np.arange(1)], targets, 0.3, SeedTree(0))


def test_a_report_without_held_out_examples_is_refused(tuned: FedAvg) -> None:
    workload = dataclasses.replace(tuned.workload, held_out=None)
    run = FedAvg(workload, tuned.aggregator, tuned.settings, rounds=1, personalizer=FineTune(2))
    run.run()
    with pytest.raises(ConfigurationError, match="held out"):
        run.personal_report()


def test_the_worst_tenth_is_a_mean_over_clients() -> None:
    shared = [0.5, 0.9, 0.7] + 9 * [1.0]
    report = PersonalReport(
        "x", tuple(ClientAccuracy(ClientId(i), 5, value, value / 2) for i, value in enumerate(shared, start=1))
    )
    assert report.worst_tenth(shared=True) == pytest.approx(0.6)  # 2 of 12
    assert report.worst_tenth() == pytest.approx(0.3)
    assert report.mean() == pytest.approx(sum(shared) / 24)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"personalization": {"method": "ditto", "steps": 3}}, "steps has no effect"),
        ({"personalization": {"method": "fine_tune", "alpha": 0.3}}, "alpha has no effect"),
        ({"personalization": {"pull": 0.3}}, "pull has no effect"),
        ({"personalization": {"choose_alpha": True, "alpha": 0.5}}, "one of them"),
        ({"personalization": {"method": "fedper"}, "training": {"algorithm": "scaffold"}}, "one of them"),
        ({"personalization": {"method": "fedper"}, "privacy": {}}, "fewer values"),
        ({"personalization": {"method": "fedper"}, "compression": {"chain": ["pruned"]}}, "one of them"),
    ],
    ids=str,
)
def test_choices_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(values)


def test_settings_out_of_range_are_refused() -> None:
    for build in (lambda: FineTune(0), lambda: Interpolate(alpha=1.5), lambda: Ditto(-1.0)):
        with pytest.raises(ConfigurationError):
            build()
    with pytest.raises(ConfigurationError, match="no other layer"):
        LocalHead(frozenset({"w"})).sends({"w": np.ones(2, np.float32)})
