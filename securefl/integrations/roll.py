"""Which public key each node of the engine has, and which node is the helper: what the server learns by a roll call.

It asks each node once in a run. What a node says of itself binds nobody: clients hold the names in an invitation
against the keys that they were given, and whoever lies about a key cannot sign under it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from securefl.primitives.identity import PUBLIC_BYTES

__all__ = ["CLIENT", "HELPER_ROLE", "NO_NAMES", "ROLES", "Names", "Roll"]

CLIENT: Final = "client"
HELPER_ROLE: Final = "helper"
ROLES: Final = (CLIENT, HELPER_ROLE)

Node = TypeVar("Node", int, str)


@dataclass(frozen=True, slots=True)
class Names:
    """Public keys that an invitation names: of the clients in the order of their ids, the helper and the server."""

    clients: tuple[bytes, ...] = ()
    helper: bytes = b""
    server: bytes = b""


NO_NAMES: Final = Names()


class Roll(Generic[Node]):
    """``server``: the aggregator's own public key."""

    def __init__(self, server: bytes) -> None:
        self._server = server
        self._public: dict[Node, bytes] = {}
        self._roles: dict[Node, str] = {}

    def unknown(self, nodes: Iterable[Node]) -> list[Node]:
        """Those that have not answered the roll call."""
        return [node for node in nodes if node not in self._public]

    def heard(self, node: Node, public: object, role: object) -> bool:
        """Note what a node says; whether it was an answer at all."""
        if not isinstance(public, bytes) or len(public) != PUBLIC_BYTES or role not in ROLES:
            return False
        self._public[node], self._roles[node] = public, str(role)
        return True

    def clients(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of ``nodes`` that answered and are clients."""
        return [node for node in nodes if self._roles.get(node) == CLIENT]

    def helpers(self, nodes: Iterable[Node]) -> list[Node]:
        """Those of ``nodes`` that answered and are helpers."""
        return [node for node in nodes if self._roles.get(node) == HELPER_ROLE]

    def forget(self, node: Node) -> None:
        """Take it as not heard."""
        self._public.pop(node, None)
        self._roles.pop(node, None)

    def names(self, nodes: Sequence[Node], helper: Node | None) -> Names:
        """What an invitation of ``nodes``, in that order, names."""
        own = b"" if helper is None else self._public[helper]
        return Names(tuple(self._public[node] for node in nodes), own, self._server)
