"""From events to (ε, δ): upper bounds, the tightest that is proven for what was released.

How an event is charged (Δ is the movement of the sum by one client):

| event                       | add-remove                       | replace-one                                   |
|-----------------------------|----------------------------------|-----------------------------------------------|
| Gaussian                    | closed form                      | closed form, 2Δ                               |
| PoissonSampled(Gaussian)    | loss law, both directions        | loss law of the replacement pair              |
| Skellam (sampled or not)    | the better of Rényi and Gaussian + distance | the same, 2Δ; Rényi unamplified    |
| DiscreteGaussian            | as Skellam                       | as Skellam                                    |
| FixedSizeSampled            | unamplified, 2Δ (another client takes the place) | unamplified, 2Δ               |
| Shuffled (one pass)         | 2Δ for the batch that changes a record and Δ for the one that loses one | 2Δ     |

Composition is for mechanisms whose parameters are fixed beforehand (their inputs may be adaptive). Parameters chosen
as the run goes need a filter: :mod:`securefl.dp.filters`.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.dp import events as ev
from securefl.dp.certificate import divergence_bound, equivalent_stddev
from securefl.dp.composition import PrivacyCurve, compose
from securefl.dp.gaussian import gaussian_delta, gaussian_epsilon
from securefl.dp.pld import Direction, Step
from securefl.dp.rdp import Noise, rdp_delta, rdp_epsilon, total_cumulant
from securefl.errors import ConfigurationError, UnsupportedEventError

__all__ = ["Charge", "assumptions", "charge_of", "event_delta", "event_epsilon"]


@dataclass
class Charge:
    """The parts of an event as the accountant sees them.

    ``parts``: (noise, sampling probability, doubled sensitivity) with counts. ``distance``: total variation between
    the sampled noise and the ideal one. ``notes``: what the charge assumes or gives up, in words.
    """

    relation: ev.NeighboringRelation
    parts: Counter[tuple[Noise, float, bool]] = field(default_factory=Counter)
    distance: float = 0.0
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, event: ev.Event, times: int) -> None:
        replace = self.relation is ev.NeighboringRelation.REPLACE_ONE
        if times == 0:
            return
        if isinstance(event, (ev.Gaussian, ev.Skellam, ev.DiscreteGaussian)):
            self._noise(event, 1.0, replace, times)
        elif isinstance(event, ev.PoissonSampled):
            self.notes["amplified: every client joins each round by an independent secret coin"] = None
            self._noise(event.event, event.sampling_probability, replace, times)
        elif isinstance(event, ev.FixedSizeSampled):
            self.notes["not amplified: cohorts of fixed size are charged at the full cost of a replacement"] = None
            self._noise(event.event, 1.0, True, times)
        elif isinstance(event, ev.Shuffled):
            self.notes["not amplified: shuffled batches are charged as one full participation per pass"] = None
            self._noise(event.event, 1.0, True, times)
            if not replace:
                self._noise(event.event, 1.0, False, times)
        elif isinstance(event, ev.SelfComposed):
            self.add(event.event, times * event.count)
        elif isinstance(event, ev.Composed):
            for part in event.events:
                self.add(part, times)
        else:
            raise UnsupportedEventError(f"no bound is known for the event {type(event).__name__}: it cannot be charged")

    def _noise(self, noise: Noise, q: float, doubled: bool, times: int) -> None:
        if isinstance(noise, (ev.Skellam, ev.DiscreteGaussian)):
            self.distance += times * noise.statistical_distance
            self.notes[
                "integer noise from a cryptographic stream; its distance from the ideal law is charged to delta"
            ] = None
        if q > 0.0:
            self.parts[(noise, q, doubled)] += times

    @property
    def exact(self) -> bool:
        """Whether every part is Gaussian: then the Rényi bound has nothing to add."""
        return all(isinstance(noise, ev.Gaussian) for noise, _, _ in self.parts)

    @functools.cached_property
    def cumulant(self) -> NDArray[np.float64]:
        return total_cumulant(self.parts)

    def gaussian(self) -> tuple[float, Counter[tuple[float, float, bool]], float] | None:
        """(μ² of the unsampled part, sampled (σ, q, doubled) with counts, distance to that), or None."""
        mu_squared, divergence = 0.0, 0.0
        sampled: Counter[tuple[float, float, bool]] = Counter()
        for (noise, q, doubled), times in self.parts.items():
            if isinstance(noise, ev.Gaussian):
                sigma = noise.noise_multiplier
            else:
                skellam = isinstance(noise, ev.Skellam)
                divergence += times * divergence_bound(noise.variance, noise.dimension, skellam=skellam)
                if math.isinf(divergence):
                    return None
                sigma = equivalent_stddev(noise.variance) / noise.l2_sensitivity
            if q == 1.0:
                mu_squared += times * ((2.0 if doubled else 1.0) / sigma) ** 2
            else:
                sampled[(sigma, q, doubled)] += times
        return mu_squared, sampled, math.sqrt(divergence / 2)


def charge_of(event: ev.Event, neighboring: ev.NeighboringRelation | str) -> Charge:
    """The charge of ``event``. Raises :class:`UnsupportedEventError` for an event without a proof."""
    charge = Charge(ev.NeighboringRelation.of(neighboring))
    charge.add(event, 1)
    return charge


def assumptions(event: ev.Event, neighboring: ev.NeighboringRelation | str) -> tuple[str, ...]:
    """What the figures for ``event`` rest on, in words: for reports."""
    charge = charge_of(event, neighboring)
    meaning = {
        ev.NeighboringRelation.ADD_REMOVE: "neighbors: one client added or removed",
        ev.NeighboringRelation.REPLACE_ONE: "neighbors: one client's data replaced",
    }
    return (meaning[charge.relation], *charge.notes)


def _curves(
    mu_squared: float,
    sampled: Counter[tuple[float, float, bool]],
    *,
    delta: float | None = None,
    epsilon: float | None = None,
    fineness: float,
) -> list[PrivacyCurve]:
    steps: dict[str, Counter[Step]] = {}
    doubled = {is_doubled for _, _, is_doubled in sampled}
    directions = [Direction.REPLACE] if doubled == {True} else [Direction.REMOVE, Direction.ADD]
    for direction in directions:
        steps[direction] = Counter({Step(sigma, q): times for (sigma, q, _), times in sampled.items()})
        if mu_squared > 0:
            # the replacement pair is ±1, two units apart; the others are one unit apart
            width = 2.0 if direction == Direction.REPLACE else 1.0
            steps[direction][Step(width / math.sqrt(mu_squared), 1.0)] += 1
    return [compose(s, d, delta=delta, epsilon=epsilon, fineness=fineness) for d, s in steps.items()]


def _unsampled(mu_squared: float, sampled: Counter[tuple[float, float, bool]]) -> float:
    """μ when sampling is not counted on: an upper bound that needs no grid."""
    rest = sum(times * ((2.0 if doubled else 1.0) / sigma) ** 2 for (sigma, _, doubled), times in sampled.items())
    return math.sqrt(mu_squared + rest)


def _spread(epsilon: float, distance: float) -> float:
    """(1 + e^ε)·distance: what a total variation distance costs in δ."""
    return distance * (1.0 + math.exp(min(epsilon, 700.0))) if distance else 0.0


def _gaussian_epsilon(charge: Charge, delta: float, fineness: float) -> float:
    parts = charge.gaussian()
    if parts is None:
        return math.inf
    mu_squared, sampled, near = parts
    total = near + charge.distance

    def bound(share: float) -> float:
        closed = gaussian_epsilon(_unsampled(mu_squared, sampled), share)
        if not sampled or closed == 0.0:
            return closed
        curves = _curves(mu_squared, sampled, delta=share, fineness=fineness)
        return max(0.0, min(closed, max(curve.epsilon(share) for curve in curves)))

    epsilon = bound(delta)
    for _ in range(8):
        if total == 0.0 or math.isinf(epsilon):
            return epsilon
        # aim a little above: `reach` is where the distance is charged, and must not lie below the result
        reach = epsilon * (1 + 1e-4) + 1e-9
        share = delta - _spread(reach, total)
        if share <= 0.0:
            return math.inf
        epsilon = bound(share)
        if epsilon <= reach:
            return epsilon
    return math.inf


def _rdp_epsilon(charge: Charge, delta: float) -> float:
    epsilon = rdp_epsilon(charge.cumulant, delta)
    if charge.distance == 0.0:
        return epsilon
    for _ in range(50):
        share = delta - _spread(epsilon * (1 + 1e-6) + 1e-9, charge.distance)
        if share <= 0.0:
            return math.inf
        following = rdp_epsilon(charge.cumulant, share)
        if following <= epsilon * (1 + 1e-6) + 1e-9:
            return following
        epsilon = following
    return math.inf


@functools.lru_cache(maxsize=4096)
def event_epsilon(
    event: ev.Event, delta: float, neighboring: ev.NeighboringRelation | str = "add-remove", fineness: float = 0.04
) -> float:
    """The least ε for which ``event`` is proven (ε, ``delta``)-DP; inf when nothing is proven at this δ.

    Pre-conditions: 0 < delta < 1. Raises ConfigurationError, UnsupportedEventError. Never below the true value.
    """
    ev.probability("delta", delta, open_interval=True)
    charge = charge_of(event, neighboring)
    if not charge.parts:
        return 0.0
    tight = _gaussian_epsilon(charge, delta, fineness)
    return tight if charge.exact else min(tight, _rdp_epsilon(charge, delta))


@functools.lru_cache(maxsize=4096)
def event_delta(
    event: ev.Event, epsilon: float, neighboring: ev.NeighboringRelation | str = "add-remove", fineness: float = 0.04
) -> float:
    """The least δ in [0, 1] for which ``event`` is proven (``epsilon``, δ)-DP. Pre-condition: epsilon >= 0."""
    if isinstance(epsilon, bool) or not (isinstance(epsilon, (int, float)) and 0.0 <= epsilon < math.inf):
        raise ConfigurationError(f"epsilon must be a finite number of at least 0, got {epsilon!r}")
    charge = charge_of(event, neighboring)
    if not charge.parts:
        return 0.0
    best = 1.0
    if not charge.exact:
        best = rdp_delta(charge.cumulant, epsilon) + _spread(epsilon, charge.distance)
    parts = charge.gaussian()
    if parts is not None:
        mu_squared, sampled, near = parts
        value = gaussian_delta(_unsampled(mu_squared, sampled), epsilon)
        if sampled and value > 0.0:
            curves = _curves(mu_squared, sampled, epsilon=epsilon, fineness=fineness)
            value = min(value, max(curve.delta(epsilon) for curve in curves))
        best = min(best, value + _spread(epsilon, near + charge.distance))
    return min(1.0, best)
