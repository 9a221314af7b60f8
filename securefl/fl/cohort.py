"""Who is invited to a round: everybody, each by its own coin (Poisson), or a fixed number.

In a simulation the draws come from the seed tree, so that a run can be repeated; a deployment draws them from the
operating system (:mod:`securefl.dp.cohort`), since amplification rests on nobody knowing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from securefl.errors import ConfigurationError
from securefl.fl.seeds import SeedTree
from securefl.types import ClientId

__all__ = ["Cohort"]


@dataclass(frozen=True, slots=True)
class Cohort:
    """``probability``: each client by its own coin, in (0, 1]. ``size``: that many, without replacement. Or neither.

    Raises :class:`~securefl.errors.ConfigurationError` for both, and for numbers out of range.
    """

    probability: float | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        if self.probability is not None and self.size is not None:
            raise ConfigurationError("a cohort is drawn by a probability or by a size, not both")
        if self.probability is not None and not 0 < self.probability <= 1:
            raise ConfigurationError(f"the probability to join a cohort lies in (0, 1], not {self.probability}")
        if self.size is not None and self.size < 1:
            raise ConfigurationError(f"a cohort has at least 1 client, not {self.size}")

    def select(self, round: int, everyone: Sequence[ClientId], seeds: SeedTree) -> list[ClientId]:
        """The clients of ``round``, in the order of ``everyone``; possibly nobody with a probability.

        ``seeds``: the run's. Raises :class:`~securefl.errors.ConfigurationError` for a size beyond ``everyone``.
        """
        if self.probability is not None:
            coins = seeds.child("cohort", round).numpy().random(len(everyone))
            return [client for client, coin in zip(everyone, coins, strict=True) if coin < self.probability]
        if self.size is not None:
            if self.size > len(everyone):
                raise ConfigurationError(f"a cohort of {self.size} cannot be drawn from {len(everyone)} clients")
            drawn = seeds.child("cohort", round).numpy().choice(len(everyone), self.size, replace=False)
            return [everyone[at] for at in sorted(drawn)]
        return list(everyone)
