"""Mask streams: AES-128-CTR keystreams added into a vector over Z_2^64.

A stream is AES-128 in counter mode over zeros: 16-byte key, initial counter block zero, big-endian counter
(NIST SP 800-38A §6.5), read as little-endian 64-bit words. A key serves one stream: keys come from
:func:`securefl.primitives.kdf.derive` with the session, the pair and the purpose in the derivation.

Many streams are worked block by block: the block of the accumulator stays in the cache while every stream is
added to it, so memory traffic does not grow with the number of streams.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from securefl.types import RingVector

__all__ = ["KEY_BYTES", "MAX_STREAM_BYTES", "Keystream", "accumulate", "stream_words"]

KEY_BYTES: Final = 16
#: 2**32 blocks per key: far inside the birthday bound of AES's 128-bit block (distinguishing advantage < 2**-64).
MAX_STREAM_BYTES: Final = 2**36

#: Words per block: the block, the keystream buffer and the zeros fit a 512 KiB second-level cache together.
_BLOCK_WORDS: Final = 1 << 14
_ZEROS: Final = memoryview(bytes(8 * _BLOCK_WORDS))


#: Counter mode from block 0.
_FROM_ZERO: Final = CTR(bytes(16))


def _stream(key: bytes, mode: CTR = _FROM_ZERO) -> CipherContext:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a stream key has {KEY_BYTES} bytes")
    return Cipher(AES(key), mode).encryptor()


def accumulate(vector: RingVector, add: Iterable[bytes], subtract: Iterable[bytes] = ()) -> None:
    """``vector += Σ stream(k) for k in add − Σ stream(k) for k in subtract`` (mod 2^64), in place.

    ``vector``: uint64[words], contiguous. Keys: 16 bytes each. No model-sized buffer is made.
    """
    if vector.nbytes > MAX_STREAM_BYTES:
        raise ValueError("a stream must not exceed 2**36 bytes")
    # Pairs of (stream, ufunc): context objects persist over blocks, so each stream runs on.
    work = [(_stream(key), np.add) for key in add] + [(_stream(key), np.subtract) for key in subtract]
    buffer = np.empty(_BLOCK_WORDS, dtype="<u8")
    for start in range(0, vector.size, _BLOCK_WORDS):
        block = vector[start : start + _BLOCK_WORDS]
        words = buffer[: block.size]
        target = words.view(np.uint8).data
        zeros = _ZEROS[: target.nbytes]
        for stream, combine in work:
            stream.update_into(zeros, target)
            combine(block, words, out=block)


class Keystream:
    """One stream, read in order; ``start`` (a multiple of 2 words) is where reading begins."""

    def __init__(self, key: bytes, start: int = 0) -> None:
        if start % 2:
            raise ValueError("a stream is entered at an AES block: an even word")
        self._cipher = _stream(key, CTR((start // 2).to_bytes(16, "big")) if start else _FROM_ZERO)

    def fill(self, out: RingVector) -> None:
        """Write the next ``out.size`` words to ``out`` (uint64, contiguous)."""
        self.fill_bytes(out.view(np.uint8).data)

    def fill_bytes(self, target: memoryview) -> None:
        """Write the next ``target.nbytes`` bytes of the stream to ``target`` (one dimension of bytes, writable)."""
        size = target.nbytes
        if size <= _ZEROS.nbytes:
            self._cipher.update_into(_ZEROS[:size], target)
            return
        for at in range(0, size, _ZEROS.nbytes):
            piece = target[at : at + _ZEROS.nbytes]
            self._cipher.update_into(_ZEROS[: piece.nbytes], piece)

    def __repr__(self) -> str:
        return "<Keystream>"


def stream_words(key: bytes, start: int, out: RingVector) -> None:
    """Fill ``out`` (uint64, contiguous) with words ``start`` … of the stream; ``start`` is a multiple of 2 words."""
    Keystream(key, start).fill(out)
