"""Where the integers stand in a polynomial: several digits per coefficient, on a lattice that the noise cannot leave.

Legend: n clients, M largest integer of a client, R base, k digits per coefficient, q the modulus of decoding, B bound
on the noise of a decoded coefficient, Δ the distance of lattice points (a power of two), c clients in a sum.

A client's coefficient is Σ_j v_j·R^j less the middle of its range, times Δ. The base is n·M + 1, so that digits of a
sum never carry, or the segment's window (``encoding.radix``). k is the largest for which every possible sum, times
Δ > 2B, stays below q/2 in magnitude; then Δ grows into what is left. So the sum's digits are read exactly whatever the
data are: coefficients, unlike slots, have no worst case in the data. SPEC: protocols/ckks-sum/SPEC.md §4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, DecodeError
from securefl.machine import Segment
from securefl.types import IntegerVector

__all__ = ["Lattice"]

_MAX_DIGITS = 62


@dataclass(frozen=True)
class _Run:
    """One segment: its digits per coefficient, and where its values and coefficients begin."""

    segment: Segment
    base: int
    digits: int
    first_value: int
    first: int

    @property
    def coefficients(self) -> int:
        return -(-self.segment.size // self.digits)

    @property
    def end(self) -> int:
        """One past its last coefficient."""
        return self.first + self.coefficients

    @property
    def span(self) -> int:
        """The largest coefficient of a client, before it is centred."""
        return _span(self.segment.max_value, self.base, self.digits)


def _span(max_value: int, base: int, digits: int) -> int:
    return int(max_value * (base**digits - 1) // (base - 1))


@dataclass(frozen=True)
class Lattice:
    """The layout of ``segments`` for at most ``clients`` clients under modulus ``q`` and noise bound ``bound``.

    ``align``: every segment begins at a multiple of so many coefficients, and what lies between is 0: parts that not
    every client has begin a ciphertext of their own.
    Raises :class:`ConfigurationError` when not even one integer per coefficient fits.
    """

    segments: tuple[Segment, ...]
    clients: int
    q: int
    bound: int
    align: int = 1

    def __post_init__(self) -> None:
        _ = self.runs, self.scale

    @cached_property
    def runs(self) -> tuple[_Run, ...]:
        """The segments with their places."""
        least = 1 << (2 * self.bound).bit_length()  # the smallest power of two above 2B
        runs, value, coefficient = [], 0, 0
        for part in self.segments:
            base = part.window or self.clients * part.max_value + 1
            digits = 0
            while digits < _MAX_DIGITS and self._fits(part, base, digits + 1, least):
                digits += 1
            if not digits:
                raise ConfigurationError(
                    f"sums of {self.clients} integers up to {part.max_value} do not fit beside the noise "
                    f"({self.q.bit_length()} bits of modulus, noise below 2^{self.bound.bit_length()}): "
                    "use fewer value bits, fewer clients or a larger parameter set"
                )
            run = _Run(part, base, min(digits, part.size), value, coefficient)
            runs.append(run)
            value += part.size
            coefficient = -(-(coefficient + run.coefficients) // self.align) * self.align
        return tuple(runs)

    def _fits(self, part: Segment, base: int, digits: int, scale: int) -> bool:
        return self._reach(part, base, digits) * scale + self.bound < self.q // 2

    def _reach(self, part: Segment, base: int, digits: int) -> int:
        """The largest magnitude of a sum of centred coefficients."""
        return self.clients * (_span(part.max_value, base, digits) // 2 + 1)

    @cached_property
    def scale(self) -> int:
        """Δ."""
        scale = 1 << (2 * self.bound).bit_length()
        while all(self._fits(run.segment, run.base, run.digits, 2 * scale) for run in self.runs):
            scale *= 2
        return scale

    @property
    def coefficients(self) -> int:
        """Coefficients of the whole vector, gaps between segments included."""
        return self.runs[-1].end

    @property
    def dimension(self) -> int:
        """Integers of the whole vector."""
        return sum(run.segment.size for run in self.runs)

    def encode(self, values: IntegerVector, start: int, stop: int) -> NDArray[np.int64]:
        """int64[stop − start]: the centred coefficients of that stretch, not yet times Δ; zeros beyond the last.

        ``values``: uint64[dimension], each within its segment's range (the caller has checked); where only the first
        segments' coefficients are asked for, their values suffice.
        """
        out = np.zeros(stop - start, dtype=np.int64)
        for run in self.runs:
            low, high = max(start, run.first), min(stop, run.first + run.coefficients)
            if low >= high:
                continue
            target = out[low - start : high - start]
            pad = run.segment.max_value // 2  # stands where the last digits have no value: in the middle
            for digit in reversed(range(run.digits)):
                piece = self._piece(run, values, digit, low, high).view(np.int64)
                target *= run.base
                target[: piece.size] += piece
                target[piece.size :] += pad
            target -= run.span // 2
        return out

    def decode(self, noisy: NDArray[np.int64], count: int | Sequence[int], start: int, out: IntegerVector) -> None:
        """Write into ``out`` (uint64[dimension]) what the coefficients ``start`` … of a sum over ``count`` clients say.

        ``count``: of all segments, or one per segment. ``noisy``: the centred decrypted coefficients.
        Raises :class:`DecodeError` when one is farther from the lattice than the noise can carry it, or is no sum of
        ``count`` clients: a wrong key, or a ciphertext that was altered or is not a sum of honest ones.
        """
        shift = self.scale.bit_length() - 1
        middle = self.scale >> 1
        moved = noisy + middle
        points = moved >> shift
        moved &= self.scale - 1  # distance from the lattice, plus the middle
        if moved.size and not middle - self.bound <= int(moved.min()) <= int(moved.max()) <= middle + self.bound:
            raise DecodeError("a decrypted sum lies off the lattice: wrong key, or a ciphertext is not a sum of ours")
        counts = [count] * len(self.runs) if isinstance(count, int) else count
        at = start
        for run, own in zip(self.runs, counts, strict=True):
            low, high = max(start, run.first), min(start + points.size, run.end)
            if low < high:
                self._no_values(points[at - start : low - start])
                self._read(run, points[low - start : high - start], own, low, out)
                at = high
        self._no_values(points[at - start :])

    @staticmethod
    def _no_values(points: NDArray[np.int64]) -> None:
        if points.any():
            raise DecodeError("a decrypted sum has values beyond the vector's end: it is not a sum of ours")

    def _read(self, run: _Run, points: NDArray[np.int64], count: int, low: int, out: IntegerVector) -> None:
        max_value, base = run.segment.max_value, run.base
        rest = points + count * (run.span // 2)
        if int(rest.min()) < 0 or int(rest.max()) > count * run.span:
            raise DecodeError(f"a decrypted sum is no sum of {count} clients")
        # The first value of the window that is read: 0 for exact digits.
        first = (count * max_value + 1 - base) // 2 if run.segment.window else 0
        exact = base > self.clients * max_value
        if exact:
            first = 0
        rest -= first * sum(base**digit for digit in range(run.digits))
        if exact:  # nothing is negative: unsigned division is faster
            self._read_exact(run, rest.view(np.uint64), count, low, out)
            return
        for digit in range(run.digits):
            higher = rest // base
            piece = rest - higher * base
            target = self._piece(run, out, digit, low, low + points.size)
            np.add(piece[: target.size], first, out=target.view(np.int64))
            rest = higher

    def _read_exact(self, run: _Run, rest: IntegerVector, count: int, low: int, out: IntegerVector) -> None:
        base, largest, high = np.uint64(run.base), count * run.segment.max_value, low + rest.size
        for digit in range(run.digits):
            target = self._piece(run, out, digit, low, high)
            if digit + 1 < run.digits:
                higher = rest // base
                rest -= higher * base
            else:
                higher = rest
            target[:] = rest[: target.size]
            if target.size and int(target.max()) > largest:
                raise DecodeError(f"a digit of a decrypted sum is no sum of {count} clients")
            rest = higher

    @staticmethod
    def _piece(run: _Run, values: IntegerVector, digit: int, low: int, high: int) -> IntegerVector:
        """The values that are digit ``digit`` of coefficients ``low`` … ``high``: a view, shorter at the end."""
        begin = run.first_value + digit * run.coefficients - run.first
        end = run.first_value + run.segment.size
        return values[min(begin + low, end) : min(begin + high, end)]
