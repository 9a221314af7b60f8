"""What one session of the masked sum is about, checked before anything is sent. SPEC: protocols/secagg/SPEC.md §3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final

from securefl.encoding.packing import Packing
from securefl.encoding.shells import ShellPacking
from securefl.errors import ConfigurationError
from securefl.machine import RoundContext, Segment, Shells, check_identity, extra_fields
from securefl.primitives.kdf import Label, tuple_hash
from securefl.primitives.kem import Suite
from securefl.types import ClientId

__all__ = ["PROTOCOL", "Adversary", "Graph", "Params"]

#: This protocol's number in the envelope.
PROTOCOL: Final = 1
MAX_CLIENTS: Final = 2**16


class Adversary(Enum):
    """Against whom the inputs are protected. Numbers are on the wire."""

    SEMI_HONEST = 1


class Graph(Enum):
    """Which clients share a mask. Numbers are on the wire."""

    COMPLETE = 1


@dataclass(frozen=True)
class Params:
    """Everything that all parties of a session must agree on.

    ``clients``: the invited cohort, ascending ids in 1 … 2^32 − 1, at least two. ``dimension``: integers per
    client. ``max_value``: the largest integer a client may give. ``threshold``: t, the least number of survivors
    and the number of shares that open a secret; default: the smallest majority, floor(n/2) + 1. ``session``: 1 to
    64 bytes that name the run; ``round``: its round. ``model_hash``: 32 bytes. ``segments``, ``encoding``: see
    :class:`~securefl.machine.RoundContext`; both empty for a vector of one range. ``shells``: nested parts that clients
    of different tiers hold, or ``None``; their ``minimum_holders`` is at most the threshold.

    Raises :class:`ConfigurationError` for anything that cannot work. A threshold of n/2 or less is refused unless
    ``allow_minority_threshold``: two disjoint halves of the cohort could then each open a secret of the same client.
    """

    clients: tuple[ClientId, ...]
    dimension: int
    max_value: int
    threshold: int = 0
    session: bytes = b"session"
    round: int = 0
    model_hash: bytes = bytes(32)
    suite: Suite = Suite.MLKEM768_X25519
    adversary: Adversary = Adversary.SEMI_HONEST
    graph: Graph = Graph.COMPLETE
    allow_minority_threshold: bool = False
    encoding: bytes = b""
    segments: tuple[Segment, ...] = ()
    shells: Shells | None = None

    def __post_init__(self) -> None:
        n = len(self.clients)
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int):
            raise ConfigurationError(f"the threshold must be a whole number, got {self.threshold!r}")
        if not 2 <= n <= MAX_CLIENTS:
            raise ConfigurationError(f"a masked sum needs 2 to {MAX_CLIENTS} clients, got {n}")
        check_identity(self.clients, self.session, self.round, self.model_hash)
        if not self.threshold:
            object.__setattr__(self, "threshold", n // 2 + 1)
        if not 2 <= self.threshold <= n:
            raise ConfigurationError(f"the threshold must be 2 to {n} (the number of clients), got {self.threshold}")
        if 2 * self.threshold <= n and not self.allow_minority_threshold:
            raise ConfigurationError(
                f"a threshold of {self.threshold} is not a majority of {n} clients: use at least {n // 2 + 1}"
            )
        if self.shells is not None and self.shells.minimum_holders > self.threshold:
            raise ConfigurationError(
                f"minimum_holders = {self.shells.minimum_holders} is more than the threshold {self.threshold}: the "
                "shell that all clients hold could stay closed; raise the threshold"
            )
        _ = self.packing  # raises when the sum does not fit

    @classmethod
    def of(cls, context: RoundContext, suite: Suite = Suite.MLKEM768_X25519) -> Params:
        """The parameters of one round of the pipeline. Raises :class:`ConfigurationError` as the constructor does."""
        if context.threshold < 1:  # 0 asks the constructor for its default; a context has none
            raise ConfigurationError(f"the threshold must be at least 2, got {context.threshold}")
        return cls(
            clients=context.clients,
            dimension=context.dimension,
            max_value=context.max_value,
            threshold=context.threshold,
            session=context.session,
            round=context.round,
            model_hash=context.model_hash,
            suite=suite,
            segments=context.segments,
            encoding=context.encoding,
            shells=context.shells,
        )

    @cached_property
    def packing(self) -> ShellPacking:
        """How the integers of every shell are packed."""
        return ShellPacking.of(self.dimension, self.max_value, len(self.clients), self.segments, self.shells)

    @property
    def lanes(self) -> Packing:
        """How the integers are packed, of the first shell if there are shells; headroom is for all invited clients."""
        return self.packing.parts[0]

    @property
    def shell_count(self) -> int:
        """Shells of the vector; 1 without shells."""
        return len(self.packing.parts)

    def tier(self, client: ClientId) -> int:
        """How many shells a client holds; 1 without shells, where the one shell is the whole vector."""
        return 1 if self.shells is None else self.shells.tiers[self._points[client] - 1]

    def opened(self, survivors: Sequence[ClientId]) -> tuple[int, ...]:
        """The shells whose sums are opened over these survivors, ascending."""
        return (1,) if self.shells is None else self.shells.opened([self.tier(client) for client in survivors])

    @cached_property
    def context_hash(self) -> bytes:
        """32 bytes over every field: it enters every key and every frame. SPEC §3."""
        return tuple_hash(
            Label.CONTEXT,
            b"secagg",
            self.session,
            self.round.to_bytes(4, "big"),
            bytes([self.suite.code, self.adversary.value, self.graph.value]),
            self.threshold.to_bytes(4, "big"),
            self.dimension.to_bytes(8, "big"),
            self.max_value.to_bytes(8, "big"),
            b"".join(i.to_bytes(4, "big") for i in self.clients),
            self.model_hash,
            *extra_fields(self.segments, self.encoding, self.shells),
        )

    def point(self, client: ClientId) -> int:
        """A client's Shamir point: its place in the invited cohort, from 1. Never taken from the wire."""
        return self._points[client]

    @cached_property
    def _points(self) -> dict[ClientId, int]:
        return {client: at for at, client in enumerate(self.clients, start=1)}

    def __contains__(self, client: object) -> bool:
        return client in self._points

    @property
    def value_bits(self) -> int:
        """Bits of the largest value."""
        return self.max_value.bit_length()
