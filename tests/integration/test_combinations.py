"""Every pair of a run's features works, with the effect of both and the same under every protection, or is refused.

A feature is a section or a key of the configuration. For each pair a plain run of two small rounds either raises a
:class:`ConfigurationError` before it trains, or ends in another state than with either feature alone: nothing that is
accepted is silently ignored. The same runs under masks, shares and CKKS end in the same model, bit for bit. Noise and
batches of differential privacy are drawn from a seeded source here, so that they are compared as everything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from securefl.dp import central, cohort, distributed, local
from securefl.encoding.quantize import Quantized
from securefl.errors import ConfigurationError
from securefl.fl import dpsgd, privacy
from securefl.fl.config import parse
from securefl.fl.interfaces import Contribution
from securefl.fl.privacy import NoisyCoder
from securefl.fl.runner import Run
from securefl.machine import SumResult
from securefl.testing import SeededEntropy
from securefl.types import Tensors

Sections = Mapping[str, Mapping[str, Any]]

BASE: Sections = {
    "data": {"clients": 6, "partition": "iid"},
    "model": {"hidden": [4]},
    "training": {"rounds": 2, "local_steps": 2},
    "protection": {"method": "plain", "threshold": 4, "suite": "x25519"},
    "compression": {"chain": []},
}
_PRIVATE = {"epsilon": 60.0, "delta": 1e-2, "clip_norm": 0.5}
FEATURES: dict[str, Sections] = {
    "fedprox": {"training": {"algorithm": "fedprox", "proximal": 1.0}},
    "scaffold": {"training": {"algorithm": "scaffold"}},
    "adam": {"training": {"optimizer": "adam"}},
    "server momentum": {"training": {"server_optimizer": "sgd", "server_momentum": 0.5}},
    "yogi": {"training": {"server_optimizer": "yogi", "server_learning_rate": 0.03}},
    "cohort": {"training": {"cohort_size": 5}},
    "train loss": {"training": {"train_loss": True}},
    "random-k": {"compression": {"chain": ["random_k", "rotated"], "fraction": 0.5}},
    "projection": {"compression": {"chain": ["random_projection", "rotated"], "fraction": 0.5}},
    "powersgd": {"compression": {"chain": ["powersgd", "rotated"], "rank": 1}},
    "pruned": {"compression": {"chain": ["pruned"], "end_round": 2}},
    "download": {"compression": {"download_bits": 4}},
    "dropout": {"faults": {"dropout": 0.2}},
    "stragglers": {"faults": {"stragglers": 0.5}},
    "poison": {"faults": {"poisoned": 1}},
    "augmentation": {"augmentation": {"shift": 0.2}},
    "tiers": {"tiers": {"minimum_holders": 2}},
    "rolling tiers": {"tiers": {"minimum_holders": 2, "slices": "rolling", "nested": False}},
    "distributed": {"privacy": {**_PRIVATE, "noise_multiplier": 1.0}},
    "adaptive": {"privacy": {**_PRIVATE, "noise_multiplier": 1.0, "adaptive": True}},
    "central": {"privacy": {**_PRIVATE, "noise_multiplier": 1.0, "noise": "central"}},
    "local": {"privacy": {**_PRIVATE, "noise": "local"}},
    "example": {"privacy": {**_PRIVATE, "noise_multiplier": 1.0, "unit": "example"}},
    "fine-tune": {"personalization": {"method": "fine_tune", "steps": 3}},
    "interpolate": {"personalization": {"method": "interpolate", "steps": 3}},
    "ditto": {"personalization": {"method": "ditto"}},
    "fedper": {"personalization": {"method": "fedper"}},
}
#: Features much like another one: with the slow tests.
_MORE = {
    "yogi",
    "cohort",
    "projection",
    "rolling tiers",
    "adaptive",
    "central",
    "interpolate",
    "local",
    "poison",
    "adam",
}
_QUICK_OR_SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (name in _MORE)) for name in FEATURES]
PROTECTIONS: dict[str, Mapping[str, Any]] = {
    "masked": {"method": "masked"},
    "shared": {"method": "shared"},
    "ckks": {"method": "ckks"},
    "ckks, shared key": {"method": "ckks", "key_model": "shared_key"},
    "ckks, threshold": {"method": "ckks", "key_model": "threshold"},
}


def _merged(names: tuple[str, ...], protection: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]] | None:
    """The configuration with these features; ``None`` when two of them set one key, or [privacy] and the like twice."""
    whole = {section: dict(values) for section, values in BASE.items()}
    taken: set[tuple[str, str]] = set()
    for name in names:
        for section, values in FEATURES[name].items():
            one_choice = section in ("privacy", "personalization", "tiers")
            keys = {(section, "*" if one_choice else key) for key in values}
            if keys & taken:
                return None
            taken |= keys
            whole.setdefault(section, {}).update(values)
    whole["protection"].update(protection or {})
    return whole


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # half of a small run's time
    with pytest.MonkeyPatch.context() as patch:
        for module in (central, cohort, distributed, local, dpsgd, privacy):
            patch.setattr(module, "SystemEntropy", lambda: _SOURCE[0])
        # by client and round, since a client that drops out before its vector draws nothing
        encode, decode = NoisyCoder.encode, NoisyCoder.decode

        def encoded(self: NoisyCoder, contribution: Contribution) -> Quantized:
            _SOURCE[0] = SeededEntropy(contribution.seed)
            return encode(self, contribution)

        def decoded(self: NoisyCoder, result: SumResult) -> tuple[Tensors, int]:
            _SOURCE[0] = SeededEntropy(result.values[:4].tobytes())
            return decode(self, result)

        patch.setattr(NoisyCoder, "encode", encoded)
        patch.setattr(NoisyCoder, "decode", decoded)
        yield


_SOURCE = [SeededEntropy(0)]
Outcome = tuple[object, ...]


def _outcome(values: Mapping[str, Any], folder: Path, *, broken: bool = False) -> Outcome | str:
    """What a run ends in: model, survivors, opened metrics, what was spent, the clients' own models; or its refusal.

    ``broken``: after one round the run is taken up again from its folder.
    """
    _SOURCE[0] = SeededEntropy(7)
    try:
        config = parse(values)
        shadow = config.protection.method == "plain" and config.tiers is None
        run = Run(config, folder, shadow=shadow)
        if broken:
            next(run.rounds())  # and then the process is gone
            if run.privacy is not None:
                run.privacy.ledger.close()
            run = Run(config, folder, resume=True, shadow=shadow)
    except ConfigurationError as error:  # before anything is trained
        return str(error)
    list(run.rounds())
    finished = run.finish()
    records = finished.result.records
    assert len(records) == config.training.rounds
    exact = shadow and not config.compression.chain and config.privacy is None
    for record in records:
        assert record.failed is None, record.failed
        # the aggregate is the weighted mean of what the survivors gave, up to the grid and its ends
        assert not exact or record.clipped_fraction or (record.aggregate_error or 0) < 1e-5
    if run.privacy is not None:
        assert finished.privacy is not None
        assert 0 < finished.privacy.epsilon <= _PRIVATE["epsilon"]
        run.privacy.ledger.close()
    return (
        finished.result.model_hash,
        tuple(record.survivors for record in records),
        tuple(tuple((record.metrics or {}).items()) for record in records),
        None if finished.privacy is None else finished.privacy.epsilon,
        finished.personal,
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outcome of a plain run with these features, or the error that refuses it; each is run once."""

    @cache
    def run(*names: str) -> Outcome | str | None:
        values = _merged(names)
        return None if values is None else _outcome(values, tmp_path_factory.mktemp("plain"))

    return run


def _available(protection: str) -> None:
    if protection.startswith("ckks"):
        pytest.importorskip("tenseal")


#: What goes beside each feature under protection.
BESIDE = {
    "fedprox": "ditto",
    "scaffold": "ditto",
    "adam": "random-k",
    "server momentum": "distributed",
    "yogi": "interpolate",
    "cohort": "scaffold",
    "train loss": "scaffold",
    "random-k": "scaffold",
    "projection": "interpolate",
    "powersgd": "scaffold",
    "pruned": "server momentum",
    "download": "scaffold",
    "dropout": "scaffold",
    "stragglers": "scaffold",
    "poison": "tiers",
    "augmentation": "powersgd",
    "tiers": "stragglers",
    "rolling tiers": "augmentation",
    "distributed": "ditto",
    "adaptive": "yogi",
    "central": "interpolate",
    "local": "fine-tune",
    "example": "server momentum",
    "fine-tune": "random-k",
    "interpolate": "scaffold",
    "ditto": "powersgd",
    "fedper": "random-k",
}


@pytest.mark.parametrize("protection", ["masked", "shared", "ckks"])
def test_every_feature_is_the_same_under_every_protection(protection: str, plain: Any, tmp_path: Path) -> None:
    _available(protection)
    for first, second in BESIDE.items():
        if not {first, second} & _MORE:
            _same((first, second), protection, plain, tmp_path / first)


@pytest.mark.parametrize("first", _QUICK_OR_SLOW)
def test_a_broken_run_goes_on_as_if_it_had_not_broken(first: str, plain: Any, tmp_path: Path) -> None:
    names = (first, BESIDE[first])
    values = _merged(names)
    assert values is not None
    found, wanted = _outcome(values, tmp_path, broken=True), plain(*names)
    if "example" in names:  # batches and noise are drawn anew
        found, wanted = found[1:4], wanted[1:4]
    assert found == wanted


@pytest.mark.slow
@pytest.mark.parametrize("protection", PROTECTIONS)
@pytest.mark.parametrize("first", FEATURES)
def test_every_pair_is_the_same_under_every_protection(first: str, protection: str, plain: Any, tmp_path: Path) -> None:
    _available(protection)
    for at, second in enumerate(FEATURES):
        if second >= first and isinstance(plain(first, second), tuple):
            _same((first, second), protection, plain, tmp_path / str(at))


def _same(names: tuple[str, ...], protection: str, plain: Any, folder: Path) -> None:
    values = _merged(names, PROTECTIONS[protection])
    assert values is not None
    wanted, found = plain(*names), _outcome(values, folder)
    if protection == "ckks, threshold" and "dropout" in names:
        return  # who leaves after its vector is in the plain sum, and in no n-of-n sum
    if isinstance(found, str):  # of the accepted pairs only this is not for every protection
        assert "[tiers] does not go with key_model" in found, f"{names} under {protection}: {found}"
        return
    assert found == wanted, f"{names} under {protection}"


@pytest.mark.parametrize("first", _QUICK_OR_SLOW)
def test_every_pair_has_the_effect_of_both_or_is_refused(first: str, plain: Any) -> None:
    alone = plain(first)
    assert not isinstance(alone, str), alone
    assert alone != plain()
    others = set(FEATURES) - ({*_MORE, first} if first not in _MORE else {first})
    for second in sorted(others):
        if second < first and first not in _MORE:
            continue  # that pair is the other's
        both = plain(first, second)
        if both is None:
            continue
        if isinstance(both, str):
            assert len(both) > 20, both  # a sentence
            continue
        assert both != alone, f"{second} changes nothing beside {first}"
        assert both != plain(second), f"{first} changes nothing beside {second}"
