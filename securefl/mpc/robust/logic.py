"""Secret bits of a row, and whether all of them are set: a tree of ANDs on packed bytes. SPEC robust §3.1.

Legend: α, β masks of two planes a, b that are ANDed; a·b = (a^α)(b^β) ^ (a^α)β ^ (b^β)α ^ αβ.
"""

from __future__ import annotations

import numpy as np

from securefl.mpc.bits import Bits, Plane
from securefl.mpc.party import Party, Piece

__all__ = ["all_of_rows", "both"]


def _settled(bits: Bits) -> Plane:
    """The servers' parts with the helper's dealt in; nothing at the helper. One message of the helper."""
    party = bits.party
    shares = party.deal(1, [Piece(bits.part.shape, np.uint8, xor=True)], [bits.part] if party.is_helper else ())
    return np.zeros_like(bits.part) if party.is_helper else bits.part ^ shares[0]


def _and(party: Party, a: Plane, b: Plane) -> Plane:
    """Parts of a & b, any shape; the helper's parts are zero before and after. One round, 2 + 1 bits an element."""
    masks = party.mask_bits((2, *a.shape))
    product = Piece(a.shape, np.uint8, xor=True)
    if party.is_helper:
        party.deal(1, [product], [masks[0] & masks[1]])
        return np.zeros_like(a)
    (part,) = party.deal(1, [product])
    mine = np.stack((a, b))
    mine ^= masks
    opened = party.exchange(mine)
    opened ^= mine
    part = part ^ (opened[0] & masks[1]) ^ (opened[1] & masks[0])
    if party.me == 0:
        part ^= opened[0] & opened[1]
    return np.asarray(part)


def both(x: Bits, y: Bits) -> Bits:
    """X and y, element by element; same shapes. One round."""
    return Bits(x.party, x.shape, _and(x.party, _settled(x), _settled(y)))


def all_of_rows(bits: Bits) -> Bits:
    """For bits [rows, columns], columns a multiple of 8: whether all of a row are set. ceil(log2 columns) rounds."""
    party, (rows, columns) = bits.party, bits.shape
    plane = _settled(bits).reshape(rows, columns // 8)
    while (width := plane.shape[1]) > 1:
        half = width // 2
        kept = plane[:, 2 * half :]
        plane = np.concatenate((_and(party, plane[:, :half], plane[:, half : 2 * half]), kept), axis=1)
    for shift in (4, 2, 1):  # the eight bits of the last byte
        plane = _and(party, plane, plane >> np.uint8(shift))
    return Bits(party, (rows,), np.packbits(plane[:, 0] & np.uint8(1)))
