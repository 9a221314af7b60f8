"""The in-process channel: a server role behind a queue."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from securefl.errors import LocalProtocolError
from securefl.machine import Send
from securefl.split.server import SplitServer, WeightsIn

__all__ = ["MemoryChannel"]


class MemoryChannel:
    """Gives each frame to the server role at once and keeps its answers.

    ``observe``: called with (to the server?, frame) for every frame. ``released``: weight gradients that arrived.
    """

    def __init__(self, role: SplitServer, observe: Callable[[bool, bytes], None] | None = None) -> None:
        self.released: list[WeightsIn] = []
        self._role, self._observe = role, observe
        self._answers: deque[bytes] = deque()
        role.start()

    def send(self, frame: bytes) -> None:
        if self._observe is not None:
            self._observe(True, frame)
        for event in self._role.receive(frame):
            if isinstance(event, Send):
                self._answers.append(bytes(event.frame))
            elif isinstance(event, WeightsIn):
                self.released.append(event)

    def receive(self) -> bytes:
        if not self._answers:
            raise LocalProtocolError("the server owes no answer")
        frame = self._answers.popleft()
        if self._observe is not None:
            self._observe(False, frame)
        return frame
