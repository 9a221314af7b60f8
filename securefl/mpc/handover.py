"""From a client to the parties: which bytes of a value go to whom, by engine. SPEC mpc §9, SPEC mpc-replicated §7.

What can be a random part is the stream of a key that the client draws, so that a party gets sixteen bytes for it. What
two parties are told alike goes into the streams that they have in common (:meth:`Party.bind`): a client that tells them
different things gets results under masks that do not fit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from securefl.errors import DecodeError
from securefl.mpc.channel import HELPER
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party, as_bytes
from securefl.mpc.shared import Shared, Sown
from securefl.primitives.entropy import Entropy
from securefl.primitives.prg import KEY_BYTES, Keystream, accumulate
from securefl.wire import Buffer

__all__ = ["expand", "hand_out", "take"]


def expand(key: Buffer, shape: Sequence[int]) -> Words:
    """uint64 words of a stream: a random part of what a client shares."""
    words = np.empty(tuple(shape), np.uint64)
    if words.size:
        Keystream(bytes(key)).fill(words.reshape(-1))
    return words


def hand_out(engine: str, words: Words, entropy: Entropy, sown: bool = False) -> list[Buffer]:
    """What the client sends to each party, of a value that it shares. ``words`` (contiguous) do not stay as they are.

    Dealer: a key to server 0, the rest to server 1, nothing to the helper, or the key too if ``sown``. Replicated:
    components 0 and 1 are streams, 2 the rest; every party gets the two that it holds.
    """
    keys = [entropy.token(KEY_BYTES) for _ in range(2 if engine == "replicated" else 1)]
    rest = np.ascontiguousarray(words).reshape(-1)
    accumulate(rest, (), keys)
    last = as_bytes(rest) if rest.size else memoryview(b"")
    if engine == "replicated":
        return [b"".join(keys), b"".join((keys[1], last)), b"".join((last, keys[0]))]
    return [keys[0], last, keys[0] if sown else b""]


def take(party: Party, shape: tuple[int, ...], fraction: int, payload: memoryview, sown: bool = False) -> Shared:
    """The tensor from what this party got. Raises :class:`DecodeError` for bytes of another number than are due."""
    words = 8 * math.prod(shape)
    if party.replicated:
        if sown:
            raise DecodeError("tensors are sown for a helper, and these parties have none")
        return _replicated(party, shape, fraction, payload, words)
    due = (KEY_BYTES, words, KEY_BYTES if sown else 0)[party.me]
    _check(shape, payload, due)
    part = None
    if party.me == 1:
        part = np.frombuffer(payload, np.uint64).reshape(shape)
    elif due:
        part = expand(payload, shape)
        if sown:
            party.bind(HELPER - party.me, bytes(payload))
    tensor = Shared(party, shape, fraction, None if party.me == HELPER else part)
    tensor.sown = Sown(part if party.me == HELPER else None) if sown else None
    return tensor


def _replicated(party: Party, shape: tuple[int, ...], fraction: int, payload: memoryview, words: int) -> Shared:
    neighbours = {party.me: (party.me - 1) % 3, (party.me + 1) % 3: (party.me + 1) % 3}  # by component
    sizes = {component: words if component == HELPER else KEY_BYTES for component in neighbours}
    _check(shape, payload, sum(sizes.values()))
    held: list[Words] = []
    at = 0
    for component, other in neighbours.items():
        piece = payload[at : at + sizes[component]]
        party.bind(other, hashlib.sha256(piece).digest())
        held.append(np.frombuffer(piece, np.uint64).reshape(shape) if component == HELPER else expand(piece, shape))
        at += sizes[component]
    return Shared(party, shape, fraction, held[0], second=held[1])


def _check(shape: tuple[int, ...], payload: memoryview, due: int) -> None:
    if payload.nbytes != due:
        raise DecodeError(
            f"the part of a tensor of shape {list(shape)} has {due} bytes at this party, got {payload.nbytes}"
        )
