"""The operations of protocols/compression. Each function gives the result that a vector's ``expected`` states."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from securefl.audit.checks import Case, Check, Mismatch, expect, refused
from securefl.audit.checks import compression_payload as payload
from securefl.encoding.hadamard import Rotation
from securefl.encoding.layout import Layout
from securefl.encoding.lowrank import PowerSGD, _orthonormal
from securefl.encoding.project import RandomProjection
from securefl.encoding.public import PublicRandomness
from securefl.encoding.radix import RadixLanes, digits_per_word, widest_window
from securefl.encoding.rotate import RotatedGrid, RotatedQuantizer
from securefl.encoding.sparsify import random_support
from securefl.encoding.tail import Tail
from securefl.encoding.weights import WeightFormat
from securefl.machine import Segment, extra_fields
from securefl.types import RingVector

__all__ = ["CHECKS"]

Values: TypeAlias = Mapping[str, Any]


def _context(_params: Values, given: Values) -> object:
    segments = tuple(Segment(*segment) for segment in given["segments"])
    return [part.hex() for part in extra_fields(segments, bytes.fromhex(given["encoding"]))]


def _radix(_params: Values, given: Values) -> object:
    rows = np.array(given["rows"], dtype=np.uint64)
    lanes = RadixLanes(rows.shape[1], given["max_value"], len(rows), given["window"])
    packed = [lanes.pack(row) for row in rows]
    total: RingVector = np.zeros(lanes.words, dtype=np.uint64)
    for row in packed:
        total += row
    words = {"first_words": packed[0], "total_words": total, "sums": lanes.unpack(total, len(rows))}
    return {name: list(map(str, value.tolist())) for name, value in words.items()}


def _widest(_params: Values, given: Values) -> object:
    return {"per_word": digits_per_word(given["window"]), "widest": widest_window(given["window"])}


def _public(params: Values, round: int) -> PublicRandomness:
    return PublicRandomness(bytes.fromhex(params["seed"]), round)


def _public_key(params: Values, given: Values) -> object:
    return _public(params, given["round"]).key(given["purpose"]).hex()


def _rotate(params: Values, given: Values) -> object:
    x = np.array(given["values"], dtype=np.float32)
    rotation = Rotation(x.size, _public(params, 1).key("rotation 0"))
    y = np.empty((rotation.block, rotation.blocks))
    for columns, _, piece in rotation.forward(x):
        y[:, columns] = piece
    return y.reshape(-1).astype(int).tolist()


def _rotated(params: Values, given: Values) -> object:
    x = np.array(given["values"], dtype=np.float32)
    RotatedQuantizer(given["levels"])
    rotation = Rotation(x.size, _public(params, 1).key("rotation 0"))
    grid = RotatedGrid(rotation, given["levels"] - 1, float.fromhex(given["clip_range"]), 1000)
    out = np.empty(rotation.padded, dtype=np.uint64)
    grid.encode(x, seed=bytes.fromhex(params["secret"]), out=out)
    return {
        "integers": out.tolist(),
        "decoded": [(float(v) + 0.0).hex() for v in grid.decode(3 * out, 3)],
    }  # the sign of zero is open


def _support(params: Values, given: Values) -> object:
    positions, sizes = random_support(given["dimension"], given["kept"], _public(params, given["round"]), "random_k")
    return {"positions": positions.tolist(), "sizes": sizes.tolist()}


def _projection(params: Values, given: Values) -> object:
    x = np.array(given["values"], dtype=np.float32)
    stage = RandomProjection(given["kept"] / x.size).at(((x.size,),), _public(params, given["round"]))
    return [float(v).hex() for v in stage.project(x, 0)]


def _powersgd_start(params: Values, given: Values) -> object:
    shapes = tuple((1000, columns) for columns in given["columns"])
    stage = PowerSGD(given["rank"]).at(shapes, _public(params, given["round"]))
    return [[[float(v).hex() for v in row] for row in matrix] for matrix in stage.bases]


def _tail(params: Values, given: Values) -> object:
    values = np.array(given["values"], dtype=np.uint64)
    segment = Segment(values.size, params["max_value"])
    made = Tail(given["max_weight"], segment if given["check"] else None)
    out = np.empty(made.segment.size, dtype=np.uint64)
    made.encode(given["weight"], float.fromhex(given["energy"]), values, out)
    return out.tolist()


def _weights(_params: Values, given: Values) -> object:
    model = {"w": np.array([[float.fromhex(v) for v in given["values"]]], dtype=np.float32)}
    form = WeightFormat(given["bits"])
    data = form.encode(model)
    expect("the model that comes back", form.encode(form.decode(data, Layout.of(model))), data)
    return data.hex()


def _orthonormal_case(case: Case) -> None:
    wanted = [[float.fromhex(value) for value in row] for row in case.expected["result"]]
    found = _orthonormal(np.array(case.input["matrix"], dtype=np.float32))
    if not np.allclose(found, wanted, atol=1e-6):
        raise Mismatch("the orthonormal columns differ")


def _check(operation: Callable[[Values, Values], object]) -> Check:
    def run(case: Case) -> None:
        if case.error is not None:
            refused(case.error, lambda: operation(case.params, case.input))
        else:
            expect("the result", operation(case.params, case.input), case.expected["result"])

    return run


CHECKS: Final[Mapping[str, Check]] = {
    "context": _check(_context),
    "radix": _check(_radix),
    "widest": _check(_widest),
    "public_key": _check(_public_key),
    "rotate": _check(_rotate),
    "rotated": _check(_rotated),
    "support": _check(_support),
    "projection": _check(_projection),
    "powersgd_start": _check(_powersgd_start),
    "tail": _check(_tail),
    "weights": _check(_weights),
    "orthonormal": _orthonormal_case,
    "window": _check(payload.window),
    "payload": _check(payload.payload),
    "powersgd": payload.powersgd,
}
