"""Reference for replicated sharing among three servers: SPEC.md line by line, in plain Python integers.

Shares no code with securefl; streams and planes are those of mpc_ref. A value is a list of ring elements per component,
``Value(c0, c1, c2)``, of which party i holds i and i + 1 (modulo 3). Streams: ``s[k]`` is that of the two parties that
hold component k. One object plays all parties; what one of them sends is made of nothing but what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from Crypto.Hash import SHA256
from Crypto.Protocol.KDF import HKDF
from mpc_ref import OFFSET, RING, Stream, Words, bits_of, packed, plane

Planes = list[list[int]]  # per component, rows as integers


def stream_key(secret: bytes, session: bytes, pair: tuple[int, int], batch: int, program: bytes) -> bytes:
    """§2: as in mpc, with a label of its own."""
    parts = (b"securefl/v1/mpc/replicated", session, bytes(sorted(pair)), batch.to_bytes(8, "big"), program)
    info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return HKDF(secret, 16, b"", SHA256, 1, info)


@dataclass
class Value:
    c: list[Words]

    def total(self) -> Words:
        return [sum(parts) % RING for parts in zip(*self.c, strict=True)]


@dataclass
class Session:
    """The streams by component, and what was sent: (from, to, bytes)."""

    s: list[Stream]
    sent: list[tuple[int, int, bytes]] = field(default_factory=list)

    # ---- §3 replication

    def settle(self, parts: list[Words]) -> Value:
        """Loose parts, one per party, to components."""
        drawn = [stream.words(len(parts[0])) for stream in self.s]
        mine = [[(z + drawn[i][j] - drawn[(i + 1) % 3][j]) % RING for j, z in enumerate(parts[i])] for i in range(3)]
        self.sent += [(i, (i - 1) % 3, packed(mine[i])) for i in range(3)]
        return Value(mine)

    def give(self, pieces: list[tuple[list[int], int, bool]]) -> list[tuple[list[int], list[int]]]:
        """§3.3: party 2 deals values (with bytes each, by xor or not) to parties 0 and 1, in one message to party 1."""
        shares, message = [], b""
        for values, width, xor in pieces:
            drawn = self.s[0].words(len(values), width)
            rest = [(v ^ d) if xor else (v - d) % 2 ** (8 * width) for v, d in zip(values, drawn, strict=True)]
            message += packed(rest, width)
            shares.append((drawn, rest))
        self.sent.append((2, 1, message))
        return shares

    def join(self, pieces: list[tuple[list[int], list[int], int, bool]]) -> list[list[list[int]]]:
        """§3.4: parts of parties 0 and 1 (with bytes each, by xor or not) to components."""
        results, messages = [], [b"", b""]
        for zero, one, width, xor in pieces:
            modulus = 2 ** (8 * width)
            masks = [self.s[0].words(len(zero), width), self.s[2].words(len(zero), width)]
            mine = [
                [(v ^ m) if xor else (v - m) % modulus for v, m in zip(values, mask, strict=True)]
                for values, mask in zip((zero, one), masks, strict=True)
            ]
            messages = [sent + packed(values, width) for sent, values in zip(messages, mine, strict=True)]
            opened = [(a ^ b) if xor else (a + b) % modulus for a, b in zip(*mine, strict=True)]
            results.append([masks[0], opened, masks[1]])
        self.sent += [(0, 1, messages[0]), (1, 0, messages[1])]
        return results

    # ---- §4 products

    @staticmethod
    def product(x: Value, y: Value) -> list[Words]:
        """The parties' loose parts of x·y, element by element."""
        (x0, x1, x2), (y0, y1, y2) = x.c, y.c
        n = range(len(x0))
        return [
            [(x1[i] * (y0[i] + y1[i]) + x0[i] * y1[i]) % RING for i in n],
            [(x1[i] * y2[i] + x2[i] * y1[i]) % RING for i in n],
            [(x2[i] + x0[i]) * (y2[i] + y0[i]) % RING for i in n],
        ]

    @staticmethod
    def double(x: Value, y: Value) -> list[Words]:
        """The parties' loose parts of 2·x·y."""
        (x0, x1, x2), (y0, y1, y2) = x.c, y.c
        n = range(len(x0))
        return [
            [(x0[i] + 2 * x1[i]) * (y0[i] + 2 * y1[i]) % RING for i in n],
            [-2 * (x1[i] - x2[i]) * (y1[i] - y2[i]) % RING for i in n],
            [(x0[i] + 2 * x2[i]) * (y0[i] + 2 * y2[i]) % RING for i in n],
        ]

    # ---- §5 truncation

    def open_to_two(self, parts: list[Words], offset: int) -> tuple[Words, Words]:
        """Gives c, which parties 0 and 1 see, and r, which party 2 knows: c = x + offset + r."""
        n = range(len(parts[0]))
        t0, t1 = self.s[0].words(len(n)), self.s[2].words(len(n))
        zero = [(parts[0][i] + t0[i] + offset) % RING for i in n]
        one = [(parts[1][i] + t1[i]) % RING for i in n]
        self.sent += [(0, 1, packed(zero)), (1, 0, packed(one))]
        return [(zero[i] + one[i]) % RING for i in n], [(t0[i] + t1[i] - parts[2][i]) % RING for i in n]

    def wraps(self, c: Words, r: Words, places: int) -> tuple[list[int], list[int], int, bool]:
        """Parts of parties 0 and 1 of (1 − c_63)·r_63, as a piece for :meth:`join`."""
        width = 2 if places <= 16 else 4 if places <= 32 else 8
        ((zero, one),) = self.give([([v >> 63 for v in r], width, False)])
        outside = [1 - (v >> 63) for v in c]
        return (
            [o * v for o, v in zip(outside, zero, strict=True)],
            [o * v for o, v in zip(outside, one, strict=True)],
            width,
            False,
        )

    def truncated(self, c: Words, r: Words, places: int, wrap: list[list[int]]) -> Value:
        n = range(len(c))
        drawn = self.s[0].words(len(c))
        rest = [(-(r[i] >> places) - drawn[i]) % RING for i in n]
        self.sent.append((2, 1, packed(rest)))
        known = [(v >> places) - (OFFSET >> places) for v in c]
        return Value(
            [
                [(base[i] + (wrap[k][i] << (64 - places))) % RING for i in n]
                for k, base in enumerate((drawn, known, rest))
            ]
        )

    def truncate(self, parts: list[Words], places: int) -> Value:
        c, r = self.open_to_two(parts, OFFSET)
        (wrap,) = self.join([self.wraps(c, r, places)])
        return self.truncated(c, r, places, wrap)

    # ---- §6 comparison

    def planes(self, c: Words, r: Words) -> list[tuple[list[int], list[int], int, bool]]:
        """Parts of parties 0 and 1 of the digits' planes, as pieces of bytes. At most 8192 elements: one segment."""
        n = len(c)
        padded = n + -n % 8
        c, r = c + [0] * (padded - n), r + [0] * (padded - n)
        digits = [(4 * k, 7 if k == 15 else 15) for k in range(16)]
        tables = [2 ** (((v >> shift) & mask) + 1) - 1 for shift, mask in digits for v in r]
        ((t0, t1),) = self.give([(tables, 2, True)])
        less, equal = [[0] * 16, [0] * 16], [[0] * 16, [0] * 16]
        for party, share in enumerate((t0, t1)):
            for k, (shift, mask) in enumerate(digits):
                found = [share[k * padded + i] >> ((c[i] >> shift) & mask) for i in range(padded)]
                less[party][k] = plane([(w >> 1) & 1 for w in found])
                equal[party][k] = plane([w & 1 for w in found]) ^ less[party][k]
        width = padded // 8
        ((g0, g1),) = self.give([(to_bytes([plane([v >> 63 for v in r])], width), 1, True)])
        less[0][15] ^= plane([v >> 63 for v in c]) ^ int.from_bytes(bytes(g0), "big")
        less[1][15] ^= int.from_bytes(bytes(g1), "big")
        return [
            (to_bytes(less[0], width), to_bytes(less[1], width), 1, True),
            (to_bytes(equal[0][1:], width), to_bytes(equal[1][1:], width), 1, True),
        ]

    def conjunction(self, a: Planes, b: Planes, width: int) -> Planes:
        rows = range(len(a[0]))
        drawn = [from_bytes(list(stream.take(len(rows) * width)), width) for stream in self.s]
        mine = [
            [(a[1][i] & (b[0][i] ^ b[1][i])) ^ (a[0][i] & b[1][i]) for i in rows],
            [(a[1][i] & b[2][i]) ^ (a[2][i] & b[1][i]) for i in rows],
            [(a[2][i] ^ a[0][i]) & (b[2][i] ^ b[0][i]) for i in rows],
        ]
        mine = [[v ^ drawn[k][i] ^ drawn[(k + 1) % 3][i] for i, v in enumerate(mine[k])] for k in range(3)]
        self.sent += [(k, (k - 1) % 3, bytes(to_bytes(mine[k], width))) for k in range(3)]
        return mine

    def tree(self, less: Planes, equal: Planes, width: int) -> list[int]:
        """Components of [c < r] as one plane each; ``equal`` begins with digit 1."""
        while len(less[0]) > 1:
            nodes = len(less[0]) // 2
            left = [e[0::2] + e[0::2][1:] for e in equal]
            right = [low[0::2] + e[1::2] for low, e in zip(less, equal, strict=True)]
            both = self.conjunction(left, right, width)
            less = [
                [u ^ v for u, v in zip(row[1::2], z[:nodes], strict=True)] for row, z in zip(less, both, strict=True)
            ]
            equal = [z[nodes:] for z in both]
        return [row[0] for row in less]

    def negative(self, parts: list[Words]) -> list[int]:
        c, r = self.open_to_two(parts, 0)
        width = (len(c) + 7) // 8
        less, equal = self.join(self.planes(c, r))
        return self.tree([from_bytes(row, width) for row in less], [from_bytes(row, width) for row in equal], width)

    def select(self, bits: list[int], x: Value) -> Value:
        """b·x: b as components of a plane."""
        return self.choose(bits, x, None)[0]

    def choose(self, bits: list[int], x: Value, s: Any) -> tuple[Value, Any]:
        """b·x and the shares of ρ, dealt unless they were before."""
        n = len(x.c[0])
        t, rho = bits_of(bits[1], n), bits_of(bits[0] ^ bits[2], n)
        mu = [(x.c[0][i] + x.c[2][i]) % RING for i in range(n)]
        product = ([rho[i] * mu[i] for i in range(n)], 8, False)
        *dealt, p = self.give([product] if s is not None else [(rho, 8, False), product])
        s = dealt[0] if s is None else s
        own = ([(x.c[0][i] + x.c[1][i]) % RING for i in range(n)], x.c[2])
        parts = []
        for party in (0, 1):
            inside = [x.c[1][i] * s[party][i] + p[party][i] for i in range(n)]
            parts.append([((own[party][i] - inside[i]) if t[i] else inside[i]) % RING for i in range(n)])
        (joined,) = self.join([(parts[0], parts[1], 8, False)])
        return Value(joined), s

    def relu(self, x: Value | list[Words], drop: int) -> tuple[Value, list[int]]:
        result, (bits, _) = self.relu_and_bits(x, drop)
        return result, bits

    def relu_and_bits(self, x: Value | list[Words], drop: int) -> tuple[Value, tuple[list[int], Any]]:
        """max(x, 0) without its last ``drop`` places, and the components of [x >= 0]. Loose x only where drop > 0."""
        parts = x.c if isinstance(x, Value) else x
        offset = OFFSET if drop else 0
        c, r = self.open_to_two(parts, offset)
        width = (len(c) + 7) // 8
        pieces = self.planes([(v - offset) % RING for v in c], r)
        if drop:
            less, equal, wrap = self.join([*pieces, self.wraps(c, r, drop)])
            y = self.truncated(c, r, drop, wrap)
        else:
            less, equal = self.join(pieces)
            assert isinstance(x, Value)
            y = x
        bits = self.tree([from_bytes(row, width) for row in less], [from_bytes(row, width) for row in equal], width)
        bits[1] ^= 2 ** (8 * width) - 1  # the complement: [x >= 0]
        result, s = self.choose(bits, y, None)
        return result, (bits, s)


def to_bytes(rows: list[int], width: int) -> list[int]:
    return [byte for row in rows for byte in row.to_bytes(width, "big")]


def from_bytes(values: list[int], width: int) -> list[int]:
    return [int.from_bytes(bytes(values[i : i + width]), "big") for i in range(0, len(values), width)]
