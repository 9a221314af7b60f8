"""The server of the signed masked sum, without IO: it collects signatures and passes them on. SPEC secagg §11."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto

from securefl.errors import DecodeError, FaultyClientError, ProtocolError
from securefl.machine import Event, Machine, Send, TransitionTable
from securefl.primitives.identity import Directory
from securefl.secagg.messages import EncryptedShares, server_limits
from securefl.secagg.messages import Kind as Inner
from securefl.secagg.params import PROTOCOL as INNER
from securefl.secagg.params import Params
from securefl.secagg.server import Server
from securefl.secagg.signed.messages import PROTOCOL, Kind, Signatures, box_bytes, limits_of
from securefl.types import SERVER, ClientId
from securefl.wire import Buffer, body_of, open_frame, seal_frame

__all__ = ["SERVER_TRANSITIONS", "SignedServer"]


class State(Enum):
    NEW = auto()
    KEYS = auto()
    BOXES = auto()
    MASK = auto()
    CONFIRM = auto()
    UNMASK = auto()
    ENDED = auto()


#: Triggers: local calls. ``close`` ends an exchange of this protocol's own; the inner server has its own table.
SERVER_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.KEYS},
    State.KEYS: {"close": State.BOXES, "end": State.ENDED},
    State.BOXES: {"close": State.MASK, "end": State.ENDED},
    State.MASK: {"ask": State.CONFIRM, "end": State.ENDED},
    State.CONFIRM: {"close": State.UNMASK, "end": State.ENDED},
    State.UNMASK: {"end": State.ENDED},
    State.ENDED: {},
}


_DUE = {Kind.SIGNED_KEYS: State.KEYS, Kind.SIGNED_BOXES: State.BOXES, Kind.SIGNED_REQUEST: State.CONFIRM}


class SignedServer(Machine):
    """The aggregator: as :class:`~securefl.secagg.server.Server`, with one exchange more before the unmasking.

    ``directory``: the public keys of all clients. It verifies what it passes on, so that one client's bad signature
    costs that client alone. Whoever does not sign for the unmask request is not asked for shares.
    """

    TRANSITIONS = SERVER_TRANSITIONS
    INITIAL = State.NEW

    def __init__(self, params: Params, directory: Directory) -> None:
        super().__init__()
        self._inner = Server(params)
        self._params, self._directory = params, directory
        self._signatures: dict[ClientId, bytes] = {}
        self._unsigned: dict[ClientId, bytes] = {}  # bodies with signatures over what has not come yet
        self._boxes: dict[ClientId, dict[ClientId, bytes]] = {}  # recipient → sender → signature over the box
        self._requests: dict[ClientId, Buffer] = {}

    @property
    def vector_due(self) -> bool:
        """Whether the present exchange asks clients for their vector."""
        return self._inner.state.name == "MASK"

    @property
    def waiting_for(self) -> Collection[ClientId]:
        """Clients that were asked in the present exchange and have not answered, ascending."""
        if self.state is State.CONFIRM:
            return tuple(client for client in sorted(self._requests) if client not in self._signatures)
        waiting = self._inner.waiting_for
        if self.state is State.UNMASK:
            return tuple(client for client in waiting if client in self._signatures)
        return waiting

    def start(self) -> Sequence[Event]:
        """Open the session."""
        self._advance("start")
        return self._inner.start()

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame from a client. Raises as the inner server does, and
        :class:`~securefl.errors.AuthenticationError` for what its sender did not sign; nothing changes then.
        """
        view, params = memoryview(frame), self._params
        if not view.nbytes or view[0] not in (INNER, PROTOCOL):
            raise DecodeError("the frame is of another protocol")
        if view[0] == INNER:
            return self._take_inner(frame)
        limits = limits_of(params, Kind.SIGNED_KEYS, Kind.SIGNED_BOXES, Kind.SIGNED_REQUEST)
        envelope = open_frame(frame, protocol=PROTOCOL, context=params.context_hash, recipient=SERVER, limits=limits)
        kind, sender, signature = Kind(envelope.kind), envelope.sender, bytes(envelope.body)
        due = _DUE[kind]
        if sender not in params:
            raise FaultyClientError(f"party {sender} was not invited", [sender])
        if self.state is not due:
            raise ProtocolError(f"{kind.name} from client {sender} came outside its exchange (now {self.state.name})")
        if kind is not Kind.SIGNED_REQUEST:
            self._unsigned.setdefault(sender, signature)
            return ()
        if sender not in self._requests:
            raise FaultyClientError(f"client {sender} was not asked to sign", [sender])
        self._verify(sender, kind, signature, body_of(self._requests[sender]))
        self._signatures[sender] = signature
        return ()

    def _take_inner(self, frame: Buffer) -> Sequence[Event]:
        params = self._params
        if self.state is State.CONFIRM:
            raise ProtocolError("a message of the masked sum came while signatures are due")
        envelope = open_frame(
            frame, protocol=INNER, context=params.context_hash, recipient=SERVER, limits=server_limits(params)
        )
        sender = envelope.sender
        signs = {Inner.ADVERTISE_KEYS: State.KEYS, Inner.SHARE_KEYS: State.BOXES}.get(Inner(envelope.kind))
        if signs is None or signs is not self.state or sender not in params:
            return self._inner.receive(frame)
        body = self._unsigned.get(sender)
        if body is None:
            raise FaultyClientError(f"client {sender} did not sign what it sent", [sender])
        if signs is State.KEYS:
            self._verify(sender, Kind.SIGNED_KEYS, body, envelope.body)
            events = self._inner.receive(frame)
            self._signatures[sender] = body
            return events
        signatures = self._verified_boxes(sender, body, envelope.body)
        events = self._inner.receive(frame)
        for recipient, signature in signatures.items():
            self._boxes.setdefault(recipient, {})[sender] = signature
        return events

    def _verified_boxes(self, sender: ClientId, body: bytes, shares: Buffer) -> Mapping[ClientId, bytes]:
        params = self._params
        signatures = Signatures.decode(body, params).by_client
        dealt = EncryptedShares.decode(shares, params, owner=sender, owner_sends=True)
        if signatures.keys() != dealt.boxes.keys():
            raise FaultyClientError(f"client {sender} did not sign each box that it sent", [sender])
        for recipient, sealed in dealt.boxes.items():
            context, what = params.context_hash, box_bytes(sealed)
            self._directory.verify(signatures[recipient], context, Kind.SIGNED_BOXES, sender, recipient, what)
        return signatures

    def _verify(self, client: ClientId, kind: Kind, signature: bytes, body: Buffer) -> None:
        self._directory.verify(signature, self._params.context_hash, kind, client, SERVER, body)

    def close_round(self) -> Sequence[Event]:
        """End the present exchange with those who answered."""
        if self.state is State.CONFIRM:
            return self._pass_on()
        inner = self._inner.state.name
        events = list(self._inner.close_round())
        after = self._inner.state.name
        if after in ("FINISHED", "ABORTED"):
            self._advance("end")
            return events
        if inner in ("ADVERTISE", "SHARE"):
            self._advance("close")
            sends = [event for event in events if isinstance(event, Send)]
            lists = [self._list_for(event, inner == "ADVERTISE") for event in sends]
            self._signatures, self._unsigned, self._boxes = {}, {}, {}
            return [*lists, *events]
        if inner == "MASK":
            self._advance("ask")
            self._requests = {event.to: event.frame for event in events if isinstance(event, Send)}
        return events

    def _list_for(self, event: Send, keys: bool) -> Send:
        """The signatures that go before a roster, or before the boxes for one client."""
        if keys:
            return self._send(Kind.KEY_SIGNATURES, event.to, Signatures(self._signatures).encode())
        delivered = EncryptedShares.decode(body_of(event.frame), self._params, owner=event.to, owner_sends=False)
        signatures = {sender: self._boxes[event.to][sender] for sender in delivered.boxes}
        return self._send(Kind.BOX_SIGNATURES, event.to, Signatures(signatures).encode())

    def _pass_on(self) -> Sequence[Event]:
        """Every signature to all that signed; with fewer than the threshold, the session ends."""
        if len(self._signatures) < self._params.threshold:
            self._advance("end")
            return self._inner.close_round()  # no shares were asked for: too few answered
        self._advance("close")
        body = Signatures(self._signatures).encode()
        return [self._send(Kind.REQUEST_SIGNATURES, client, body) for client in sorted(self._signatures)]

    def _send(self, kind: Kind, to: ClientId, body: Buffer) -> Send:
        return Send(to, seal_frame(PROTOCOL, kind, self._params.context_hash, SERVER, to, body))
