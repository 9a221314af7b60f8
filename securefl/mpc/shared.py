"""A secret tensor of Z_2^64 as one party holds it, and everything linear, which needs no message.

The value is the sum modulo 2^64 of three *parts*: one at each server, and one that only the helper knows. The helper's
is a function of masks, never of values: what products and truncations leave there is dealt out only where somebody
needs it, and until then the tensor is *unsettled*, which every party knows. A tensor may have an *opened* form beside
it: ``m = value + λ``, public to the servers, with λ shared between them and known to the helper. A tensor is opened at
most once; multiplying needs that form. SPEC mpc §4.

That is the engine "dealer". Under "replicated" the third party is a server as well: the parts of all three add up, and
each party also holds the next one's, its *second*. A tensor without seconds is unsettled there. SPEC mpc-replicated §3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from securefl.errors import InvalidInputError
from securefl.mpc.fixed import FRACTION, encode
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party

__all__ = ["Cut", "Masked", "Shared", "concatenate", "public", "stack"]

View = Callable[[NDArray[Any]], NDArray[Any]]

_ZERO: Final = bytes(8)


class Masked:
    """``m = value + λ``. ``m``: at the servers only. ``mask``: a server's share of λ; at the helper λ itself.

    ``factor``: what a party multiplies with. At a server m less twice its share of λ, made when it is first used and
    kept, unless it is given; at the helper the difference of the two shares, λ₀ − λ₁, given from the beginning. A mask
    that products may never ask for can be given as the function that makes it. SPEC mpc §5.1.
    """

    __slots__ = ("_factor", "_mask", "m")

    def __init__(self, m: Words | None, mask: Words | Callable[[], Words], factor: Words | None = None) -> None:
        self.m = m
        self._mask = mask
        self._factor = factor

    @property
    def mask(self) -> Words:
        if callable(self._mask):
            self._mask = self._mask()
        return self._mask

    @property
    def factor(self) -> Words:
        if self._factor is None:
            self._factor = self.public - self.mask
            self._factor -= self.mask
        return self._factor

    @property
    def public(self) -> Words:
        if self.m is None:
            raise InvalidInputError("the helper has no opened values")
        return self.m

    def view(self, view: View) -> Masked:
        m = None if self.m is None else view(self.m)
        mask = (lambda: view(self.mask)) if callable(self._mask) else view(self._mask)
        return Masked(m, mask, None if self._factor is None else view(self._factor))

    def __repr__(self) -> str:
        return "<Masked>"


@dataclass(slots=True, eq=False)
class Cut:
    """What a truncation opened: as good as an opened form where elements are multiplied (``securefl.mpc.chained``).

    ``opened``: at the servers c, at the helper r; ``places`` were dropped. ``sign`` and ``plus`` say what was done
    since: the tensor is ``sign`` times what came out, and ``plus`` (at the servers).
    """

    opened: Words
    places: int
    sign: int = 1
    plus: Words | None = None
    #: What ``securefl.mpc.chained`` computed from it.
    factor: Any = None

    def view(self, view: View) -> Cut:
        plus = self.plus
        return Cut(view(self.opened), self.places, self.sign, view(plus) if plus is not None and plus.shape else plus)

    def negated(self) -> Cut:
        return Cut(self.opened, self.places, -self.sign, None if self.plus is None else np.negative(self.plus))

    def added(self, words: Words) -> Cut:
        """Plus public words that broadcast to the shape. What is the same for all elements stays one word."""
        plus = np.asarray(words if self.plus is None else self.plus + words)
        return Cut(self.opened, self.places, self.sign, _spread(plus, self.opened.shape) if plus.shape else plus)

    def __repr__(self) -> str:
        return "<Cut>"


class Shared:
    """A secret tensor. ``fraction``: its binary places. ``opened``, ``cut``: see :class:`Masked`, :class:`Cut`.

    Operators: ``+ -`` with another of the same fraction, or with public real numbers; ``* int`` by a public integer;
    indexing, ``reshape``, ``T``, ``sum``. Shapes broadcast as in numpy. Products: :mod:`securefl.mpc.arithmetic`.
    """

    __slots__ = ("_factor", "cut", "fraction", "opened", "part", "party", "second", "shape", "unsettled")
    __array_ufunc__ = None  # numpy must not take a Shared for an object scalar

    def __init__(
        self,
        party: Party,
        shape: Sequence[int],
        fraction: int = FRACTION,
        part: Words | None = None,
        opened: Masked | None = None,
        unsettled: bool = False,
        second: Words | None = None,
        cut: Cut | None = None,
    ) -> None:
        self.party = party
        self.shape = tuple(shape)
        self.fraction = fraction
        if part is None and (unsettled or not party.is_helper):
            part = np.zeros(self.shape, dtype=np.uint64)
            second = part if party.replicated and not unsettled else None
        if part is not None and (part.dtype != np.uint64 or part.shape != self.shape):
            raise InvalidInputError(f"a part is uint64{list(self.shape)}, got {part.dtype}{list(part.shape)}")
        self.part = part
        self.second = second
        self.opened = opened
        self.cut = cut
        self._factor: Words | None = None
        self.unsettled = second is None if party.replicated else unsettled

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def words(self) -> Words:
        """The part of a server."""
        if self.part is None:
            raise InvalidInputError("this party holds no part of the tensor")
        return self.part

    def kept_factor(self, make: Callable[[], Words]) -> Words:
        """What the engine "replicated" multiplies with, made when it is first used."""
        if self._factor is None:
            self._factor = make()
        return self._factor

    def linear(self, change: View, shape: Sequence[int]) -> Shared:
        """A linear map to ``shape``, the same for every part. An opened form is not kept."""
        part = None if self.part is None else np.asarray(change(self.part))
        second = None if self.second is None else np.asarray(change(self.second))
        return Shared(self.party, shape, self.fraction, part, None, self.unsettled, second)

    # ---- linear combinations

    def _combine(self, other: Shared, operation: Any) -> Shared:
        if other.fraction != self.fraction:
            raise InvalidInputError(
                f"tensors of {self.fraction} and {other.fraction} binary places cannot be added: truncate one first"
            )
        unsettled = self.unsettled or other.unsettled
        second = None
        if self.second is not None and other.second is not None:
            second = np.asarray(operation(self.second, other.second))
        if self.part is not None and other.part is not None:
            part = np.asarray(operation(self.part, other.part))
            return Shared(self.party, part.shape, self.fraction, part, None, unsettled, second)
        shape = self.shape if self.shape == other.shape else np.broadcast_shapes(self.shape, other.shape)
        if self.part is None and other.part is None:
            return Shared(self.party, shape, self.fraction)
        zero = np.uint64(0)
        only = operation(zero if self.part is None else self.part, zero if other.part is None else other.part)
        return Shared(self.party, shape, self.fraction, _spread(only, shape), None, unsettled, second)

    def add_words(self, words: Words) -> Shared:
        """Plus public ring elements, in units of the last binary place."""
        shape = np.broadcast_shapes(self.shape, words.shape) if words.shape else self.shape
        part, second, me = self.part, self.second, self.party.me
        if second is None:
            part = self.words + words if me == 0 else part
        elif me == 1:  # the part of party 1, which party 0 has as its second
            part = self.words + words
        elif me == 0:
            second = second + words
        part, second = (None if half is None else _spread(half, shape) for half in (part, second))
        result = Shared(self.party, shape, self.fraction, part, None, self.unsettled, second)
        if self.cut is not None and shape == self.shape:
            result.cut = self.cut if self.party.is_helper else self.cut.added(words)
        return result

    def __add__(self, other: Shared | ArrayLike) -> Shared:
        if isinstance(other, Shared):
            return self._combine(other, np.add)
        return self.add_words(encode(other, self.fraction))

    __radd__ = __add__

    def __sub__(self, other: Shared | ArrayLike) -> Shared:
        if isinstance(other, Shared):
            return self._combine(other, np.subtract)
        return self.add_words(encode(np.negative(other), self.fraction))

    def __rsub__(self, other: ArrayLike) -> Shared:
        return -self + other

    def __neg__(self) -> Shared:
        result = self.linear(np.negative, self.shape)
        result.cut = None if self.cut is None else self.cut.negated()
        return result

    def __mul__(self, factor: int | NDArray[np.integer[Any]]) -> Shared:
        """Times public integers; the fraction stays."""
        words = np.asarray(factor)
        if words.dtype.kind not in "iu":
            raise InvalidInputError("multiply by public integers; by real numbers with arithmetic.scale")
        words = words.astype(np.int64).view(np.uint64) if words.dtype != np.uint64 else words
        shape = np.broadcast_shapes(self.shape, words.shape) if words.shape else self.shape
        return self.linear(lambda part: _spread(part * words, shape), shape)

    __rmul__ = __mul__

    def with_fraction(self, fraction: int) -> Shared:
        """The same ring elements read with another number of binary places: times a power of two, for free."""
        return Shared(self.party, self.shape, fraction, self.part, self.opened, self.unsettled, self.second, self.cut)

    def widen(self, places: int) -> Shared:
        """``places`` more binary places: the same value, its integer times 2^places."""
        return (self * (1 << places)).with_fraction(self.fraction + places)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Shared:
        axes = range(len(self.shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
        gone = {a % len(self.shape) for a in axes}
        shape = [1 if i in gone else n for i, n in enumerate(self.shape) if keepdims or i not in gone]
        return self.linear(lambda part: part.sum(axis=axis, keepdims=keepdims, dtype=np.uint64), shape)

    # ---- views

    def view(self, view: View) -> Shared:
        """The same elements in another arrangement, the opened form with them. ``view``: any gather of elements."""
        model = _zeros(self.shape) if self.part is None else self.part
        part = view(model)
        opened = None if self.opened is None else self.opened.view(view)
        second = None if self.second is None else view(self.second)
        own = None if self.part is None else part
        cut = None if self.cut is None else self.cut.view(view)
        return Shared(self.party, part.shape, self.fraction, own, opened, self.unsettled, second, cut)

    def __getitem__(self, index: Any) -> Shared:
        return self.view(lambda array: np.asarray(array[index]))

    def reshape(self, *shape: int) -> Shared:
        return self.view(lambda array: array.reshape(shape))

    def transpose(self, *axes: int) -> Shared:
        return self.view(lambda array: array.transpose(*axes))

    @property
    def T(self) -> Shared:
        return self.view(lambda array: array.T)

    def broadcast_to(self, *shape: int) -> Shared:
        return self.view(lambda array: np.broadcast_to(array, shape))

    def __repr__(self) -> str:
        return f"<Shared{list(self.shape)}, {self.fraction} binary places>"


def _zeros(shape: tuple[int, ...]) -> Words:
    """What has a shape and takes no memory: for views at a party that holds no part."""
    return np.ndarray(shape, np.uint64, _ZERO, 0, (0,) * len(shape))


def _spread(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Broadcast, where that is not the array itself: what is broadcast cannot be written to."""
    array = np.asarray(array)
    return array if array.shape == shape else np.broadcast_to(array, shape)


def public(party: Party, values: ArrayLike, fraction: int = FRACTION) -> Shared:
    """Public real numbers as a tensor."""
    words = encode(values, fraction)
    return Shared(party, words.shape, fraction).add_words(words)


def concatenate(tensors: Sequence[Shared], axis: int = 0) -> Shared:
    """As ``np.concatenate``; the opened form is kept when all have one."""
    first = tensors[0]
    if any(tensor.fraction != first.fraction for tensor in tensors):
        raise InvalidInputError("tensors to concatenate must have the same number of binary places")

    def join(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(list(arrays), axis=axis)

    models = [_zeros(tensor.shape) if tensor.part is None else tensor.part for tensor in tensors]
    shape = list(first.shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    part = None if all(tensor.part is None for tensor in tensors) else join(models)
    forms = [tensor.opened for tensor in tensors]
    opened = None
    if all(form is not None for form in forms):
        kept = [form for form in forms if form is not None]
        publics = [form.m for form in kept if form.m is not None]
        opened = Masked(
            join(publics) if len(publics) == len(kept) else None,
            join([form.mask for form in kept]),
            join([form.factor for form in kept]) if first.party.is_helper else None,
        )
    seconds = [tensor.second for tensor in tensors if tensor.second is not None]
    second = join(seconds) if len(seconds) == len(tensors) else None
    unsettled = any(tensor.unsettled for tensor in tensors)
    return Shared(first.party, shape, first.fraction, part, opened, unsettled, second)


def stack(tensors: Sequence[Shared], axis: int = 0) -> Shared:
    """As ``np.stack``; ``axis`` counts from the front."""
    index = (*[slice(None)] * axis, None)
    return concatenate([tensor[index] for tensor in tensors], axis)
