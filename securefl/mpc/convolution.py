"""Convolutions and pooling over images [batch, channels, height, width]. SPEC mpc §7.

Windows are a view of the image, so the image is opened once however often a pixel is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securefl.errors import ConfigurationError
from securefl.mpc.fixed import FRACTION
from securefl.mpc.operations import matmul, maximum_along, prepare, scale
from securefl.mpc.party import Array
from securefl.mpc.shared import Shared

__all__ = ["Window", "average_pool", "conv2d", "fold", "max_pool", "unfold"]


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

    def windows(self, images: Array) -> Array:
        """[b, c, h, w] to [b, c, down, across, *size]."""
        (top, left) = self.padding
        if top or left:
            images = np.pad(images, ((0, 0), (0, 0), (top, top), (left, left)))
        views = np.lib.stride_tricks.sliding_window_view(images, self.size, axis=(2, 3))
        result: Array = views[:, :, :: self.stride[0], :: self.stride[1]]
        return result


def unfold(x: Shared, window: Window) -> Shared:
    """[b, c, h, w] to rows [b·down·across, c·size]: one row per window."""

    def rows(images: Array) -> Array:
        views = window.windows(images)
        b, c, down, across, height, width = views.shape
        return np.ascontiguousarray(views.transpose(0, 2, 3, 1, 4, 5)).reshape(b * down * across, c * height * width)

    return x.view(rows)


def fold(rows: Array, shape: tuple[int, ...], window: Window) -> Array:
    """The transpose of :func:`unfold` on one party's part: every window's elements added where they came from."""
    b, c, h, w = shape
    down, across = window.output(h, w)
    (kh, kw), (sh, sw), (ph, pw) = window.size, window.stride, window.padding
    images = np.zeros((b, c, h + 2 * ph, w + 2 * pw), rows.dtype)
    cells = rows.reshape(b, down, across, c, kh, kw)
    for i in range(kh):
        for j in range(kw):
            images[:, :, i : i + sh * down : sh, j : j + sw * across : sw] += cells[..., i, j].transpose(0, 3, 1, 2)
    return images[:, :, ph : ph + h, pw : pw + w]


def conv2d(x: Shared, weight: Shared, window: Window) -> Shared:
    """[b, c, h, w] with weights [c·size, filters] to [b, filters, down, across]. Not truncated."""
    b, _, h, w = x.shape
    down, across = window.output(h, w)
    prepare(x, weight)
    return matmul(unfold(x, window), weight).reshape(b, down, across, weight.shape[1]).transpose(0, 3, 1, 2)


def max_pool(x: Shared, window: Window) -> Shared:
    """The largest element of each window. Padding counts as zeros, so it needs images that are nowhere negative."""
    b, c, h, w = x.shape
    down, across = window.output(h, w)
    height, width = window.size
    cells = x.view(lambda images: window.windows(images).reshape(b, c, down, across, height * width))
    return maximum_along(cells, 4)


def average_pool(x: Shared, window: Window) -> Shared:
    """The mean of each window, padding counted as zeros. Not truncated: 16 binary places more."""
    height, width = window.size
    total = x.view(window.windows).sum(axis=(4, 5))
    return scale(total, 1 / (height * width), FRACTION)
