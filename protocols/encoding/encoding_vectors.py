"""The vectors of the encoding, made by encoding_ref."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

from encoding_ref import (
    EncodingError,
    contribution,
    dequantize,
    encoding_hash,
    lane_sizes,
    pack,
    quantize,
    schema_hash,
    unpack,
    weighted_mean,
)

SEED = hashlib.sha256(b"protocols/encoding").digest()


def files() -> dict[str, dict[str, Any]]:
    return {
        "vectors/layout.json": layout(),
        "vectors/quantize.json": quantization(),
        "vectors/lanes.json": lanes(),
        "vectors/weights.json": weights(),
    }


def blocks() -> dict[str, str]:
    return {}


def refused(name: str, comment: str, base: str, given: dict[str, Any], error: str) -> dict[str, Any]:
    return {"id": name, "comment": comment, "derived_from": base, "input": given, "error": {"type": error}}


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


# ---- layout


def layout() -> dict[str, Any]:
    tensors = [("weight", [3, 2], "float32"), ("bias", [3], "float32")]
    cases = {
        "two-tensors": ("a small linear layer", tensors),
        "other-order": ("the same tensors the other way round", tensors[::-1]),
        "other-shape": ("the same names and sizes, another shape", [("weight", [2, 3], "float32"), tensors[1]]),
        "other-dtype": ("the same in double", [(name, shape, "float64") for name, shape, _ in tensors]),
        "name-boundary": (
            "characters moved from one name to the next",
            [("weightb", [6], "float32"), ("ias", [3], "float32")],
        ),
        "scalar": ("a tensor without axes has one value", [("temperature", [], "float16")]),
        "empty-tensor": ("a tensor without values beside one that has some", [("gap", [0, 4], "float32"), *tensors]),
        "unicode-name": ("names are UTF-8", [("größe", [1], "float64")]),
    }
    tests: list[dict[str, Any]] = [
        {
            "id": name,
            "comment": comment,
            "input": {"tensors": tensors},
            "expected": {"schema_hash": schema_hash(tensors).hex()},
        }
        for name, (comment, tensors) in cases.items()
    ]
    base = "layout.json#two-tensors"
    tests += [
        refused("nothing", "no tensors", base, {"tensors": []}, "InvalidInputError"),
        refused("only-empty", "no values at all", base, {"tensors": [["gap", [0], "float32"]]}, "InvalidInputError"),
        refused("integers", "not floats", base, {"tensors": [["weight", [3], "int64"]]}, "InvalidInputError"),
        refused("booleans", "not floats", base, {"tensors": [["mask", [3], "bool"]]}, "InvalidInputError"),
    ]
    return {
        "spec": "protocols/encoding/SPEC.md §2",
        "description": "The schema hash of input.tensors (name, shape, dtype) is expected.schema_hash; or refused.",
        "groups": [{"operation": "layout", "params": {}, "tests": tests}],
    }


# ---- quantization


def quantization() -> dict[str, Any]:
    spread = [-1.0, -0.75, -0.3, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 0.3, 0.75, 1.0]
    c = 0.1
    groups = [
        group(
            1.0,
            16,
            [
                case("zeros", "zero is on the grid: no rounding moves it", [0.0] * 5),
                case("spread", "both signs and several magnitudes", spread),
                case("spread-float32", "the same from float32", [float32(x) for x in spread], dtype="float32"),
                case(
                    "edges",
                    "exactly the clip range, and one step of double inside",
                    [1.0, -1.0, 1 - 2**-53, -1 + 2**-53],
                ),
                case("scaled", "each value times a scale of 0.3", spread, scale=0.3),
                case(
                    "scaled-down",
                    "a scale of 2^-20: almost everything rounds to zero or one step",
                    spread,
                    scale=2.0**-20,
                ),
                case(
                    "clipped",
                    "values beyond the clip range are clamped and counted",
                    [5.0, -5.0, 1.0, 0.25, 1e300],
                    clip=True,
                ),
                case("nothing-to-clip", "clip allowed and not needed", spread, clip=True),
                case("three-blocks", "40,000 values: over the edges of any blocking", spread, repeat=40000),
                failing("not-a-number", "NaN", "spread", [0.5, float("nan")], "InvalidInputError"),
                failing(
                    "infinite",
                    "an infinity, although clipping is allowed",
                    "clipped",
                    [0.5, float("-inf")],
                    "InvalidInputError",
                    clip=True,
                ),
                failing("no-values", "an empty vector", "spread", [], "InvalidInputError"),
                failing(
                    "beyond", "one step of double beyond the clip range", "edges", [1 + 2**-52], "InvalidInputError"
                ),
                failing("scale-zero", "a scale of 0", "scaled", spread, "InvalidInputError", scale=0.0),
                failing("scale-above-one", "a scale above 1", "scaled", spread, "InvalidInputError", scale=1 + 2**-52),
                failing(
                    "scale-not-a-number", "a scale of NaN", "scaled", spread, "InvalidInputError", scale=float("nan")
                ),
            ],
        ),
        group(
            c,
            31,
            [
                case("thirty-one-bits", "the most value bits", [c * x for x in spread]),
                case(
                    "thirty-one-bits-clipped-float32",
                    "float32(0.1) > 0.1: clamping in float32 would leave the grid",
                    [float32(-0.2), float32(-0.1), float32(0.1)],
                    dtype="float32",
                    clip=True,
                ),
            ],
        ),
        group(
            0.021,
            31,
            [
                case(
                    "edge-rounds-up",
                    "c · (h / c) > h in double: the last value would become 2h + 1, and is held at 2h",
                    [0.021],
                    repeat=113,
                    seed=hashlib.sha256(b"clamp 200974").hexdigest(),
                ),
            ],
        ),
        group(3.0, 2, [case("two-bits", "the fewest value bits: -3, 0 and 3", [3 * x for x in spread])]),
        group(1e-30, 8, [case("tiny-range", "a very small clip range", [1e-30 * x for x in spread])]),
        group(1e30, 8, [case("huge-range", "a very large clip range", [1e30 * x for x in spread])]),
    ]
    groups += [
        refused_group(1.0, 1, "one-bit", "fewer than two value bits"),
        refused_group(1.0, 32, "thirty-two-bits", "more than 31 value bits"),
        refused_group(0.0, 16, "range-zero", "a clip range of 0"),
        refused_group(-1.0, 16, "range-negative", "a negative clip range"),
        refused_group(float("nan"), 16, "range-not-a-number", "a clip range of NaN"),
        refused_group(float("inf"), 16, "range-infinite", "an infinite clip range"),
        refused_group(5e-324, 16, "range-denormal", "a clip range so small that h / c is infinite"),
    ]
    sums = {"operation": "dequantize", "params": {"clip_range": (0.7).hex(), "value_bits": 12}, "tests": []}
    for name, comment, total, count in (
        ("sum-of-zeros", "three clients, every value zero", [3 * 2047] * 2, 3),
        ("sum-extremes", "three clients, all at the lower and all at the upper edge", [0, 3 * 4094], 3),
        ("sum-mixed", "some sums", [1, 2047, 6000, 12281], 3),
    ):
        values = [x.hex() for x in dequantize(total, 0.7, 12, count)]
        sums["tests"].append(
            {"id": name, "comment": comment, "input": {"total": total, "count": count}, "expected": {"values": values}}
        )
    return {
        "spec": "protocols/encoding/SPEC.md §3",
        "description": (
            "quantize: input.values (hexadecimal floats, exact in input.dtype) with params, input.seed, "
            "input.scale and input.clip give expected.integers and expected.clipped; or they are refused. With "
            "input.repeat, the values are repeated up to that many, and expected.sha256 is of the integers, eight "
            "big-endian bytes each. grid: the clip range and value bits in input are refused. dequantize: the "
            "sums input.total of input.count clients are expected.values, exactly."
        ),
        "groups": [*groups, sums],
    }


def case(name: str, comment: str, values: list[float], **options: Any) -> dict[str, Any]:
    given = {"dtype": "float64", "scale": 1.0, "clip": False, **options}
    return {"id": name, "comment": comment, "input": {**given, "values": values}}


def failing(name: str, comment: str, base: str, values: list[float], error: str, **options: Any) -> dict[str, Any]:
    return {**case(name, comment, values, **options), "derived_from": f"quantize.json#{base}", "error": {"type": error}}


def group(clip_range: float, value_bits: int, cases: list[dict[str, Any]]) -> dict[str, Any]:
    tests = []
    for number, test in enumerate(cases):
        given = test["input"]
        default = hashlib.sha256(SEED + f"{value_bits} {number}".encode()).hexdigest()
        seed = bytes.fromhex(given.setdefault("seed", default))
        values = given["values"]
        if "repeat" in given:
            values = (values * given["repeat"])[: given["repeat"]]
        options = values, clip_range, value_bits, seed, given["scale"], given["clip"]
        if "error" in test:
            assert error_of(quantize, *options) == test["error"]["type"], test["id"]
            outcome = {"error": test["error"]}
        else:
            integers, clipped = quantize(*options)
            found: dict[str, Any] = {"integers": integers}
            if "repeat" in given:
                found = {"sha256": hashlib.sha256(b"".join(i.to_bytes(8, "big") for i in integers)).hexdigest()}
            outcome = {"expected": {**found, "clipped": clipped}}
        head = {key: test[key] for key in ("id", "comment", "derived_from") if key in test}
        hexed = {"values": [x.hex() for x in given["values"]], "scale": given["scale"].hex()}
        tests.append({**head, "input": {**given, **hexed}, **outcome})
    params = {"clip_range": clip_range.hex(), "value_bits": value_bits}
    return {"operation": "quantize", "params": params, "tests": tests}


def refused_group(clip_range: float, value_bits: int, name: str, comment: str) -> dict[str, Any]:
    given = {"clip_range": clip_range.hex(), "value_bits": value_bits}
    test = refused(name, comment, "quantize.json#spread", given, "ConfigurationError")
    return {"operation": "grid", "params": {}, "tests": [test]}


# ---- lanes


def lanes() -> dict[str, Any]:
    groups = []
    for name, comment, clients, max_value, values in (
        ("three-lanes", "20 bits: three lanes and four bits unused", 16, 65534, [65534, 0, 1, 2, 3, 4, 5]),
        ("two-full-lanes", "exactly 32 bits: two lanes, no bit unused", 65537, 65535, [65535, 0, 7]),
        ("one-full-lane", "exactly 64 bits: one lane", 3, (2**64 - 1) // 3, [(2**64 - 1) // 3, 0, 1]),
        ("33-bits", "one bit too many for two lanes", 3, 2**31, [2**31, 1]),
        ("one-bit", "one client, one bit: 64 lanes", 1, 1, [1, 0, 1, 1, 0]),
        (
            "eight-lanes-nine-values",
            "more lanes than words: some lanes stay empty",
            17,
            15,
            [15, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        ("single-value", "one integer", 2, 7, [5]),
        ("word-filled", "dimension = lanes × words", 4, 15, list(range(10)) * 2),
    ):
        bits, per_word, words = lane_sizes(len(values), max_value, clients)
        packed = pack(values, max_value, clients)
        largest = pack([max_value] * len(values), max_value, clients)
        total = [(word + (clients - 1) * most) % 2**64 for word, most in zip(packed, largest, strict=True)]
        sums = unpack(total, len(values), max_value, clients)
        assert sums == [value + (clients - 1) * max_value for value in values]
        expected = {
            "bits": bits,
            "per_word": per_word,
            "words": words,
            "packed": strings(packed),
            "total": strings(total),
            "sums": strings(sums),
        }
        test = {"id": name, "comment": comment, "input": {"values": strings(values)}, "expected": expected}
        groups.append(lane_group("pack", len(values), max_value, clients, [test]))
    beyond = refused(
        "beyond-max",
        "an integer above the largest value",
        "lanes.json#single-value",
        {"values": ["8"]},
        "InvalidInputError",
    )
    groups.append(lane_group("pack", 1, 7, 2, [beyond]))
    groups += [
        strays("three-lanes", 7, 65534, 16, 0, 60, "bit-above-lanes", "a bit above the last lane"),
        strays(
            "three-lanes",
            7,
            65534,
            16,
            2,
            40,
            "bit-in-unused-lane",
            "the last word has two values: its third lane is 0",
        ),
        strays("eight-lanes-nine-values", 9, 15, 17, 1, 43, "bit-in-empty-lane", "a lane that no value uses"),
        lane_group(
            "unpack",
            9,
            15,
            17,
            [
                refused(
                    "word-missing",
                    "one word of two",
                    "lanes.json#eight-lanes-nine-values",
                    {"packed": ["0"]},
                    "DecodeError",
                ),
                refused(
                    "word-left-over",
                    "three words instead of two",
                    "lanes.json#eight-lanes-nine-values",
                    {"packed": ["0"] * 3},
                    "DecodeError",
                ),
            ],
        ),
    ]
    sizes = [
        refused(
            "sum-does-not-fit",
            "the sum needs 65 bits",
            "lanes.json#one-full-lane",
            lane_params(3, (2**64 - 1) // 3 + 1, 3),
            "ConfigurationError",
        ),
        refused("no-values", "dimension 0", "lanes.json#single-value", lane_params(0, 7, 2), "ConfigurationError"),
        refused("no-range", "largest value 0", "lanes.json#single-value", lane_params(1, 0, 2), "ConfigurationError"),
        refused("no-clients", "0 clients", "lanes.json#single-value", lane_params(1, 7, 0), "ConfigurationError"),
        refused(
            "too-many-words",
            "2^33 + 1 words",
            "lanes.json#one-full-lane",
            lane_params(2**33 + 1, 2**62, 2),
            "ConfigurationError",
        ),
    ]
    groups.append({"operation": "sizes", "params": {}, "tests": sizes})
    for group in groups:
        for test in group["tests"]:
            if "error" in test:
                assert reference_error(group, test) == test["error"]["type"], test["id"]
    return {
        "spec": "protocols/encoding/SPEC.md §4",
        "description": (
            "pack: input.values give expected.packed, in lanes of expected.bits bits, expected.per_word to a "
            "word. expected.total is the sum, modulo 2^64, of these words and of those of params.clients - 1 "
            "vectors whose every value is params.max_value; unpacking it gives expected.sums. Integers are "
            "decimal strings. pack, unpack, sizes: the integers, the words or the sizes are refused."
        ),
        "groups": groups,
    }


def strings(values: list[int]) -> list[str]:
    return [str(value) for value in values]


def lane_params(dimension: int, max_value: int, clients: int) -> dict[str, Any]:
    return {"dimension": dimension, "max_value": str(max_value), "clients": clients}


def lane_group(
    operation: str, dimension: int, max_value: int, clients: int, tests: list[dict[str, Any]]
) -> dict[str, Any]:
    return {"operation": operation, "params": lane_params(dimension, max_value, clients), "tests": tests}


def strays(
    base: str, dimension: int, max_value: int, clients: int, word: int, bit: int, name: str, comment: str
) -> dict[str, Any]:
    packed = pack([0] * dimension, max_value, clients)
    packed[word] |= 1 << bit
    test = refused(name, comment, f"lanes.json#{base}", {"packed": strings(packed)}, "DecodeError")
    return lane_group("unpack", dimension, max_value, clients, [test])


def reference_error(group: dict[str, Any], test: dict[str, Any]) -> str | None:
    params = {**group["params"], **test["input"]}
    sizes = params["dimension"], int(params["max_value"]), params["clients"]
    if group["operation"] == "sizes":
        return error_of(lane_sizes, *sizes)
    if group["operation"] == "pack":
        return error_of(pack, [int(value) for value in params["values"]], *sizes[1:])
    return error_of(unpack, [int(word) for word in params["packed"]], *sizes)


# ---- weights


def weights() -> dict[str, Any]:
    tensors = [("weight", [2, 2], "float64"), ("bias", [1], "float64")]
    grid = {"clip_range": (0.5).hex(), "value_bits": 16}
    params = {"tensors": tensors, **grid, "max_weight": 120}
    inputs = [(120, [0.5, -0.5, 0.1, 0.0, 1e-9]), (9, [0.25, 0.25, -0.125, 0.3, -0.5]), (1, [9.0, -9.0, 0.0, 0.2, 0.4])]
    tests: list[dict[str, Any]] = []
    total = [0] * 6
    for number, (weight, values) in enumerate(inputs):
        seed = hashlib.sha256(SEED + f"weights {number}".encode()).digest()
        integers = contribution(values, weight, 120, 0.5, 16, seed)
        total = [a + b for a, b in zip(total, integers, strict=True)]
        given = {"values": [x.hex() for x in values], "weight": weight, "seed": seed.hex()}
        comment = ("the largest weight", "another weight", "the smallest weight, values beyond the clip range")[number]
        tests.append({"id": f"client-{number}", "comment": comment, "input": given, "expected": {"integers": integers}})
    for name, weight in (("weight-zero", 0), ("weight-beyond", 121), ("weight-negative", -1)):
        given = {**tests[0]["input"], "weight": weight}
        error = error_of(contribution, inputs[0][1], weight, 120, 0.5, 16, SEED)
        assert error == "InvalidInputError"
        tests.append(refused(name, "a weight outside 1 to max_weight", "weights.json#client-0", given, error))
    mean = [value.hex() for value in weighted_mean(total, 3, 120, 0.5, 16)]
    means = [
        {
            "id": "mean-of-three",
            "comment": "the sum of the three clients' integers",
            "input": {"total": total, "count": 3},
            "expected": {"values": mean},
        }
    ]
    hashes = []
    schema = schema_hash(tensors)
    for name, clip_range, value_bits, max_weight, clip_norm in (
        ("no-clip-norm", 0.5, 16, 120, None),
        ("clip-norm", 0.5, 16, 120, 1.5),
        ("other-clip-range", 0.25, 16, 120, None),
        ("other-value-bits", 0.5, 15, 120, None),
        ("other-max-weight", 0.5, 16, 121, None),
    ):
        given = {"clip_range": clip_range.hex(), "value_bits": value_bits, "max_weight": max_weight}
        given |= {"tensors": tensors, "clip_norm": None if clip_norm is None else clip_norm.hex()}
        found = encoding_hash(schema, clip_range, value_bits, max_weight, clip_norm)
        comment = f"what clients must agree on: {name.replace('-', ' ')}"
        hashes.append({"id": name, "comment": comment, "input": given, "expected": {"encoding": found.hex()}})
    return {
        "spec": "protocols/encoding/SPEC.md §5",
        "description": (
            "contribution: input.values (hexadecimal floats, flat) with input.weight and input.seed give "
            "expected.integers, or are refused. mean: the sum input.total over input.count clients gives the weighted "
            "mean expected.values, exactly. encoding: the hash of input is expected.encoding."
        ),
        "groups": [
            {"operation": "contribution", "params": params, "tests": tests},
            {"operation": "mean", "params": params, "tests": means},
            {"operation": "encoding", "params": {}, "tests": hashes},
        ],
    }


def error_of(function: Callable[..., object], *arguments: Any) -> str | None:
    """The name of the error that the reference raises, if any."""
    try:
        function(*arguments)
    except EncodingError as error:
        return error.args[0]
    return None
