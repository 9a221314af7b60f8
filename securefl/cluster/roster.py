"""``cluster.toml``: who computes, where they listen, and who may ask them."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from securefl.errors import ConfigurationError
from securefl.mpc.channel import PARTIES
from securefl.mpc.operations import ENGINES
from securefl.transport.tls import Address, Credentials, parse_address
from securefl.transport.tls.frames import check_name

__all__ = ["Roster"]

_KEYS: Final = {"party", "clients", "certificates", "deadline", "engine"}


@dataclass(frozen=True, slots=True)
class Roster:
    """The parties of a cluster by name, in the order of their numbers: servers 0 and 1, then the helper or server 2.

    ``engine``: "dealer" (with a helper) or "replicated" (three servers), see :mod:`securefl.mpc.operations`.
    ``clients``: who may give tasks. ``certificates``: the folder with ``ca.pem`` and this machine's own ``NAME.pem``
    and ``NAME.key``. ``deadline``: seconds after which a silent party is given up.
    """

    addresses: dict[str, Address]
    clients: tuple[str, ...]
    certificates: Path
    deadline: float
    engine: str = "dealer"

    @classmethod
    def load(cls, path: Path | str) -> Roster:
        """Read a file. Raises :class:`ConfigurationError` naming what is wrong in it."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(f"cannot read the cluster file {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"the cluster file {path} is not TOML: {error}") from None
        try:
            return cls._parse(values, Path(path).parent)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error}") from None

    @classmethod
    def _parse(cls, values: dict[str, Any], folder: Path) -> Roster:
        unknown = sorted(set(values) - _KEYS)
        if unknown:
            raise ConfigurationError(f"unknown key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
        parties = values.get("party")
        if not isinstance(parties, list) or len(parties) != PARTIES:
            raise ConfigurationError(
                f"there are {PARTIES} [[party]] tables: two servers, then the helper or the third server"
            )
        addresses: dict[str, Address] = {}
        for party in parties:
            if not isinstance(party, dict) or set(party) != {"name", "address"}:
                raise ConfigurationError("a [[party]] has a name and an address")
            addresses[check_name(_text(party, "name"))] = parse_address(_text(party, "address"))
        clients = values.get("clients")
        if not isinstance(clients, list) or not clients or not all(isinstance(name, str) for name in clients):
            raise ConfigurationError('clients is a list of names, as in clients = ["hospital"]')
        names = [*addresses, *map(check_name, clients)]
        if len(addresses) != PARTIES or len(set(names)) != len(names):
            raise ConfigurationError("every party and every client has a name of its own")
        deadline = values.get("deadline", 30.0)
        if type(deadline) not in {int, float} or not 0 < deadline <= 86400:
            raise ConfigurationError("deadline is a number of seconds above 0, at most 86400")
        engine = _text({"engine": "dealer", **values}, "engine")
        if engine not in ENGINES:
            raise ConfigurationError(f"engine is {' or '.join(map(repr, ENGINES))}, not {engine!r}")
        certificates = folder / _text({"certificates": "certificates", **values}, "certificates")
        return cls(addresses, tuple(clients), certificates, float(deadline), engine)

    @property
    def names(self) -> tuple[str, ...]:
        """The parties' names by number."""
        return tuple(self.addresses)

    @property
    def context(self) -> bytes:
        """32 bytes that parties with the same roster have alike; addresses may differ from machine to machine."""
        agreed: dict[str, Any] = {"parties": self.names, "clients": sorted(self.clients)}
        if self.engine != "dealer":
            agreed["engine"] = self.engine
        return hashlib.sha256(b"securefl/v1/cluster\0" + json.dumps(agreed, sort_keys=True).encode()).digest()

    def credentials(self, name: str) -> Credentials:
        """Those of ``name`` on this machine, checked."""
        return Credentials.in_folder(self.certificates, name)


def _text(table: dict[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str):
        raise ConfigurationError(f"{key} is a text, got {value!r}")
    return value
