"""One of three servers: who holds what, the streams of the pairs, the ways to send. SPEC mpc-replicated §2, §3.

A value is the sum of three *components*; party i holds component i, its *part*, and component i + 1, its *second*
(numbers modulo 3), so every component is held by two neighbours, who have a stream in common. Party 2 has a part of its
own beside: openings go to parties 0 and 1 under masks that it knows. There the three act as the engine "dealer" has
it, party 2 in the helper's place, which is what :attr:`ReplicatedParty.masked` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from securefl.mpc.channel import HELPER, PARTIES, Channel
from securefl.mpc.gemm import Words
from securefl.mpc.party import Array, Party, Piece, _Stream, apart, as_bytes
from securefl.primitives.kdf import Label

__all__ = ["Pair", "ReplicatedParty", "of"]

#: A part and a second.
Pair = tuple[Array, Array]


class _Masked(Party):
    """A party in the roles of the engine "dealer", on the streams of a party of this one."""

    def __init__(self, whole: Party) -> None:
        super().__init__(whole.channel, {}, b"")
        self._whole = whole

    def _stream(self, other: int) -> _Stream:
        return self._whole._stream(other)


class ReplicatedParty(Party):
    """One party of the engine "replicated" between :meth:`begin` and :meth:`begin`.

    ``rounds``: messages that wait for another, in a row. Every protocol step counts them at all parties alike.
    """

    engine: ClassVar[str] = "replicated"
    replicated: ClassVar[bool] = True
    label: ClassVar[Label] = Label.MPC_REPLICATED

    def __init__(self, channel: Channel, secrets: Mapping[int, bytes], session: bytes) -> None:
        super().__init__(channel, secrets, session)
        self.is_helper = False
        self.next = (self.me + 1) % PARTIES
        self.previous = (self.me - 1) % PARTIES
        #: This party where values are opened to parties 0 and 1 under masks that party 2 knows: same links and streams.
        self.masked: Party = _Masked(self)

    # ---- randomness

    def draw(self, other: int, shape: tuple[int, ...], dtype: DTypeLike = np.uint64) -> Array:
        """The next values of the stream in common with party ``other``."""
        return self._stream(other).draw(shape, dtype)

    def zero(self, shape: tuple[int, ...]) -> Words:
        """A fresh part of zero: no two parts tell anything, all three add up to 0. [Araki et al. 2016, §2.1]"""
        part = self.draw(self.previous, shape)
        part -= self.draw(self.next, shape)
        return part

    def zero_bits(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The same by exclusive or, in packed bytes."""
        part = self.draw(self.previous, shape, np.uint8)
        part ^= self.draw(self.next, shape, np.uint8)
        return part

    # ---- sending

    def shift(self, mine: Array, to: int) -> Array:
        """One round: every party sends an array to its neighbour ``to`` and gets the other neighbour's."""
        self.rounds += 1
        sender = self.previous if to == self.next else self.next
        self.channel.send(to, as_bytes(mine))
        message = self.channel.receive(sender, mine.nbytes)
        return np.ndarray(mine.shape, mine.dtype, message)

    def join(self, pieces: Sequence[Piece], values: Sequence[Array] = ()) -> list[Pair]:
        """Replicate what parties 0 and 1 hold parts of, and party 2 nothing. One round between those two.

        ``values``: at parties 0 and 1 one array per piece. Components 0 and 2 are drawn, component 1 is opened to both
        who hold it: the value less two masks of which each of them knows one.
        """
        self.rounds += 1
        if self.me == HELPER:
            return [
                (self.draw(1, piece.shape, piece.dtype), self.draw(0, piece.shape, piece.dtype)) for piece in pieces
            ]
        masks = [self.draw(HELPER, piece.shape, piece.dtype) for piece in pieces]
        mine: list[Array] = [
            (np.bitwise_xor if piece.xor else np.subtract)(value, mask, out=np.empty_like(mask))
            for piece, value, mask in zip(pieces, values, masks, strict=True)
        ]
        self.channel.send(self.peer, *map(as_bytes, mine))
        message = self.channel.receive(self.peer, sum(piece.nbytes for piece in pieces))
        pairs = []
        for piece, opened, mask, theirs in zip(pieces, mine, masks, apart(message, pieces), strict=True):
            (np.bitwise_xor if piece.xor else np.add)(opened, theirs, out=opened)
            pairs.append((mask, opened) if self.me == 0 else (opened, mask))
        return pairs


def of(party: Any) -> ReplicatedParty:
    """The party as one of this engine's."""
    if not isinstance(party, ReplicatedParty):
        raise TypeError(f"{party!r} does not compute with replicated shares")
    return party
