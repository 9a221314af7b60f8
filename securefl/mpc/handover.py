"""From a client to the parties: which bytes of a value go to whom, by engine. SPEC mpc §9, SPEC mpc-replicated §7.

What can be a random part is the stream of a key that the client draws, so that a party gets sixteen bytes for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from securefl.errors import DecodeError
from securefl.mpc.channel import HELPER
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party, as_bytes
from securefl.mpc.shared import Shared
from securefl.primitives.entropy import Entropy
from securefl.primitives.prg import KEY_BYTES, Keystream
from securefl.wire import Buffer

__all__ = ["expand", "hand_out", "take"]


def expand(key: Buffer, shape: Sequence[int]) -> Words:
    """uint64 words of a stream: a random part of what a client shares."""
    words = np.empty(tuple(shape), np.uint64)
    if words.size:
        Keystream(bytes(key)).fill(words.reshape(-1))
    return words


def hand_out(engine: str, words: Words, entropy: Entropy) -> list[Buffer]:
    """What the client sends to each party, of a value that it shares.

    Dealer: a key to server 0, the rest to server 1, nothing to the helper. Replicated: components 0 and 1 are streams,
    2 the rest; every party gets the two that it holds.
    """
    keys = [entropy.token(KEY_BYTES) for _ in range(2 if engine == "replicated" else 1)]
    rest = words
    for key in keys:
        rest = rest - expand(key, words.shape)
    last = as_bytes(np.asarray(rest, order="C")) if words.size else memoryview(b"")
    if engine == "replicated":
        return [b"".join(keys), b"".join((keys[1], last)), b"".join((last, keys[0]))]
    return [keys[0], last, b""]


def take(party: Party, shape: tuple[int, ...], fraction: int, payload: memoryview) -> Shared:
    """The tensor from what this party got. Raises :class:`DecodeError` for bytes of another number than are due."""
    held = (party.me, (party.me + 1) % 3) if party.replicated else (party.me,) if party.me < HELPER else ()
    last = HELPER if party.replicated else 1  # the component that is no stream
    sizes = [8 * math.prod(shape) if component == last else KEY_BYTES for component in held]
    if payload.nbytes != sum(sizes):
        raise DecodeError(
            f"the part of a tensor of shape {list(shape)} has {sum(sizes)} bytes at this party, got {payload.nbytes}"
        )
    parts: list[Words] = []
    at = 0
    for component, size in zip(held, sizes, strict=True):
        piece = payload[at : at + size]
        parts.append(np.frombuffer(piece, np.uint64).reshape(shape) if component == last else expand(piece, shape))
        at += size
    if party.replicated:
        return Shared(party, shape, fraction, parts[0], second=parts[1])
    return Shared(party, shape, fraction, parts[0] if parts else None)
