"""What programs on shares are made of, whatever engine computes them. SPEC mpc §4 to §6, SPEC mpc-replicated.

An *engine* is how three parties multiply, truncate and compare. Which one a tensor is computed with follows from its
party (:attr:`Party.engine`), so a program is written once::

    dealer        two servers compute, a helper deals masks and gets nothing of them (arithmetic, compare)
    replicated    three servers, each with two of three shares (replicated)

Whatever else there is (functions, sorting, networks) is made of what stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np
from numpy.typing import ArrayLike

from securefl.errors import InvalidInputError
from securefl.mpc import dealer, replicated
from securefl.mpc.bits import Bits, Plane
from securefl.mpc.fixed import FRACTION, encode
from securefl.mpc.gemm import Words, gemm
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared

__all__ = [
    "ENGINES",
    "PARTY_KINDS",
    "Engine",
    "bilinear",
    "greater",
    "matmul",
    "maximum",
    "minimum",
    "mul",
    "negative",
    "number",
    "prepare",
    "randomized_part",
    "relu",
    "relu_and_sign",
    "reveal",
    "reveal_bits",
    "scale",
    "select",
    "settle",
    "share",
    "square",
    "truncate",
]


class Engine(Protocol):
    """The operations that engines do each in its own way; their names here are those of the functions below."""

    def share(self, party: Party, owner: int, shape: tuple[int, ...], values: ArrayLike | None) -> Shared: ...
    def settle(self, *tensors: Shared) -> None: ...
    def prepare(self, *tensors: Shared) -> None: ...
    def bilinear(self, x: Shared, y: Shared, product: Callable[[Words, Words], Words]) -> Shared: ...
    def multiply(self, x: Shared, y: Shared) -> Shared: ...
    def truncate(self, x: Shared, places: int) -> Shared: ...
    def negative(self, x: Shared) -> Bits: ...
    def relu_and_sign(self, x: Shared, drop: int) -> tuple[Shared, Bits]: ...
    def select(self, bits: Bits, x: Shared) -> Shared: ...
    def number(self, bits: Bits) -> Shared: ...
    def reveal(self, x: Shared) -> Words | None: ...
    def reveal_bits(self, bits: Bits) -> Plane | None: ...
    def randomized_part(self, x: Shared) -> Words | None: ...


ENGINES: Final[Mapping[str, Engine]] = {"dealer": dealer, "replicated": replicated}

#: What a party of each engine is, for :func:`securefl.mpc.party.join`.
PARTY_KINDS: Final[Mapping[str, type[Party]]] = {"dealer": Party, "replicated": replicated.ReplicatedParty}


def _of(party: Party) -> Engine:
    return ENGINES[party.engine]


# ---- what engines do


def share(party: Party, owner: int, shape: tuple[int, ...], values: ArrayLike | None = None) -> Shared:
    """Share real numbers that party ``owner`` has, with 16 binary places. A helper owns nothing.

    ``values``: at the owner, within the range of :func:`securefl.mpc.fixed.encode`.
    """
    return _of(party).share(party, owner, shape, values)


def settle(*tensors: Shared) -> None:
    """Bring tensors into the form in which they are kept. At most one message, for those that are not in it."""
    if tensors:
        _of(tensors[0].party).settle(*tensors)


def prepare(*tensors: Shared) -> None:
    """Do for several tensors together what multiplying needs, once for each. At most one round."""
    if tensors:
        _of(tensors[0].party).prepare(*tensors)


def bilinear(x: Shared, y: Shared, product: Callable[[Words, Words], Words]) -> Shared:
    """``product(x, y)`` for any bilinear map of ring tensors, untruncated: x.fraction + y.fraction + 1 binary places.

    The integers are *twice* those of the product, whose double every engine makes of three products instead of five.
    So |product| must stay below 2^61 in units of its own last place.
    """
    return _of(x.party).bilinear(x, y, product)


def truncate(x: Shared, places: int = FRACTION) -> Shared:
    """Drop ``places`` binary places, exactly: ``floor((x + d) / 2^places)``, d uniform in [0, 2^places). SPEC mpc §5.2.

    The size of x must be below 2^62; then there is no failure. Raises :class:`InvalidInputError` for other places than
    1 to 61.
    """
    return _of(x.party).truncate(x, places)


def negative(x: Shared) -> Bits:
    """[x < 0] of each element, over all 64 bits."""
    return _of(x.party).negative(x)


def relu_and_sign(x: Shared, drop: int = 0) -> tuple[Shared, Bits]:
    """``max(x, 0)`` without its last ``drop`` places, and the bits [x >= 0]; one opening serves both.

    The size of x must be below 2^62.
    """
    return _of(x.party).relu_and_sign(x, drop)


def select(bits: Bits, x: Shared) -> Shared:
    """The tensor where the bit is 1, and 0 elsewhere; same shapes."""
    return _of(x.party).select(bits, x)


def number(bits: Bits) -> Shared:
    """The bits as numbers 0 and 1 of the ring, with no binary places."""
    return _of(bits.party).number(bits)


def reveal(x: Shared) -> Words | None:
    """Open the value to all parties that hold parts: ring elements there, ``None`` at a helper. One round."""
    return _of(x.party).reveal(x)


def reveal_bits(bits: Bits) -> Plane | None:
    """Open the bits likewise: uint8 of the tensor's shape, 0 or 1; ``None`` at a helper."""
    return _of(bits.party).reveal_bits(bits)


def randomized_part(x: Shared) -> Words | None:
    """This party's part made uniform, for somebody outside who adds all parts up and learns their sum only."""
    return _of(x.party).randomized_part(x)


# ---- made of these


def mul(x: Shared, y: Shared) -> Shared:
    """Element by element; shapes broadcast. Not truncated: fractions add up."""
    return _of(x.party).multiply(x, y)


def square(x: Shared) -> Shared:
    """Element by element. Not truncated."""
    return mul(x, x)


def matmul(x: Shared, y: Shared) -> Shared:
    """[m, k] times [k, n]. Not truncated: x.fraction + y.fraction + 1 binary places, as of :func:`bilinear`."""
    if len(x.shape) != 2 or len(y.shape) != 2 or x.shape[1] != y.shape[0]:
        raise InvalidInputError(f"cannot multiply matrices of shapes {list(x.shape)} and {list(y.shape)}")
    return bilinear(x, y, gemm)


def scale(x: Shared, factor: float, places: int = FRACTION) -> Shared:
    """Times a public real number, given ``places`` binary places. Not truncated: the fraction grows by ``places``."""
    return (x * int(encode(factor, places).view(np.int64))).with_fraction(x.fraction + places)


def greater(x: Shared, y: Shared) -> Bits:
    """[x > y] of each element; shapes broadcast, and |x − y| must stay within the headroom."""
    return negative(y - x)


def relu(x: Shared, drop: int = 0) -> Shared:
    """``max(x, 0)`` without its last ``drop`` places; see :func:`relu_and_sign`."""
    return relu_and_sign(x, drop)[0]


def maximum(x: Shared, y: Shared) -> Shared:
    """The larger of two, element by element."""
    return y + relu(x - y)


def minimum(x: Shared, y: Shared) -> Shared:
    """The smaller of two, element by element."""
    return x - relu(x - y)
