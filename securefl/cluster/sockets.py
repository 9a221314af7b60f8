"""Links of a party over connected stream sockets: between processes of one machine, where the kernel is trusted.

A message is an 8-byte big-endian length and its bytes. Sending never waits for the peer to read: what the kernel does
not take is kept, and goes out while this party waits for something itself, or in :meth:`SocketChannel.flush`.
Between machines use the mutual TLS of ``securefl.transport.tls``; these links authenticate nobody.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Mapping

import numpy as np

from securefl.errors import LostPartyError
from securefl.mpc.channel import Traffic, check_size
from securefl.wire import Buffer

__all__ = ["SocketChannel", "connected_pair"]

_KERNEL_BUFFER = 4 << 20
#: Bytes kept for peers that do not read before a sender waits for them; only the helper ever gets that far ahead.
_KEPT_MOST = 256 << 20


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

    ``None`` waits for ever: for a party between two commands of its client.
    """

    def __init__(self, party: int, links: Mapping[int, socket.socket], deadline: float | None = 60.0) -> None:
        self.party = party
        self.deadline = deadline
        self.traffic: dict[int, Traffic] = {other: Traffic() for other in links}
        self._links = dict(links)
        self._kept: dict[int, deque[memoryview]] = {other: deque() for other in links}
        self._kept_bytes = 0
        for link in self._links.values():
            link.setblocking(False)

    # ---- sending

    def send(self, to: int, *buffers: Buffer) -> None:
        views = [memoryview(buffer) for buffer in buffers if memoryview(buffer).nbytes]
        size = sum(view.nbytes for view in views)
        traffic = self.traffic[to]
        traffic.bytes_sent += size
        traffic.messages_sent += 1
        rest: list[memoryview] = [memoryview(size.to_bytes(8, "big")), *views]
        if not self._kept[to]:
            rest = self._write(to, rest)
        for view in rest:
            self._kept[to].append(memoryview(bytes(view)))
            self._kept_bytes += view.nbytes
        while self._kept_bytes > _KEPT_MOST:
            self._wait(None)

    def _write(self, to: int, views: list[memoryview]) -> list[memoryview]:
        """Hand the kernel what it takes; the rest."""
        try:
            while views:
                sent = self._links[to].sendmsg(views[:64])
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
            missing = reading if reading is not None else kept[0]
            raise LostPartyError(f"party {missing} made no progress for {self.deadline} s", missing)
        for other in kept:
            queue = self._kept[other]
            before = sum(view.nbytes for view in queue)
            rest = self._write(other, list(queue))
            self._kept_bytes -= before - sum(view.nbytes for view in rest)
            self._kept[other] = deque(rest)

    def flush(self) -> None:
        """Wait until everything kept has gone out."""
        while self._kept_bytes:
            self._wait(None)

    # ---- receiving

    def receive(self, sender: int, size: int) -> memoryview:
        header, message = bytearray(8), np.empty(size, np.uint8).data
        parts = [memoryview(header), message] if size else [memoryview(header)]
        announced = False
        while parts:
            got = self._read(sender, parts)
            while parts and got >= parts[0].nbytes:
                got -= parts[0].nbytes
                parts = parts[1:]
            if got:
                parts = [parts[0][got:], *parts[1:]]
            if not announced and len(parts) < 2:
                check_size(sender, int.from_bytes(header, "big"), size)
                announced = True
        traffic = self.traffic[sender]
        traffic.bytes_received += size
        traffic.messages_received += 1
        return message

    def _read(self, sender: int, parts: list[memoryview]) -> int:
        """At least one byte into ``parts``."""
        link = self._links[sender]
        while True:
            try:
                got = link.recvmsg_into(parts)[0]
            except BlockingIOError:
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
