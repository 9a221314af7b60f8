"""From a client to the parties: which bytes of a value go to whom, by engine. SPEC mpc §9, SPEC mpc-replicated §7.

What can be a random part is the stream of a key that the client draws, so that a party gets sixteen bytes for it. What
two parties are told alike goes into the streams that they have in common (:meth:`Party.bind`): a client that tells them
different things gets results under masks that do not fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from securefl.errors import DecodeError
from securefl.mpc.channel import HELPER
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party, as_bytes
from securefl.mpc.shared import Masked, Shared
from securefl.primitives.entropy import Entropy
from securefl.primitives.prg import KEY_BYTES, Keystream, accumulate
from securefl.wire import Buffer

__all__ = ["Handed", "expand", "hand_out", "take"]

#: What one party is sent: bytes one after the other.
Handed = tuple[Buffer, ...]


def expand(key: Buffer, shape: Sequence[int]) -> Words:
    """uint64 words of a stream: a random part of what a client shares."""
    words = np.empty(tuple(shape), np.uint64)
    if words.size:
        Keystream(bytes(key)).fill(words.reshape(-1))
    return words


def hand_out(engine: str, words: Words, entropy: Entropy, opened: bool = False) -> list[Handed]:
    """What the client sends to each party, of a value that it shares. ``words`` (contiguous) do not stay as they are.

    Dealer: a key to server 0, the rest to server 1, nothing to the helper; with ``opened``, the value under two
    streams to both servers, the key of one to each, and both keys to the helper. Replicated: components 0 and 1 are
    streams, 2 the rest; every party gets the two that it holds.
    """
    keys = [entropy.token(KEY_BYTES) for _ in range(2 if opened or engine == "replicated" else 1)]
    rest = np.ascontiguousarray(words).reshape(-1)
    accumulate(rest, add=keys if opened else (), subtract=() if opened else keys)
    last = as_bytes(rest) if rest.size else memoryview(b"")
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
        streams = []
        for server in (0, 1):
            key = payload[KEY_BYTES * server : KEY_BYTES * (server + 1)]
            party.bind(server, bytes(key))
            streams.append(expand(key, shape))
        mask = streams[0] + streams[1]
        streams[0] -= streams[1]
        return Shared(party, shape, fraction, None, Masked(None, mask, streams[0]))
    key = payload[words:]
    party.bind(HELPER, bytes(key))
    party.bind_alike(party.peer, payload[:words])
    m = np.frombuffer(payload[:words], np.uint64).reshape(shape)
    mask = expand(key, shape)
    return Shared(party, shape, fraction, m - mask if party.me == 0 else np.negative(mask), Masked(m, mask))


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
