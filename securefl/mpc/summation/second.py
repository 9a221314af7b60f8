"""The second server of the shared sum, without IO. SPEC: protocols/shared/SPEC.md §5, §7.

It holds a fresh key pair, answers one request of the first server, and is done: two requests over different clients
would let the first server subtract one sum from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

import numpy as np

from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    LocalProtocolError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, Event, Machine, Send, TransitionTable
from securefl.mpc.summation.messages import Blamed, Kind, SumRequest, limits_of, vector_body
from securefl.mpc.summation.params import PROTOCOL, SECOND_SERVER, SEED_BYTES, Params
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.kem import SEED_BYTES as KEY_SEED_BYTES
from securefl.primitives.kem import PrivateKey, key_pair, unseal
from securefl.primitives.prg import accumulate
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer, Reader, open_frame, seal_frame

__all__ = ["SecondServer"]


class State(Enum):
    NEW = auto()
    OPEN = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls.
SECOND_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.OPEN},
    State.OPEN: {"SUM_REQUEST": State.FINISHED, "refuse": State.ABORTED},
    State.FINISHED: {},
    State.ABORTED: {},
}


class SecondServer(Machine):
    """Sums the shares that are expanded from seeds.

    ``minimum_survivors``: its own least number of clients in the sum (default: the threshold), from its own
    configuration. Raises :class:`ConfigurationError` when that lies outside threshold … n.
    """

    TRANSITIONS = SECOND_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: Params, *, minimum_survivors: int | None = None, entropy: Entropy | None = None) -> None:
        super().__init__()
        threshold, n = params.context.threshold, len(params.context.clients)
        self._minimum = threshold if minimum_survivors is None else minimum_survivors
        if not threshold <= self._minimum <= n:
            raise ConfigurationError(
                f"minimum_survivors must be {threshold} (the threshold) to {n}, got {self._minimum}"
            )
        self._params = params
        self._entropy: Entropy = SystemEntropy() if entropy is None else entropy
        self._key: PrivateKey | None = None
        self._seed = b""

    def start(self) -> Sequence[Event]:
        """Draw this session's key pair and advertise it. SPEC shared §5.1."""
        self._advance("start")
        self._seed = self._entropy.token(KEY_SEED_BYTES)
        self._key, public = key_pair(self._params.suite, self._seed)
        return [self._send(Kind.ADVERTISE_KEY, public.raw)]

    def suspend(self) -> bytes:
        """This server as bytes, its private key's seed included, to go on elsewhere by :meth:`resume`, once.

        u32 minimum · 32 context hash · 32 seed. For engines that start a process per message; the bytes stay with this
        party. Raises :class:`LocalProtocolError` unless it waits for the request.
        """
        if self.state is not State.OPEN:
            raise LocalProtocolError("the second server is suspended while it waits for the request, and once")
        return self._minimum.to_bytes(4, "big") + self._params.context_hash + self._seed

    @classmethod
    def resume(cls, params: Params, data: Buffer) -> SecondServer:
        """The server that :meth:`suspend` gave ``data``. Raises :class:`DecodeError` for other bytes."""
        reader = Reader(data)
        minimum, context, seed = reader.u32(), bytes(reader.raw(32)), bytes(reader.raw(KEY_SEED_BYTES))
        reader.end()
        if context != params.context_hash:
            raise DecodeError("the suspended server belongs to another session, round, parameter set or model")
        server = cls(params, minimum_survivors=minimum)
        server._state, server._seed = State.OPEN, seed
        server._key = key_pair(params.suite, seed)[0]
        return server

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        raise LocalProtocolError("the second server gives no input")

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Answer the one request. SPEC shared §5.4.

        Raises :class:`DecodeError` for bytes that are not a message of this session, and :class:`FaultyServerError` for
        a second request. A request over too few clients ends the session without an answer.
        """
        params = self._params
        envelope = open_frame(
            frame,
            protocol=PROTOCOL,
            context=params.context_hash,
            recipient=SECOND_SERVER,
            limits=limits_of(params, Kind.SUM_REQUEST),
        )
        if envelope.sender != SERVER or self.state is not State.OPEN or self._key is None:
            raise FaultyServerError(
                f"SUM_REQUEST from party {envelope.sender} in state {self.state.name}: one sum is opened per session"
            )
        request = SumRequest.decode(envelope.body, params)
        key, self._key, self._seed = self._key, None, b""
        if len(request.boxes) < self._minimum:
            self._advance("refuse")
            reason = f"the server asks for a sum over {len(request.boxes)} clients; the least is {self._minimum}"
            return [Aborted(TooFewClientsError(reason), (SERVER,))]
        keys, blamed = self._open(request, key)  # by the words of the client's vector
        if blamed:
            self._advance("refuse")
            error = FaultyClientError("sealed seeds do not open", blamed)
            return [self._send(Kind.BLAMED, Blamed(blamed).encode()), Aborted(error, blamed)]
        self._advance("SUM_REQUEST")
        total = np.zeros(params.packing.words, dtype=np.uint64)
        for words, some in keys.items():
            accumulate(total[:words], some)
        opened = params.opened(request.boxes)
        if opened != params.packing.ranges:  # what stays closed does not leave this server
            total = np.concatenate([total[low:high] for low, high in opened])
        return [self._send(Kind.SUM_SHARE, vector_body(total)), Completed()]

    def _open(self, request: SumRequest, key: PrivateKey) -> tuple[dict[int, list[bytes]], tuple[ClientId, ...]]:
        keys: dict[int, list[bytes]] = {}
        blamed = []
        for client, box in request.boxes.items():
            try:
                seed = unseal(key, box, self._params.box_info(client))
            except AuthenticationError:
                blamed.append(client)
                continue
            if len(seed) != SEED_BYTES:  # pragma: no cover - the box has one length
                blamed.append(client)
                continue
            keys.setdefault(self._params.words_of(client), []).append(self._params.share_key(client, seed))
        return keys, tuple(blamed)

    def _send(self, kind: Kind, body: Buffer) -> Send:
        return Send(SERVER, seal_frame(PROTOCOL, kind, self._params.context_hash, SECOND_SERVER, SERVER, body))
