"""Comparison over all 64 bits, and what chooses by it: sign, relu, select. SPEC mpc §6.

The value is opened under a mask, c = x + r, so x = c − r and its sign is c_63 ^ r_63 ^ [c mod 2^63 < r mod 2^63]. The
helper, which knows r, deals for each 4-bit digit of r one secret table; looking it up at the public digit of c is
local, and a tree of ANDs joins the sixteen digits in three rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from securefl.mpc.arithmetic import open_masked, open_value, place_type, settle
from securefl.mpc.bits import Bits, Plane, open_bits, plane_bytes, prefix_less
from securefl.mpc.fixed import HEADROOM_BITS
from securefl.mpc.gemm import Words
from securefl.mpc.party import Array, Party, Piece
from securefl.mpc.shared import Shared

__all__ = ["SEGMENT", "digits", "negative", "number", "relu_and_sign", "select"]

_DIGITS: Final = 16
#: Elements of one deal: its tables (32 bytes each) and what is computed from them stay in the second-level cache.
SEGMENT: Final = 1 << 13
_BLOCK: Final = 1 << 12


def _segments(elements: int) -> Iterator[tuple[int, slice]]:
    """Number and place of each segment. Segments of odd number are dealt to server 0: both carry half the load."""
    for number, start in enumerate(range(0, elements, SEGMENT)):
        yield (number + 1) % 2, slice(start, min(start + SEGMENT, elements))


def _nibbles(words: Words) -> Plane:
    """uint8[16, n]: the 4-bit digits of each word, lowest first; the highest without the sign bit. n = words.size."""
    octets = np.ascontiguousarray(words.view(np.uint8).reshape(-1, 8).T)
    digits = np.empty((8, 2, words.size), np.uint8)
    np.bitwise_and(octets, 15, out=digits[:, 0])
    np.right_shift(octets, 4, out=digits[:, 1])
    digits[7, 1] &= 7
    return digits.reshape(_DIGITS, words.size)


def _tables(r: Words) -> Array:
    """uint16[16, n]: bit j of entry k is [j <= digit k of r]. Bit v is [v <= r_k], and the bit above it [v < r_k]."""
    tables = _nibbles(r).astype(np.uint16)
    np.left_shift(np.uint16(2), tables, out=tables)
    tables -= np.uint16(1)
    return tables


def _padded(words: Words) -> Words:
    """A whole number of octets of elements."""
    if words.size % 8 == 0:
        return words
    return np.concatenate((words, np.zeros(-words.size % 8, np.uint64)))


def digits(party: Party, opened: Words) -> tuple[Plane, Plane]:
    """Parts of the planes [c_k < r_k] and [c_k = r_k], uint8[16, plane_bytes]. ``opened``: c; at the helper r."""
    width = plane_bytes(opened.size)
    less, equal = np.empty((2, _DIGITS, 0 if party.is_helper else width), np.uint8)
    for to, segment in _segments(opened.size):
        words = _padded(opened[segment])
        piece = Piece((_DIGITS, words.size), np.uint16, xor=True)
        if party.is_helper:
            party.deal(to, [piece], [_tables(words)])
            continue
        (tables,) = party.deal(to, [piece])
        tables >>= _nibbles(words)
        found = tables.astype(np.uint8)
        columns = slice(segment.start // 8, segment.start // 8 + words.size // 8)
        shape = (_DIGITS, words.size // 8)
        below = np.packbits(found & np.uint8(2)).reshape(shape)
        less[:, columns] = below
        equal[:, columns] = np.packbits(found & np.uint8(1)).reshape(shape) ^ below
    return less, equal


def _sign(party: Party, opened: Words, shape: tuple[int, ...]) -> Bits:
    """[c − r < 0] for ``opened`` c (at the helper r), flat."""
    top = np.packbits((opened >> np.uint64(63)).astype(np.uint8))
    less, equal = digits(party, opened)
    part = prefix_less(party, less, equal, _DIGITS, plane_bytes(opened.size))
    if party.me != 1:
        part = part ^ top
    return Bits(party, shape, part)


def negative(x: Shared) -> Bits:
    """[x < 0] of each element, over all 64 bits. Four rounds, 63 bytes per element over all links."""
    opened = open_value(x, np.uint64(0))
    return _sign(x.party, opened.reshape(-1), x.shape)


def _ring(opened: Plane) -> Words:
    """Bits as masks of words: 0 or 2^64 − 1."""
    return np.negative(opened.astype(np.uint64))


def _share_of_mask(bits: Bits) -> None:
    """Shares of ρ as numbers; once for a tensor of bits."""
    open_bits(bits)
    if bits.share is not None or bits.opened is None:
        return
    party = bits.party
    shares = party.deal(1, [Piece((bits.size,))], [bits.opened.astype(np.uint64)] if party.is_helper else ())
    bits.share = shares[0] if shares else np.zeros(0, np.uint64)


def number(bits: Bits) -> Shared:
    """The bits as numbers 0 and 1 of the ring, with no binary places. One round."""
    _share_of_mask(bits)
    party = bits.party
    if party.is_helper or bits.opened is None or bits.share is None:
        return Shared(party, bits.shape, 0)
    flip = _ring(bits.opened)
    part = (bits.share ^ flip) - flip  # b = t + (1 − 2t)·ρ
    if party.me == 0:
        part += bits.opened
    return Shared(party, bits.shape, 0, part.reshape(bits.shape))


def select(bits: Bits, x: Shared) -> Shared:
    """The tensor where the bit is 1, and 0 elsewhere; same shapes. Opened forms are used where there are any."""
    party = bits.party
    settle(x)
    open_masked(x)
    _share_of_mask(bits)
    if x.opened is None or bits.opened is None or bits.share is None:
        raise AssertionError("opened above")
    piece = [Piece((x.size,))]
    if party.is_helper:
        party.deal(1, piece, [x.opened.mask.reshape(-1) * bits.opened])
        return Shared(party, x.shape, x.fraction)
    (product,) = party.deal(1, piece)
    flip = _ring(bits.opened)
    part = x.opened.public.reshape(-1) * bits.share
    part -= product
    part ^= flip
    part -= flip
    part += x.words.reshape(-1) & flip
    return Shared(party, x.shape, x.fraction, part.reshape(x.shape))


def relu_and_sign(x: Shared, drop: int = 0) -> tuple[Shared, Bits]:
    """``max(x, 0)`` without its last ``drop`` places, and the bits [x >= 0], opened (their select costs no round).

    One opening serves truncation and comparison. Five rounds; 79 bytes per element over all links, 91 with ``drop``.
    The size of x must be below 2^62. SPEC §6.3.
    """
    party, shape = x.party, x.shape
    if not drop:
        settle(x)
    opened = open_value(x, np.uint64(1 << HEADROOM_BITS) if drop else np.uint64(0)).reshape(-1)
    centred = opened - np.uint64(1 << HEADROOM_BITS) if drop and not party.is_helper else opened
    bits = ~_sign(party, centred, shape)
    open_bits(bits)
    chosen = bits.opened
    if chosen is None:
        raise AssertionError("opened above")
    bits.share = np.empty(0 if party.is_helper else opened.size, np.uint64)
    result = np.empty(0 if party.is_helper else opened.size, np.uint64)
    for to, segment in _segments(opened.size):
        c, t = opened[segment], chosen[segment]
        words, top = Piece(c.shape), Piece(c.shape, place_type(drop))
        if party.is_helper:
            rho = t.astype(np.uint64)
            if drop:
                high, r63 = c >> np.uint64(drop), (c >> np.uint64(63)).astype(top.dtype)
                party.deal(to, [words, words, words, top, top], [rho, rho * high, high, r63, r63 * t])
            else:
                party.deal(to, [words, words], [rho, rho * c])
            continue
        flip = _ring(t)
        if drop:
            rho, product, high, r63, top_product = party.deal(to, [words, words, words, top, top])
            shift = ((c >> np.uint64(63)) ^ np.uint64(1)) << np.uint64(64 - drop)
            z = (c >> np.uint64(drop)) - np.uint64(1 << (HEADROOM_BITS - drop))
            y = z * rho
            y += shift * top_product
            plain = shift * r63
            plain -= high
            if party.me == 0:
                plain += z
        else:
            rho, product = party.deal(to, [words, words])
            y = c * rho
            plain = x.words.reshape(-1)[segment]
        y -= product  # ρ·x
        y ^= flip
        y -= flip  # (1 − 2t)·ρ·x
        y += plain & flip  # + t·x
        result[segment] = y
        bits.share[segment] = rho
    part = None if party.is_helper else result.reshape(shape)
    return Shared(party, shape, x.fraction - drop, part), bits
