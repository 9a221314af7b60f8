"""Every choice of [training] in a run: the same under every protection, and resumed bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from securefl.errors import ConfigurationError
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.config import Config, parse
from securefl.fl.fedavg import FedAvg
from securefl.fl.plan import plan
from securefl.fl.workload import prepare

CHOICES: dict[str, dict[str, Any]] = {
    "fedprox": {"algorithm": "fedprox", "proximal": 0.5},
    "scaffold": {"algorithm": "scaffold", "local_steps": 3},
    "momentum": {"server_momentum": 0.9},
    "adam": {"server_optimizer": "adam", "server_learning_rate": 0.03},
    "yogi": {"server_optimizer": "yogi", "server_learning_rate": 0.03},
    "fixed cohort": {"cohort_size": 3},
    "poisson cohort": {"cohort_probability": 0.7},
}
BASE = {
    "data": {"dataset": "breast-cancer", "clients": 5},
    "model": {"name": "mlp", "hidden": [8]},
    "protection": {"suite": "x25519", "threshold": 0.6},
    "faults": {"dropout": 0.2},
}


def _config(choice: str, *, chain: tuple[str, ...] = (), **protection: Any) -> Config:
    return parse(
        {
            **BASE,
            "training": {"rounds": 4, **CHOICES[choice]},
            "protection": {**BASE["protection"], **protection},
            "compression": {"chain": list(chain)},
        }
    )


def _run(config: Config, checkpoint: Path | None = None) -> FedAvg:
    workload = prepare(config)
    aggregator = aggregator_of(config, config.protection.max_weight_for(workload.weights.values()))
    return FedAvg.from_config(config, workload, aggregator, checkpoint=checkpoint)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_same_model_under_every_protection_and_after_a_break(choice: str, tmp_path: Path) -> None:
    plain = _run(_config(choice, method="plain")).run()
    masked = _run(_config(choice, method="masked")).run()
    assert plain.model_hash == masked.model_hash
    assert [r.survivors for r in plain.records] == [r.survivors for r in masked.records]
    begun = _run(_config(choice, method="plain"), tmp_path)
    for record in begun.rounds_left():
        if record.round == 2:
            break
    again = _run(_config(choice, method="plain"), tmp_path)
    assert again.resume() == 2
    assert again.run().model_hash == plain.model_hash


def test_the_choices_differ() -> None:
    hashes = {choice: _run(_config(choice, method="plain")).run().model_hash for choice in CHOICES}
    assert len(set(hashes.values())) == len(CHOICES)


@pytest.mark.parametrize("chain", [("rotated",), ("random_k", "rotated"), ("powersgd", "rotated")], ids="+".join)
def test_control_variates_are_compressed_with_the_update(chain: tuple[str, ...]) -> None:
    hashes = {_run(_config("scaffold", chain=chain, method=m)).run().model_hash for m in ("plain", "masked")}
    assert len(hashes) == 1


def test_scaffold_sends_twice_the_values_and_the_plan_says_so() -> None:
    alone, both = plan(_config("fedprox")), plan(_config("scaffold"))
    assert both.sums[0].integers - 1 == 2 * (alone.sums[0].integers - 1)


@pytest.mark.parametrize(
    ("choice", "flag"),
    [
        ("momentum", "allow_error_feedback_with_server_momentum"),
        ("adam", "allow_error_feedback_with_adaptive_server"),
        ("yogi", "allow_error_feedback_with_adaptive_server"),
    ],
)
def test_error_feedback_with_such_a_server_is_refused_until_it_is_allowed(choice: str, flag: str) -> None:
    config = _config(choice, chain=("powersgd", "rotated"))
    with pytest.raises(ConfigurationError, match=flag):
        _run(config)
    values = config.model_dump(exclude_unset=True)
    values["compression"][flag] = True
    _run(parse(values))
    _run(_config(choice, chain=("random_k", "rotated")))  # without feedback it goes
    _run(_config("fedprox", chain=("powersgd", "rotated")))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"proximal": 0.1}}, "proximal has no effect"),
        ({"training": {"server_beta1": 0.5}}, "server_beta1 has no effect"),
        ({"training": {"server_optimizer": "adam", "server_learning_rate": 0.1, "server_momentum": 0.5}}, "no effect"),
        ({"training": {"server_optimizer": "yogi"}}, "give it a small one"),
        ({"training": {"local_steps": 3, "local_epochs": 2}}, "one of them"),
        ({"training": {"cohort_size": 3, "cohort_probability": 0.5}}, "one of them"),
        ({"training": {"algorithm": "scaffold", "optimizer": "adam"}}, "plain sgd"),
        ({"training": {"cohort_size": 21}}, "20 clients"),
        ({"training": {"cohort_size": 1}}, "threshold"),
        ({"training": {"cohort_size": 10}, "privacy": {}}, "sampling_probability"),
        ({"training": {"algorithm": "scaffold"}, "privacy": {}}, "noise is not sized"),
        ({"training": {"algorithm": "scaffold"}, "compression": {"chain": ["pruned"]}}, "control variate"),
    ],
    ids=str,
)
def test_choices_that_do_not_go_together_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse(values)


def test_a_cohort_has_its_size_and_its_threshold() -> None:
    run = _run(_config("fixed cohort", method="plain"))
    run.aggregator.dropouts = None  # type: ignore[attr-defined]
    records = run.run().records
    assert [record.clients for record in records] == [3, 3, 3, 3]
    assert all(len(record.survivors) == 3 for record in records)
    assert len({record.survivors for record in records}) > 1


def test_a_cohort_below_its_threshold_is_a_failed_round() -> None:
    config = parse(
        {
            **BASE,
            "training": {"rounds": 12, "cohort_probability": 0.3},
            "compression": {"chain": []},
            "protection": {"method": "plain", "threshold": 3},
        }
    )
    for chain in ([], ["rotated"]):
        values = config.model_dump(exclude_unset=True)
        values["compression"]["chain"] = chain
        records = _run(parse(values)).run().records
        small = [record for record in records if record.clients < 3]
        assert small
        assert all("TooFewClientsError" in str(record.failed) for record in small)
