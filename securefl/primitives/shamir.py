"""Shamir sharing of 32-byte secrets (Shamir 1979, "How to share a secret", §2).

Legend: n parties with points 1 … n, threshold t, prime p = 2^256 + 297, polynomial f of degree t − 1 with
f(0) = secret; party x holds f(x). Any t shares give the secret; t − 1 give nothing.

Python integers are not constant-time: see docs/sharp-edges.md for what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Final

from securefl.errors import AuthenticationError, DecodeError
from securefl.primitives.entropy import Entropy

__all__ = ["PRIME", "SECRET_BYTES", "SHARE_BYTES", "Interpolation", "share_from_bytes", "split"]

#: The smallest prime above 2**256: every 32-byte secret is a field element.
PRIME: Final = 2**256 + 297
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33

# A coefficient is 48 uniformly random bytes mod p: statistical distance below 2**-127 from uniform.
_COEFFICIENT_BYTES: Final = 48
_RUN: Final = 32


def split(secret: bytes, *, points: int, threshold: int, entropy: Entropy) -> list[bytes]:
    """Shares of ``secret`` for the points 1 … ``points``, 33 bytes each, big-endian.

    Pre-conditions: ``len(secret) == 32``, ``1 <= threshold <= points < PRIME``.
    """
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    if not 1 <= threshold <= points:
        raise ValueError(f"threshold {threshold} of {points} points")
    random = entropy.token(_COEFFICIENT_BYTES * (threshold - 1))
    coefficients = [
        int.from_bytes(random[at : at + _COEFFICIENT_BYTES], "big") % PRIME
        for at in range(0, len(random), _COEFFICIENT_BYTES)
    ]
    coefficients.append(int.from_bytes(secret, "big"))
    # Horner; the secret is the constant term, so it comes last. A product with a small point grows by few bits, so
    # reducing once per run of coefficients is cheaper than at every step.
    runs = [coefficients[at : at + _RUN] for at in range(0, len(coefficients), _RUN)]
    shares = []
    for x in range(1, points + 1):
        y = 0
        for run in runs:
            for coefficient in run:
                y = y * x + coefficient
            y %= PRIME
        shares.append(y.to_bytes(SHARE_BYTES, "big"))
    return shares


def share_from_bytes(raw: bytes | memoryview) -> int:
    """A share's value. Raises :class:`DecodeError` unless it is 33 bytes encoding an element of the field."""
    if len(raw) != SHARE_BYTES:
        raise DecodeError(f"a share has {SHARE_BYTES} bytes, got {len(raw)}")
    value = int.from_bytes(raw, "big")
    if value >= PRIME:
        raise DecodeError("a share is not an element of the field")
    return value


class Interpolation:
    """Lagrange interpolation from a fixed set of points: the coefficients are computed once and serve every secret."""

    def __init__(self, points: Sequence[int]) -> None:
        if not points or len(set(points)) != len(points) or not all(0 < x < PRIME for x in points):
            raise ValueError("interpolation needs distinct points above 0")
        self.points = tuple(points)
        self._at_zero = self._coefficients(0)

    def _coefficients(self, target: int) -> list[int]:
        # λ_i = Π_{j≠i} (target − x_j) / (x_i − x_j). The points are small: their products are taken as integers, in C.
        result = []
        for i, x in enumerate(self.points):
            others = self.points[:i] + self.points[i + 1 :]
            numerator = prod(target - other for other in others) % PRIME
            denominator = prod(x - other for other in others) % PRIME
            result.append(numerator * pow(denominator, -1, PRIME) % PRIME)
        return result

    def secret(self, shares: Mapping[int, int]) -> bytes:
        """The 32-byte secret from ``{point: value}``; only this interpolation's points are used.

        Raises :class:`AuthenticationError` when the shares give no 32-byte value: at least one is wrong.
        """
        value = sum(c * shares[x] for c, x in zip(self._at_zero, self.points, strict=True)) % PRIME
        try:
            return value.to_bytes(SECRET_BYTES, "big")
        except OverflowError:
            raise AuthenticationError(
                "the shares do not give a 32-byte secret: at least one of them is wrong"
            ) from None

    def value_at(self, point: int, shares: Mapping[int, int]) -> int:
        """The share that ``point`` must have if these shares are right."""
        return sum(c * shares[x] for c, x in zip(self._coefficients(point), self.points, strict=True)) % PRIME
