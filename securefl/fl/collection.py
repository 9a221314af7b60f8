"""One protected session of a simulated run: every client encodes, the sum is opened, and one client may be watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.quantize import Quantized
from securefl.encoding.radix import RadixLanes
from securefl.encoding.ring import Lanes
from securefl.encoding.shells import ShellPacking
from securefl.errors import InvalidInputError
from securefl.fl.interfaces import ServerView
from securefl.machine import Protection, RoundContext, SumResult
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.types import SERVER, ClientId, IntegerVector, PartyId
from securefl.wire import HEADER_BYTES, Buffer

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, slots=True)
class Collected:
    """``clipped`` of ``encoded`` integers lay beyond the clip range; ``view``: of the first client, where asked for."""

    result: SumResult
    outcome: Outcome
    clipped: int
    encoded: int
    view: ServerView | None


def collect(
    protection: Protection,
    context: RoundContext,
    encode: Callable[[ClientId], Quantized],
    *,
    faults: Faults | None = None,
    watch: bool = False,
) -> Collected:
    """The sum of what the clients encode. ``watch``: keep the first one's integers beside what the server received.

    Raises what the session ended with, and :class:`InvalidInputError` naming a client whose own data is wrong: in a
    simulation that is no dropout.
    """
    clipped = encoded = 0
    view = View(context.clients[0], context, protection.vector_frame) if watch else None

    def input_of(client: ClientId) -> IntegerVector:
        nonlocal clipped, encoded
        try:
            quantized = encode(client)
        except InvalidInputError as error:
            raise InvalidInputError(f"client {client}, round {context.round}: {error}") from None
        clipped += quantized.clipped
        encoded += quantized.values.size
        if view is not None and client == view.client:
            view.sent = quantized.values.copy()
        return quantized.values

    outcome = run_session(protection, context, input_of, faults=faults, observe=view)
    for _, error in outcome.failures:
        if isinstance(error, InvalidInputError):
            raise error
    return Collected(outcome.unwrap(), outcome, clipped, encoded, None if view is None else view.done())


class View:
    """An observer that keeps one client's vector as the server received it."""

    def __init__(self, client: ClientId, context: RoundContext, vector_frame: int) -> None:
        self.client = client
        self.sent: IntegerVector | None = None
        self._received: NDArray[np.uint64] | None = None
        self._lanes = (
            ShellPacking.of_context(context).parts[0].lanes[0]
        )  # the values; what stands behind them is not drawn
        self._frames_left = vector_frame

    def __call__(self, sender: PartyId, recipient: PartyId, frame: Buffer) -> None:
        if sender != self.client or recipient != SERVER:
            return
        if self._frames_left == 0:
            carried = (memoryview(frame).nbytes - HEADER_BYTES) // 8  # a ciphertext may be shorter than packed words
            words = np.frombuffer(frame, dtype="<u8", offset=HEADER_BYTES, count=min(self._lanes.words, carried))
            self._received = _lane_values(self._lanes, words)
        self._frames_left -= 1

    def done(self) -> ServerView | None:
        """``None`` when the client dropped out before its vector."""
        if self.sent is None or self._received is None:
            return None
        sent = self.sent[: min(self._lanes.dimension, self._received.size)]
        return ServerView(self.client, sent, self._received, _base(self._lanes) - 1)


def _base(lanes: Lanes | RadixLanes) -> int:
    return lanes.window if isinstance(lanes, RadixLanes) else 1 << lanes.bits


def _lane_values(lanes: Lanes | RadixLanes, words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The words cut into lanes, whatever they hold: for a picture, not for a sum."""
    base, pieces = np.uint64(_base(lanes)), []
    for _ in range(lanes.per_word):
        pieces.append(words % base)
        words = words // base
    return np.concatenate(pieces)[: lanes.dimension]
