"""Computing parties on machines of their own, over mutual TLS: one party's process, and a client's connection to all.

A party joins the mesh of the three and then serves one client after another. A client that is gone ends its session:
the three part and join again, since they may have been in the middle of a step. A party that is gone ends the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Final

from securefl.cluster.control import CLIENT, MAX_MESSAGE_BYTES, serve
from securefl.cluster.roster import Roster
from securefl.cluster.servers import Servers
from securefl.errors import ConfigurationError, DeadlineError, LostPartyError, PeerLostError, SecureFLError
from securefl.mpc.operations import PARTY_KINDS
from securefl.mpc.party import join as join_party
from securefl.mpc.service import Service
from securefl.primitives.entropy import SystemEntropy
from securefl.transport.tls import Link, Listener
from securefl.transport.tls import connect as connect_link
from securefl.transport.tls.channel import LinkChannel
from securefl.transport.tls.mesh import Mesh, join

__all__ = ["connect", "serve_party"]

SESSION_BYTES: Final = 32
#: Between the parties a message is a part of a tensor; a client's comes with its command.
_LIMIT: Final = MAX_MESSAGE_BYTES
_CLIENT_GONE: Final = "the session's client is gone"
_POLL_SECONDS: Final = 0.2


def connect(path: Path | str = "cluster.toml", *, name: str | None = None, wait: float = 0.0) -> Servers:
    """The parties of a cluster, for use in a ``with`` statement. ``name``: this client, if the file lists several.

    ``wait``: seconds to wait for parties that do not listen yet. Raises :class:`ConfigurationError`,
    :class:`~securefl.errors.CertificateError` when a certificate is refused, here or there,
    :class:`~securefl.errors.PeerLostError` when a party cannot be reached, and :class:`LostPartyError` when one does
    not take up the session (it serves another client) within the deadline.
    """
    roster = Roster.load(path)
    if name is None:
        if len(roster.clients) != 1:
            raise ConfigurationError(f"say which client this is, by name=: {', '.join(roster.clients)}")
        name = roster.clients[0]
    elif name not in roster.clients:
        raise ConfigurationError(f"{name!r} is not among the clients of {path}: {', '.join(roster.clients)}")
    credentials = roster.credentials(name)
    links: dict[int, Link] = {}
    try:
        for number, (party, address) in enumerate(roster.addresses.items()):
            links[number] = connect_link(
                address,
                credentials,
                party,
                context=roster.context,
                limit=_LIMIT,
                timeout=roster.deadline,
                wait=wait,
            )
        session = SystemEntropy().token(SESSION_BYTES)
        channel = LinkChannel(CLIENT, links, roster.deadline)
        for number in links:
            channel.send(number, session)
        for number in links:
            channel.receive(number, 1)
    except BaseException:
        for link in links.values():
            link.close()
        raise
    return Servers(channel, engine=roster.engine)


def serve_party(
    roster: Roster,
    name: str,
    *,
    sessions: int | None = None,
    wait: float = 120.0,
    tell: Callable[[str], None] = lambda line: None,
) -> None:
    """Be the party ``name`` until ``sessions`` clients were served (``None``: for ever).

    ``wait``: seconds for all parties to start. ``tell``: gets a line for every step. Raises :class:`LostPartyError`
    when another party is gone or gives up, and whatever else ends the service; the other parties are told.
    """
    if name not in roster.addresses:
        raise ConfigurationError(f"{name!r} is not one of the parties {', '.join(roster.names)}")
    number, credentials = roster.names.index(name), roster.credentials(name)
    with Listener(
        roster.addresses[name],
        credentials,
        {*roster.names[number + 1 :], *roster.clients},
        context=roster.context,
        limit=_LIMIT,
        timeout=roster.deadline,
        refused=lambda error: tell(f"refused: {type(error).__name__}: {error}"),
    ) as listener:
        tell(f"party {number} ({name}) listens at {listener.address[0]}:{listener.address[1]}, engine {roster.engine}")
        waiting: list[Link] = []  # accepted, and not served yet
        done = 0
        while sessions is None or done < sessions:
            try:
                mesh = join(
                    name,
                    roster.addresses,
                    credentials,
                    listener,
                    context=roster.context,
                    limit=_LIMIT,
                    timeout=roster.deadline,
                    wait=wait,
                    early=waiting,
                )
            except (PeerLostError, DeadlineError) as error:
                missing = roster.names.index(error.party) if error.party in roster.names else None
                raise LostPartyError(str(error), missing) from None
            wait = roster.deadline
            tell("all parties are here")
            desk = _Desk(roster, number, mesh, listener, waiting, tell)
            try:
                while sessions is None or done < sessions:
                    done += 1
                    desk.serve_one()
            except _ClientGoneError as gone:
                tell(str(gone))
                mesh.close(_CLIENT_GONE)
            except SecureFLError as error:
                mesh.close(f"{type(error).__name__}: {error}")
                raise
            else:
                mesh.close()


class _ClientGoneError(Exception):
    """A session ended because its client did."""


class _Desk:
    """A party among the three, while they hold together."""

    def __init__(
        self,
        roster: Roster,
        number: int,
        mesh: Mesh,
        listener: Listener,
        waiting: list[Link],
        tell: Callable[[str], None],
    ) -> None:
        self._roster, self._number, self._listener, self._waiting, self._tell = roster, number, listener, waiting, tell
        self._parties: Mapping[int, Link] = {other: mesh.link(other) for other in mesh.parties}

    def serve_one(self) -> None:
        """Wait for a client and do what it asks. Raises :class:`_ClientGoneError` and :class:`LostPartyError`."""
        client = self._next_client()
        self._tell(f"session of {client.peer}")
        control = LinkChannel(self._number, {CLIENT: client}, self._roster.deadline, beside=self._parties)
        channel = LinkChannel(self._number, self._parties, self._roster.deadline, beside={CLIENT: client})
        try:
            session = bytes(control.receive(CLIENT, SESSION_BYTES))
            control.send(CLIENT, b"\1")
            control.deadline = None  # a client may think between its commands as long as it likes
            serve(Service(join_party(channel, session, kind=PARTY_KINDS[self._roster.engine])), control)
        except LostPartyError as error:
            if error.party == CLIENT or _CLIENT_GONE in str(error):
                client.close()
                sleep(_POLL_SECONDS)
                self._look_around()  # the client may be gone because a party is
                raise _ClientGoneError(f"{client.peer} is gone: {error}") from None
            raise
        finally:
            client.close()
            for link in self._parties.values():
                link.ungroup(client)
        self._tell(f"session of {client.peer} is done")

    def _next_client(self) -> Link:
        while True:
            self._look_around()
            for link in self._waiting:
                if link.peer in self._roster.clients:
                    self._waiting.remove(link)
                    return link
            with suppress(DeadlineError):
                self._waiting.append(self._listener.accept(_POLL_SECONDS))

    def _look_around(self) -> None:
        """Whether all parties are still there, between sessions. Raises what their end means for this one."""
        for number, party in self._parties.items():
            try:
                party.check()  # what it sent already is of the next session
            except PeerLostError as error:
                if _CLIENT_GONE in str(error):
                    raise _ClientGoneError(str(error)) from None
                raise LostPartyError(str(error), number) from None
