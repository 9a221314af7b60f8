"""One sum over made-up updates, played in this process and told: what the demonstrations of CKKS have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np

from securefl.cli.output import bytes_text, console, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError
from securefl.fl.seeds import SeedTree
from securefl.machine import Protection, RoundContext
from securefl.transport.memory import Faults, run_session
from securefl.transport.transcript import Transcript
from securefl.types import ClientId, IntegerVector, PartyId

__all__ = ["DemoSum"]

Kind = TypeVar("Kind", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class DemoSum:
    """``clients`` clients with ``dimension`` values of 16 bits, the last ``drop`` of which leave before their vector.

    Raises :class:`ConfigurationError` when the numbers cannot work; ``drop`` beyond what the threshold allows is let
    through, to show the refusal (:class:`~securefl.errors.TooFewClientsError`).
    """

    clients: int
    drop: int
    dimension: int

    def __post_init__(self) -> None:
        if self.clients < 2 or self.dimension < 1:
            raise ConfigurationError("--clients must be at least 2 and --values at least 1")
        if not 0 <= self.drop <= self.clients:
            raise ConfigurationError(f"--drop must be 0 to {self.clients} (the number of clients)")

    @property
    def grid(self) -> FixedPoint:
        return FixedPoint(clip_range=1.0, value_bits=16)

    @property
    def context(self) -> RoundContext:
        """A majority is the threshold."""
        ids = tuple(PartyId(i) for i in range(1, self.clients + 1))
        return RoundContext(b"demo", 1, ids, self.dimension, self.grid.max_value, self.clients // 2 + 1, bytes(32))

    def integers(self) -> dict[ClientId, IntegerVector]:
        """The same in every demonstration."""
        seeds = SeedTree(0)
        given = {}
        for client in self.context.clients:
            update = seeds.child("update", client).numpy().normal(0, 0.1, self.dimension).clip(-1, 1)
            given[client] = self.grid.encode(update, seed=seeds.child("rounding", client).bytes(32)).values
        return given

    def play(self, protection: Protection, what: Mapping[Kind, str], *, quiet: bool) -> dict[str, Any]:
        """Run the session, tell its messages (``what`` each kind is) and the check; returns the figures."""
        integers, transcript = self.integers(), Transcript()
        clients = self.context.clients
        gone = clients[self.clients - self.drop :]
        faults = Faults(drop_after=dict.fromkeys(gone, protection.vector_frame))
        outcome = run_session(protection, self.context, integers.__getitem__, faults=faults, observe=transcript)
        rows = [
            (kind.name, len(frames), bytes_text(sum(len(entry.frame) for entry in frames)), words)
            for kind, words in what.items()
            if (frames := [entry for entry in transcript if entry.kind == kind])
        ]
        if not quiet:
            print_table("messages", ("message", "frames", "bytes", "what it is"), rows)
        result = outcome.unwrap()
        plain = np.sum([integers[i] for i in result.survivors], axis=0, dtype=np.uint64)
        exact = bool((plain == result.values).all())
        if not quiet:
            console.print(
                f"sum over {len(result.survivors)} survivors: "
                f"{'equal to the plain sum in every integer' if exact else 'NOT the plain sum'}",
                markup=False,
            )
        return {
            "clients": self.clients,
            "survivors": list(result.survivors),
            "exact": exact,
            "vector_bytes": outcome.vector_bytes[clients[0]],
            "messages": [{"message": name, "frames": count} for name, count, _size, _what in rows],
        }
