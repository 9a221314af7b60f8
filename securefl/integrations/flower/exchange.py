"""One request to each of some nodes, and their replies until none is missing or time is up.

Flower's grid has no call that waits: replies are asked for until they are there. The pause between two looks, and the
clock that deadlines are read from, are handed in, so that tests need neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

__all__ = ["Patience", "replies_to"]


@dataclass(frozen=True, slots=True)
class Patience:
    """``poll_seconds``: between two looks for replies. ``now``, ``pause``: the clock, and what waits that long."""

    poll_seconds: float = 0.25
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep


def replies_to(
    grid: Grid, requests: Sequence[Message], allowed: float, missing: Callable[[], bool], patience: Patience
) -> Iterator[tuple[int, Message]]:
    """Send ``requests``; yield (node, reply) as they come, for ``allowed`` seconds from when all are on their way.

    Ends sooner once nothing is outstanding, or ``missing`` says that nobody is waited for: there are notices that
    need no answer. It looks once more when time is up.
    """
    nodes = [message.metadata.dst_node_id for message in requests]
    pushed = list(grid.push_messages(list(requests)))
    pending = {identity: node for identity, node in zip(pushed, nodes, strict=False) if identity}
    deadline = patience.now() + allowed
    while pending:
        for reply in grid.pull_messages(list(pending)):
            node = pending.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                yield node, reply
        left = deadline - patience.now()
        if not missing() or left <= 0:
            return
        if pending:
            patience.pause(min(patience.poll_seconds, left))
