"""The engine of two servers and a helper that deals masks, as :class:`securefl.mpc.operations.Engine`. SPEC mpc."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from securefl.mpc import arithmetic
from securefl.mpc.arithmetic import open_masked as prepare
from securefl.mpc.arithmetic import randomized_part, reveal, settle, share, truncate
from securefl.mpc.bits import reveal_bits
from securefl.mpc.chained import multiply
from securefl.mpc.compare import negative, number, relu_and_sign, select
from securefl.mpc.gemm import Words
from securefl.mpc.shared import Shared

__all__ = [
    "bilinear",
    "negative",
    "number",
    "prepare",
    "randomized_part",
    "relu_and_sign",
    "reveal",
    "reveal_bits",
    "select",
    "settle",
    "share",
    "truncate",
]


def bilinear(x: Shared, y: Shared, product: Callable[[Words, Words], Words]) -> Shared:
    """As :func:`securefl.mpc.arithmetic.bilinear`; element by element what truncations opened is not opened again."""
    return multiply(x, y) if product is np.multiply else arithmetic.bilinear(x, y, product)
