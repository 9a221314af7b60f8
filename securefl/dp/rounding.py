"""From a clipped real update to integers whose ℓ2 norm is bounded for certain.

Legend: s the scale (integers per unit), c the clip norm, d the dimension, β the failure probability of the bound.

After stochastic rounding of s·x with ‖x‖ <= c,  ‖·‖² <= s²c² + d/4 + √(2 ln 1/β) (s c + √d/2)  except with
probability β, and never more than (s c + √d)²                             [Kairouz, Liu, Steinke 2021, Thm 1, Eq. 2].
The paper rounds again until the bound holds. Here the rare vector that exceeds it (β = 10^-9 by default) is shortened
towards zero *in the integers*, which bounds the sensitivity for every input, takes constant time and cannot hang;
an honest client meets it with probability β.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.clipping import clip_to_norm
from securefl.encoding.quantize import require_finite
from securefl.errors import InvalidInputError
from securefl.primitives.kdf import Label, derive
from securefl.primitives.prg import KEY_BYTES, stream_words
from securefl.types import Update

__all__ = ["ROUNDING_FAILURE", "l1_bound", "l2_bound", "round_update"]

#: β: how often an honest client's rounded vector may be shortened.
ROUNDING_FAILURE = 1e-9
_BLOCK = 1 << 14


def l2_bound(scale: float, clip_norm: float, dimension: int, beta: float = ROUNDING_FAILURE) -> float:
    """Δ2 in integer units: the ℓ2 norm that :func:`round_update` enforces."""
    length = scale * clip_norm
    conditional = length**2 + dimension / 4 + math.sqrt(2 * math.log(1 / beta)) * (length + math.sqrt(dimension) / 2)
    return min(length + math.sqrt(dimension), math.sqrt(conditional))


def l1_bound(l2: float, dimension: int) -> float:
    """Δ1 <= Δ2 · min(√d, Δ2): the second holds for integer vectors, whose ℓ1 norm is at most their squared ℓ2 norm."""
    return l2 * max(1.0, min(math.sqrt(dimension), l2))


def round_update(
    update: Update, *, scale: float, clip_norm: float, coordinate_bound: int, l2: float, seed: bytes
) -> NDArray[np.int64]:
    """int64[d]: clipped to ``clip_norm``, scaled, stochastically rounded, then bounded in the integers.

    ``coordinate_bound``: each integer's largest magnitude. ``l2``: the norm bound Δ2 (:func:`l2_bound`).
    ``seed``: 32 secret bytes for this call. Raises :class:`InvalidInputError` for a vector that is not flat or finite.
    """
    if not isinstance(update, np.ndarray) or update.ndim != 1:
        raise InvalidInputError("expected a flat vector")
    require_finite(update)
    clipped = clip_to_norm(update.astype(np.float64, copy=False), clip_norm)
    key = derive(seed, Label.ROUNDING_STREAM, length=KEY_BYTES)
    out = np.empty(clipped.size, dtype=np.int64)
    words = np.empty(_BLOCK, dtype="<u8")
    for start in range(0, clipped.size, _BLOCK):
        piece = clipped[start : start + _BLOCK]
        w = words[: piece.size]
        stream_words(key, start, w)
        # 53 random bits: the bias is below 2^-53 of a grid step
        moved = piece * scale + (w >> np.uint64(11)) * 2.0**-53
        out[start : start + piece.size] = np.floor(moved).astype(np.int64)
    np.clip(out, -coordinate_bound, coordinate_bound, out=out)
    return _bound_norm(out, l2)


def _bound_norm(values: NDArray[np.int64], l2: float) -> NDArray[np.int64]:
    """``values``, or its truncation towards zero to a norm of at most ``l2``; rounding is on the safe side."""
    real = values.astype(np.float64)
    margin = 1 + (values.size + 64) * 2.0**-51  # the error of a sum of squares in doubles, any order
    norm = math.sqrt(float(real @ real) * margin)
    if norm <= l2:
        return values
    return np.trunc(real * (l2 / norm * (1 - 2.0**-40))).astype(np.int64)
