"""A few exact integers behind the values: the client's weight, its energy and a check. SPEC compression §7.

Each is written in digits of base 2^16, lowest first, one lane per digit. Sums of digits are digits of the sum up to
carries, so Σ_k 2^(16 k) S_k is the sum, exactly.

energy: floor(q · 2^32 + 1/2), at most 2^48 − 1, where q is the mean square of the client's values over a public
reference. check: Σ_j (1 + j mod 255) v_j over the client's integers v; compared with the same of the decoded sums it
finds a sum that left a narrow window (a single one always, several unless their errors cancel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from securefl.errors import InvalidInputError
from securefl.machine import Segment
from securefl.types import IntegerVector

__all__ = ["Tail", "checksum"]

DIGIT_BITS: Final = 16
ENERGY_BITS: Final = 48
ENERGY_UNIT: Final = 2.0**-32
_PERIOD: Final = 255


def checksum(values: IntegerVector) -> int:
    """Σ_j (1 + j mod 255) v_j, exact; uint64[m] of sums below 2^40."""
    whole = values.size // _PERIOD * _PERIOD
    factors = np.arange(1, _PERIOD + 1, dtype=np.uint64)
    columns = values[:whole].reshape(-1, _PERIOD).sum(axis=0)
    rest = values[whole:]
    return sum(map(int, columns * factors)) + sum(map(int, rest * factors[: rest.size]))


@dataclass(frozen=True, slots=True)
class Tail:
    """``max_weight``: the largest weight. ``values``: the segment that the check is over, ``None`` for no check."""

    max_weight: int
    values: Segment | None = None

    @property
    def _widths(self) -> tuple[int, ...]:
        """Digits of weight, energy and check."""
        widths = [_digits(self.max_weight), ENERGY_BITS // DIGIT_BITS]
        if self.values is not None:
            widths.append(_digits(_PERIOD * self.values.size * self.values.max_value))
        return tuple(widths)

    @property
    def segment(self) -> Segment:
        return Segment(sum(self._widths), 2**DIGIT_BITS - 1)

    def encode(self, weight: int, energy: float, values: IntegerVector, out: IntegerVector) -> None:
        """Write uint64[segment.size] to ``out``. ``energy``: q >= 0; ``values``: the client's integers.

        Raises :class:`InvalidInputError` for a weight that is not an integer from 1 to ``max_weight``.
        """
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= self.max_weight:
            raise InvalidInputError(
                f"a weight must be an integer from 1 to {self.max_weight} (max_weight), got {weight!r}"
            )
        numbers = [weight, int(min(math.floor(energy / ENERGY_UNIT + 0.5), 2**ENERGY_BITS - 1))]
        if self.values is not None:
            numbers.append(checksum(values))
        at = 0
        for number, width in zip(numbers, self._widths, strict=True):
            for place in range(width):
                out[at + place] = number >> DIGIT_BITS * place & (2**DIGIT_BITS - 1)
            at += width

    def decode(self, total: IntegerVector) -> tuple[int, float, int | None]:
        """The sums of the weights, of the energies q, and of the checks (``None`` without)."""
        numbers, at = [], 0
        for width in self._widths:
            numbers.append(_composed(total[at : at + width].tolist()))
            at += width
        return numbers[0], numbers[1] * ENERGY_UNIT, numbers[2] if len(numbers) > 2 else None


def _digits(largest: int) -> int:
    return -(-largest.bit_length() // DIGIT_BITS)


def _composed(digits: Sequence[int]) -> int:
    return sum(digit << DIGIT_BITS * place for place, digit in enumerate(digits))
