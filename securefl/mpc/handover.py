"""From a client to the parties: which bytes of a value go to whom, by engine. SPEC mpc §9, SPEC mpc-replicated §7.

What can be a random part is the stream of a key that the client draws, so that a party gets sixteen bytes for it. What
two parties are told alike goes into the streams that they have in common (:meth:`Party.bind`): a client that tells them
different things gets results under masks that do not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from securefl.errors import DecodeError
from securefl.mpc.channel import HELPER
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party, as_bytes
from securefl.mpc.shared import Masked, Shared
from securefl.primitives.entropy import Entropy
from securefl.primitives.prg import KEY_BYTES, Keystream, accumulate
from securefl.wire import Buffer

__all__ = ["Handed", "draw_keys", "expand", "hand_out", "hand_out_under", "take"]

#: Words worked on at one time: with what is made of them they stay in the cache.
_BLOCK: Final = 1 << 13
_TWO: Final = np.uint64(2)

#: What one party is sent: bytes one after the other.
Handed = tuple[Buffer, ...]


def expand(key: Buffer, shape: Sequence[int]) -> Words:
    """uint64 words of a stream: a random part of what a client shares."""
    words = np.empty(tuple(shape), np.uint64)
    if words.size:
        Keystream(bytes(key)).fill(words.reshape(-1))
    return words


def draw_keys(engine: str, entropy: Entropy, opened: bool = False) -> list[bytes]:
    """The keys of the streams under which a client shares one value."""
    return [entropy.token(KEY_BYTES) for _ in range(2 if opened or engine == "replicated" else 1)]


def hand_out(engine: str, words: Words, entropy: Entropy, opened: bool = False) -> list[Handed]:
    """:func:`hand_out_under` fresh keys."""
    return hand_out_under(engine, words, draw_keys(engine, entropy, opened), opened)


def hand_out_under(engine: str, words: Words, keys: Sequence[bytes], opened: bool = False) -> list[Handed]:
    """What the client sends to each party, of a value that it shares. ``words`` (contiguous) do not stay as they are.

    ``keys``: of :func:`draw_keys`, for this value alone. Dealer: a key to server 0, the rest to server 1, nothing to
    the helper; with ``opened``, the value under two streams to both servers, the key of one to each, and both keys to
    the helper. Replicated: components 0 and 1 are streams, 2 the rest; every party gets the two that it holds.
    """
    rest = np.ascontiguousarray(words).reshape(-1)
    accumulate(rest, add=keys if opened else (), subtract=() if opened else keys)
    last = as_bytes(rest)
    if opened:
        return [(last, keys[0]), (last, keys[1]), (*keys,)]
    if engine == "replicated":
        return [(*keys,), (last, keys[1]), (last, keys[0])]
    return [(keys[0],), (last,), ()]


def take(party: Party, shape: tuple[int, ...], fraction: int, payload: memoryview, opened: bool = False) -> Shared:
    """The tensor from what this party got. Raises :class:`DecodeError` for bytes of another number than are due."""
    words = 8 * math.prod(shape)
    if party.replicated:
        if opened:
            raise DecodeError("values are opened to the servers of a helper, and these parties have none")
        return _replicated(party, shape, fraction, payload, words)
    if opened:
        return _opened(party, shape, fraction, payload, words)
    _check(shape, payload, (KEY_BYTES, words, 0)[party.me])
    part = None
    if party.me == 1:
        part = np.frombuffer(payload, np.uint64).reshape(shape)
    elif party.me == 0:
        part = expand(payload, shape)
    return Shared(party, shape, fraction, part)


def _opened(party: Party, shape: tuple[int, ...], fraction: int, payload: memoryview, words: int) -> Shared:
    """A value of which the client gave the opened form: m = x + λ₀ + λ₁, and streams for λ₀ and λ₁."""
    _check(shape, payload, 2 * KEY_BYTES if party.is_helper else words + KEY_BYTES)
    if party.is_helper:
        keys = [bytes(payload[:KEY_BYTES]), bytes(payload[KEY_BYTES:])]
        for server, key in enumerate(keys):
            party.bind(server, key)
        apart = expand(keys[0], shape)
        accumulate(apart.reshape(-1), add=(), subtract=keys[1:])
        return Shared(party, shape, fraction, None, Masked(None, lambda: expand(keys[1], shape) * _TWO + apart, apart))
    key = bytes(payload[words:])
    party.bind(HELPER, key)
    party.bind_alike(party.peer, payload[:words])
    m = np.frombuffer(payload[:words], np.uint64)
    part, factor = np.empty((2, m.size), np.uint64)
    stream = Keystream(key)
    for start in range(0, m.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        mask = part[block]
        stream.fill(mask)
        np.subtract(m[block], mask, out=factor[block])
        factor[block] -= mask
        if party.me == 0:
            np.subtract(m[block], mask, out=mask)
        else:
            np.negative(mask, out=mask)
    m, part, factor = (array.reshape(shape) for array in (m, part, factor))
    opened = Masked(m, (lambda: m - part) if party.me == 0 else (lambda: np.negative(part)), factor)
    return Shared(party, shape, fraction, part, opened)


def _replicated(party: Party, shape: tuple[int, ...], fraction: int, payload: memoryview, words: int) -> Shared:
    """Of each of the two components its key or its words; the words come first."""
    held = (party.me, (party.me + 1) % 3)
    others = {held[0]: (party.me - 1) % 3, held[1]: held[1]}  # by component: who else holds it
    sizes = {component: words if component == HELPER else KEY_BYTES for component in held}
    _check(shape, payload, sum(sizes.values()))
    found: dict[int, Words] = {}
    at = 0
    for component in sorted(held, key=lambda component: component != HELPER):
        piece = payload[at : at + sizes[component]]
        party.bind_alike(others[component], piece)
        found[component] = (
            np.frombuffer(piece, np.uint64).reshape(shape) if component == HELPER else expand(piece, shape)
        )
        at += sizes[component]
    return Shared(party, shape, fraction, found[held[0]], second=found[held[1]])


def _check(shape: tuple[int, ...], payload: memoryview, due: int) -> None:
    if payload.nbytes != due:
        raise DecodeError(
            f"the part of a tensor of shape {list(shape)} has {due} bytes at this party, got {payload.nbytes}"
        )
