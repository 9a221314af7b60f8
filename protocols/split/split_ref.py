"""Reference for protocols/split/SPEC.md: context, bodies of messages, and the encrypted linear layer.

Plain integers, one coefficient at a time. Every random byte is an argument.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from math import ceil, log, sqrt

from Crypto.Cipher import AES
from Crypto.Hash import TupleHash256

#: name → degree, primes of ciphertexts, largest noise of an encryption of zero (SPEC §5.1, §5.5)
RINGS = {
    "n8192-q112": (8192, (1152921504606748673, 4503599627124737), 4098),
    "n4096-q60": (4096, (1152921504606830593,), None),
}
BITS = {"n8192-q112": (12, 14, 16), "n4096-q60": (9, 10, 11)}


class Refused(Exception):
    """Carries the name of the SPEC's error."""


# ---- §2, §3


def context_hash(
    session: bytes, client: int, mode: str, features: int, outputs: int, largest: int, classes: int
) -> bytes:
    numbers = [value.to_bytes(8, "big") for value in (client, features, outputs, largest, classes)]
    hasher = TupleHash256.new(digest_bytes=32, custom=b"securefl/v1/split/context")
    return hasher.update(session, mode.encode(), *numbers).digest()


def body(step: int, batch: int, payload: bytes, labels: list[int] | None = None, loss: float | None = None) -> bytes:
    out = step.to_bytes(8, "big") + batch.to_bytes(4, "big")
    out += b"".join(label.to_bytes(4, "big") for label in labels or [])
    return out + (struct.pack(">d", loss) if loss is not None else b"") + payload


# ---- §5: the ring


def words(key: bytes, count: int) -> list[int]:
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(8 * count))
    return list(struct.unpack(f"<{count}Q", stream))


def uniform(key: bytes, count: int, q: int) -> list[int]:
    mask = (1 << q.bit_length()) - 1
    kept: list[int] = []
    drawn = 2 * count + 64
    while len(kept) < count:
        kept = [word & mask for word in words(key, drawn) if word & mask < q]
        drawn *= 2
    return kept[:count]


def noise(key: bytes, count: int) -> list[int]:
    low = (1 << 21) - 1
    return [(word & low).bit_count() - (word >> 21 & low).bit_count() for word in words(key, count)]


def shift(polynomial: list[int], exponent: int) -> list[int]:
    """Times X^exponent, −N < exponent < N, in the ring where X^N = −1."""
    n = len(polynomial)
    out = [0] * n
    for at, value in enumerate(polynomial):
        to = at + exponent
        out[to % n] = value if 0 <= to < n else -value
    return out


def times(a: list[int], small: list[int]) -> list[int]:
    """A · small, coefficients of ``small`` −1, 0 or 1 (Kronecker substitution: one product of large integers)."""
    n, bits = len(a), 80

    def packed(values: list[int]) -> int:
        return int.from_bytes(b"".join(value.to_bytes(bits // 8, "little") for value in values), "little")

    whole = packed(a)
    out = [0] * n
    for sign in (1, -1):
        product = whole * packed([int(value == sign) for value in small])
        raw = product.to_bytes(2 * n * bits // 8, "little")
        for at in range(2 * n):
            value = int.from_bytes(raw[at * bits // 8 : (at + 1) * bits // 8], "little")
            out[at % n] += sign * value if at < n else -sign * value
    return out


def packed_bits(values: list[int], bits: int) -> bytes:
    whole = sum(value << bits * at for at, value in enumerate(values))
    return whole.to_bytes(-(-len(values) * bits // 8), "little")


def unpacked_bits(data: bytes, bits: int, count: int) -> list[int]:
    whole, mask = int.from_bytes(data, "little"), (1 << bits) - 1
    return [whole >> bits * at & mask for at in range(count)]


# ---- §5.2, §5.4, §5.5: sizes


class Layer:
    def __init__(self, ring: str, features: int, outputs: int, largest_batch: int) -> None:
        self.degree, self.primes, zero = RINGS[ring]
        self.features, self.outputs = features, outputs
        self.a, self.m, self.g_limit = (2 ** (bits - 1) - 1 for bits in BITS[ring])
        self.stride = 32
        while self.stride < largest_batch:
            self.stride *= 2
        self.blocks = self.degree // self.stride
        self.rest = self.primes[1] if len(self.primes) > 1 else 1
        self.group = self.best(lambda g: (-(-features // g), -(-outputs // (self.blocks // g))))
        self.gradient_group = self.best(lambda g: (-(-outputs // (self.blocks // g)), -(-features // g)))
        self.limit = max(2 * features * self.a * self.m, outputs * self.g_limit * self.m)
        self.scale = 1
        while 2 * self.scale <= (self.primes[0] // 2) // (self.limit + 1):
            self.scale *= 2
        if zero is None:
            zero = tail(self.degree)
        polynomials = max(-(-features // self.group), -(-outputs // (self.blocks // self.gradient_group)))
        product = self.m * 21 * self.blocks * polynomials
        rounding = (self.degree + 1) // 2 + 2 if self.rest > 1 else 0
        self.other_noise = (product + zero) // self.rest + 1 + rounding
        self.flooding = self.scale // 4 - self.other_noise // 2

    def best(self, counts: Callable[[int], tuple[int, int]]) -> int:
        bits = [prime.bit_length() for prime in self.primes]
        up, down = 16 + self.degree * sum(bits) // 8, self.degree * bits[0] // 8

        def cost(g: int) -> tuple[int, int, int]:
            ciphertexts, answers = counts(g)
            return ciphertexts * up + answers * down, answers, g

        return min(range(1, min(self.blocks, self.features) + 1), key=cost)

    def feature_blocks(self, group: int) -> list[list[int]]:
        """Per polynomial, the block of each of its features."""
        return [list(range(min(group, self.features - at))) for at in range(0, self.features, group)]

    def slot_blocks(self, group: int) -> list[list[int]]:
        """Per polynomial, the block of each of its outputs."""
        each = self.blocks // group
        return [[slot * group for slot in range(min(each, self.outputs - at))] for at in range(0, self.outputs, each)]


def tail(degree: int) -> int:
    """The largest noise of a fresh public-key encryption of zero in a ring without a special prime: a 2^-128 tail."""
    proxy = 21 * degree + 21 / 2 * (degree + 1)
    return ceil(sqrt(2 * proxy * log(2) * 129))


# ---- §5.3 to §5.5: ciphertexts and answers


def encrypt(
    layer: Layer, secret: list[int], rows: list[list[int]], blocks: list[list[int]], tokens: Iterator[bytes]
) -> bytes:
    """``rows``: per example the integers; ``blocks``: per polynomial, the block of each value in turn."""
    out, first = b"", 0
    for where in blocks:
        message = [0] * layer.degree
        for at, block in enumerate(where):
            for example, row in enumerate(rows):
                message[block * layer.stride + example] = row[first + at]
        first += len(where)
        out += ciphertext(layer, secret, message, next(tokens), next(tokens))
    return out


def ciphertext(layer: Layer, secret: list[int], message: list[int], seed: bytes, noise_key: bytes) -> bytes:
    errors, out = noise(noise_key, layer.degree), seed
    for at, q in enumerate(layer.primes):
        product = times(uniform(seed[:-1] + bytes([seed[-1] ^ at]), layer.degree, q), secret)
        values = [(e + layer.scale * layer.rest * m - p) % q for e, m, p in zip(errors, message, product, strict=True)]
        out += packed_bits(values, q.bit_length())
    return out


def parse(layer: Layer, data: bytes) -> list[list[tuple[list[int], list[int]]]]:
    """Per ciphertext and prime, (c0, c1)."""
    size = 16 + layer.degree * sum(q.bit_length() for q in layer.primes) // 8
    if len(data) % size:
        raise Refused("DecodeError")
    found = []
    for start in range(0, len(data), size):
        seed, at, pairs = data[start : start + 16], start + 16, []
        for index, q in enumerate(layer.primes):
            length = layer.degree * q.bit_length() // 8
            c0 = unpacked_bits(data[at : at + length], q.bit_length(), layer.degree)
            if max(c0) >= q:
                raise Refused("DecodeError")
            pairs.append((c0, uniform(seed[:-1] + bytes([seed[-1] ^ index]), layer.degree, q)))
            at += length
        found.append(pairs)
    return found


def terms(layer: Layer, weights: list[list[int]], *, forward: bool):
    """Per answer and ciphertext, (exponent in blocks, weight)."""
    group = layer.group if forward else layer.gradient_group
    features, slots = layer.feature_blocks(group), layer.slot_blocks(group)
    answers, inputs = (slots, features) if forward else (features, slots)
    table = [[[] for _ in inputs] for _ in answers]
    output = 0
    for i, slot_row in enumerate(slots):
        for block in slot_row:
            for j, feature_row in enumerate(features):
                for f in feature_row:
                    weight = weights[output][j * group + f]
                    if forward:
                        table[i][j].append((block - f, weight))
                    else:
                        table[j][i].append((f - block, weight))
            output += 1
    return table, answers


def answer(
    layer: Layer, data: bytes, weights: list[list[int]], bias: list[int], batch: int, tokens, zeros, *, forward: bool
) -> bytes:
    """``zeros``: encryptions of zero, each per prime (c0, c1). ``tokens``: keys of the flooding."""
    ciphertexts = parse(layer, data)
    table, blocks = terms(layer, weights, forward=forward)
    whole, sent, first = [], [], 0
    for row, where in zip(table, blocks, strict=True):
        places = [block * layer.stride + example for block in where for example in range(batch)]
        zero, flood = next(zeros), flooding(layer, len(places), tokens)
        parts = []
        for at, q in enumerate(layer.primes):
            total = [[0] * layer.degree, [0] * layer.degree]
            for pairs, products in zip(ciphertexts, row, strict=True):
                for exponent, weight in products:
                    for part in (0, 1):
                        moved = shift(pairs[at][part], exponent * layer.stride)
                        total[part] = [x + weight * y for x, y in zip(total[part], moved, strict=True)]
            c0 = [total[0][place] + zero[at][0][place] + flood[i] for i, place in enumerate(places)]
            if forward:
                c0 = [value + layer.scale * layer.rest * bias[first + i // batch] for i, value in enumerate(c0)]
            parts.append(([x % q for x in c0], [(x + y) % q for x, y in zip(total[1], zero[at][1], strict=True)]))
        whole += divided(layer, [part[1] for part in parts])
        sent += divided(layer, [part[0] for part in parts])
        first += len(where)
    bits = layer.primes[0].bit_length()
    return packed_bits(whole, bits) + packed_bits(sent, bits)


def flooding(layer: Layer, count: int, tokens: Iterator[bytes]) -> list[int]:
    drawn = [int(float(word) * 2.0**-64 * (2 * layer.flooding)) for word in words(next(tokens), count)]
    high = [min(value - layer.flooding, layer.flooding - 1) for value in drawn]
    if layer.rest == 1:
        return high
    low = uniform(next(tokens), count, layer.rest)
    return [x * layer.rest + y for x, y in zip(high, low, strict=True)]


def divided(layer: Layer, residues: list[list[int]]) -> list[int]:
    """round(x / p₁) modulo p₀."""
    if layer.rest == 1:
        return residues[0]
    p0, p1 = layer.primes
    inverse = pow(p1, -1, p0)
    return [(x - (y if y <= p1 // 2 else y - p1)) * inverse % p0 for x, y in zip(*residues, strict=True)]


def decrypt(layer: Layer, secret: list[int], data: bytes, batch: int, *, forward: bool) -> list[list[int]]:
    """Per example, the integers. Raises Refused for an answer off the lattice."""
    blocks = layer.slot_blocks(layer.group) if forward else layer.feature_blocks(layer.gradient_group)
    q, bits = layer.primes[0], layer.primes[0].bit_length()
    count = sum(map(len, blocks)) * batch
    size = layer.degree * bits // 8
    if len(data) != len(blocks) * size + -(-count * bits // 8):
        raise Refused("DecodeError")
    c0 = unpacked_bits(data[len(blocks) * size :], bits, count)
    values: list[int] = []
    for index, where in enumerate(blocks):
        product = times(unpacked_bits(data[index * size : (index + 1) * size], bits, layer.degree), secret)
        for block in where:
            for example in range(batch):
                total = (c0[len(values)] + product[block * layer.stride + example]) % q
                total -= q if total > q // 2 else 0
                point = (total + layer.scale // 2) // layer.scale
                far = abs(total - point * layer.scale) > layer.flooding + 1 + layer.other_noise
                if far or abs(point) > layer.limit:
                    raise Refused("AuthenticationError")
                values.append(point)
    return [values[example::batch] for example in range(batch)]
