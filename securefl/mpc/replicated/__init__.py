"""The engine "replicated": three servers, each with two of three shares of every value; no dealer. SPEC mpc-replicated.

Semi-honest, honest majority: whoever sees one party learns nothing, any two parties have everything.

    party          who holds what, streams of the pairs, the ways to send
    arithmetic     replication, products, exact truncation
    bits, compare  ANDs on packed planes; sign, relu, select

What is exported here are the operations of :class:`securefl.mpc.operations.Engine`.
"""

from securefl.mpc.replicated.arithmetic import (
    bilinear,
    multiply,
    prepare,
    randomized_part,
    reveal,
    settle,
    share,
    truncate,
)
from securefl.mpc.replicated.bits import reveal_bits
from securefl.mpc.replicated.compare import negative, number, relu_and_sign, select
from securefl.mpc.replicated.party import ReplicatedParty

__all__ = [
    "ReplicatedParty",
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
