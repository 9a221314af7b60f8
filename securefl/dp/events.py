"""What was released, as data: privacy events and the neighboring relation they are judged under.

Events are frozen, hashable, composable and convertible to canonical JSON (the ledger stores that). They carry
parameters, no numbers of privacy: what an event costs is the accountant's business, and an event it has no
proof for is refused with :class:`UnsupportedEventError`.

Units: a *noise multiplier* is the standard deviation of the noise on the sum over the ℓ2 sensitivity C of the
sum to adding or removing one client (its clip norm). Under :attr:`NeighboringRelation.REPLACE_ONE` the sum moves
by up to 2 C; the accountant doubles, callers never do.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeAlias

from securefl.errors import ConfigurationError, DecodeError, UnsupportedEventError

__all__ = [
    "Composed",
    "DiscreteGaussian",
    "Event",
    "FixedSizeSampled",
    "Gaussian",
    "NeighboringRelation",
    "PoissonSampled",
    "SelfComposed",
    "Shuffled",
    "Skellam",
    "event_from_json",
    "event_to_json",
]

#: More repetitions than this are refused: counts stay exact in double precision and the FFT bound stays useful.
MAX_COUNT = 10**12


def positive(name: str, value: float) -> None:
    """Raises :class:`ConfigurationError` unless ``value`` is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise ConfigurationError(f"{name} must be a finite number above 0, got {value!r}")


def probability(name: str, value: float, *, open_interval: bool = False) -> None:
    """Raises :class:`ConfigurationError` unless ``value`` lies in [0, 1], or (0, 1) when ``open_interval``."""
    bad = isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0
    if bad or (open_interval and value in (0.0, 1.0)):
        raise ConfigurationError(f"{name} must lie in {'(0, 1)' if open_interval else '[0, 1]'}, got {value!r}")


def integer(name: str, value: int, least: int = 0) -> None:
    """Raises :class:`ConfigurationError` unless ``value`` is an integer in [least, 10^12]."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_COUNT:
        raise ConfigurationError(f"{name} must be an integer from {least} to {MAX_COUNT}, got {value!r}")


class NeighboringRelation(Enum):
    """Which two populations must look alike.

    ``ADD_REMOVE``: one client more or less; also the *zero-out* relation, where the client stays and its
    contribution becomes zero. ``REPLACE_ONE``: one client's data replaced by any other: the sum moves twice as far.
    """

    ADD_REMOVE = "add-remove"
    REPLACE_ONE = "replace-one"

    @staticmethod
    def of(value: NeighboringRelation | str) -> NeighboringRelation:
        """The relation by member or by its name. Raises :class:`ConfigurationError` for another name."""
        try:
            return NeighboringRelation(value)
        except ValueError:
            raise ConfigurationError(f"neighboring must be 'add-remove' or 'replace-one', got {value!r}") from None


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Real Gaussian noise of stddev ``noise_multiplier`` · C on a sum of ℓ2 sensitivity C."""

    noise_multiplier: float

    def __post_init__(self) -> None:
        positive("noise_multiplier", self.noise_multiplier)


@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """Discrete Gaussian noise of parameter σ² = ``variance`` (integer units squared) on each of ``dimension`` sums.

    ``l2_sensitivity``: integer units, what one client moves the integer sum by at most.
    ``statistical_distance``: how far (total variation) the sampled noise of this event may be from exact.
    """

    l2_sensitivity: float
    variance: float
    dimension: int
    statistical_distance: float = 0.0

    def __post_init__(self) -> None:
        positive("l2_sensitivity", self.l2_sensitivity)
        positive("variance", self.variance)
        integer("dimension", self.dimension, 1)
        probability("statistical_distance", self.statistical_distance)


@dataclass(frozen=True, slots=True)
class Skellam:
    """Symmetric Skellam noise of total ``variance`` (integer units squared) on each of ``dimension`` coordinates.

    ``l1_sensitivity``, ``l2_sensitivity``: what one client moves the integer sum by at most.
    ``statistical_distance``: how far (total variation) the sampled noise of this event may be from exact.
    """

    l2_sensitivity: float
    l1_sensitivity: float
    variance: float
    dimension: int
    statistical_distance: float = 0.0

    def __post_init__(self) -> None:
        positive("l2_sensitivity", self.l2_sensitivity)
        positive("l1_sensitivity", self.l1_sensitivity)
        positive("variance", self.variance)
        integer("dimension", self.dimension, 1)
        probability("statistical_distance", self.statistical_distance)
        if self.l1_sensitivity < self.l2_sensitivity * (1 - 1e-12):
            raise ConfigurationError("an l1 sensitivity below the l2 sensitivity is impossible")

    @property
    def noise_multiplier(self) -> float:
        """Noise stddev over ℓ2 sensitivity: comparable with :class:`Gaussian`'s."""
        return math.sqrt(self.variance) / self.l2_sensitivity


@dataclass(frozen=True, slots=True)
class PoissonSampled:
    """``event`` on a cohort in which each client takes part independently with ``sampling_probability``.

    Only this sampling is amplified. A cohort of fixed size is :class:`FixedSizeSampled`.
    """

    event: Gaussian | Skellam | DiscreteGaussian
    sampling_probability: float

    def __post_init__(self) -> None:
        probability("sampling_probability", self.sampling_probability)
        if not isinstance(self.event, (Gaussian, Skellam, DiscreteGaussian)):
            raise UnsupportedEventError(
                f"no amplification is known for Poisson sampling of {type(self.event).__name__}: sample one mechanism"
            )


@dataclass(frozen=True, slots=True)
class FixedSizeSampled:
    """``event`` on ``cohort`` of ``population`` clients drawn without replacement: charged without amplification.

    Removing a client lets another take its place, so under *both* relations the sum is charged as a replacement.
    (If who takes part is chosen without regard to who exists, use the plain event: that is the zero-out relation.)
    """

    event: Gaussian | Skellam | DiscreteGaussian
    population: int
    cohort: int

    def __post_init__(self) -> None:
        integer("population", self.population, 1)
        integer("cohort", self.cohort, 1)
        if self.cohort > self.population:
            raise ConfigurationError(f"a cohort of {self.cohort} cannot be drawn from {self.population} clients")


@dataclass(frozen=True, slots=True)
class Shuffled:
    """One pass over shuffled batches, each noised by ``event``: every record takes part once; no amplification."""

    event: Gaussian

    def __post_init__(self) -> None:
        if not isinstance(self.event, Gaussian):
            raise UnsupportedEventError("shuffled batches are accounted for Gaussian noise only")


@dataclass(frozen=True, slots=True)
class SelfComposed:
    """``event`` released ``count`` times, adaptively."""

    event: Event
    count: int

    def __post_init__(self) -> None:
        integer("count", self.count)


@dataclass(frozen=True, slots=True)
class Composed:
    """All of ``events`` released, adaptively in their inputs, their parameters fixed beforehand."""

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", tuple(self.events))


Event: TypeAlias = (
    Gaussian | DiscreteGaussian | Skellam | PoissonSampled | FixedSizeSampled | Shuffled | SelfComposed | Composed
)

_TYPES: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        Gaussian,
        DiscreteGaussian,
        Skellam,
        PoissonSampled,
        FixedSizeSampled,
        Shuffled,
        SelfComposed,
        Composed,
    )
}


def _plain(event: Any) -> Any:
    if isinstance(event, tuple):
        return [_plain(part) for part in event]
    if type(event).__name__ in _TYPES and type(event) is _TYPES[type(event).__name__]:
        return {"type": type(event).__name__} | {f.name: _plain(getattr(event, f.name)) for f in fields(event)}
    if isinstance(event, (int, float)) and not isinstance(event, bool):
        return event
    raise UnsupportedEventError(f"{type(event).__name__} is not a privacy event")


def event_to_json(event: Event) -> str:
    """Canonical JSON (sorted keys, no spaces, shortest round-trip floats). Raises UnsupportedEventError."""
    return json.dumps(_plain(event), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _build(plain: Any, depth: int) -> Any:
    if depth > 16:
        raise DecodeError("a privacy event is nested too deeply")
    if isinstance(plain, list):
        return tuple(_build(part, depth + 1) for part in plain)
    if isinstance(plain, dict):
        cls = _TYPES.get(str(plain.get("type")))
        if cls is None:
            raise DecodeError("a stored privacy event has an unknown type")
        values = {key: _build(value, depth + 1) for key, value in plain.items() if key != "type"}
        return cls(**values)
    if isinstance(plain, (int, float)) and not isinstance(plain, bool):
        return plain
    raise DecodeError("a stored privacy event has a value of the wrong type")


def event_from_json(text: str) -> Event:
    """The inverse of :func:`event_to_json`. Raises :class:`DecodeError` for anything else."""
    try:
        event = _build(json.loads(text), 0)
    except (TypeError, ValueError, RecursionError) as error:
        raise DecodeError("a stored privacy event does not decode") from error
    if type(event).__name__ not in _TYPES:
        raise DecodeError("a stored privacy event does not decode")
    result: Event = event
    return result
