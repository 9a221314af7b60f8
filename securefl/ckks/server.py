"""The aggregator of the CKKS sum, without IO and without any secret key. SPEC: protocols/ckks-sum/SPEC.md §8.2.

It holds one sum of ciphertexts: each input is added ciphertext by ciphertext as it arrives, and forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

import numpy as np

from securefl.ckks.cipher import uniform_half
from securefl.ckks.messages import (
    Abort,
    EncryptedInput,
    EncryptedSum,
    KeyNotice,
    Kind,
    Receipt,
    Result,
    ciphertext_places,
    open_signed,
    seal_signed,
)
from securefl.ckks.params import KEY_HOLDER, Guard, KeyModel, Params, Release
from securefl.ckks.residues import pack_residues, unpack_residues
from securefl.ckks.ring import Residues, add_into
from securefl.errors import (
    DecodeError,
    FaultyClientError,
    ProtocolError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, Event, Machine, Send, SumResult, TransitionTable
from securefl.primitives.identity import Directory, Identity
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import Buffer

__all__ = ["SERVER_TRANSITIONS", "Server"]


class State(Enum):
    NEW = auto()
    COLLECT = auto()
    DECRYPT = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls. ``close`` ends an exchange with enough clients, ``fail`` without.
SERVER_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.COLLECT},
    State.COLLECT: {
        "KEY_NOTICE": State.COLLECT,
        "ENCRYPTED_INPUT": State.COLLECT,
        "close": State.DECRYPT,
        "fail": State.ABORTED,
    },
    State.DECRYPT: {
        "RESULT": State.FINISHED,
        "RECEIPT": State.FINISHED,
        "ABORT": State.ABORTED,
        "fail": State.ABORTED,
    },
    State.FINISHED: {},
    State.ABORTED: {},
}


class Server(Machine):
    """The aggregator in one session: :meth:`start`, :meth:`receive` frames, :meth:`close_round` when time is up.

    ``directory``: public signing keys of the clients and the key holder. ``identity``: the server's own. ``guard``:
    runs the reading of a vector once by itself beforehand (``transport.confined``).
    The first ``close_round`` sends the sum of what arrived to the key holder; the answer ends the session, and a second
    ``close_round`` without one aborts it. It can add ciphertexts and read none: no key enters this class.
    """

    TRANSITIONS = SERVER_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: Params, identity: Identity, directory: Directory, *, guard: Guard | None = None) -> None:
        super().__init__()
        self._params, self._identity, self._directory, self._guard = params, identity, directory, guard
        self._key_id: bytes | None = None
        self._total: Residues | None = None  # uint64[ciphertexts, 2, primes, N]
        self._answered: dict[ClientId, bytes] = {}
        self._early: list[tuple[ClientId, Buffer]] = []
        self._survivors: tuple[ClientId, ...] = ()

    @property
    def waiting_for(self) -> Collection[PartyId]:
        """Clients that have not sent their vector, or the key holder while it has the sum."""
        if self.state is State.COLLECT:
            return tuple(client for client in self._params.clients if client not in self._answered)
        return (KEY_HOLDER,) if self.state is State.DECRYPT else ()

    def start(self) -> Sequence[Event]:
        """Open the session."""
        self._advance("start")
        return ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from a client or the key holder.

        Raises :class:`DecodeError` for bytes that are not a message of this session, :class:`AuthenticationError` for
        one that its sender did not sign, :class:`FaultyClientError` for one that breaks the protocol (another key, a
        second vector, residues out of range) and :class:`ProtocolError` for one out of its time; nothing changes then.
        """
        params = self._params
        limits = {
            Kind.KEY_NOTICE: 32,
            Kind.ENCRYPTED_INPUT: EncryptedInput.length(params),
            Kind.RESULT: Result.length(params),
            Kind.RECEIPT: 0,
            Kind.ABORT: 1,
        }
        kind, sender, body = open_signed(params, self._directory, frame, SERVER, limits)
        if kind is Kind.ENCRYPTED_INPUT:
            return self._take_input(sender, body, frame)
        if sender != KEY_HOLDER:
            raise FaultyClientError(f"party {sender} sent a message that is the key holder's", [sender])
        if kind is Kind.KEY_NOTICE:
            return self._take_notice(body)
        self._check(kind.name)
        return self._end(kind, body)

    def close_round(self) -> Sequence[Event]:
        """End the present exchange with those who answered.

        Returns the sum for the key holder, or ``Aborted``: with :class:`TooFewClientsError` below the threshold, with
        :class:`ProtocolError` when the key holder did not answer.
        """
        self._check("fail")
        if self.state is State.DECRYPT:
            return self._fail(ProtocolError("the key holder did not answer: no sum was released, repeat the round"))
        if self._key_id is None:
            return self._fail(ProtocolError("the key holder announced no key: nothing could be encrypted"))
        left, needed = len(self._answered), self._params.threshold
        if left < needed or self._total is None:
            return self._fail(TooFewClientsError(f"{left} clients are left; the threshold is {needed}"))
        self._advance("close")
        self._survivors = tuple(sorted(self._answered))
        head = EncryptedSum.head(self._key_id, self._survivors)
        body = self._packed()
        self._total = None
        return [
            Send(
                KEY_HOLDER,
                seal_signed(self._params, self._identity, Kind.ENCRYPTED_SUM, SERVER, KEY_HOLDER, head, body),
            )
        ]

    # ---- taking messages ------------------------------------------------------------------------------------

    def _take_notice(self, body: memoryview) -> Sequence[Event]:
        key_id = KeyNotice.decode(body).key_id
        if self._key_id == key_id:
            return ()
        self._check(Kind.KEY_NOTICE.name)
        if self._key_id is not None:
            raise ProtocolError("the key holder announced two keys for one session")
        self._key_id = key_id
        self._advance(Kind.KEY_NOTICE.name)
        early, self._early = self._early, []
        for sender, frame in early:
            try:
                self.receive(frame)
            except (FaultyClientError, DecodeError):
                self._answered.pop(sender, None)  # as if it had arrived now and been refused
        return ()

    def _take_input(self, sender: ClientId, body: memoryview, frame: Buffer) -> Sequence[Event]:
        if sender not in self._params:
            raise FaultyClientError(f"party {sender} was not invited", [sender])
        signature = bytes(memoryview(frame)[-80:])  # signature and checksum: what tells a repeated frame
        if self._answered.get(sender) == signature:
            return ()
        if "ENCRYPTED_INPUT" not in self.TRANSITIONS[self._state]:
            raise ProtocolError(f"a vector of client {sender} came outside its exchange (now {self._state.name})")
        if sender in self._answered:
            raise FaultyClientError(f"client {sender} sent two different vectors", [sender])
        if self._key_id is None:  # the key holder's notice is still on its way
            if all(other != sender for other, _ in self._early):
                self._early.append((sender, bytes(frame)))
            return ()
        message = EncryptedInput.decode(body, self._params, self._params.tier(sender))
        if message.key_id != self._key_id:
            raise FaultyClientError(f"client {sender} encrypted under another key than this session's", [sender])
        if self._guard is not None:
            self._guard(lambda: self._read_all(sender, message))
        self._add(sender, message)
        self._answered[sender] = signature
        self._advance(Kind.ENCRYPTED_INPUT.name)
        return ()

    def _add(self, sender: ClientId, message: EncryptedInput) -> None:
        """Add a message's ciphertexts as they are read; what was added is taken off again when one does not read."""
        params, chosen = self._params, self._params.parameters
        if self._total is None:
            self._total = np.zeros((params.ciphertexts, 2, len(chosen.primes), chosen.degree), dtype=np.uint64)
        at = 0
        try:
            for at in range(params.ciphertexts_of(params.tier(sender))):
                self._add_one(at, self._halves(sender, message, at))
        except DecodeError as error:
            primes = np.array(chosen.primes, dtype=np.uint64)[:, None]
            for done in range(at):
                self._add_one(done, [(primes - half) % primes for half in self._halves(sender, message, done)])
            raise FaultyClientError(f"client {sender} signed a vector that is none: {error}", [sender]) from None

    def _read_all(self, sender: ClientId, message: EncryptedInput) -> None:
        for at in range(self._params.ciphertexts_of(self._params.tier(sender))):
            self._halves(sender, message, at)

    def _halves(self, sender: ClientId, message: EncryptedInput, at: int) -> list[Residues]:
        """(c0, c1) of ciphertext ``at``: each uint64[primes, N]. Raises :class:`DecodeError`."""
        params, chosen = self._params, self._params.parameters
        shared = params.key_model is KeyModel.SHARED_KEY
        first, second = ciphertext_places(params, whole=not shared)[at]
        parts = [unpack_residues(message.ciphertexts[first], chosen.primes, chosen.degree, params.used(at))]
        if shared:
            parts.append(uniform_half(params, sender, message.seed, at))
        else:
            parts.append(unpack_residues(message.ciphertexts[second], chosen.primes, chosen.degree))
        return parts

    def _add_one(self, at: int, halves: Sequence[Residues]) -> None:
        assert self._total is not None  # noqa: S101 - made before the first is added
        for half, part in zip(self._total[at], halves, strict=True):
            for row, other, prime in zip(half, part, self._params.parameters.primes, strict=True):
                add_into(row, other, prime)

    # ---- ending ---------------------------------------------------------------------------------------------

    def _packed(self) -> bytearray:
        assert self._total is not None  # noqa: S101 - checked by the caller
        params, numbers = self._params, self._params.opened(self._survivors)
        primes, out = params.parameters.primes, bytearray(params.vector_bytes(whole=True, numbers=numbers))
        view = memoryview(out)
        for at, (first, second) in zip(numbers, ciphertext_places(params, whole=True, numbers=numbers), strict=True):
            c0, c1 = self._total[at]
            pack_residues(c0[:, : params.used(at)], primes, view[first])
            pack_residues(c1, primes, view[second])
        return out

    def _end(self, kind: Kind, body: memoryview) -> Sequence[Event]:
        if kind is Kind.ABORT:
            reason = Abort.decode(body).reason
            sentence = f"the key holder released no sum: {Abort.SENTENCES[reason]}"
            if reason == Abort.NOT_A_SUM:
                # Honest clients cannot cause it; which client did cannot be seen in the sum.
                return self._fail(FaultyClientError(sentence, self._survivors), Kind.ABORT.name)
            return self._fail(ProtocolError(sentence), Kind.ABORT.name)
        expected = Kind.RESULT if self._params.release is Release.AGGREGATOR else Kind.RECEIPT
        if kind is not expected:
            raise ProtocolError(f"the key holder answered {kind.name} where {expected.name} is due")
        if kind is Kind.RECEIPT:
            Receipt.decode(body)
            self._advance(kind.name)
            return [Completed()]
        values = Result.decode(body, self._params).values
        self._advance(kind.name)
        return [Completed(SumResult(values, self._survivors))]

    def _fail(self, error: ProtocolError, trigger: str = "fail") -> Sequence[Event]:
        self._advance(trigger)
        self._total, self._early = None, []
        return [Aborted(error, getattr(error, "clients", ()))]
