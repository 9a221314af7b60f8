"""Reference for a whole sum of compressed updates: protocols/compression/SPEC.md §5.3, §6 and §7 put together."""

from __future__ import annotations

import math

from compression_ref import (
    checksum,
    derive,
    f32,
    need,
    orthonormal,
    powersgd_start,
    public_key,
    radix_pack,
    radix_unpack,
    rotated_decode,
    rotated_encode,
    support,
    tail,
    widest_window,
)


def window(clients: int, levels: int, clip_multiple: float, mean_square: float, sum_square: float) -> int:
    """SPEC §5.3, width "auto". ``clip_multiple``: k. ``mean_square``: σ². ``sum_square``: s²."""
    sigma, largest = math.sqrt(mean_square), levels - 1
    step = 2 * (clip_multiple * sigma) / largest
    noise = step * step / 4
    if largest % 2 == 0:
        noise = min(noise, step * sigma)
    wide = 2 * math.ceil(6 * (math.sqrt(sum_square + clients * noise) / step)) + 1
    return widest_window(min(clients * largest + 1, max(largest + 1, wide)))


def positions(case: dict, size: int, seed: bytes, round: int) -> tuple[list[int], list[int]]:
    """What a chain of a mask and random_k keeps of the flat update, and the factors of the way back (SPEC §6)."""
    kept, factors = list(range(size)), [1] * size
    if case["mask"] is not None:
        kept = [i for i in kept if case["mask"][i]]
        factors = [1] * len(kept)
    if case["kept"] is not None:
        chosen, factors = support(len(kept), case["kept"], public_key(seed, round, "random_k"))
        kept = [kept[i] for i in chosen]
    return kept, factors


def payload(case: dict, seed: bytes, round: int) -> dict:
    """All clients' integers of one sum, the words of their total, and what it decodes to.

    ``case``: updates, weights, secrets (one per client), max_weight, levels, clip_multiple, mean_square, sum_square,
    kept and mask (or None). The products of updates and weights are exact in single precision.
    """
    size, bound, levels = len(case["updates"][0]), case["max_weight"], case["levels"]
    kept, factors = positions(case, size, seed, round)
    sigma2, clients = case["mean_square"], len(case["updates"])
    wide = window(clients, levels, case["clip_multiple"], sigma2, case["sum_square"])
    clip, key = case["clip_multiple"] * math.sqrt(sigma2), public_key(seed, round, "rotation 0")
    narrow = wide <= clients * (levels - 1)
    rows, tails = [], []
    for update, weight, secret in zip(case["updates"], case["weights"], case["secrets"], strict=True):
        need(isinstance(weight, int) and 1 <= weight <= bound, "InvalidInputError")
        values = [f32(update[i] * f32(weight / bound)) for i in kept]
        energy = sum(v * v for v in values) / (len(values) * sigma2)
        rounding = client_seed(secret, 0)
        rows.append(rotated_encode(values, levels, clip, key, rounding))
        tails.append(tail(weight, bound, energy, rows[-1], levels - 1, narrow))
    packed = [radix_pack(row, levels - 1, wide) for row in rows]
    total = [sum(column) % 2**64 for column in zip(*packed, strict=True)]
    sums = radix_unpack(total, len(rows[0]), levels - 1, wide, clients)
    behind = [sum(column) for column in zip(*tails, strict=True)]
    weight, energy, check = read_tail(behind, bound)
    if narrow:
        need(check == checksum(sums), "HeadroomError")
    values = rotated_decode(sums, len(kept), levels, clip, key, clients)
    mean, flat = [f32(v * f32(bound / weight)) for v in values], [0.0] * size
    for place, value, factor in zip(kept, mean, factors, strict=True):
        flat[place] = f32(value * factor)
    return {
        "window": wide,
        "integers": [row + behind for row, behind in zip(rows, tails, strict=True)],
        "total_words": list(map(str, total)),
        "mean": [(value + 0.0).hex() for value in flat],
        "weight": weight,
        "mean_square": (energy / clients * sigma2).hex(),
    }


def client_seed(secret: bytes, sum_at: int) -> bytes:
    """The client's seed of one sum, 32 bytes."""
    return derive(secret, "securefl/v1/encoding/rounding", b"sum", sum_at.to_bytes(4, "big"), length=32)


def read_tail(sums: list[int], max_weight: int) -> tuple[int, float, int]:
    """Weights, energies q and checks (0 without) from the sums of the tail's digits."""
    first = -(-max_weight.bit_length() // 16)
    weight, energy, check = (
        sum(digit << 16 * k for k, digit in enumerate(part))
        for part in (sums[:first], sums[first : first + 3], sums[first + 3 :])
    )
    return weight, energy * 2.0**-32, check


def powersgd(updates: list[list[list[float]]], rank: int, seed: bytes, round: int) -> dict:
    """Two sums over one matrix per client, without grid: the means that are public, and the estimate (SPEC §6)."""
    n, count = len(updates[0][0]), len(updates)
    (q,) = powersgd_start([n], rank, seed, round)

    def mean(matrices: list[list[list[float]]]) -> list[list[float]]:
        return [[sum(m[i][j] for m in matrices) / count for j in range(rank)] for i in range(len(matrices[0]))]

    def product(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
        return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]

    def turned(a: list[list[float]]) -> list[list[float]]:
        return [list(column) for column in zip(*a, strict=True)]

    first = mean([product(m, q) for m in updates])
    directions = orthonormal(first)
    second = mean([product(turned(m), directions) for m in updates])
    return {"first": first, "second": second, "estimate": product(directions, turned(second))}
