from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.errors import ConfigurationError
from securefl.fl.config import Config, load, parse

#: The document that spells out every default [design, section 5].
DEFAULTS = """
[data]
dataset = "digits"
clients = 20
partition = "dirichlet"
alpha = 0.5
seed = 0
[model]
name = "mlp"
hidden = [64]
[training]
rounds = 30
local_epochs = 1
batch_size = 16
learning_rate = 0.1
server_learning_rate = 1.0
optimizer = "sgd"
[protection]
method = "masked"
value_bits = 16
clip_range = 1.0
threshold = 0.6
suite = "mlkem768-x25519"
[faults]
dropout = 0.0
"""


def _load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_an_empty_file_is_the_bundled_run(tmp_path: Path) -> None:
    assert load(None) == Config() == _load(tmp_path, "") == parse({})
    assert _load(tmp_path, DEFAULTS) == Config()
    assert _load(tmp_path, DEFAULTS).digest() == Config().digest()
    assert Config().protection.max_weight is None


def test_values_arrive(tmp_path: Path) -> None:
    config = _load(
        tmp_path,
        """
        [data]
        dataset = "breast-cancer"
        clients = 5
        [model]
        hidden = [32, 16]
        [training]
        learning_rate = 1
        [protection]
        method = "plain"
        threshold = 3
        max_weight = 500
        [faults]
        dropout = 0.1
        """,
    )
    assert (config.data.dataset, config.data.clients, config.model.hidden) == ("breast-cancer", 5, (32, 16))
    assert config.training.learning_rate == 1.0
    assert isinstance(config.training.learning_rate, float)
    assert config.protection.threshold == 3
    assert config.protection.max_weight == 500
    assert config.faults.dropout == 0.1
    assert config.digest() != Config().digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\ncleints = 3", r"unknown key 'cleints' in section \[data\]; did you mean 'clients'\?"),
        ("[data]\nrounds = 3", r"unknown key 'rounds' in section \[data\]; it belongs in \[training\]"),
        (
            "[data]\nzzz = 3",
            r"unknown key 'zzz' in section \[data\]; there are dataset, clients, partition, alpha",
        ),
        ("[trainning]\nrounds = 3", r"unknown section or top-level key 'trainning'; did you mean \[training\]\?"),
        ("rounds = 3", r"top-level key 'rounds'; 'rounds' belongs in \[training\]"),
        ("[zzz]", r"'zzz'; there are \[data\], \[model\]"),
        ("[protection.deep]\nx = 1", r"unknown key 'deep' in section \[protection\]"),
        ("data = 3", r"\[data\] must be a table"),
        ("[[data]]\nclients = 3", r"\[data\] must be a table"),
        ("[data]\nclients = 1", r"\[data\] clients = 1: input should be greater than or equal to 2"),
        ('[data]\nclients = "20"', r"\[data\] clients = '20': input should be a valid integer"),
        ("[data]\nclients = true", r"\[data\] clients = True"),
        ("[data]\nclients = 2.0", r"\[data\] clients = 2.0"),
        ('[data]\ndataset = "mnist"', r"\[data\] dataset = 'mnist': input should be 'digits', 'breast-cancer'"),
        ("[data]\nalpha = 0", r"\[data\] alpha"),
        ("[data]\nalpha = inf", r"\[data\] alpha = inf"),
        ("[data]\nseed = -1", r"\[data\] seed = -1"),
        ('[data]\npartition = "iid"\nalpha = 0.5', r"\[data\] alpha has no effect with partition = 'iid'"),
        ('[model]\nname = "cnn"\nhidden = [3]', r"\[model\] hidden has no effect with name = 'cnn'"),
        ("[model]\nhidden = [64, 0]", r"\[model\] hidden = 0"),
        ("[model]\nhidden = 64", r"\[model\] hidden = 64: input should be a valid tuple"),
        ("[training]\nrounds = 0", r"\[training\] rounds = 0"),
        ("[training]\nlearning_rate = nan", r"\[training\] learning_rate = nan"),
        ("[training]\nlearning_rate = -0.1", r"\[training\] learning_rate = -0.1"),
        ('[training]\noptimizer = "lion"', r"\[training\] optimizer = 'lion'"),
        ('[protection]\nkey_model = "none"', r"\[protection\] key_model = 'none': input should be 'key_holder'"),
        (
            '[protection]\nmethod = "none"',
            r"\[protection\] method = 'none': input should be 'masked', 'ckks', 'shared' or 'plain'",
        ),
        ("[protection]\nthreshold = 1", r"threshold = 1: must be a fraction in \(0, 1\] or a count of at least 2"),
        ("[protection]\nthreshold = 0.0", "threshold = 0.0: must be a fraction"),
        ("[protection]\nthreshold = 1.5", "threshold = 1.5: must be a fraction"),
        ('[protection]\nthreshold = "all"', "threshold = 'all': must be a fraction"),
        ("[protection]\nthreshold = true", "threshold = True: must be a fraction"),
        ("[protection]\nthreshold = 21", r"\[protection\] threshold = 21 is more than \[data\] clients = 20"),
        ("[protection]\nvalue_bits = 33", r"\[protection\] value_bits = 33"),
        ("[protection]\nclip_range = 0", r"\[protection\] clip_range = 0"),
        ('[protection]\nsuite = "rot13"', r"\[protection\] suite = 'rot13'"),
        ("[protection]\nmax_weight = 0", r"\[protection\] max_weight = 0"),
        ("[faults]\ndropout = 1.0", r"\[faults\] dropout = 1.0"),
        ("[training]\nrounds = 0\nbatch_size = 0", r"\[training\] rounds = 0.*\(and 1 more\)"),
        ("[privacy]\nepsilon = 0.0", r"\[privacy\] epsilon"),
        ("[privacy]\ndelta = 1.0", r"\[privacy\] delta"),
        ("[privacy]\nsampling_probability = 1.5", r"\[privacy\] sampling_probability"),
        ("[privacy]\nepsilom = 8.0", r"did you mean 'epsilon'"),
        ('[privacy]\nnoise = "local"\nadaptive = true', r"adaptive needs a sum"),
        ('[privacy]\nnoise = "central"\ncolluders = 1', r"colluders is for"),
        ('[privacy]\nunit = "example"\nnoise = "central"', r"DP-SGD"),
        ("[privacy]\ntarget_quantile = 0.3", r"no effect"),
        ("[split]\nbits = 4", r"bits has no effect"),
        ("[data]\nclients = = 3", r"not valid TOML: .*line 2"),
        ("[data]\nseed = 1\nseed = 2\n", r"not valid TOML: .*line 3"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        _load(tmp_path, text)
    assert "run.toml" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read .*missing\.toml: No such file"):
        load(tmp_path / "missing.toml")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(tmp_path / "latin.toml")


def test_overrides() -> None:
    config = parse({"data": {"partition": "iid"}, "model": {"hidden": [8]}})
    changed = config.with_overrides(protect="plain", rounds=2, clients=4, seed=7)
    assert (changed.protection.method, changed.training.rounds, changed.data.clients) == ("plain", 2, 4)
    assert changed.data.seed == 7
    assert changed.data.partition == "iid"
    assert changed.model.hidden == (8,)
    assert config.with_overrides() == config
    assert config.training.rounds == 30
    for options, message in [
        ({"protect": "rot13"}, "'rot13': input should be 'masked'"),
        ({"rounds": 0}, r"\[training\] rounds = 0"),
        ({"clients": 1}, r"\[data\] clients = 1"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            config.with_overrides(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="threshold = 3 is more than"):
        parse({"protection": {"threshold": 3}}).with_overrides(clients=2)


@pytest.mark.parametrize(
    ("threshold", "clients", "count"),
    [(0.6, 20, 12), (0.55, 20, 11), (0.6, 5, 3), (0.6, 7, 5), (1.0, 20, 20), (1e-9, 20, 2), (2, 20, 2), (20, 20, 20)],
)
def test_threshold_as_a_count(threshold: float, clients: int, count: int) -> None:
    assert parse({"protection": {"threshold": threshold}}).protection.threshold_count(clients) == count


@given(st.lists(st.integers(1, 2**31), min_size=1, max_size=5))
def test_default_max_weight_is_the_smallest_power_of_two(weights: list[int]) -> None:
    bound = Config().protection.max_weight_for(weights)
    assert bound.bit_count() == 1
    assert bound >= max(weights)
    assert bound == 1 or bound // 2 < max(weights)


def test_given_max_weight() -> None:
    protection = parse({"protection": {"max_weight": 100}}).protection
    assert protection.max_weight_for([100, 3]) == 100
    with pytest.raises(ConfigurationError, match="max_weight = 100 but a client holds 101"):
        protection.max_weight_for([101, 3])


def test_digest_is_stable_and_sees_every_section() -> None:
    changes: list[dict[str, dict[str, object]]] = [
        {},
        {"data": {"seed": 1}},
        {"model": {"hidden": [65]}},
        {"training": {"rounds": 31}},
        {"protection": {"value_bits": 15}},
        {"faults": {"dropout": 0.01}},
    ]
    assert len({parse(change).digest() for change in changes}) == len(changes)
    assert len(Config().digest()) == 64


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().data.clients = 3
