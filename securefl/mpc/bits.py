"""Secret bits on packed planes: exclusive-or shares, and a tree of ANDs in one deal. SPEC mpc §6.

A plane holds one bit of every element, eight to a byte (``np.packbits`` order). As with numbers the value is the
exclusive or of three parts, the helper's being a function of masks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.errors import InvalidInputError
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party, Piece

__all__ = ["Bits", "Plane", "open_bits", "plane_bytes", "prefix_less", "reveal_bits"]

Plane = NDArray[np.uint8]

#: Planes that the last four digits open, and products of masks dealt for them.
_LAST_OPENED: Final = 6
_LAST_DEALT: Final = 15


def plane_bytes(elements: int) -> int:
    """Bytes of a plane."""
    return (elements + 7) // 8


@dataclass(slots=True, eq=False)
class Bits:
    """A secret bit per element of a tensor of ``shape``.

    ``part``: uint8[plane_bytes], packed; this party's part. ``opened``: at the servers the bit plane b ^ ρ, unpacked,
    uint8[elements]; at the helper ρ. ``share``: at the servers, shares of ρ as numbers of the ring, uint64[elements].
    """

    party: Party
    shape: tuple[int, ...]
    part: Plane
    opened: Plane | None = None
    share: Words | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __invert__(self) -> Bits:
        opened = self.opened if self.party.is_helper or self.opened is None else self.opened ^ np.uint8(1)
        return Bits(self.party, self.shape, ~self.part if self.party.me == 0 else self.part, opened, self.share)

    def forget(self) -> None:
        """Leave shares at the servers alone, and no mask that the helper knows. No message.

        Pre-condition: opened, with shares of ρ, as :func:`~securefl.mpc.compare.relu_and_sign` gives them. b = t ^ ρ,
        and the lowest bits of additive shares of ρ are exclusive-or shares of it.
        """
        if self.opened is None or self.share is None:
            return
        if self.party.is_helper:
            self.part = np.zeros(plane_bytes(self.size), np.uint8)
        else:
            low = (self.share & np.uint64(1)).astype(np.uint8)
            self.part = np.packbits(low ^ self.opened if self.party.me == 0 else low)
        self.opened = self.share = None

    def __repr__(self) -> str:
        return f"<Bits{list(self.shape)}>"


def prefix_less(party: Party, less: Plane | None, equal: Plane | None, digits: int, width: int) -> Plane:
    """From digits to numbers: [c < r] given [c_k < r_k] and [c_k = r_k] of each digit, lowest first. SPEC §6.2.

    ``less``, ``equal``: uint8[digits, width], a server's parts (the helper's are zero); ``digits`` is a power of two,
    at least 4, and ``equal[0]`` is not used. Gives this party's part of the result, uint8[width].
    log2(digits) − 1 rounds: pairs of neighbours are joined until four are left, and these in one.
    """
    counts = [digits >> (level + 1) for level in range(digits.bit_length() - 3)]
    ends = list(accumulate(3 * nodes - 1 for nodes in counts))
    inner = ends[-1] if ends else 0
    drawn = party.mask_bits((inner + _LAST_OPENED, width))
    masks = [drawn[end - 3 * nodes + 1 : end] for nodes, end in zip(counts, ends, strict=True)]
    products = Piece((sum(2 * nodes - 1 for nodes in counts) + _LAST_DEALT, width), np.uint8, xor=True)
    if party.is_helper:
        dealt = []
        for nodes, mask in zip(counts, masks, strict=True):
            high = mask[:nodes]
            dealt += [high & mask[nodes : 2 * nodes], high[1:] & mask[2 * nodes :]]
        party.deal(1, [products], [np.concatenate((*dealt, *_last_products(drawn[inner:])))])
        return np.zeros(width, np.uint8)
    if less is None or equal is None:
        raise InvalidInputError("a server gives its parts of the digits")
    (share,) = party.deal(1, [products])
    at, equal = 0, equal[1:]  # of digits 1, 2, …: the first is not used
    for nodes, mask in zip(counts, masks, strict=True):
        # Equality of the upper halves, times less and equality of the lower halves (of the lowest less alone).
        mine = np.concatenate((equal[0::2], less[0::2], equal[1::2]))
        mine ^= mask
        alpha, beta = np.concatenate((mask[:nodes], mask[1:nodes])), mask[nodes:]
        m = party.exchange(mine)
        m ^= mine
        high, low = np.concatenate((m[:nodes], m[1:nodes])), m[nodes:]
        # a·b = m_a·m_b ^ m_a·β ^ m_b·α ^ αβ, and server 0 takes the public term.
        high &= low ^ beta if party.me == 0 else beta
        alpha &= low
        both = share[at : at + 2 * nodes - 1] ^ high
        both ^= alpha
        at += 2 * nodes - 1
        less, equal = less[1::2] ^ both[:nodes], both[nodes:]
    return _last(party, less, equal, drawn[inner:], share[at:])


def _last_products(masks: Plane) -> tuple[Plane, ...]:
    """What :func:`_last` needs of the six masks β, α, ξ, η, ζ, γ: 15 planes, which are γζ, with T = (η, ζ, γ, γζ) the
    products β·T, α·T and αβ·T, then αξ and αβ.
    """
    beta, alpha, xi, _, zeta, gamma = masks
    lowest = np.concatenate((masks[3:], (zeta & gamma)[None]))
    middle = beta & lowest
    return lowest[3:], middle, alpha & np.concatenate((lowest, middle, xi[None], beta[None]))


def _last(party: Party, less: Plane, equal: Plane, masks: Plane, dealt: Plane) -> Plane:
    """less₃ ^ equal₃·(less₂ ^ equal₂·(less₁ ^ equal₁·less₀)) in one round. SPEC §6.2.

    All six that are multiplied are opened under masks at once; what is multiplied out is linear in the dealt products
    of masks, which are put together from within: u = less₁ ^ equal₁·less₀, v = less₂ ^ equal₂·u.
    """
    mine = np.concatenate((equal[1:], less[2::-1], equal[:1]))
    mine ^= masks
    opened = party.exchange(mine)
    opened ^= mine
    b, a, x, y, z, c = opened
    # Parts of u, βu, αu and αβu.
    terms = np.concatenate((masks[3:], dealt[:13])).reshape(4, 4, -1)
    inner = np.concatenate((np.full_like(b, 255 if party.me == 0 else 0)[None], masks[:2], dealt[14:]))
    inner &= y ^ (z & c)
    inner ^= terms[:, 0]
    inner ^= c & terms[:, 1]
    inner ^= z & terms[:, 2]
    inner ^= terms[:, 3]
    # And of equal₂·u, α·equal₂·u.
    both = inner[0::2] & b
    both ^= inner[1::2]
    result: Plane = less[2] ^ both[0]
    result &= a
    result ^= both[1]
    result ^= x & masks[1]
    result ^= dealt[13]
    result ^= less[3]
    return result


def open_bits(bits: Bits) -> None:
    """Give the bits their opened form b ^ ρ, and the servers shares of ρ as numbers. One round; 0.25 + 8 bytes each."""
    if bits.opened is not None:
        return
    party, n = bits.party, bits.size
    mask = party.mask_bits(bits.part.shape)
    mask ^= bits.part
    if party.is_helper:
        bits.opened = np.unpackbits(mask, count=n)
    else:
        bits.opened = np.unpackbits(party.exchange(mask) ^ mask, count=n)


def reveal_bits(bits: Bits) -> Plane | None:
    """Open the bits to both servers, and nothing else: uint8 of the tensor's shape, 0 or 1. ``None`` at the helper."""
    party = bits.party
    shares = party.deal(1, [Piece(bits.part.shape, np.uint8, xor=True)], [bits.part] if party.is_helper else ())
    if party.is_helper:
        return None
    mine = bits.part ^ shares[0]
    return np.unpackbits(party.exchange(mine) ^ mine, count=bits.size).reshape(bits.shape)
