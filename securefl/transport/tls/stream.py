"""TLS over a socket that never blocks, through memory buffers.

OpenSSL on a socket makes two system calls per record of 16 KiB; over memory buffers a call moves up to 256 KiB.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from time import monotonic
from typing import Any, Final

__all__ = ["CHUNK", "Stream"]

#: Plaintext that is encrypted before a write, and ciphertext that is taken by one read.
CHUNK: Final = 1 << 18


class Stream:
    """One TLS connection. Errors are those of :mod:`ssl` and of sockets; ``EOFError`` when the peer's end is closed."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext, server_hostname: str | None) -> None:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = raw
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._cipher = memoryview(bytearray(CHUNK))
        self._unsent = memoryview(b"")
        #: Bytes handed to the operating system so far.
        self.sent = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def buffered(self) -> bool:
        """Whether bytes of the peer are here already, so that the descriptor would not wake anyone for them."""
        return bool(self._incoming.pending or self._tls.pending())

    def handshake(self, deadline: float) -> None:
        """Raises ``TimeoutError`` after ``deadline`` (of the monotonic clock). The last alert is sent on failure."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_by(deadline)
                if not self._fetch():
                    self._await(select.POLLIN, deadline)
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush_by(deadline)
                raise
            else:
                self._flush_by(deadline)
                return

    def peer_names(self) -> object:
        """The subject alternative name of the peer's certificate, as the ssl module gives it."""
        certificate: dict[str, Any] = self._tls.getpeercert() or {}
        return certificate.get("subjectAltName", ())

    def read_into(self, target: memoryview) -> int:
        """Bytes read, at least one; 0 when none are there now. Precondition: ``target`` is not empty."""
        while True:
            try:
                count = self._tls.read(target.nbytes, target)
            except ssl.SSLWantReadError:
                if not self._fetch():
                    return 0
                continue
            if not count:
                raise EOFError
            return int(count)

    def encrypt(self, view: memoryview) -> None:
        """Take up to ``CHUNK`` bytes for sending. Precondition: :meth:`flush` has returned ``True``."""
        while view.nbytes:
            view = view[self._tls.write(view) :]
        self._unsent = memoryview(self._outgoing.read())

    def flush(self) -> bool:
        """Send what was taken, as far as the operating system takes it now; whether all of it is gone."""
        if not self._unsent.nbytes and self._outgoing.pending:
            self._unsent = memoryview(self._outgoing.read())
        while self._unsent.nbytes:
            try:
                count = self._socket.send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[count:]
            self.sent += count
        return True

    def close(self, linger: float) -> None:
        """Close so that the last words arrive: say that nothing more comes, read away for up to ``linger`` seconds.

        Closing over bytes that were not read resets the connection, and the peer may lose what it had not read yet.
        """
        until = monotonic() + linger
        with contextlib.suppress(OSError, TimeoutError):
            self._socket.shutdown(socket.SHUT_WR)
            while True:
                try:
                    if not self._socket.recv_into(self._cipher):
                        break
                except BlockingIOError:
                    self._await(select.POLLIN, until)
        with contextlib.suppress(OSError):
            self._socket.close()

    def _fetch(self) -> bool:
        """Take ciphertext that is there; whether there was any. Raises ``EOFError``."""
        try:
            count = self._socket.recv_into(self._cipher)
        except BlockingIOError:
            return False
        if not count:
            raise EOFError
        self._incoming.write(self._cipher[:count])
        return True

    def _flush_by(self, deadline: float) -> None:
        while not self.flush():
            self._await(select.POLLOUT, deadline)

    def _await(self, events: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, events)
        left = deadline - monotonic()
        if left <= 0 or not poll.poll(int(1000 * left) + 1):
            raise TimeoutError
