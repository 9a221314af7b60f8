"""Listening for parties: handshakes run beside each other, so that a silent or foreign one holds up nobody."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Collection
from typing import Final

from securefl.errors import ConfigurationError, DeadlineError, SecureFLError
from securefl.transport.tls.credentials import Credentials
from securefl.transport.tls.frames import CONTEXT_BYTES
from securefl.transport.tls.handshake import Address, Admit, answer
from securefl.transport.tls.link import DEFAULT_LIMIT, DEFAULT_TIMEOUT, Link

__all__ = ["Listener"]

#: Handshakes at one time; further connections wait in the operating system's queue.
_HANDSHAKES: Final = 16
_POLL_SECONDS: Final = 0.2


class Listener:
    """Accepts links from the parties that ``admit`` lets in: their names, or a function (see :data:`Admit`).

    ``address``: port 0 takes a free one, :attr:`address` says which. ``context``, ``limit``, ``timeout``: as for
    :func:`~securefl.transport.tls.handshake.connect`. ``refused``: called with every error of a handshake, from a
    thread of the listener; refusals do not end it. Raises :class:`ConfigurationError` when it cannot listen.
    """

    def __init__(
        self,
        address: Address,
        credentials: Credentials,
        admit: Collection[str] | Admit,
        *,
        context: bytes = bytes(CONTEXT_BYTES),
        limit: int = DEFAULT_LIMIT,
        timeout: float = DEFAULT_TIMEOUT,
        refused: Callable[[SecureFLError], None] | None = None,
    ) -> None:
        self._credentials, self._context, self._limit, self._timeout = credentials, context, limit, timeout
        self._admit: Admit = admit if callable(admit) else _Names(admit)
        self._refused = refused
        self._tls = credentials.context(server=True)
        try:
            self._socket = socket.create_server(address, backlog=_HANDSHAKES)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"cannot listen at {address[0]}:{address[1]}: {error}") from None
        self._socket.settimeout(_POLL_SECONDS)
        self._links: queue.SimpleQueue[Link] = queue.SimpleQueue()
        self._room = threading.Semaphore(_HANDSHAKES)
        self._open = True
        self._thread = threading.Thread(target=self._serve, name=f"listener of {credentials.name}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()[:2]
        return host, port

    def accept(self, timeout: float) -> Link:
        """The next party's link. Raises :class:`DeadlineError` when none came within ``timeout`` seconds."""
        try:
            return self._links.get(timeout=max(0.0, timeout))
        except queue.Empty:
            raise DeadlineError(f"no party connected to {self._credentials.name} in time") from None

    def close(self) -> None:
        """Stop listening; links that were accepted stay open. A second call does nothing."""
        self._open = False
        self._thread.join()
        with contextlib.suppress(OSError):
            self._socket.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._links.get_nowait().close("the listener was closed")

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while self._open:
            if not self._room.acquire(timeout=_POLL_SECONDS):
                continue
            try:
                raw, _peer = self._socket.accept()
            except OSError:  # nobody came, or the connection was gone before we took it
                self._room.release()
                continue
            threading.Thread(target=self._answer, args=(raw,), daemon=True).start()

    def _answer(self, raw: socket.socket) -> None:
        try:
            link = answer(
                raw,
                self._tls,
                self._credentials,
                context=self._context,
                admit=self._admit,
                limit=self._limit,
                timeout=self._timeout,
            )
        except SecureFLError as error:
            if self._refused is not None:
                self._refused(error)
        else:
            if self._open:
                self._links.put(link)
            else:
                link.close("the listener was closed")
        finally:
            self._room.release()


class _Names:
    """Admits a fixed set of names."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    def __call__(self, name: str) -> str | None:
        return None if name in self._names else f"{name!r} is not one of the parties expected here"
