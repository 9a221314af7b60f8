"""Vectors of the encoding: layout, quantization, lanes, weights. SPEC: protocols/encoding/SPEC.md §2, §3, §4, §5."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint, Quantized
from securefl.encoding.ring import Lanes
from securefl.fl.interfaces import Contribution
from securefl.fl.pipeline import Pipeline
from securefl.machine import SumResult
from securefl.types import IntegerVector, PartyId

__all__ = ["CHECKS"]


def _integers(values: Sequence[str]) -> IntegerVector:
    return np.array([int(value) for value in values], dtype=np.uint64)


def _strings(values: IntegerVector) -> list[str]:
    return [str(value) for value in values.tolist()]


def _layout(case: Case) -> None:
    tensors: dict[str, Any] = {name: np.zeros(shape, dtype) for name, shape, dtype in case.input["tensors"]}
    if case.error is not None:
        refused(case.error, lambda: Layout.of(tensors))
        return
    expect("the schema hash", Layout.of(tensors).schema_hash.hex(), case.expected["schema_hash"])


def _quantize(case: Case) -> None:
    given = case.input
    grid = FixedPoint(float.fromhex(case.params["clip_range"]), case.params["value_bits"])
    values = np.array([float.fromhex(value) for value in given["values"]], dtype=given["dtype"])
    if "repeat" in given:
        values = np.resize(values, given["repeat"])

    def quantized() -> Quantized:
        return grid.encode(values, seed=case.bytes("seed"), scale=float.fromhex(given["scale"]), clip=given["clip"])

    if case.error is not None:
        refused(case.error, quantized)
        return
    result = quantized()
    expect("how many values were clipped", result.clipped, case.expected["clipped"])
    if "sha256" in case.expected:
        digest = hashlib.sha256(result.values.astype(">u8").tobytes()).hexdigest()
        expect("the hash of the integers", digest, case.expected["sha256"])
    else:
        expect("the integers", result.values.tolist(), case.expected["integers"])


def _grid(case: Case) -> None:
    refused(case.test["error"], lambda: FixedPoint(float.fromhex(case.input["clip_range"]), case.input["value_bits"]))


def _dequantize(case: Case) -> None:
    grid = FixedPoint(float.fromhex(case.params["clip_range"]), case.params["value_bits"])
    values = grid.decode(np.array(case.input["total"], dtype=np.uint64), case.input["count"])
    expect("the values", [value.hex() for value in values.tolist()], case.expected["values"])


def _lanes(params: Mapping[str, Any]) -> Lanes:
    return Lanes(params["dimension"], int(params["max_value"]), params["clients"])


def _pack(case: Case) -> None:
    lanes, values = _lanes(case.params), _integers(case.input["values"])
    if case.error is not None:
        refused(case.error, lambda: lanes.check(values))
        return
    wanted = case.expected
    sizes = [wanted[name] for name in ("bits", "per_word", "words")]
    expect("the sizes", [lanes.bits, lanes.per_word, lanes.words], sizes)
    lanes.check(values)
    total = lanes.pack(values)
    expect("the words", _strings(total), wanted["packed"])
    expect("the integers unpacked again", lanes.unpack(total).tolist(), values.tolist())
    largest = lanes.pack(np.full(lanes.dimension, lanes.max_value, dtype=np.uint64))
    total += largest * np.uint64(lanes.clients - 1)
    expect("the sum of words", _strings(total), wanted["total"])
    expect("the sums", _strings(lanes.unpack(total)), wanted["sums"])


def _unpack(case: Case) -> None:
    refused(case.test["error"], lambda: _lanes(case.params).unpack(_integers(case.input["packed"])))


def _sizes(case: Case) -> None:
    refused(case.test["error"], lambda: _lanes(case.input))


def _pipeline(given: Mapping[str, Any]) -> Pipeline:
    tensors: dict[str, Any] = {name: np.zeros(shape, dtype) for name, shape, dtype in given["tensors"]}
    grid = FixedPoint(float.fromhex(given["clip_range"]), given["value_bits"])
    clip_norm = None if given.get("clip_norm") is None else float.fromhex(given["clip_norm"])
    return Pipeline(Layout.of(tensors), grid, given["max_weight"], clip_norm)


def _contribution(case: Case) -> None:
    pipeline = _pipeline(case.params)
    flat = np.array([float.fromhex(value) for value in case.input["values"]])
    given = Contribution(pipeline.layout.unflatten(flat), case.input["weight"], case.bytes("seed"))
    if case.error is not None:
        refused(case.error, lambda: pipeline.encode(given))
        return
    expect("the integers", pipeline.encode(given).values.tolist(), case.expected["integers"])


def _mean(case: Case) -> None:
    pipeline, total = _pipeline(case.params), np.array(case.input["total"], dtype=np.uint64)
    survivors = tuple(PartyId(i) for i in range(1, case.input["count"] + 1))
    tensors, weights = pipeline.decode(SumResult(total, survivors))
    values = pipeline.layout.flatten(tensors)
    expect("the sum of the weights", weights, case.input["total"][-1])
    expect("the values", [value.hex() for value in values.tolist()], case.expected["values"])


def _encoding(case: Case) -> None:
    expect("the hash", _pipeline(case.input).encoding.hex(), case.expected["encoding"])


CHECKS: Final[Mapping[str, Check]] = {
    "layout": _layout,
    "quantize": _quantize,
    "grid": _grid,
    "dequantize": _dequantize,
    "pack": _pack,
    "unpack": _unpack,
    "sizes": _sizes,
    "contribution": _contribution,
    "mean": _mean,
    "encoding": _encoding,
}
