"""Functions from products and comparisons: exp, reciprocal, logarithm, softmax, sigmoid, cross-entropy. SPEC mpc §7.

They work with 24 binary places inside, whatever comes in and goes out, and say in which range they hold; the range is
the caller's promise (a value outside gives a wrong result, never a leak).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np

from securefl.errors import ConfigurationError
from securefl.mpc.classes import largest, one_hot
from securefl.mpc.operations import (
    mul,
    relu,
    relu_and_sign,
    scale,
    select,
    square,
    truncate,
)
from securefl.mpc.shared import Shared, stack

__all__ = [
    "WIDE",
    "cross_entropy",
    "exp_negative",
    "log",
    "one_hot",
    "reciprocal",
    "sigmoid",
    "sigmoid_gradient",
    "softmax",
    "softmax_gradient",
    "softmax_less_labels",
    "to_fraction",
]

#: Binary places inside these functions: a product of two values below 2^7 stays within the headroom.
WIDE: Final = 24
#: exp(−16) = 1.1e-7 is below the places that go out: smaller arguments are clipped.
_HALVINGS: Final = 4
_REACH: Final = 1 << _HALVINGS


def to_fraction(x: Shared, fraction: int) -> Shared:
    """The same value with another number of binary places: free upwards, one truncation downwards."""
    if fraction >= x.fraction:
        return x.widen(fraction - x.fraction) if fraction > x.fraction else x
    return truncate(x, x.fraction - fraction)


@cache
def _exp_coefficients() -> tuple[float, ...]:
    """Degree 6 for e^u on [−1, 0], interpolated at Chebyshev's points: error below 3e-8."""
    series = np.polynomial.Chebyshev.interpolate(np.exp, 6, domain=[-1, 0])
    return tuple(series.convert(kind=np.polynomial.Polynomial).coef.tolist())


def exp_negative(x: Shared, clip: bool = True) -> Shared:
    """``exp(x)`` for x <= 0, with 24 binary places, error below 1e-5.

    ``clip``: bring arguments below −16 up to it (five rounds); without, x >= −16 is the caller's promise.
    Nine rounds more.
    """
    if clip:
        x = relu(x + float(_REACH)) - float(_REACH)
    u = to_fraction(x.with_fraction(x.fraction + _HALVINGS), WIDE)  # x / 16, in [−1, 0]
    c = _exp_coefficients()
    u2 = truncate(square(u), WIDE)
    u3 = truncate(mul(u2, u), WIDE)

    def part(at: int) -> Shared:
        return scale(u, c[at + 1], WIDE) + scale(u2, c[at + 2], WIDE) + c[at]

    upper = truncate(part(3) + scale(u3, c[6], WIDE), WIDE)
    y = truncate(mul(u3, upper) + part(0), WIDE)
    for _ in range(_HALVINGS):
        y = truncate(square(y), WIDE)
    return y


def reciprocal(x: Shared, high: float) -> Shared:
    """``1/x`` for 1 <= x <= high (at most 100), with 24 binary places.

    From the line y whose relative error e = 1 − x·y is smallest over the range (a scaled Chebyshev polynomial T_2):
    1/x = y·(1 + e)(1 + e²)(1 + e⁴)… [Goldschmidt], a factor and the next square in the same two rounds, until the
    square is below 2^-24.
    """
    if not 1 <= high <= 100:
        raise ConfigurationError(f"the range of a reciprocal ends between 1 and 100, got {high:g}: rescale first")
    x = to_fraction(x, WIDE)
    width = 2 * (high + 1) ** 2 - (high - 1) ** 2
    y = truncate(scale(x, -8 / width, WIDE) + 8 * (high + 1) / width, WIDE)
    error = 1.0 - truncate(mul(x, y), WIDE)
    size = (high - 1) ** 2 / width
    while size > 2.0**-WIDE:
        size *= size
        if size <= 2.0**-WIDE:
            return truncate(mul(y, error + 1.0), WIDE)
        both = truncate(stack((mul(y, error + 1.0), square(error))), WIDE)
        y, error = both[0], both[1]
    return y


def log(x: Shared, high: float) -> Shared:
    """Natural logarithm for 1 <= x <= high (at most 100), with 24 binary places.

    Newton's iteration for e^y = x: y ← y − 1 + x·exp(−y), from a line; as many steps as its error needs.
    """
    if not 1 < high <= 100:
        raise ConfigurationError(f"the range of a logarithm ends between 1 and 100, got {high:g}: rescale first")
    x = to_fraction(x, WIDE)
    slope = math.log(high) / (high - 1)
    # The chord is lowest against the curve where 1/x = slope; the line half way up is off by that half either way.
    half = (math.log(1 / slope) - slope * (1 / slope - 1)) / 2
    y = truncate(scale(x, slope, WIDE) + (half - slope), WIDE)
    error = half
    while error > 2.0**-20:
        y = y + truncate(mul(x, exp_negative(-relu(y), clip=False)), WIDE) - 1.0
        error = math.exp(error) - 1 - error  # |e^-d − 1 + d| for |d| up to the error
        if error > 1:
            raise ConfigurationError(f"the iteration for a logarithm up to {high:g} does not converge")
    return y


def _shifted(x: Shared, top: Shared) -> tuple[Shared, Shared, Shared]:
    """For the last axis of [rows, classes]: x − max, exp of it, and the sum of those, which lies in [1, classes]."""
    z = x - top
    powers = exp_negative(z)
    return z, powers, powers.sum(axis=1, keepdims=True)


def softmax(x: Shared) -> Shared:
    """Over the last axis of [rows, classes], classes from 2 to 100; same fraction out as in. Error below 1e-4."""
    return _softmax(x, largest(x)[0])


def _softmax(x: Shared, top: Shared) -> Shared:
    _, powers, total = _shifted(x, top)
    return truncate(mul(powers, reciprocal(total, x.shape[1])), 2 * WIDE - x.fraction)


def softmax_less_labels(x: Shared, labels: Shared) -> Shared:
    """``softmax(x) − one_hot(labels)``: the gradient of the cross-entropy by x, of 16 binary places, for every row."""
    top, targets = largest(x, labels)
    if targets is None:
        raise AssertionError("labels were given")
    return _softmax(x, top) - targets


def sigmoid(x: Shared) -> Shared:
    """``1 / (1 + exp(−x))``; same fraction out as in. Error below 1e-4."""
    positive, sign = relu_and_sign(x)
    upper = reciprocal(exp_negative(x - positive * 2) + 1.0, 2.0)  # of |x|
    return to_fraction(1.0 - upper + select(sign, upper * 2 - 1.0), x.fraction)


def sigmoid_gradient(s: Shared, delta: Shared) -> Shared:
    """δ through ``s = sigmoid(x)``: δ·s·(1 − s), of the fraction of δ. Two truncations."""
    weighed = to_fraction(mul(delta, s), delta.fraction)
    return _less(weighed, mul(weighed, s))


def softmax_gradient(s: Shared, delta: Shared) -> Shared:
    """δ through ``s = softmax(x)`` over [rows, classes]: s·(δ − Σ δ·s), of the fraction of δ. Two truncations."""
    weighed = to_fraction(mul(delta, s), delta.fraction)
    return _less(weighed, mul(s, weighed.sum(axis=1, keepdims=True)))


def _less(x: Shared, product: Shared) -> Shared:
    return to_fraction(x.widen(product.fraction - x.fraction) - product, x.fraction)


def cross_entropy(x: Shared, targets: Shared) -> Shared:
    """Mean over rows of −log softmax(x)[target]. ``targets``: one-hot of the shape of x and its fraction. Shape ()."""
    z, _, total = _shifted(x, largest(x)[0])
    chosen = truncate(mul(z, targets).sum(axis=1), x.fraction + targets.fraction - WIDE)
    loss = log(total.reshape(x.shape[0]), x.shape[1]) - chosen
    return to_fraction(truncate(scale(loss.sum(), 1 / x.shape[0], WIDE), WIDE), x.fraction)
