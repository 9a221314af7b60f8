"""Secret bits of a row, and whether all of them are set: a tree of ANDs on packed bytes. SPEC robust §3.1.

Legend: α, β masks of two planes a, b that are ANDed; a·b = (a^α)(b^β) ^ (a^α)β ^ (b^β)α ^ αβ.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from securefl.mpc.bits import Bits, Plane
from securefl.mpc.party import Party, Piece
from securefl.mpc.replicated.bits import ReplicatedBits, conjunction
from securefl.mpc.replicated.party import ReplicatedParty

__all__ = ["all_of_rows", "both"]

#: What a party holds of bits: one plane, or part and second.
Planes = tuple[Plane, ...]


def _settled(bits: Bits) -> Planes:
    """What this party holds of the bits; of a dealer's with the helper's part dealt in, one message of it."""
    if isinstance(bits, ReplicatedBits):
        return bits.pair()
    party = bits.party
    shares = party.deal(1, [Piece(bits.part.shape, np.uint8, xor=True)], [bits.part] if party.is_helper else ())
    return (np.zeros_like(bits.part) if party.is_helper else bits.part ^ shares[0],)


def _bits(party: Party, shape: tuple[int, ...], planes: Planes) -> Bits:
    if isinstance(party, ReplicatedParty):
        return ReplicatedBits(party, shape, planes[0], second=planes[1])
    return Bits(party, shape, planes[0])


def _and(party: Party, a: Planes, b: Planes) -> Planes:
    """What this party holds of a & b, any shape. One round."""
    if isinstance(party, ReplicatedParty):
        return conjunction(party, (a[0], a[1]), (b[0], b[1]))
    return (_dealt_and(party, a[0], b[0]),)


def _dealt_and(party: Party, a: Plane, b: Plane) -> Plane:
    """Parts of a & b, any shape; the helper's parts are zero before and after. 2 + 1 bits an element."""
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
    return _bits(x.party, x.shape, _and(x.party, _settled(x), _settled(y)))


def all_of_rows(bits: Bits) -> Bits:
    """For bits [rows, columns], columns a multiple of 8: whether all of a row are set. ceil(log2 columns) rounds."""
    party, (rows, columns) = bits.party, bits.shape
    planes = _mapped(_settled(bits), lambda plane: plane.reshape(rows, columns // 8))
    while (width := planes[0].shape[1]) > 1:
        half = width // 2
        lower, upper, kept = (
            _mapped(planes, lambda plane, columns=columns: plane[:, columns])  # type: ignore[misc]
            for columns in (slice(0, half), slice(half, 2 * half), slice(2 * half, width))
        )
        joined = zip(_and(party, lower, upper), kept, strict=True)
        planes = tuple(np.concatenate(pieces, axis=1) for pieces in joined)
    for shift in (4, 2, 1):  # the eight bits of the last byte
        planes = _and(party, planes, _mapped(planes, lambda plane, shift=shift: plane >> np.uint8(shift)))  # type: ignore[misc]
    return _bits(party, (rows,), _mapped(planes, lambda plane: np.packbits(plane[:, 0] & np.uint8(1))))


def _mapped(planes: Planes, change: Callable[[Plane], Plane]) -> Planes:
    return tuple(map(change, planes))
