"""The links of one computing party to the others: the contract, and links inside one process.

A party program (:mod:`securefl.mpc.party`) talks to the other parties through a :class:`Channel` that is handed to it.
What carries the bytes is not its business: queues in one process (here), sockets of processes on one machine
(``securefl.cluster``), mutual TLS between machines (``securefl.transport.tls``).

Every message of the protocol has a size that follows from public shapes, so a receiver always says how many bytes it
expects; a message of another size is an error before it is used. SPEC mpc §2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from securefl.errors import FaultyPartyError, LostPartyError
from securefl.wire import Buffer

__all__ = ["HELPER", "PARTIES", "Channel", "MemoryChannel", "Traffic", "check_limit", "check_size", "memory_channels"]

#: Computing servers are parties 0 and 1; party 2 is the helper (engine "two-servers+helper") or the third server.
PARTIES: Final = 3
HELPER: Final = 2


@dataclass
class Traffic:
    """Bytes and messages of one link, payloads only, as this party counts them."""

    bytes_sent: int = 0
    bytes_received: int = 0
    messages_sent: int = 0
    messages_received: int = 0


class Channel(Protocol):
    """Ordered, reliable, authenticated and confidential links of this party to the others.

    One thread uses a channel. Failures raise :class:`~securefl.errors.LostPartyError` (the peer is gone, or a deadline
    passed) or :class:`~securefl.errors.FaultyPartyError` (a message of another size than the protocol's); after either
    the channel is of no further use.
    """

    @property
    def party(self) -> int:
        """0 or 1: a computing server; 2: the helper, or the third server."""
        ...

    @property
    def traffic(self) -> Mapping[int, Traffic]:
        """What went over the link to each other party so far."""
        ...

    def send(self, to: int, *buffers: Buffer) -> None:
        """Send one message: the concatenation of ``buffers``.

        Does not wait for the peer to read: two parties may send to each other at the same time, however much.
        ``buffers`` may be reused when this returns, not before.
        """
        ...

    def receive(self, sender: int, size: int) -> memoryview:
        """The next message from ``sender``, which must have exactly ``size`` bytes. The memory is the caller's."""
        ...

    def receive_up_to(self, sender: int, limit: int) -> memoryview:
        """The next message from ``sender``, which must have at most ``limit`` bytes. The memory is the caller's."""
        ...

    def close(self) -> None:
        """Give up the links. Peers that wait for a message get a :class:`~securefl.errors.LostPartyError`."""
        ...


def check_limit(sender: int, size: int, limit: int) -> None:
    """Raise :class:`FaultyPartyError` for a message beyond its limit, before there is memory for it."""
    if size > limit:
        raise FaultyPartyError(f"party {sender} sent a message of {size} bytes where at most {limit} are due", sender)


def check_size(sender: int, size: int, expected: int) -> None:
    """Raise :class:`FaultyPartyError` unless a message has the size that the protocol gives it here."""
    if size != expected:
        raise FaultyPartyError(
            f"party {sender} sent a message of {size} bytes where {expected} are due: "
            "it runs another program or other shapes, or the message was damaged",
            sender,
        )


@dataclass
class MemoryChannel:
    """Links inside one process: one queue per direction. ``deadline``: seconds to wait for a message.

    ``None`` waits for ever.
    """

    party: int
    deadline: float | None = 60.0
    traffic: dict[int, Traffic] = field(default_factory=dict)
    _inbox: dict[int, SimpleQueue[bytearray | None]] = field(default_factory=dict, repr=False)
    _outbox: dict[int, SimpleQueue[bytearray | None]] = field(default_factory=dict, repr=False)

    def send(self, to: int, *buffers: Buffer) -> None:
        message = bytearray().join(buffers)
        link = self.traffic[to]
        link.bytes_sent += len(message)
        link.messages_sent += 1
        self._outbox[to].put(message)

    def receive(self, sender: int, size: int) -> memoryview:
        message = self._next(sender)
        check_size(sender, len(message), size)
        return self._count(sender, message)

    def receive_up_to(self, sender: int, limit: int) -> memoryview:
        message = self._next(sender)
        check_limit(sender, len(message), limit)
        return self._count(sender, message)

    def _next(self, sender: int) -> bytearray:
        try:
            message = self._inbox[sender].get(timeout=self.deadline)
        except Empty:
            raise LostPartyError(f"party {sender} sent nothing for {self.deadline} s", sender) from None
        if message is None:
            self._inbox[sender].put(None)  # whoever asks again is told again
            raise LostPartyError(f"party {sender} has closed its links", sender)
        return message

    def _count(self, sender: int, message: bytearray) -> memoryview:
        link = self.traffic[sender]
        link.bytes_received += len(message)
        link.messages_received += 1
        return memoryview(message)

    def close(self) -> None:
        for queue in self._outbox.values():
            queue.put(None)


def memory_channels(parties: int = PARTIES, deadline: float | None = 60.0) -> Sequence[MemoryChannel]:
    """Connected channels of all parties of one process, one thread each."""
    channels = [
        MemoryChannel(me, deadline, {other: Traffic() for other in range(parties) if other != me})
        for me in range(parties)
    ]
    for sender in channels:
        for recipient in channels:
            if sender is not recipient:
                queue: SimpleQueue[bytearray | None] = SimpleQueue()
                sender._outbox[recipient.party] = queue
                recipient._inbox[sender.party] = queue
    return channels
