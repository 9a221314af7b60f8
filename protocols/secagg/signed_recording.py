"""Whole sessions of the signed form, run by signed_session_ref, and frames that each role must refuse."""

from __future__ import annotations

from typing import Any

import secagg_ref as ref
import session_ref as session
import signed_session_ref as signed
from secagg_faults import Faults
from secagg_known_answers import SPEC, expand, small
from secagg_recording import HOW_TO_READ, KIND_NAMES, Recording
from session_ref import SERVER
from wire_ref import seal_frame

SIGNED_NAMES = {
    getattr(signed, name): name
    for name in (
        "SIGNED_KEYS", "KEY_SIGNATURES", "SIGNED_BOXES", "BOX_SIGNATURES", "SIGNED_REQUEST", "REQUEST_SIGNATURES",
    )
}  # fmt: skip
FILE = "signed_sessions"


def identity(client: int) -> bytes:
    return expand(32, "identity", client)


class SignedRecording(Recording):
    """A session whose parties know each other's public keys."""

    @property
    def known(self) -> dict[int, bytes]:
        return {client: signed.public_of(identity(client)) for client in self.p.clients}

    def role(self, party: int) -> Any:
        if party == SERVER:
            return signed.Server(self.p, self.known)
        return signed.Client(self.p, party, self.source(party), identity(party), self.known, self.floors.get(party))

    @staticmethod
    def kind_name(frame: bytes) -> str:
        return (SIGNED_NAMES if frame[0] == signed.PROTOCOL else KIND_NAMES)[frame[2]]

    def test(self) -> dict[str, Any]:
        made = super().test()
        for client in made["input"]["clients"]:
            client["identity"] = identity(client["id"]).hex()
        return made

    def own(self, sender: int, to: int, kind: int, body: bytes) -> bytes:
        return seal_frame(signed.PROTOCOL, kind, self.p.context, sender, to, body)

    def inner(self, sender: int, to: int, kind: int, body: bytes) -> bytes:
        return seal_frame(session.PROTOCOL, kind, self.p.context, sender, to, body)


def recordings() -> list[SignedRecording]:
    four = small((3, 7, 20, 21), 3)
    return [
        SignedRecording(FILE, "signed-three", "three clients, all answer", small()),
        SignedRecording(
            FILE, "signed-dropped-after-sharing", "client 7 shares keys and sends no input", four, drop={7: 4}
        ),
        SignedRecording(
            FILE, "signed-unsigned-request", "client 21 sends its input and does not sign for the request", four,
            drop={21: 5},
        ),
        SignedRecording(
            FILE, "signed-too-few-signatures", "two of four sign for the request: nothing is opened", four,
            drop={20: 5, 21: 5}, derived_from=f"{FILE}.json#signed-unsigned-request",
        ),
    ]  # fmt: skip


def faults(recorded: dict[str, Recording]) -> list[dict[str, Any]]:
    base: Any = recorded["signed-three"]
    p, me, made = base.p, 7, Faults(recorded)

    def refuse(name: str, comment: str, party: int, at: int, frame: bytes, error: str, **options: Any) -> None:
        made.inject(name, comment, "signed-three", party, at, frame, error, **options)

    gone = {"then": "aborted"}
    # ---- keys
    listed = base.find(me, "KEY_SIGNATURES")
    roster = base.find(me, "ROSTER")
    keys = session.read_roster(p, base.body(roster))
    refuse("roster-before-signatures", "the roster comes before the signatures of its keys", me, listed,
           base.inner(SERVER, me, session.ROSTER, base.body(roster)), "FaultyServerError")  # fmt: skip
    swapped = signed.read_list(p, base.body(listed))
    twice = base.body(listed)[:4] + (base.body(listed)[4:72]) * 2 + base.body(listed)[140:]
    refuse("signatures-of-one-twice", "a list that names a client twice", me, listed,
           base.own(SERVER, me, signed.KEY_SIGNATURES, twice), "DecodeError")  # fmt: skip
    stranger = dict(swapped)
    stranger[99] = stranger.pop(20)
    refuse("signature-of-a-stranger", "a list that names a client that was not invited", me, listed,
           base.own(SERVER, me, signed.KEY_SIGNATURES, signed.list_body(stranger)), "DecodeError")  # fmt: skip
    false = {**keys, 20: ref.advertise(p, 20, *(expand(32, "server's", i) for i in range(3)))[2]}
    refuse("roster-with-the-servers-keys", "keys that the server made stand in place of client 20's", me, roster,
           base.inner(SERVER, me, session.ROSTER, session.write_roster(false)),
           "AuthenticationError", **gone)  # fmt: skip
    # ---- boxes
    delivery = base.find(me, "DELIVER_SHARES")
    boxes = session.read_boxes(p, base.body(delivery), me, owner_sends=False)
    roster_hash = ref.roster_hash(p, base.body(roster))
    box = ref.seal(p.suite, keys[me][1], expand(32, "server's pair secret"),
                   ref.box_info(p, "pair", roster_hash, 3, me), expand(32, "server's coins"))  # fmt: skip
    forged = {**boxes, 3: (boxes[3][0], box)}
    refuse("box-with-the-servers-secret", "a pair secret of the server's choice, sealed to this client's own key", me,
           delivery, base.inner(SERVER, me, session.DELIVER_SHARES, session.write_boxes(forged)),
           "AuthenticationError", **gone)  # fmt: skip
    # ---- the request
    asked = base.find(me, "UNMASK_REQUEST")
    confirmed = base.find(me, "REQUEST_SIGNATURES")
    other = session.write_request([3, 7], [20])
    refuse("second-request", "another request, after one was signed for", me, confirmed,
           base.inner(SERVER, me, session.UNMASK_REQUEST, other), "FaultyServerError")  # fmt: skip
    signatures = signed.read_list(p, base.body(confirmed))

    def agreed(given: dict[int, bytes]) -> bytes:
        return base.own(SERVER, me, signed.REQUEST_SIGNATURES, signed.list_body(given))

    refuse("request-with-too-few-signatures", "one client signed; the threshold is 2", me, confirmed,
           agreed({7: signatures[7]}), "TooFewClientsError", **gone)  # fmt: skip
    elsewhere = signed.sign(identity(20), p, signed.SIGNED_REQUEST, 20, SERVER, other)
    refuse("signature-for-another-request", "client 20 signed for another set of survivors", me, confirmed,
           agreed({**signatures, 20: elsewhere}), "AuthenticationError", **gone)  # fmt: skip
    # ---- at the server
    first = base.find(SERVER, "ADVERTISE_KEYS", me)
    refuse("keys-other-than-signed", "the frame of client 7 is not what it signed", SERVER, first,
           base.inner(me, SERVER, session.ADVERTISE_KEYS, b"".join(false[20])), "AuthenticationError")  # fmt: skip
    second = base.find(SERVER, "SHARE_KEYS", me)
    dealt = session.read_boxes(p, base.body(second), me, owner_sends=True)
    changed = {**dealt, 3: (dealt[3][0][:-1] + bytes([dealt[3][0][-1] ^ 1]), dealt[3][1])}
    refuse("boxes-other-than-signed", "one byte of a box is not what client 7 signed", SERVER, second,
           base.inner(me, SERVER, session.SHARE_KEYS, session.write_boxes(changed)), "AuthenticationError")  # fmt: skip
    third = base.find(SERVER, "SIGNED_REQUEST", me)
    refuse("request-other-than-asked", "client 7 signs for another request", SERVER, third,
           base.own(me, SERVER, signed.SIGNED_REQUEST,
                    signed.sign(identity(me), p, signed.SIGNED_REQUEST, me, SERVER, other)),
           "AuthenticationError")  # fmt: skip
    refuse("shares-before-signatures", "shares come while signatures for the request are due", SERVER, third,
           base.inner(me, SERVER, session.UNMASK_SHARES, base.body(base.find(SERVER, "UNMASK_SHARES", me))),
           "ProtocolError")  # fmt: skip
    assert base.steps[asked]["party"] == me
    return made.groups


def signed_sessions_file() -> dict[str, Any]:
    made = recordings()
    return {
        "spec": f"{SPEC} §11",
        "description": (
            "Sessions between parties with pinned identities, and frames that are refused. input.clients[].identity: "
            f"the seed of the client's Ed25519 key. inject: as in faults.json. {HOW_TO_READ}"
        ),
        "groups": [*(recording.group() for recording in made), *faults({r.name: r for r in made})],
    }
