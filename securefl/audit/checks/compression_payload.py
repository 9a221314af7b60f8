"""The operations of protocols/compression over whole sums: windows, payloads, low-rank factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from securefl.audit.checks import Case, Mismatch
from securefl.encoding.chain import Chain
from securefl.encoding.compressor import LinearCoder, Scale
from securefl.encoding.lowrank import PowerSGD
from securefl.encoding.packing import Packing
from securefl.encoding.payload import Payload
from securefl.encoding.public import PublicRandomness
from securefl.encoding.rotate import RotatedQuantizer
from securefl.encoding.sparsify import PrunedSupport, RandomK
from securefl.primitives.kdf import Label, derive
from securefl.types import RingVector, Update

__all__ = ["payload", "powersgd", "window"]

Values: TypeAlias = Mapping[str, Any]

_TOLERANCE: Final = 1e-5


def _scale(given: Values) -> Scale:
    return Scale(float.fromhex(given["mean_square"]), float.fromhex(given["sum_square"]))


def window(_params: Values, given: Values) -> object:
    """The window of a grid of automatic width."""
    quantizer = RotatedQuantizer(given["levels"], "auto", float.fromhex(given["clip_multiple"]))
    return quantizer.at(64, given["clients"], _scale(given), PublicRandomness(bytes(32), 0)).window


def payload(params: Values, given: Values) -> object:
    """One sum, from every client's update to the mean."""
    public = PublicRandomness(bytes.fromhex(params["seed"]), params["round"])
    updates = [np.array(row, dtype=np.float32) for row in given["updates"]]
    coders: list[LinearCoder] = []
    left = updates[0].size
    if given["mask"] is not None:
        coders.append(PrunedSupport(np.array(given["mask"], dtype=np.bool_)))
        left = sum(given["mask"])
    if given["kept"] is not None:
        coders.append(RandomK(given["kept"] / left, unbiased=True))
    coder = Chain(tuple(coders)).at(((updates[0].size,),), public)
    quantizer = RotatedQuantizer(given["levels"], "auto", float.fromhex(given["clip_multiple"]))
    scale, clients = _scale(given), len(updates)
    grid = quantizer.at(coder.sizes[0], clients, scale, public)
    made = Payload(grid, given["max_weight"], scale.mean_square, clients)
    packing = Packing(made.segments, clients)
    total: RingVector = np.zeros(packing.words, dtype=np.uint64)
    integers = []
    for update, weight, secret in zip(updates, given["weights"], given["secrets"], strict=True):
        values = coder.project(update * np.float32(weight / given["max_weight"]), 0)
        seed = derive(bytes.fromhex(secret), Label.ROUNDING_STREAM, b"sum", bytes(4))
        encoded = made.encode(values, weight, seed=seed).values
        packing.check(encoded)
        integers.append(encoded.tolist())
        total += packing.pack(encoded)
    words = list(map(str, total[: packing.lanes[0].words].tolist()))
    decoded = made.decode(packing.unpack(total), clients, in_place=True)
    return {
        "window": grid.window,
        "integers": integers,
        "total_words": words,
        "mean": [(float(v) + 0.0).hex() for v in coder.expand(decoded.mean)],
        "weight": decoded.weight,
        "mean_square": decoded.scale.mean_square.hex(),
    }


def powersgd(case: Case) -> None:
    """Both sums of the low-rank coder, without a grid."""
    given = case.input
    public = PublicRandomness(bytes.fromhex(case.params["seed"]), given["round"])
    updates = [np.array(matrix, dtype=np.float32) for matrix in given["updates"]]
    coder = PowerSGD(given["rank"]).at((updates[0].shape,), public)
    means: list[Update] = []
    for at in range(2):
        projected = [coder.project(update.reshape(-1), at) for update in updates]
        means.append(np.mean(np.stack(projected), axis=0, dtype=np.float32))
        coder.observe(at, means[at])
    found = {"first": means[0], "second": means[1], "estimate": coder.expand(means[1])}
    for name, wanted in case.expected["result"].items():
        values = np.array([float.fromhex(value) for row in wanted for value in row])
        if not np.allclose(found[name], values, rtol=0, atol=_TOLERANCE * np.abs(values).max()):
            raise Mismatch(f"{name} differs")
