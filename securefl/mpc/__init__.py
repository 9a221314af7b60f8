"""Secret-shared computation by three parties: two servers that compute, and a helper that only deals masks.

    from securefl import mpc
    with mpc.local_cluster() as servers:
        model = servers.share(net)                     # a torch module
        logits = model(servers.share(x)).reveal()

What stands here does no IO: a party program computes over a :class:`Channel` that is handed to it (``party``). What
opens processes and imports torch models stands in ``securefl.cluster``, above the transport; its names are resolved
here on first use.

    channel, party                 links; random streams, masks, deals
    operations                     what programs are made of, whatever engine computes
    gemm, fixed, shared            matrices mod 2^64; reals as integers; tensors and everything linear
    arithmetic, bits, compare      products, truncation; packed bits; sign, relu, select: with a helper (dealer)
    functions, classes, convolution, sorting, graph, network      exp … softmax; rows; images; order; models
    service                        commands of a client
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from securefl.mpc.channel import HELPER, PARTIES, Channel, memory_channels
from securefl.mpc.fixed import FRACTION, HEADROOM_BITS, decode, encode
from securefl.mpc.party import Party, join
from securefl.mpc.shared import Shared

__all__ = [
    "FRACTION",
    "HEADROOM_BITS",
    "HELPER",
    "PARTIES",
    "Channel",
    "Party",
    "Shared",
    "connect",
    "decode",
    "encode",
    "join",
    "local_cluster",
    "memory_channels",
    "run_parties",
]

#: Names that live above the transport → their modules.
_ABOVE = {
    "connect": "securefl.cluster.remote",
    "local_cluster": "securefl.cluster.local",
    "run_parties": "securefl.cluster.threads",
}


def __getattr__(name: str) -> Any:
    if name in _ABOVE:
        return getattr(import_module(_ABOVE[name]), name)
    raise AttributeError(f"module 'securefl.mpc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
