"""The exceptions of securefl. Every error a user can meet comes from this tree.

    SecureFLError
    ├── ConfigurationError(ValueError)    what you asked for cannot work; nothing was sent
    ├── InvalidInputError(ValueError)     your values cannot be used (NaN, shape, dtype, range); nothing was sent
    ├── DecodeError                       bytes that are not one of our messages
    ├── ProtocolError
    │   ├── LocalProtocolError            this side was driven in a way the protocol forbids
    │   ├── FaultyClientError(clients)    the named clients broke the protocol (suspicion, not proof)
    │   ├── FaultyServerError             the server broke the protocol
    │   ├── FaultyPartyError(party)       a computing party broke the protocol
    │   ├── LostPartyError(party)         a computing party is gone or too slow
    │   ├── HeadroomError                 a sum left lanes that were chosen narrower than every possible sum
    │   └── TooFewClientsError            fewer clients than the threshold are left
    ├── AuthenticationError               a tag, seal or signature does not verify
    │   └── CertificateError              a certificate was refused: missing, foreign, expired, of another party
    ├── TransportError                    a connection between parties failed
    │   ├── PeerLostError(party)          the peer's process or connection ended
    │   └── DeadlineError(party)          the peer did not answer in time
    ├── PrivacyBudgetExceededError        the privacy budget does not allow this release
    ├── UnsupportedEventError             the accountant does not know this mechanism
    └── MissingExtraError(ImportError)    an optional dependency is not installed

Messages say what to do. They never contain key material, shares or values of an update.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AuthenticationError",
    "CertificateError",
    "ConfigurationError",
    "DeadlineError",
    "DecodeError",
    "FaultyClientError",
    "FaultyPartyError",
    "FaultyServerError",
    "HeadroomError",
    "InvalidInputError",
    "LocalProtocolError",
    "LostPartyError",
    "MissingExtraError",
    "PeerLostError",
    "PrivacyBudgetExceededError",
    "ProtocolError",
    "SecureFLError",
    "TooFewClientsError",
    "TransportError",
    "UnsupportedEventError",
]


class SecureFLError(Exception):
    """Base class: ``except SecureFLError`` catches everything securefl raises on purpose."""


class ConfigurationError(SecureFLError, ValueError):
    """Parameters that cannot work together, found before anything is sent."""


class InvalidInputError(SecureFLError, ValueError):
    """Values that cannot be protected: not finite, wrong shape or dtype, out of range, empty."""


class DecodeError(SecureFLError):
    """Bytes that do not decode: truncated, oversized, left over, or not canonical."""


class ProtocolError(SecureFLError):
    """A party left the protocol."""


class LocalProtocolError(ProtocolError):
    """This side was driven wrongly: a second use of a one-time object, a call out of order."""


class FaultyClientError(ProtocolError):
    """Clients broke the protocol.

    ``clients`` names whom to suspect, in ascending order. It is not proof: a client's message passes
    through the server, and a bad share may come from the client that dealt it or from the one that returned it.
    """

    def __init__(self, message: str, clients: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.clients: tuple[int, ...] = tuple(sorted(set(clients)))


class FaultyServerError(ProtocolError):
    """The server asked for something that the protocol forbids, or relayed something inconsistent."""


class FaultyPartyError(ProtocolError):
    """A computing party sent what the protocol does not have here. ``party`` is whom to suspect."""

    def __init__(self, message: str, party: int | None = None) -> None:
        super().__init__(message)
        self.party = party


class LostPartyError(ProtocolError):
    """A computing party closed its link or let a deadline pass. ``party`` is the one that is missing."""

    def __init__(self, message: str, party: int | None = None) -> None:
        super().__init__(message)
        self.party = party


class HeadroomError(ProtocolError):
    """A sum left the narrow lanes that its public scale promised; it was detected and nothing was used."""


class TooFewClientsError(ProtocolError):
    """Fewer clients than the threshold (or than a client's own minimum) take part; nothing was opened."""


class AuthenticationError(SecureFLError):
    """A seal, tag, digest or signature does not verify."""


class CertificateError(AuthenticationError):
    """A certificate was refused, here or at the peer: missing, foreign, expired, or not that of the party expected."""


class TransportError(SecureFLError):
    """A connection between two parties failed. ``party``: the peer's name, or an empty string when it is unknown."""

    def __init__(self, message: str, party: str = "") -> None:
        super().__init__(message)
        self.party = party


class PeerLostError(TransportError):
    """The peer's process or its connection ended, or the peer ended the session."""


class DeadlineError(TransportError):
    """The peer is connected and did not answer within the deadline."""


class PrivacyBudgetExceededError(SecureFLError):
    """Releasing this would spend more than the privacy budget; nothing was released."""


class UnsupportedEventError(SecureFLError):
    """The accountant has no proof for this event and refuses to guess."""


class MissingExtraError(SecureFLError, ImportError):
    """An optional dependency is missing; the message names the extra to install."""
