"""Opening, products and exact truncation. SPEC mpc §5.

Legend: λ a mask, m = x + λ an opened form, f the places dropped by a truncation, r the mask of a value to truncate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from securefl.errors import InvalidInputError
from securefl.mpc.fixed import FRACTION, HEADROOM_BITS, encode
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party, Piece
from securefl.mpc.shared import Cut, Masked, Shared

__all__ = [
    "bilinear",
    "open_masked",
    "open_value",
    "place_type",
    "randomized_part",
    "reveal",
    "settle",
    "share",
    "truncate",
]

_OFFSET = np.uint64(1 << HEADROOM_BITS)
_MINUS_TWO = np.uint64(2**64 - 2)


def share(party: Party, owner: int, shape: tuple[int, ...], values: ArrayLike | None = None) -> Shared:
    """Share real numbers that server ``owner`` has: its part is the value less the other's, drawn from their stream.

    ``values``: at the owner, within the range of :func:`securefl.mpc.fixed.encode`. No message: both servers draw the
    mask from the stream that they have in common, of which the helper knows nothing.
    """
    if party.is_helper:
        return Shared(party, shape)
    part = party.zero(shape)
    if party.me == owner:
        if values is None:
            raise InvalidInputError(f"party {owner} owns the values and must give them")
        part = part + encode(values).reshape(shape)
    return Shared(party, shape, FRACTION, part)


def settle(*tensors: Shared) -> None:
    """Deal out the helper's parts, so that the servers' parts alone add up to the values. One message, 8 bytes each.

    Tensors that are settled already are left as they are.
    """
    loose = [tensor for tensor in tensors if tensor.unsettled]
    if not loose:
        return
    party = loose[0].party
    values = [np.asarray(tensor.words) for tensor in loose] if party.is_helper else ()
    shares = party.deal(1, [Piece(tensor.shape) for tensor in loose], values)
    for at, tensor in enumerate(loose):
        tensor.part = None if party.is_helper else tensor.words + shares[at]
        tensor.unsettled = False


def open_masked(*tensors: Shared) -> None:
    """Give every tensor its opened form: one round for those that have none, 16 bytes per element over both links."""
    closed = list({id(tensor): tensor for tensor in tensors if tensor.opened is None}.values())
    if not closed:
        return
    settle(*closed)
    party = closed[0].party
    mask, apart = party.masks(sum(tensor.size for tensor in closed))
    opened: Words | None = None
    if not party.is_helper:
        mine = np.empty(mask.size, np.uint64)
        for tensor, piece in _pieces(closed):
            np.add(tensor.words, mask[piece].reshape(tensor.shape), out=mine[piece].reshape(tensor.shape))
        opened = party.exchange(mine)
        opened += mine
    for tensor, piece in _pieces(closed):
        own, factor = mask[piece].reshape(tensor.shape), apart[piece].reshape(tensor.shape) if party.is_helper else None
        tensor.opened = Masked(None if opened is None else opened[piece].reshape(tensor.shape), own, factor)


def _pieces(tensors: Sequence[Shared]) -> Iterator[tuple[Shared, slice]]:
    """Where each tensor lies in one message of all."""
    at = 0
    for tensor in tensors:
        yield tensor, slice(at, at + tensor.size)
        at += tensor.size


def _factor(tensor: Shared) -> Words:
    if tensor.opened is None:
        raise InvalidInputError("the tensor has no opened form yet")
    return tensor.opened.factor


def bilinear(x: Shared, y: Shared, product: Callable[[Words, Words], Words]) -> Shared:
    """*Twice* ``product(x, y)`` for any bilinear map of ring tensors, with one binary place more: the same value.

    2xy = (m_x − 2λ_x0)(m_y − 2λ_y0) + (m_x − 2λ_x1)(m_y − 2λ_y1) − 2(λ_x0 − λ_x1)(λ_y0 − λ_y1): one product at each
    server and one at the helper, who keeps it as its part. xy itself takes five in all: 2 has no inverse here, and
    without it no three products make it. Fractions add up, and one; nothing is truncated. No message beyond the
    openings. SPEC §5.1.
    """
    open_masked(x, y)
    part = np.asarray(product(_factor(x), _factor(y)))
    if x.party.is_helper:
        part *= _MINUS_TWO
    return Shared(x.party, part.shape, x.fraction + y.fraction + 1, part, unsettled=True)


def open_value(x: Shared, offset: np.uint64) -> Words:
    """``c = x + offset + r``, opened to the servers; at the helper ``r``, fresh and uniform. One round, 16 bytes.

    The helper's part enters its r, so an unsettled tensor costs nothing here.
    """
    party = x.party
    r = party.mask(x.shape)
    if party.is_helper:
        if x.part is not None:
            r -= x.part
        return r
    r += x.words
    if party.me == 0 and offset:
        r += offset
    c = party.exchange(r)
    c += r
    return c


def place_type(places: int) -> type[np.uint16 | np.uint32 | np.uint64]:
    """The smallest word that holds a share modulo 2^places."""
    return np.uint16 if places <= 16 else np.uint32 if places <= 32 else np.uint64


def truncate(x: Shared, places: int = FRACTION) -> Shared:
    """Drop ``places`` binary places, exactly: ``floor((x + d) / 2^places)`` with d public, uniform in [0, 2^places).

    The size of x must be below 2^62; then there is no failure. One round, 18 bytes per element
    where places <= 16. SPEC §5.2.

    With z' = x + 2^62 in [0, 2^63) and c = z' + r: z' = c − r + 2^64·w, where the wrap w = r_63·(1 − c_63), so
    z' >> f is (c >> f) − (r >> f) + 2^(64−f)·w less the borrow of the low places, which is left: it is the rounding.
    """
    if not 0 < places < HEADROOM_BITS:
        raise InvalidInputError(f"between 1 and {HEADROOM_BITS - 1} places can be dropped, not {places}")
    party = x.party
    opened = open_value(x, _OFFSET)
    wrap = Piece(x.shape, place_type(places))
    if party.is_helper:
        party.deal(1, [wrap], [(opened >> np.uint64(63)).astype(wrap.dtype)])
        part = np.negative(opened >> np.uint64(places))
    else:
        (top,) = party.deal(1, [wrap])
        part = opened >> np.uint64(63)  # c_63
        part ^= np.uint64(1)
        part <<= np.uint64(64 - places)
        part *= top
        if party.me == 0:
            part += opened >> np.uint64(places)
            part -= np.uint64(1 << (HEADROOM_BITS - places))
    return Shared(party, x.shape, x.fraction - places, part, unsettled=True, cut=Cut(opened, places))


# ---- results


def reveal(x: Shared) -> Words | None:
    """Open the value to both servers: ring elements there, ``None`` at the helper. One round."""
    settle(x)
    if x.party.is_helper:
        return None
    theirs = x.party.exchange(np.asarray(x.words, order="C"))
    return x.words + theirs


def randomized_part(x: Shared) -> Words | None:
    """This party's part made uniform, for somebody outside who adds the parts up and learns their sum only.

    ``None`` at the helper of a settled tensor: there the servers' parts are the sum. No message: parts are masked by
    the streams of the pairs, each added at one party and subtracted at the other. SPEC §9.
    """
    party = x.party
    if party.is_helper:
        return x.words - party.mask(x.shape) if x.unsettled else None
    part = x.words + party.zero(x.shape)
    if x.unsettled:
        part += party.mask(x.shape)
    return part
