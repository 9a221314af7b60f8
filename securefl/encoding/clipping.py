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

    Shapes: flat [d] in, flat [d] out, same dtype. The norm is taken in float64.
    Raises :class:`ConfigurationError` for a clip norm that is not a positive number.
    Reference: McMahan et al. 2018, "Learning Differentially Private Recurrent Language Models", §2 (flat clipping).
    """
    if not (math.isfinite(clip_norm) and clip_norm > 0):
        raise ConfigurationError(f"clip_norm must be a finite number above 0, got {clip_norm}")
    largest = require_finite(update)
    if largest == 0.0:
        return update
    # Dividing by the largest magnitude first keeps squares finite and the factor below within the dtype's range.
    scaled = update / update.dtype.type(largest)
    norm = math.sqrt(float(np.einsum("i,i->", scaled, scaled, dtype=np.float64)))  # 1 to sqrt(d)
    if norm <= clip_norm / largest:
        return update
    result: Update = scaled * update.dtype.type(clip_norm / norm)
    return result
