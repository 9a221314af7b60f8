"""How much a server's view gives away, as figures: run the attacks that a curious server would run. [torch]

- **reconstruction**: a decoder is trained on leaked pairs (view, input) and judged on others: correlation of its
  guesses with the truth (1: it sees the input; 0: no better than the mean). Ridge regression and a two-layer network;
  the better.
- **distance correlation** between view and input [Székely, Rizzo, Bakirov 2007; Vepakomma et al. 2019], the unbiased
  estimate, so that independent ones give 0 whatever the widths.
- **label AUC** from what the server holds of the gradients, one class against the rest, mean over the classes: a
  classifier trained on leaked pairs; without pairs the gradient's norm [Li et al. 2022] and, where the server's values
  are as many as the classes, their sign (the gradient of cross-entropy is negative at the label only); the best.
  0.5 is guessing.

They measure these attacks, not the best there is: a low figure is no proof, a high one is a leak. What a mode *proves*
is in docs/split.md. Pairs are leaked for half of the examples; the figures are from the other half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from securefl.errors import InvalidInputError
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree
from securefl.fl.training import torch_threads

__all__ = [
    "LeakageFigures",
    "area_under_curve",
    "correlation",
    "decode",
    "distance_correlation",
    "label_auc",
    "leakage_of",
]

_STEPS = 300
_LEAST = 20


@dataclass(frozen=True, slots=True)
class LeakageFigures:
    """``reconstruction``: correlation in [−1, 1]. ``distance_correlation``: at most 1. ``label_auc``: in [0, 1].

    ``label_auc`` is ``None`` where the server was given the labels: it need not attack.
    """

    reconstruction: float
    distance_correlation: float
    label_auc: float | None


def leakage_of(
    view: NDArray[np.float64], gradient_view: NDArray[np.float64] | None, data: Dataset, seeds: SeedTree
) -> LeakageFigures:
    """The figures of one view.

    ``view``: float64[n, k] of the activations' payloads, ``gradient_view``: float64[n, m] of the gradients' payloads or
    ``None``; row i belongs to example i of ``data``. Raises :class:`InvalidInputError` for fewer than 40 examples.
    """
    inputs = data.inputs.reshape(len(data), -1).astype(np.float64)
    if len(view) != len(data) or len(data) < 2 * _LEAST:
        raise InvalidInputError(f"figures need a view of each of at least {2 * _LEAST} examples")
    known, hidden = _halves(len(data), seeds)
    guesses = decode(view[known], inputs[known], view[hidden], seeds)
    auc = None if gradient_view is None else label_auc(gradient_view, data.targets, known, hidden, seeds)
    return LeakageFigures(
        reconstruction=max(correlation(guess, inputs[hidden], inputs[known].mean(axis=0)) for guess in guesses),
        distance_correlation=distance_correlation(view[hidden], inputs[hidden]),
        label_auc=auc,
    )


def decode(
    view: NDArray[np.float64], inputs: NDArray[np.float64], other: NDArray[np.float64], seeds: SeedTree
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Guesses of the inputs behind ``other``: by ridge regression, and by a network, from (``view``, ``inputs``)."""
    mean, spread = view.mean(axis=0), np.maximum(view.std(axis=0), 1e-12)
    x, z = (view - mean) / spread, (other - mean) / spread
    base = inputs.mean(axis=0)
    penalty = 1e-2 * len(x) * np.eye(x.shape[1]) if x.shape[1] <= len(x) else None
    if penalty is not None:
        ridge = z @ np.linalg.solve(x.T @ x + penalty, x.T @ (inputs - base)) + base
    else:  # the same by the kernel trick
        ridge = z @ x.T @ np.linalg.solve(x @ x.T + 1e-2 * len(x) * np.eye(len(x)), inputs - base) + base
    network = nn.Sequential(nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Linear(256, inputs.shape[1]))
    target = torch.from_numpy((inputs - base).astype(np.float32))
    _fit(network, torch.from_numpy(x.astype(np.float32)), lambda out: mse_loss(out, target), seeds.child("decoder"))
    with torch.no_grad():
        deep = network(torch.from_numpy(z.astype(np.float32))).numpy().astype(np.float64) + base
    return ridge, deep


def distance_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The bias-corrected distance correlation of paired rows; about 0 for independent ones, 1 for isometric ones.

    Signed square root of the U-statistic [Székely & Rizzo 2014]. O(n²) time and memory.
    """
    centred = [_u_centred(rows) for rows in (a, b)]
    n = len(a)
    cov, var_a, var_b = (
        float((x * y).sum()) / (n * (n - 3))
        for x, y in ((centred[0], centred[1]), (centred[0], centred[0]), (centred[1], centred[1]))
    )
    squared = cov / np.sqrt(var_a * var_b) if var_a > 0 and var_b > 0 else 0.0
    return float(np.sign(squared) * np.sqrt(abs(squared)))


def label_auc(
    gradients: NDArray[np.float64],
    labels: NDArray[np.int64],
    known: NDArray[np.int64],
    hidden: NDArray[np.int64],
    seeds: SeedTree,
) -> float:
    """Mean over the classes of the area under the curve, one against the rest; the best of the three attacks."""
    classes = int(labels.max()) + 1
    mean, spread = gradients[known].mean(axis=0), np.maximum(gradients[known].std(axis=0), 1e-12)
    x = torch.from_numpy(((gradients - mean) / spread).astype(np.float32))
    network = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, classes))
    target = torch.from_numpy(labels[known])
    _fit(network, x[known], lambda out: cross_entropy(out, target), seeds.child("labels"))
    with torch.no_grad():
        scores = torch.log_softmax(network(x[hidden]), dim=1).numpy()
    norms = np.linalg.norm(gradients[hidden], axis=1)
    trained, by_norm, by_sign = [], [], []
    as_many = gradients.shape[1] == classes
    for label in np.unique(labels[hidden]):
        positive = labels[hidden] == label
        if positive.all():
            continue
        trained.append(area_under_curve(scores[:, label], positive))
        by_norm.append(area_under_curve(norms, positive))
        by_sign.append(area_under_curve(-gradients[hidden, label], positive) if as_many else 0.5)
    if classes > 2:  # over many classes the norm's two directions cancel; for two they are one figure
        return float(max(np.mean(trained), np.mean(by_norm), np.mean(by_sign)))
    return float(max(np.mean(trained), np.max(by_norm), np.mean(by_sign)))


def area_under_curve(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """The probability that a positive scores above a negative, ties half. Pre-condition: both kinds are there."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n = int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def _fit(network: nn.Module, x: torch.Tensor, loss: Callable[[torch.Tensor], torch.Tensor], seed: SeedTree) -> None:
    with torch_threads(1), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed.torch_seed())
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
        for _ in range(_STEPS):
            optimizer.zero_grad()
            loss(network(x)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def correlation(guess: NDArray[np.float64], truth: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    """Of the deviations from the mean input, over all values of all examples."""
    x, y = (guess - mean).ravel(), (truth - mean).ravel()
    norm = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / norm) if norm > 0 else 0.0


def _halves(count: int, seeds: SeedTree) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order = seeds.child("leaked").numpy().permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _u_centred(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    squared = np.square(rows).sum(axis=1)
    distances = np.sqrt(np.maximum(squared[:, None] + squared - 2 * rows @ rows.T, 0.0))
    np.fill_diagonal(distances, 0.0)
    n = len(rows)
    each = distances.sum(axis=1) / (n - 2)
    centred = distances - each[:, None] - each[None] + distances.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(centred, 0.0)
    return np.asarray(centred, dtype=np.float64)
