"""Secret bits in replicated shares on packed planes, and their ANDs. SPEC mpc-replicated §6.

A plane holds one bit of every element, eight to a byte, as in :mod:`securefl.mpc.bits`. A bit is the exclusive or of
three components, held like those of a number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securefl.mpc.bits import Bits, Plane
from securefl.mpc.channel import HELPER
from securefl.mpc.replicated.party import ReplicatedParty, of

__all__ = ["Planes", "ReplicatedBits", "conjunction", "join_digits", "reveal_bits"]

#: Parts and seconds of planes of one shape.
Planes = tuple[Plane, Plane]


@dataclass(slots=True, eq=False)
class ReplicatedBits(Bits):
    """A secret bit per element. ``second``: the next component, packed like ``part``.

    A bit is also t ^ ρ with t, component 1, known to parties 0 and 1, and ρ, the two others, to party 2.
    ``share``: at parties 0 and 1, once it was dealt, their parts of ρ as a number.
    """

    second: Plane | None = None

    def pair(self) -> Planes:
        """Part and second."""
        if self.second is None:
            raise AssertionError("bits of this engine are replicated when they are made")
        return self.part, self.second

    def __invert__(self) -> ReplicatedBits:
        part, second = self.pair()
        me = self.party.me
        return ReplicatedBits(
            self.party,
            self.shape,
            ~part if me == 1 else part,
            share=self.share,
            second=~second if me == 0 else second,
        )

    def known(self) -> Plane:
        """T at parties 0 and 1, ρ at party 2: uint8[elements], 0 or 1."""
        part, second = self.pair()
        plane: Plane = part ^ second if self.party.me == HELPER else second if self.party.me == 0 else part
        return np.unpackbits(plane, count=self.size)

    def forget(self) -> None:
        """Nothing: no mask of another batch is kept."""


def conjunction(party: ReplicatedParty, a: Planes, b: Planes) -> Planes:
    """A & b of planes of one shape. One round, three bits per AND over all links, one from each party."""
    if party.me == HELPER:
        mine: Plane = (a[0] ^ a[1]) & (b[0] ^ b[1])
    elif party.me == 0:
        mine = (a[1] & (b[0] ^ b[1])) ^ (a[0] & b[1])
    else:
        mine = (a[0] & b[1]) ^ (a[1] & b[0])
    mine ^= party.zero_bits(mine.shape)
    return mine, party.shift(mine, party.previous)


def join_digits(party: ReplicatedParty, less: Planes, equal: Planes) -> Planes:
    """From digits to numbers: [c < r] given [c_k < r_k] of every digit, lowest first, and [c_k = r_k] of all but it.

    uint8[digits, width] and uint8[digits − 1, width]; digits is a power of two. log2(digits) rounds. SPEC §6.2.
    """
    while (nodes := len(less[0]) // 2) > 0:
        high = tuple(half[0::2] for half in equal)  # of digits 1, 3, …
        left = tuple(np.concatenate((half, half[1:])) for half in high)
        right = tuple(np.concatenate((low[0::2], same[1::2])) for low, same in zip(less, equal, strict=True))
        both = conjunction(party, (left[0], left[1]), (right[0], right[1]))
        less = (less[0][1::2] ^ both[0][:nodes], less[1][1::2] ^ both[1][:nodes])
        equal = (both[0][nodes:], both[1][nodes:])
    return less[0][0], less[1][0]


def reveal_bits(bits: Bits) -> Plane:
    """Open the bits to all three parties, and nothing else: uint8 of the tensor's shape, 0 or 1. One round."""
    party = of(bits.party)
    if not isinstance(bits, ReplicatedBits):
        raise TypeError("bits of another engine")
    part, second = bits.pair()
    plane: Plane = part ^ second ^ party.shift(np.ascontiguousarray(part), party.next)
    return np.unpackbits(plane, count=bits.size).reshape(bits.shape)
