"""The aggregator of the n-of-n sum, without IO. SPEC: protocols/ckks-threshold/SPEC.md §5 (steps), §8 (states).

It has no key. It holds one sum of ciphertexts: inputs are added as they arrive and forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

import numpy as np

from securefl.ckks.threshold import wide
from securefl.ckks.threshold.check import Announcement
from securefl.ckks.threshold.messages import (
    Confirm,
    Confirmed,
    Input,
    JointKey,
    KeyShare,
    Kind,
    LimbSums,
    Restart,
    Share,
    Sum,
    read_polynomial,
    server_limits,
)
from securefl.ckks.threshold.params import PROTOCOL, ThresholdParams, require_keys
from securefl.errors import (
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    TooFewClientsError,
)
from securefl.exchange import Abort, Exchange
from securefl.machine import Aborted, Completed, Event, Machine, Send, SumResult, TransitionTable
from securefl.primitives.identity import SIGNATURE_BYTES, Directory
from securefl.types import SERVER, ClientId
from securefl.wire import Buffer, Envelope, open_frame, seal_frame

__all__ = ["ThresholdServer"]


class State(Enum):
    NEW = auto()
    KEYS = auto()
    KEY_CHECK = auto()
    INPUT = auto()
    SUM_CHECK = auto()
    SHARES = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls. ``close`` ends an exchange that everyone answered (the first:
#: enough answered), ``restart`` one that somebody missed while nothing is open yet, ``fail`` ends the session.
SERVER_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.KEYS},
    State.KEYS: {"KEY_SHARE": State.KEYS, "close": State.KEY_CHECK, "fail": State.ABORTED},
    State.KEY_CHECK: {
        "CONFIRM_KEY": State.KEY_CHECK,
        "close": State.INPUT,
        "restart": State.KEYS,
        "fail": State.ABORTED,
    },
    State.INPUT: {"INPUT": State.INPUT, "close": State.SUM_CHECK, "restart": State.KEYS, "fail": State.ABORTED},
    State.SUM_CHECK: {
        "CONFIRM_SUM": State.SUM_CHECK,
        "close": State.SHARES,
        "restart": State.KEYS,
        "fail": State.ABORTED,
    },
    State.SHARES: {"SHARE": State.SHARES, "close": State.FINISHED, "fail": State.ABORTED},
    State.FINISHED: {},
    State.ABORTED: {},
}


class ThresholdServer(Machine):
    """The aggregator in one session: :meth:`start`, :meth:`receive` frames, :meth:`close_round` when time is up.

    Every party of a joint key must stay until its sum is open. Who misses an exchange before any share was asked for is
    dropped and the others begin again under fresh keys (a ``RESTART`` message, within the session). Who misses the last
    exchange ends the session in :class:`TooFewClientsError`: shares are out, so that the same inputs must not be summed
    again without that party (its late share would then reveal it). ``directory``: the public keys of all clients. One
    object serves one session.
    """

    TRANSITIONS = SERVER_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: ThresholdParams, directory: Directory) -> None:
        super().__init__()
        require_keys(params, directory)
        self._directory = directory
        self._params = params
        self._attempt, self._clients = 0, params.clients
        self._context = params.attempt_hash(0, params.clients)
        self._exchange = Exchange()
        self._confirms: dict[ClientId, Confirm] = {}
        self._announced: Announcement | None = None
        self._key_sum: LimbSums
        self._c0: wide.Words
        self._c1: LimbSums
        self._forget()

    @property
    def waiting_for(self) -> Collection[ClientId]:
        """Parties that were asked in the present exchange and have not answered, ascending."""
        return self._exchange.waiting_for

    @property
    def attempt(self) -> int:
        """How often the session began again because parties had gone."""
        return self._attempt

    def start(self) -> Sequence[Event]:
        """Open the session: the first exchange waits for the key shares of all invited clients."""
        self._advance("start")
        self._exchange.open(self._clients)
        return ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from a party; answers come from :meth:`close_round`.

        Raises :class:`DecodeError` for bytes that are not a message of the present attempt,
        :class:`~securefl.errors.AuthenticationError` for a signature that is not the sender's,
        :class:`FaultyClientError` for what breaks the protocol, and :class:`ProtocolError` for a message outside its
        exchange; either way nothing changes and the session goes on. A repeated frame is ignored.
        """
        envelope = open_frame(
            frame, protocol=PROTOCOL, context=self._context, recipient=SERVER, limits=server_limits(self._params)
        )
        kind, sender = Kind(envelope.kind), envelope.sender
        if sender not in self._params:
            raise FaultyClientError(f"party {sender} was not invited", [sender])
        due = kind.name in self.TRANSITIONS[self._state]
        if self._exchange.admits(envelope, kind.name, self._state.name, due=due):
            self._take(kind, envelope)
            self._exchange.took(envelope)
        return ()

    def close_round(self) -> Sequence[Event]:
        """End the present exchange. Returns what to send next, or how the session ended.

        ``Aborted`` carries :class:`TooFewClientsError` when fewer parties than the threshold are left or a decryption
        share is missing, and :class:`FaultyClientError` when what was opened is no sum.
        """
        self._check("close")
        missing, left = self._exchange.waiting_for, self._exchange.answered
        if len(left) < self._params.threshold:
            return self._fail(
                TooFewClientsError(
                    f"{len(left)} clients are left in {self._state.name}; the threshold is {self._params.threshold}"
                )
            )
        if missing and self._state is State.SHARES:
            return self._fail(
                TooFewClientsError(
                    f"the decryption shares of clients {', '.join(map(str, missing))} are missing and nothing was "
                    "opened: begin a new round, with fresh updates, without them"
                )
            )
        if missing and self._state is not State.KEYS:
            return self._restart(left)
        step = {
            State.KEYS: self._announce_key,
            State.KEY_CHECK: self._confirm_key,
            State.INPUT: self._announce_sum,
            State.SUM_CHECK: self._confirm_sum,
            State.SHARES: self._fuse,
        }[State(self._state)]
        return step()

    # ---- taking messages ------------------------------------------------------------------------------------

    def _take(self, kind: Kind, envelope: Envelope) -> None:
        params, sender = self._params, envelope.sender
        if kind in (Kind.CONFIRM_KEY, Kind.CONFIRM_SUM):
            confirm = Confirm.decode(envelope.body)
            if self._announced is not None:
                self._announced.verify_one(sender, self._directory, confirm)
            self._confirms[sender] = confirm
            return
        body, signature = envelope.body[:-SIGNATURE_BYTES], envelope.body[-SIGNATURE_BYTES:]
        self._directory.verify(signature, self._context, kind, sender, SERVER, body)
        if kind is Kind.KEY_SHARE:
            self._key_sum += wide.limbs_of(KeyShare.decode(body).words).astype(np.uint32)
        elif kind is Kind.INPUT:
            given = Input.decode(body, params)
            wide.add_words(self._c0, given.c0)
            for total, polynomial in zip(self._c1, given.c1, strict=True):
                total += wide.limbs_of(read_polynomial(polynomial)).astype(np.uint32)
        else:
            wide.add_words(self._c0, Share.decode(body, params).words)

    # ---- closing exchanges ----------------------------------------------------------------------------------

    def _announce_key(self) -> Sequence[Event]:
        self._advance("close")
        body = JointKey(self._exchange.answered, self._key_sum).encode()
        return self._announce(Kind.JOINT_KEY, body, self._key_sum[np.newaxis])

    def _confirm_key(self) -> Sequence[Event]:
        events = self._relay(Kind.KEY_CONFIRMED)
        params = self._params
        self._c0 = np.zeros((2, params.coefficients), dtype=np.uint64)
        self._c1 = np.zeros((params.ciphertexts, wide.LIMBS, wide.DEGREE), dtype=np.uint32)
        return events

    def _announce_sum(self) -> Sequence[Event]:
        self._advance("close")
        return self._announce(Kind.SUM, Sum(self._c1).encode(), self._c1)

    def _confirm_sum(self) -> Sequence[Event]:
        return self._relay(Kind.SUM_CONFIRMED)

    def _announce(self, kind: Kind, body: bytes | memoryview, sums: LimbSums) -> Sequence[Event]:
        self._announced = Announcement(self._context, kind, body, (part.astype(np.int64) for part in sums))
        self._confirms = {}
        self._exchange.open(self._exchange.answered)
        return [self._send(kind, client, body) for client in self._exchange.asked]

    def _relay(self, kind: Kind) -> Sequence[Event]:
        """Pass all confirmations on, when they add up."""
        items = tuple(self._confirms[client] for client in sorted(self._confirms))
        if self._announced is not None:
            try:
                self._announced.verify_sum(items)
            except FaultyServerError:
                suspects = sorted(self._confirms)
                return self._fail(
                    FaultyClientError("the fingerprints of the parties do not add up: one of them is false", suspects)
                )
        self._advance("close")
        self._announced = None
        self._exchange.open(self._confirms)
        body = Confirmed(items).encode()
        return [self._send(kind, client, body) for client in self._exchange.asked]

    def _fuse(self) -> Sequence[Event]:
        survivors = self._exchange.answered
        try:
            values = self._params.decode(self._c0, len(survivors))
        except DecodeError as error:
            return self._fail(FaultyClientError(f"{error}; a party gave a false ciphertext or share", survivors))
        self._advance("close")
        self._forget()
        self._exchange.open(())
        return [Completed(SumResult(values, survivors))]

    # ---- the rest -------------------------------------------------------------------------------------------

    def _restart(self, left: tuple[ClientId, ...]) -> Sequence[Event]:
        self._advance("restart")
        body = Restart(left).encode()
        events = [self._send(Kind.RESTART, client, body) for client in left]
        self._attempt += 1
        self._clients = left
        self._context = self._params.attempt_hash(self._attempt, left)
        self._forget()
        self._exchange.forget()
        self._exchange.open(left)
        return events

    def _fail(self, error: TooFewClientsError | FaultyClientError) -> Sequence[Event]:
        self._advance("fail")
        body = Abort.for_error(error).encode()
        notices = [self._send(Kind.ABORT, client, body) for client in self._exchange.asked]
        self._forget()
        self._exchange.open(())
        return [*notices, Aborted(error, getattr(error, "clients", ()))]

    def _forget(self) -> None:
        self._confirms, self._announced = {}, None
        self._key_sum = np.zeros((wide.LIMBS, wide.DEGREE), dtype=np.uint32)
        self._c0 = np.zeros((2, 0), dtype=np.uint64)
        self._c1 = np.zeros((0, wide.LIMBS, wide.DEGREE), dtype=np.uint32)

    def _send(self, kind: Kind, to: ClientId, body: Buffer) -> Send:
        return Send(to, seal_frame(PROTOCOL, kind, self._context, SERVER, to, body))
