"""Links as the channel of a computing party: parties by number, errors by number. See :mod:`securefl.mpc.channel`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from securefl.errors import DecodeError, FaultyPartyError, LostPartyError, TransportError
from securefl.mpc.channel import Traffic
from securefl.transport.tls.link import Link
from securefl.wire import Buffer

__all__ = ["LinkChannel"]


class LinkChannel:
    """A :class:`~securefl.mpc.channel.Channel` over one link per peer, ``links`` by the peer's number.

    ``deadline``: seconds for a message, beyond what its size needs; ``None``: no limit, for a party that waits for its
    next task. ``beside``: numbers of further peers whose links stand in the same group: their loss is noticed too, and
    named by number.
    """

    def __init__(
        self,
        party: int,
        links: Mapping[int, Link],
        deadline: float | None = 60.0,
        beside: Mapping[int, Link] | None = None,
    ) -> None:
        self.party = party
        self.deadline = deadline
        self.traffic: dict[int, Traffic] = {number: Traffic() for number in links}
        self._links = dict(links)
        everyone = {**(beside or {}), **self._links}
        self._numbers = {link.peer: number for number, link in everyone.items()}
        for link in everyone.values():
            link.group_with(*everyone.values())

    def send(self, to: int, *buffers: Buffer) -> None:
        with self._by_number(to):
            self._links[to].send(*buffers, timeout=self._timeout)
        traffic = self.traffic[to]
        traffic.bytes_sent += sum(memoryview(buffer).nbytes for buffer in buffers)
        traffic.messages_sent += 1

    def receive(self, sender: int, size: int) -> memoryview:
        with self._by_number(sender):
            message = self._links[sender].receive(size, timeout=self._timeout)
        return self._count(sender, message)

    def receive_up_to(self, sender: int, limit: int) -> memoryview:
        with self._by_number(sender):
            message = self._links[sender].receive_up_to(limit, timeout=self._timeout)
        return self._count(sender, message)

    def _count(self, sender: int, message: memoryview) -> memoryview:
        traffic = self.traffic[sender]
        traffic.bytes_received += message.nbytes
        traffic.messages_received += 1
        return message

    def close(self, reason: str | None = None) -> None:
        for link in self._links.values():
            link.close(reason)

    @property
    def _timeout(self) -> float:
        return math.inf if self.deadline is None else self.deadline

    @contextmanager
    def _by_number(self, party: int) -> Iterator[None]:
        try:
            yield
        except TransportError as error:
            raise LostPartyError(str(error), self._numbers.get(error.party, party)) from None
        except DecodeError as error:
            raise FaultyPartyError(f"{error}: it runs another program or other shapes", party) from None
