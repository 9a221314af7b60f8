"""The model, its training and the data, in numpy: one hidden layer on scikit-learn's digits.

Training depends on the model, the partition and the round only, so that the demonstration's server can recompute what
every client must have sent. A real task would use its framework here; nothing of it matters to securefl.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CLASSES, PIXELS, HELD_OUT = 10, 64, 297
Model = dict[str, NDArray[np.float32]]


@lru_cache(maxsize=1)
def _data() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype(np.float32), labels[order]


def rows_of(partition: int, partitions: int) -> slice:
    """A client's examples: the later partitions are larger, so that weights differ."""
    if not 0 <= partition < partitions:
        raise ValueError(
            f"partition-id {partition}: the digits were shared out among the {partitions} clients that were there when "
            "the run began, so the ids are 0 to one less; wait for all with nodes=…"
        )
    total = len(_data()[1]) - HELD_OUT
    edges = np.cumsum([0, *(p + 4 for p in range(partitions))]) * total // sum(p + 4 for p in range(partitions))
    return slice(int(edges[partition]), int(edges[partition + 1]))


def examples_of(partition: int, partitions: int) -> int:
    """How many examples the client has."""
    rows = rows_of(partition, partitions)
    return rows.stop - rows.start


def initial_model(hidden: int) -> Model:
    """Small random weights, the same on every call."""
    draw = np.random.default_rng(1)
    first = draw.normal(0, PIXELS**-0.5, (PIXELS, hidden))
    last = draw.normal(0, hidden**-0.5, (hidden, CLASSES))
    zeros = np.zeros(hidden), np.zeros(CLASSES)
    return {n: a.astype(np.float32) for n, a in {"w1": first, "b1": zeros[0], "w2": last, "b2": zeros[1]}.items()}


def _forward(model: Model, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    inner = np.maximum(x @ model["w1"] + model["b1"], 0)
    scores = inner @ model["w2"] + model["b2"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return inner, scores / scores.sum(axis=1, keepdims=True)


def train(model: Model, partition: int, partitions: int, round: int, steps: int, rate: float) -> tuple[Model, float]:
    """The model after ``steps`` of gradient descent on batches of 32, and the last batch's loss."""
    images, labels = _data()
    rows = rows_of(partition, partitions)
    model = {name: value.copy() for name, value in model.items()}
    draw = np.random.default_rng([partition, round])
    loss = 0.0
    for _ in range(steps):
        batch = draw.integers(rows.start, rows.stop, 32)
        x, y = images[batch], labels[batch]
        inner, chances = _forward(model, x)
        loss = float(-np.log(np.maximum(chances[np.arange(32), y], 1e-9)).mean())
        error = (chances - np.eye(CLASSES, dtype=np.float32)[y]) / np.float32(32)
        back = (error @ model["w2"].T) * (inner > 0)
        gradients = {"w1": x.T @ back, "b1": back.sum(axis=0), "w2": inner.T @ error, "b2": error.sum(axis=0)}
        for name, gradient in gradients.items():
            model[name] -= np.float32(rate) * gradient
    return model, loss


def accuracy(model: Model) -> float:
    """On the held-out examples."""
    images, labels = _data()
    return float((_forward(model, images[-HELD_OUT:])[1].argmax(axis=1) == labels[-HELD_OUT:]).mean())
