"""The roll call inside Flower: who is there, with which public key, and which node is the helper."""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from securefl.errors import LostPartyError
from securefl.integrations.flower.exchange import Patience
from securefl.integrations.flower.records import KEY
from securefl.integrations.peers import HELPER
from securefl.integrations.roll import Names, Roll
from securefl.primitives.identity import Identity

__all__ = ["Muster"]


class Muster:
    """Asks nodes that it has not heard of, once each; a node that does not answer is asked no second time while its
    question lies there. ``seconds``: how long a call waits for those that it asks.
    """

    def __init__(self, grid: Grid, identity: Identity, seconds: float, patience: Patience) -> None:
        self._grid, self._seconds, self._patience = grid, seconds, patience
        self._roll: Roll[int] = Roll(identity.public)
        self._asked: dict[str, int] = {}

    def call(self, nodes: Iterable[int], message_type: str = "train") -> list[int]:
        """The clients among ``nodes`` that have answered, those that are asked now among them."""
        nodes = list(nodes)
        fresh = set(self._roll.unknown(nodes)) - set(self._asked.values())
        hello = RecordDict({KEY: ConfigRecord({"hello": True})})
        messages = [Message(hello, dst_node_id=node, message_type=message_type) for node in sorted(fresh)]
        pushed = self._grid.push_messages(messages) if messages else ()
        self._asked.update({i: m.metadata.dst_node_id for i, m in zip(pushed, messages, strict=False) if i})
        deadline = self._patience.now() + (self._seconds if fresh else 0.0)
        while self._asked:
            for reply in self._grid.pull_messages(list(self._asked)):
                self._take(reply)
            left = deadline - self._patience.now()
            if left <= 0 or not fresh & set(self._asked.values()):
                break
            self._patience.pause(min(self._patience.poll_seconds, left))
        return self._roll.clients(nodes)

    def _take(self, reply: Message) -> None:
        node = self._asked.pop(reply.metadata.reply_to_message_id, None)
        if node is None or reply.has_error():
            return
        record = reply.content.config_records.get(KEY, {})
        self._roll.heard(node, record.get("public"), record.get("role"))

    def helper(self) -> int:
        """The helper's node. Raises :class:`LostPartyError` unless exactly one is there."""
        present = list(self._grid.get_node_ids())
        self.call(present)
        found = self._roll.helpers(present)
        if len(found) != 1:
            raise LostPartyError(
                f"{len(found)} nodes are helpers and this sum needs one: start one with securefl-role = helper",
                HELPER,
            )
        return found[0]

    def names(self, nodes: list[int], helper: int | None) -> Names:
        """What an invitation of ``nodes`` names."""
        return self._roll.names(nodes, helper)

    def forget(self, node: int) -> None:
        """Ask this node again before the next sum: it may have been started anew."""
        self._roll.forget(node)
