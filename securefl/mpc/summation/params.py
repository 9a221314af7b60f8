"""What one session of the shared sum is about, and the keys of its shares. SPEC: protocols/shared/SPEC.md §3, §4.

With nested shells (protocols/shells/SPEC.md §8) a client of tier t has the first words of the vector.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from securefl.encoding.shells import ShellPacking
from securefl.errors import ConfigurationError
from securefl.machine import RoundContext
from securefl.primitives.kdf import Label, derive, info_bytes, tuple_hash
from securefl.primitives.kem import Suite
from securefl.primitives.prg import KEY_BYTES
from securefl.types import ClientId, PartyId

__all__ = ["PROTOCOL", "SECOND_SERVER", "SEED_BYTES", "Params"]

#: This protocol's number in the envelope.
PROTOCOL: Final = 4
#: The second server's id on the wire: the largest there is; no client may have it.
SECOND_SERVER: Final = PartyId(2**32 - 1)
#: What the second server's share is expanded from.
SEED_BYTES: Final = 32
MAX_CLIENTS: Final = 2**16


@dataclass(frozen=True)
class Params:
    """A round's context and the suite of the boxes, checked.

    Raises :class:`ConfigurationError` for fewer than two clients, a client with the second server's id, a threshold
    outside 2 to n, shells with more minimum_holders than it, or integers whose sum does not fit its lanes.
    """

    context: RoundContext
    suite: Suite = Suite.MLKEM768_X25519

    def __post_init__(self) -> None:
        clients, threshold = self.context.clients, self.context.threshold
        if not 2 <= len(clients) <= MAX_CLIENTS:
            raise ConfigurationError(f"a shared sum needs 2 to {MAX_CLIENTS} clients, got {len(clients)}")
        if SECOND_SERVER in clients:
            raise ConfigurationError(f"id {SECOND_SERVER} is the second server's: give the client another")
        if not 2 <= threshold <= len(clients):
            raise ConfigurationError(f"the threshold must be 2 to {len(clients)}, got {threshold}")
        shells = self.context.shells
        if shells is not None and shells.minimum_holders > threshold:
            raise ConfigurationError(
                f"minimum_holders = {shells.minimum_holders} is more than the threshold, {threshold}: what everybody "
                "holds could stay closed"
            )
        _ = self.packing  # raises when the sum does not fit

    @cached_property
    def packing(self) -> ShellPacking:
        """How the integers are packed; headroom is for all invited holders."""
        return ShellPacking.of_context(self.context)

    @cached_property
    def _tiers(self) -> dict[ClientId, int]:
        shells, clients = self.context.shells, self.context.clients
        return dict(zip(clients, (1,) * len(clients) if shells is None else shells.tiers, strict=True))

    def tier(self, client: ClientId) -> int:
        """Of an invited client; 1 without shells."""
        return self._tiers[client]

    def words_of(self, client: ClientId) -> int:
        """Words of a client's vector: the first of the whole."""
        return self.packing.words_of(self.tier(client))

    def opened(self, survivors: Collection[ClientId]) -> tuple[tuple[int, int], ...]:
        """The words that are opened over ``survivors``, as ``(first, one past the last)``; all without shells."""
        shells = self.context.shells
        if shells is None:
            return self.packing.ranges
        return tuple(self.packing.ranges[shell - 1] for shell in shells.opened([self._tiers[c] for c in survivors]))

    @cached_property
    def context_hash(self) -> bytes:
        """32 bytes over every field: it enters every key and every frame. SPEC shared §3."""
        context = self.context
        return tuple_hash(
            Label.CONTEXT,
            b"shared",
            context.session,
            context.round.to_bytes(4, "big"),
            bytes([self.suite.code]),
            context.threshold.to_bytes(4, "big"),
            context.dimension.to_bytes(8, "big"),
            context.max_value.to_bytes(8, "big"),
            b"".join(client.to_bytes(4, "big") for client in context.clients),
            context.model_hash,
            *context.extra_fields(),
        )

    @cached_property
    def _invited(self) -> frozenset[ClientId]:
        return frozenset(self.context.clients)

    def __contains__(self, client: object) -> bool:
        return client in self._invited

    @property
    def vector_bytes(self) -> int:
        """Of the whole vector."""
        return 8 * self.packing.words

    @property
    def box_bytes(self) -> int:
        """Length of a sealed seed."""
        return self.suite.sealed_bytes(SEED_BYTES)

    def share_key(self, client: ClientId, seed: bytes) -> bytes:
        """16 bytes: the AES key whose stream is the second server's share of this client's vector. SPEC shared §4.1."""
        fields = (self.context_hash, client.to_bytes(4, "big"))
        return derive(seed, Label.SHARE_STREAM, *fields, length=KEY_BYTES)

    def box_info(self, client: ClientId) -> bytes:
        """What a client's sealed seed is bound to. SPEC shared §4.2."""
        return info_bytes(Label.SHARE_BOX, self.context_hash, client.to_bytes(4, "big"))
