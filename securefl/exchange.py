"""What aggregators of several protocols share: an exchange with many clients, and the notice that a session ended.

A server asks clients (:meth:`Exchange.open`), takes one frame of each (:meth:`Exchange.admits`, then
:meth:`Exchange.took`), and goes on with those who answered. What is in a frame is the protocol's own affair.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from securefl.errors import DecodeError, FaultyClientError, ProtocolError, TooFewClientsError
from securefl.machine import Aborted
from securefl.types import ClientId
from securefl.wire import Buffer, Envelope

__all__ = ["Abort", "Exchange"]


class Exchange:
    """Who was asked in the present exchange and who answered it; which frames of the session were taken already."""

    def __init__(self) -> None:
        self._asked: frozenset[ClientId] = frozenset()
        self._answered: set[ClientId] = set()
        self._taken: dict[tuple[ClientId, int], bytes] = {}

    def open(self, clients: Collection[ClientId]) -> None:
        """Begin the next exchange with ``clients``; frames of earlier ones stay known, so that repeats are."""
        self._asked, self._answered = frozenset(clients), set()

    def forget(self) -> None:
        """Ask nobody and know no frame any more: the session ended, or begins again under other keys."""
        self.open(())
        self._taken = {}

    @property
    def asked(self) -> tuple[ClientId, ...]:
        """Ascending."""
        return tuple(sorted(self._asked))

    @property
    def answered(self) -> tuple[ClientId, ...]:
        """Ascending."""
        return tuple(sorted(self._answered))

    @property
    def waiting_for(self) -> tuple[ClientId, ...]:
        """Clients that were asked and have not answered, ascending."""
        return tuple(sorted(self._asked - self._answered))

    def admits(self, envelope: Envelope, name: str, state: str, *, due: bool) -> bool:
        """Whether a frame is to be taken; ``False`` for one that was: transports may repeat.

        ``name``: of the frame's kind. ``state``: of the server. ``due``: whether that kind belongs to that state.
        Raises :class:`ProtocolError` for a frame outside its exchange, for which nobody is to blame (the exchange may
        have been closed without this client), and :class:`FaultyClientError` for a second, different answer.
        """
        sender = envelope.sender
        if self._taken.get((sender, envelope.kind)) == envelope.checksum:
            return False
        if not due or sender not in self._asked:
            raise ProtocolError(f"{name} from client {sender} came outside its exchange (now {state})")
        if sender in self._answered:
            raise FaultyClientError(f"client {sender} sent two different {name} messages", [sender])
        return True

    def took(self, envelope: Envelope) -> None:
        """The frame was good: its sender has answered."""
        self._answered.add(envelope.sender)
        self._taken[envelope.sender, envelope.kind] = envelope.checksum


@dataclass(frozen=True, slots=True)
class Abort:
    """Server → client, any time: the session has ended without a result. 1 byte, the reason.

    SPEC secagg §6.8, ckks-threshold §7.
    """

    reason: int

    TOO_FEW_CLIENTS: ClassVar[int] = 1
    FAULTY_CLIENTS: ClassVar[int] = 2
    LENGTH: ClassVar[int] = 1

    @classmethod
    def for_error(cls, error: TooFewClientsError | FaultyClientError) -> Abort:
        return cls(cls.TOO_FEW_CLIENTS if isinstance(error, TooFewClientsError) else cls.FAULTY_CLIENTS)

    def encode(self) -> bytes:
        return bytes([self.reason])

    @classmethod
    def decode(cls, body: Buffer) -> Abort:
        """Raises :class:`DecodeError` for other lengths and reasons."""
        view = memoryview(body).cast("B")
        if view.nbytes != cls.LENGTH:
            raise DecodeError(f"an abort notice has {cls.LENGTH} byte, got {view.nbytes}")
        if view[0] not in (cls.TOO_FEW_CLIENTS, cls.FAULTY_CLIENTS):
            raise DecodeError(f"unknown abort reason {view[0]}")
        return cls(view[0])

    def event(self) -> Aborted:
        """How the session ends for a client that was told."""
        if self.reason == self.TOO_FEW_CLIENTS:
            return Aborted(TooFewClientsError("the server ended the session: too few clients are left"))
        return Aborted(FaultyClientError("the server ended the session: clients broke the protocol"))
