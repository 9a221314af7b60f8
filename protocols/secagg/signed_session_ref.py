"""Reference for protocols/secagg/SPEC.md §11: the signed form, around the roles of session_ref. Shares no code with
securefl/.
"""

from __future__ import annotations

import session_ref as session
import signed_ref as ref
from secagg_ref import Fault, Params, Random
from session_ref import SERVER, need
from signed_ref import (
    BOX_SIGNATURES,
    KEY_SIGNATURES,
    PROTOCOL,
    REQUEST_SIGNATURES,
    SIGNATURE_BYTES,
    SIGNED_BOXES,
    SIGNED_KEYS,
    SIGNED_REQUEST,
    Signer,
    list_body,
    read_list,
)
from wire_ref import DecodeError, open_frame, seal_frame

Directory = dict[int, bytes]
Signatures = dict[int, bytes]


# ---- SPEC §11.2 ------------------------------------------------------------------------------------------------------


def public_of(seed: bytes) -> bytes:
    return Signer(seed).public


def sign(seed: bytes, p: Params, kind: int, sender: int, recipient: int, body: bytes) -> bytes:
    return Signer(seed).signature(p.context, kind, sender, recipient, body)


def verify(
    known: Directory, given: bytes | None, p: Params, kind: int, sender: int, recipient: int, body: bytes
) -> None:
    need(given is not None, "AuthenticationError", "no signature")
    right = ref.verifies(known[sender], given, p.context, kind, sender, recipient, body)
    need(right, "AuthenticationError", "the signature does not verify")


def limits(p: Params, *kinds: int) -> dict[int, int]:
    listed = 4 + len(p.clients) * (4 + SIGNATURE_BYTES)
    return {kind: SIGNATURE_BYTES if kind in (SIGNED_KEYS, SIGNED_REQUEST) else listed for kind in kinds}


def body_of(frame: bytes) -> bytes:
    return frame[56:-16]


def box_body(box: tuple[bytes, bytes | None]) -> bytes:
    return box[0] + (box[1] or b"")


def boxes_of(p: Params, frame: bytes, owner: int, *, owner_sends: bool) -> session.Boxes:
    return session.read_boxes(p, body_of(frame), owner, owner_sends=owner_sends)


# ---- SPEC §11.1: the client ----------------------------------------------------------------------------------------


class Client:
    """``seed``: of its signing key. ``known``: everybody's public keys. ``due``: what it waits for, in order."""

    def __init__(
        self, p: Params, me: int, random: Random, seed: bytes, known: Directory, floor: int | None = None
    ) -> None:
        self.p, self.me, self.seed, self.known = p, me, seed, known
        self.inner = session.Client(p, me, random, floor)
        self.due = [
            (PROTOCOL, KEY_SIGNATURES), (session.PROTOCOL, session.ROSTER),
            (PROTOCOL, BOX_SIGNATURES), (session.PROTOCOL, session.DELIVER_SHARES),
            (session.PROTOCOL, session.UNMASK_REQUEST), (PROTOCOL, REQUEST_SIGNATURES),
        ]  # fmt: skip
        self.listed: Signatures = {}
        self.request = b""
        self.over = False

    def start(self) -> list[tuple]:
        events = self.inner.start()
        return [self.signed(SIGNED_KEYS, body_of(events[0][2])), *events]

    def provide(self, values: list[int]) -> list[tuple]:
        return self.inner.provide(values)

    def receive(self, frame: bytes) -> list[tuple]:
        if not frame or frame[0] not in (session.PROTOCOL, PROTOCOL):
            raise DecodeError("another protocol")
        need(not self.over, "FaultyServerError", "over")
        try:
            return self.own(frame) if frame[0] == PROTOCOL else self.around(frame)
        except Fault as fault:
            self.over = fault.error in ("AuthenticationError", "TooFewClientsError")
            raise

    def turn(self, protocol: int, kind: int) -> None:
        need(
            bool(self.due) and self.due[0] == (protocol, kind), "FaultyServerError", "each step happens once, in order"
        )

    def own(self, frame: bytes) -> list[tuple]:
        p = self.p
        kinds = limits(p, KEY_SIGNATURES, BOX_SIGNATURES, REQUEST_SIGNATURES)
        kind, _, body = open_frame(frame, PROTOCOL, p.context, self.me, kinds)
        self.turn(PROTOCOL, kind)
        listed = read_list(p, body)
        if kind != REQUEST_SIGNATURES:
            self.listed = listed
            self.due.pop(0)
            return []
        asked = body_of(self.request)
        survivors, _ = session.read_request(p, asked)
        for client, signature in listed.items():
            need(client in survivors, "AuthenticationError", "signed for a sum that it is not in")
            verify(self.known, signature, p, SIGNED_REQUEST, client, SERVER, asked)
        need(len(listed) >= p.threshold, "TooFewClientsError", "signed for this request")
        self.due.pop(0)
        return self.inner.receive(self.request)

    def around(self, frame: bytes) -> list[tuple]:
        p = self.p
        kinds = session.limits(p, session.ROSTER, session.DELIVER_SHARES, session.UNMASK_REQUEST, session.ABORT)
        kind, _, body = open_frame(frame, session.PROTOCOL, p.context, self.me, kinds)
        if kind == session.ABORT:
            return self.inner.receive(frame)
        self.turn(session.PROTOCOL, kind)
        if kind == session.ROSTER:
            for client, keys in session.read_roster(p, body).items():
                verify(self.known, self.listed.get(client), p, SIGNED_KEYS, client, SERVER, b"".join(keys))
            events = self.inner.receive(frame)
            self.due.pop(0)
            dealt = boxes_of(p, events[0][2], self.me, owner_sends=True)
            return [self.send(SIGNED_BOXES, self.over_boxes(dealt)), *events]
        if kind == session.DELIVER_SHARES:
            for client, box in boxes_of(p, frame, self.me, owner_sends=False).items():
                verify(self.known, self.listed.get(client), p, SIGNED_BOXES, client, self.me, box_body(box))
            self.due.pop(0)
            return self.inner.receive(frame)
        session.read_request(p, body)
        self.due.pop(0)
        self.request = frame
        return [self.signed(SIGNED_REQUEST, body)]

    def over_boxes(self, dealt: session.Boxes) -> bytes:
        signatures = {
            other: sign(self.seed, self.p, SIGNED_BOXES, self.me, other, box_body(box)) for other, box in dealt.items()
        }
        return list_body(signatures)

    def signed(self, kind: int, body: bytes) -> tuple:
        return self.send(kind, sign(self.seed, self.p, kind, self.me, SERVER, body))

    def send(self, kind: int, body: bytes) -> tuple:
        return "send", SERVER, seal_frame(PROTOCOL, kind, self.p.context, self.me, SERVER, body)


# ---- SPEC §11.1: the server ----------------------------------------------------------------------------------------


class Server:
    """``before``: bodies with signatures over what has not come yet; ``signatures``, ``boxes``: what is passed on."""

    def __init__(self, p: Params, known: Directory) -> None:
        self.p, self.known, self.inner = p, known, session.Server(p)
        self.before: dict[int, bytes] = {}
        self.signatures: Signatures = {}
        self.boxes: dict[int, Signatures] = {}
        self.requests: dict[int, bytes] = {}
        self.confirming = False

    def start(self) -> list[tuple]:
        return self.inner.start()

    def receive(self, frame: bytes) -> list[tuple]:
        if not frame or frame[0] not in (session.PROTOCOL, PROTOCOL):
            raise DecodeError("another protocol")
        if frame[0] == session.PROTOCOL:
            return self.around(frame)
        p = self.p
        kinds = limits(p, SIGNED_KEYS, SIGNED_BOXES, SIGNED_REQUEST)
        kind, sender, body = open_frame(frame, PROTOCOL, p.context, SERVER, kinds)
        need(sender in p.clients, "FaultyClientError", "not invited", sender)
        due = {session.ADVERTISE_KEYS: SIGNED_KEYS, session.SHARE_KEYS: SIGNED_BOXES}.get(self.inner.due)
        need(kind == (SIGNED_REQUEST if self.confirming else due), "ProtocolError", "outside its exchange")
        if kind != SIGNED_REQUEST:
            self.before.setdefault(sender, body)
            return []
        need(sender in self.requests, "FaultyClientError", "was not asked", sender)
        verify(self.known, body, p, kind, sender, SERVER, body_of(self.requests[sender]))
        self.signatures[sender] = body
        return []

    def around(self, frame: bytes) -> list[tuple]:
        p = self.p
        need(not self.confirming, "ProtocolError", "signatures are due")
        every = (session.ADVERTISE_KEYS, session.SHARE_KEYS, session.MASKED_INPUT, session.UNMASK_SHARES)
        kind, sender, body = open_frame(frame, session.PROTOCOL, p.context, SERVER, session.limits(p, *every))
        signs = kind in (session.ADVERTISE_KEYS, session.SHARE_KEYS) and kind == self.inner.due
        if not signs or sender not in p.clients:
            return self.inner.receive(frame)
        given = self.before.get(sender)
        need(given is not None, "FaultyClientError", "not signed", sender)
        if kind == session.ADVERTISE_KEYS:
            verify(self.known, given, p, SIGNED_KEYS, sender, SERVER, body)
            self.inner.receive(frame)
            self.signatures[sender] = given
            return []
        listed, dealt = read_list(p, given), boxes_of(p, frame, sender, owner_sends=True)
        need(set(listed) == set(dealt), "FaultyClientError", "not each box is signed", sender)
        for other, box in dealt.items():
            verify(self.known, listed[other], p, SIGNED_BOXES, sender, other, box_body(box))
        self.inner.receive(frame)
        for other in dealt:
            self.boxes.setdefault(other, {})[sender] = listed[other]
        return []

    def close_round(self) -> list[tuple]:
        if self.confirming:
            return self.pass_on()
        was = self.inner.due
        events = self.inner.close_round()
        if self.inner.due == 0 or was in (session.UNMASK_SHARES,):
            return events
        if was == session.MASKED_INPUT:
            self.confirming, self.requests, self.signatures = True, {e[1]: e[2] for e in events}, {}
            return events
        lists = [self.list_for(event[1], event[2], was) for event in events]
        self.before, self.signatures, self.boxes = {}, {}, {}
        return [*lists, *events]

    def list_for(self, to: int, frame: bytes, was: int) -> tuple:
        if was == session.ADVERTISE_KEYS:
            return self.send(KEY_SIGNATURES, to, list_body(self.signatures))
        senders = boxes_of(self.p, frame, to, owner_sends=False)
        return self.send(BOX_SIGNATURES, to, list_body({i: self.boxes[to][i] for i in senders}))

    def pass_on(self) -> list[tuple]:
        self.confirming = False
        if len(self.signatures) < self.p.threshold:
            return self.inner.close_round()
        body = list_body(self.signatures)
        return [self.send(REQUEST_SIGNATURES, to, body) for to in sorted(self.signatures)]

    def send(self, kind: int, to: int, body: bytes) -> tuple:
        return "send", to, seal_frame(PROTOCOL, kind, self.p.context, SERVER, to, body)
