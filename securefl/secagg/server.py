"""The server of the masked sum, without IO. SPEC: protocols/secagg/SPEC.md §5 (steps), §7 (states and checks).

It holds one packed vector: masked inputs are added as they arrive and forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

import numpy as np

from securefl.errors import DecodeError, FaultyClientError, LocalProtocolError, TooFewClientsError
from securefl.exchange import Abort, Exchange
from securefl.machine import Aborted, Completed, Event, Machine, Send, SumResult, TransitionTable
from securefl.primitives.kem import public_key, seal
from securefl.secagg import unmasking
from securefl.secagg.masking import roster_hash
from securefl.secagg.messages import (
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    MaskedInput,
    Roster,
    Sealed,
    UnmaskRequest,
    UnmaskShares,
    server_limits,
)
from securefl.secagg.params import PROTOCOL, Params
from securefl.types import SERVER, ClientId, IntegerVector, RingVector
from securefl.wire import Buffer, Envelope, open_frame, seal_frame

__all__ = ["Server"]


class State(Enum):
    NEW = auto()
    ADVERTISE = auto()
    SHARE = auto()
    MASK = auto()
    UNMASK = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls. ``close`` ends an exchange with enough clients, ``fail`` without.
SERVER_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.ADVERTISE},
    State.ADVERTISE: {"ADVERTISE_KEYS": State.ADVERTISE, "close": State.SHARE, "fail": State.ABORTED},
    State.SHARE: {"SHARE_KEYS": State.SHARE, "close": State.MASK, "fail": State.ABORTED},
    State.MASK: {"MASKED_INPUT": State.MASK, "close": State.UNMASK, "fail": State.ABORTED},
    State.UNMASK: {"UNMASK_SHARES": State.UNMASK, "close": State.FINISHED, "fail": State.ABORTED},
    State.FINISHED: {},
    State.ABORTED: {},
}


class Server(Machine):
    """The aggregator in one session: :meth:`start`, :meth:`receive` frames, :meth:`close_round` when time is up.

    The caller owns time: an exchange stays open until ``close_round``, which drops whoever has not answered;
    :attr:`waiting_for` says who that would be. The last ``close_round`` gives ``Completed(SumResult)`` or ``Aborted``.
    The transport must make sure that a frame's sender is who sent it. One object serves one session.
    """

    TRANSITIONS = SERVER_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: Params) -> None:
        super().__init__()
        self._params = params
        self._exchange = Exchange()
        self._keys: dict[ClientId, AdvertiseKeys] = {}
        self._roster_hash = b""
        self._boxes: dict[ClientId, dict[ClientId, Sealed]] = {}  # by sender, then recipient
        self._total: RingVector | None = None
        self._survivors: tuple[ClientId, ...] = ()
        self._asked = 0  # shares that a survivor has to give
        self._shares: dict[ClientId, UnmaskShares] = {}

    @property
    def waiting_for(self) -> Collection[ClientId]:
        """Clients that were asked in the present exchange and have not answered, ascending."""
        return self._exchange.waiting_for

    def start(self) -> Sequence[Event]:
        """Open the session: the first exchange waits for the keys of all invited clients."""
        self._advance("start")
        self._exchange.open(self._params.clients)
        return ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from a client; answers come from :meth:`close_round`.

        Raises :class:`DecodeError` for bytes that are not a message of this session, :class:`FaultyClientError` for
        one that breaks the protocol, and :class:`ProtocolError` for one that came after (or before) its exchange;
        either way nothing changes and the session goes on. A repeated frame is ignored.
        """
        envelope = open_frame(
            frame,
            protocol=PROTOCOL,
            context=self._params.context_hash,
            recipient=SERVER,
            limits=server_limits(self._params),
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
        """End the present exchange with those who answered; the others are dropped.

        Returns what to send next, or ``Aborted(TooFewClientsError)`` with a notice to every client when fewer than
        the threshold are left.
        """
        self._check("close")
        left, needed = len(self._exchange.answered), self._params.threshold
        if left < needed:
            return self._fail(
                TooFewClientsError(f"{left} clients are left in {self._state.name}; the threshold is {needed}")
            )
        step = {
            State.ADVERTISE: self._publish_roster,
            State.SHARE: self._route_shares,
            State.MASK: self._request_unmask,
            State.UNMASK: self._open_sum,
        }[State(self._state)]
        return step()

    # ---- taking messages ------------------------------------------------------------------------------------

    def _take(self, kind: Kind, envelope: Envelope) -> None:
        params, sender, body = self._params, envelope.sender, envelope.body
        if kind is Kind.ADVERTISE_KEYS:
            self._keys[sender] = self._usable(sender, AdvertiseKeys.decode(body, params, params.tier(sender)))
        elif kind is Kind.SHARE_KEYS:
            message = EncryptedShares.decode(body, params, owner=sender, owner_sends=True)
            if message.boxes.keys() | {sender} != self._keys.keys():
                raise FaultyClientError(
                    f"client {sender} did not share with exactly the clients of the roster", [sender]
                )
            self._boxes[sender] = message.boxes
        elif kind is Kind.MASKED_INPUT:
            words = MaskedInput.decode(body, params, params.tier(sender)).words
            if self._total is None and words.size == params.packing.words:
                self._total = words.astype(np.uint64)
            else:
                if self._total is None:
                    self._total = np.zeros(params.packing.words, dtype=np.uint64)
                total = self._total[: words.size]  # a client's shells are the first words
                np.add(total, words, out=total)
        else:
            shares = UnmaskShares.decode(body, params)
            if len(shares.shares) != self._asked:
                raise FaultyClientError(f"client {sender} sent {len(shares.shares)} of {self._asked} shares", [sender])
            self._shares[sender] = shares

    def _usable(self, sender: ClientId, keys: AdvertiseKeys) -> AdvertiseKeys:
        """Keys that everyone can seal to, and nobody else's: one bad key on the roster would stop everyone."""
        taken = {key for other in self._keys.values() for key in (other.channel_key, other.mask_key)}
        for raw in (keys.channel_key, keys.mask_key):
            try:
                seal(public_key(self._params.suite, raw), b"", b"")
            except DecodeError as error:
                raise FaultyClientError(f"client {sender} advertised an unusable key: {error}", [sender]) from None
        if keys.channel_key == keys.mask_key or not taken.isdisjoint((keys.channel_key, keys.mask_key)):
            raise FaultyClientError(f"client {sender} advertised a key that stands on the roster already", [sender])
        return keys

    # ---- closing exchanges ----------------------------------------------------------------------------------

    def _publish_roster(self) -> Sequence[Event]:
        self._advance("close")
        body = Roster(self._keys).encode()
        self._roster_hash = roster_hash(self._params, body)
        self._exchange.open(self._keys)
        return [self._send(Kind.ROSTER, client, body) for client in sorted(self._keys)]

    def _route_shares(self) -> Sequence[Event]:
        self._advance("close")
        sharing = sorted(self._boxes)
        self._exchange.open(sharing)
        return [
            self._send(
                Kind.DELIVER_SHARES,
                recipient,
                EncryptedShares({s: self._boxes[s][recipient] for s in sharing if s != recipient}).encode(),
            )
            for recipient in sharing
        ]

    def _request_unmask(self) -> Sequence[Event]:
        self._advance("close")
        self._survivors = self._exchange.answered
        survived = frozenset(self._survivors)
        dropped = tuple(client for client in sorted(self._boxes) if client not in survived)
        self._asked = len(unmasking.share_places(self._params, sorted(self._boxes), survived))
        self._exchange.open(self._survivors)
        body = UnmaskRequest(self._survivors, dropped).encode()
        return [self._send(Kind.UNMASK_REQUEST, client, body) for client in self._survivors]

    def _open_sum(self) -> Sequence[Event]:
        try:
            values, suspects = self._unmasked()
        except FaultyClientError as error:
            return self._fail(error)
        self._advance("close")
        self._forget()
        return [Completed(SumResult(values, self._survivors, suspects))]

    def _unmasked(self) -> tuple[IntegerVector, tuple[ClientId, ...]]:
        if self._total is None:  # pragma: no cover - an exchange closes only with answers
            raise LocalProtocolError("no masked input was summed")
        params, total = self._params, self._total
        opened = unmasking.open_seeds(params, self._keys, tuple(sorted(self._boxes)), self._survivors, self._shares)
        unmasking.remove_masks(params, total, self._boxes, self._roster_hash, self._survivors, opened)
        try:
            values = params.packing.unpack(total, [params.tier(client) for client in self._survivors])
        except DecodeError as error:
            raise FaultyClientError(f"the masks did not cancel: {error}; a client used keys it did not share") from None
        return values, opened.suspects

    # ---- the rest -------------------------------------------------------------------------------------------

    def _fail(self, error: TooFewClientsError | FaultyClientError) -> Sequence[Event]:
        self._advance("fail")
        body = Abort.for_error(error).encode()
        notices = [self._send(Kind.ABORT, client, body) for client in self._exchange.asked]
        self._forget()
        return [*notices, Aborted(error, getattr(error, "clients", ()))]

    def _forget(self) -> None:
        self._exchange.open(())
        self._total = None
        self._keys, self._boxes, self._shares = {}, {}, {}

    def _send(self, kind: Kind, to: ClientId, body: bytes) -> Send:
        return Send(to, seal_frame(PROTOCOL, kind, self._params.context_hash, SERVER, to, body))
