"""Magnitude pruning of the global model: a public mask that grows by a polynomial schedule.

    s_t = s_f + (s_i − s_f) (1 − τ)^3,  τ = (t − begin) / (end − begin) clamped to [0, 1]

[Zhu & Gupta 2017, "To prune, or not to prune", eq. 1]. The mask is decided from the global model, which all parties
hold, so it tells nothing about a client; the smallest magnitudes go, over all tensors with two or more axes together
(biases stay). What was pruned stays pruned. Model and updates are restricted to the mask: pruned values are neither
trained nor sent.

``structured``: whole output channels (first axis) of each such tensor but the last, the smallest mean square first,
at least one channel left per tensor; a smaller dense model can be cut from the result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.chain import Chain
from securefl.encoding.sparsify import PrunedSupport
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.compressed import Compression
from securefl.types import Tensors

__all__ = ["Pruning", "Schedule"]

Mask = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Sparsity from ``initial`` to ``final``, both in [0, 1), over the rounds ``begin`` to ``end``, 1 <= begin <= end.

    Raises :class:`ConfigurationError` for other numbers, also for a sparsity that falls: pruned values are gone.
    """

    initial: float = 0.0
    final: float = 0.5
    begin: int = 1
    end: int = 20

    def __post_init__(self) -> None:
        if not (0 <= self.initial <= self.final < 1):
            raise ConfigurationError(
                f"sparsity goes from initial to final, 0 <= initial <= final < 1, not {self.initial} to {self.final}"
            )
        if not 1 <= self.begin <= self.end:
            raise ConfigurationError(f"pruning takes rounds 1 <= begin <= end, not {self.begin} to {self.end}")

    def sparsity(self, round: int) -> float:
        """s_t; 0 before ``begin``."""
        if round < self.begin:
            return 0.0
        tau = min(1.0, (round - self.begin) / (self.end - self.begin)) if self.end > self.begin else 1.0
        return self.final + (self.initial - self.final) * (1 - tau) ** 3


@dataclass
class Pruning:
    """The mask of a run. ``schedule``; ``structured``: by channel."""

    schedule: Schedule = field(default_factory=Schedule)
    structured: bool = False
    mask: Mask | None = field(default=None, repr=False)

    def advance(self, round: int, tensors: Tensors) -> Tensors:
        """Move the mask on to ``round`` and give the global model without what it prunes. New arrays.

        Raises :class:`InvalidInputError` when the model changed its tensors between rounds.
        """
        if self.mask is not None and {n: m.shape for n, m in self.mask.items()} != {
            n: t.shape for n, t in tensors.items()
        }:
            raise InvalidInputError("the model changed its tensors between rounds: its pruning mask does not fit")
        previous = self.mask or {name: np.ones(value.shape, dtype=np.bool_) for name, value in tensors.items()}
        sparsity = self.schedule.sparsity(round)
        choose = _by_channel if self.structured else _by_magnitude
        self.mask = choose({name: value * previous[name] for name, value in tensors.items()}, previous, sparsity)
        return self.apply(tensors)

    def apply(self, tensors: Tensors) -> Tensors:
        """``tensors`` without what is pruned: a server with momentum still moves weights that were just taken away."""
        mask = self.mask
        return tensors if mask is None else {name: value * mask[name] for name, value in tensors.items()}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The mask, for a checkpoint."""
        return {f"mask {name}": part for name, part in (self.mask or {}).items()}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        prefix = "mask "
        found = {
            name.removeprefix(prefix): np.asarray(part, dtype=np.bool_)
            for name, part in saved.items()
            if name.startswith(prefix)
        }
        self.mask = found or None

    def restrict(self, compression: Compression) -> Compression:
        """``compression`` behind the present mask."""
        if self.mask is None:
            return compression
        support = PrunedSupport(np.concatenate([part.reshape(-1) for part in self.mask.values()]))
        return dataclasses.replace(compression, coder=Chain((support, *compression.coder.coders)))

    @property
    def sparsity(self) -> float:
        """Share of the values that are pruned now."""
        if self.mask is None:
            return 0.0
        return 1 - sum(int(part.sum()) for part in self.mask.values()) / sum(part.size for part in self.mask.values())


def _by_magnitude(tensors: Tensors, previous: Mask, sparsity: float) -> Mask:
    """The smallest magnitudes over all tensors with two or more axes; ties by position."""
    names = [name for name, value in tensors.items() if value.ndim > 1]
    flat = np.concatenate([np.abs(tensors[name]).reshape(-1) for name in names]) if names else np.empty(0)
    keep = np.concatenate([previous[name].reshape(-1) for name in names]) if names else np.empty(0, dtype=np.bool_)
    count = min(math.floor(sparsity * flat.size), flat.size - 1)
    if count > flat.size - int(keep.sum()):
        flat = np.where(keep, flat, -1.0)  # what is gone comes first
        keep = keep.copy()
        keep[np.argsort(flat, kind="stable")[:count]] = False
    mask, start = {name: part.copy() for name, part in previous.items()}, 0
    for name in names:
        mask[name] = keep[start : start + tensors[name].size].reshape(tensors[name].shape)
        start += tensors[name].size
    return mask


def _by_channel(tensors: Tensors, previous: Mask, sparsity: float) -> Mask:
    """The weakest output channels of every tensor with two or more axes, but the last such tensor."""
    names = [name for name, value in tensors.items() if value.ndim > 1][:-1]
    mask = {name: part.copy() for name, part in previous.items()}
    for name in names:
        value = tensors[name].reshape(len(tensors[name]), -1)
        strength = np.square(value, dtype=np.float64).mean(axis=1)
        count = min(math.floor(sparsity * len(value)), len(value) - 1)
        gone = np.argsort(strength, kind="stable")[:count]
        mask[name][gone] = False
        bias = name.removesuffix("weight") + "bias"
        if bias in mask and mask[bias].shape == (len(value),):
            mask[bias][gone] = False
    return mask
