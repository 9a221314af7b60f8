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
#: Bytes read at one time of whatever a peer has sent: small messages that came together are one system call.
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


class _Inbox:
    """What was read from a peer and is not taken yet: ``memory[start:end]``."""

    __slots__ = ("end", "memory", "start")

    def __init__(self) -> None:
        self.memory = memoryview(bytearray(_AHEAD))
        self.start = self.end = 0


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
        self._inboxes = {other: _Inbox() for other in links}
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
        size = sum([memoryview(buffer).nbytes for buffer in buffers])
        traffic = self.traffic[to]
        traffic.bytes_sent += size
        traffic.messages_sent += 1
        header = size.to_bytes(_HEADER_BYTES, "big")
        if size > _AHEAD:  # too much to be copied
            views = [memoryview(header), *(view for buffer in buffers if (view := memoryview(buffer)).nbytes)]
        else:
            message = b"".join((header, *buffers))
            if len(self._gathered[to]) + len(message) <= self._gather:
                self._gathered[to] += message
                return
            views = [memoryview(message)]
        if self._gathered[to]:
            views, self._gathered[to] = [memoryview(self._gathered[to]), *views], bytearray()
        self._out(to, views)

    def _out(self, to: int, rest: list[memoryview]) -> None:
        """Hand bytes to the kernel, and keep what it does not take."""
        if not self._kept[to]:
            rest = self._write(to, rest)
        if not rest:
            return
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
                    sent -= views.pop(0).nbytes
                if sent:
                    views[0] = views[0][sent:]
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
        inbox = self._inboxes[sender]
        told = self._header(sender, inbox)
        if told != size:
            check_size(sender, told, size)
        return self._message(sender, inbox, size)

    def receive_up_to(self, sender: int, limit: int) -> memoryview:
        inbox = self._inboxes[sender]
        size = self._header(sender, inbox)
        check_limit(sender, size, limit)
        return self._message(sender, inbox, size)

    def _header(self, sender: int, inbox: _Inbox) -> int:
        """The size of the next message, before there is memory for it. It stays in the inbox."""
        if inbox.end - inbox.start < _HEADER_BYTES:
            self._hold(sender, inbox, _HEADER_BYTES)
        return int.from_bytes(inbox.memory[inbox.start : inbox.start + _HEADER_BYTES], "big")

    def _message(self, sender: int, inbox: _Inbox, size: int) -> memoryview:
        """Take header and message out of the inbox, and what is missing from the socket."""
        traffic = self.traffic[sender]
        traffic.bytes_received += size
        traffic.messages_received += 1
        due = _HEADER_BYTES + size
        if due <= _AHEAD:
            if inbox.end - inbox.start < due:
                self._hold(sender, inbox, due)
            message = memoryview(bytearray(inbox.memory[inbox.start + _HEADER_BYTES : inbox.start + due]))
            inbox.start += due
            return message
        message = np.empty(size, np.uint8).data
        here = inbox.memory[inbox.start + _HEADER_BYTES : inbox.end]
        message[: here.nbytes] = here
        inbox.start = inbox.end = 0
        missing = message[here.nbytes :]
        while missing.nbytes:
            got = self._read(sender, [missing, inbox.memory])
            inbox.end = max(got - missing.nbytes, 0)
            missing = missing[got:]
        return message

    def _hold(self, sender: int, inbox: _Inbox, due: int) -> None:
        """Read until ``due`` bytes are in the inbox, which has room for them."""
        if inbox.start + due > _AHEAD or inbox.start == inbox.end:
            held = inbox.memory[inbox.start : inbox.end]
            inbox.memory[: held.nbytes] = held
            inbox.start, inbox.end = 0, held.nbytes
        while inbox.end - inbox.start < due:
            inbox.end += self._read(sender, [inbox.memory[inbox.end :]])

    def _read(self, sender: int, parts: list[memoryview]) -> int:
        """At least one byte into ``parts``."""
        if self._gather:
            self._let_out()
        link, until = self._links[sender], 0.0
        awake = self._awake > 0
        while True:
            # While something is kept the kernel's timer must not hold this party: the peer may wait for just that.
            waiting = bool(self._kept_bytes)
            try:
                got = link.recvmsg_into(parts, 0, socket.MSG_DONTWAIT if waiting or awake else 0)[0]
            except BlockingIOError:
                if waiting:
                    self._wait(sender)
                elif not awake:
                    raise self._silent(sender) from None
                elif not until:
                    until = perf_counter() + self._awake
                else:
                    awake = perf_counter() < until
                continue
            except OSError as error:
                raise LostPartyError(f"party {sender} is gone: {error.strerror or error}", sender) from None
            if not got:
                raise LostPartyError(f"party {sender} has closed its links", sender)
            return got

    def close(self) -> None:
        for link in self._links.values():
            link.close()
