"""How long to wait for a peer: it must make progress, and at a least rate. SPEC: protocols/transport/SPEC.md §6."""

from __future__ import annotations

import math
from time import monotonic
from typing import Final

__all__ = ["MIN_RATE", "Patience"]

#: Bytes per second below which a peer counts as silent.
MIN_RATE: Final = 1 << 16


class Patience:
    """For one message: ``timeout`` seconds without any byte, or that and what the bytes so far need at ``MIN_RATE``.

    ``end``: of the monotonic clock, beyond which it is over in any case.
    """

    def __init__(self, timeout: float, end: float = math.inf) -> None:
        self._timeout, self._end = timeout, end
        self._begin = self._last = monotonic()
        self._moved = 0

    @classmethod
    def until(cls, end: float) -> Patience:
        """Up to ``end`` of the monotonic clock, whatever happens."""
        return cls(math.inf, end)

    def moved(self, count: int) -> None:
        """``count`` more bytes have come or gone."""
        self._moved += count
        self._last = monotonic()

    @property
    def left(self) -> float:
        """Seconds; not above 0 when it is over."""
        slow = self._begin + self._timeout + self._moved / MIN_RATE
        return min(self._last + self._timeout, slow, self._end) - monotonic()
