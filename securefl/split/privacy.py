"""What a run releases about one example, calibrated beforehand and charged before each round.

The privacy unit is one example; neighbors differ in what one example holds (its input and label), not in whether it is
there: sizes and batches are public. Every example goes through the cut once per round, so a round's cost is that of one
row. The guarantee is towards the server; a client knows its own data.
"""

from __future__ import annotations

from collections.abc import Callable

from securefl.dp.calibration import calibrate_event
from securefl.dp.events import Composed, Event, NeighboringRelation, SelfComposed
from securefl.dp.filters import Budget, FilterKind
from securefl.fl.budget import KEPT, BudgetedRun
from securefl.split.coding import NoisyRows
from securefl.split.settings import SplitSettings
from securefl.split.weights import NoisedGradient

__all__ = ["SplitPrivacy", "privacy_of"]


class SplitPrivacy(BudgetedRun):
    """The noise of a run and its ledger. ``build``: the event of one round at a noise multiplier.

    Raises :class:`~securefl.errors.ConfigurationError` when no noise meets the budget.
    """

    def __init__(self, settings: SplitSettings, build: Callable[[float], Event]) -> None:
        relation = NeighboringRelation.REPLACE_ONE
        self.noise_multiplier = calibrate_event(
            lambda z: SelfComposed(build(z), settings.rounds),
            epsilon=settings.epsilon,
            delta=KEPT * settings.delta,
            neighboring=relation,
            precision=1e-4,
        )
        self.event = build(self.noise_multiplier)
        super().__init__(Budget(settings.epsilon, settings.delta, relation, FilterKind.PLAN, self.event))

    def charge(self, round: int) -> None:
        """Commit one round before anything of it is sent.

        Raises :class:`~securefl.errors.PrivacyBudgetExceededError` or
        :class:`~securefl.fl.interfaces.LostRoundError`.
        """
        self._admit(round, self.event)
        self.ledger.charge(round, self.event)


def privacy_of(settings: SplitSettings, features: int, outputs: int) -> SplitPrivacy | None:
    """``None`` where nothing noised is released (and no ε is claimed)."""
    if settings.protect == "noise":
        return SplitPrivacy(
            settings,
            lambda z: Composed(
                (
                    NoisyRows(settings.clip_norm, z, features).event(),
                    NoisyRows(settings.gradient_clip_norm, z, outputs).event(),
                )
            ),
        )
    if settings.protect == "ckks" and settings.releases == "noised":
        values = outputs * (features + 1)
        return SplitPrivacy(settings, lambda z: NoisedGradient(settings.gradient_clip_norm, z).event(values))
    return None
