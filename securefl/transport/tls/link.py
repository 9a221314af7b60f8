"""A link: whole messages between two authenticated parties, over one TLS connection.

The socket never blocks. While a link waits, to write or to read, it reads ahead on itself and on the links of its
group, so that parties that all send at once cannot wait for each other for ever, and the loss of any of them is
noticed. Each wait ends by its deadline. A link, and a group, belong to one thread at a time.
"""

from __future__ import annotations

import contextlib
import select
from collections import deque
from collections.abc import Mapping
from time import monotonic
from types import MappingProxyType
from typing import Final

import numpy as np

from securefl.errors import DeadlineError, DecodeError, InvalidInputError, PeerLostError, SecureFLError
from securefl.transport.tls.frames import (
    HEADER_BYTES,
    MAX_LENGTH,
    NOTICE_LIMIT,
    Kind,
    decode_notice,
    encode_notice,
    header,
    parse_header,
)
from securefl.transport.tls.patience import Patience
from securefl.transport.tls.stream import CHUNK, Stream

__all__ = ["DEFAULT_LIMIT", "DEFAULT_TIMEOUT", "Link"]

#: Largest message in bytes, where the parties did not agree on another.
DEFAULT_LIMIT: Final = 1 << 28
#: Seconds without any progress of a peer.
DEFAULT_TIMEOUT: Final = 30.0
#: Pieces up to this are joined before they are written: one record, one system call.
_JOIN: Final = 1 << 12
_NOTICE_SECONDS: Final = 1.0
_LINGER_SECONDS: Final = 0.2
_LONGEST_POLL: Final = 3600.0
#: Bytes of whole messages that are read ahead on a link, at most.
_AHEAD: Final = 1 << 28
#: Why a connection can end under us: resets, broken pipes, records that do not verify (ssl.SSLError), its end.
_LOST: Final = (OSError, EOFError)


class Link:
    """Messages to and from ``peer``, the name in its certificate.

    ``limit``: the largest message that is read, in bytes: known beforehand, so that nothing larger is ever allocated.
    ``timeout``: seconds, the default of every call: without any byte of progress, and for the whole message that and
    its bytes at 64 KiB/s.
    ``sent_bytes``, ``received_bytes``: frames after the opening, headers included, TLS's own bytes not.

    Every call raises :class:`PeerLostError` when the peer or a peer of the group is gone or ended the session,
    :class:`DeadlineError` when the time is up, and :class:`DecodeError` for a frame that cannot be right.
    """

    def __init__(
        self,
        stream: Stream,
        me: str,
        peer: str,
        *,
        limit: int = DEFAULT_LIMIT,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        if not 1 <= limit <= MAX_LENGTH or not timeout > 0:
            raise InvalidInputError("a link needs a limit of at least one byte and a timeout above zero")
        self.me, self.peer, self.timeout = me, peer, timeout
        self.sent_bytes = self.received_bytes = 0
        self._limit = limit
        self._stream = stream
        self._limits: Mapping[Kind, int] = MappingProxyType({Kind.DATA: limit, Kind.CLOSE: 0, Kind.FAIL: NOTICE_LIMIT})
        self._group: tuple[Link, ...] = (self,)
        self._head = memoryview(bytearray(HEADER_BYTES))
        self._kind: Kind | None = None  # of the frame that is being read, once its header is here
        self._body = memoryview(b"")
        self._got = 0  # bytes of header or body that are here
        self._into: memoryview | None = None
        self._inbox: deque[tuple[Kind, memoryview]] = deque()
        self._inbox_bytes = 0
        self._writing = False
        self._closed = False
        self._patience = Patience(timeout)  # of the call under way
        self._notice = ""  # why the peer says it ended the session
        self._opening = False  # while the peer may still refuse us: TLS's errors are then told as they are

    def __repr__(self) -> str:
        return f"<Link {self.me} to {self.peer}{', closed' if self._closed else ''}>"

    @property
    def closed(self) -> bool:
        return self._closed

    def group_with(self, *others: Link) -> None:
        """Read ahead on ``others`` too while any of these links waits."""
        group = tuple(dict.fromkeys((*self._group, *others)))
        for each in group:
            each._group = group

    def ungroup(self, other: Link) -> None:
        """Take ``other`` out of this link's group; it is alone then."""
        rest = tuple(each for each in self._group if each is not other)
        for each in rest:
            each._group = rest
        other._group = (other,)

    # ---- messages -------------------------------------------------------------------------------------------

    def send(self, *buffers: object, timeout: float | None = None) -> None:
        """One message: the concatenation of ``buffers`` (contiguous; numpy arrays, bytes …), which are not copied.

        On return the message is with the operating system. Raises :class:`InvalidInputError` for a message beyond
        2^56 bytes or a buffer that is not contiguous, and otherwise as the class says.
        """
        pieces = [_view(each) for each in buffers]
        total = sum(piece.nbytes for piece in pieces)
        if total > MAX_LENGTH:
            raise InvalidInputError("a message must be shorter than 2**56 bytes")
        self._send(Kind.DATA, pieces, total, self._patience_for(timeout))

    def receive(self, size: int, *, timeout: float | None = None) -> memoryview:
        """The next message, which must have exactly ``size`` bytes: a writable view of a fresh buffer."""
        return self._message(size, size, None, timeout)

    def receive_into(self, target: object, *, timeout: float | None = None) -> None:
        """The next message, into ``target`` (writable, contiguous), which it must fill exactly."""
        view = _view(target)
        message = self._message(view.nbytes, view.nbytes, view, timeout)
        if message.obj is not view.obj:  # it was read ahead
            view[:] = message

    def receive_up_to(self, limit: int, *, timeout: float | None = None) -> memoryview:
        """The next message, of at most ``limit`` bytes."""
        return self._message(0, limit, None, timeout)

    def ready(self, timeout: float) -> bool:
        """Whether a message, or the end, of this peer is here; waits up to ``timeout`` seconds for it."""
        deadline = monotonic() + timeout
        self._patience = Patience.until(deadline)
        while not self._inbox and not self._read():
            if monotonic() >= deadline:
                return False
            with contextlib.suppress(DeadlineError):
                self._wait(writing=False)
        return True

    def check(self) -> None:
        """Raise :class:`PeerLostError` if the peer is gone or has ended the session. What it sent is kept."""
        self._read_ahead()
        if any(kind is Kind.CLOSE for kind, _ in self._inbox):
            raise PeerLostError(f"{self.peer} has ended the session", self.peer)

    def close(self, reason: str | None = None) -> None:
        """End the session; the peer is told ``reason`` of a failure. Never raises; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(SecureFLError, *_LOST):
            if not self._writing:  # in the middle of a frame nothing can be said
                kind, body = (Kind.CLOSE, b"") if reason is None else (Kind.FAIL, encode_notice(reason))
                self._patience = Patience(min(_NOTICE_SECONDS, self.timeout))
                self._write(memoryview(header(kind, len(body)) + body), alone=True)
        self._stream.close(0.0 if reason is None else _LINGER_SECONDS)

    # ---- opening --------------------------------------------------------------------------------------------

    def send_frame(self, kind: Kind, body: bytes, deadline: float) -> None:
        """One frame of the opening (SPEC §4)."""
        self._send(kind, [memoryview(body)], len(body), Patience.until(deadline))

    def opened(self) -> None:
        """The opening is done: from here on bytes are counted."""
        self.sent_bytes = self.received_bytes = 0

    def early_frame(self, limits: Mapping[Kind, int], deadline: float) -> tuple[Kind, memoryview]:
        """One frame of the opening, of one of ``limits``. Errors of ssl and of sockets are not translated."""
        self._patience = Patience.until(deadline)
        usual, self._limits, self._opening = self._limits, limits, True
        try:
            while not self._read():
                self._wait(writing=False)
        finally:
            self._limits, self._opening = usual, False
        kind, body = self._inbox.popleft()
        self._inbox_bytes -= body.nbytes
        return kind, body

    def _patience_for(self, timeout: float | None) -> Patience:
        return Patience(self.timeout if timeout is None else timeout)

    # ---- frames ---------------------------------------------------------------------------------------------

    def _send(self, kind: Kind, pieces: list[memoryview], total: int, patience: Patience) -> None:
        if self._closed:
            raise PeerLostError(f"the link to {self.peer} is closed", self.peer)
        self._patience = patience
        self._writing = True
        small = [memoryview(header(kind, total))]
        for piece in pieces:
            if piece.nbytes <= _JOIN:
                small.append(piece)
                continue
            # The header and small pieces travel with the beginning of the next large one.
            small.append(piece[:_JOIN])
            self._write(memoryview(b"".join(small)))
            self._write(piece[_JOIN:])
            small = []
        if small:
            self._write(memoryview(b"".join(small)))
        self._writing = False
        self.sent_bytes += HEADER_BYTES + total

    def _message(self, least: int, most: int, into: memoryview | None, timeout: float | None) -> memoryview:
        kind, body = self._next(into, self._patience_for(timeout))
        if kind is Kind.CLOSE:
            raise PeerLostError(f"{self.peer} has ended the session", self.peer)
        if not least <= body.nbytes <= most:
            wanted = f"{most} bytes" if least == most else f"at most {most} bytes"
            raise DecodeError(f"{self.peer} sent a message of {body.nbytes} bytes where {wanted} are due")
        return body

    def _next(self, into: memoryview | None, patience: Patience) -> tuple[Kind, memoryview]:
        """The next frame; ``into``: where its body goes if it has that size."""
        if self._closed:
            raise PeerLostError(f"the link to {self.peer} is closed", self.peer)
        self._into, self._patience = into, patience
        try:
            while not self._inbox and not self._read():
                self._wait(writing=False)
        finally:
            self._into = None
        kind, body = self._inbox.popleft()
        self._inbox_bytes -= body.nbytes
        return kind, body

    def _read(self) -> bool:
        """Read until one more frame is in the inbox, or nothing more is there (``False``)."""
        while True:
            if self._kind is None:
                if not self._receive(self._head[self._got :]):
                    return False
                if self._got < HEADER_BYTES:
                    continue
                self._kind, length = parse_header(self._head, self._limits)
                into = self._into
                if into is not None and self._kind is Kind.DATA and into.nbytes == length:
                    self._body, self._into = into, None
                else:
                    self._body = np.empty(length, dtype=np.uint8).data if length else memoryview(b"")
                self._got = 0
            elif self._got < self._body.nbytes and not self._receive(self._body[self._got :]):
                return False
            if self._got == self._body.nbytes:
                if self._kind is Kind.FAIL:
                    self._notice = decode_notice(self._body)
                    raise PeerLostError(f"{self.peer} ended the session: {self._notice}", self.peer)
                self._inbox.append((self._kind, self._body))
                self._inbox_bytes += self._got
                self.received_bytes += HEADER_BYTES + self._got
                self._kind, self._body, self._got = None, memoryview(b""), 0
                return True

    def _receive(self, target: memoryview) -> bool:
        try:
            count = self._stream.read_into(target)
        except _LOST as error:
            if self._opening:
                raise
            raise self._lost(error) from None
        self._got += count
        if count:
            self._patience.moved(count)
        return count > 0

    def _write(self, view: memoryview, *, alone: bool = False) -> None:
        try:
            for start in range(0, view.nbytes, CHUNK):
                while not self._flush():
                    self._wait(writing=True, alone=alone)
                self._stream.encrypt(view[start : start + CHUNK])
            while not self._flush():
                self._wait(writing=True, alone=alone)
        except _LOST as error:
            self._last_words()
            raise self._lost(error) from None

    def _flush(self) -> bool:
        before = self._stream.sent
        done = self._stream.flush()
        if self._stream.sent > before:
            self._patience.moved(self._stream.sent - before)
        return done

    # ---- waiting --------------------------------------------------------------------------------------------

    def _wait(self, *, writing: bool, alone: bool = False) -> None:
        """Until this link can go on; what arrives meanwhile on the group is read ahead."""
        left = self._patience.left
        if left <= 0:
            raise DeadlineError(
                f"{self.peer} did not {'take' if writing else 'send'} what is due within its time", self.peer
            )
        group = () if alone else self._group
        poll, links = select.poll(), {self._stream.fileno(): self}
        poll.register(self._stream, (select.POLLOUT if writing else 0) | (0 if alone else select.POLLIN))
        for link in group:
            if link is self or link._closed or not link._has_room():
                continue
            if link._stream.buffered:  # decrypted already: the descriptor would not wake us
                link._read_ahead()
            links[link._stream.fileno()] = link
            poll.register(link._stream, select.POLLIN)
        for descriptor, events in poll.poll(int(1000 * min(left, _LONGEST_POLL)) + 1):
            link = links[descriptor]
            # This link's own input is left to the reader, unless it is the writer that waits.
            if events & ~select.POLLOUT and (link is not self or writing) and not alone:
                link._read_ahead()

    def _has_room(self) -> bool:
        return self._inbox_bytes < min(self._limit, _AHEAD) and not any(kind is Kind.CLOSE for kind, _ in self._inbox)

    def _read_ahead(self) -> None:
        while self._has_room() and self._read():
            pass

    def _last_words(self) -> None:
        """A peer that failed says why before it goes: look for that before its loss is reported."""
        with contextlib.suppress(DecodeError):
            try:
                self._read_ahead()
            except PeerLostError:
                if self._notice:
                    raise

    def _lost(self, error: Exception) -> PeerLostError:
        why = "its connection ended" if isinstance(error, EOFError) else type(error).__name__
        return PeerLostError(f"lost {self.peer}: {why}; its process may have ended", self.peer)


def _view(buffer: object) -> memoryview:
    """Bytes of a contiguous buffer. Raises :class:`InvalidInputError` for others."""
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
        if not view.nbytes:
            return memoryview(b"")
        # "O" would be the addresses of Python's objects.
        return view.cast("B") if view.c_contiguous and view.format != "O" else _refuse()
    except (TypeError, ValueError):
        return _refuse()


def _refuse() -> memoryview:
    raise InvalidInputError("a message is made of contiguous buffers: bytes, or arrays in C order")
