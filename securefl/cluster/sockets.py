"""Links of a party over connected stream sockets: between processes of one machine, where the kernel is trusted.

A message is an 8-byte big-endian length and its bytes. Sending never waits for the peer to read: what the kernel does
not take is kept, and goes out while this party waits for something itself, or in :meth:`SocketChannel.flush`.
Between machines use the mutual TLS of ``securefl.transport.tls``; these links authenticate nobody.
"""

from __future__ import annotations

import select
import socket
import struct
from collections import deque
from collections.abc import Mapping
from time import perf_counter

import numpy as np

from securefl.errors import LostPartyError
from securefl.mpc.channel import HELPER, Traffic, check_limit, check_size
from securefl.wire import Buffer

__all__ = ["SocketChannel", "connected_pair"]

_KERNEL_BUFFER = 4 << 20
#: Bytes kept for peers that do not read before a sender that never reads itself, the helper, waits for them. Servers
#: send to each other at the same time, so waiting before reading could stop both.
_KEPT_MOST = 256 << 20
#: Bytes that are read beyond the message that is due: small messages that came together are one system call.
_AHEAD = 1 << 14
_HEADER_BYTES = 8


def connected_pair(family: str = "unix") -> tuple[socket.socket, socket.socket]:
    """Two connected sockets: a Unix socket pair, or ``"tcp"`` over loopback."""
    if family == "unix":
        pair = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
            first = socket.create_connection(listener.getsockname())
            while True:
                second, peer = listener.accept()
                if peer == first.getsockname():  # not somebody else on this machine
                    break
                second.close()
        pair = (first, second)
        for end in pair:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if family == "unix":
        for end in pair:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER)
    return pair


class SocketChannel:
    """A :class:`~securefl.mpc.channel.Channel` over one socket per peer. ``deadline``: seconds without any progress.

    ``None`` waits for ever: for a party between two commands of its client. ``gather``: so many bytes of messages to a
    peer may wait for the next one, or for :meth:`flush`: one system call then takes many small messages, and wakes the
    peer once. For a party that is ahead of the others; a party that receives lets them out before it waits.
    ``awake``: seconds for which it asks again before it sleeps until a message is there.
    """

    def __init__(
        self,
        party: int,
        links: Mapping[int, socket.socket],
        deadline: float | None = 60.0,
        gather: int = 0,
        awake: float = 0.0,
    ) -> None:
        self.party = party
        self.traffic: dict[int, Traffic] = {other: Traffic() for other in links}
        self._links = dict(links)
        self._kept: dict[int, deque[memoryview]] = {other: deque() for other in links}
        self._kept_bytes = 0
        self._awake = awake
        self._gather = gather
        self._gathered: dict[int, bytearray] = {other: bytearray() for other in links}
        self._buffers = {other: memoryview(bytearray(_AHEAD)) for other in links}
        self._ahead: dict[int, memoryview] = {other: memoryview(b"") for other in links}
        self.deadline = deadline

    @property
    def deadline(self) -> float | None:
        """Seconds without any progress after which a peer is given up; ``None``: never."""
        return self._deadline

    @deadline.setter
    def deadline(self, seconds: float | None) -> None:
        self._deadline = seconds
        whole = 0.0 if seconds is None else max(seconds, 1e-3)  # to the kernel, zero is for ever
        for link in self._links.values():
            # The kernel's own timer: waiting for a message is then one system call.
            link.setblocking(True)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(whole), int(whole % 1 * 1e6)))

    # ---- sending

    def send(self, to: int, *buffers: Buffer) -> None:
        views = [memoryview(buffer) for buffer in buffers if memoryview(buffer).nbytes]
        size = sum(view.nbytes for view in views)
        traffic = self.traffic[to]
        traffic.bytes_sent += size
        traffic.messages_sent += 1
        header = size.to_bytes(8, "big")
        gathered = self._gathered[to]
        if len(gathered) + size + len(header) <= self._gather:
            gathered += header
            for view in views:
                gathered += view
            return
        before: list[memoryview] = []
        if gathered:
            before, self._gathered[to] = [memoryview(gathered)], bytearray()
        self._out(to, [*before, memoryview(header), *views])

    def _out(self, to: int, rest: list[memoryview]) -> None:
        """Hand bytes to the kernel, and keep what it does not take."""
        if not self._kept[to]:
            rest = self._write(to, rest)
        for view in rest:
            self._kept[to].append(memoryview(bytes(view)))
            self._kept_bytes += view.nbytes
        while self.party == HELPER and self._kept_bytes > _KEPT_MOST:
            self._wait(None)

    def _write(self, to: int, views: list[memoryview]) -> list[memoryview]:
        """Hand the kernel what it takes; the rest."""
        try:
            while views:
                sent = self._links[to].sendmsg(views[:64], (), socket.MSG_DONTWAIT)
                while views and sent >= views[0].nbytes:
                    sent -= views[0].nbytes
                    views = views[1:]
                if sent:
                    views = [views[0][sent:], *views[1:]]
        except BlockingIOError:
            pass
        except OSError as error:
            raise LostPartyError(f"party {to} is gone: {error.strerror or error}", to) from None
        return views

    def _wait(self, reading: int | None) -> None:
        """Until ``reading`` has bytes or a peer takes some; then let every peer take what it takes."""
        poller = select.poll()
        if reading is not None:
            poller.register(self._links[reading], select.POLLIN)
        kept = [other for other, queue in self._kept.items() if queue]
        for other in kept:
            poller.register(self._links[other], select.POLLOUT | (select.POLLIN if other == reading else 0))
        if not poller.poll(None if self.deadline is None else self.deadline * 1000):
            raise self._silent(reading if reading is not None else kept[0])
        for other in kept:
            queue = self._kept[other]
            before = sum(view.nbytes for view in queue)
            rest = self._write(other, list(queue))
            self._kept_bytes -= before - sum(view.nbytes for view in rest)
            self._kept[other] = deque(rest)

    def _silent(self, party: int) -> LostPartyError:
        return LostPartyError(f"party {party} made no progress for {self.deadline} s", party)

    def flush(self) -> None:
        """Wait until everything gathered or kept has gone out."""
        self._let_out()
        while self._kept_bytes:
            self._wait(None)

    def _let_out(self) -> None:
        for to, gathered in self._gathered.items():
            if gathered:
                self._gathered[to] = bytearray()
                self._out(to, [memoryview(gathered)])

    # ---- receiving

    def receive(self, sender: int, size: int) -> memoryview:
        header, message = bytearray(_HEADER_BYTES), np.empty(size, np.uint8).data
        parts = self._fill(sender, [memoryview(header), message], size)
        check_size(sender, int.from_bytes(header, "big"), size)
        self._fill(sender, parts, 0)
        return self._count(sender, message)

    def receive_up_to(self, sender: int, limit: int) -> memoryview:
        header = bytearray(_HEADER_BYTES)
        self._fill(sender, [memoryview(header)], 0)
        size = int.from_bytes(header, "big")
        check_limit(sender, size, limit)
        message = np.empty(size, np.uint8).data
        self._fill(sender, [message], 0)
        return self._count(sender, message)

    def _count(self, sender: int, message: memoryview) -> memoryview:
        traffic = self.traffic[sender]
        traffic.bytes_received += message.nbytes
        traffic.messages_received += 1
        return message

    def _fill(self, sender: int, parts: list[memoryview], missing: int) -> list[memoryview]:
        """Fill ``parts`` in order until at most ``missing`` bytes of them are due; what remains.

        From what was read ahead, then from the socket, of which more is read than is due when it is there.
        """
        due = sum(part.nbytes for part in parts)
        ahead = self._ahead[sender]
        while ahead.nbytes and due:
            part = parts[0][: ahead.nbytes]
            part[:] = ahead[: part.nbytes]
            ahead, due, parts = ahead[part.nbytes :], due - part.nbytes, _after(parts, part.nbytes)
        if due > missing and self._gather:
            self._let_out()
        while due > missing:
            got = self._read(sender, [*parts, self._buffers[sender]])
            parts, ahead = _after(parts, got), self._buffers[sender][: max(got - due, 0)]
            due = max(due - got, 0)
        self._ahead[sender] = ahead
        return parts

    def _read(self, sender: int, parts: list[memoryview]) -> int:
        """At least one byte into ``parts``."""
        link = self._links[sender]
        until = perf_counter() + self._awake if self._awake else 0.0
        while True:
            # While something is kept the kernel's timer must not hold this party: the peer may wait for just that.
            waiting = bool(self._kept_bytes)
            awake = not waiting and bool(until) and perf_counter() < until
            try:
                got = link.recvmsg_into(parts, 0, socket.MSG_DONTWAIT if waiting or awake else 0)[0]
            except BlockingIOError:
                if awake:
                    continue
                if not waiting:
                    raise self._silent(sender) from None
                self._wait(sender)
                continue
            except OSError as error:
                raise LostPartyError(f"party {sender} is gone: {error.strerror or error}", sender) from None
            if not got:
                raise LostPartyError(f"party {sender} has closed its links", sender)
            return got

    def close(self) -> None:
        for link in self._links.values():
            link.close()


def _after(parts: list[memoryview], count: int) -> list[memoryview]:
    """``parts`` without their first ``count`` bytes, and without empty ones."""
    while parts and count >= parts[0].nbytes:
        count -= parts[0].nbytes
        parts = parts[1:]
    return [parts[0][count:], *parts[1:]] if count and parts else parts
