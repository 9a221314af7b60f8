"""A run's privacy budget and the ledger that keeps it: what user-level and example-level privacy have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from securefl.dp.accountant import event_epsilon
from securefl.dp.events import Event, NeighboringRelation, SelfComposed
from securefl.dp.filters import Budget
from securefl.dp.ledger import Ledger, RoundState
from securefl.errors import ConfigurationError, LocalProtocolError, PrivacyBudgetExceededError
from securefl.fl.interfaces import LostRoundError

__all__ = ["KEPT", "BudgetedRun"]

#: Share of δ that noise is calibrated to; the ledger's filter keeps the rest aside for the distance of integer noise
#: from its ideal law (securefl.dp.filters).
KEPT: Final = 0.99


class BudgetedRun:
    """Asks the ledger before a round, charges it before the release, and notes the release.

    ``budget``: (ε, δ), the neighboring relation and the filter. :meth:`open` comes before the first round.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._ledger: Ledger | None = None

    @property
    def neighboring(self) -> NeighboringRelation:
        """The relation that ε is stated under."""
        return self.budget.neighboring

    def open(self, path: Path, run: str) -> None:
        """Open, or make, the run's ledger. Raises as :class:`~securefl.dp.ledger.Ledger` does."""
        self._ledger = Ledger(path, run=run, budget=self.budget)

    def check_charged(self, rounds: Iterable[int]) -> None:
        """Raises :class:`ConfigurationError` when one of the released ``rounds`` of a resumed run is not in its ledger.

        A new ledger in place of the run's, or one that lost its end, would state less than was spent.
        """
        missing = [round for round in rounds if self.ledger.state(round) is RoundState.ABSENT]
        if missing:
            self.ledger.close()
            raise ConfigurationError(
                f"round {missing[0]} of this run is not in {self.ledger.path}: its privacy ledger is missing or not "
                "whole, and what it spent would be forgotten; put the run's ledger back, or start a run of its own"
            )

    @property
    def ledger(self) -> Ledger:
        """The open ledger."""
        if self._ledger is None:
            raise LocalProtocolError("the run's ledger is not open")
        return self._ledger

    @property
    def epsilon_spent(self) -> float:
        """ε of everything charged so far, at the budget's δ."""
        return self.ledger.spent()

    def _planned(self, event: Event, rounds: int) -> float:
        """ε of ``rounds`` rounds of ``event``, known beforehand, at the budget's δ."""
        return event_epsilon(SelfComposed(event, rounds), self.budget.delta, self.neighboring)

    def _admit(self, round: int, event: Event) -> None:
        """Raises :class:`PrivacyBudgetExceededError` when ``event`` could not be paid for.

        Raises :class:`LostRoundError` when the round was charged before a crash: it is never run again.
        """
        if self.ledger.state(round) is not RoundState.ABSENT:
            raise LostRoundError(f"round {round} was charged before an interruption; its result is lost, not repeated")
        if not self.ledger.allows(event):
            raise PrivacyBudgetExceededError(
                f"round {round} would exceed epsilon = {self.budget.epsilon:g} at delta = {self.budget.delta:g}"
            )
