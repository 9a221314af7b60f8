"""Opening a link: TCP, TLS 1.3 with both certificates, then HELLO, HELLO, ACK. SPEC: protocols/transport/SPEC.md §4.

In TLS 1.3 a client has finished its handshake before the server has looked at the client's certificate. The client
therefore says nothing until the server's HELLO is there: a refusal reaches it as TLS's alert, and becomes a
:class:`CertificateError` that names the reason. A server that refuses reads away what is under way before it closes,
since closing over unread bytes resets the connection and takes the alert along.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from types import MappingProxyType
from typing import Final, TypeAlias

from securefl.errors import (
    AuthenticationError,
    CertificateError,
    ConfigurationError,
    DeadlineError,
    PeerLostError,
    SecureFLError,
    TransportError,
)
from securefl.transport.tls.credentials import Credentials, name_in
from securefl.transport.tls.frames import (
    CONTEXT_BYTES,
    HELLO_LIMIT,
    NOTICE_LIMIT,
    Hello,
    Kind,
    check_name,
    decode_notice,
    encode_notice,
)
from securefl.transport.tls.link import DEFAULT_LIMIT, DEFAULT_TIMEOUT, Link
from securefl.transport.tls.stream import Stream

__all__ = ["HANDSHAKE_SECONDS", "Address", "Admit", "answer", "connect", "parse_address"]

Address: TypeAlias = "tuple[str, int]"
#: ``admit(name)``: ``None`` when the party may come in, else the reason why not, which it is told.
Admit: TypeAlias = "Callable[[str], str | None]"

HANDSHAKE_SECONDS: Final = 5.0
_LINGER_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.05
_BEFORE_HELLO: Final[Mapping[Kind, int]] = MappingProxyType({Kind.HELLO: HELLO_LIMIT, Kind.REFUSE: NOTICE_LIMIT})
_BEFORE_ACK: Final[Mapping[Kind, int]] = MappingProxyType({Kind.ACK: 0, Kind.REFUSE: NOTICE_LIMIT})

#: What the peer's TLS says of our certificate [RFC 8446 §6.2], as OpenSSL names it.
_ALERTS: Final = {
    "CERTIFICATE_REQUIRED": "it asks for a certificate and got none",
    "UNKNOWN_CA": "its issuer is not the authority that the peer trusts",
    "CERTIFICATE_EXPIRED": "it has expired or is not valid yet",
    "CERTIFICATE_REVOKED": "it was revoked",
    "BAD_CERTIFICATE": "it does not verify",
    "UNSUPPORTED_CERTIFICATE": "it is of an unsupported kind",
    "CERTIFICATE_UNKNOWN": "it was not accepted",
    "DECRYPT_ERROR": "its signature does not verify",
    "ACCESS_DENIED": "it is not let in",
}


def parse_address(text: str) -> Address:
    """``host:port`` or ``[v6]:port``. Raises :class:`ConfigurationError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 2**16:
        raise ConfigurationError(f"an address is host:port, got {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def connect(
    address: Address,
    credentials: Credentials,
    peer: str,
    *,
    context: bytes = bytes(CONTEXT_BYTES),
    limit: int = DEFAULT_LIMIT,
    timeout: float = DEFAULT_TIMEOUT,
    wait: float = 0.0,
) -> Link:
    """A link to the party named ``peer``, which listens at ``address`` and has let us in.

    ``context``: 32 bytes that both must have alike (a hash of the configuration, session …). ``wait``: seconds during
    which a peer that does not listen yet, or does not get on, is tried again. One attempt takes at most
    ``HANDSHAKE_SECONDS``.

    Raises :class:`CertificateError` when either certificate is refused, :class:`AuthenticationError` when the peer
    knows us and does not let us in, :class:`PeerLostError` when nobody listens, :class:`DeadlineError` when the peer
    is silent, :class:`DecodeError` when it speaks something else, and :class:`ConfigurationError`.
    """
    check_name(peer)
    tls = credentials.context(server=False)
    until = monotonic() + wait
    while True:
        try:
            return _attempt(address, credentials, tls, peer, context, limit, timeout)
        except (PeerLostError, DeadlineError):
            if monotonic() >= until:
                raise
            time.sleep(_RETRY_SECONDS)


def _attempt(
    address: Address,
    credentials: Credentials,
    tls: ssl.SSLContext,
    peer: str,
    context: bytes,
    limit: int,
    timeout: float,
) -> Link:
    deadline = monotonic() + HANDSHAKE_SECONDS
    try:
        raw = socket.create_connection(address, timeout=HANDSHAKE_SECONDS)
    except TimeoutError:
        raise DeadlineError(f"{peer} at {_text(address)} does not answer", peer) from None
    except socket.gaierror as error:
        raise ConfigurationError(f"{peer} at {_text(address)}: {error.strerror}") from None
    except OSError as error:
        raise PeerLostError(f"{peer} at {_text(address)} cannot be reached: {error.strerror}", peer) from None
    stream = Stream(raw, tls, peer)
    try:
        with _translated(peer, credentials):
            stream.handshake(deadline)
            _check_peer(stream, peer)
            link = Link(stream, credentials.name, peer, limit=limit, timeout=timeout)
            _introduce(link, context, deadline)
    except BaseException:
        stream.close(0.0)
        raise
    return link


def _introduce(link: Link, context: bytes, deadline: float) -> None:
    """The client's part of HELLO, HELLO, ACK."""
    hello = Hello.decode(_frame(link, _BEFORE_HELLO, deadline))
    if hello.sender != link.peer or hello.recipient != link.me:
        raise AuthenticationError(
            f"{link.peer} says it is {hello.sender!r} and takes us for {hello.recipient!r}: these are not the "
            "names of the certificates"
        )
    link.send_frame(Kind.HELLO, Hello(link.me, link.peer, context).encode(), deadline)
    _frame(link, _BEFORE_ACK, deadline)
    link.opened()


def answer(
    raw: socket.socket,
    tls: ssl.SSLContext,
    credentials: Credentials,
    *,
    context: bytes,
    admit: Admit,
    limit: int,
    timeout: float,
) -> Link:
    """The listener's side of one accepted connection; ``raw`` is used up. Raises as :func:`connect` does."""
    deadline = monotonic() + HANDSHAKE_SECONDS
    stream = Stream(raw, tls, None)
    try:
        with _translated("a party that connected", credentials):
            stream.handshake(deadline)
            peer = _check_peer(stream, None)
        link = Link(stream, credentials.name, peer, limit=limit, timeout=timeout)
        with _translated(peer, credentials):
            reason = admit(peer)
            if reason is None:
                link.send_frame(Kind.HELLO, Hello(link.me, peer, context).encode(), deadline)
                reason = _objection(link, Hello.decode(_frame(link, {Kind.HELLO: HELLO_LIMIT}, deadline)), context)
            if reason is not None:
                link.send_frame(Kind.REFUSE, encode_notice(reason), deadline)
                raise AuthenticationError(f"{peer} was refused: {reason}")
            link.send_frame(Kind.ACK, b"", deadline)
            link.opened()
    except BaseException:
        stream.close(_LINGER_SECONDS)
        raise
    return link


def _objection(link: Link, hello: Hello, context: bytes) -> str | None:
    if (hello.sender, hello.recipient) != (link.peer, link.me):
        return "the names in the HELLO are not those of the certificates"
    if hello.context != context:
        return "it is configured for another session: both need the same configuration"
    return None


def _frame(link: Link, limits: Mapping[Kind, int], deadline: float) -> memoryview:
    """The body of the next frame, one of ``limits``; a REFUSE raises."""
    kind, body = link.early_frame(limits, deadline)
    if kind is Kind.REFUSE:
        raise AuthenticationError(f"{link.peer} does not let {link.me} in: {decode_notice(body)}")
    return body


def _check_peer(stream: Stream, expected: str | None) -> str:
    """The one name in the peer's certificate. Raises :class:`CertificateError` when it is not the one expected."""
    name = name_in(stream.peer_names())
    if expected not in (None, name):
        raise CertificateError(f"the certificate shown is that of {name!r}, not of {expected!r}")
    return name


@contextlib.contextmanager
def _translated(peer: str, credentials: Credentials) -> Iterator[None]:
    """Errors of ssl and sockets as ours."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise CertificateError(f"the certificate of {peer} is refused: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise _of_ssl(error, peer, credentials) from None
    except TimeoutError:
        raise DeadlineError(f"{peer} is silent during the handshake", peer) from None
    except EOFError:
        raise PeerLostError(f"{peer} ended the connection during the handshake", peer) from None
    except OSError as error:
        raise PeerLostError(
            f"lost {peer} during the handshake: {error.strerror or type(error).__name__}", peer
        ) from None


def _of_ssl(error: ssl.SSLError, peer: str, credentials: Credentials) -> SecureFLError:
    reason = str(error.reason or "")
    if "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return CertificateError(f"{peer} shows no certificate")
    for alert, meaning in _ALERTS.items():
        if reason.endswith(f"ALERT_{alert}"):
            return CertificateError(f"{peer} refuses the certificate of {credentials.name}: {meaning}")
    return TransportError(
        f"no TLS 1.3 with {peer}: {reason.lower().replace('_', ' ') or 'it speaks something else'}", peer
    )


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
