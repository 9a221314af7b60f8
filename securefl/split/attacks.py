"""Activations from gradients: why a weight gradient may not leave a client in the clear.

Legend: a [B, F] activations, dz [B, O] the gradient at a linear body's outputs, dW = dzᵀ a [O, F].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securefl.errors import InvalidInputError

__all__ = ["activations_from_gradients", "matched_correlation"]


def activations_from_gradients(gradient: NDArray[np.floating], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[B, F]: the least-norm a with dzᵀ a = dW, which *is* a while dz has full rank: a = pinv(dzᵀ) dW.

    ``gradient``: dz [B, O]. ``weights``: dW [O, F]. Under cross-entropy the rows of dz sum to zero, so B up to O − 1
    examples are recovered exactly, up to rounding.
    """
    if gradient.ndim != 2 or weights.ndim != 2 or gradient.shape[1] != weights.shape[0]:
        raise InvalidInputError(f"dz is [B, O] and dW is [O, F], not {gradient.shape} and {weights.shape}")
    recovered: NDArray[np.float64] = np.linalg.pinv(gradient.T.astype(np.float64)) @ weights.astype(np.float64)
    return recovered


def matched_correlation(recovered: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Mean over the true rows of the largest |Pearson correlation| with any recovered row.

    The attacker is given the best assignment and sign; by chance alone it is about √(2 ln B / F).
    """

    def standard(rows: NDArray[np.floating]) -> NDArray[np.float64]:
        centred = rows.astype(np.float64) - rows.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        return np.asarray(centred / np.maximum(norms, 1e-300), dtype=np.float64)

    table = np.abs(standard(truth) @ standard(recovered).T)
    return float(table.max(axis=1).mean())
