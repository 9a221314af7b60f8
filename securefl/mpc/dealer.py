"""The engine of two servers and a helper that deals masks, as :class:`securefl.mpc.operations.Engine`. SPEC mpc."""

from __future__ import annotations

from securefl.mpc.arithmetic import bilinear, randomized_part, reveal, settle, share, truncate
from securefl.mpc.arithmetic import open_masked as prepare
from securefl.mpc.bits import reveal_bits
from securefl.mpc.chained import multiply
from securefl.mpc.compare import negative, number, relu_and_sign, select

__all__ = [
    "bilinear",
    "multiply",
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
