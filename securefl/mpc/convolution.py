"""Convolutions and pooling over images [batch, channels, height, width]. SPEC mpc §7.

Windows are views of the image, so the image is opened once however often a pixel is used. They are laid out only inside
a product, of what a party multiplies with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securefl.errors import ConfigurationError
from securefl.mpc.bits import Bits
from securefl.mpc.fixed import FRACTION, HEADROOM_BITS
from securefl.mpc.gemm import gemm
from securefl.mpc.operations import bilinear, scale
from securefl.mpc.party import Array
from securefl.mpc.shared import Shared
from securefl.mpc.tournament import play, route

__all__ = [
    "Window",
    "average_pool",
    "conv2d",
    "conv2d_gradient",
    "fold",
    "max_pool",
    "max_pool_and_wins",
    "max_pool_gradient",
    "unfold",
]

#: What stands around an image where the largest is looked for, in units of the last place: within the headroom no value
#: is as small, and what separates the two is below 2^62.
_FLOOR = np.int64(-(1 << (HEADROOM_BITS - 1))).view(np.uint64)


@dataclass(frozen=True, slots=True)
class Window:
    """Height and width of a window, its step, and the zeros put around the image."""

    size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Windows down and across. Raises :class:`ConfigurationError` when none fits."""
        down, across = (
            (extent + 2 * pad - size) // step + 1
            for extent, size, step, pad in zip((height, width), self.size, self.stride, self.padding, strict=True)
        )
        if down < 1 or across < 1:
            raise ConfigurationError(f"no window of {self.size} fits an image of {height} × {width}")
        return down, across

    def check_for_maxima(self) -> None:
        """Raises :class:`ConfigurationError` for more padding than half a window: there is no maximum of nothing."""
        if any(2 * pad > size for pad, size in zip(self.padding, self.size, strict=True)):
            raise ConfigurationError(
                f"a window of {self.size} for maxima is padded by at most half of it, not {self.padding}"
            )

    def windows(self, images: Array) -> Array:
        """[b, c, h, w] to [b, c, down, across, *size]."""
        (top, left) = self.padding
        if top or left:
            images = np.pad(images, ((0, 0), (0, 0), (top, top), (left, left)))
        views = np.lib.stride_tricks.sliding_window_view(images, self.size, axis=(2, 3))
        result: Array = views[:, :, :: self.stride[0], :: self.stride[1]]
        return result


def unfold(images: Array, window: Window) -> Array:
    """[b, c, h, w] to rows [b·down·across, c·size] of one party's part: one row per window."""
    views = window.windows(images)
    b, c, down, across, height, width = views.shape
    return np.ascontiguousarray(views.transpose(0, 2, 3, 1, 4, 5)).reshape(b * down * across, c * height * width)


def fold(rows: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The transpose of :func:`unfold` on one party's part: every window's elements added where they came from."""
    b, c, h, w = shape
    down, across = window.output(h, w)
    return _fold_cells(rows.reshape(b, down, across, c, -1).transpose(4, 0, 3, 1, 2), shape, window)


def _fold_cells(cells: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The same of [size, b, c, down, across]: elements of one place in all windows together."""
    b, c, h, w = shape
    down, across = cells.shape[3:]
    (_, kw), (sh, sw), (ph, pw) = window.size, window.stride, window.padding
    images = np.zeros((b, c, h + 2 * ph, w + 2 * pw), cells.dtype)
    for place, cell in enumerate(cells):
        i, j = divmod(place, kw)
        images[:, :, i : i + sh * down : sh, j : j + sw * across : sw] += cell
    return images[:, :, ph : ph + h, pw : pw + w]


def conv2d(x: Shared, weight: Shared, window: Window) -> Shared:
    """[b, c, h, w] with weights [c·size, filters] to [b, filters, down, across]. Not truncated."""
    b, _, h, w = x.shape
    down, across = window.output(h, w)
    y = bilinear(x, weight, lambda images, matrix: gemm(unfold(images, window), matrix))
    return y.reshape(b, down, across, weight.shape[1]).transpose(0, 3, 1, 2)


def conv2d_gradient(x: Shared, delta: Shared, window: Window) -> Shared:
    """Of the weights [c·size, filters], from images and δ in rows [b·down·across, filters]. Not truncated."""
    return bilinear(x, delta, lambda images, rows: gemm(unfold(images, window).T, rows))


def max_pool(x: Shared, window: Window) -> Shared:
    """The largest element of each window. Padding is smaller than any value; it is at most half a window."""
    return max_pool_and_wins(x, window)[0]


def max_pool_and_wins(x: Shared, window: Window) -> tuple[Shared, tuple[Bits, ...]]:
    """:func:`max_pool`, and who won in each window, for :func:`max_pool_gradient`. Of equal elements the first wins.

    Raises :class:`ConfigurationError` when no window fits, and for more padding than half a window.
    """
    window.check_for_maxima()
    shape = (math.prod(window.size), *x.shape[:2], *window.output(*x.shape[2:]))
    cells = x.linear(lambda images: _cells(images, window), shape)  # differences are opened, so no form is kept
    if any(window.padding):
        outside = _cells(np.ones((1, 1, *x.shape[2:]), np.uint64), window) == 0
        cells = cells.add_words(np.where(outside, _FLOOR, np.uint64(0)))
    return play(cells)


def _cells(images: Array, window: Window) -> Array:
    """[b, c, h, w] to [size, b, c, down, across]: elements of one place in all windows together."""
    views = window.windows(images)
    return views.transpose(4, 5, 0, 1, 2, 3).reshape(-1, *views.shape[:4])


def max_pool_gradient(wins: Sequence[Bits], delta: Shared, shape: tuple[int, ...], window: Window) -> Shared:
    """δ through max pooling of images of ``shape``: to the winner of each window, added up where windows overlap."""
    return route(wins, delta).linear(lambda cells: _fold_cells(cells, shape, window), shape)


def average_pool(x: Shared, window: Window) -> Shared:
    """The mean of each window, padding counted as zeros. Not truncated: 16 binary places more."""
    height, width = window.size
    total = x.view(window.windows).sum(axis=(4, 5))
    return scale(total, 1 / (height * width), FRACTION)
