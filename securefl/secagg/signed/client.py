"""The client of the signed masked sum, without IO. SPEC: protocols/secagg/SPEC.md §11."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyServerError,
    TooFewClientsError,
)
from securefl.machine import Event, Machine, Send, TransitionTable
from securefl.primitives.entropy import Entropy
from securefl.primitives.identity import Directory, Identity
from securefl.secagg.client import Client
from securefl.secagg.messages import EncryptedShares, Roster, UnmaskRequest, client_limits
from securefl.secagg.messages import Kind as Inner
from securefl.secagg.params import PROTOCOL as INNER
from securefl.secagg.params import Params
from securefl.secagg.signed.messages import PROTOCOL, Kind, Signatures, box_bytes, limits_of
from securefl.types import SERVER, ClientId, IntegerVector
from securefl.wire import Buffer, Reader, Writer, body_of, open_frame, seal_frame

__all__ = ["CLIENT_TRANSITIONS", "SignedClient"]

_LIMIT: Final = 2**28


class State(Enum):
    NEW = auto()
    SIGNED = auto()
    LISTED = auto()
    KEYED = auto()
    BOXED = auto()
    DEALT = auto()
    ASKED = auto()
    CONFIRMED = auto()
    ABORTED = auto()


#: Triggers: messages of this protocol, and those of the masked sum that it looks into; the rest are the inner client's.
CLIENT_TRANSITIONS: TransitionTable = {
    State.NEW: {"start": State.SIGNED},
    State.SIGNED: {"KEY_SIGNATURES": State.LISTED, "fail": State.ABORTED},
    State.LISTED: {"ROSTER": State.KEYED, "fail": State.ABORTED},
    State.KEYED: {"BOX_SIGNATURES": State.BOXED, "fail": State.ABORTED},
    State.BOXED: {"DELIVER_SHARES": State.DEALT, "fail": State.ABORTED},
    State.DEALT: {"UNMASK_REQUEST": State.ASKED, "fail": State.ABORTED},
    State.ASKED: {"REQUEST_SIGNATURES": State.CONFIRMED, "fail": State.ABORTED},
    State.CONFIRMED: {"fail": State.ABORTED},
    State.ABORTED: {"fail": State.ABORTED},
}


class SignedClient(Machine):
    """A client of the masked sum that knows the others by their public keys. ``directory``: of all invited clients,
    from a source that is not the server. The other arguments are those of :class:`~securefl.secagg.client.Client`.

    Raises :class:`ConfigurationError` for a directory that lacks a client, gives two the same key, or holds another
    key of this one than ``identity``.
    """

    TRANSITIONS = CLIENT_TRANSITIONS
    INITIAL = State.NEW

    def __init__(
        self,
        params: Params,
        me: ClientId,
        identity: Identity,
        directory: Directory,
        *,
        minimum_survivors: int | None = None,
        minimum_threshold: int = 2,
        entropy: Entropy | None = None,
    ) -> None:
        super().__init__()
        self._inner = Client(
            params, me, minimum_survivors=minimum_survivors, minimum_threshold=minimum_threshold, entropy=entropy
        )
        known = {client: directory.keys.get(client) for client in params.clients}
        if None in known.values() or len(set(known.values())) != len(known) or known[me] != identity.public:
            raise ConfigurationError("the directory must hold one public key per invited client, this one's among them")
        self._params, self._me, self._identity, self._directory = params, me, identity, directory
        self._listed: Signatures = Signatures({})
        self._request = b""  # the frame that waits for the others' signatures

    def start(self) -> Sequence[Event]:
        """Advertise keys, and sign them. SPEC §11.1, step 1."""
        self._advance("start")
        events = list(self._inner.start())
        (keys,) = (event.frame for event in events if isinstance(event, Send))
        return [self._signed(Kind.SIGNED_KEYS, body_of(keys)), *events]

    def provide(self, values: IntegerVector) -> Sequence[Event]:
        """As :meth:`Client.provide`."""
        return self._inner.provide(values)

    def receive(self, frame: Buffer) -> Sequence[Event]:
        """Take one frame. Raises as :meth:`Client.receive`, and :class:`AuthenticationError` or
        :class:`TooFewClientsError` for keys or a request that too few, or others than they say, have signed: the
        client takes no further part.
        """
        data = bytes(frame)
        if not data or data[0] not in (INNER, PROTOCOL):
            raise DecodeError("the frame is of another protocol")
        if self.state is State.ABORTED:
            raise FaultyServerError("this session is over here")
        try:
            return self._take_own(data) if data[0] == PROTOCOL else self._take_inner(data)
        except (AuthenticationError, TooFewClientsError):
            self._advance("fail")
            self._request = b""
            raise

    def _take_own(self, frame: bytes) -> Sequence[Event]:
        params = self._params
        limits = limits_of(params, Kind.KEY_SIGNATURES, Kind.BOX_SIGNATURES, Kind.REQUEST_SIGNATURES)
        envelope = open_frame(frame, protocol=PROTOCOL, context=params.context_hash, recipient=self._me, limits=limits)
        kind = Kind(envelope.kind)
        self._turn(kind.name)
        listed = Signatures.decode(envelope.body, params)
        if kind is not Kind.REQUEST_SIGNATURES:
            self._advance(kind.name)
            self._listed = listed
            return ()
        request = UnmaskRequest.decode(body_of(self._request), params)
        body, agreed = body_of(self._request), 0
        for client, signature in listed.by_client.items():
            if client not in request.survivors:
                raise AuthenticationError(f"client {client} signed for a sum that it is not in")
            self._verify(client, Kind.SIGNED_REQUEST, signature, body)
            agreed += 1
        if agreed < params.threshold:
            raise TooFewClientsError(
                f"{agreed} clients signed for this request; {params.threshold} must, so that there is no other"
            )
        self._advance(kind.name)
        held, self._request = self._request, b""
        return self._inner.receive(held)

    def _take_inner(self, frame: bytes) -> Sequence[Event]:
        params = self._params
        envelope = open_frame(
            frame, protocol=INNER, context=params.context_hash, recipient=self._me, limits=client_limits(params)
        )
        if envelope.kind == Inner.ROSTER:
            self._turn(Inner.ROSTER.name)
            roster = Roster.decode(envelope.body, params)
            for client, keys in roster.keys.items():
                signature = self._listed.by_client.get(client)
                if signature is None:
                    raise AuthenticationError(f"the keys of client {client} came without its signature")
                self._verify(client, Kind.SIGNED_KEYS, signature, keys.encode())
            events = list(self._inner.receive(frame))
            self._advance(Inner.ROSTER.name)
            self._listed = Signatures({})
            (shares,) = (event.frame for event in events if isinstance(event, Send))
            return [
                self._signed_boxes(EncryptedShares.decode(body_of(shares), params, owner=self._me, owner_sends=True)),
                *events,
            ]
        if envelope.kind == Inner.DELIVER_SHARES:
            self._turn(Inner.DELIVER_SHARES.name)
            delivered = EncryptedShares.decode(envelope.body, params, owner=self._me, owner_sends=False)
            for client, sealed in delivered.boxes.items():
                signature = self._listed.by_client.get(client)
                if signature is None:
                    raise AuthenticationError(f"the box of client {client} came without its signature")
                context = params.context_hash
                body = box_bytes(sealed)
                self._directory.verify(signature, context, Kind.SIGNED_BOXES, client, self._me, body)
            self._advance(Inner.DELIVER_SHARES.name)
            self._listed = Signatures({})
            return self._inner.receive(frame)
        if envelope.kind == Inner.UNMASK_REQUEST:
            self._turn(Inner.UNMASK_REQUEST.name)
            UnmaskRequest.decode(envelope.body, params)
            self._advance(Inner.UNMASK_REQUEST.name)
            self._request = frame
            return [self._signed(Kind.SIGNED_REQUEST, body_of(frame))]
        return self._inner.receive(frame)

    def _turn(self, name: str) -> None:
        if name not in self.TRANSITIONS[self.state]:
            raise FaultyServerError(f"{name} does not belong to state {self.state.name}: each step happens once")

    def _verify(self, client: ClientId, kind: Kind, signature: bytes, body: Buffer) -> None:
        self._directory.verify(signature, self._params.context_hash, kind, client, SERVER, body)

    def _signed(self, kind: Kind, body: Buffer) -> Send:
        signature = self._identity.sign(self._params.context_hash, kind, self._me, SERVER, body)
        return Send(SERVER, seal_frame(PROTOCOL, kind, self._params.context_hash, self._me, SERVER, signature))

    def _signed_boxes(self, dealt: EncryptedShares) -> Send:
        """A signature for the recipient of each box: HPKE tells a recipient nothing about who sealed."""
        context = self._params.context_hash
        signatures = {
            client: self._identity.sign(context, Kind.SIGNED_BOXES, self._me, client, box_bytes(sealed))
            for client, sealed in dealt.boxes.items()
        }
        body = Signatures(signatures).encode()
        return Send(SERVER, seal_frame(PROTOCOL, Kind.SIGNED_BOXES, context, self._me, SERVER, body))

    # ---- between messages ------------------------------------------------------------------------------------

    def suspend(self) -> bytes:
        """This client as bytes, secrets included; see :mod:`securefl.secagg.suspension`.

        u8 state · blob signatures · blob request · blob the inner client.
        """
        writer = Writer().u8(self._state.value).blob(self._listed.encode()).blob(self._request)
        return writer.blob(self._inner.suspend()).done()

    @classmethod
    def resume(cls, params: Params, data: Buffer, identity: Identity, directory: Directory) -> SignedClient:
        """The client that :meth:`suspend` gave ``data``, once. Raises :class:`DecodeError` for other bytes."""
        reader = Reader(data)
        state, listed = reader.u8(), Signatures.decode(reader.blob(limit=_LIMIT), params)
        request, saved = bytes(reader.blob(limit=_LIMIT)), bytes(reader.blob(limit=_LIMIT))
        reader.end()
        inner = Client.resume(params, saved)
        client = cls(params, inner.me, identity, directory)
        client._inner, client._listed, client._request = inner, listed, request
        try:
            client._state = State(state)
        except ValueError:
            raise DecodeError(f"a suspended client is in no state {state}") from None
        return client
