"""Runs under CKKS give the model of plain runs, and say what they rest on."""

import numpy as np
import pytest

from securefl import secure_sum
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.config import parse
from securefl.fl.plan import plan
from securefl.fl.protections import protection_named
from securefl.fl.runner import Run

pytest.importorskip("tenseal")
pytest.importorskip("torch")

SMALL = {"data": {"clients": 5}, "model": {"hidden": [8]}, "training": {"rounds": 3}}


def _run(folder, **sections):
    run = Run(parse(SMALL | sections), folder)
    failed = [record.failed for record in run.rounds()]
    return run, run.finish().result, failed


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"compression": {"chain": []}},
        {"compression": {"chain": ["powersgd", "rotated"]}},
        {"faults": {"dropout": 0.2}},
    ],
    ids=["bundled chain", "fixed point", "powersgd", "dropouts"],
)
def test_the_model_is_that_of_the_plain_run(tmp_path, sections):
    plain = _run(tmp_path / "plain", protection={"method": "plain"}, **sections)
    ckks = _run(tmp_path / "ckks", protection={"method": "ckks"}, **sections)
    assert ckks[1].model_hash == plain[1].model_hash
    assert ckks[2] == plain[2]
    assert [r.survivors for r in ckks[1].records] == [r.survivors for r in plain[1].records]


@pytest.mark.parametrize(
    "protection", [{"key_model": "shared_key"}, {"flooding": True}, {"key_model": "threshold"}], ids=str
)
def test_so_is_that_of_every_other_key_model_and_of_flooding(tmp_path, protection):
    plain = _run(tmp_path / "plain", protection={"method": "plain"})
    ckks = _run(tmp_path / "ckks", protection={"method": "ckks", **protection})
    assert ckks[1].model_hash == plain[1].model_hash


def test_rounds_of_the_threshold_model_begin_again_without_those_who_left(tmp_path):
    sections = {"faults": {"dropout": 0.3}, "training": {"rounds": 4}}
    plain = _run(tmp_path / "plain", protection={"method": "plain"}, **sections)
    ckks = _run(tmp_path / "ckks", protection={"method": "ckks", "key_model": "threshold"}, **sections)
    shorter = 0
    for there, here, failed in zip(plain[1].records, ckks[1].records, ckks[2], strict=True):
        if failed is not None:  # whoever leaves after its vector is in the plain sum, and in no n-of-n sum
            assert failed.startswith("TooFewClientsError")
            continue
        assert set(here.survivors) <= set(there.survivors)
        shorter += len(here.survivors) < 5
    assert shorter


def test_noise_of_differential_privacy_goes_through_the_same_integers(tmp_path):
    sections = {
        "data": {"clients": 40},
        "training": {"rounds": 1},
        "privacy": {"epsilon": 50.0, "delta": 1e-2},
        "compression": {"chain": []},
    }
    run, result, failed = _run(tmp_path / "dp", protection={"method": "ckks"}, **sections)
    assert failed == [None]
    assert result.records[-1].privacy.epsilon > 0
    assert run.privacy is not None


def test_the_run_says_what_it_rests_on(tmp_path):
    for model, words in (("key_holder", "only the key holder"), ("shared_key", "any single client reads every update")):
        run = Run(parse(SMALL | {"protection": {"method": "ckks", "key_model": model}}), tmp_path / model)
        assert any(words in line for line in run.headline())


def test_the_plan_states_the_bytes_that_a_run_sends(tmp_path):
    for model in ("key_holder", "shared_key", "threshold"):
        protection = {"method": "ckks", "key_model": model}
        sections = {"compression": {"chain": []}, "protection": protection}
        made = plan(parse(SMALL | sections))
        _ran, result, _failed = _run(tmp_path / model, **sections)
        assert result.records[-1].upload_bytes_per_client == made.upload["ckks"]
        assert result.records[-1].download_bytes_per_client == made.download["ckks"]


def test_a_ciphertext_shorter_than_packed_words_still_has_its_picture(tmp_path):
    sections = {"data": {"clients": 64}, "training": {"rounds": 1}, "compression": {"chain": []}}
    protection = {"method": "ckks", "key_model": "shared_key", "value_bits": 18}
    ran, result, failed = _run(tmp_path, protection=protection, **sections)
    assert failed == [None]
    record, words = result.records[-1], 8 * (ran.parameters + 1) // 2
    assert record.vector_bytes_per_client < words + 72
    assert result.server_view is not None
    assert result.server_view.sent.size == result.server_view.received.size


def test_secure_sum_takes_ckks_and_gives_plains_integers():
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(0, 0.3, (20, 7)).clip(-1, 1) for name in "abcd"}
    arguments = {"clip_range": 1.0, "seed": b"s" * 32, "dropped": {"b"}, "threshold": 2}
    plain = secure_sum(inputs, protect="plain", **arguments)
    for options in ({}, {"key_model": "shared_key"}, {"key_model": "threshold"}, {"flooding": True}):
        ckks = secure_sum(inputs, protect="ckks", **arguments, **options)
        assert ckks.survivors == ("a", "c", "d")
        assert ckks.integers.tolist() == plain.integers.tolist()


def test_values_that_are_not_finite_and_unknown_names_are_refused():
    inputs = {"a": np.array([0.1, np.nan]), "b": np.zeros(2)}
    with pytest.raises(InvalidInputError, match="not finite"):
        secure_sum(inputs, protect="ckks", clip_range=1.0)
    with pytest.raises(ConfigurationError, match="unknown key model"):
        protection_named("ckks", key_model="everyone")
    with pytest.raises(ConfigurationError, match="always flooded"):
        protection_named("ckks", key_model="threshold", flooding=True)
