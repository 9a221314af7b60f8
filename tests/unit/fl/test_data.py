from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from securefl.errors import ConfigurationError, InvalidInputError, MissingExtraError
from securefl.fl.data import Dataset, from_arrays, from_torch, load
from securefl.fl.seeds import SeedTree

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("name", "n", "shape", "classes"), [("digits", 1797, (64,), 10), ("breast-cancer", 569, (30,), 2)]
)
def test_bundled(name: str, n: int, shape: tuple[int, ...], classes: int) -> None:
    train, test = load(name, SeedTree(0))
    assert len(train) + len(test) == n
    assert len(test) / n == pytest.approx(0.2, abs=0.01)
    assert train.input_shape == test.input_shape == shape
    assert train.classes == test.classes == classes
    assert train.inputs.dtype == np.float32
    assert train.targets.dtype == np.int64
    # stratified: the shares of the classes agree on both sides
    shares = [np.bincount(part.targets, minlength=classes) / len(part) for part in (train, test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.01
    assert np.abs(train.inputs.mean(axis=0)).max() < 1e-5  # centred on the training split


def test_breast_cancer_is_standardised() -> None:
    train, _ = load("breast-cancer", SeedTree(0))
    assert train.inputs.std(axis=0) == pytest.approx(1.0, abs=1e-4)


def test_split_is_fixed_by_the_seed() -> None:
    first, again, other = (load("digits", SeedTree(seed))[1] for seed in (1, 1, 2))
    assert np.array_equal(first.inputs, again.inputs)
    assert not np.array_equal(first.targets, other.targets)


def test_unknown_names_and_fractions() -> None:
    with pytest.raises(ConfigurationError, match=r"mnist.*digits, breast-cancer"):
        load("mnist", SeedTree(0))
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigurationError, match="test_fraction"):
            load("digits", SeedTree(0), test_fraction=fraction)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match="scikit-learn"):
        load("digits", SeedTree(0))


def test_from_arrays_converts_what_loses_nothing_that_matters() -> None:
    dataset = from_arrays(X.astype(np.float64), Y.astype(np.int8), name="mine")
    assert dataset.inputs.dtype == np.float32
    assert dataset.targets.dtype == np.int64
    assert (dataset.classes, dataset.name, len(dataset)) == (3, "mine", 6)
    assert from_arrays(X, Y, classes=5).classes == 5
    assert np.shares_memory(from_arrays(X, Y).inputs, X)
    part = dataset.subset(np.array([5, 0]))
    assert part.targets.tolist() == [2, 0]
    assert part.classes == 3


BAD: list[tuple[Callable[[], Dataset], str]] = [
    (lambda: from_arrays(np.where(X == 3, np.nan, X), Y), "NaN"),
    (lambda: from_arrays(np.where(X == 3, np.inf, X), Y), "infinite"),
    (lambda: from_arrays(np.full((6, 2), 1e300), Y), "infinite"),
    (lambda: from_arrays(X[:0], Y[:0]), "empty"),
    (lambda: from_arrays(np.zeros((6, 0), np.float32), Y), "empty"),
    (lambda: from_arrays(X[:5], Y), "5 inputs but 6 targets"),
    (lambda: from_arrays(X.astype(np.int64), Y), "floating point, not int64"),
    (lambda: from_arrays(X.astype(np.complex64), Y), "floating point"),
    (lambda: from_arrays(X, Y.astype(np.float32)), "integers"),
    (lambda: from_arrays(X, Y == 1), "integers"),
    (lambda: from_arrays(X, Y - 1), r"\[0, 2\)"),
    (lambda: from_arrays(X, Y, classes=2), r"\[0, 2\)"),
    (lambda: from_arrays(X, np.zeros(6, np.int64)), "at least 2 classes"),
    (lambda: from_arrays(X, Y.reshape(6, 1)), "shape"),
    (lambda: from_arrays(X[:, 0], Y), "shape"),
    (lambda: Dataset(X.astype(np.float64), Y, 3, "x"), "from_arrays converts"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_arrays(make: Callable[[], Dataset], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


class _Pairs(torch.utils.data.Dataset[tuple[object, object]]):
    def __init__(self, items: list[tuple[object, object]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[object, object]:
        return self.items[index]


def test_from_torch() -> None:
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    fast = from_torch(torch.utils.data.TensorDataset(x, y))
    slow = from_torch(_Pairs([(x[i], y[i] if i % 2 else int(y[i])) for i in range(6)]), name="pairs")
    assert np.array_equal(fast.inputs, X)
    assert np.array_equal(fast.targets, Y)
    assert np.array_equal(slow.inputs, X)
    assert np.array_equal(slow.targets, Y)
    assert slow.name == "pairs"


@pytest.mark.parametrize(
    "items",
    [[], [(X[0], "cat")], [(X[0], 1), (X[:, 0], 0)], [(X[0],)], [(X[0], None)]],
    ids=lambda items: str(len(items)),
)
def test_bad_torch_datasets(items: list[tuple[object, object]]) -> None:
    with pytest.raises(InvalidInputError):
        from_torch(_Pairs(items))


# ---------------------------------------------------------------------------------------- data without a download


def test_fraud_is_rare_and_banks_differ() -> None:
    train, test = load("fraud", SeedTree(0))
    assert len(train) + len(test) == 8000
    assert train.input_shape == (12,)
    assert train.groups is not None
    rates = [float(train.targets[train.groups == bank].mean()) for bank in range(8)]
    assert 0.01 < min(rates) < max(rates) < 0.1
    assert max(rates) > 1.5 * min(rates)
    amounts = [float(train.inputs[train.groups == bank, 5].mean()) for bank in range(8)]
    assert max(amounts) - min(amounts) > 0.5


def test_fraud_is_made_by_the_seed() -> None:
    first, again, other = (load("fraud", SeedTree(seed))[0].inputs for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_text_is_that_of_python() -> None:
    from pydoc_data.topics import topics

    train, test = load("text", SeedTree(0))
    assert train.input_shape == (8,)
    assert train.classes == 49
    whole = "".join(topics.values()).lower()
    assert 0.9 * len(whole) / 11 < len(train) + len(test) < 1.1 * len(whole) / 11
    assert float(train.inputs.max()) <= 48
    assert train.inputs.min() == 0
    assert np.all(train.inputs == np.round(train.inputs))
    share = np.bincount(train.targets, minlength=49).argmax()
    assert share == 0  # the most frequent character, a space, has the first number
    assert train.groups is not None
    assert len(np.unique(train.groups)) == len(topics)


def test_subsets_keep_their_groups() -> None:
    train, _ = load("fraud", SeedTree(0))
    assert train.groups is not None
    part = train.subset(np.array([3, 5]))
    assert part.groups is not None
    assert part.groups.tolist() == train.groups[[3, 5]].tolist()
    with pytest.raises(InvalidInputError, match="groups"):
        dataclasses.replace(train, groups=np.zeros(3, np.int64))
