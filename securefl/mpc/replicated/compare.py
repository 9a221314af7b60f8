"""Comparison over all 64 bits, and what chooses by it, on replicated shares. SPEC mpc-replicated §6.

x is opened to parties 0 and 1 as c = x + r, r known to party 2. Its sign is c_63 ^ r_63 ^ [c mod 2^63 < r mod 2^63]:
sixteen digits by tables that party 2 deals, as in the engine "dealer", then replicated bits and a tree of ANDs.
"""

from __future__ import annotations

import numpy as np

from securefl.mpc.arithmetic import place_type
from securefl.mpc.bits import Bits, plane_bytes
from securefl.mpc.channel import HELPER
from securefl.mpc.compare import SEGMENT, digits
from securefl.mpc.fixed import HEADROOM_BITS
from securefl.mpc.gemm import Words
from securefl.mpc.party import Array, Piece
from securefl.mpc.replicated.arithmetic import OFFSET, join_tensor, open_to_two, settle, truncated, wraps
from securefl.mpc.replicated.bits import ReplicatedBits, join_digits
from securefl.mpc.replicated.party import ReplicatedParty, of
from securefl.mpc.shared import Shared

__all__ = ["negative", "number", "relu_and_sign", "select"]


def _planes(party: ReplicatedParty, opened: Words) -> tuple[list[Piece], list[Array]]:
    """Parts at parties 0 and 1 of [c_k < r_k] of 16 digits, the signs of c and r in the highest, and [c_k = r_k] of 15.

    ``opened``: c; at party 2 r. Flat.
    """
    width = plane_bytes(opened.size)
    less, equal = digits(party.masked, opened)
    top = np.packbits((opened >> np.uint64(63)).astype(np.uint8))
    sign = Piece((width,), np.uint8, xor=True)
    pieces = [Piece((rows, width), np.uint8, xor=True) for rows in (16, 15)]
    if party.me == HELPER:
        party.masked.deal(1, [sign], [top])
        return pieces, []
    (part,) = party.masked.deal(1, [sign])
    less[-1] ^= part
    if party.me == 0:
        less[-1] ^= top
    return pieces, [less, equal[1:]]


def negative(x: Shared) -> ReplicatedBits:
    """[x < 0] of each element, over all 64 bits. Six rounds, 66 bytes per element over all links."""
    party = of(x.party)
    less, equal = party.join(*_planes(party, open_to_two(x, np.uint64(0)).reshape(-1)))
    part, second = join_digits(party, less, equal)
    return ReplicatedBits(party, x.shape, part, second=second)


def relu_and_sign(x: Shared, drop: int = 0) -> tuple[Shared, ReplicatedBits]:
    """``max(x, 0)`` without its last ``drop`` places, and the bits [x >= 0].

    One opening serves truncation and comparison. Eight rounds; 98 bytes per element over all links, 112 with ``drop``.
    The size of x must be below 2^62.
    """
    party = of(x.party)
    if not drop:
        settle(x)
    opened = open_to_two(x, OFFSET if drop else np.uint64(0))
    centred = opened - np.uint64(1 << HEADROOM_BITS) if drop and party.me != HELPER else opened
    pieces, planes = _planes(party, centred.reshape(-1))
    y = x
    if drop:
        wrap = wraps(party, opened, drop)
        less, equal, pair = party.join([*pieces, Piece(x.shape, place_type(drop))], [*planes, wrap] if planes else [])
        y = truncated(party, opened, drop, x.fraction, pair)
    else:
        less, equal = party.join(pieces, planes)
    part, second = join_digits(party, less, equal)
    bits = ~ReplicatedBits(party, x.shape, part, second=second)
    return select(bits, y), bits


def _ring(opened: Array) -> Words:
    """Bits as masks of words: 0 or 2^64 − 1."""
    return np.negative(opened.astype(np.uint64))


def select(bits: Bits, x: Shared) -> Shared:
    """The tensor where the bit is 1, and 0 elsewhere; same shapes. Two rounds, 32 bytes; 24 for bits used before.

    b = t ^ ρ = t + (1 − 2t)ρ and x = m + μ, t and m = x_1 known to parties 0 and 1, ρ and μ = x_0 + x_2 to party 2,
    which deals ρ and ρμ: b·x = t·x + (1 − 2t)(m·ρ + ρμ).
    """
    party = of(x.party)
    if not isinstance(bits, ReplicatedBits):
        raise TypeError("bits of another engine")
    settle(x)
    if x.second is None:
        raise AssertionError("settled above")
    party.rounds += 1
    own, second = x.words.reshape(-1), x.second.reshape(-1)
    known, fresh, n = bits.known(), bits.share is None, x.size
    result = None if party.me == HELPER else np.empty(n, np.uint64)
    share = np.empty(0 if party.me == HELPER else n, np.uint64) if bits.share is None else bits.share
    for at in range(0, n, SEGMENT):
        where = slice(at, min(at + SEGMENT, n))
        to, word = 1 - at // SEGMENT % 2, Piece((where.stop - at,))
        if result is None:
            rho = known[where].astype(np.uint64)
            product = own[where] + second[where]
            product *= rho
            party.masked.deal(to, [word, word][not fresh :], [rho, product][not fresh :])
            continue
        dealt = party.masked.deal(to, [word, word][not fresh :])
        if fresh:
            share[where] = dealt[0]
        flip = _ring(known[where])
        m = second[where] if party.me == 0 else own[where]
        y = m * share[where]
        y += dealt[-1]
        y ^= flip
        y -= flip
        y += (own[where] + m if party.me == 0 else second[where]) & flip
        result[where] = y
    bits.share = share
    return join_tensor(party, x.shape, x.fraction, None if result is None else result.reshape(x.shape))


def number(bits: Bits) -> Shared:
    """The bits as numbers 0 and 1 of the ring, with no binary places. Two rounds, 24 bytes; 16 for bits used before."""
    party = of(bits.party)
    if not isinstance(bits, ReplicatedBits):
        raise TypeError("bits of another engine")
    known = bits.known()
    if bits.share is None:
        party.rounds += 1
        helper = party.me == HELPER
        dealt = party.masked.deal(1, [Piece((bits.size,))], [known.astype(np.uint64)] if helper else ())
        bits.share = np.zeros(0, np.uint64) if helper else dealt[0]
    part = None
    if party.me != HELPER:
        flip = _ring(known)
        part = (bits.share ^ flip) - flip  # b = t + (1 − 2t)·ρ
        if party.me == 0:
            part += known
        part = part.reshape(bits.shape)
    return join_tensor(party, bits.shape, 0, part)
