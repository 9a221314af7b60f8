from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import models
from securefl.fl.seeds import SeedTree

SHAPES = {"mlp": (64,), "logistic": (64,), "cnn": (64,), "next-character": (8,)}


@pytest.mark.parametrize("name", models.NAMES)
def test_bundled_models_are_fixed_by_the_seed(name: str) -> None:
    state = torch.get_rng_state()
    hashes = [
        models.model_hash(
            models.tensors_of(models.build(name, input_shape=SHAPES[name], classes=10, seeds=SeedTree(seed)))
        )
        for seed in (0, 0, 1)
    ]
    assert hashes[0] == hashes[1]
    assert (hashes[0] == hashes[2]) is (name == "logistic")  # that one starts at 0
    assert torch.equal(torch.get_rng_state(), state), "torch's global generator was moved"


def test_next_character_takes_numbers_of_characters() -> None:
    model = models.build("next-character", input_shape=(8,), classes=49, seeds=SeedTree(0))
    scores = model(torch.tensor([[0.0, 48.0, 3, 4, 5, 6, 7, 8], [1.0, 48.0, 3, 4, 5, 6, 7, 8]]))
    assert scores.shape == (2, 49)
    assert not torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (64,), (3, 9, 5)])
def test_shapes(shape: tuple[int, ...]) -> None:
    for name in models.NAMES:
        module = models.build(name, input_shape=shape, classes=4, seeds=SeedTree(0), hidden=(5, 3))
        assert module(torch.zeros(2, *shape)).shape == (2, 4)


def test_parameter_counts() -> None:
    mlp = models.tensors_of(models.mlp(64, [64], 10))
    assert sum(map(np.size, mlp.values())) == 4810
    assert [t.shape for t in mlp.values()] == [(64, 64), (64,), (10, 64), (10,)]
    assert len(models.tensors_of(models.logistic_regression(3, 2))) == 2


def test_any_module() -> None:
    module = models.build(lambda: nn.Linear(3, 2), input_shape=(3,), classes=2, seeds=SeedTree(0))
    again = models.build(lambda: nn.Linear(3, 2), input_shape=(3,), classes=2, seeds=SeedTree(0))
    assert models.model_hash(models.tensors_of(module)) == models.model_hash(models.tensors_of(again))


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("resnet", (64,), {}, "mlp, logistic, cnn"),
        ("cnn", (63,), {}, "takes images"),
        ("cnn", (1, 1, 8, 8), {}, "takes images"),
        ("cnn", (3, 3), {}, "4x4"),
        ("mlp", (4,), {"hidden": (0,)}, "widths"),
    ],
)
def test_bad_models(name: str, shape: tuple[int, ...], options: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        models.build(name, input_shape=shape, classes=10, seeds=SeedTree(0), **options)


class _Odd(nn.Module):
    """A scalar, a frozen, a shared parameter and two buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.first = nn.Linear(3, 3)
        self.second = self.first
        self.register_buffer("table", torch.ones(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def test_only_trainable_parameters_travel() -> None:
    tensors = models.tensors_of(_Odd())
    assert list(tensors) == ["scale", "first.weight", "first.bias"]
    assert tensors["scale"].shape == ()
    assert all(t.dtype == np.float32 for t in tensors.values())


def test_tensors_are_copies_and_load_back() -> None:
    module = models.mlp(4, [3], 2)
    tensors = models.tensors_of(module)
    changed = {name: value + 1 for name, value in tensors.items()}
    for value in changed.values():
        value.setflags(write=False)
    models.load_tensors(module, changed)
    assert not np.array_equal(tensors["1.weight"], changed["1.weight"])
    back = models.tensors_of(module)
    assert all(np.array_equal(back[name], changed[name]) for name in back)


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), nn.InstanceNorm1d(2, track_running_stats=True)]
)
def test_running_statistics_are_refused(module: nn.Module) -> None:
    with pytest.raises(ConfigurationError, match=r"running statistics.*GroupNorm"):
        models.tensors_of(module)


def test_what_has_no_float32_parameters_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no trainable parameters"):
        models.tensors_of(nn.ReLU())
    with pytest.raises(ConfigurationError, match=r"torch.float64.*module.float"):
        models.tensors_of(nn.Linear(2, 2).double())
    models.tensors_of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)))


def test_load_refuses_what_does_not_fit_and_changes_nothing() -> None:
    module = models.mlp(4, [], 2)
    good = models.tensors_of(module)
    before = models.model_hash(good)
    ones = {name: np.ones_like(value) for name, value in good.items()}
    bad = [
        {"1.weight": ones["1.weight"]},
        {**ones, "extra": ones["1.bias"]},
        dict(reversed(ones.items())),
        {**ones, "1.bias": np.ones(3, np.float32)},
        {**ones, "1.bias": np.ones(2, np.float64)},
    ]
    for tensors in bad:
        with pytest.raises(InvalidInputError):
            models.load_tensors(module, tensors)
    assert models.model_hash(models.tensors_of(module)) == before


def test_model_hash_known_answer() -> None:
    digest = hashlib.sha256(b"securefl model v1" + (1).to_bytes(8, "big"))
    for text in (b"w", b"<f4 2x1"):
        digest.update(len(text).to_bytes(8, "big") + text)
    digest.update(bytes.fromhex("0000803f00000040"))  # 1.0, 2.0 little-endian
    assert models.model_hash({"w": np.array([[1.0], [2.0]], np.float32)}) == digest.digest()


def test_model_hash_is_about_content_not_memory() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert models.model_hash({"a": a}) == models.model_hash({"a": np.asfortranarray(a)})
    assert models.model_hash({"a": a}) == models.model_hash({"a": a.astype(">f4")})
    different: list[dict[str, np.ndarray]] = [
        {"b": a},
        {"a": a.reshape(3, 2)},
        {"a": a.astype(np.float64)},
        {"a": a, "b": a},
        {},
        {"a": -a},
    ]
    assert len({models.model_hash(tensors) for tensors in [{"a": a}, *different]}) == 7


@given(st.integers(0, 23), st.integers(0, 31))
def test_model_hash_sees_every_bit(position: int, bit: int) -> None:
    a = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    b = a.copy()
    b.view(np.uint32).reshape(-1)[position] ^= np.uint32(1 << bit)
    assert models.model_hash({"a": a}) != models.model_hash({"a": b})


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, securefl.fl as fl; assert 'FedAvg' in dir(fl) and 'FedAvg' in fl.__all__\n"
        "fl.SeedTree(0); fl.Contribution\n"
        "heavy = {'torch', 'sklearn', 'pydantic'} & set(sys.modules); assert not heavy, heavy\n"
        "fl.Config; assert 'torch' not in sys.modules\n"
        "try: fl.nothing\n"
        "except AttributeError: pass\n"
        "else: raise SystemExit('no AttributeError')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_export_resolves() -> None:
    import securefl.fl as fl

    assert all(getattr(fl, name).__name__ == name for name in fl.__all__)
    assert len(set(fl.__all__)) == len(fl.__all__)


def test_without_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from securefl.errors import MissingExtraError\n"
        "for module in ('models', 'training', 'fedavg'):\n"
        "    try: __import__('securefl.fl.' + module)\n"
        "    except MissingExtraError as error: assert 'torch' in str(error)\n"
        "    else: raise SystemExit(module)\n"
        "sys.modules['pydantic'] = None\n"
        "try: import securefl.fl.config\n"
        "except MissingExtraError as error: assert 'pydantic' in str(error)\n"
        "else: raise SystemExit('config')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
