"""The downloaded model in 8 or 4 bits per weight: blocks of 64 weights with one float32 scale each.

A weight w of a block with largest magnitude a becomes round-half-even(w · h / a), h = 2^(bits−1) − 1, an integer in
[−h, h], stored as itself plus h: one byte, or two in a byte (first in the low half). Decoded it is within a / (2 h)
of w. Tensors with one axis (biases, norms) stay float32: few, and sensitive. Deterministic, so that all parties train
from the same model; clients send their update relative to it. SPEC: protocols/compression/SPEC.md §9.

    per tensor, in order: the scales a / h (float32, little-endian, one per block), then the integers; or the float32s
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.layout import Layout, TensorSpec
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.types import Tensors

__all__ = ["WeightFormat"]

BLOCK: Final = 64


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """``bits``: 8 or 4. Raises :class:`ConfigurationError` for others."""

    bits: Literal[4, 8] = 8

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigurationError(f"weights are downloaded in 8 or 4 bits, not {self.bits}")

    @property
    def half(self) -> int:
        """H."""
        return int(2 ** (self.bits - 1)) - 1

    def encode(self, tensors: Tensors) -> bytes:
        """The model's bytes. Raises :class:`InvalidInputError` for weights that are not finite float32."""
        return b"".join(self._encode(name, value) for name, value in tensors.items())

    def decode(self, data: bytes, layout: Layout) -> Tensors:
        """The tensors of ``layout``. Raises :class:`DecodeError` when the bytes are not such a model."""
        tensors, start = {}, 0
        for spec in layout.tensors:
            length = self._length(spec)
            tensors[spec.name] = self._decode(data[start : start + length], spec)
            start += length
        if start != len(data):
            raise DecodeError(f"a model of this layout has {start} bytes, got {len(data)}")
        return tensors

    def round_trip(self, tensors: Tensors) -> tuple[Tensors, int]:
        """What clients get, and how many bytes it takes them."""
        data = self.encode(tensors)
        return self.decode(data, Layout.of(tensors)), len(data)

    def length(self, layout: Layout) -> int:
        """Bytes of a model of this layout."""
        return sum(map(self._length, layout.tensors))

    def _length(self, spec: TensorSpec) -> int:
        if len(spec.shape) < 2:
            return 4 * spec.size
        return 4 * -(-spec.size // BLOCK) + -(-spec.size * self.bits // 8)

    def _encode(self, name: str, tensor: NDArray[np.floating]) -> bytes:
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise InvalidInputError(f"the weights {name!r} are not finite float32 values")
        if tensor.ndim < 2:
            return tensor.astype("<f4").tobytes()
        blocks = -(-tensor.size // BLOCK)
        padded = np.zeros((blocks, BLOCK), dtype=np.float32)
        padded.reshape(-1)[: tensor.size] = tensor.reshape(-1)
        scales = np.abs(padded).max(axis=1) / np.float32(self.half)
        # a scale that underflowed stands for zeros
        steps = np.divide(padded, scales[:, None], out=np.zeros_like(padded), where=scales[:, None] > 0)
        codes = (np.clip(np.rint(steps), -self.half, self.half) + self.half).astype(np.uint8).reshape(-1)
        codes = codes[: tensor.size]
        if self.bits == 4:
            codes = np.append(codes, np.zeros(codes.size % 2, dtype=np.uint8))
            codes = codes[::2] | codes[1::2] << 4
        return bytes(scales.astype("<f4").tobytes() + codes.tobytes())

    def _decode(self, data: bytes, spec: TensorSpec) -> NDArray[np.float32]:
        if len(data) != self._length(spec):
            raise DecodeError(f"the bytes end within tensor {spec.name!r}")
        if len(spec.shape) < 2:
            values = np.frombuffer(data, dtype="<f4").astype(np.float32)
        else:
            blocks = -(-spec.size // BLOCK)
            scales = np.frombuffer(data, dtype="<f4", count=blocks)
            codes = np.frombuffer(data, dtype=np.uint8, offset=4 * blocks)
            if self.bits == 4:
                codes = np.stack((codes & 15, codes >> 4), axis=1).reshape(-1)
            codes = codes[: spec.size]
            if codes.size and int(codes.max()) > 2 * self.half:
                raise DecodeError(f"tensor {spec.name!r} holds a code beyond {2 * self.half}")
            values = (codes.astype(np.float32) - np.float32(self.half)) * np.repeat(scales, BLOCK)[: spec.size]
        if not np.isfinite(values).all():
            raise DecodeError(f"tensor {spec.name!r} holds values that are not finite")
        return values.reshape(spec.shape)
