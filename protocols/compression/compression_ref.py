"""Reference for protocols/compression/SPEC.md. Clarity before speed; shares no code with securefl/.

Floats: Python's are IEEE 754 doubles; ``f32`` rounds to single precision, so every operation marked so is one
single-precision operation.
"""

from __future__ import annotations

import math
import struct

from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF


class CompressionError(Exception):
    """``args[0]`` is the name of the error in the SPEC."""


def need(condition: bool, error: str) -> None:
    if not condition:
        raise CompressionError(error)


def f32(x: float) -> float:
    return struct.unpack("<f", struct.pack("<f", x))[0]


# ---- SPEC §2 context -----------------------------------------------------------------------------------------------


def extra_fields(segments: list[list[int]], encoding: bytes) -> list[bytes]:
    """``segments``: [size, max_value, window] each."""
    if not segments and not encoding:
        return []
    return [b"".join(number.to_bytes(8, "big") for segment in segments for number in segment), encoding]


# ---- SPEC §3 radix lanes -------------------------------------------------------------------------------------------


def digits_per_word(window: int) -> int:
    digits = 0
    while window ** (digits + 1) <= 2**64:
        digits += 1
    return digits


def widest_window(window: int) -> int:
    low, high, digits = window, 2**64, digits_per_word(window)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**digits <= 2**64 else (low, middle - 1)
    return low


def radix_pack(values: list[int], max_value: int, window: int) -> list[int]:
    need(max_value < window <= 2**32, "ConfigurationError")
    need(all(0 <= v <= max_value for v in values), "InvalidInputError")
    words = -(-len(values) // digits_per_word(window))
    packed = [0] * words
    for i, value in enumerate(values):
        packed[i % words] += value * window ** (i // words)
    return [word % 2**64 for word in packed]


def radix_unpack(packed: list[int], dimension: int, max_value: int, window: int, count: int) -> list[int]:
    """The sums; those outside the window come back wrong, as the SPEC says."""
    words, base = len(packed), (count * max_value + 1 - window) // 2
    values = [0] * dimension
    for w in range(words):
        places = range(w, dimension, words)
        rest = (packed[w] - sum(base * window**k for k in range(len(places)))) % 2**64
        for place in places:
            rest, digit = divmod(rest, window)
            values[place] = digit + base
    return values


# ---- SPEC §4 public randomness -------------------------------------------------------------------------------------


def derive(secret: bytes, label: str, *fields: bytes, length: int = 16) -> bytes:
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (label.encode(), *fields))
    return HKDF(secret, length, b"\0" * 32, SHA256, context=info)


def stream(key: bytes, length: int) -> bytes:
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(length))


def public_key(seed: bytes, round: int, purpose: str) -> bytes:
    return derive(seed, "securefl/v1/encoding/public-stream", purpose.encode(), round.to_bytes(8, "big"))


def bit(data: bytes, at: int) -> int:
    return data[at // 8] >> at % 8 & 1


# ---- SPEC §5 rotation ----------------------------------------------------------------------------------------------


def block_length(size: int) -> int:
    return next(b for b in (1024 >> p for p in range(11)) if -size % b <= max(3, size // 32))


def work_order(size: int) -> list[tuple[int, int]]:
    """(entry, block) in the order in which streams are read."""
    length = block_length(size)
    count, width = -(-size // length), max(64, 65536 // length)
    order = []
    for start in range(0, count, width):
        columns = range(start, min(start + width, count))
        order += [(entry, column) for entry in range(length) for column in columns]
    return order


def hadamard(column: list[float]) -> list[float]:
    n = len(column)
    return [sum((-1) ** bin(i & j).count("1") * column[j] for j in range(n)) for i in range(n)]


def signs(size: int, key: bytes) -> dict[tuple[int, int], int]:
    order = work_order(size)
    data = stream(key, -(-len(order) // 8))
    return {place: 1 - 2 * bit(data, at) for at, place in enumerate(order)}


def rotate(x: list[float], key: bytes) -> list[float]:
    """y, B N values, entry by entry; exact for small integers."""
    length, sign = block_length(len(x)), signs(len(x), key)
    count = -(-len(x) // length)
    padded = list(x) + [0] * (length * count - len(x))
    columns = [hadamard([padded[e * count + b] * sign[e, b] for e in range(length)]) for b in range(count)]
    return [columns[b][e] for e in range(length) for b in range(count)]


def rotate_back(y: list[float], size: int, key: bytes) -> list[float]:
    """B times the inverse."""
    length, sign = block_length(size), signs(size, key)
    count = -(-size // length)
    columns = [hadamard([y[e * count + b] for e in range(length)]) for b in range(count)]
    return [columns[i % count][i // count] * sign[i // count, i % count] for i in range(size)]


# ---- SPEC §6 coders ------------------------------------------------------------------------------------------------


def support(dimension: int, kept: int, key: bytes) -> tuple[list[int], list[int]]:
    need(1 <= kept <= dimension, "ConfigurationError")
    data = stream(key, 4 * kept)
    positions, sizes = [], []
    for j in range(kept):
        low, high = j * dimension // kept, (j + 1) * dimension // kept
        draw = int.from_bytes(data[4 * j : 4 * j + 4], "little")
        positions.append(low + (draw * (high - low) >> 32))
        sizes.append(high - low)
    return positions, sizes


def project(x: list[float], kept: int, seed: bytes, round: int) -> list[float]:
    """Random projection."""
    length = block_length(len(x))
    y = rotate(x, public_key(seed, round, "projection rotation"))
    positions, _ = support(len(y), kept, public_key(seed, round, "projection support"))
    return [f32(f32(y[p]) * f32(1 / math.sqrt(length))) for p in positions]


def powersgd_start(columns: list[int], rank: int, seed: bytes, round: int) -> list[list[list[float]]]:
    data = stream(public_key(seed, round, "powersgd"), 4 * rank * sum(columns))
    draws = [f32(n * 2.0**-31 - 1.0) for (n,) in struct.iter_unpack("<I", data)]
    result, at = [], 0
    for n in columns:
        result.append([draws[at + r * rank : at + (r + 1) * rank] for r in range(n)])
        at += n * rank
    return result


def orthonormal(matrix: list[list[float]]) -> list[list[float]]:
    columns = [list(column) for column in zip(*matrix, strict=True)]
    floor = 1e-6 * math.sqrt(max(sum(v * v for v in c) for c in columns))
    done: list[list[float]] = []
    for column in columns:
        for _ in range(2):
            dots = [sum(a * b for a, b in zip(column, other, strict=True)) for other in done]
            column = [v - sum(d * o[i] for d, o in zip(dots, done, strict=True)) for i, v in enumerate(column)]
        norm = math.sqrt(sum(v * v for v in column))
        done.append([v / norm for v in column] if norm > floor else [0.0] * len(column))
    return [list(row) for row in zip(*done, strict=True)]


# ---- SPEC §5.2 the grid of few levels ------------------------------------------------------------------------------


def rotated_encode(x: list[float], levels: int, clip: float, key: bytes, seed: bytes) -> list[int]:
    """Integers entry by entry. ``clip``: c. ``seed``: the client's 32 secret bytes."""
    need(2 <= levels <= 255, "ConfigurationError")
    length, largest = block_length(len(x)), levels - 1
    count = -(-len(x) // length)
    y, order = rotate(x, key), work_order(len(x))
    factor, half = f32(1 / (math.sqrt(length) * (2 * clip / largest))), largest / 2
    rounding = stream(derive(seed, "securefl/v1/encoding/rounding", b"rotated"), 2 * len(order))
    result = [0] * len(y)
    for at, (entry, block) in enumerate(order):
        u = f32((int.from_bytes(rounding[2 * at : 2 * at + 2], "little") + 0.5) * 2.0**-16 + half)
        value = min(max(f32(f32(y[entry * count + block]) * factor), -half), half)
        result[entry * count + block] = int(min(f32(value + u), largest))
    return result


def rotated_decode(total: list[int], size: int, levels: int, clip: float, key: bytes, count: int) -> list[float]:
    length, largest = block_length(size), levels - 1
    x = rotate_back([2 * value - count * largest for value in total], size, key)
    step = f32(2 * clip / largest / (2 * math.sqrt(length)))
    return [f32(f32(value) * step) for value in x]


# ---- SPEC §7 tail --------------------------------------------------------------------------------------------------


def checksum(values: list[int]) -> int:
    return sum((1 + j % 255) * value for j, value in enumerate(values))


def digits(number: int, largest: int) -> list[int]:
    return [number >> 16 * k & 0xFFFF for k in range(-(-largest.bit_length() // 16))]


def tail(weight: int, max_weight: int, energy: float, values: list[int], max_value: int, check: bool) -> list[int]:
    need(1 <= weight <= max_weight, "InvalidInputError")
    result = digits(weight, max_weight)
    result += digits(min(math.floor(energy * 2.0**32 + 0.5), 2**48 - 1), 2**48 - 1)
    return result + (digits(checksum(values), 255 * len(values) * max_value) if check else [])


# ---- SPEC §9 weights -----------------------------------------------------------------------------------------------


def encode_weights(values: list[float], bits: int) -> bytes:
    """One tensor with two or more axes."""
    half = 2 ** (bits - 1) - 1
    scales, codes = [], []
    for start in range(0, len(values), 64):
        block = values[start : start + 64]
        scale = f32(f32(max(abs(v) for v in block)) / half)
        scales.append(scale)
        codes += [half + (min(max(round(f32(v / scale)), -half), half) if scale else 0) for v in block]
    if bits == 4:
        codes += [0] * (len(codes) % 2)
        codes = [codes[i] | codes[i + 1] << 4 for i in range(0, len(codes), 2)]
    return struct.pack(f"<{len(scales)}f", *scales) + bytes(codes)
