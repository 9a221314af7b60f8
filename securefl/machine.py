"""Protocol machines without IO: events, transition tables, one-time objects, and the face all protections share.

A *role* is one party in one session. Bytes go in by :meth:`receive`, events come out; the caller owns time
(:meth:`ServerRole.close_round`) and transport. What a role may do next stands in one table at the top of its
module; anything else is a :class:`~securefl.errors.ProtocolError` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Final, Protocol, TypeAlias

from securefl.errors import ConfigurationError, LocalProtocolError
from securefl.types import ClientId, IntegerVector, PartyId

__all__ = [
    "Aborted",
    "ClientRole",
    "Completed",
    "Event",
    "Machine",
    "NeedInput",
    "Protection",
    "RoundContext",
    "Segment",
    "Send",
    "ServerRole",
    "Shells",
    "SumResult",
    "TransitionTable",
    "check_identity",
    "extra_fields",
]


@dataclass(frozen=True, slots=True)
class SumResult:
    """The exact sum over exactly ``survivors``.

    ``values``: uint64[d], the sums of the clients' integers. ``survivors``: ascending client ids.
    ``suspects``: clients whose messages were inconsistent although the sum could be opened and checked.
    """

    values: IntegerVector = field(repr=False)
    survivors: tuple[ClientId, ...]
    suspects: tuple[ClientId, ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Deliver ``frame`` to party ``to``."""

    to: PartyId
    frame: bytes | bytearray | memoryview = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedInput:
    """The role is ready for its input: call ``provide``."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The session ended. ``result`` is ``None`` for roles that learn nothing."""

    result: SumResult | None = None


@dataclass(frozen=True, slots=True)
class Aborted:
    """The session ended without a result. ``blamed`` are suspects, not convicts."""

    reason: Exception
    blamed: tuple[PartyId, ...] = ()


Event: TypeAlias = Send | NeedInput | Completed | Aborted

MAX_SESSION_BYTES: Final = 64
MAX_SHELLS: Final = 255

#: ``{state: {trigger: next state}}``. Triggers are message types or the names of local calls.
TransitionTable: TypeAlias = Mapping[Enum, Mapping[str, Enum]]


class Machine:
    """A role's state, moved only along ``TRANSITIONS``.

    Subclasses set ``TRANSITIONS`` and ``INITIAL``. One object serves one session: ``start`` is an edge of the
    table that leaves the initial state, so a second use is a :class:`LocalProtocolError`. Re-using keys for a
    second vector would reveal the difference of the two.
    """

    TRANSITIONS: ClassVar[TransitionTable]
    INITIAL: ClassVar[Enum]

    def __init__(self) -> None:
        self._state: Enum = self.INITIAL

    @property
    def state(self) -> Enum:
        return self._state

    def _check(self, trigger: str) -> Enum:
        """The state that ``trigger`` leads to. Raises :class:`LocalProtocolError` when the table has no such edge."""
        try:
            return self.TRANSITIONS[self._state][trigger]
        except KeyError:
            raise LocalProtocolError(
                f"{type(self).__name__} cannot take {trigger!r} in state {self._state.name}; "
                "one object serves one session and each step happens once"
            ) from None

    def _advance(self, trigger: str) -> None:
        self._state = self._check(trigger)

    def __repr__(self) -> str:  # roles hold key material: never print fields
        return f"<{type(self).__name__} {self._state.name}>"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a vector's integers that share a range.

    ``size``: how many integers. ``max_value``: the largest that a client may give. ``window``: 0, or how many
    consecutive values the *sum* can take around its middle; the lanes are then as narrow as that, and sums outside
    come back wrong by multiples of the window: whoever asks for one carries a check beside it
    (``securefl.encoding.radix``). Protections that add the integers one by one may ignore it.
    """

    size: int
    max_value: int
    window: int = 0

    def to_bytes(self) -> bytes:
        """24 bytes, big-endian; what enters the context hash."""
        return b"".join(number.to_bytes(8, "big") for number in (self.size, self.max_value, self.window))


@dataclass(frozen=True, slots=True)
class Shells:
    """A vector in nested parts: a client of tier t holds shells 1 to t, the first ``sum(sizes[:t])`` integers.

    ``sizes``: integers per shell, 1 to 255 shells. ``tiers``: of each client of the cohort, in its order. Both are
    public. ``minimum_holders``: no shell's sum is opened over fewer clients, and no two opened sums are over cohorts
    that differ by fewer (:meth:`opened`), at least 2. SPEC: protocols/shells/SPEC.md.
    Raises :class:`ConfigurationError` for values that cannot work.
    """

    sizes: tuple[int, ...]
    tiers: tuple[int, ...]
    minimum_holders: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.sizes) <= MAX_SHELLS or min(self.sizes) < 1:
            raise ConfigurationError(f"there are 1 to {MAX_SHELLS} shells of at least one integer each")
        if any(not 1 <= tier <= len(self.sizes) for tier in self.tiers):
            raise ConfigurationError(f"a tier is 1 to {len(self.sizes)} (the number of shells)")
        if not 2 <= self.minimum_holders < 2**32:
            raise ConfigurationError(f"minimum_holders must be at least 2, got {self.minimum_holders}")

    def holders(self, shell: int, tiers: Sequence[int] | None = None) -> int:
        """How many clients hold ``shell`` (from 1), of the cohort or of those whose ``tiers`` are given."""
        return sum(tier >= shell for tier in (self.tiers if tiers is None else tiers))

    def opened(self, tiers: Sequence[int]) -> tuple[int, ...]:
        """The shells whose sums may be opened over survivors of these tiers, ascending. SPEC shells §4.

        A shell needs ``minimum_holders`` survivors, and must be held by all survivors that hold the last opened shell
        below it or by all but at least ``minimum_holders`` of them: the difference of two opened sums of one quantity
        (the weights) is then over nobody or over enough.
        """
        result: list[int] = []
        before = 0
        for shell in range(1, len(self.sizes) + 1):
            count = self.holders(shell, tiers)
            left_out = before - count if result else 0
            if count >= self.minimum_holders and (left_out == 0 or left_out >= self.minimum_holders):
                result.append(shell)
                before = count
        return tuple(result)

    def to_bytes(self) -> bytes:
        """What enters the context hash: minimum u32, number of shells u8, sizes u64, tiers u8."""
        sizes = b"".join(size.to_bytes(8, "big") for size in self.sizes)
        return self.minimum_holders.to_bytes(4, "big") + bytes([len(self.sizes)]) + sizes + bytes(self.tiers)


@dataclass(frozen=True, slots=True)
class RoundContext:
    """What one round of summation is about; every field is bound into keys and frames.

    ``session``: 1 to 64 bytes naming the run. ``round``: 0 .. 2**32 - 1. ``clients``: the invited cohort,
    ascending ids. ``dimension``: integers per client. ``max_value``: largest integer a client may give.
    ``threshold``: least number of survivors. ``model_hash``: 32 bytes, hash of the global model.

    ``segments``: for vectors whose integers differ in range; their sizes add up to ``dimension`` and the largest
    ``max_value`` is the context's. Empty: one range for all. ``encoding``: a hash of what else
    clients must agree on to encode alike (grid, layout, compressor, its public seed and scale), or empty.
    ``shells``: nested parts that clients hold different numbers of; without segments, and the sizes add up to
    ``dimension``. The sum's integers are 0 in shells that could not be opened. ``None``: everybody holds everything.
    """

    session: bytes
    round: int
    clients: tuple[ClientId, ...]
    dimension: int
    max_value: int
    threshold: int
    model_hash: bytes
    encoding: bytes = b""
    segments: tuple[Segment, ...] = ()
    shells: Shells | None = None

    def __post_init__(self) -> None:
        check_identity(self.clients, self.session, self.round, self.model_hash)

    def extra_fields(self) -> tuple[bytes, ...]:
        """What the context hash covers beyond the fields of a uniform vector: nothing for those."""
        return extra_fields(self.segments, self.encoding, self.shells)


def check_identity(clients: tuple[ClientId, ...], session: bytes, round: int, model_hash: bytes) -> None:
    """Raises :class:`ConfigurationError` for ids, names and numbers that cannot be bound into keys and frames."""
    if any(not 0 < i < 2**32 for i in clients) or list(clients) != sorted(set(clients)):
        raise ConfigurationError("client ids must be distinct, ascending and within 1 to 2**32 - 1")
    if not 1 <= len(session) <= MAX_SESSION_BYTES:
        raise ConfigurationError(f"a session name has 1 to {MAX_SESSION_BYTES} bytes, got {len(session)}")
    if not 0 <= round < 2**32:
        raise ConfigurationError(f"the round must be within 0 to 2**32 - 1, got {round}")
    if len(model_hash) != 32:
        raise ConfigurationError(f"a model hash has 32 bytes, got {len(model_hash)}")


def extra_fields(segments: tuple[Segment, ...], encoding: bytes, shells: Shells | None = None) -> tuple[bytes, ...]:
    """Fields appended to a context hash; none for a uniform vector without a compressor.

    SPEC compression §2, shells §3.
    """
    if shells is not None:
        return b"".join(map(Segment.to_bytes, segments)), encoding, shells.to_bytes()
    return (b"".join(map(Segment.to_bytes, segments)), encoding) if segments or encoding else ()


class ClientRole(Protocol):
    """One client in one session."""

    def start(self) -> Sequence[Event]: ...
    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """Give the client's integers, uint64[dimension], each <= max_value; once, at any time after ``start``.

        With shells: the integers of the shells that this client holds, in order.
        """
        ...

    def receive(self, frame: bytes) -> Sequence[Event]: ...


class ServerRole(Protocol):
    """The aggregating server in one session."""

    @property
    def waiting_for(self) -> Collection[PartyId]:
        """Parties whose message of the present exchange has not arrived; empty when the exchange is complete."""
        ...

    def start(self) -> Sequence[Event]: ...
    def receive(self, frame: bytes) -> Sequence[Event]: ...
    def close_round(self) -> Sequence[Event]:
        """End the present exchange with those who answered: the others are dropped from it."""
        ...


class Protection(Protocol):
    """A factory of roles: the one face of plain, masked, ckks and shared sums.

    Each method builds a fresh role for one party of one round; in a deployment every party calls only its own.
    All raise :class:`~securefl.errors.ConfigurationError` when the context cannot work under this protection.
    """

    @property
    def name(self) -> str: ...
    @property
    def vector_frame(self) -> int:
        """Which of a client's frames carries the vector, counted from 0: a client that sent it is in the sum."""
        ...

    def client(self, context: RoundContext, me: ClientId) -> ClientRole: ...
    def server(self, context: RoundContext) -> ServerRole: ...
    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        """Key holders and computing parties, by party id; empty where there are none."""
        ...
