"""The plain sum: no protection, the oracle for the others. The server sees every client's integers.

One exchange: each client sends its packed integers, the server adds them. Same face, same integers, same survivors'
rule as the protected sums, so that ``--protect plain`` is what they are compared with, bit for bit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, Final

import numpy as np

from securefl.encoding.shells import ShellPacking
from securefl.errors import ConfigurationError, DecodeError, FaultyClientError, FaultyServerError, TooFewClientsError
from securefl.machine import (
    Aborted,
    ClientRole,
    Completed,
    Event,
    Machine,
    NeedInput,
    RoundContext,
    Send,
    SumResult,
    TransitionTable,
)
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import SERVER, ClientId, IntegerVector, PartyId, RingVector
from securefl.wire import open_frame, seal_frame

__all__ = ["PlainClient", "PlainServer", "PlainSum"]

PROTOCOL: Final = 2
INPUT: Final = 1


def _context_hash(context: RoundContext) -> bytes:
    return tuple_hash(
        Label.CONTEXT,
        b"plain",
        context.session,
        context.round.to_bytes(4, "big"),
        context.threshold.to_bytes(4, "big"),
        context.dimension.to_bytes(8, "big"),
        context.max_value.to_bytes(8, "big"),
        b"".join(client.to_bytes(4, "big") for client in context.clients),
        context.model_hash,
        *context.extra_fields(),
    )


def _tiers(context: RoundContext) -> dict[ClientId, int]:
    """The tier of every invited client; 1 without shells."""
    tiers = context.shells.tiers if context.shells is not None else (1,) * len(context.clients)
    return dict(zip(context.clients, tiers, strict=True))


class State(Enum):
    NEW = auto()
    OPEN = auto()
    FINISHED = auto()
    ABORTED = auto()


class PlainClient(Machine):
    """Sends its integers as they are."""

    TRANSITIONS: ClassVar[TransitionTable] = {State.NEW: {"start": State.OPEN}, State.OPEN: {"provide": State.FINISHED}}
    INITIAL = State.NEW

    def __init__(self, context: RoundContext, me: ClientId) -> None:
        super().__init__()
        if me not in context.clients:
            raise ConfigurationError(f"client {me} is not among the invited clients")
        self._lanes = ShellPacking.of_context(context)
        self._tier = _tiers(context)[me]
        self._hash = _context_hash(context)
        self._me = me

    def start(self) -> Sequence[Event]:
        self._advance("start")
        return [NeedInput()]

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        self._check("provide")
        self._lanes.check(values, self._tier)
        self._advance("provide")
        body = self._lanes.pack(values, self._tier).view(np.uint8).data
        return [Send(SERVER, seal_frame(PROTOCOL, INPUT, self._hash, self._me, SERVER, body)), Completed()]

    def receive(self, frame: bytes) -> Sequence[Event]:
        raise FaultyServerError("the plain sum has no message to a client")


class PlainServer(Machine):
    """Adds what arrives; the threshold is the least number of survivors."""

    TRANSITIONS: ClassVar[TransitionTable] = {
        State.NEW: {"start": State.OPEN},
        State.OPEN: {"INPUT": State.OPEN, "close": State.FINISHED, "fail": State.ABORTED},
    }
    INITIAL = State.NEW

    def __init__(self, context: RoundContext) -> None:
        super().__init__()
        if not 1 <= context.threshold <= len(context.clients):
            raise ConfigurationError(f"the threshold must be 1 to {len(context.clients)}, got {context.threshold}")
        self._context = context
        self._lanes = ShellPacking.of_context(context)
        self._tiers = _tiers(context)
        self._hash = _context_hash(context)
        self._total: RingVector = np.zeros(self._lanes.words, dtype=np.uint64)
        self._answered: dict[ClientId, bytes] = {}

    @property
    def waiting_for(self) -> Collection[PartyId]:
        open_now = self._context.clients if self.state is State.OPEN else ()
        return tuple(client for client in open_now if client not in self._answered)

    def start(self) -> Sequence[Event]:
        self._advance("start")
        return ()

    def receive(self, frame: bytes) -> Sequence[Event]:
        self._check("INPUT")
        limits = {INPUT: 8 * self._lanes.words}
        envelope = open_frame(frame, protocol=PROTOCOL, context=self._hash, recipient=SERVER, limits=limits)
        sender = envelope.sender
        if sender not in self._tiers or envelope.body.nbytes != 8 * self._lanes.words_of(self._tiers[sender]):
            raise FaultyClientError(f"party {sender} is not invited, or sent a vector of another size", [sender])
        if sender in self._answered:
            if self._answered[sender] == envelope.checksum:
                return ()
            raise FaultyClientError(f"client {sender} sent two different inputs", [sender])
        words = np.frombuffer(envelope.body, dtype="<u8")
        self._total[: words.size] += words
        self._answered[sender] = envelope.checksum
        return ()

    def close_round(self) -> Sequence[Event]:
        left, needed = len(self._answered), self._context.threshold
        if left < needed:
            self._advance("fail")
            return [Aborted(TooFewClientsError(f"{left} clients are left; the threshold is {needed}"))]
        survivors = tuple(sorted(self._answered))
        try:
            values = self._lanes.unpack(self._total, [self._tiers[client] for client in survivors])
        except DecodeError as error:
            self._advance("fail")
            return [
                Aborted(FaultyClientError(f"{error}; some client's words are no packed vector", survivors), survivors)
            ]
        self._advance("close")
        return [Completed(SumResult(values, survivors))]


@dataclass(frozen=True, slots=True)
class PlainSum:
    """No protection: for comparison only."""

    @property
    def name(self) -> str:
        return "plain"

    @property
    def vector_frame(self) -> int:
        return 0

    def client(self, context: RoundContext, me: ClientId) -> PlainClient:
        return PlainClient(context, me)

    def server(self, context: RoundContext) -> PlainServer:
        return PlainServer(context)

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        return {}
