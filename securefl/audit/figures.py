"""The report's pictures, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from securefl.fl.interfaces import ServerView
from securefl.types import IntegerVector

__all__ = ["learning_curve", "server_view", "svg", "traffic"]

_SIDE = 64


def svg(figure: Figure) -> str:
    """The figure as an SVG element, to stand inside a page."""
    buffer = io.StringIO()
    # no date, so that equal runs give equal files
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def learning_curve(rounds: Sequence[int], accuracies: Sequence[float]) -> str:
    """Test accuracy over the rounds."""
    figure = Figure(figsize=(6.4, 2.8))
    axes = figure.subplots()
    axes.plot(rounds, accuracies, marker="." if len(rounds) < 60 else "", color="#1f5fa8")
    axes.set_xlabel("round")
    axes.set_ylabel("test accuracy")
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    return svg(figure)


def traffic(upload: float | None, vector: float | None, parameters: int) -> str:
    """Upload per client and round: the vector, the keys and shares, and float32 beside them."""
    figure = Figure(figsize=(6.4, 1.6))
    axes = figure.subplots()
    vector, upload = vector or 0.0, upload or 0.0
    axes.barh(["float32"], [4 * parameters / 1000], color="#b0b0b0")
    axes.barh(["this run"], [vector / 1000], color="#1f5fa8", label="vector")
    axes.barh(["this run"], [(upload - vector) / 1000], left=[vector / 1000], color="#e08a1e", label="keys and shares")
    axes.set_xlabel("kB per client and round")
    axes.legend(frameon=False, fontsize=8)
    return svg(figure)


def server_view(view: ServerView) -> str:
    """One client's integers beside what the server received of it: as pictures, and how often each value occurs."""
    figure = Figure(figsize=(6.4, 5.0))
    (left, right), (below_left, below_right) = figure.subplots(2, 2)
    for axes, values, title in (
        (left, view.sent, f"client {view.client}: its update"),
        (right, view.received, "what the server received"),
    ):
        axes.imshow(_square(values), cmap="gray", interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    for axes, values in ((below_left, view.sent), (below_right, view.received)):
        axes.hist(values.astype(np.float64), bins=64, range=(0, float(view.largest)), color="#1f5fa8")
        axes.set_xlabel("value of a lane", fontsize=8)
        axes.tick_params(labelsize=7)
    return svg(figure)


def _square(values: IntegerVector) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The first values as a square, greys spread over what occurs."""
    side = max(1, min(_SIDE, int(np.sqrt(values.size))))
    square = values[: side * side].astype(np.float64).reshape(side, side)
    low, high = np.percentile(square, (1, 99))
    return np.asarray(np.clip((square - low) / max(high - low, 1.0), 0, 1), dtype=np.float64)
