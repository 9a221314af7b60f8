"""Poisson sampling of clients: the only sampling that the accountant amplifies.

The coins must be secret and independent of the data: they come from an Entropy, 64 bits each, so that a client joins
with probability ⌊q·2^64⌋/2^64 <= q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from securefl.dp.events import integer, probability
from securefl.errors import ConfigurationError
from securefl.primitives.entropy import Entropy, SystemEntropy

__all__ = ["cohort_capacity", "poisson_cohort"]

Client = TypeVar("Client")


def poisson_cohort(
    population: Sequence[Client], sampling_probability: float, entropy: Entropy | None = None
) -> tuple[Client, ...]:
    """Each of ``population`` independently with ``sampling_probability``, in order; possibly nobody."""
    probability("sampling_probability", sampling_probability)
    if sampling_probability == 1.0 or not population:
        return tuple(population)
    source = entropy if entropy is not None else SystemEntropy()
    coins = np.frombuffer(source.token(8 * len(population)), dtype="<u8")
    joined = np.flatnonzero(coins < np.uint64(int(sampling_probability * 2.0**64)))
    return tuple(population[int(i)] for i in joined)


def cohort_capacity(population: int, sampling_probability: float, log2_failure: float = -64.0) -> int:
    """A cohort size that Poisson sampling exceeds with probability at most 2^``log2_failure``.

    For lanes and limits that must hold every cohort: cutting a cohort down would void the amplification.
    Bernstein: P[X >= m + t] <= exp(−t²/(2(m + t/3))), m = population · q.
    """
    integer("population", population, 1)
    probability("sampling_probability", sampling_probability)
    if not log2_failure < 0:
        raise ConfigurationError("log2_failure must be below 0")
    mean, need = population * sampling_probability, -log2_failure * math.log(2)
    excess = need / 3 + math.sqrt(need * need / 9 + 2 * need * mean)
    return max(1, min(population, math.ceil(mean + excess)))
