"""Who this party is and whom it knows: its Ed25519 identity and the pinned keys of the others, from its own side.

An engine's server relays everything, public keys too, and names the parties as it likes. What makes a name mean someone
is a list of public keys that this party was given by another way: a file beside the policy, which the operator of the
node writes. A party that has one takes part in sums only with parties on it.

    securefl-identity = "/etc/securefl/identity"     32 bytes in hexadecimal digits, mode 0600; made, and its public
                                                     key printed, by python -m securefl.integrations.peers FILE
    securefl-peers = "/etc/securefl/peers.toml"      clients = ["…", "…"], helper = "…", server = "…": public keys

``clients``: of those that may be in a sum together, this one's own among them. ``helper``: of the key holder, or the
second computing server. ``server``: of the aggregator; only the key holder needs it.
"""

from __future__ import annotations

import os
import stat
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from securefl.errors import AuthenticationError, ConfigurationError, SecureFLError
from securefl.integrations.invitation import Invitation
from securefl.primitives.identity import PUBLIC_BYTES, Directory, Identity
from securefl.types import SERVER, PartyId

__all__ = [
    "HELPER",
    "IDENTITY_KEY",
    "KEY_FILE_KEY",
    "PEERS_KEY",
    "Peers",
    "directory_of",
    "make_identity",
    "private_file",
    "read_identity",
]

#: The id of the key holder, or of the second server: no client has it.
HELPER: Final = PartyId(2**32 - 1)
IDENTITY_KEY: Final = "securefl-identity"
PEERS_KEY: Final = "securefl-peers"
KEY_FILE_KEY: Final = "securefl-ckks-key"
SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Peers:
    """``identity``: this party's own. ``pinned``: whether it was given the others' keys; if not, it must take those
    that the server announces. ``clients``, ``helper``, ``server``: public keys, 32 bytes each; empty: none is known.
    ``key_file``: the secret key of ``key_model = "shared_key"`` (:mod:`.keyfile`), if this party has one.
    """

    identity: Identity
    pinned: bool = False
    clients: frozenset[bytes] = frozenset()
    helper: bytes = b""
    server: bytes = b""
    key_file: Path | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Mapping[str, Any], otherwise: bytes) -> Peers:
        """From a node's configuration. ``otherwise``: 32 secret bytes, the identity of a node that has no file.

        Raises :class:`ConfigurationError` for files that cannot be read, a private key that others may read, a list of
        peers without an identity, and a list that this party is not on.
        """
        path = settings.get(IDENTITY_KEY)
        identity = Identity(otherwise) if path is None else read_identity(Path(str(path)))
        key_file = Path(str(settings[KEY_FILE_KEY])) if KEY_FILE_KEY in settings else None
        if PEERS_KEY not in settings:
            return cls(identity, key_file=key_file)
        if path is None:
            raise ConfigurationError(f"{PEERS_KEY} without {IDENTITY_KEY}: the others could not know this party")
        return cls._of_file(identity, Path(str(settings[PEERS_KEY])), key_file)

    @classmethod
    def _of_file(cls, identity: Identity, path: Path, key_file: Path | None) -> Peers:
        try:
            with path.open("rb") as file:
                document = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"the list of peers {path} cannot be read: {error}") from None
        unknown = sorted(document.keys() - {"clients", "helper", "server"})
        if unknown:
            raise ConfigurationError(f"{path}: {unknown[0]} is none of clients, helper and server")
        listed = document.get("clients", [])
        if not isinstance(listed, list) or len(listed) < 2:
            raise ConfigurationError(f"{path}: clients is a list of at least two public keys")
        clients = [_public(text, path) for text in listed]
        helper, server = (_public(document[n], path) if n in document else b"" for n in ("helper", "server"))
        named = [*clients, *filter(None, (helper, server))]
        if len(set(named)) != len(named):
            raise ConfigurationError(f"{path} gives one public key to two parties")
        if identity.public not in named:
            raise ConfigurationError(f"{path} does not list this party's own public key {identity.public.hex()}")
        return cls(identity, True, frozenset(clients), helper, server, key_file)

    @classmethod
    def nobody(cls) -> Peers:
        """Of a party that knows nobody, for sums without signatures."""
        return cls(Identity(os.urandom(SEED_BYTES)))

    def check(self, invitation: Invitation, me: PartyId) -> None:
        """Raises :class:`AuthenticationError` for an invitation that names anybody whom this party does not know, or
        another key as its own.
        """
        keys = invitation.identities
        own = invitation.helper if me == HELPER else keys[me - 1] if 0 < me <= len(keys) else b""
        if own != self.identity.public:
            raise AuthenticationError("the invitation names another public key as this party's own")
        if not self.pinned:
            return
        for at, key in enumerate(keys, start=1):
            if key not in self.clients:
                raise AuthenticationError(f"client {at} is invited under a public key that is not in {PEERS_KEY}")
        if invitation.helper and invitation.helper != self.helper:
            raise AuthenticationError(f"the helper is named under a public key that is not the one in {PEERS_KEY}")
        if self.server and invitation.server != self.server:
            raise AuthenticationError(f"the server is named under a public key that is not the one in {PEERS_KEY}")


def directory_of(invitation: Invitation) -> Directory:
    """The public keys that an invitation names, by party id."""
    keys = {PartyId(at): key for at, key in enumerate(invitation.identities, start=1)}
    if invitation.helper:
        keys[HELPER] = invitation.helper
    if invitation.server:
        keys[SERVER] = invitation.server
    return Directory(keys)


def private_file(path: Path, what: str) -> bytes:
    """The bytes of a file that only its owner may read. Raises :class:`ConfigurationError` for any other."""
    try:
        mode, data = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{what} {path} cannot be read: {error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(f"{what} {path} may be read by others: chmod 600 {path}")
    return data


def read_identity(path: Path) -> Identity:
    """The identity in a file. Raises :class:`ConfigurationError` when there is none, or others may read it."""
    text = private_file(path, "the identity").decode("ascii", "replace").strip()
    return Identity(_bytes_of(text, SEED_BYTES, f"the identity {path}"))


def make_identity(path: Path) -> Identity:
    """Write a fresh identity, mode 0600. Raises :class:`ConfigurationError` when it is there or cannot be made."""
    seed = os.urandom(SEED_BYTES)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"the identity {path} cannot be made: {error}") from None
    with os.fdopen(handle, "w") as file:
        file.write(seed.hex() + "\n")
    return Identity(seed)


def _public(text: object, path: Path) -> bytes:
    return _bytes_of(text, PUBLIC_BYTES, f"{path}: {text!r}")


def _bytes_of(text: object, length: int, what: str) -> bytes:
    try:
        data = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        data = b""
    if len(data) != length:
        raise ConfigurationError(f"{what} is not {length} bytes in hexadecimal digits")
    return data


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m securefl.integrations.peers FILE\n")
        return 2
    path = Path(arguments[0])
    try:
        identity = read_identity(path) if path.exists() else make_identity(path)
    except SecureFLError as error:
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(identity.public.hex() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
