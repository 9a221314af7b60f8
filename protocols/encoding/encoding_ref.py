"""Reference for protocols/encoding/SPEC.md: layout, quantization, lanes.

Clarity before speed; shares no code with securefl/.
"""

from __future__ import annotations

import struct

from primitives_ref import derive, stream, tuple_hash


class EncodingError(Exception):
    """``args[0]`` is the name of the error in the SPEC: InvalidInputError, ConfigurationError or DecodeError."""


def need(condition: bool, error: str, why: str) -> None:
    if not condition:
        raise EncodingError(error, why)


# ---- SPEC §2 layout ------------------------------------------------------------------------------------------------


def schema_hash(tensors: list[tuple[str, list[int], str]]) -> bytes:
    """``tensors``: (name, shape, dtype) in the model's order."""
    fields = []
    for name, shape, dtype in tensors:
        fields += [name.encode(), b"".join(axis.to_bytes(8, "big") for axis in shape), dtype.encode()]
    return tuple_hash("securefl/v1/encoding/schema", *fields)


# ---- SPEC §3 quantization: Python's float is IEEE 754 double -------------------------------------------------------


def quantize(
    values: list[float], clip_range: float, value_bits: int, seed: bytes, scale: float = 1.0, clip: bool = False
) -> tuple[list[int], int]:
    """``(integers, how many values were clipped)``."""
    need(len(values) > 0 and all(abs(x) < float("inf") for x in values), "InvalidInputError", "empty or not finite")
    need(0 < scale <= 1, "InvalidInputError", "scale")
    beyond = sum(abs(x) > clip_range for x in values)
    need(clip or not beyond, "InvalidInputError", "beyond the clip range")
    half = 2 ** (value_bits - 1) - 1
    factor = scale * (half / clip_range)
    key = derive(seed, "securefl/v1/encoding/rounding", length=16)
    integers = []
    for i, word in enumerate(stream(key, -(-len(values) // 2))):
        for x, random in zip(values[2 * i : 2 * i + 2], (word & 0xFFFFFFFF, word >> 32), strict=False):
            u = random * 2.0**-32
            clamped = min(max(x, -clip_range), clip_range)
            integers.append(int(min(clamped * factor + (u + half), 2 * half)))
    return integers, beyond


def dequantize(total: list[int], clip_range: float, value_bits: int, count: int) -> list[float]:
    half = 2 ** (value_bits - 1) - 1
    return [(value - count * half) * (clip_range / half) for value in total]


# ---- SPEC §4 lanes -------------------------------------------------------------------------------------------------


def lane_sizes(dimension: int, max_value: int, clients: int) -> tuple[int, int, int]:
    """``(lane width b, lanes per word L, words W)``."""
    need(dimension >= 1 and max_value >= 1 and clients >= 1, "ConfigurationError", "nothing to sum")
    bits = (clients * max_value).bit_length()
    need(bits <= 64, "ConfigurationError", "the sum does not fit a word")
    words = -(-dimension // (64 // bits))
    need(words <= 2**33, "ConfigurationError", "too many words")
    return bits, 64 // bits, words


def pack(values: list[int], max_value: int, clients: int) -> list[int]:
    need(all(0 <= value <= max_value for value in values), "InvalidInputError", "beyond the largest value")
    bits, _, words = lane_sizes(len(values), max_value, clients)
    packed = [0] * words
    for i, value in enumerate(values):
        packed[i % words] += value << bits * (i // words)
    return packed


def unpack(packed: list[int], dimension: int, max_value: int, clients: int) -> list[int]:
    bits, _, words = lane_sizes(dimension, max_value, clients)
    need(len(packed) == words, "DecodeError", "another number of words")
    values = [packed[i % words] >> bits * (i // words) & (1 << bits) - 1 for i in range(dimension)]
    # every bit outside the lanes in use is zero: packing the values again gives the same words
    again = pack(values, (1 << bits) - 1, 1)
    need(again == packed, "DecodeError", "bits are set where no lane is")
    return values


# ---- SPEC §5 weights ------------------------------------------------------------------------------------------------


def encoding_hash(schema: bytes, clip_range: float, value_bits: int, max_weight: int, clip_norm: float | None) -> bytes:
    numbers = (clip_range, float(value_bits), float(max_weight), clip_norm or 0.0)
    return tuple_hash("securefl/v1/encoding/grid", schema, *(struct.pack(">d", number) for number in numbers))


def contribution(
    values: list[float], weight: int, max_weight: int, clip_range: float, value_bits: int, seed: bytes
) -> list[int]:
    """A client's integers: its values times weight / max_weight, clipped and quantized, then its weight."""
    need(1 <= weight <= max_weight, "InvalidInputError", "weight")
    return [*quantize(values, clip_range, value_bits, seed, weight / max_weight, clip=True)[0], weight]


def weighted_mean(total: list[int], count: int, max_weight: int, clip_range: float, value_bits: int) -> list[float]:
    """From the sum over ``count`` clients."""
    *sums, weights = total
    return [value * (max_weight / weights) for value in dequantize(sums, clip_range, value_bits, count)]
