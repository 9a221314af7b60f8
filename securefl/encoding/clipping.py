"""The ℓ2 bound on a whole update."""

from __future__ import annotations

import math

import numpy as np

from securefl.encoding.quantize import require_finite
from securefl.errors import ConfigurationError
from securefl.types import Update

__all__ = ["clip_to_norm"]


def clip_to_norm(update: Update, clip_norm: float) -> Update:
    """``update · min(1, clip_norm / ‖update‖₂)``: the update itself when it is short enough, else a scaled copy.

    Shapes: flat [d] in, flat [d] out, same dtype. The norm of the result, summed in float64, is at most ``clip_norm``,
    whatever its dtype rounds.
    Raises :class:`ConfigurationError` for a clip norm that is not a positive number.
    Reference: McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models", §2 (flat clipping).
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise ConfigurationError(f"clip_norm must be a finite number above 0, got {clip_norm}")
    largest = require_finite(update)
    if largest == 0.0:
        return update
    # A power of two divides without rounding; it keeps squares finite and the factor below within the dtype's range.
    unit = _power_of_two(largest)
    scaled = update / update.dtype.type(unit)
    norm = _norm(scaled)  # 1 to 2 sqrt(d)
    if norm <= clip_norm / unit:
        return update
    factor, shrink = clip_norm / norm, float(np.finfo(update.dtype).eps)
    result: Update = scaled * update.dtype.type(factor)
    while _longer(result, clip_norm):  # each product was rounded, perhaps up; once or twice, but for denormal numbers
        factor, shrink = factor * max(0.0, 1 - shrink), 2 * shrink
        result = scaled * update.dtype.type(factor)
    return result


def _power_of_two(value: float) -> float:
    """The largest that is at most ``value`` > 0."""
    return math.ldexp(1.0, math.frexp(value)[1] - 1)


def _norm(values: Update) -> float:
    return math.sqrt(float(np.einsum("i,i->", values, values, dtype=np.float64)))


def _longer(values: Update, bound: float) -> bool:
    if values.dtype != np.float64:  # squares of narrower numbers neither overflow nor vanish in float64
        return _norm(values) > bound
    unit = _power_of_two(bound)
    return _norm(values / unit) > bound / unit
