"""Keys and masks of the masked sum: what client and server both derive. SPEC: protocols/secagg/SPEC.md §4, §5.

Legend: s_i the seed of client i's pairwise masks (Shamir-shared), b_i its self-mask seed (Shamir-shared), c_i the
seed of its channel key (never shared), m_ij = m_ji the secret of a pair, C the context hash, R the roster hash.

    masked input of i = pack(x_i) + stream(b_i) + Σ_{j>i} stream(m_ij) − Σ_{j<i} stream(m_ij)   (mod 2^64)

With shells (protocols/shells/SPEC.md) there is one b_i per shell that i holds, and the stream of a pair ends with the
last shell that both hold.

[BIK+17] Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, §4.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from securefl.primitives.kdf import Label, commit, derive, info_bytes, tuple_hash
from securefl.primitives.kem import PrivateKey, PublicKey, key_pair
from securefl.primitives.prg import KEY_BYTES, accumulate
from securefl.secagg.params import Params
from securefl.types import ClientId, RingVector
from securefl.wire import Buffer

__all__ = [
    "Masks",
    "channel_key_pair",
    "mask_key_pair",
    "pair_box_info",
    "pair_secret",
    "pair_stream_key",
    "roster_hash",
    "self_commitment",
    "self_stream_key",
    "shares_box_info",
]


def _id(client: ClientId) -> bytes:
    return client.to_bytes(4, "big")


def mask_key_pair(params: Params, client: ClientId, seed: bytes) -> tuple[PrivateKey, PublicKey]:
    """The key pair other clients seal pair secrets to; whoever reconstructs s_i can derive it and check it."""
    return key_pair(params.suite, derive(seed, Label.MASK_KEY, params.context_hash, _id(client)))


def channel_key_pair(params: Params, client: ClientId, seed: bytes) -> tuple[PrivateKey, PublicKey]:
    """The key pair shares are sealed to. Its seed is never shared: opening s_i must not open other clients' shares."""
    return key_pair(params.suite, derive(seed, Label.CHANNEL_KEY, params.context_hash, _id(client)))


def self_commitment(params: Params, client: ClientId, seed: bytes, shell: int = 1) -> bytes:
    """32 bytes that bind client i to b_i (of the shell) before shares are dealt."""
    return commit(Label.SELF_COMMITMENT, seed, params.context_hash, _id(client), *_shell(params, shell))


def roster_hash(params: Params, body: Buffer) -> bytes:
    """R: both ends of every seal must have seen the same list of keys."""
    return tuple_hash(Label.ROSTER, params.context_hash, bytes(body))


def pair_secret(params: Params, low_seed: bytes, low: ClientId, high: ClientId) -> bytes:
    """m_ij, from the lower client's s_i: the server can derive it when the lower one drops."""
    return derive(low_seed, Label.PAIR_SECRET, params.context_hash, _id(low), _id(high))


def pair_stream_key(params: Params, secret: bytes, low: ClientId, high: ClientId) -> bytes:
    """The AES key of the pair's mask. The context holds the model's hash: with different models masks do not cancel."""
    return derive(secret, Label.PAIR_STREAM, params.context_hash, _id(low), _id(high), length=KEY_BYTES)


def self_stream_key(params: Params, client: ClientId, seed: bytes, shell: int = 1) -> bytes:
    """The AES key of client i's self mask (of the shell)."""
    fields = (params.context_hash, _id(client), *_shell(params, shell))
    return derive(seed, Label.SELF_STREAM, *fields, length=KEY_BYTES)


def _shell(params: Params, shell: int) -> tuple[bytes, ...]:
    return () if params.shells is None else (bytes([shell]),)


class Masks:
    """Streams to be added to or taken from a packed vector, by the words that they cover."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._work: dict[tuple[int, int], tuple[list[bytes], list[bytes]]] = {}

    def own(self, client: ClientId, shell: int, seed: bytes, *, add: bool) -> None:
        """The self mask of one shell."""
        self._take(self._params.packing.ranges[shell - 1], self_stream_key(self._params, client, seed, shell), add)

    def pair(self, secret: bytes, low: ClientId, high: ClientId, *, add: bool) -> None:
        """The mask of a pair, on the shells that both hold: the first words of the vector."""
        params = self._params
        words = params.packing.words_of(min(params.tier(low), params.tier(high)))
        self._take((0, words), pair_stream_key(params, secret, low, high), add)

    def _take(self, words: tuple[int, int], key: bytes, add: bool) -> None:
        adding, taking = self._work.setdefault(words, ([], []))
        (adding if add else taking).append(key)

    def apply(self, vector: RingVector) -> None:
        """All of them on ``vector``, in place."""
        for (low, high), (adding, taking) in self._work.items():
            accumulate(vector[low:high], adding, taking)

    def __repr__(self) -> str:
        return "<Masks>"


def shares_box_info(params: Params, roster: bytes, sender: ClientId, recipient: ClientId) -> bytes:
    """What a box of shares is bound to."""
    return _box_info(Label.SHARES_BOX, params.context_hash, roster) + _ends(sender, recipient)


def pair_box_info(params: Params, roster: bytes, low: ClientId, high: ClientId) -> bytes:
    """What the box of a pair's secret is bound to."""
    return _box_info(Label.PAIR_BOX, params.context_hash, roster) + _ends(low, high)


@lru_cache(maxsize=16)
def _box_info(label: Label, context_hash: bytes, roster: bytes) -> bytes:
    # the same for all boxes of a session, and public
    return info_bytes(label, context_hash, roster)


def _ends(first: ClientId, second: ClientId) -> bytes:
    # as info_bytes would append them: each field with its length
    return _LENGTH + _id(first) + _LENGTH + _id(second)


_LENGTH: Final = (4).to_bytes(4, "big")
