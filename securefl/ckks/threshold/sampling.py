"""What is drawn, from AES-128-CTR streams, one key per polynomial. SPEC: protocols/ckks-threshold/SPEC.md §3.2.

Every secret stream's key is derived from one 32-byte seed per party and attempt, with the attempt's context, the
purpose and the number of the polynomial in the derivation, so that no key serves two polynomials.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.threshold.wide import DEGREE, LIMB_BITS, Limbs, limbs_of
from securefl.primitives.kdf import Label, derive, tuple_hash
from securefl.primitives.prg import KEY_BYTES, Keystream

__all__ = ["Purpose", "add_flood", "reference", "stream_key", "ternary"]


class Purpose(IntEnum):
    """What a secret stream is for. Numbers enter the derivation."""

    SECRET = 1
    KEY_NOISE = 2
    EPHEMERAL = 3
    NOISE_0 = 4
    NOISE_1 = 5
    FLOOD = 6


def stream_key(seed: bytes, context: bytes, purpose: Purpose, index: int = 0) -> bytes:
    """The key of the stream for one polynomial."""
    fields = (context, bytes([purpose]), index.to_bytes(4, "big"))
    return derive(seed, Label.THRESHOLD_STREAM, *fields, length=KEY_BYTES)


def _words(key: bytes, count: int) -> NDArray[np.uint64]:
    words = np.empty(count, dtype=np.uint64)
    Keystream(key).fill(words)
    return words


def reference(context: bytes) -> Limbs:
    """The common polynomial a of an attempt, uniform in [0, 2^208): the stream of a public key, in planes of words."""
    words = _words(tuple_hash(Label.THRESHOLD_REFERENCE, context)[:KEY_BYTES], 4 * DEGREE).reshape(4, DEGREE)
    words[3] &= np.uint64(0xFFFF)
    return limbs_of(words)


def ternary(key: bytes) -> NDArray[np.int8]:
    """int8[N], uniform on {−1, 0, 1}: the stream's bytes below 255, modulo 3, less 1."""
    drawn = _words(key, DEGREE // 4).view(np.uint8)  # twice what is needed
    kept = drawn[drawn < 255][:DEGREE]
    return (kept % 3).astype(np.int8) - np.int8(1)


def add_flood(limbs: Limbs, key: bytes, bits: int) -> None:
    """Add an integer uniform on [−2^bits, 2^bits) to every coefficient of ``limbs`` [8, N]; not canonical after.

    ``bits``: 64 to 127. Word j of the stream is the low half of coefficient j, word N + j the high half.
    """
    low, high = _words(key, 2 * DEGREE).reshape(2, DEGREE)
    high &= np.uint64((1 << (bits + 1 - 64)) - 1)
    empty = np.zeros_like(low)
    limbs += limbs_of(np.stack((low, high, empty, empty)))
    limbs[bits // LIMB_BITS] -= 1 << bits % LIMB_BITS
