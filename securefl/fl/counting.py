"""A private test: the global model on clients' own data, of which only the number of right answers is opened.

The owner of the model shares its weights, every client its examples and labels, among three parties; they run the model
on shares and count. SPEC robust §5. With noise, the count is differentially private per example.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.cluster.importing import import_module
from securefl.cluster.threads import run_parties
from securefl.dp.events import DiscreteGaussian, Event
from securefl.dp.sampler import LOG2_DISTANCE, noise_table
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.mpc.fixed import FRACTION, encode
from securefl.mpc.gemm import Words
from securefl.mpc.graph import check_headroom
from securefl.mpc.network import Network
from securefl.mpc.party import Party
from securefl.mpc.robust import count_correct
from securefl.mpc.shared import Shared

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CorrectCount", "private_test"]

_LEAST = Fraction(1, 1024)


@dataclass(frozen=True, slots=True)
class CorrectCount:
    """``correct``: the opened count, with its noise. ``examples``: over how many, which is public.

    ``noise_stddev``: of the count, all servers together. ``event``: what the opening released, for a ledger, with the
    noise of one server only, since the other knows its own; ``None`` without noise: the count is exact.
    """

    correct: int
    examples: int
    noise_stddev: float = 0.0
    event: Event | None = None

    @property
    def accuracy(self) -> float:
        """In [0, 1] without noise."""
        return self.correct / self.examples


def private_test(
    model: nn.Module,
    examples: Sequence[tuple[NDArray[np.floating], NDArray[np.integer]]],
    *,
    noise_multiplier: float | None = None,
    input_range: float = 16.0,
) -> CorrectCount:
    """Count the right answers of ``model`` over every client's (inputs, class numbers), on shares.

    ``noise_multiplier``: σ of the discrete Gaussian noise that *each* server adds; one example changes the count by at
    most 1. ``input_range``: the largest size of an input. The parties learn the model's graph and the shapes.

    Raises :class:`ConfigurationError` for a model that cannot run on shares or a noise multiplier that is not positive,
    and :class:`InvalidInputError` for inputs beyond their range, labels beyond the classes, or no examples.
    """
    if noise_multiplier is not None and not 0 < noise_multiplier <= 2**14:
        raise ConfigurationError(f"noise_multiplier is above 0 and at most 2^14, not {noise_multiplier}")
    imported = import_module(model)
    check_headroom(imported.graph, input_range)
    given = [(np.asarray(x, dtype=np.float64), np.asarray(y)) for x, y in examples if len(y)]
    if not given or any(len(x) != len(y) or y.ndim != 1 or y.dtype.kind not in "iu" for x, y in given):
        raise InvalidInputError("every client gives inputs and as many class numbers, and one of them has examples")
    inputs = [_shares(encode(x, limit=input_range)) for x, _ in given]
    labels = np.concatenate([y for _, y in given])
    classes = _classes(model, given[0][0][:1])
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InvalidInputError(f"class numbers are 0 to {classes - 1}")
    targets = _shares(np.eye(classes, dtype=np.uint64)[labels])
    weights = {name: _shares(encode(values)) for name, values in imported.parameters.items()}
    variance = (
        None if noise_multiplier is None else max(Fraction(noise_multiplier).limit_denominator(1024), _LEAST) ** 2
    )
    noise = [0, 0, 0]
    if variance is not None:
        for server in (0, 1):  # each draws its own, and knows nothing of the other's
            noise[server] = int(noise_table("discrete-gaussian", variance).draw(os.urandom(32), 1)[0])

    def program(party: Party) -> int | None:
        def held(parts: tuple[Words, Words], fraction: int = FRACTION) -> Shared:
            return Shared(party, parts[0].shape, fraction, None if party.is_helper else parts[party.me])

        network = Network(imported.graph, {name: held(parts) for name, parts in weights.items()})
        x = held((np.concatenate([a for a, _ in inputs]), np.concatenate([b for _, b in inputs])))
        return count_correct(network.forward(x), held(targets, 0), noise[party.me])

    correct, _, _ = run_parties(program)
    if correct is None:  # pragma: no cover - a server has the count
        raise InvalidInputError("the servers gave no count")
    if variance is None:
        return CorrectCount(correct, len(labels))
    event = DiscreteGaussian(
        l2_sensitivity=1.0, variance=float(variance), dimension=1, statistical_distance=2.0**LOG2_DISTANCE
    )
    return CorrectCount(correct, len(labels), float(2 * variance) ** 0.5, event)


def _classes(model: nn.Module, row: NDArray[np.floating]) -> int:
    """How many logits the model gives, from its owner's own run on one row of zeros."""
    import torch

    with torch.no_grad():
        output = model(torch.zeros(row.shape))
    if output.ndim != 2:
        raise ConfigurationError(f"a model to test gives logits [rows, classes], not {list(output.shape)}")
    return int(output.shape[1])


def _shares(words: Words) -> tuple[Words, Words]:
    mask = np.frombuffer(os.urandom(words.nbytes), np.uint64).reshape(words.shape)
    return words - mask, mask
