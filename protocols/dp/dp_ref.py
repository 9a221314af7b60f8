"""Reference for protocols/dp/SPEC.md: privacy curves, Rényi bounds, integer noise, rounding, the ledger's chain.

Clarity before speed; shares no code with securefl/. Standard library, and pycryptodome for AES, HKDF and TupleHash.
"""

from __future__ import annotations

import cmath
import math
from decimal import Decimal, getcontext
from fractions import Fraction

from Crypto.Cipher import AES
from Crypto.Hash import SHA256, TupleHash256
from Crypto.Protocol.KDF import HKDF

getcontext().prec = 160
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798")


# ---- SPEC §2 privacy curves, in decimal arithmetic -----------------------------------------------------------------


def phi(x: Decimal) -> Decimal:
    """The standard normal distribution function for |x| < 16: 1/2 + Σ (-1)^n x^(2n+1) / (2^n n! (2n+1)) / √(2π)."""
    total = term = x
    n = 0
    while abs(term) > Decimal(10) ** -150:
        n += 1
        term = -term * x * x / (2 * n)
        total += term / (2 * n + 1)
    return Decimal("0.5") + total / (2 * PI).sqrt()


def gaussian_delta(mu: Decimal, epsilon: Decimal) -> Decimal:
    return phi(mu / 2 - epsilon / mu) - epsilon.exp() * phi(-mu / 2 - epsilon / mu)


def one_step_delta(sigma: Decimal, q: Decimal, epsilon: Decimal, direction: str) -> Decimal:
    """δ(ε) of one Poisson-sampled release, exactly: the set where the loss exceeds ε is a half-line."""
    if direction == "remove":  # P = (1-q) N(0) + q N(1), Q = N(0): x > t with 1 - q + q e^((2t-1)/2σ²) = e^ε
        t = Decimal("0.5") + sigma**2 * ((epsilon.exp() - 1 + q) / q).ln()
        above, moved = 1 - phi(t / sigma), 1 - phi((t - 1) / sigma)
        return (1 - q) * above + q * moved - epsilon.exp() * above
    inside = (-epsilon).exp() - 1 + q  # P and Q exchanged: x < t with 1 - q + q e^((2t-1)/2σ²) = e^-ε
    if inside <= 0:
        return Decimal(0)
    t = Decimal("0.5") + sigma**2 * (inside / q).ln()
    below, moved = phi(t / sigma), phi((t - 1) / sigma)
    return below - epsilon.exp() * ((1 - q) * below + q * moved)


# ---- SPEC §3 composition: a bracket around δ, in doubles -----------------------------------------------------------


def fft(values: list[complex], sign: int) -> list[complex]:
    """Radix 2; ``len(values)`` is a power of two."""
    if len(values) == 1:
        return values
    even, odd = fft(values[::2], sign), fft(values[1::2], sign)
    half = len(even)
    turned = [cmath.exp(sign * 1j * cmath.pi * k / half) * odd[k] for k in range(half)]
    return [e + t for e, t in zip(even, turned, strict=True)] + [e - t for e, t in zip(even, turned, strict=True)]


def composed_bracket(sigma: float, q: float, rounds: int, epsilon: float, h: float, bits: int) -> tuple[float, float]:
    """(lower, upper) bounds of δ(ε) in the remove direction, losses on a grid of width ``h``, 2^``bits`` points.

    Upper: each bin of outputs is split over its two grid losses so that its masses under P and Q are kept.
    Lower: each bin is merged (post-processing) and its loss rounded down.
    """
    size, normal = 2**bits, lambda x: 0.5 * math.erfc(-x / math.sqrt(2))

    def output(loss: float) -> float:
        inside = math.expm1(loss) + q
        return 0.5 + sigma**2 * math.log(inside / q) if inside > 0 else -math.inf

    def above(x: float, mean: float) -> float:
        return normal((mean - x) / sigma)

    low = math.floor(math.log1p(-q) / h) if q < 1 else math.floor((-9 / sigma - 1 / sigma**2) / h)
    high = math.ceil(((9 * sigma + 1) * 2 - 1) / (2 * sigma**2) / h)
    upper, lower = [0.0] * size, [0.0] * size
    for j in range(low, high):
        left, right = output(j * h), output((j + 1) * h)
        r = above(left, 0) - above(right, 0)
        p = (1 - q) * r + q * (above(left, 1) - above(right, 1))
        up = min(p, max(0.0, (p - r * math.exp(j * h)) / -math.expm1(-h)))
        upper[(j + 1) % size] += up
        upper[j % size] += p - up
        if p > 0 and r > 0:
            lower[min(j + 1, max(j, math.floor(math.log(p / r) / h))) % size] += p
    slack = 1e-13 * rounds  # rounding of the transform, and the outputs beyond 9 standard deviations
    deltas = []
    for law in (lower, upper):
        spectrum = [value**rounds for value in fft([complex(x) for x in law], 1)]
        total = [value.real / size for value in fft(spectrum, -1)]
        # the window: from a quarter of the grid below zero upwards
        losses = [(j if j < 3 * size // 4 else j - size) * h for j in range(size)]
        deltas.append(sum(p * -math.expm1(epsilon - x) for p, x in zip(total, losses, strict=True) if x > epsilon))
    return deltas[0] - slack, deltas[1] + slack


# ---- SPEC §4 Rényi bounds ------------------------------------------------------------------------------------------


def skellam_rdp(alpha: int, l2: Fraction, l1: Fraction, variance: Fraction) -> Fraction:
    first = ((2 * alpha - 1) * l2**2 + 6 * l1) / (4 * variance**2)
    return alpha * l2**2 / (2 * variance) + min(first, 3 * l1 / (2 * variance))


def sampled_rdp(alpha: int, q: Fraction, epsilons: dict[int, Fraction]) -> Decimal:
    """Poisson sampling, add or remove; ``epsilons[k]``: ε(k) without sampling, for k = 2 … alpha."""

    def decimal(x: Fraction) -> Decimal:
        return Decimal(x.numerator) / Decimal(x.denominator)

    total = decimal((1 - q) ** (alpha - 1) * (1 + (alpha - 1) * q))
    for k in range(2, alpha + 1):
        weight = math.comb(alpha, k) * (1 - q) ** (alpha - k) * q**k
        total += decimal(weight) * (decimal(epsilons[k]) * (k - 1)).exp()
    return total.ln() / (alpha - 1)


# ---- SPEC §6 integer noise -----------------------------------------------------------------------------------------


def derive(secret: bytes, label: str, *fields: bytes, length: int = 32) -> bytes:
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (label.encode(), *fields))
    return bytes(HKDF(secret, length, bytes(32), SHA256, context=info))


def stream(key: bytes, start: int, count: int) -> list[int]:
    """Words ``start`` (even) … of the AES-128-CTR stream, read as little-endian 64-bit integers."""
    blocks = range(start // 2, start // 2 + -(-count // 2))
    out = AES.new(key, AES.MODE_ECB).encrypt(b"".join(block.to_bytes(16, "big") for block in blocks))
    return [int.from_bytes(out[8 * i : 8 * i + 8], "little") for i in range(count)]


def skellam_table(variance: Fraction) -> tuple[int, int, list[int], list[int]]:
    """(cut K, slot bits m, thresholds t_i, aliases a_i). Slot i stands for the value i - K."""
    mu = float(variance)
    limit = -137 * math.log(2)

    def log_tail(k: int) -> float:
        return k * k / (math.hypot(mu, k) + mu) - k * math.asinh(k / mu)

    cut = next(k for k in range(1, 10**7) if log_tail(k) <= limit)
    weights = [0] * (cut + 1)
    above, here = 0, 2**192
    weights[cut] = here
    for k in range(cut, 0, -1):
        above, here = here, above + 2 * variance.denominator * k * here // variance.numerator
        weights[k - 1] = here
    total = weights[0] + 2 * sum(weights[1:])
    scaled = [w * 2**192 // total for w in weights]
    scaled[0] += 2**192 - scaled[0] - 2 * sum(scaled[1:])
    bits = max(4, (2 * cut).bit_length())
    capacity = 2 ** (192 - bits)
    mass = scaled[:0:-1] + scaled
    mass += [0] * (2**bits - len(mass))
    alias = list(range(2**bits))
    small = [i for i, w in enumerate(mass) if w < capacity]
    large = [i for i, w in enumerate(mass) if w >= capacity]
    while small:
        i, j = small.pop(), large[-1]
        alias[i] = j
        mass[j] -= capacity - mass[i]
        if mass[j] < capacity:
            small.append(large.pop())
    for j in large:
        mass[j] = 0
    return cut, bits, mass, alias


def draw(table: tuple[int, int, list[int], list[int]], secret: bytes, count: int) -> list[int]:
    cut, bits, thresholds, aliases = table
    ties = derive(secret, "securefl/v1/dp/noise-stream", b"ties", length=16)
    drawn = []
    for at, word in enumerate(stream(derive(secret, "securefl/v1/dp/noise-stream", b"words", length=16), 0, count)):
        slot, prefix = word >> (64 - bits), word % 2 ** (64 - bits)
        if prefix == thresholds[slot] >> 128:
            high, low = stream(ties, 2 * at, 2)
            own = (high << 64 | low) < thresholds[slot] % 2**128
        else:
            own = prefix < thresholds[slot] >> 128
        drawn.append((slot if own else aliases[slot]) - cut)
    return drawn


# ---- SPEC §7 rounding, §8 ledger -----------------------------------------------------------------------------------


def l2_bound(scale: float, clip_norm: float, dimension: int, beta: float) -> float:
    length = scale * clip_norm
    spread = math.sqrt(2 * math.log(1 / beta)) * (length + math.sqrt(dimension) / 2)
    return min(length + math.sqrt(dimension), math.sqrt(length**2 + dimension / 4 + spread))


def round_values(values: list[float], scale: float, bound: int, seed: bytes) -> list[int]:
    """Stochastic rounding of values already within the clip norm, cut to ±``bound``."""
    key = derive(seed, "securefl/v1/encoding/rounding", length=16)
    words = stream(key, 0, len(values))
    rounded = [math.floor(x * scale + (word >> 11) * 2.0**-53) for x, word in zip(values, words, strict=True)]
    return [min(max(x, -bound), bound) for x in rounded]


def row_hash(before: bytes, position: int, kind: str, number: int, content: str, cost: float, distance: float) -> bytes:
    fields = [str(position), kind, str(number), content, cost.hex(), distance.hex()]
    hasher = TupleHash256.new(digest_bytes=32, custom=b"securefl/v1/dp/ledger-row")
    return hasher.update(before, *(field.encode() for field in fields)).digest()
