"""Secret-shared computation in plain Python: all three parties in one function each, one integer at a time.

SPEC.md is followed section by section; clarity before speed, no code shared with securefl, primitives of pycryptodome.
A value is a list of ring elements per part: ``Value(zero, one, helper)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from Crypto.Cipher import AES
from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF

RING = 2**64
OFFSET = 2**62
Words = list[int]
#: §6.2, the last four digits: a, b, c stand for equal₃, equal₂, equal₁ and for their masks, x, y, z for less₂, less₁,
#: less₀ and theirs.
OPENED = ["b", "a", "x", "y", "z", "c"]
DEALT = ["cz", "by", "bz", "bc", "bcz", "ay", "az", "ac", "acz", "aby", "abz", "abc", "abcz", "ax", "ab"]
Bits = tuple[list[int], list[int], tuple[Words, Words]]  # opened: t, ρ, and the servers' shares of ρ
Form = tuple[Words, Words, Words]  # m, server 0's share of λ, server 1's


class MpcError(Exception):
    """The name of the error of SPEC §11."""


# ---- §3 fixed point


def encode(value: float, fraction: int) -> int:
    if value != value or abs(value) > 2.0 ** (62 - fraction):
        raise MpcError("InvalidInputError")
    return round(value * 2**fraction) % RING  # ties to even


def decode(word: int, fraction: int) -> float:
    return (word - RING if word >= RING // 2 else word) / 2**fraction


# ---- §4.1 streams


def stream_key(secret: bytes, session: bytes, pair: tuple[int, int], batch: int, program: bytes) -> bytes:
    parts = (b"securefl/v1/mpc/stream", session, bytes(sorted(pair)), batch.to_bytes(8, "big"), program)
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(secret, 16, b"", SHA256, 1, info)


@dataclass
class Stream:
    """AES-128-CTR over zeros, read byte by byte in order."""

    key: bytes

    def __post_init__(self) -> None:
        self.cipher = AES.new(self.key, AES.MODE_CTR, nonce=b"", initial_value=0)

    def take(self, count: int) -> bytes:
        return self.cipher.encrypt(bytes(count))

    def words(self, count: int, width: int = 8) -> Words:
        raw = self.take(count * width)
        return [int.from_bytes(raw[i : i + width], "little") for i in range(0, len(raw), width)]


class Told:
    """d of §4.1 by pair: what the client told both. ``secret``: of the servers."""

    def __init__(self, secret: bytes, session: bytes) -> None:
        self.secret, self.session, self.count = secret, session, 0
        self.d = {(0, 1): b"", (0, 2): b"", (1, 2): b""}

    def given(self, m: bytes, first: bytes, second: bytes) -> None:
        """§9: m to both servers, a key to each of them, both to the helper."""
        self.count += 1
        parts = (b"securefl/v1/mpc/told", self.session, bytes([0, 1]), self.count.to_bytes(8, "big"))
        key = HKDF(self.secret, 16, b"", SHA256, 1, b"".join(len(p).to_bytes(4, "big") + p for p in parts))
        tag = AES.new(key, AES.MODE_GCM, nonce=bytes(12)).update(m).digest()
        for pair, told in (((0, 2), first), ((1, 2), second), ((0, 1), tag)):
            self.d[pair] = SHA256.new(self.d[pair] + told).digest()


@dataclass
class Value:
    zero: Words
    one: Words
    helper: Words

    def total(self) -> Words:
        return [(a + b + h) % RING for a, b, h in zip(self.zero, self.one, self.helper, strict=True)]


def packed(words: Words, width: int = 8) -> bytes:
    return b"".join((word % 2 ** (8 * width)).to_bytes(width, "little") for word in words)


def plane(bits: list[int]) -> int:
    """Bits as one integer: the first is the highest bit of the first byte."""
    padded = bits + [0] * (-len(bits) % 8)
    return int("".join(map(str, padded)) or "0", 2)


def bits_of(number: int, count: int) -> list[int]:
    size = (count + 7) // 8 * 8
    return [(number >> (size - 1 - i)) & 1 for i in range(count)]


def conjunction_of(planes: dict[str, int], names: Iterable[str], start: int = -1) -> int:
    for name in names:
        start &= planes[name]
    return start


# ---- §4.2


def given(words: Words, first: bytes, second: bytes) -> tuple[Value, Form]:
    """A value of which the client gives the opened form, from two keys."""
    zero, one = Stream(first).words(len(words)), Stream(second).words(len(words))
    m = [(w + a + b) % RING for w, a, b in zip(words, zero, one, strict=True)]
    value = Value([(w - a) % RING for w, a in zip(m, zero, strict=True)], [-b % RING for b in one], [0] * len(m))
    return value, (m, zero, one)


# ---- §5.1 from opened forms


def product(x: Form, y: Form) -> Value:
    """Element by element."""
    (mx, x0, x1), (my, y0, y1) = x, y
    n = range(len(mx))
    return Value(
        [(mx[i] * (my[i] - y0[i]) - x0[i] * my[i]) % RING for i in n],
        [-(mx[i] * y1[i] + x1[i] * my[i]) % RING for i in n],
        [(x0[i] + x1[i]) * (y0[i] + y1[i]) % RING for i in n],
    )


def factors(form: Form) -> tuple[Words, Words, Words]:
    """What each party multiplies with: the servers m − 2λ_i, the helper λ₀ − λ₁."""
    m, zero, one = form
    return (
        [(v - 2 * w) % RING for v, w in zip(m, zero, strict=True)],
        [(v - 2 * w) % RING for v, w in zip(m, one, strict=True)],
        [(v - w) % RING for v, w in zip(zero, one, strict=True)],
    )


def double(x: Form, y: Form, multiply: Callable[[Words, Words], Words] | None = None) -> Value:
    """Twice the product, of any bilinear kind; element by element where ``multiply`` does not say otherwise."""
    parts = []
    for party, (a, b) in enumerate(zip(factors(x), factors(y), strict=True)):
        done = multiply(a, b) if multiply else [v * w for v, w in zip(a, b, strict=True)]
        parts.append([(-2 * v if party == 2 else v) % RING for v in done])
    return Value(*parts)


@dataclass
class Session:
    """The two streams of the helper (with server 0 and with server 1), and what was sent: (from, to, bytes)."""

    a: Stream
    b: Stream
    sent: list[tuple[int, int, bytes]] = field(default_factory=list)

    def exchange(self, zero: bytes, one: bytes) -> None:
        self.sent += [(0, 1, zero), (1, 0, one)]

    # ---- §4.3 deals

    def deal(self, to: int, pieces: list[tuple[list[int], int, bool]]) -> list[tuple[list[int], list[int]]]:
        """Pieces (values, bytes per value, by xor) to shares (server 0's, server 1's); one message to ``to``."""
        shares, message = [], b""
        for values, width, xor in pieces:
            drawn = (self.a if to == 1 else self.b).words(len(values), width)
            rest = [(v ^ d) if xor else (v - d) % 2 ** (8 * width) for v, d in zip(values, drawn, strict=True)]
            message += packed(rest, width)
            shares.append((drawn, rest) if to == 1 else (rest, drawn))
        self.sent.append((2, to, message))
        return shares

    # ---- §5.1 opening and products

    def open_value(self, x: Value, offset: int) -> tuple[Words, Words]:
        """Gives c and r with c = x + offset + r."""
        n = len(x.zero)
        t0, t1 = self.a.words(n), self.b.words(n)
        zero = [(x.zero[i] + t0[i] + offset) % RING for i in range(n)]
        one = [(x.one[i] + t1[i]) % RING for i in range(n)]
        self.exchange(packed(zero), packed(one))
        c = [(zero[i] + one[i]) % RING for i in range(n)]
        return c, [(t0[i] + t1[i] - x.helper[i]) % RING for i in range(n)]

    def open_masked(self, values: list[Value]) -> list[Form]:
        """Settled values to their forms; one message each way for all."""
        total = sum(len(v.zero) for v in values)
        l0, l1 = self.a.words(total), self.b.words(total)
        zero = [(x + m) % RING for x, m in zip([w for v in values for w in v.zero], l0, strict=True)]
        one = [(x + m) % RING for x, m in zip([w for v in values for w in v.one], l1, strict=True)]
        self.exchange(packed(zero), packed(one))
        forms, at = [], 0
        for v in values:
            piece = slice(at, at + len(v.zero))
            m = [(p + q) % RING for p, q in zip(zero[piece], one[piece], strict=True)]
            forms.append((m, l0[piece], l1[piece]))
            at += len(v.zero)
        return forms

    def product(self, x: Value, y: Value) -> Value:
        return product(*self.open_masked([x, y]))

    def double(self, x: Value, y: Value) -> Value:
        return double(*self.open_masked([x, y]))

    def settle(self, values: list[Value]) -> list[Value]:
        shares = self.deal(1, [(value.helper, 8, False) for value in values])
        return [
            Value(
                [(w + s) % RING for w, s in zip(value.zero, s0, strict=True)],
                [(w + s) % RING for w, s in zip(value.one, s1, strict=True)],
                [0] * len(s0),
            )
            for value, (s0, s1) in zip(values, shares, strict=True)
        ]

    def product_of_truncated(self, operands: list[Value], places: int) -> Value:
        """One operand: its square. Two: the first truncated, times the second, truncated too. §5.1."""
        n = range(len(operands[0].zero))
        opened = [self.open_truncated(operand, places) for operand in operands]
        values = self.settle([value for value, _, _ in opened])
        forms = []
        for value, (_, c, r) in zip(values, opened, strict=True):
            public = [((v >> places) - (OFFSET >> places)) % RING for v in c]
            k = [(1 - (v >> 63)) << (64 - places) for v in c]
            masks = [(public[i] - value.zero[i]) % RING for i in n], [-word % RING for word in value.one]
            forms.append((public, masks, k, [v >> places for v in r], [v >> 63 for v in r]))
        x, y = forms[0], forms[-1]
        pairs = [(x, y)] if len(forms) == 1 else [(x, y), (y, x)]
        width = 2 if places <= 16 else 4
        dealt = self.deal(1, [([f[4][i] * g[3][i] for i in n], width, False) for f, g in pairs])
        twice = 2 if len(forms) == 1 else 1
        less = [
            [sum(twice * f[2][i] * s[party][i] for (f, _), s in zip(pairs, dealt, strict=True)) for i in n]
            for party in (0, 1)
        ]
        return Value(
            [(x[0][i] * (y[0][i] - y[1][0][i]) - x[1][0][i] * y[0][i] - less[0][i]) % RING for i in n],
            [(-(x[0][i] * y[1][1][i] + x[1][1][i] * y[0][i]) - less[1][i]) % RING for i in n],
            [x[3][i] * y[3][i] % RING for i in n],
        )

    # ---- §5.2 truncation

    def truncate(self, x: Value, places: int) -> Value:
        return self.open_truncated(x, places)[0]

    def open_truncated(self, x: Value, places: int) -> tuple[Value, Words, Words]:
        """What comes out, with c and r."""
        c, r = self.open_value(x, OFFSET)
        width = 2 if places <= 16 else 4 if places <= 32 else 8
        ((s0, s1),) = self.deal(1, [([v >> 63 for v in r], width, False)])
        wrap = [(1 - (v >> 63)) << (64 - places) for v in c]
        n = range(len(c))
        value = Value(
            [((c[i] >> places) - (OFFSET >> places) + wrap[i] * s0[i]) % RING for i in n],
            [wrap[i] * s1[i] % RING for i in n],
            [-(r[i] >> places) % RING for i in n],
        )
        return value, c, r

    # ---- §6 comparison

    def sign(self, c: Words, r: Words) -> tuple[int, int, int]:
        """Parts, as planes, of [c − r < 0]. At most 8192 elements: one segment."""
        n = len(c)
        padded = n + -n % 8
        c, r = c + [0] * (padded - n), r + [0] * (padded - n)
        digits = [(4 * k, 7 if k == 15 else 15) for k in range(16)]
        tables = [2 ** (((v >> shift) & mask) + 1) - 1 for shift, mask in digits for v in r]
        ((zero, one),) = self.deal(1, [(tables, 2, True)])
        less, equal = [[0] * 16, [0] * 16], [[0] * 16, [0] * 16]
        for party, share in enumerate((zero, one)):
            for k, (shift, mask) in enumerate(digits):
                found = [share[k * padded + i] >> ((c[i] >> shift) & mask) for i in range(padded)]
                below = plane([(w >> 1) & 1 for w in found])
                less[party][k] = below
                equal[party][k] = plane([w & 1 for w in found]) ^ below
        top = [plane([v >> 63 for v in values[:n]]) for values in (c, r)]
        lowest = self.tree(less, equal, padded // 8)
        return lowest[0] ^ top[0], lowest[1], top[1]

    def tree(self, less: list[list[int]], equal: list[list[int]], width: int) -> tuple[int, int]:
        """§6.2: three rounds from sixteen digits to one bit per element."""
        counts = [8, 4]
        masks = [
            tuple(
                [int.from_bytes(raw[i : i + width], "big") for i in range(0, rows * width, width)]
                for raw in (self.a.take(rows * width), self.b.take(rows * width))
            )
            for rows in (*(3 * nodes - 1 for nodes in counts), len(OPENED))
        ]
        products = []
        for nodes, (p, q) in zip(counts, masks[:2], strict=True):
            alpha = [u ^ v for u, v in zip(p, q, strict=True)]
            products += [alpha[i] & alpha[nodes + i] for i in range(nodes)]
            products += [alpha[i] & alpha[2 * nodes + i - 1] for i in range(1, nodes)]
        mask_of = {name: u ^ v for name, u, v in zip(OPENED, *masks[2], strict=True)}
        products += [conjunction_of(mask_of, names) for names in DEALT]
        as_bytes = [byte for row in products for byte in row.to_bytes(width, "big")]
        ((zero, one),) = self.deal(1, [(as_bytes, 1, True)])
        shares = [
            [int.from_bytes(bytes(part[i : i + width]), "big") for i in range(0, len(part), width)]
            for part in (zero, one)
        ]
        at = 0
        for nodes, pair in zip(counts, masks[:2], strict=True):
            mine = []
            for party in (0, 1):
                operands = equal[party][1::2] + less[party][0::2] + equal[party][2::2]
                mine.append([o ^ m for o, m in zip(operands, pair[party], strict=True)])
            self.exchange(*(b"".join(row.to_bytes(width, "big") for row in rows) for rows in mine))
            m = [u ^ v for u, v in zip(*mine, strict=True)]
            for party in (0, 1):

                def conjunction(i: int, j: int, k: int, who: tuple = (party, pair[party], shares[party], m, at)) -> int:
                    party, own, share, m, at = who
                    return (0 if party else m[i] & m[j]) ^ (m[i] & own[j]) ^ (own[i] & m[j]) ^ share[at + k]

                upper = less[party][1::2]
                low = [upper[i] ^ conjunction(i, nodes + i, i) for i in range(nodes)]
                same = [0] + [conjunction(i, 2 * nodes + i - 1, nodes + i - 1) for i in range(1, nodes)]
                less[party], equal[party] = low, same
            at += 2 * nodes - 1
        return self.last_four(less, equal, masks[2], [part[at:] for part in shares], width)

    def last_four(
        self,
        less: list[list[int]],
        equal: list[list[int]],
        masks: tuple[list[int], list[int]],
        dealt: list[list[int]],
        width: int,
    ) -> tuple[int, int]:
        """§6.2: from four digits to one, in one round."""
        mine = []
        for party in (0, 1):
            operands = [equal[party][2], equal[party][3], *(less[party][k] for k in (2, 1, 0)), equal[party][1]]
            mine.append([o ^ m for o, m in zip(operands, masks[party], strict=True)])
        self.exchange(*(b"".join(row.to_bytes(width, "big") for row in rows) for rows in mine))
        opened = {name: u ^ v for name, u, v in zip(OPENED, *mine, strict=True)}
        results = []
        for party in (0, 1):
            share = {"": 0 if party else 2 ** (8 * width) - 1}  # of the empty product, which is 1
            share |= dict(zip(OPENED, masks[party], strict=True)) | dict(zip(DEALT, dealt[party], strict=True))
            result = less[party][3]
            result ^= opened["a"] & less[party][2] ^ opened["x"] & share["a"] ^ share["ax"]
            for product in ("aby", "abcz"):
                for chosen in range(2 ** len(product)):  # which factors give their mask; the others what is opened
                    masked = [name for i, name in enumerate(product) if chosen >> i & 1]
                    public = [name for name in product if name not in masked]
                    result ^= conjunction_of(opened, public, share["".join(masked)])
            results.append(result)
        return results[0], results[1]

    def relu(self, x: Value, drop: int) -> tuple[Value, list[int]]:
        """§6.3: max(x, 0) without its last ``drop`` places, and [x >= 0]. ``x`` is settled where drop = 0."""
        result, (t, rho, _) = self.relu_and_bits(x, drop)
        return result, [v ^ r for v, r in zip(t, rho, strict=True)]

    def relu_and_bits(self, x: Value, drop: int) -> tuple[Value, Bits]:
        n = len(x.zero)
        offset = OFFSET if drop else 0
        c, r = self.open_value(x, offset)
        zero, one, top = self.sign([(v - offset) % RING for v in c], r)
        width = (n + 7) // 8
        k0, k1 = (int.from_bytes(stream.take(width), "big") for stream in (self.a, self.b))
        ones = 2 ** (8 * width) - 1
        zero ^= ones  # the complement: [x >= 0]
        self.exchange((zero ^ k0).to_bytes(width, "big"), (one ^ k1).to_bytes(width, "big"))
        t = bits_of(zero ^ k0 ^ one ^ k1, n)
        rho = bits_of(k0 ^ k1 ^ top, n)
        if not drop:
            (s, p) = self.deal(1, [(rho, 8, False), ([rho[i] * r[i] for i in range(n)], 8, False)])
            plain = (x.zero, x.one)
            parts = []
            for party in (0, 1):
                inside = [c[i] * s[party][i] - p[party][i] for i in range(n)]
                parts.append([((plain[party][i] - inside[i]) if t[i] else inside[i]) % RING for i in range(n)])
        else:
            high, top_bit = [v >> drop for v in r], [v >> 63 for v in r]
            size = 2 if drop <= 16 else 4 if drop <= 32 else 8
            s, p, h, b, q = self.deal(
                1,
                [
                    (rho, 8, False),
                    ([rho[i] * high[i] for i in range(n)], 8, False),
                    (high, 8, False),
                    (top_bit, size, False),
                    ([rho[i] * top_bit[i] for i in range(n)], size, False),
                ],
            )
            parts = []
            for party in (0, 1):
                part = []
                for i in range(n):
                    wrap = (1 - (c[i] >> 63)) << (64 - drop)
                    z = (c[i] >> drop) - (OFFSET >> drop)
                    masked = z * s[party][i] + wrap * q[party][i] - p[party][i]
                    whole = wrap * b[party][i] - h[party][i] + (z if party == 0 else 0)
                    part.append(((whole - masked) if t[i] else masked) % RING)
                parts.append(part)
        return Value(parts[0], parts[1], [0] * n), (t, rho, s)

    def select(self, bits: Bits, x: Value) -> Value:
        """§6.3: the settled x where the bit is 1, and 0 elsewhere; by bits of a relu."""
        t, rho, s = bits
        ((m, l0, l1),) = self.open_masked([x])
        n = range(len(m))
        (p,) = self.deal(1, [([rho[i] * (l0[i] + l1[i]) for i in n], 8, False)])
        parts = []
        for party, plain in enumerate((x.zero, x.one)):
            inside = [m[i] * s[party][i] - p[party][i] for i in n]
            parts.append([((plain[i] - inside[i]) if t[i] else inside[i]) % RING for i in n])
        return Value(parts[0], parts[1], [0] * len(m))
