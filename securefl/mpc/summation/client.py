"""A client of the shared sum, without IO. SPEC: protocols/shared/SPEC.md §5, §7."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from securefl.errors import ConfigurationError, DecodeError, FaultyServerError, LocalProtocolError
from securefl.machine import Completed, Event, Machine, NeedInput, Send, TransitionTable
from securefl.mpc.summation.messages import Kind, exact, limits_of, vector_body
from securefl.mpc.summation.params import PROTOCOL, SEED_BYTES, Params
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.kem import PublicKey, public_key
from securefl.primitives.prg import accumulate
from securefl.types import SERVER, ClientId, IntegerVector, RingVector
from securefl.wire import Buffer, open_frame, seal_frame

__all__ = ["SharedClient"]


class State(Enum):
    NEW = auto()
    STARTED = auto()
    KEYED = auto()
    FINISHED = auto()


#: Triggers: message kinds received, and local calls.
CLIENT_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.STARTED},
    State.STARTED: {"KEY": State.KEYED},
    State.KEYED: {"share": State.FINISHED},
    State.FINISHED: {},
}


class SharedClient(Machine):
    """One client in one session: it learns the second server's key, sends its two shares, and is done.

    Raises :class:`ConfigurationError` when ``me`` was not invited. One object serves one session. ``entropy``:
    replaced only by tests and vectors.
    """

    TRANSITIONS = CLIENT_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: Params, me: ClientId, *, entropy: Entropy | None = None) -> None:
        super().__init__()
        if me not in params:
            raise ConfigurationError(f"client {me} is not among the invited clients")
        self._params, self._me = params, me
        self._entropy: Entropy = SystemEntropy() if entropy is None else entropy
        self._packed: RingVector | None = None
        self._key: PublicKey | None = None
        self._seen = b""

    def start(self) -> Sequence[Event]:
        self._advance("start")
        return ()

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """Give the integers: uint64[dimension], each <= max_value; with shells, those of the shells that this client
        holds. Once, after ``start``; the array may be reused.

        Raises :class:`InvalidInputError` for values that do not fit; the session goes on and waits for others.
        """
        if self.state in (State.NEW, State.FINISHED) or self._packed is not None:
            raise LocalProtocolError("the input is given once, after start; one object serves one session")
        packing, tier = self._params.packing, self._params.tier(self._me)
        packing.check(values, tier)
        self._packed = packing.pack(values, tier)
        return self._share() if self.state is State.KEYED else ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take the server's one message, the second server's key.

        Raises :class:`DecodeError` for bytes that are not a message of this session, :class:`FaultyServerError` for one
        out of turn or a key that cannot be used; either way nothing changes.
        """
        envelope = open_frame(
            frame,
            protocol=PROTOCOL,
            context=self._params.context_hash,
            recipient=self._me,
            limits=limits_of(self._params, Kind.KEY),
        )
        if self._seen == envelope.checksum:
            return ()  # the same frame again: transports may repeat
        if envelope.sender != SERVER or self.state is not State.STARTED:
            raise FaultyServerError(f"KEY from party {envelope.sender} does not belong to state {self.state.name}")
        raw = exact(Kind.KEY, envelope.body, self._params)
        try:
            self._key = public_key(self._params.suite, raw)
        except DecodeError as error:
            raise FaultyServerError(f"the second server's key cannot be used: {error}") from None
        self._advance("KEY")
        self._seen = envelope.checksum
        return [NeedInput()] if self._packed is None else self._share()

    def _share(self) -> Sequence[Event]:
        """Words x = (x − stream(k)) + stream(k); the second server gets k. SPEC shared §5.2."""
        params, words, key = self._params, self._packed, self._key
        if words is None or key is None:  # pragma: no cover - both states are checked by the callers
            raise LocalProtocolError("there is nothing to share yet")
        seed = self._entropy.token(SEED_BYTES)
        try:
            box = self._entropy.seal(key, seed, params.box_info(self._me))
        except DecodeError as error:
            raise FaultyServerError(f"the second server's key cannot be used: {error}") from None
        accumulate(words, (), [params.share_key(self._me, seed)])
        self._advance("share")
        self._packed = self._key = None
        return [self._send(Kind.SEED, box), self._send(Kind.INPUT, vector_body(words)), Completed()]

    def _send(self, kind: Kind, body: Buffer) -> Send:
        return Send(SERVER, seal_frame(PROTOCOL, kind, self._params.context_hash, self._me, SERVER, body))
