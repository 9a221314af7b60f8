"""What an invitation may propose beside a plain weighted mean: noise, and compression. Each has one encoding."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

from securefl.errors import ConfigurationError, DecodeError
from securefl.wire import Reader, Writer

__all__ = [
    "CODERS",
    "LARGEST_SCALE",
    "SMALLEST_SCALE",
    "CompressionTerms",
    "NoiseTerms",
    "read_float",
    "read_text",
    "write_float",
]

#: Coders of one sum without public state; pruned and powersgd carry state from round to round.
CODERS: Final = ("random_k", "random_projection")
#: Mean squares beyond these are no scale of float32 values; below: of a model that no longer moves.
SMALLEST_SCALE: Final = 1e-30
LARGEST_SCALE: Final = 1e30
MAX_NAME: Final = 2**12
SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class NoiseTerms:
    """Distributed noise: each client's share of it, for user-level differential privacy of the sum.

    The sum over ``minimum_survivors`` clients, less ``colluders`` of them, has noise of ``noise_multiplier`` times
    ``clip_norm``. ``population``: most clients in a round.
    """

    clip_norm: float
    noise_multiplier: float
    population: int
    minimum_survivors: int
    colluders: int

    def write(self, writer: Writer) -> None:
        write_float(write_float(writer, self.clip_norm), self.noise_multiplier)
        writer.u32(self.population).u32(self.minimum_survivors).u32(self.colluders)

    @classmethod
    def read(cls, reader: Reader) -> NoiseTerms:
        return cls(read_float(reader), read_float(reader), reader.u32(), reader.u32(), reader.u32())


@dataclass(frozen=True, slots=True)
class CompressionTerms:
    """``coder``: "random_k", "random_projection" or "" for none; ``fraction``: of the values that it keeps.

    ``levels``: of the rotated grid, 0 for the fixed-point grid of the invitation; ``clip_multiple``: of that grid, in
    standard deviations. ``error_feedback``, ``decay``: whether clients keep what the coder dropped, and how much of it
    comes back. ``seed``: 32 public bytes, drawn before any update of the run. ``mean_square``, ``sum_square``: of the
    values, as an earlier sum gave them; both 0 before there was one (the fixed-point grid is used then).
    Raises :class:`ConfigurationError` for settings out of range.
    """

    coder: str
    fraction: float
    levels: int
    clip_multiple: float
    error_feedback: bool
    decay: float
    seed: bytes
    mean_square: float = 0.0
    sum_square: float = 0.0

    def __post_init__(self) -> None:
        if self.coder and self.coder not in CODERS:
            raise ConfigurationError(
                f"inside other systems an update is reduced by {' or '.join(CODERS)}; {self.coder!r} keeps public "
                "state from round to round, which these integrations do not carry"
            )
        if not (0 < self.fraction <= 1 and 0 <= self.decay <= 1 and 1e-3 <= self.clip_multiple <= 1e3):
            raise ConfigurationError("fraction lies in (0, 1], decay in [0, 1], clip_multiple in 0.001 to 1000")
        if self.levels and not 2 <= self.levels <= 255:
            raise ConfigurationError(f"levels must be 2 to 255, or 0 for the fixed-point grid, got {self.levels}")
        if len(self.seed) != SEED_BYTES or not (0 <= self.mean_square < math.inf and 0 <= self.sum_square < math.inf):
            raise ConfigurationError("compression needs a public seed of 32 bytes and scales of at least 0")
        if self.mean_square and not SMALLEST_SCALE <= self.mean_square <= LARGEST_SCALE:
            raise ConfigurationError(f"a mean square is 0 for none, or {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}")
        if not self.coder and not self.levels:
            raise ConfigurationError("compression by nothing: name a coder, or the levels of the rotated grid")

    def write(self, writer: Writer) -> None:
        write_float(writer.blob(self.coder.encode()), self.fraction).u8(self.levels)
        write_float(write_float(writer, self.clip_multiple).u8(self.error_feedback), self.decay)
        write_float(write_float(writer.raw(self.seed, SEED_BYTES), self.mean_square), self.sum_square)

    @classmethod
    def read(cls, reader: Reader) -> CompressionTerms:
        coder, fraction, levels, multiple = read_text(reader), read_float(reader), reader.u8(), read_float(reader)
        feedback, decay, seed = read_flag(reader), read_float(reader), bytes(reader.raw(SEED_BYTES))
        scale = read_float(reader), read_float(reader)
        try:
            return cls(coder, fraction, levels, multiple, feedback, decay, seed, *scale)
        except ConfigurationError as error:
            raise DecodeError(f"an invitation to a compressed sum that cannot be: {error}") from None


def write_float(writer: Writer, value: float) -> Writer:
    """A float64's bits."""
    return writer.u64(int.from_bytes(struct.pack(">d", value), "big"))


def read_float(reader: Reader) -> float:
    """Raises :class:`DecodeError` for what is not finite."""
    (value,) = struct.unpack(">d", reader.raw(8))
    if not math.isfinite(value):
        raise DecodeError("an invitation holds a number that is not finite")
    return float(value)


def read_text(reader: Reader) -> str:
    """A name. Raises :class:`DecodeError` for bytes that are not UTF-8."""
    try:
        return bytes(reader.blob(limit=MAX_NAME)).decode()
    except UnicodeDecodeError:
        raise DecodeError("a name in an invitation is not UTF-8") from None


def read_flag(reader: Reader) -> bool:
    """One byte, 0 or 1."""
    flag = reader.u8()
    if flag > 1:
        raise DecodeError(f"{flag} is no flag")
    return bool(flag)
