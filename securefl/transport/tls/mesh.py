"""Several links as one channel: messages to and from parties by number."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from time import monotonic

from securefl.errors import CertificateError, DeadlineError, InvalidInputError
from securefl.transport.tls.credentials import Credentials
from securefl.transport.tls.frames import CONTEXT_BYTES
from securefl.transport.tls.handshake import Address, connect
from securefl.transport.tls.link import DEFAULT_LIMIT, DEFAULT_TIMEOUT, Link
from securefl.transport.tls.listener import Listener

__all__ = ["Mesh", "join"]


class Mesh:
    """A channel over ``links``, by the number of the party at the other end.

    While it waits for one party it reads ahead on the others and notices their loss, so the links must be used through
    it alone. Errors are those of :class:`~securefl.transport.tls.link.Link`.
    """

    def __init__(self, links: Mapping[int, Link]) -> None:
        self._links = dict(links)
        for link in self._links.values():
            link.group_with(*self._links.values())

    @property
    def parties(self) -> tuple[int, ...]:
        """The numbers of the others, ascending."""
        return tuple(sorted(self._links))

    @property
    def sent_bytes(self) -> dict[int, int]:
        """Bytes of frames sent, by party."""
        return {number: link.sent_bytes for number, link in self._links.items()}

    @property
    def received_bytes(self) -> dict[int, int]:
        """Bytes of frames received, by party."""
        return {number: link.received_bytes for number, link in self._links.items()}

    def link(self, party: int) -> Link:
        """Raises :class:`InvalidInputError` for a party that is not in the mesh."""
        try:
            return self._links[party]
        except KeyError:
            raise InvalidInputError(f"party {party} is not in this mesh; there are {self.parties}") from None

    def send(self, to: int, *buffers: object) -> None:
        """One message to ``to``: the concatenation of ``buffers``."""
        self.link(to).send(*buffers)

    def receive(self, sender: int, size: int) -> memoryview:
        """The next message of ``sender``, which must have exactly ``size`` bytes."""
        return self.link(sender).receive(size)

    def receive_into(self, sender: int, target: object) -> None:
        """The next message of ``sender``, which must fill ``target`` exactly."""
        self.link(sender).receive_into(target)

    def close(self, reason: str | None = None) -> None:
        """End all links; ``reason``: what the others are told when this is a failure."""
        for link in self._links.values():
            link.close(reason)

    def __enter__(self) -> Mesh:
        return self

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        self.close(None if error is None else f"{type(error).__name__}: {error}")


def join(
    me: str,
    addresses: Mapping[str, Address],
    credentials: Credentials,
    listener: Listener,
    *,
    context: bytes = bytes(CONTEXT_BYTES),
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    wait: float = 30.0,
    early: list[Link] | None = None,
) -> Mesh:
    """The mesh of all parties in ``addresses``, numbered in that order from 0; ``me`` is one of them.

    A party connects to those before it and accepts those after it on ``listener``. ``early``: links that were accepted
    before; those of parties are taken from it, and those of others (clients) that come meanwhile are left there.
    Without it others are sent away. Raises :class:`DeadlineError` naming who has not come within ``wait`` seconds, and
    as :func:`connect` does.
    """
    numbers = {name: at for at, name in enumerate(addresses)}
    if me not in numbers:
        raise InvalidInputError(f"{me!r} is not one of the parties {', '.join(numbers)}")
    until, links = monotonic() + wait, dict[int, Link]()
    try:
        for name, number in numbers.items():
            if number < numbers[me]:
                left = max(0.0, until - monotonic())
                links[number] = connect(
                    addresses[name], credentials, name, context=context, limit=limit, timeout=timeout, wait=left
                )
        accepted = [link for link in early or () if link.peer in numbers]
        while len(links) < len(numbers) - 1:
            link = accepted.pop(0) if accepted else listener.accept(until - monotonic())
            number = numbers.get(link.peer, -1)
            if early is not None and number < 0:
                early.append(link)
            elif number <= numbers[me]:
                link.close("this party is not expected")
            else:
                if number in links:  # it tried again, since its first attempt took too long for it
                    links[number].close()
                links[number] = link
        if early is not None:
            early[:] = [link for link in early if link.peer not in numbers]
    except DeadlineError as error:
        missing = [name for name, number in numbers.items() if name != me and number not in links]
        _close(links, "not all parties came")
        raise DeadlineError(f"{error}; missing: {', '.join(missing)}", missing[0] if missing else "") from None
    except BaseException as error:
        _close(links, "a certificate was refused" if isinstance(error, CertificateError) else type(error).__name__)
        raise
    return Mesh(links)


def _close(links: Mapping[int, Link], reason: str) -> None:
    for link in links.values():
        with contextlib.suppress(Exception):
            link.close(reason)
