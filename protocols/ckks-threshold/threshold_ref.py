"""Reference for protocols/ckks-threshold/SPEC.md. Clarity before speed; shares no code with securefl/.

Polynomials are lists of N Python integers; products go through one long multiplication (Kronecker substitution).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from Crypto.Cipher import AES
from Crypto.Hash import SHA256, TupleHash256
from Crypto.Protocol.KDF import HKDF
from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from wire_ref import seal_frame

N = 8192
Q = 1 << 208
DROPPED = 80
PROTOCOL = 7
P = (1 << 61) - 1
KEY_SHARE, JOINT_KEY, CONFIRM_KEY, KEY_CONFIRMED, INPUT, SUM, CONFIRM_SUM, SUM_CONFIRMED, SHARE, RESTART, ABORT = range(
    1, 12
)


class Refused(Exception):
    """``error`` is the name that SPEC gives it."""

    def __init__(self, error: str, blamed: tuple[int, ...] = ()) -> None:
        super().__init__(error)
        self.error, self.blamed = error, blamed


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def tuple_hash(label: str, *fields: bytes) -> bytes:
    return TupleHash256.new(digest_bytes=32, custom=label.encode()).update(*fields).digest()


# ---- §2 parameters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    clients: tuple[int, ...]
    dimension: int
    max_value: int
    threshold: int
    session: bytes = b"vectors"
    round: int = 3
    model_hash: bytes = bytes(range(32))
    statistical_bits: int = 40
    encoding: bytes = b""
    segments: tuple[tuple[int, int], ...] = ()  # size, max_value

    @property
    def context(self) -> bytes:
        """§2.2."""
        parts = [size.to_bytes(8, "big") + top.to_bytes(8, "big") + bytes(8) for size, top in self.segments]
        more = [b"".join(parts), self.encoding] if self.segments or self.encoding else []
        return tuple_hash(
            "securefl/v1/context",
            b"ckks-threshold",
            self.session,
            u32(self.round),
            u32(self.threshold),
            u32(self.statistical_bits),
            self.dimension.to_bytes(8, "big"),
            self.max_value.to_bytes(8, "big"),
            b"".join(map(u32, self.clients)),
            self.model_hash,
            *more,
        )

    def attempt(self, number: int, clients: list[int]) -> bytes:
        return tuple_hash("securefl/v1/ckks/threshold/attempt", self.context, u32(number), b"".join(map(u32, clients)))


@dataclass(frozen=True)
class Layout:
    """§2.3: per segment (size, max_value, base, digits, coefficients); δ, f, ε."""

    runs: tuple[tuple[int, int, int, int, int], ...]
    shift: int
    flood: int
    residue: int

    @property
    def coefficients(self) -> int:
        return sum(run[4] for run in self.runs)

    @property
    def ciphertexts(self) -> int:
        return -(-self.coefficients // N)


def layout(p: Params) -> Layout:
    n, segments = len(p.clients), p.segments or ((p.dimension, p.max_value),)
    if not 2 <= n <= 64 or list(p.clients) != sorted(set(p.clients)) or not 2 <= p.threshold <= n:
        raise Refused("ConfigurationError")
    if p.statistical_bits < 30 or sum(size for size, _ in segments) != p.dimension:
        raise Refused("ConfigurationError")
    bound = n * (42 * N * n + 21)

    def residue(f: int) -> int:
        rest = Fraction(n * 2**f + bound, 2**DROPPED)
        return n + -(-rest.numerator // rest.denominator)

    coefficients = p.dimension
    while True:
        f = 64
        while coefficients * bound * 2**p.statistical_bits > 2 ** (f + 1):
            f += 1
        if f > 120:
            raise Refused("ConfigurationError")
        shift = 0
        while 2**shift < 4 * residue(f):
            shift += 1
        runs = []
        for size, top in segments:
            base, digits = n * top + 1, 0
            while base ** (digits + 1) <= 2 ** (128 - shift) and digits < size:
                digits += 1
            if digits == 0 or base > 2**56:
                raise Refused("ConfigurationError")
            runs.append((size, top, base, digits, -(-size // digits)))
        if sum(run[4] for run in runs) == coefficients:
            break
        coefficients = sum(run[4] for run in runs)
    if -(-coefficients // N) > 4096:
        raise Refused("ConfigurationError")
    shift = 60
    while any(base**digits * 2**shift > 2**128 for _, _, base, digits, _ in runs):
        shift -= 1
    while f < 120 and 4 * residue(f + 1) <= 2**shift:
        f += 1
    return Layout(tuple(runs), shift, f, residue(f))


# ---- §3 ring and streams -------------------------------------------------------------------------------------------


def stream(key: bytes, length: int) -> bytes:
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(length))


def words(data: bytes, size: int = 8) -> list[int]:
    return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]


def stream_key(seed: bytes, attempt: bytes, purpose: int, index: int = 0) -> bytes:
    parts = (b"securefl/v1/ckks/threshold/stream", attempt, bytes([purpose]), u32(index))
    info = b"".join(u32(len(part)) + part for part in parts)
    return bytes(HKDF(seed, 16, b"", SHA256, context=info))


def reference(attempt: bytes) -> list[int]:
    drawn = words(stream(tuple_hash("securefl/v1/ckks/threshold/reference", attempt)[:16], 32 * N))
    planes = [drawn[at * N : (at + 1) * N] for at in range(4)]
    return [w0 | w1 << 64 | w2 << 128 | (w3 & 0xFFFF) << 192 for w0, w1, w2, w3 in zip(*planes, strict=True)]


def ternary(key: bytes) -> list[int]:
    return [byte % 3 - 1 for byte in stream(key, 2 * N) if byte < 255][:N]


def noise(key: bytes) -> list[int]:
    return [(w % 2**21).bit_count() - (w >> 21 & 2**21 - 1).bit_count() for w in words(stream(key, 8 * N))]


def flood(key: bytes, f: int) -> list[int]:
    drawn = words(stream(key, 16 * N))
    return [(low | high << 64) % 2 ** (f + 1) - 2**f for low, high in zip(drawn[:N], drawn[N:], strict=True)]


def times(a: list[int], b: list[int]) -> list[int]:
    return list(_times(tuple(a), tuple(b)))


@lru_cache(maxsize=64)
def _times(a: tuple[int, ...], b: tuple[int, ...]) -> list[int]:
    """a·b mod X^N + 1 mod q, b ternary: one product of two long decimal numbers, 68 digits a coefficient.

    ``decimal`` multiplies numbers of this length by a number-theoretic transform.
    """
    digits = 68  # above N·2·2^208
    exact = Context(prec=140 * N, Emax=MAX_EMAX, Emin=MIN_EMIN)

    def packed(values: Iterable[int]) -> Decimal:
        return exact.create_decimal("".join(f"{value:0{digits}}" for value in reversed(list(values))))

    text = f"{exact.multiply(packed(a), packed([value + 1 for value in b])):f}".zfill(2 * digits * N)
    c = [int(text[at - digits : at]) for at in range(2 * digits * N, 0, -digits)]
    shifted = [low - high for low, high in zip(c[:N], c[N:], strict=True)]
    total, wrapped = sum(a), 0  # a times 1 + X + … + X^(N−1), which was added to b
    ones = []
    for value in reversed(a):
        ones.append(total - 2 * wrapped)
        wrapped += value
    return [(s - o) % Q for s, o in zip(shifted, reversed(ones), strict=True)]


def plus(*polynomials: list[int]) -> list[int]:
    return [sum(column) % Q for column in zip(*polynomials, strict=True)]


def high(a: list[int]) -> list[int]:
    return [(c + 2 ** (DROPPED - 1) >> DROPPED) % 2**128 for c in a]


def limbs(a: list[int]) -> list[list[int]]:
    return [[c >> 26 * plane & 2**26 - 1 for c in a] for plane in range(8)]


def limb_sums(polynomials: list[list[int]]) -> list[list[int]]:
    """Sums limb by limb, without carries."""
    planes = zip(*map(limbs, polynomials), strict=True)
    return [[sum(column) for column in zip(*rows, strict=True)] for rows in planes]


def value(sums: list[list[int]]) -> list[int]:
    return [sum(limb << 26 * at for at, limb in enumerate(column)) % Q for column in zip(*sums, strict=True)]


def polynomial_bytes(a: list[int]) -> bytes:
    planes = [b"".join((c >> 64 * at & 2**64 - 1).to_bytes(8, "little") for c in a) for at in range(3)]
    return b"".join(planes) + b"".join((c >> 192).to_bytes(2, "little") for c in a)


def sums_bytes(sums: list[list[int]]) -> bytes:
    return b"".join(limb.to_bytes(4, "little") for plane in sums for limb in plane)


def halves_bytes(values: list[int]) -> bytes:
    """128-bit numbers: the plane of low words, then that of high words."""
    return b"".join((c >> 64 * at & 2**64 - 1).to_bytes(8, "little") for at in range(2) for c in values)


# ---- §4 digits -----------------------------------------------------------------------------------------------------


def encode(lay: Layout, values: list[int]) -> list[int]:
    out, first = [], 0
    for size, _top, base, digits, count in lay.runs:
        piece = values[first : first + size] + [0] * (digits * count - size)
        out += [sum(piece[j * count + i] * base**j for j in range(digits)) << lay.shift for i in range(count)]
        first += size
    return out


def decode(lay: Layout, opened: list[int], clients: int) -> list[int]:
    values: list[int] = []
    start = 0
    for size, top, base, digits, count in lay.runs:
        found = [[0] * count for _ in range(digits)]
        for i, coefficient in enumerate(opened[start : start + count]):
            shifted = (coefficient + 2 ** (lay.shift - 1)) % 2**128
            if abs(shifted % 2**lay.shift - 2 ** (lay.shift - 1)) > lay.residue:
                raise Refused("DecodeError")
            rest = shifted >> lay.shift
            for j in range(digits):
                rest, found[j][i] = divmod(rest, base)
            if rest:
                raise Refused("DecodeError")
        flat = [digit for plane in found for digit in plane]
        if max(flat) > clients * top or any(flat[size:]):
            raise Refused("DecodeError")
        values += flat[:size]
        start += count
    return values


# ---- §6 fingerprints -----------------------------------------------------------------------------------------------


def digest(attempt: bytes, kind: int, body: bytes) -> bytes:
    return tuple_hash("securefl/v1/ckks/threshold/announced", attempt, bytes([kind]), hashlib.sha256(body).digest())


def fingerprint(announced: bytes, polynomials: list[list[list[int]]]) -> tuple[int, int]:
    """Of limbs (or sums of limbs), polynomial by polynomial."""
    challenge = tuple_hash("securefl/v1/ckks/threshold/challenge", announced)[:16]
    drawn = [word & P for word in words(stream(challenge, 16 * (N + 8 * len(polynomials))))]
    rho, sigma = (drawn[:N], drawn[N : 2 * N]), drawn[2 * N :]
    forms = [0, 0]
    for c, planes in enumerate(polynomials):
        for form in range(2):
            for plane in range(8):
                inner = sum(r * limb for r, limb in zip(rho[form], planes[plane], strict=True))
                forms[form] += sigma[16 * c + 8 * form + plane] * inner
    return forms[0] % P, forms[1] % P


def signature(seed: bytes, attempt: bytes, kind: int, sender: int, body: bytes) -> bytes:
    """ckks-sum §6.3: Ed25519 over the route, the attempt and the body, to the server."""
    route = bytes([kind]) + u32(sender) + u32(0)
    message = tuple_hash("securefl/v1/ckks/signature", attempt, route, hashlib.sha256(body).digest())
    return eddsa.new(ECC.construct(curve="Ed25519", seed=seed), "rfc8032").sign(message)


# ---- §5 a session --------------------------------------------------------------------------------------------------


@dataclass
class Member:
    """A client: its signing seed, its values, one token per attempt, after how many frames it falls silent."""

    me: int
    identity: bytes
    tokens: list[bytes]
    values: list[int]
    leaves: int = 99
    sent: int = 0
    secret: list[int] = field(default_factory=list)
    a: list[int] = field(default_factory=list)
    public: list[int] = field(default_factory=list)
    c1: list[list[int]] = field(default_factory=list)


def key(member: Member, attempt: bytes, seed: bytes) -> bytes:
    """§5."""
    member.a = reference(attempt)
    member.secret = ternary(stream_key(seed, attempt, 1))
    member.public = plus([-c % Q for c in times(member.a, member.secret)], noise(stream_key(seed, attempt, 2)))
    return polynomial_bytes(member.public)


def encrypt(member: Member, lay: Layout, attempt: bytes, seed: bytes, joint: list[int]) -> bytes:
    """§5."""
    plain, c0 = encode(lay, member.values), []
    member.c1 = []
    for index in range(lay.ciphertexts):
        u = ternary(stream_key(seed, attempt, 3, index))
        top = high(plus(times(joint, u), noise(stream_key(seed, attempt, 4, index))))
        piece = plain[index * N : (index + 1) * N]
        c0 += [(t + m) % 2**128 for t, m in zip(top[: len(piece)], piece, strict=True)]
        member.c1.append(plus(times(member.a, u), noise(stream_key(seed, attempt, 5, index))))
    return halves_bytes(c0) + b"".join(map(polynomial_bytes, member.c1))


def share(member: Member, lay: Layout, attempt: bytes, seed: bytes, sums: list[list[list[int]]]) -> bytes:
    """§5."""
    out: list[int] = []
    for index, total in enumerate(sums):
        drowned = plus(times(value(total), member.secret), flood(stream_key(seed, attempt, 6, index), lay.flood))
        out += high(drowned)[: lay.coefficients - index * N]
    return halves_bytes(out)


def confirmation(
    member: Member, attempt: bytes, kind: int, announced: bytes, own: list[list[list[int]]]
) -> tuple[bytes, tuple[int, int]]:
    forms = fingerprint(announced, own)
    raw = b"".join(form.to_bytes(8, "big") for form in forms)
    return raw + signature(member.identity, attempt, kind, member.me, announced + raw), forms


class Ended(Exception):
    """A session that ended in a named error."""


def session(p: Params, members: dict[int, Member]) -> dict[str, Any]:
    """§5, everybody honest: the frames in the order of sending, and how it ended."""
    lay, frames = layout(p), []
    left, number = list(p.clients), 0

    def from_client(member: Member, kind: int, body: bytes, signed: bool = True) -> bool:
        """Whether it went out."""
        if member.sent >= member.leaves:
            return False
        member.sent += 1
        tail = signature(member.identity, attempt, kind, member.me, body) if signed else b""
        frames.append((member.me, 0, seal_frame(PROTOCOL, kind, attempt, member.me, 0, body + tail)))
        return True

    def to_clients(kind: int, to: list[int], body: bytes) -> None:
        frames.extend((0, client, seal_frame(PROTOCOL, kind, attempt, 0, client, body)) for client in to)

    def enough(answered: list[int], expected: list[int]) -> None:
        if len(answered) < p.threshold:
            to_clients(ABORT, expected, b"\1")
            raise Ended

    def listed(clients: list[int]) -> bytes:
        return u32(len(clients)) + b"".join(map(u32, clients))

    def checked(kind: int, body: bytes, total: list[list[list[int]]], parties: list[int], own: Any) -> list[int]:
        """§6: announce, collect, relay; who confirmed."""
        to_clients(kind, parties, body)
        announced = digest(attempt, kind, body)
        expected, given, raw = fingerprint(announced, total), [], b""
        answered = []
        for i in parties:
            confirm, forms = confirmation(members[i], attempt, kind, announced, own(members[i]))
            if from_client(members[i], kind + 1, confirm, signed=False):
                answered.append(i)
                given.append(forms)
                raw += confirm
        if answered == parties:
            if any(sum(form) % P != wanted for form, wanted in zip(zip(*given, strict=True), expected, strict=True)):
                raise AssertionError("the reference's fingerprints do not add up")
            to_clients(kind + 2, parties, raw)
        return answered

    def attempt_once(parties: list[int]) -> tuple[list[int], list[int] | None]:
        """Who is left, and the sum when everybody stayed."""
        seeds = {i: members[i].tokens[number] for i in parties}
        answered = [i for i in parties if from_client(members[i], KEY_SHARE, key(members[i], attempt, seeds[i]))]
        enough(answered, parties)
        parties = answered
        total = limb_sums([members[i].public for i in parties])
        body = listed(parties) + sums_bytes(total)
        answered = checked(JOINT_KEY, body, [total], parties, lambda member: [limbs(member.public)])
        if answered != parties:
            enough(answered, parties)
            return answered, None
        joint, inputs = value(total), {}
        for i in parties:
            inputs[i] = encrypt(members[i], lay, attempt, seeds[i], joint)
        answered = [i for i in parties if from_client(members[i], INPUT, inputs[i])]
        if answered != parties:
            enough(answered, parties)
            return answered, None
        sums = [limb_sums([members[i].c1[index] for i in parties]) for index in range(lay.ciphertexts)]
        body = b"".join(map(sums_bytes, sums))
        answered = checked(SUM, body, sums, parties, lambda member: [limbs(c1) for c1 in member.c1])
        if answered != parties:
            enough(answered, parties)
            return answered, None
        shares = {i: share(members[i], lay, attempt, seeds[i], sums) for i in parties}
        answered = [i for i in parties if from_client(members[i], SHARE, shares[i])]
        if answered != parties:
            to_clients(ABORT, parties, b"\1")
            raise Ended
        half = 8 * lay.coefficients

        def numbers(raw: bytes) -> list[int]:
            return [a | b << 64 for a, b in zip(words(raw[:half]), words(raw[half : 2 * half]), strict=True)]

        parts = [numbers(raw) for raw in (*inputs.values(), *shares.values())]
        return parties, decode(lay, [sum(column) % 2**128 for column in zip(*parts, strict=True)], len(parties))

    attempt = p.attempt(0, left)
    try:
        while True:
            left, total = attempt_once(left)
            if total is not None:
                return {"frames": frames, "sum": total, "survivors": left}
            to_clients(RESTART, left, listed(left))
            number += 1
            attempt = p.attempt(number, left)
    except Ended:
        return {"frames": frames, "error": "TooFewClientsError"}


def changed(p: Params, **fields: Any) -> Params:
    return replace(p, **fields)
