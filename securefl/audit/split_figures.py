"""Pictures of what a split-learning server can rebuild of the inputs, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from securefl.audit.figures import svg

__all__ = ["reconstructions"]


def reconstructions(inputs: NDArray[np.floating], guesses: Mapping[str, NDArray[np.floating]]) -> str:
    """A row of inputs and, below it, one row per entry of ``guesses``; each [k, ...], the shape of ``inputs``.

    Square examples are drawn as pictures, others as curves.
    """
    rows: dict[str, NDArray[Any]] = {"input": inputs, **guesses}
    count = len(inputs)
    figure = Figure(figsize=(1.2 * count + 1.4, 1.2 * len(rows)))
    table = figure.subplots(len(rows), count, squeeze=False)
    low, high = float(inputs.min()), float(inputs.max())
    for line, (title, values) in zip(table, rows.items(), strict=True):
        for axes, value in zip(line, values, strict=True):
            _draw(axes, value.reshape(-1), low, high)
        line[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=8)
    return svg(figure)


def _draw(axes: Axes, values: NDArray[Any], low: float, high: float) -> None:
    side = math.isqrt(values.size)
    if side * side == values.size:
        axes.imshow(values.reshape(side, side), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    else:
        axes.plot(values, color="#1f5fa8", linewidth=0.8)
        axes.set_ylim(low - 0.1, high + 0.1)
    axes.set_xticks([])
    axes.set_yticks([])
