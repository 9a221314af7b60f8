"""Reference for protocols/ckks-sum/SPEC.md: textbook ring-LWE sums in whole numbers of Python.

Clarity before speed; shares no code with securefl/. Products go through one large integer (Kronecker substitution).
Every random byte is an argument, so that a vector can give it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from primitives_ref import derive, stream, tuple_hash
from wire_ref import seal_frame

PROTOCOL, KEY_HOLDER, SERVER = 3, 2**32 - 1, 0
PUBLIC_KEY, KEY_NOTICE, ENCRYPTED_INPUT, ENCRYPTED_SUM, RESULT, RECEIPT, ABORT = range(1, 8)
#: SPEC §2: name → code, degree, primes, special primes, most clients, ciphertexts per key, bits of flooding or None.
SETS = {
    "n4096-q60": (1, 4096, (1152921504606830593,), (), 2**16, 2**20, None),
    "n8192-q112": (
        2,
        8192,
        (1152921504606748673, 4503599627124737),
        (1152921504606830593,),
        2**10,
        2**17,
        40,
    ),
}
MODELS = {"key_holder": 1, "shared_key": 2}
RELEASES = {"aggregator": 1, "key_holder": 2}


class CKKSError(Exception):
    """The name of the error in the SPEC, and who is blamed."""


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


# ---- SPEC §3 the ring ------------------------------------------------------------------------------------------------


def times(a: list[int], b: list[int], q: int) -> list[int]:
    """a·b mod (X^N + 1, q). b may have small negative coefficients."""
    degree, width = len(a), 24  # bytes per coefficient of a product

    def packed(poly: list[int]) -> int:
        return int.from_bytes(b"".join(x.to_bytes(width, "little") for x in poly), "little")

    whole = packed(a) * packed([x % q for x in b])
    parts = whole.to_bytes(2 * width * degree, "little")
    c = [int.from_bytes(parts[width * k : width * (k + 1)], "little") for k in range(2 * degree)]
    return [(c[k] - c[k + degree]) % q for k in range(degree)]


def uniform(key: bytes, degree: int, q: int) -> list[int]:
    """SPEC §3.2."""
    found: list[int] = []
    words = degree + 64
    while len(found) < degree:
        cut = (word & ((1 << q.bit_length()) - 1) for word in stream(key, words))
        found, words = [word for word in cut if word < q], 2 * words
    return found[:degree]


def noise(key: bytes, degree: int) -> list[int]:
    """SPEC §3.3."""
    mask = 2**21 - 1
    return [(word & mask).bit_count() - (word >> 21 & mask).bit_count() for word in stream(key, degree)]


def centered(x: int, q: int) -> int:
    x %= q
    return x - q if x > q // 2 else x


# ---- SPEC §4 the lattice ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    """SPEC §2.2."""

    clients: tuple[int, ...]
    dimension: int
    max_value: int
    threshold: int
    set: str = "n4096-q60"
    model: str = "shared_key"
    flooded: bool = False
    release: str = "aggregator"
    session: bytes = b"vectors"
    round: int = 3
    model_hash: bytes = bytes(range(32))
    encoding: bytes = b""
    segments: tuple[tuple[int, int, int], ...] = ()
    shells: tuple[tuple[int, ...], tuple[int, ...], int] | None = None  # sizes, tiers, least number of holders

    @property
    def parts(self) -> tuple[tuple[int, int, int], ...]:
        if self.shells:
            return tuple((size, self.max_value, 0) for size in self.shells[0])
        return self.segments or ((self.dimension, self.max_value, 0),)

    def held(self, client: int) -> int:
        """How many parts a client has; all without shells."""
        return self.shells[1][self.clients.index(client)] if self.shells else len(self.parts)

    @property
    def context(self) -> bytes:
        """SPEC §6.1."""
        extra = [b"".join(x.to_bytes(8, "big") for part in self.segments for x in part), self.encoding]
        if self.shells:
            sizes, tiers, least = self.shells
            lengths = b"".join(size.to_bytes(8, "big") for size in sizes)
            extra.append(u32(least) + bytes([len(sizes)]) + lengths + bytes(tiers))
        return tuple_hash(
            "securefl/v1/context",
            b"ckks",
            self.session,
            u32(self.round),
            bytes([SETS[self.set][0], MODELS[self.model], self.flooded, RELEASES[self.release]]),
            u32(self.threshold),
            self.dimension.to_bytes(8, "big"),
            self.max_value.to_bytes(8, "big"),
            b"".join(map(u32, self.clients)),
            self.model_hash,
            *(extra if self.segments or self.encoding or self.shells else ()),
        )


def noise_bound(p: Params) -> int:
    """SPEC §5.1 and §5.2: the largest distance from the lattice when a sum is read."""
    _, degree, primes, special, _, cap, bits = SETS[p.set]
    n = len(p.clients)
    if p.model == "shared_key":
        bound = 21 * n
    elif special:
        bound = n * ((degree + 1) // 2 + 2)
    else:
        bound = math.ceil(math.sqrt(2 * n * (21 * degree + 10.5 * (degree + 1)) * math.log(2) * 129))
    if p.flooded:
        if bits is None:
            raise CKKSError("ConfigurationError")
        deviation = math.sqrt(12 * cap * degree) * 2 ** (bits / 2) * bound
        bound += math.ceil(deviation * math.sqrt(2 * 53 * math.log(2))) + 1
    for prime in primes[1:]:
        bound = bound // prime + 2
    return bound


def span(max_value: int, base: int, digits: int) -> int:
    return sum(max_value * base**j for j in range(digits))


def lattice(p: Params) -> dict[str, Any]:
    """SPEC §4: digits per coefficient of each segment, and Δ."""
    q, n, bound = SETS[p.set][2][0], len(p.clients), noise_bound(p)

    def fits(max_value: int, base: int, digits: int, delta: int) -> bool:
        return n * (span(max_value, base, digits) // 2 + 1) * delta + bound < q // 2

    least = 1
    while least <= 2 * bound:
        least *= 2
    runs = []
    for size, max_value, window in p.parts:
        base = window or n * max_value + 1
        digits = 0
        while digits < size and fits(max_value, base, digits + 1, least):
            digits += 1
        if not digits:
            raise CKKSError("ConfigurationError")
        runs.append((size, max_value, window, base, digits))
    delta = least
    while all(fits(max_value, base, digits, 2 * delta) for _, max_value, _, base, digits in runs):
        delta *= 2
    places, at, degree = [], 0, SETS[p.set][1]
    for size, _, _, _, digits in runs:
        if p.shells:  # shells SPEC §9: every shell begins a ciphertext
            at = -(-at // degree) * degree
        places.append((at, at + -(-size // digits)))
        at = places[-1][1]
    return {"bound": bound, "delta": delta, "runs": runs, "places": places, "coefficients": at}


def encode(p: Params, values: list[int]) -> list[int]:
    """SPEC §4.2: the centred coefficients, of as many parts as there are values for."""
    out: list[int] = []
    at, found = 0, lattice(p)
    for (size, max_value, _, base, digits), (first, _) in zip(found["runs"], found["places"], strict=True):
        if at == len(values):
            break
        out += [0] * (first - len(out))
        count = -(-size // digits)
        padded = values[at : at + size] + [max_value // 2] * (count * digits - size)
        middle = span(max_value, base, digits) // 2
        out += [sum(padded[j * count + k] * base**j for j in range(digits)) - middle for k in range(count)]
        at += size
    return out


def decode(p: Params, points: list[int], survivors: list[int]) -> list[int]:
    """SPEC §4.3: the sums that lattice points stand for; 0 in parts that are not opened."""
    out: list[int] = []
    found = lattice(p)
    for part, ((size, max_value, window, base, digits), (at, end)) in enumerate(
        zip(found["runs"], found["places"], strict=True)
    ):
        if part not in opened(p, survivors):
            out += [0] * size
            continue
        columns: list[list[int]] = [[] for _ in range(digits)]
        count = sum(p.held(who) > part for who in survivors)
        first = 0 if base > len(p.clients) * max_value or not window else (count * max_value + 1 - base) // 2
        for point in points[at:end]:
            rest = point + count * (span(max_value, base, digits) // 2)
            if not 0 <= rest <= count * span(max_value, base, digits):
                raise CKKSError("DecodeError")
            rest -= first * sum(base**j for j in range(digits))
            for column in columns:
                column.append(rest % base + first)
                rest //= base
        out += [value for column in columns for value in column][:size]
    return out


def opened(p: Params, survivors: list[int]) -> list[int]:
    """Shells SPEC §4: the parts that are opened, from 0; all without shells."""
    if not p.shells:
        return list(range(len(p.parts)))
    found: list[int] = []
    last: set[int] = set()
    for part in range(len(p.parts)):
        holding, least = {who for who in survivors if p.held(who) > part}, p.shells[2]
        gone = last - holding if found else set()
        if len(holding) >= least and (not gone or len(gone) >= least):
            found.append(part)
            last = holding
    return found


# ---- SPEC §5 ciphertexts ---------------------------------------------------------------------------------------------


def ciphertexts(p: Params) -> int:
    return -(-lattice(p)["coefficients"] // SETS[p.set][1])


def numbers(p: Params, survivors: list[int]) -> list[int]:
    """The ciphertexts whose sums are opened."""
    if not p.shells:
        return list(range(ciphertexts(p)))
    degree, places = SETS[p.set][1], lattice(p)["places"]
    return [
        at for part in opened(p, survivors) for at in range(places[part][0] // degree, -(-places[part][1] // degree))
    ]


def used(p: Params, at: int) -> int:
    """SPEC §6.2: coefficients of c0 that travel."""
    degree, found = SETS[p.set][1], lattice(p)
    end = next(end for _, end in found["places"] if end > at * degree) if p.shells else found["coefficients"]
    left = end - at * degree
    return int(min(degree, left + left % 2))


def key_pair(set_name: str, secret_key: bytes, uniform_key: bytes, noise_key: bytes) -> tuple[list[int], bytes]:
    """A key from three stream keys, for vectors: s_j = word_j mod 3 − 1, and the wire form of (b, a); one prime."""
    _, degree, (q,), _, _, _, _ = SETS[set_name]
    s = [word % 3 - 1 for word in stream(secret_key, degree)]
    a, e = uniform(uniform_key, degree, q), noise(noise_key, degree)
    b = [(y - x) % q for x, y in zip(times(a, s, q), e, strict=True)]
    return s, pack(b, q) + pack(a, q)


def key_id(p: Params, public: bytes) -> bytes:
    """SPEC §6.4."""
    return tuple_hash("securefl/v1/ckks/key", bytes([SETS[p.set][0], MODELS[p.model]]), public)


def half(p: Params, sender: int, seed: bytes, at: int, number: int) -> list[int]:
    """c1 under the shared key, prime ``number``. SPEC §5.4."""
    place = u32(sender) + u32(at) + bytes([number])
    key = derive(seed, "securefl/v1/ckks/uniform", p.context, place, length=16)
    return uniform(key, SETS[p.set][1], SETS[p.set][2][number])


def encrypt_shared(
    p: Params, sender: int, s: list[int], values: list[int], seed: bytes, secret: bytes
) -> list[list[list[int]]]:
    """``[ciphertext][prime]`` → c0 = −c1·s + e + Δ'·m. SPEC §5.4."""
    _, degree, primes, _, _, _, _ = SETS[p.set]
    points = encode(p, values)
    factor = lattice(p)["delta"] * math.prod(primes[1:])
    out = []
    for at in range(-(-len(points) // degree)):
        m = points[at * degree : (at + 1) * degree]
        m += [0] * (degree - len(m))
        e = noise(derive(secret, "securefl/v1/ckks/noise", p.context, u32(at), length=16), degree)
        rows = []
        for number, q in enumerate(primes):
            product = times(half(p, sender, seed, at, number), s, q)
            rows.append([(y + factor * z - x) % q for x, y, z in zip(product, e, m, strict=True)])
        out.append(rows)
    return out


def open_sum(p: Params, s: list[int], total: dict[int, Any], survivors: list[int]) -> list[int]:
    """SPEC §5.5: ``total[ciphertext][0 or 1][prime]`` → the sums; of c0 those in use."""
    primes, degree = SETS[p.set][2], SETS[p.set][1]
    found = lattice(p)
    points = [0] * (ciphertexts(p) * degree)
    for at in numbers(p, survivors):
        rows = []
        for number, q in enumerate(primes):
            c0, product = total[at][0][number], times(total[at][1][number], s, q)
            rows.append([centered(x + y, q) for x, y in zip(c0, product, strict=False)])
        while len(rows) > 1:  # divide the last prime out, rounding to the nearest
            last, divisor = rows.pop(), primes[len(rows)]
            for number, row in enumerate(rows):
                q = primes[number]
                rows[number] = [centered((x - y) * pow(divisor, -1, q), q) for x, y in zip(row, last, strict=True)]
        for k, v in enumerate(rows[0]):
            point = (v + found["delta"] // 2) // found["delta"]
            if abs(v - point * found["delta"]) > found["bound"]:
                raise CKKSError("DecodeError")
            points[at * degree + k] = point
    within = {k for first, end in found["places"] for k in range(first, end)}
    if any(point and k not in within for k, point in enumerate(points)):
        raise CKKSError("DecodeError")
    return decode(p, points, survivors)


# ---- SPEC §6 bytes ---------------------------------------------------------------------------------------------------


def pack(row: list[int], q: int) -> bytes:
    """SPEC §6.2: planes of 32, 16, 8 and 4 bits, as many as q has."""
    out, shift = b"", 0
    for width in (32, 16, 8):
        if q.bit_length() - shift >= width:
            out += b"".join((x >> shift & (2**width - 1)).to_bytes(width // 8, "little") for x in row)
            shift += width
    if q.bit_length() - shift == 4:
        top = [x >> shift for x in row]
        out += bytes(low | high << 4 for low, high in zip(top[::2], top[1::2], strict=True))
    return out


def unpack(data: bytes, q: int, count: int) -> list[int]:
    row, shift, at = [0] * count, 0, 0
    for width in (32, 16, 8):
        if q.bit_length() - shift >= width:
            size = width // 8
            for k in range(count):
                row[k] |= int.from_bytes(data[at + size * k : at + size * (k + 1)], "little") << shift
            at, shift = at + size * count, shift + width
    if q.bit_length() - shift == 4:
        for k in range(count):
            row[k] |= (data[at + k // 2] >> 4 * (k % 2) & 15) << shift
        at += count // 2
    if at != len(data) or any(x >= q for x in row):
        raise CKKSError("DecodeError")
    return row


class Signer:
    """An Ed25519 key from a 32-byte seed. SPEC §6.3."""

    def __init__(self, seed: bytes) -> None:
        self.key = ECC.construct(curve="Ed25519", seed=seed)
        self.public = self.key.public_key().export_key(format="raw")

    def frame(self, p: Params, kind: int, sender: int, recipient: int, body: bytes) -> bytes:
        route = bytes([kind]) + u32(sender) + u32(recipient)
        digest = tuple_hash("securefl/v1/ckks/signature", p.context, route, hashlib.sha256(body).digest())
        signature = eddsa.new(self.key, "rfc8032").sign(digest)
        return seal_frame(PROTOCOL, kind, p.context, sender, recipient, body + signature)


def input_body(p: Params, identity: bytes, seed: bytes, first: list[list[list[int]]]) -> bytes:
    """ENCRYPTED_INPUT under the shared key. SPEC §6.6."""
    primes = SETS[p.set][2]
    rows = b"".join(
        pack(row[: used(p, at)], q) for at, item in enumerate(first) for row, q in zip(item, primes, strict=True)
    )
    return identity + seed + rows


def sum_body(p: Params, identity: bytes, survivors: list[int], total: dict[int, Any]) -> bytes:
    """ENCRYPTED_SUM. SPEC §6.7."""
    primes = SETS[p.set][2]
    head = identity + u32(len(survivors)) + b"".join(map(u32, survivors))
    for at, (c0, c1) in total.items():
        head += b"".join(pack(row[: used(p, at)], q) for row, q in zip(c0, primes, strict=True))
        head += b"".join(pack(row, q) for row, q in zip(c1, primes, strict=True))
    return head


def add(p: Params, parts: list[tuple[int, bytes, list[Any]]]) -> dict[int, Any]:
    """The sum of ``(sender, seed, c0s)`` under the shared key: ``[ciphertext][0 or 1][prime]``. SPEC §5.3.

    Of the ciphertexts that are opened over the senders.
    """
    primes, total = SETS[p.set][2], {}
    for at in numbers(p, [who for who, _, _ in parts]):
        having = [part for part in parts if at < len(part[2])]
        c0 = [
            [sum(column) % q for column in zip(*(first[at][k] for _, _, first in having), strict=True)]
            for k, q in enumerate(primes)
        ]
        c1 = [
            [sum(column) % q for column in zip(*(half(p, who, seed, at, k) for who, seed, _ in having), strict=True)]
            for k, q in enumerate(primes)
        ]
        total[at] = (c0, c1)
    return total


def result_body(values: list[int]) -> bytes:
    """RESULT. SPEC §6.8."""
    return b"".join(value.to_bytes(8, "little") for value in values)
