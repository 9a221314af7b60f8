"""Who holds which slice of the model: tiers of clients, and the shells that a round's slices cut the model into."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.fl.models import tensors_of
from securefl.fl.slices import Slice, depth_slice, width_slice
from securefl.types import ClientId

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Kind", "TierPlan", "assign"]

Kind = Literal["width", "rolling", "depth"]


def assign(clients: Sequence[ClientId], shares: Sequence[float]) -> dict[ClientId, int]:
    """Tiers 1, 2, … in proportion to ``shares``, in the order of the clients; what cannot be even goes to the lower.

    Raises :class:`~securefl.errors.ConfigurationError` for shares that are not positive.
    """
    if not shares or min(shares) <= 0:
        raise ConfigurationError("shares are positive numbers, one per tier")
    ends = [math.ceil(len(clients) * sum(shares[: tier + 1]) / sum(shares) - 1e-9) for tier in range(len(shares))]
    return {
        client: next(tier for tier, end in enumerate(ends, start=1) if at < end) for at, client in enumerate(clients)
    }


@dataclass(frozen=True, eq=False)
class TierPlan:
    """The public plan of a run with tiers; everybody can work out every round's slices and shells from it.

    ``module``: the whole model. ``sizes``: per tier, ascending: widths in (0, 1] of hidden layers (``"width"``,
    ``"rolling"``) or numbers of hidden layers (``"depth"``); the last is the whole model. ``tiers``: of each client.
    ``nested``: in each step a client trains one of the slices up to its own, drawn at random, so that small slices are
    good models by themselves [Horvath et al. 2021, FjORD]; else its own.
    Raises :class:`~securefl.errors.ConfigurationError` for sizes that do not make nested slices of this model.
    """

    module: nn.Module = field(repr=False)
    input_shape: tuple[int, ...]
    kind: Kind
    sizes: tuple[float, ...]
    tiers: Mapping[ClientId, int] = field(repr=False)
    nested: bool = True

    def __post_init__(self) -> None:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)):
            raise ConfigurationError(f"the sizes of tiers ascend, unlike {list(self.sizes)}")
        if any(not 1 <= tier <= len(self.sizes) for tier in self.tiers.values()):
            raise ConfigurationError(f"a client's tier is 1 to {len(self.sizes)}")
        if self.kind == "depth":
            if any(size != int(size) for size in self.sizes):
                raise ConfigurationError("depths are whole numbers of hidden layers")
        elif self.sizes[0] <= 0 or self.sizes[-1] != 1:
            raise ConfigurationError("widths lie above 0, and the last is 1: the whole model")
        if sum(map(len, self._first)) != sum(value.size for value in tensors_of(self.module).values()):
            raise ConfigurationError("the last tier must have the whole model")

    @cached_property
    def _first(self) -> tuple[NDArray[np.int64], ...]:
        return self.positions(1)

    def slices(self, round: int) -> tuple[Slice, ...]:
        """The slice of every tier in ``round``, ascending."""
        if self.kind == "depth":
            return tuple(depth_slice(self.module, int(size)) for size in self.sizes)
        offset = round - 1 if self.kind == "rolling" else 0
        return tuple(width_slice(self.module, self.input_shape, _Window(size, offset)) for size in self.sizes)

    def positions(self, round: int) -> tuple[NDArray[np.int64], ...]:
        """Shell by shell, the places of the flat model that the tier's slice adds to those of the tier below.

        Raises :class:`~securefl.errors.ConfigurationError` when a tier adds nothing.
        """
        tensors = tensors_of(self.module)
        found, before = [], np.zeros(sum(value.size for value in tensors.values()), dtype=np.bool_)
        for tier, part in enumerate(self.slices(round), start=1):
            held = np.concatenate([mask.reshape(-1) for mask in part.mask(tensors).values()])
            if np.any(before & ~held):
                raise ConfigurationError(f"tier {tier} does not hold all of tier {tier - 1}: slices must be nested")
            added = np.flatnonzero(held & ~before)
            if not added.size:
                raise ConfigurationError(f"tier {tier} holds no more of this model than tier {tier - 1}")
            found.append(added)
            before = held
        return tuple(found)

    def parameters(self, tier: int) -> int:
        """Parameters of a tier's slice, the same in every round."""
        return sum(len(part) for part in self._first[:tier])


@dataclass(frozen=True, slots=True)
class _Window:
    """The units that a width of ``size`` keeps of a layer, from ``offset`` on and around."""

    size: float
    offset: int

    def __call__(self, width: int) -> NDArray[np.int64]:
        count = max(1, math.ceil(self.size * width - 1e-9))
        return np.sort((self.offset + np.arange(count)) % width)
