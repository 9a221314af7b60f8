"""A run's privacy budget and the ledger that keeps it: what user-level and example-level privacy have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from securefl.dp.accountant import event_epsilon
from securefl.dp.events import Event, NeighboringRelation, SelfComposed
from securefl.dp.filters import Budget
from securefl.dp.ledger import Ledger, RoundState
from securefl.errors import LocalProtocolError, PrivacyBudgetExceededError
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
