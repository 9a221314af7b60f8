"""Datasets for classification: some that need no network, and the user's own arrays.

``digits`` and ``breast-cancer`` come with scikit-learn, ``text`` (next character) with Python itself; ``fraud`` is
**synthetic**, made by a generator (:mod:`securefl.fl.bundled`).

Inputs are scaled by statistics of the training split that count as public: for ``digits`` each pixel's mean is
subtracted and the rest divided by 2; for ``breast-cancer`` each feature is standardised (mean 0, standard deviation 1).
A deployment has no pooled training split: it takes published constants, or computes the sums with ``secure_sum``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securefl.errors import ConfigurationError, InvalidInputError, MissingExtraError
from securefl.fl import bundled
from securefl.fl.seeds import SeedTree

__all__ = ["BUNDLED", "Dataset", "from_arrays", "from_torch", "load"]

#: One divisor for all pixels (values 0 .. 16): dividing each by its own deviation blows up those at the border that are
#: nearly always 0. With 2 rather than the overall deviation, 6, plain SGD at learning rate 0.1 gets there in 30 rounds.
_DIGITS_DIVISOR: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Labelled examples.

    ``inputs``: float32[n, ...], finite. ``targets``: int64[n], values in [0, classes). ``classes``: >= 2.
    ``groups``: int64[n], which document, bank or person an example is from, where the data say so.
    Raises :class:`~securefl.errors.InvalidInputError` when the arrays break one of these. Build it with
    :func:`from_arrays`, which converts where nothing is lost.
    """

    inputs: NDArray[np.float32] = field(repr=False)
    targets: NDArray[np.int64] = field(repr=False)
    classes: int
    name: str
    groups: NDArray[np.int64] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.inputs.dtype != np.float32 or self.targets.dtype != np.int64:
            raise InvalidInputError(
                f"a Dataset holds float32 inputs and int64 targets, not {self.inputs.dtype} and {self.targets.dtype}; "
                "from_arrays converts"
            )
        if self.targets.ndim != 1 or self.inputs.ndim < 2:
            raise InvalidInputError(
                "inputs have shape [n, ...] with at least one value per example and targets have shape [n], "
                f"not {self.inputs.shape} and {self.targets.shape}"
            )
        if len(self.inputs) != len(self.targets):
            raise InvalidInputError(f"{len(self.inputs)} inputs but {len(self.targets)} targets")
        if self.groups is not None and (self.groups.shape != self.targets.shape or self.groups.dtype != np.int64):
            raise InvalidInputError("groups are int64, one per example")
        if self.inputs.size == 0:
            raise InvalidInputError(f"the dataset {self.name!r} is empty")
        if not np.isfinite(self.inputs).all():
            raise InvalidInputError(f"the inputs of {self.name!r} contain NaN or infinite values")
        if self.classes < 2:
            raise InvalidInputError(f"classification needs at least 2 classes, not {self.classes}")
        if self.targets.min() < 0 or self.targets.max() >= self.classes:
            raise InvalidInputError(f"targets of {self.name!r} must lie in [0, {self.classes})")

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.inputs.shape[1:]

    def subset(self, indices: NDArray[np.int64]) -> Dataset:
        """A copy of the examples at ``indices``, with all classes of this dataset."""
        groups = None if self.groups is None else self.groups[indices]
        return Dataset(self.inputs[indices], self.targets[indices], self.classes, self.name, groups)


def from_arrays(inputs: ArrayLike, targets: ArrayLike, *, classes: int | None = None, name: str = "custom") -> Dataset:
    """A dataset of your own arrays.

    ``inputs``: floating point [n, ...]; integers are refused, since raw counts and pixels are rarely what a model
    should see: scale them first. ``targets``: integers [n] from 0. ``classes``: by default ``max(targets) + 1``;
    give it where a split may lack the last class. Arrays that already are float32 and int64 are not copied.
    Raises :class:`~securefl.errors.InvalidInputError` for NaN, infinity (also after rounding to float32), nothing at
    all, lengths that differ, and other dtypes.
    """
    x, y = np.asarray(inputs), np.asarray(targets)
    if not np.issubdtype(x.dtype, np.floating):
        raise InvalidInputError(f"inputs must be floating point, not {x.dtype}; scale and convert them to float32")
    if not np.issubdtype(y.dtype, np.integer):
        raise InvalidInputError(f"targets must be integers (class numbers from 0), not {y.dtype}")
    if x.size == 0 or y.size == 0:
        raise InvalidInputError(f"the dataset {name!r} is empty")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which Dataset refuses by name
        x32 = np.ascontiguousarray(x, dtype=np.float32)
    y64 = np.ascontiguousarray(y, dtype=np.int64)
    return Dataset(x32, y64, int(y64.max()) + 1 if classes is None else classes, name)


class _TorchDataset(Protocol):
    """The face of ``torch.utils.data.Dataset`` with a length; torch itself is not needed here."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def from_torch(dataset: _TorchDataset, *, classes: int | None = None, name: str = "custom") -> Dataset:
    """A dataset from a map-style torch Dataset of ``(input, target)`` pairs: the transform, if any, is applied once.

    Raises :class:`~securefl.errors.InvalidInputError` as :func:`from_arrays`, and for items that are not pairs of
    arrays of one shape.
    """
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) == 2:  # TensorDataset: no need to take it apart
        return from_arrays(tensors[0], tensors[1], classes=classes, name=name)
    try:
        pairs = [(np.asarray(x), int(y)) for x, y in (dataset[i] for i in range(len(dataset)))]
        inputs = np.stack([x for x, _ in pairs]) if pairs else np.empty(0, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            f"the items of {name!r} must be (input array of one shape, integer target): {error}"
        ) from error
    return from_arrays(inputs, np.array([y for _, y in pairs], np.int64), classes=classes, name=name)


def load(name: str, seeds: SeedTree, *, test_fraction: float = 0.2) -> tuple[Dataset, Dataset]:
    """A bundled dataset as (train, test), by the names in ``BUNDLED``.

    ``digits``: 1797 x 64, 10 classes. ``breast-cancer``: 569 x 30, 2 classes. ``fraud``: 8000 x 12 synthetic
    transactions of 8 banks, 2 classes, about one in twenty a fraud. ``text``: 8 characters and the one that follows,
    49 classes, in the documents that come with Python's ``pydoc``; their text differs between versions of Python.

    The split is stratified (every class is divided by ``test_fraction``, 0 < test_fraction < 1) and fixed by
    ``seeds``. Raises :class:`~securefl.errors.ConfigurationError` for other names and fractions and
    :class:`~securefl.errors.MissingExtraError` without scikit-learn.
    """
    if name not in BUNDLED:
        raise ConfigurationError(f"no dataset {name!r}; bundled are {', '.join(BUNDLED)}; from_arrays takes your own")
    if not 0 < test_fraction < 1:
        raise ConfigurationError(f"test_fraction lies between 0 and 1, not {test_fraction}")
    load_raw, scale = BUNDLED[name]
    raw, targets, groups = load_raw(seeds)
    test = _stratified(targets, test_fraction, seeds.child("split").numpy())
    inputs = scale(raw, raw[~test])
    classes = int(targets.max()) + 1
    train_set, test_set = (
        Dataset(
            np.ascontiguousarray(inputs[part], dtype=np.float32),
            np.ascontiguousarray(targets[part], dtype=np.int64),
            classes,
            name,
            None if groups is None else groups[part],
        )
        for part in (~test, test)
    )
    return train_set, test_set


def _stratified(targets: NDArray[np.integer], fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool[n]: who is in the test set. At least one example of each class on either side, given two."""
    chosen = np.zeros(len(targets), dtype=np.bool_)
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        chosen[members[:count]] = True
    return chosen


def _centre_pixels(raw: NDArray[np.float64], train: NDArray[np.float64]) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = (raw - train.mean(axis=0)) / _DIGITS_DIVISOR
    return centred


def _standardise(raw: NDArray[np.float64], train: NDArray[np.float64]) -> NDArray[np.float64]:
    mean, stddev = train.mean(axis=0), train.std(axis=0)
    scaled: NDArray[np.float64] = (raw - mean) / np.where(stddev > 0, stddev, 1.0)
    return scaled


def _as_they_are(raw: NDArray[np.float64], train: NDArray[np.float64]) -> NDArray[np.float64]:
    return raw


def _sklearn(function: str) -> Callable[[SeedTree], bundled.Raw]:
    def load_raw(seeds: SeedTree) -> bundled.Raw:
        try:
            source = import_module("sklearn.datasets")
        except ImportError as error:
            raise MissingExtraError("this dataset needs scikit-learn: pip install 'securefl[torch]'") from error
        raw, targets = getattr(source, function)(return_X_y=True)
        return raw, targets, None

    return load_raw


#: (all examples, training examples) -> all examples, scaled.
_Scale = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]

#: Name -> (what gives inputs, targets and groups; scaling).
BUNDLED: Final[dict[str, tuple[Callable[[SeedTree], bundled.Raw], _Scale]]] = {
    "digits": (_sklearn("load_digits"), _centre_pixels),
    "breast-cancer": (_sklearn("load_breast_cancer"), _standardise),
    "fraud": (bundled.fraud, _standardise),
    "text": (bundled.next_characters, _as_they_are),
}
