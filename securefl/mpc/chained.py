"""Products, element by element: what comes out of truncations is not opened again. SPEC mpc §5.1.

x·y = (m_x − λ_x)(m_y − λ_y); the servers hold shares of the λ, the helper computes λ_x·λ_y and keeps it as its part.
[ASTRA, Π_Mult]

A truncation has opened c = x + 2^62 + r, and y = C − R + k·ρ with C and k functions of c, which the servers know, and
R = r >> f and ρ = r_63, which the helper knows (§5.2). So C is an opened form of y under the mask λ = R − k·ρ; that the
helper does not know k is put right by a deal of ρ times the other factor's mask, modulo 2^f.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securefl.mpc.arithmetic import open_masked, place_type, settle
from securefl.mpc.fixed import HEADROOM_BITS
from securefl.mpc.gemm import Words
from securefl.mpc.party import Array, Piece
from securefl.mpc.shared import Cut, Shared

__all__ = ["multiply"]

#: Places up to which products of two k vanish modulo 2^64: k is a multiple of 2^(64 − f).
_MOST_PLACES = 32


@dataclass(slots=True)
class _Factor:
    """``public``: m, or C. ``mask``: a server's share of λ; at the helper λ, or R. Of a cut tensor also ``wrap``: k at
    the servers, at the helper ρ.
    """

    public: Words | None
    mask: Words
    wrap: Array | None = None
    places: int = 0

    @property
    def opened(self) -> Words:
        if self.public is None:
            raise AssertionError("a server has opened values")
        return self.public


def _usable(tensor: Shared) -> Cut | None:
    return tensor.cut if tensor.opened is None and tensor.cut and tensor.cut.places <= _MOST_PLACES else None


def _factor(tensor: Shared) -> _Factor:
    if tensor.opened is not None:
        return _Factor(tensor.opened.m, tensor.opened.mask)
    cut = tensor.cut
    if cut is None:
        raise AssertionError("opened or cut")
    if cut.factor is None:
        cut.factor = _cut_factor(tensor, cut)
    factor: _Factor = cut.factor
    return factor


def _cut_factor(tensor: Shared, cut: Cut) -> _Factor:
    party = tensor.party
    places, sign = np.uint64(cut.places), np.uint64(cut.sign % 2**64)
    high = cut.opened >> places
    top = cut.opened >> np.uint64(63)
    if party.is_helper:
        return _Factor(None, high * sign, top.astype(place_type(cut.places)), cut.places)
    high -= np.uint64(1 << (HEADROOM_BITS - cut.places))
    high *= sign
    if cut.plus is not None:
        high += cut.plus
    top ^= np.uint64(1)
    top <<= np.uint64(64 - cut.places)
    top *= sign
    mask = high - tensor.words if party.me == 0 else np.negative(tensor.words)
    return _Factor(high, mask, top, cut.places)


def multiply(x: Shared, y: Shared) -> Shared:
    """Element by element; shapes broadcast. Not truncated.

    A factor that comes out of a truncation of at most 32 places costs no round, but what settles it, and 2 or 4 bytes
    an element of the product. Others are opened, once.
    """
    tensors = (x,) if x is y else (x, y)
    settle(*tensors)
    open_masked(*(tensor for tensor in tensors if _usable(tensor) is None))
    party, shape = x.party, np.broadcast_shapes(x.shape, y.shape)
    a = _factor(x)
    b = a if x is y else _factor(y)
    # Of a square the two corrections are one, twice.
    wraps = [pair for pair in (((a, b),) if x is y else ((a, b), (b, a))) if pair[0].wrap is not None]
    pieces = [Piece(shape, place_type(factor.places)) for factor, _ in wraps]
    if party.is_helper:
        values = [
            np.asarray(factor.wrap * other.mask.astype(piece.dtype))
            for (factor, other), piece in zip(wraps, pieces, strict=True)
        ]
        if wraps:
            party.deal(1, pieces, values)
        part = np.asarray(np.multiply(a.mask, b.mask))
        return Shared(party, shape, x.fraction + y.fraction, part, unsettled=True)
    if party.me == 0:
        part = np.asarray(np.multiply(a.opened, b.opened - b.mask))
        part -= np.multiply(a.mask, b.opened)
    else:
        part = np.asarray(np.multiply(a.opened, b.mask))
        part += np.multiply(a.mask, b.opened)
        np.negative(part, out=part)
    for (factor, _), dealt in zip(wraps, party.deal(1, pieces) if wraps else (), strict=True):
        if factor.wrap is None:
            raise AssertionError("chosen above")
        part -= (factor.wrap << np.uint64(1) if x is y else factor.wrap) * dealt
    return Shared(party, shape, x.fraction + y.fraction, part, unsettled=True)
