"""Replication, products and exact truncation on replicated shares. SPEC mpc-replicated §3 to §5.

Legend: x_k component k; a *loose* value is one of which each party has a part alone; c = x + offset + r an opening, r
its mask, f the places dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from securefl.errors import InvalidInputError
from securefl.mpc.arithmetic import open_value, place_type
from securefl.mpc.channel import HELPER
from securefl.mpc.fixed import FRACTION, HEADROOM_BITS, encode
from securefl.mpc.gemm import Words
from securefl.mpc.party import Array, Party, Piece, as_bytes
from securefl.mpc.replicated.party import Pair, ReplicatedParty, of
from securefl.mpc.shared import Shared

__all__ = [
    "OFFSET",
    "bilinear",
    "join_tensor",
    "multiply",
    "open_to_two",
    "prepare",
    "randomized_part",
    "reveal",
    "settle",
    "share",
    "truncate",
    "truncated",
    "wraps",
]

OFFSET = np.uint64(1 << HEADROOM_BITS)
_MINUS_TWO = np.uint64(2**64 - 2)
#: By party, of its part and second.
_FACTORS: Final[tuple[Callable[[Words, Words], Words], ...]] = (
    lambda part, second: part + second + second,
    lambda part, second: part - second,
    lambda part, second: part + part + second,
)


def share(party: Party, owner: int, shape: tuple[int, ...], values: ArrayLike | None = None) -> Shared:
    """Share real numbers that party ``owner`` has: its part is the value and a part of zero. One round, 24 bytes."""
    part = np.zeros(shape, np.uint64)
    if party.me == owner:
        if values is None:
            raise InvalidInputError(f"party {owner} owns the values and must give them")
        part = encode(values).reshape(shape)
    tensor = Shared(party, shape, FRACTION, part, unsettled=True)
    settle(tensor)
    return tensor


def settle(*tensors: Shared) -> None:
    """Replicate loose tensors: every part, made uniform by a part of zero, goes to the party before. One round.

    24 bytes per element over all links, one word sent by each party. [Araki et al. 2016, §2.2; ABY3 §3.2]
    """
    loose = list({id(tensor): tensor for tensor in tensors if tensor.second is None}.values())
    if not loose:
        return
    party = of(loose[0].party)
    mine = party.zero((sum(tensor.size for tensor in loose),))
    at = 0
    for tensor in loose:
        piece = mine[at : at + tensor.size].reshape(tensor.shape)
        piece += tensor.words
        at += tensor.size
    theirs = party.shift(mine, party.previous)
    at = 0
    for tensor in loose:
        tensor.part = mine[at : at + tensor.size].reshape(tensor.shape)
        tensor.second = theirs[at : at + tensor.size].reshape(tensor.shape)
        tensor.unsettled = False
        at += tensor.size


prepare = settle


def second_of(tensor: Shared) -> Words:
    """Component i + 1 at party i, of a settled tensor."""
    if tensor.second is None:
        raise InvalidInputError("the tensor is not replicated yet")
    return tensor.second


def bilinear(x: Shared, y: Shared, product: Callable[[Words, Words], Words]) -> Shared:
    """*Twice* ``product(x, y)`` for any bilinear map of ring tensors, with one binary place more: the same value.

    2xy = (x_0 + 2x_1)(y_0 + 2y_1) − 2(x_1 − x_2)(y_1 − y_2) + (x_0 + 2x_2)(y_0 + 2y_2), one product at each party.
    Loose, without a message beyond settling x and y.
    """
    settle(x, y)
    part = np.asarray(product(_factor(x), _factor(y)))
    if x.party.me == 1:
        part *= _MINUS_TWO
    return Shared(x.party, part.shape, x.fraction + y.fraction + 1, part, unsettled=True)


def _factor(x: Shared) -> Words:
    """What this party multiplies with, kept for tensors that are used often."""
    return x.kept_factor(lambda: _FACTORS[x.party.me](x.words, second_of(x)))


def multiply(x: Shared, y: Shared) -> Shared:
    """Element by element; shapes broadcast. Loose, without a message beyond settling x and y. Not truncated.

    The nine products of components are split so that every party has what it needs and does at most two of them:
    party 0 x_1(y_0 + y_1) + x_0 y_1, party 1 x_1 y_2 + x_2 y_1, party 2 (x_2 + x_0)(y_2 + y_0).
    """
    settle(x, y)
    a, b, c, d = x.words, second_of(x), y.words, second_of(y)
    if x.party.me == HELPER:
        part = np.asarray(np.multiply(a + b, c + d))
    elif x.party.me == 0:
        part = np.asarray(np.multiply(b, c + d))
        part += np.multiply(a, d)
    else:
        part = np.asarray(np.multiply(a, d))
        part += np.multiply(b, c)
    return Shared(x.party, part.shape, x.fraction + y.fraction, part, unsettled=True)


def open_to_two(x: Shared, offset: np.uint64) -> Words:
    """``c = x + offset + r``, opened to parties 0 and 1; at party 2 ``r``, fresh and uniform. One round, 16 bytes.

    Loose or settled: party 2's part enters its r.
    """
    party = of(x.party)
    party.rounds += 1
    return open_value(Shared(party.masked, x.shape, x.fraction, x.part, unsettled=True), offset)


def wraps(party: ReplicatedParty, opened: Words, places: int) -> Array:
    """At parties 0 and 1 their part of (1 − c_63) · r_63 modulo 2^places; party 2 deals r_63. No round."""
    word = place_type(places)
    piece = Piece(opened.shape, word)
    top: Array = np.asarray(opened >> np.uint64(63)).astype(word)
    if party.me == HELPER:
        party.masked.deal(1, [piece], [top])
        return top
    (part,) = party.masked.deal(1, [piece])
    top ^= 1
    top *= part
    return top


def truncated(party: ReplicatedParty, opened: Words, places: int, fraction: int, wrap: Pair) -> Shared:
    """The value without ``places`` places, from its opening with offset 2^62 and replicated :func:`wraps`. No round.

    Components 0 and 2: what party 2 makes of −(r >> f), and their components of the wrap; component 1: what c gives.
    """
    shift, shape = np.uint64(64 - places), opened.shape
    c = opened.reshape(-1)
    part, second = (half.reshape(-1).astype(np.uint64) << shift for half in wrap)
    if party.me == HELPER:
        drawn = party.draw(0, c.shape)
        rest = np.negative(c >> np.uint64(places))
        rest -= drawn
        party.channel.send(1, as_bytes(rest))
        part += rest
        second += drawn
    else:
        if party.me == 0:
            part += party.draw(HELPER, c.shape)
        else:
            second += np.frombuffer(party.channel.receive(HELPER, second.nbytes), np.uint64)
        known = second if party.me == 0 else part
        known += c >> np.uint64(places)
        known -= np.uint64(1 << (HEADROOM_BITS - places))
    return Shared(party, shape, fraction - places, part.reshape(shape), second=second.reshape(shape))


def truncate(x: Shared, places: int = FRACTION) -> Shared:
    """Drop ``places`` binary places, exactly: ``floor((x + d) / 2^places)``, d uniform, known to parties 0 and 1.

    The size of x must be below 2^62; then there is no failure. Loose or settled x, settled result. Two rounds, 30 bytes
    per element where places <= 16. SPEC mpc-replicated §5.
    """
    if not 0 < places < HEADROOM_BITS:
        raise InvalidInputError(f"between 1 and {HEADROOM_BITS - 1} places can be dropped, not {places}")
    party = of(x.party)
    opened = open_to_two(x, OFFSET)
    (wrap,) = party.join([Piece(x.shape, place_type(places))], [wraps(party, opened, places)])
    return truncated(party, opened, places, x.fraction, wrap)


def join_tensor(party: ReplicatedParty, shape: tuple[int, ...], fraction: int, part: Words | None) -> Shared:
    """A tensor of which parties 0 and 1 have parts and party 2 nothing, replicated. One round, 16 bytes."""
    ((own, second),) = party.join([Piece(shape)], [] if part is None else [part])
    return Shared(party, shape, fraction, own, second=second)


# ---- results


def reveal(x: Shared) -> Words:
    """Open the value to all three parties. One round, 24 bytes, and what settling needs."""
    settle(x)
    party = of(x.party)
    missing = party.shift(np.asarray(x.words, order="C"), party.next)
    return np.asarray(x.words + second_of(x) + missing)


def randomized_part(x: Shared) -> Words:
    """This party's part made uniform, for somebody outside who adds the three parts up and learns their sum only."""
    return np.asarray(x.words + of(x.party).zero(x.shape))
