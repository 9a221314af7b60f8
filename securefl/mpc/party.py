"""One party of a computation: its links, its random streams, its place among the three.

A computation is one *party program*: a function of a :class:`Party` that every party runs, with the same public shapes
and in the same order. The servers (parties 0 and 1) hold shares; the helper (party 2) runs the same program without
values: it draws the masks that both servers draw, each from the stream it has in common with one of them, and deals
what depends on both. It receives nothing from them, ever, so nothing it does depends on an input::

    def program(party: Party, x: Words | None) -> Words | None:  # x: this server's additive share; None at the helper
        values = Shared(party, (128, 784), FRACTION, x)
        hidden = relu(matmul(values, weights), drop=FRACTION)
        return reveal(hidden)  # uint64 at the servers, None at the helper


    parties[i].begin(1)
    program(parties[i], ...)

Streams are AES-128-CTR, keyed by HKDF from the secret of a pair, the session and the number of the *batch*
(:meth:`Party.begin`): each word is used once, and a batch number is never used twice. SPEC mpc §2, §4.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from securefl.errors import LocalProtocolError
from securefl.mpc.channel import HELPER, Channel
from securefl.mpc.gemm import Words
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.kdf import Deriver, Label
from securefl.primitives.prg import KEY_BYTES, MAX_STREAM_BYTES, Keystream
from securefl.primitives.tag import TAG_KEY_BYTES, gmac
from securefl.wire import Buffer

__all__ = ["SECRET_BYTES", "Party", "Piece", "apart", "as_bytes", "join"]

SECRET_BYTES: Final = 32
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of a deal: the servers get shares of a value that the helper knows.

    ``xor``: shared by exclusive or; otherwise by addition modulo the word size of ``dtype``.
    """

    shape: tuple[int, ...]
    dtype: DTypeLike = np.uint64
    xor: bool = False

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def as_bytes(array: Array) -> memoryview:
    """The memory of a contiguous array."""
    return array.data.cast("B") if array.size else memoryview(b"")


def apart(message: memoryview, pieces: Sequence[Piece]) -> list[Array]:
    """The tensors of a message, one after the other, where they lie."""
    arrays: list[Array] = []
    at = 0
    for piece in pieces:
        arrays.append(np.ndarray(piece.shape, piece.dtype, message, at))
        at += arrays[-1].nbytes
    return arrays


class _Stream:
    """A keystream that gives arrays, and stops before the key's limit."""

    def __init__(self, key: bytes) -> None:
        self._stream = Keystream(key)
        self._left = MAX_STREAM_BYTES

    def draw(self, shape: tuple[int, ...], dtype: DTypeLike = np.uint64) -> Array:
        out = np.empty(shape, dtype=dtype)
        self._left -= out.nbytes
        if self._left < 0:
            raise LocalProtocolError("the streams of this batch are used up: begin a new batch")
        if out.size:
            self._stream.fill_bytes(out.data.cast("B"))
        return out


class Party:
    """One party between :meth:`begin` and :meth:`begin`. Made by :func:`join`."""

    #: How the three compute; the name of one of :data:`securefl.mpc.operations.ENGINES`.
    engine: ClassVar[str] = "dealer"
    #: Whether all three parties hold parts, and each the next one's as well.
    replicated: ClassVar[bool] = False
    #: What the streams' keys are derived for: no stream of one engine is one of another.
    label: ClassVar[Label] = Label.MPC_STREAM

    def __init__(self, channel: Channel, secrets: Mapping[int, bytes], session: bytes) -> None:
        self.channel = channel
        self.me = channel.party
        self.is_helper = self.me == HELPER
        #: The other server. The helper has none.
        self.peer = 1 - self.me if not self.is_helper else -1
        #: Exchanges between the servers so far.
        self.rounds = 0
        self.batch = 0
        self._secrets = {other: Deriver(secret) for other, secret in secrets.items()}
        self._session = session
        self._program = b""
        self._bound: dict[int, bytes] = {}
        self._tags: dict[int, int] = {}
        self._streams: dict[int, _Stream] = {}

    def batch_key(self, other: int, batch: int, program: bytes = b"") -> bytes:
        """The stream key in common with party ``other`` for one batch. It tells nothing about other batches."""
        program += self._bound.get(other, b"")
        fields = (self._session, bytes(sorted((self.me, other))), batch.to_bytes(8, "big"), program)
        return self._secrets[other].derive(self.label, *fields, length=KEY_BYTES)

    def begin(self, batch: int, program: bytes = b"") -> None:
        """Take up batch ``batch`` (> every earlier one): all correlations from here on are its own.

        ``program``: what the batch is used for, the same at all parties; parties that were told different things draw
        from different streams, so that nobody gets two programs computed under one set of masks.

        Raises :class:`LocalProtocolError` for a number that was used: its masks would be used twice, which would reveal
        differences of values.
        """
        if batch <= self.batch:
            raise LocalProtocolError(
                f"the correlations of batch {batch} are spent (the last one was {self.batch}): take a larger number"
            )
        self.batch, self._program = batch, program
        self._streams = {}

    def bind(self, other: int, told: bytes) -> None:
        """Make the streams with ``other`` of later batches depend on what somebody outside told both parties.

        If it was not the same, what the two compute from then on does not fit together, under masks of its own.
        """
        self._bound[other] = hashlib.sha256(self._bound.get(other, b"") + told).digest()

    def bind_alike(self, other: int, told: Buffer) -> None:
        """:meth:`bind` to something long that both parties were told: to its tag under a key that those two have.

        Whoever chose what they were told does not know the key, so nothing else has the same tag, except with a chance
        of bytes · 2^-132. [GMAC, NIST SP 800-38D: GHASH is almost universal] The key serves this tag alone.
        """
        self._tags[other] = self._tags.get(other, 0) + 1
        fields = (self._session, bytes(sorted((self.me, other))), self._tags[other].to_bytes(8, "big"))
        self.bind(other, gmac(self._secrets[other].derive(Label.MPC_TOLD, *fields, length=TAG_KEY_BYTES), told))

    @classmethod
    def with_keys(cls, channel: Channel, keys: Mapping[int, bytes]) -> Self:
        """A party in one batch, from its stream keys by the other party: to recompute an audited batch, or a vector."""
        helper = cls(channel, {}, b"")
        helper._streams = {server: _Stream(key) for server, key in keys.items()}
        return helper

    def _stream(self, other: int) -> _Stream:
        stream = self._streams.get(other)
        if stream is None:  # made when it is first read: most batches do not need all of them
            if not self.batch or other not in self._secrets:
                raise LocalProtocolError("begin a batch before computing: party.begin(number)")
            stream = self._streams[other] = _Stream(self.batch_key(other, self.batch, self._program))
        return stream

    # ---- randomness that the helper knows

    def mask(self, shape: tuple[int, ...]) -> Words:
        """A fresh additive mask: a server's share of it; at the helper the mask itself."""
        if self.is_helper:
            mask = self._stream(0).draw(shape)
            mask += self._stream(1).draw(shape)
            return mask
        return self._stream(HELPER).draw(shape)

    def masks(self, size: int) -> tuple[Words, Words]:
        """:meth:`mask` of shape [size], and at the helper the difference of the servers' shares, 0's less 1's.

        At a server the second is empty.
        """
        if not self.is_helper:
            return self.mask((size,)), np.empty(0, np.uint64)
        first, second = self._stream(0).draw((size,)), self._stream(1).draw((size,))
        mask = first + second
        first -= second
        return mask, first

    def mask_bits(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The same by exclusive or, in packed bytes."""
        if self.is_helper:
            mask = self._stream(0).draw(shape, np.uint8)
            mask ^= self._stream(1).draw(shape, np.uint8)
            return mask
        return self._stream(HELPER).draw(shape, np.uint8)

    def deal(self, to: int, pieces: Sequence[Piece], values: Sequence[Array] = ()) -> list[Array]:
        """Share what only the helper can compute: one message of the helper to server ``to``.

        ``values``: at the helper one array per piece, of its shape and dtype; ignored at the servers. Gives the
        servers' shares (one array per piece; the other server draws its own from its stream), the helper nothing.
        """
        if self.is_helper:
            corrections = []
            stream = self._stream(1 - to)
            for piece, value in zip(pieces, values, strict=True):
                share = stream.draw(piece.shape, piece.dtype)
                (np.bitwise_xor if piece.xor else np.subtract)(value, share, out=share)
                corrections.append(as_bytes(share))
            self.channel.send(to, *corrections)
            return []
        if self.me != to:
            return [self._stream(HELPER).draw(piece.shape, piece.dtype) for piece in pieces]
        return apart(self.channel.receive(HELPER, sum([piece.nbytes for piece in pieces])), pieces)

    # ---- the two servers

    def exchange(self, mine: Array) -> Array:
        """One round: send ``mine`` to the other server, get its array of the same shape. Servers only."""
        self.rounds += 1
        self.channel.send(self.peer, as_bytes(mine))
        message = self.channel.receive(self.peer, mine.nbytes)
        return np.ndarray(mine.shape, mine.dtype, message)

    def zero(self, shape: tuple[int, ...]) -> Words:
        """A fresh additive share of zero, of which the helper knows nothing. Servers only."""
        share = self._stream(self.peer).draw(shape)
        if self.me == 1:
            np.negative(share, out=share)
        return share

    def __repr__(self) -> str:
        return f"<Party {self.me}, batch {self.batch}>"


def join(channel: Channel, session: bytes, entropy: Entropy | None = None, kind: Callable[..., Party] = Party) -> Party:
    """Agree on the secrets of the pairs over ``channel`` and give the party, of the engine that ``kind`` makes.

    The helper sends each server a secret (it is its own judge of randomness: it knows those masks anyway); server 0
    sends one to server 1. ``session``: the same bytes at all parties, new for every session.
    """
    source = entropy if entropy is not None else SystemEntropy()
    me = channel.party
    secrets: dict[int, bytes] = {}
    if me == HELPER:
        for server in (0, 1):
            secrets[server] = source.token(SECRET_BYTES)
            channel.send(server, secrets[server])
    else:
        if me == 0:
            secrets[1] = source.token(SECRET_BYTES)
            channel.send(1, secrets[1])
        else:
            secrets[0] = bytes(channel.receive(0, SECRET_BYTES))
        secrets[HELPER] = bytes(channel.receive(HELPER, SECRET_BYTES))
    return kind(channel, secrets, session)
