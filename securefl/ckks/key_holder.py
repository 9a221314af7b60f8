"""The key holder of the CKKS sum, without IO: it opens one sum per session. SPEC: protocols/ckks-sum/SPEC.md §8.3."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from securefl.ckks.cipher import open_sum
from securefl.ckks.keys import Key, KeyRing
from securefl.ckks.messages import Abort, EncryptedSum, Kind, Result, open_signed, seal_signed
from securefl.ckks.params import KEY_HOLDER, Guard, KeyModel, Params, Release
from securefl.errors import AuthenticationError, DecodeError, LocalProtocolError, ProtocolError
from securefl.machine import Aborted, Completed, Event, Machine, Send, SumResult, TransitionTable
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.identity import Directory, Identity
from securefl.types import SERVER, IntegerVector, PartyId
from securefl.wire import Buffer

__all__ = ["KEY_HOLDER_TRANSITIONS", "KeyHolder"]


class State(Enum):
    NEW = auto()
    WAIT = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls.
KEY_HOLDER_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.WAIT},
    State.WAIT: {"ENCRYPTED_SUM": State.FINISHED, "fail": State.ABORTED},
    State.FINISHED: {},
    State.ABORTED: {},
}


class KeyHolder(Machine):
    """The key holder in one session: announces the key, opens one sum, is done.

    ``ring``: its keys, which outlive sessions. ``directory``: must hold the server's public signing key. It releases
    exact integers to the aggregator, or keeps them (``Release.KEY_HOLDER``: its own ``Completed`` has the sum). It
    opens nothing for fewer survivors than the threshold, and nothing a second time. ``guard``: runs an opening once by
    itself beforehand (``transport.confined``).
    """

    TRANSITIONS = KEY_HOLDER_TRANSITIONS
    INITIAL = State.NEW

    def __init__(
        self,
        params: Params,
        ring: KeyRing,
        identity: Identity,
        directory: Directory,
        *,
        entropy: Entropy | None = None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__()
        self._guard = guard
        self._params, self._identity, self._directory = params, identity, directory
        self._cap, self._key = ring.cap, ring.key_for(params)
        self._entropy = entropy or SystemEntropy()

    def start(self) -> Sequence[Event]:
        """Announce the key: its id to the server, the public key to every client."""
        self._advance("start")
        polynomials = self._key.public if self._params.key_model is KeyModel.KEY_HOLDER else b""
        notices: list[Event] = [self._send(Kind.KEY_NOTICE, SERVER, self._key.id)]
        notices += [self._send(Kind.PUBLIC_KEY, client, self._key.id, polynomials) for client in self._params.clients]
        return notices

    def suspend(self) -> bytes:
        """This key holder's key as bytes, bound to the session, to go on elsewhere by :meth:`resume`, once.

        32 context hash · the key (:meth:`Key.to_bytes`). For engines that start a process per message; the bytes stay
        with this party. Raises :class:`LocalProtocolError` unless it waits for the sum.
        """
        if self.state is not State.WAIT:
            raise LocalProtocolError("a key holder is suspended while it waits for the sum, and once")
        return self._params.context_hash + self._key.to_bytes()

    @classmethod
    def resume(cls, params: Params, data: Buffer, identity: Identity, directory: Directory) -> KeyHolder:
        """The key holder that :meth:`suspend` gave ``data``. Raises :class:`DecodeError` for other bytes."""
        view = memoryview(data)
        if bytes(view[:32]) != params.context_hash:
            raise DecodeError("the suspended key holder belongs to another session, round, parameter set or model")
        ring = KeyRing(params.parameters, params.key_model, key=Key.of_bytes(bytes(view[32:])))
        holder = cls(params, ring, identity, directory)
        holder._state = State.WAIT
        return holder

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """The key holder has no input."""
        raise LocalProtocolError("the key holder gives no integers")

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Open the sum. Raises :class:`DecodeError` and :class:`AuthenticationError` for frames that are none of the
        server's; nothing changes then. What the server signed and may not be opened ends the session on both sides.
        """
        params = self._params
        limits = {Kind.ENCRYPTED_SUM: EncryptedSum.limit(params)}
        kind, sender, body = open_signed(params, self._directory, frame, KEY_HOLDER, limits)
        if sender != SERVER:
            raise AuthenticationError(f"party {sender} is not the server")
        self._check(kind.name)
        message = EncryptedSum.decode(body, params)
        if message.key_id != self._key.id:
            return self._fail(Abort.ANOTHER_KEY, ProtocolError("the server sent a sum under another key"))
        count = len(message.survivors)
        if count < params.threshold:
            return self._fail(
                Abort.TOO_FEW_CLIENTS,
                ProtocolError(f"the server asks to open {count} clients; the threshold is {params.threshold}"),
            )
        try:
            self._key.charge(params.context_hash, len(params.opened(message.survivors)), self._cap)
        except ProtocolError as error:
            return self._fail(Abort.KEY_SPENT, error)
        try:
            if self._guard is not None:
                self._guard(lambda: self._open(message))
            values = self._open(message)
        except DecodeError as error:
            return self._fail(Abort.NOT_A_SUM, error)
        self._advance(kind.name)
        if params.release is Release.KEY_HOLDER:
            return [self._send(Kind.RECEIPT, SERVER, b""), Completed(SumResult(values, message.survivors))]
        return [self._send(Kind.RESULT, SERVER, Result(values).encode()), Completed()]

    def _open(self, message: EncryptedSum) -> IntegerVector:
        key, survivors = self._key, message.survivors
        return open_sum(self._params, key.secret, key.multiplier, message.ciphertexts, survivors, self._entropy)

    def _fail(self, reason: int, error: Exception) -> Sequence[Event]:
        self._advance("fail")
        return [self._send(Kind.ABORT, SERVER, Abort(reason).encode()), Aborted(error)]

    def _send(self, kind: Kind, to: PartyId, *parts: Buffer) -> Send:
        return Send(to, seal_signed(self._params, self._identity, kind, KEY_HOLDER, to, *parts))
