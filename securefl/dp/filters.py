"""Privacy filters: may this release still be made, when mechanisms are chosen as the run goes?

Adding up loss laws and stopping when the curve is crossed is *not* a valid filter when parameters depend on earlier
outputs (arXiv 2602.06756 gives the counterexample). What is proven:

- ``gaussian``: Gaussian releases without sampling. Stop before Σ μ_i² exceeds μ_B², where μ_B-GDP is (ε, δ)-DP:
  fully adaptive, and no looser than composition known beforehand        [Smith & Thakurta 2022, arXiv 2210.17520].
- ``renyi``: any event with a Rényi bound, at *one* order fixed when the ledger is made: stop before Σ ε_i(α) exceeds
  ε_B(α), the Rényi budget that converts to (ε, δ)                        [Feldman & Zrnic 2021, Thm 4.3; conversion:
  Canonne, Kamath, Steinke 2020, Prop. 12].
- ``plan``: the event of every round is declared when the ledger is made; a release is admitted if it costs no more
  than the declared one, parameter by parameter, and counts as one. The number of rounds is then fixed beforehand
  and ordinary adaptive composition applies, with the tight accountant    [Zhu, Dong, Wang 2022, Thm 10].

Integer noise (Skellam, discrete Gaussian) enters ``gaussian`` as its rounded Gaussian and every filter with its
distance, for which a share of δ is kept aside.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from securefl.dp.accountant import Charge, charge_of, event_epsilon
from securefl.dp.calibration import calibrate_rounds
from securefl.dp.events import (
    Event,
    Gaussian,
    NeighboringRelation,
    PoissonSampled,
    SelfComposed,
    Skellam,
    positive,
    probability,
)
from securefl.dp.gaussian import gaussian_mu
from securefl.dp.rdp import LAMBDAS
from securefl.errors import ConfigurationError, UnsupportedEventError

__all__ = ["Budget", "FilterKind", "costs_no_more"]

#: Share of δ kept aside for the distance of integer noise from its ideal law (`gaussian`: from a rounded Gaussian).
_ASIDE: Final = {"gaussian": 0.1, "renyi": 0.01, "plan": 0.01}


class FilterKind(Enum):
    """Which stopping rule a ledger follows, for its whole life."""

    GAUSSIAN = "gaussian"
    RENYI = "renyi"
    PLAN = "plan"


def costs_no_more(event: Event, declared: Event) -> bool:
    """Whether ``event`` is dominated by ``declared``, parameter by parameter; False when that is not evident.

    More noise is post-processing of less (Gaussian and Skellam laws are closed under sums); a smaller sampling
    probability mixes in the unaffected output, which no divergence increases under.
    """
    if event == declared:
        return True
    if isinstance(declared, SelfComposed) and isinstance(event, SelfComposed):
        return event.count <= declared.count and costs_no_more(event.event, declared.event)
    if isinstance(declared, PoissonSampled):
        if isinstance(event, PoissonSampled):
            less = event.sampling_probability <= declared.sampling_probability
            return less and costs_no_more(event.event, declared.event)
        return False
    if isinstance(declared, Gaussian) and isinstance(event, Gaussian):
        return event.noise_multiplier >= declared.noise_multiplier
    if isinstance(declared, Skellam) and isinstance(event, Skellam):
        return (
            event.l2_sensitivity <= declared.l2_sensitivity
            and event.l1_sensitivity <= declared.l1_sensitivity
            and event.variance >= declared.variance
            and event.dimension <= declared.dimension
            # a few times the declared distance (more survivors draw more) stays inside δ's share; see Budget
            and event.statistical_distance <= 2**-70
        )
    return False


@dataclass(frozen=True)
class Budget:
    """(``epsilon``, ``delta``) under ``neighboring``, and the filter that guards it.

    ``plan``: the declared event of a round, for :attr:`FilterKind.PLAN` only. ``order``: the Rényi order α of
    :attr:`FilterKind.RENYI` (default: the best for Gaussian rounds; :meth:`renyi_for` finds it for another event).
    Raises :class:`ConfigurationError` when not even one planned round fits.
    """

    epsilon: float
    delta: float
    neighboring: NeighboringRelation = NeighboringRelation.ADD_REMOVE
    kind: FilterKind = FilterKind.RENYI
    plan: Event | None = None
    order: int | None = None

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)
        probability("delta", self.delta, open_interval=True)
        if (self.plan is None) == (self.kind is FilterKind.PLAN):
            raise ConfigurationError("a plan is given exactly when the filter is 'plan'")
        if self.order is not None and (self.kind is not FilterKind.RENYI or self.order - 1 not in LAMBDAS):
            raise ConfigurationError("order is for the filter 'renyi': an integer from 2 to 64")
        if self.plan is not None and self.limit < 1:
            raise ConfigurationError("the budget does not allow one round of the plan: add noise or budget")

    @property
    def _declared(self) -> Event:
        if self.plan is None:  # excluded by __post_init__
            raise ConfigurationError("the filter 'plan' needs a plan")
        return self.plan

    @functools.cached_property
    def limit(self) -> float:
        """What Σ :meth:`cost` must not exceed: μ², Rényi ε at the fixed order, or rounds."""
        kept = self.delta * (1 - _ASIDE[self.kind.value])
        if self.kind is FilterKind.PLAN:
            return calibrate_rounds(self._declared, epsilon=self.epsilon, delta=kept, neighboring=self.neighboring)
        if self.kind is FilterKind.GAUSSIAN:
            return gaussian_mu(self.epsilon, kept) ** 2
        return self._renyi[1]

    @functools.cached_property
    def _renyi(self) -> tuple[int, float]:
        """(index of λ, Rényi budget): the order at which Gaussian releases may spend most."""
        with np.errstate(divide="ignore"):
            loss = (-math.log(self.delta * (1 - _ASIDE[self.kind.value])) - np.log1p(LAMBDAS)) / LAMBDAS
            room = self.epsilon - loss - np.log(LAMBDAS / (1 + LAMBDAS))
        whole = np.mod(LAMBDAS, 1.0) == 0  # sampled and Skellam bounds are tight at integer orders
        if self.order is not None:
            whole &= self.order - 1 == LAMBDAS
        worth = np.where(whole, room / (LAMBDAS + 1), -np.inf)
        best = int(np.argmax(worth))
        if not worth[best] > 0:
            raise ConfigurationError("no Rényi order converts to this budget: raise epsilon or delta")
        return best, float(room[best])

    @staticmethod
    def renyi_for(
        event: Event, *, epsilon: float, delta: float, neighboring: NeighboringRelation | str = "add-remove"
    ) -> Budget:
        """The Rényi budget whose fixed order allows most releases of ``event``."""
        relation = NeighboringRelation.of(neighboring)
        spent = charge_of(event, relation).cumulant / LAMBDAS
        best, most = None, 0.0
        for order in range(2, 65):
            try:
                budget = Budget(epsilon, delta, relation, FilterKind.RENYI, None, order)
                releases = budget.limit / float(spent[budget._renyi[0]])
            except ConfigurationError:
                continue
            if releases > most:
                best, most = budget, releases
        if best is None or most < 1:
            raise ConfigurationError("the budget does not allow one such release: add noise or budget")
        return best

    def distance_limit(self) -> float:
        """What the summed distances of integer noise must not exceed: the share of δ kept aside, over (1 + e^ε)."""
        return _ASIDE[self.kind.value] * self.delta / (1 + math.exp(min(self.epsilon, 700.0)))

    def cost(self, event: Event) -> tuple[float, float]:
        """(cost in the filter's unit, distance) of one release, both rounded up.

        Raises :class:`UnsupportedEventError` when this filter has no proof for ``event``.
        """
        charge = charge_of(event, self.neighboring)
        if self.kind is FilterKind.PLAN:
            if not costs_no_more(event, self._declared):
                raise UnsupportedEventError(
                    "this release costs more than the declared plan: fewer survivors or other parameters; "
                    "a ledger with the filter 'renyi' admits it"
                )
            return 1.0, charge.distance
        if self.kind is FilterKind.GAUSSIAN:
            return self._gaussian_cost(charge)
        spent = float(charge.cumulant[self._renyi[0]] / LAMBDAS[self._renyi[0]]) if charge.parts else 0.0
        return spent * (1 + 1e-9), charge.distance

    def _gaussian_cost(self, charge: Charge) -> tuple[float, float]:
        if any(q != 1.0 for _, q, _ in charge.parts):
            raise UnsupportedEventError("the filter 'gaussian' is proven without sampling only: use 'plan' or 'renyi'")
        equivalent = charge.gaussian()
        if equivalent is None:
            raise UnsupportedEventError("this noise is not known to be close to a Gaussian: use the filter 'renyi'")
        mu_squared, _, near = equivalent
        # Divergences add, distances are their roots: with x = Σ near²/(0.9 L)² and y = Σ d/(0.1 L), x + y <= 1 gives
        # √(Σ near²) + Σ d <= 0.9 L √x + 0.1 L y <= L, the limit. What is summed is L (x + y).
        limit = self.distance_limit()
        return mu_squared * (1 + 1e-9), limit * ((near / (0.9 * limit)) ** 2 + charge.distance / (0.1 * limit))

    def spent_epsilon(self, event: Event) -> float:
        """ε at δ of everything released, as composition knows it: for display, after the fact."""
        return event_epsilon(event, self.delta, self.neighboring)
