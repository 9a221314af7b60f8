"""The first server of the shared sum, without IO. SPEC: protocols/shared/SPEC.md §5, §7.

It holds one packed vector: a client's share is added once its sealed seed is here too, and forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum, auto

import numpy as np

from securefl.errors import (
    DecodeError,
    FaultyClientError,
    FaultyPartyError,
    LostPartyError,
    ProtocolError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, Event, Machine, Send, SumResult, TransitionTable
from securefl.mpc.summation.messages import Blamed, Kind, SumRequest, exact, limits_of, vector_of
from securefl.mpc.summation.params import PROTOCOL, SECOND_SERVER, Params
from securefl.types import SERVER, ClientId, PartyId, RingVector
from securefl.wire import Buffer, Envelope, open_frame, seal_frame

__all__ = ["FirstServer"]


class State(Enum):
    NEW = auto()
    KEY = auto()
    INPUT = auto()
    SUM = auto()
    FINISHED = auto()
    ABORTED = auto()


#: Triggers: message kinds received, and local calls. ``close`` ends an exchange that can go on, ``fail`` one that can
#: not.
SERVER_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.KEY},
    State.KEY: {"ADVERTISE_KEY": State.KEY, "close": State.INPUT, "fail": State.ABORTED},
    State.INPUT: {"SEED": State.INPUT, "INPUT": State.INPUT, "close": State.SUM, "fail": State.ABORTED},
    State.SUM: {"SUM_SHARE": State.SUM, "BLAMED": State.SUM, "close": State.FINISHED, "fail": State.ABORTED},
    State.FINISHED: {},
    State.ABORTED: {},
}


class FirstServer(Machine):
    """The aggregator in one session; the caller owns time, as for the masked sum.

    Three exchanges, each ended by :meth:`close_round`: the second server's key, the clients' shares, the second
    server's share of the sum. The transport must make sure that a frame's sender is who sent it.
    """

    TRANSITIONS = SERVER_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: Params) -> None:
        super().__init__()
        self._params = params
        self._seen: dict[tuple[PartyId, Kind], bytes] = {}
        self._key = b""
        self._boxes: dict[ClientId, bytes] = {}
        self._waiting: dict[ClientId, RingVector] = {}  # shares that came before their sealed seed
        self._added: set[ClientId] = set()
        self._total: RingVector = np.zeros(params.packing.words, dtype=np.uint64)
        self._answer: RingVector | Blamed | None = None

    @property
    def waiting_for(self) -> Collection[PartyId]:
        """Parties whose message of the present exchange has not arrived whole."""
        if self.state is State.INPUT:
            return tuple(client for client in self._params.context.clients if client not in self._added)
        missing = (self.state is State.KEY and not self._key) or (self.state is State.SUM and self._answer is None)
        return (SECOND_SERVER,) if missing else ()

    def start(self) -> Sequence[Event]:
        self._advance("start")
        return ()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from a client or the second server; answers come from :meth:`close_round`.

        Raises :class:`DecodeError` for bytes that are not a message of this session, :class:`FaultyClientError` or
        :class:`FaultyPartyError` for one that breaks the protocol, and :class:`ProtocolError` for one outside its
        exchange; nothing changes and the session goes on. A repeated frame is ignored.
        """
        kinds = (Kind.ADVERTISE_KEY, Kind.SEED, Kind.INPUT, Kind.SUM_SHARE, Kind.BLAMED)
        envelope = open_frame(
            frame,
            protocol=PROTOCOL,
            context=self._params.context_hash,
            recipient=SERVER,
            limits=limits_of(self._params, *kinds),
        )
        kind, sender = Kind(envelope.kind), envelope.sender
        from_client = kind in (Kind.SEED, Kind.INPUT)
        if sender not in self._params if from_client else sender != SECOND_SERVER:
            raise FaultyClientError(f"party {sender} may not send {kind.name} in this session", [sender])
        if self._seen.get((sender, kind)) == envelope.checksum:
            return ()  # the same frame again: transports may repeat
        if kind.name not in self.TRANSITIONS[self._state]:
            raise ProtocolError(f"{kind.name} from party {sender} came outside its exchange (now {self.state.name})")
        if (sender, kind) in self._seen or (not from_client and self._answer is not None):
            if from_client:
                raise FaultyClientError(f"client {sender} sent two different {kind.name} messages", [sender])
            raise FaultyPartyError(f"the second server sent two different answers in {self.state.name}", sender)
        self._take(kind, envelope)
        self._seen[sender, kind] = envelope.checksum
        return ()

    def close_round(self) -> Sequence[Event]:
        """End the present exchange; clients whose two messages are not both here are dropped."""
        self._check("close")
        match self.state:
            case State.KEY:
                return self._publish_key()
            case State.INPUT:
                return self._request_sum()
            case _:
                return self._open_sum()

    def _take(self, kind: Kind, envelope: Envelope) -> None:
        params, sender, body = self._params, envelope.sender, envelope.body
        match kind:
            case Kind.ADVERTISE_KEY:
                self._key = exact(kind, body, params)
            case Kind.SEED:
                self._boxes[sender] = exact(kind, body, params)
                if sender in self._waiting:
                    self._add(sender, self._waiting.pop(sender))
            case Kind.INPUT:
                words = vector_of(kind, body, params.words_of(sender))
                if sender in self._boxes:
                    self._add(sender, words)
                else:
                    self._waiting[sender] = words
            case Kind.SUM_SHARE:
                opened = params.opened(self._added)
                self._answer = vector_of(kind, body, sum(high - low for low, high in opened))
            case _:
                blamed = Blamed.decode(body, params)
                if not self._added.issuperset(blamed.clients):
                    raise FaultyPartyError("the second server blames clients that are not in the sum", sender)
                self._answer = blamed

    def _add(self, client: ClientId, words: RingVector) -> None:
        held = self._total[: words.size]
        np.add(held, words, out=held)
        self._added.add(client)

    def _publish_key(self) -> Sequence[Event]:
        if not self._key:
            return self._fail(LostPartyError("the second server has not sent its key", SECOND_SERVER), (SECOND_SERVER,))
        self._advance("close")
        return [self._send(Kind.KEY, client, self._key) for client in self._params.context.clients]

    def _request_sum(self) -> Sequence[Event]:
        left, needed = len(self._added), self._params.context.threshold
        if left < needed:
            return self._fail(TooFewClientsError(f"{left} clients are left; the threshold is {needed}"))
        self._advance("close")
        self._waiting.clear()
        request = SumRequest({client: self._boxes[client] for client in sorted(self._added)})
        return [self._send(Kind.SUM_REQUEST, SECOND_SERVER, request.encode())]

    def _open_sum(self) -> Sequence[Event]:
        answer, survivors = self._answer, tuple(sorted(self._added))
        if answer is None:
            error = LostPartyError("the second server has not answered the request for the sum", SECOND_SERVER)
            return self._fail(error, (SECOND_SERVER,))
        if isinstance(answer, Blamed):
            words = "the second server says that the sealed seeds of these clients do not open"
            return self._fail(FaultyClientError(words, answer.clients), answer.clients)
        params, at = self._params, 0
        for low, high in params.opened(survivors):
            self._total[low:high] += answer[at : at + high - low]
            at += high - low
        try:
            values = params.packing.unpack(self._total, [params.tier(client) for client in survivors])
        except DecodeError as error:
            why = f"{error}; some client's words are no packed vector, or the second server's share is wrong"
            return self._fail(FaultyClientError(why, survivors), (*survivors, SECOND_SERVER))
        self._advance("close")
        self._forget()
        return [Completed(SumResult(values, survivors))]

    def _fail(self, error: ProtocolError, blamed: tuple[PartyId, ...] = ()) -> Sequence[Event]:
        self._advance("fail")
        self._forget()
        return [Aborted(error, blamed)]

    def _forget(self) -> None:
        self._boxes, self._waiting, self._answer = {}, {}, None
        self._total = np.zeros(0, dtype=np.uint64)

    def _send(self, kind: Kind, to: PartyId, body: bytes) -> Send:
        return Send(to, seal_frame(PROTOCOL, kind, self._params.context_hash, SERVER, to, body))
