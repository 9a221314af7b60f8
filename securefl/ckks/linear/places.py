"""Where results stand in the coefficients of an answer. Legend: the package."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.linear.layer import LinearLayer

__all__ = ["coefficients", "feature_blocks", "slot_blocks"]


def coefficients(layer: LinearLayer, blocks: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """The coefficients of blocks: one block after the other, the batch inside."""
    return np.asarray((blocks[:, None] * layer.stride + np.arange(batch)).reshape(-1))


def feature_blocks(layer: LinearLayer) -> list[NDArray[np.int64]]:
    """Per answer of gradients, the blocks that carry features."""
    group, features = layer.gradient_group, layer.features
    return [np.arange(min(group, features - first)) for first in range(0, features, group)]


def slot_blocks(layer: LinearLayer, group: int) -> list[NDArray[np.int64]]:
    """Per polynomial, the blocks that carry outputs: every ``group``-th."""
    each, outputs = layer.blocks // group, layer.outputs
    return [np.arange(min(each, outputs - first)) * group for first in range(0, outputs, each)]
