"""Example-level differential privacy: every client trains by DP-SGD; the sum of their updates is post-processing.

The guarantee is per example, against everyone but the client that holds it, and needs no trust in the server. It is
stated for the client that pays most: the one with the fewest examples, whose batches take the largest share of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from securefl.dp.accountant import event_epsilon
from securefl.dp.calibration import calibrate_event
from securefl.dp.events import Event, NeighboringRelation, SelfComposed
from securefl.dp.filters import Budget, FilterKind
from securefl.encoding.layout import Layout
from securefl.fl.budget import KEPT, BudgetedRun
from securefl.fl.config import PrivacyConfig
from securefl.fl.dpsgd import step_event
from securefl.fl.interfaces import Coder, RoundPrivacy
from securefl.fl.training import ExampleNoise, LocalTraining, batch_probability, steps_per_round
from securefl.machine import SumResult

__all__ = ["ExamplePrivacy"]


class ExamplePrivacy(BudgetedRun):
    """One run's DP-SGD noise and ledger.

    ``dimension``: trainable parameters. ``examples``: per client. ``training``: batch size and epochs.
    ``rounds``: planned. Raises :class:`ConfigurationError` when no noise meets the budget.
    """

    minimum_survivors = 0

    def __init__(
        self,
        config: PrivacyConfig,
        *,
        dimension: int,
        examples: Iterable[int],
        training: LocalTraining,
        rounds: int,
    ) -> None:
        self.config = config
        relation = NeighboringRelation.of(config.neighboring)
        self._dimension = dimension
        kinds = {(batch_probability(n, training.batch_size), steps_per_round(n, training)) for n in examples}

        def cost(noise_multiplier: float, probability: float, steps: int) -> Event:
            return SelfComposed(step_event(noise_multiplier, dimension, probability), steps * rounds)

        # the client that pays most at a common noise multiplier
        guess = config.noise_multiplier or 1.0
        self._probability, self._steps = max(
            kinds, key=lambda kind: event_epsilon(cost(guess, *kind), config.delta, relation)
        )
        self.noise_multiplier = config.noise_multiplier or calibrate_event(
            lambda z: cost(z, self._probability, self._steps),
            epsilon=config.epsilon,
            delta=KEPT * config.delta,
            neighboring=relation,
            precision=1e-4,
        )
        super().__init__(Budget(config.epsilon, config.delta, relation, FilterKind.PLAN, self._event()))

    @property
    def noise(self) -> ExampleNoise:
        """What local training needs."""
        return ExampleNoise(self.config.clip_norm, self.noise_multiplier)

    def _event(self) -> Event:
        return SelfComposed(step_event(self.noise_multiplier, self._dimension, self._probability), self._steps)

    def restore(self, records: Sequence[RoundPrivacy | None]) -> None:
        """Nothing changes from round to round."""

    def coder(self, layout: Layout) -> Coder | None:
        """The ordinary one: updates are private already."""
        return None

    def before(self, round: int) -> None:
        """Raises :class:`PrivacyBudgetExceededError` or :class:`LostRoundError`."""
        self._admit(round, self._event())

    def charge(self, round: int, coder: Coder, result: SumResult) -> None:
        """Commit one round of DP-SGD."""
        self.ledger.charge(round, self._event())

    def released(self, round: int, coder: Coder, digest: bytes) -> RoundPrivacy:
        """Note the release."""
        self.ledger.released(round, digest)
        return RoundPrivacy(self.epsilon_spent, self.config.clip_norm)

    def planned_epsilon(self, rounds: int) -> float:
        """ε of ``rounds`` rounds, for the client that pays most."""
        return self._planned(self._event(), rounds)

    def assumptions(self) -> list[str]:
        """What the stated ε rests on, in words."""
        return [
            f"neighboring datasets differ in one client's example ({self.neighboring.value}); privacy unit: example",
            f"stated for the client with the largest batches (probability {self._probability:.3g} per step, "
            f"{self._steps} steps a round); clients with more examples spend less",
            "how many examples a client holds is not hidden: it weighs the update and sets batches and steps",
            "batches are Poisson-sampled and hidden; each client adds its own noise and needs to trust nobody",
        ]
