"""Simulated poison: clients whose update is multiplied before they give it, as a model-replacement attack does.

Bagdasaryan et al. 2020 (section 4, "constrain-and-scale" without the constraint); a negative factor undoes what the
others learn. A protection hides the poison with everything else: only a rule on shared updates bears it.
"""

from __future__ import annotations

from dataclasses import dataclass

from securefl.errors import ConfigurationError
from securefl.fl.interfaces import Contribution
from securefl.fl.seeds import SeedTree
from securefl.types import ClientId, Tensors

__all__ = ["Poison"]


@dataclass(frozen=True, slots=True)
class Poison:
    """``count`` of the run's clients, the same in every round, multiply their updates by ``factor``.

    Raises :class:`ConfigurationError` for numbers that cannot be.
    """

    count: int
    factor: float = -10.0

    def __post_init__(self) -> None:
        if self.count < 1 or not abs(self.factor) < float("inf"):
            raise ConfigurationError(
                f"poison is of at least one client and by a finite factor, not {self.count} and {self.factor}"
            )

    def clients(self, everyone: list[ClientId], seeds: SeedTree) -> frozenset[ClientId]:
        """Whose updates are poisoned. Raises :class:`ConfigurationError` for more than there are."""
        if self.count > len(everyone):
            raise ConfigurationError(f"{self.count} poisoned clients cannot be drawn from {len(everyone)}")
        drawn = seeds.child("poison").numpy().choice(len(everyone), self.count, replace=False)
        return frozenset(everyone[at] for at in drawn)

    def of(self, contribution: Contribution) -> Contribution:
        """The contribution as a poisoned client gives it."""
        tensors: Tensors = {name: value * value.dtype.type(self.factor) for name, value in contribution.tensors.items()}
        return Contribution(tensors, contribution.weight, contribution.seed)
