"""One fault each: frames that client or server refuse, and wrong shares that the server finds. Made by hand, tried on
session_ref before they are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import primitives_ref as prim
import secagg_ref as ref
import session_ref as session
from secagg_known_answers import LOW_ORDER_8, OTHER_MODEL, SPEC, expand, must_raise
from secagg_recording import Recording
from secagg_ref import Fault, Params
from session_ref import SERVER
from wire_ref import DecodeError, checksum, seal_frame

# ---- faults


class Faults:
    """Collects fault vectors; every one is tried on the reference first."""

    def __init__(self, recorded: dict[str, Recording]) -> None:
        self.recorded = recorded
        self.groups: list[dict[str, Any]] = []

    def roles_until(self, base: Recording, party: int, at: int) -> Any:
        """The party's role after all its steps before step ``at``."""
        role = base.role(party)
        for step in base.steps[:at]:
            if step["party"] == party:
                self.play(base, role, step)
        return role

    @staticmethod
    def play(base: Recording, role: Any, step: dict[str, Any], frame: str | None = None) -> list[tuple[Any, ...]]:
        try:
            if step["do"] == "receive":
                return role.receive(bytes.fromhex(frame or base.frames[step["frame"]]["hex"]))
            if step["do"] == "provide":
                return role.provide(base.values[step["party"]])
            return getattr(role, step["do"])()
        except (Fault, DecodeError):
            assert "raises" in step
            return []

    def inject(
        self,
        name: str,
        comment: str,
        base: str,
        party: int,
        at: int,
        frame: bytes,
        error: str,
        *,
        then: str = "continues",
        blamed: tuple[int, ...] = (),
    ) -> None:
        """``frame`` comes to ``party`` just before the baseline's step ``at``, and is refused."""
        recording = self.recorded[base]
        role = self.roles_until(recording, party, at)
        found = must_raise(error, lambda: role.receive(frame), name)
        assert found == sorted(blamed), (name, found, blamed)
        rest = [step for step in recording.steps[at:] if step["party"] == party]
        if then == "continues":
            for step in rest:
                events = self.play(recording, role, step)
                sent = [event[2].hex() for event in events if event[0] == "send"]
                given = [recording.frames[item["send"]]["hex"] for item in step.get("gives", []) if "send" in item]
                assert sent == given, name
        else:
            for step in rest:
                if step["do"] == "receive":
                    later = bytes.fromhex(recording.frames[step["frame"]]["hex"])
                    must_raise("FaultyServerError", lambda later=later: role.receive(later), name)
        given = {"party": party, "before_step": at, "frame": frame.hex(), "then": then}
        self.add(recording, name, comment, "inject", given, {"error": {"type": error, "blamed": sorted(blamed)}})

    def swap(self, name: str, comment: str, base: str, swaps: dict[int, bytes]) -> dict[str, Any]:
        """The server of the baseline gets other frames in some steps; ``swaps``: step → frame. Gives the outcome."""
        recording = self.recorded[base]
        role = session.Server(recording.p)
        events: list[tuple[Any, ...]] = []
        for at, step in enumerate(recording.steps):
            if step["party"] == SERVER:
                events = self.play(recording, role, step, swaps[at].hex() if at in swaps else None)
        last = events[-1]
        outcome = {"expected": last[1]} if last[0] == "completed" else {"error": {"type": last[1], "blamed": last[2]}}
        given = {"frames": {str(at): frame.hex() for at, frame in swaps.items()}}
        self.add(recording, name, comment, "swap", given, outcome)
        return outcome

    def add(
        self, base: Recording, name: str, comment: str, operation: str, given: dict[str, Any], outcome: dict[str, Any]
    ) -> None:
        test = {
            "id": name,
            "comment": comment,
            "derived_from": f"{base.file}.json#{base.name}",
            "input": given,
            **outcome,
        }
        if (
            not self.groups
            or self.groups[-1]["operation"] != operation
            or self.groups[-1]["params"]["base"] != base.name
        ):
            self.groups.append({"operation": operation, "params": {"base": base.name}, "tests": []})
        self.groups[-1]["tests"].append(test)


def faults_file(recorded: dict[str, Recording]) -> dict[str, Any]:
    faults = Faults(recorded)
    frame_faults(faults)
    roster_faults(faults)
    delivery_faults(faults)
    request_faults(faults)
    server_faults(faults)
    share_faults(faults)
    return {
        "spec": f"{SPEC} §7",
        "description": (
            "inject: play input.party's steps of the session derived_from before step input.before_step, then "
            "give it input.frame: it is refused with 'error'. If input.then is 'continues', the party's other "
            "steps go on as recorded, as if nothing had come; if it is 'aborted', the party refuses its next "
            "recorded frame, too. swap: play the server's steps of the session derived_from with input.frames, by "
            "step, in place of the recorded ones: it ends with 'expected' or 'error'; what it sends on the way is "
            "not compared. Each frame has one fault. Checksums are right unless they are the fault."
        ),
        "groups": faults.groups,
    }


def to_client(p: Params, client: int, kind: int, body: bytes, **changes: Any) -> bytes:
    values = {"protocol": 1, "context": p.context, "sender": SERVER, "to": client, **changes}
    return seal_frame(values["protocol"], kind, values["context"], values["sender"], values["to"], body)


def to_server(p: Params, client: int, kind: int, body: bytes) -> bytes:
    return seal_frame(1, kind, p.context, client, SERVER, body)


def frame_faults(faults: Faults) -> None:
    base = faults.recorded["x25519-three"]
    p, at = base.p, base.find(7, "ROSTER")
    body = base.body(at)
    good = bytes.fromhex(base.frames[base.steps[at]["frame"]]["hex"])

    def client_refuses(name: str, comment: str, frame: bytes, error: str = "DecodeError", before: int = at) -> None:
        faults.inject(name, comment, base.name, 7, before, frame, error)

    client_refuses("frame-truncated", "the roster's last byte is missing", good[:-1])
    client_refuses("frame-bit-flipped", "one bit of the roster", good[:60] + bytes([good[60] ^ 1]) + good[61:])
    client_refuses("frame-other-protocol", "protocol 2", to_client(p, 7, session.ROSTER, body, protocol=2))
    version = bytes([good[0], 2]) + good[2:-16]
    client_refuses("frame-other-version", "version 2", version + checksum(version))
    for name, comment, changes in (
        ("frame-other-model", "the roster of a session with another model", {"model_hash": OTHER_MODEL}),
        ("frame-other-round", "the roster of another round", {"round": 2}),
        ("frame-other-session", "the roster of another run", {"session": b"another"}),
        ("frame-other-threshold", "the roster of a session with another threshold", {"threshold": 3}),
    ):
        frame = to_client(p, 7, session.ROSTER, body, context=replace(p, **changes).context)
        client_refuses(name, comment, frame)
    client_refuses("frame-for-another", "the roster addressed to client 20", to_client(p, 20, session.ROSTER, body))
    client_refuses(
        "frame-from-a-client",
        "the roster sent by client 3",
        to_client(p, 7, session.ROSTER, body, sender=3),
        "FaultyServerError",
    )
    reflected = to_client(p, 7, session.ADVERTISE_KEYS, bytes(96))
    client_refuses("frame-kind-for-the-server", "a client's own message comes back", reflected)
    client_refuses("frame-kind-unknown", "kind 9", to_client(p, 7, 9, b""))
    delivered = base.body(base.find(7, "DELIVER_SHARES"))
    client_refuses(
        "step-too-early",
        "shares come before the roster",
        to_client(p, 7, session.DELIVER_SHARES, delivered),
        "FaultyServerError",
    )
    changed = body[:-1] + bytes([body[-1] ^ 1])
    client_refuses(
        "step-twice",
        "a second, different roster after the first",
        to_client(p, 7, session.ROSTER, changed),
        "FaultyServerError",
        base.find(7, "DELIVER_SHARES"),
    )
    client_refuses("abort-unknown-reason", "an abort with reason 3", to_client(p, 7, session.ABORT, b"\x03"))
    client_refuses("abort-without-reason", "an empty abort", to_client(p, 7, session.ABORT, b""))


def roster_faults(faults: Faults) -> None:
    base = faults.recorded["x25519-three"]
    p, at = base.p, base.find(7, "ROSTER")
    roster = session.read_roster(p, base.body(at))

    def put(
        name: str,
        comment: str,
        entries: list[tuple[int, ref.Keys]],
        error: str,
        then: str = "aborted",
        blamed: tuple[int, ...] = (),
        count: int | None = None,
        extra: bytes = b"",
    ) -> None:
        size = len(entries) if count is None else count
        body = ref.u32(size) + b"".join(ref.u32(i) + b"".join(keys) for i, keys in entries) + extra
        frame = to_client(p, 7, session.ROSTER, body)
        faults.inject(name, comment, base.name, 7, at, frame, error, then=then, blamed=blamed)

    def with_keys(client: int, place: int, value: bytes) -> list[tuple[int, ref.Keys]]:
        keys = list(roster[client])
        keys[place] = value
        return sorted({**roster, client: tuple(keys)}.items())

    entries = sorted(roster.items())
    own = roster[7]
    put(
        "roster-without-me",
        "client 7 is not on the roster it gets",
        [e for e in entries if e[0] != 7],
        "FaultyServerError",
    )
    for place, name in enumerate(("channel-key", "mask-key", "commitment")):
        other = own[place][:-1] + bytes([own[place][-1] ^ 1])
        put(
            f"roster-own-{name}-changed",
            "one bit of client 7's own entry",
            with_keys(7, place, other),
            "FaultyServerError",
        )
    put("roster-too-few", "client 7 alone: fewer than its own minimum", [(7, own)], "TooFewClientsError")
    put("roster-key-copied", "client 3 has client 7's channel key", with_keys(3, 0, own[0]), "FaultyServerError")
    put(
        "roster-key-in-both-places",
        "client 3's mask key is its channel key",
        with_keys(3, 1, roster[3][0]),
        "FaultyServerError",
    )
    put(
        "roster-channel-key-unusable",
        "client 3's channel key is the point 0",
        with_keys(3, 0, bytes(32)),
        "FaultyClientError",
        blamed=(3,),
    )
    put(
        "roster-mask-key-unusable",
        "client 20's mask key has order 8",
        with_keys(20, 1, LOW_ORDER_8),
        "FaultyClientError",
        blamed=(20,),
    )
    put("roster-descending", "ids not ascending", entries[::-1], "DecodeError", "continues")
    put("roster-id-twice", "an id twice", [entries[0], *entries[:2]], "DecodeError", "continues")
    put(
        "roster-uninvited",
        "a client that was not invited",
        [*entries[:2], (21, entries[2][1])],
        "DecodeError",
        "continues",
    )
    put(
        "roster-count-too-large",
        "announces four entries and carries three",
        entries,
        "DecodeError",
        "continues",
        count=4,
    )
    put(
        "roster-count-too-small",
        "announces two entries and carries three",
        entries,
        "DecodeError",
        "continues",
        count=2,
    )
    put("roster-bytes-left-over", "one byte after the last entry", entries[:2], "DecodeError", "continues", extra=b"\0")
    hybrid = faults.recorded["hybrid-dropped-after-sharing"]
    at = hybrid.find(7, "ROSTER")
    keys = session.read_roster(hybrid.p, hybrid.body(at))
    keys[3] = (b"\xff\xff" + keys[3][0][2:], *keys[3][1:])
    frame = to_client(hybrid.p, 7, session.ROSTER, session.write_roster(keys))
    faults.inject(
        "roster-mlkem-key-invalid",
        "client 3's channel key has an ML-KEM coefficient beyond the modulus",
        hybrid.name,
        7,
        at,
        frame,
        "FaultyClientError",
        then="aborted",
        blamed=(3,),
    )


def delivery_faults(faults: Faults) -> None:
    base = faults.recorded["x25519-three"]
    p, at = base.p, base.find(7, "DELIVER_SHARES")
    body = base.body(at)
    boxes = session.read_boxes(p, body, 7, owner_sends=False)
    roster_body = base.body(base.find(7, "ROSTER"))

    def put(
        name: str, comment: str, body: bytes, error: str, then: str = "aborted", blamed: tuple[int, ...] = ()
    ) -> None:
        frame = to_client(p, 7, session.DELIVER_SHARES, body)
        faults.inject(name, comment, base.name, 7, at, frame, error, then=then, blamed=blamed)

    put("delivery-too-few", "nobody else shared keys", session.write_boxes({}), "TooFewClientsError")
    shares, pair = boxes[3]
    damaged = {**boxes, 3: (shares, pair[:-1] + bytes([pair[-1] ^ 1]))}
    put(
        "pair-box-damaged",
        "one bit of client 3's pair box",
        session.write_boxes(damaged),
        "FaultyClientError",
        blamed=(3,),
    )
    roster = session.read_roster(p, roster_body)
    secret = next(item for item in base.seals[3] if len(item["plaintext"]) == 64)["plaintext"]
    for name, comment, other, body_ in (
        (
            "pair-box-other-model",
            "client 3 sealed its pair secret under another model",
            replace(p, model_hash=OTHER_MODEL),
            roster_body,
        ),
        (
            "pair-box-other-roster",
            "client 3 sealed its pair secret under another roster",
            p,
            session.write_roster({i: keys for i, keys in roster.items() if i != 20}),
        ),
    ):
        info = ref.box_info(other, "pair-box", ref.roster_hash(other, body_), 3, 7)
        box = prim.seal(p.suite, roster[7][1], bytes.fromhex(secret), info, expand(32, name))
        put(name, comment, session.write_boxes({**boxes, 3: (shares, box)}), "FaultyClientError", blamed=(3,))
    put(
        "delivery-from-myself",
        "a box from client 7 to itself",
        ref.u32(3) + write_box(3, *boxes[3]) + write_box(7, boxes[20][0], b"") + write_box(20, *boxes[20]),
        "DecodeError",
        "continues",
    )
    put(
        "delivery-descending",
        "ids not ascending",
        ref.u32(2) + write_box(20, *boxes[20]) + write_box(3, *boxes[3]),
        "DecodeError",
        "continues",
    )
    put("delivery-id-twice", "an id twice", ref.u32(2) + write_box(3, *boxes[3]) * 2, "DecodeError", "continues")
    put(
        "delivery-uninvited",
        "a box from a client that was not invited",
        ref.u32(1) + write_box(21, *boxes[20]),
        "DecodeError",
        "continues",
    )
    put(
        "delivery-pair-box-missing",
        "no pair box from the lower id",
        ref.u32(1) + write_box(3, boxes[3][0], b""),
        "DecodeError",
        "continues",
    )
    put(
        "delivery-pair-box-too-many",
        "a pair box from a higher id",
        ref.u32(1) + write_box(20, boxes[20][0], boxes[3][1]),
        "DecodeError",
        "continues",
    )
    put("delivery-bytes-left-over", "one byte after the last box", body + b"\0", "DecodeError", "continues")
    absent = faults.recorded["x25519-never-answered"]
    at = absent.find(20, "DELIVER_SHARES")
    boxes = session.read_boxes(absent.p, absent.body(at), 20, owner_sends=False)
    body = session.write_boxes({**boxes, 7: boxes[3]})
    faults.inject(
        "delivery-not-on-roster",
        "shares from client 7, which advertised no keys",
        absent.name,
        20,
        at,
        to_client(absent.p, 20, session.DELIVER_SHARES, body),
        "FaultyServerError",
        then="aborted",
    )


def write_box(other: int, shares: bytes, pair: bytes) -> bytes:
    return ref.u32(other) + shares + pair


def request_faults(faults: Faults) -> None:
    base = faults.recorded["x25519-dropped-after-sharing"]
    p, at = base.p, base.find(20, "UNMASK_REQUEST")

    def put(
        name: str,
        comment: str,
        survivors: list[int],
        dropped: list[int],
        error: str = "FaultyServerError",
        then: str = "aborted",
        extra: bytes = b"",
    ) -> None:
        frame = to_client(p, 20, session.UNMASK_REQUEST, session.write_request(survivors, dropped) + extra)
        faults.inject(name, comment, base.name, 20, at, frame, error, then=then)

    put("request-both-lists", "client 7 survived and dropped: both its seeds would open", [3, 7, 20, 21], [7])
    put("request-all-in-both-lists", "everybody else survived and dropped", [3, 7, 20, 21], [3, 7, 21])
    put("request-myself-dropped", "client 20 itself is listed as dropped", [3, 7, 21], [20])
    put("request-client-missing", "client 7 is in neither list", [3, 20, 21], [])
    put("request-myself-missing", "client 20 itself is in neither list", [3, 21], [7])
    put("request-too-few", "two survivors: fewer than this client's minimum", [20, 21], [3, 7], "TooFewClientsError")
    put("request-descending", "ids not ascending", [21, 20, 3], [7], "DecodeError", "continues")
    put("request-id-twice", "a survivor twice", [3, 20, 20, 21], [7], "DecodeError", "continues")
    put("request-uninvited", "a client that was not invited", [3, 20, 21, 22], [7], "DecodeError", "continues")
    put("request-bytes-left-over", "one byte after the lists", [3, 20, 21], [7], "DecodeError", "continues", b"\0")
    same = bytes.fromhex(base.frames[base.steps[at]["frame"]]["hex"])
    other = to_client(p, 20, session.UNMASK_REQUEST, session.write_request([3, 7, 20], [21]))
    end = len(base.steps)
    faults.inject("request-second-same", "the same request again", base.name, 20, end, same, "FaultyServerError")
    faults.inject(
        "request-second-other",
        "another request after the answer: together they would open the seeds of clients 7 and 21",
        base.name,
        20,
        end,
        other,
        "FaultyServerError",
    )
    unshared = faults.recorded["x25519-dropped-after-keys"]
    at = unshared.find(20, "UNMASK_REQUEST")
    frame = to_client(p, 20, session.UNMASK_REQUEST, session.write_request([3, 7, 20, 21], []))
    faults.inject(
        "request-never-shared",
        "client 7 survives, but it never shared keys",
        unshared.name,
        20,
        at,
        frame,
        "FaultyServerError",
        then="aborted",
    )


def server_faults(faults: Faults) -> None:
    base = faults.recorded["x25519-three"]
    p = base.p
    steps = {
        kind: base.find(SERVER, kind, 7) for kind in ("ADVERTISE_KEYS", "SHARE_KEYS", "MASKED_INPUT", "UNMASK_SHARES")
    }
    bodies = {kind: base.body(at) for kind, at in steps.items()}

    def put(
        name: str, comment: str, at: int, frame: bytes, error: str = "DecodeError", blamed: tuple[int, ...] = ()
    ) -> None:
        faults.inject(name, comment, base.name, SERVER, at, frame, error, blamed=blamed)

    at = steps["ADVERTISE_KEYS"]
    keys = bodies["ADVERTISE_KEYS"]
    put(
        "keys-uninvited",
        "keys from client 8, which was not invited",
        at,
        to_server(p, 8, session.ADVERTISE_KEYS, keys),
        "FaultyClientError",
        (8,),
    )
    put(
        "keys-from-the-server",
        "keys from party 0",
        at,
        to_server(p, SERVER, session.ADVERTISE_KEYS, keys),
        "FaultyClientError",
        (SERVER,),
    )
    put("keys-too-short", "one byte less", at, to_server(p, 7, session.ADVERTISE_KEYS, keys[:-1]))
    put("keys-too-long", "one byte more", at, to_server(p, 7, session.ADVERTISE_KEYS, keys + b"\0"))
    put("keys-for-a-client", "addressed to client 3", at, seal_frame(1, session.ADVERTISE_KEYS, p.context, 7, 3, keys))
    put("kind-for-a-client", "a roster comes to the server", at, to_server(p, 7, session.ROSTER, bytes(4)))
    put(
        "input-too-early",
        "a masked input in the first exchange",
        at,
        to_server(p, 7, session.MASKED_INPUT, bytes(8)),
        "ProtocolError",
    )
    changed = bytes([keys[0] ^ 1]) + keys[1:]
    put(
        "keys-twice",
        "a second, different set of keys",
        at + 1,
        to_server(p, 7, session.ADVERTISE_KEYS, changed),
        "FaultyClientError",
        (7,),
    )
    at = steps["SHARE_KEYS"]
    boxes = session.read_boxes(p, bodies["SHARE_KEYS"], 7, owner_sends=True)
    less = session.write_boxes({3: boxes[3]})
    put(
        "shares-for-too-few",
        "client 7 shares with client 3 only",
        at,
        to_server(p, 7, session.SHARE_KEYS, less),
        "FaultyClientError",
        (7,),
    )
    own = ref.u32(2) + write_box(3, *boxes[3]) + write_box(7, boxes[3][0], b"")
    put("shares-for-myself", "client 7 shares with itself", at, to_server(p, 7, session.SHARE_KEYS, own))
    swapped = ref.u32(2) + write_box(20, *boxes[20]) + write_box(3, *boxes[3])
    put("shares-descending", "ids not ascending", at, to_server(p, 7, session.SHARE_KEYS, swapped))
    put(
        "shares-without-pair-box",
        "no pair box for the higher id",
        at,
        to_server(p, 7, session.SHARE_KEYS, ref.u32(2) + write_box(3, *boxes[3]) + write_box(20, boxes[20][0], b"")),
    )
    put(
        "shares-late-keys",
        "other keys in the second exchange",
        at,
        to_server(p, 7, session.ADVERTISE_KEYS, changed),
        "ProtocolError",
    )
    at = steps["MASKED_INPUT"]
    put("input-word-missing", "no words", at, to_server(p, 7, session.MASKED_INPUT, b""))
    put("input-word-left-over", "one word more", at, to_server(p, 7, session.MASKED_INPUT, bytes(16)))
    put(
        "input-twice",
        "a second, different masked input",
        at + 1,
        to_server(p, 7, session.MASKED_INPUT, bytes(8)),
        "FaultyClientError",
        (7,),
    )
    at = steps["UNMASK_SHARES"]
    shares = session.read_unmask(p, bodies["UNMASK_SHARES"])
    put(
        "answer-too-few-shares",
        "two shares where three clients shared keys",
        at,
        to_server(p, 7, session.UNMASK_SHARES, session.write_unmask(shares[:2])),
        "FaultyClientError",
        (7,),
    )
    body = bytearray(bodies["UNMASK_SHARES"])
    body[4] = 2
    put("answer-flag-unknown", "a presence flag of 2", at, to_server(p, 7, session.UNMASK_SHARES, bytes(body)))
    body[4] = 0
    put(
        "answer-absent-not-zero",
        "an absent share that is not zeros",
        at,
        to_server(p, 7, session.UNMASK_SHARES, bytes(body)),
    )
    put(
        "answer-bytes-left-over",
        "one byte after the last share",
        at,
        to_server(p, 7, session.UNMASK_SHARES, session.write_unmask(shares[:2]) + bytes(34) + b"\0"),
    )
    end = len(base.steps)
    put(
        "answer-after-the-end",
        "another answer when the session is over",
        end,
        to_server(p, 7, session.UNMASK_SHARES, session.write_unmask([None] * 3)),
        "ProtocolError",
    )
    late = faults.recorded["x25519-dropped-after-sharing"]
    at = late.find(SERVER, "UNMASK_SHARES", 3)
    frame = to_server(late.p, 7, session.UNMASK_SHARES, late.body(at))
    faults.inject(
        "answer-from-dropped",
        "shares from client 7, which dropped",
        late.name,
        SERVER,
        at,
        frame,
        "ProtocolError",
    )


def share_faults(faults: Faults) -> None:
    """Wrong shares, seeds and masks: the server opens the sum or names whom it suspects; it never gives a wrong sum."""
    base = faults.recorded["x25519-five"]
    p = base.p
    answer = {i: base.find(SERVER, "UNMASK_SHARES", i) for i in p.clients}

    def other(share: bytes, error: int = 1) -> bytes:
        return ((int.from_bytes(share, "big") + error) % prim.PRIME).to_bytes(33, "big")

    def answers(
        recording: Recording, client: int, step: int, dealers: tuple[int, ...], change: Callable[[bytes], bytes | None]
    ) -> bytes:
        shares = session.read_unmask(recording.p, recording.body(step))
        for dealer in dealers:
            at = recording.p.clients.index(dealer)
            shares[at] = change(shares[at])
        return to_server(recording.p, client, session.UNMASK_SHARES, session.write_unmask(shares))

    def put(name: str, comment: str, recording: Recording, swaps: dict[int, bytes], **outcome: Any) -> None:
        found = faults.swap(name, comment, recording.name, swaps)
        if "suspects" in outcome:
            assert found["expected"]["suspects"] == outcome["suspects"], (name, found)
            assert found["expected"]["sum"] == recording.outcome[1]["sum"], name
        else:
            assert found["error"] == outcome["error"], (name, found)

    every = p.clients
    put(
        "share-wrong",
        "client 2 returns one wrong share",
        base,
        {answer[2]: answers(base, 2, answer[2], (9,), other)},
        suspects=[2],
    )
    put(
        "shares-all-wrong",
        "client 2 returns only wrong shares",
        base,
        {answer[2]: answers(base, 2, answer[2], every, other)},
        suspects=[2],
    )
    put(
        "share-wrong-not-needed",
        "client 4000000000 returns wrong shares that are not needed: nobody is suspected",
        base,
        {answer[every[4]]: answers(base, every[4], answer[every[4]], every, other)},
        suspects=[],
    )
    put(
        "share-not-in-field",
        "client 9 returns a share equal to the prime",
        base,
        {answer[9]: answers(base, 9, answer[9], (1,), lambda _: prim.PRIME.to_bytes(33, "big"))},
        suspects=[9],
    )
    put(
        "shares-absent",
        "client 1 returns nothing but absent shares",
        base,
        {answer[1]: answers(base, 1, answer[1], every, lambda _: None)},
        suspects=[],
    )
    put(
        "shares-two-wrong",
        "clients 1 and 2 return only wrong shares; three right ones are left",
        base,
        {answer[i]: answers(base, i, answer[i], every, lambda share, i=i: other(share, i**5 + 7)) for i in (1, 2)},
        suspects=[1, 2],
    )
    put(
        "shares-errors-cancel",
        "clients 1 and 2 return shares whose errors cancel at 0: the seeds are right, and nobody is suspected",
        base,
        {answer[i]: answers(base, i, answer[i], every, other) for i in (1, 2)},
        suspects=[],
    )
    framed = {
        1: answers(base, 1, answer[1], (2,), other),
        2: answers(base, 2, answer[2], (1,), lambda share: other(share, 2**5 + 7)),
        5: answers(base, 5, answer[5], (1,), lambda share: other(share, 5**5 + 7)),
    }
    put(
        "shares-suspects-needed",
        "client 1 dealt wrong shares to clients 2 and 5, which are suspected for it, and returns a wrong share of "
        "client 2's seed, for which the right shares of the suspects are needed",
        base,
        {answer[i]: frame for i, frame in framed.items()},
        suspects=[1, 2, 5],
    )
    put(
        "shares-too-many-wrong",
        "three of five return a wrong share of client 9's seed: two right ones are left",
        base,
        {answer[i]: answers(base, i, answer[i], (9,), lambda share, i=i: other(share, i**5 + 7)) for i in (1, 2, 5)},
        error={"type": "FaultyClientError", "blamed": [9]},
    )
    put(
        "shares-too-few-present",
        "three of five return no share of client 9's seed",
        base,
        {answer[i]: answers(base, i, answer[i], (9,), lambda _: None) for i in (1, 2, 5)},
        error={"type": "FaultyClientError", "blamed": [9]},
    )
    keys = base.find(SERVER, "ADVERTISE_KEYS", 2)
    body = base.body(keys)
    changed = to_server(p, 2, session.ADVERTISE_KEYS, body[:-1] + bytes([body[-1] ^ 1]))
    put(
        "commitment-other",
        "client 2 committed to another self-mask seed than it shared",
        base,
        {keys: changed},
        error={"type": "FaultyClientError", "blamed": [2]},
    )

    gone = faults.recorded["x25519-dropped-after-sharing"]
    p = gone.p
    keys = gone.find(SERVER, "ADVERTISE_KEYS", 7)
    body = gone.body(keys)
    changed = to_server(p, 7, session.ADVERTISE_KEYS, body[:32] + prim.public_key("x25519", bytes(32)) + body[64:])
    put(
        "mask-key-other",
        "client 7, which dropped, advertised a mask key of another seed than it shared",
        gone,
        {keys: changed},
        error={"type": "FaultyClientError", "blamed": list(p.clients)},
    )
    step = gone.find(SERVER, "SHARE_KEYS", 3)
    boxes = session.read_boxes(p, gone.body(step), 3, owner_sends=True)
    shares, pair = boxes[7]
    boxes[7] = (shares, bytes([pair[0] ^ 1]) + pair[1:])
    put(
        "pair-box-of-dropped",
        "client 3's pair box for client 7, which dropped, does not open",
        gone,
        {step: to_server(p, 3, session.SHARE_KEYS, session.write_boxes(boxes))},
        error={"type": "FaultyClientError", "blamed": [3]},
    )

    base = faults.recorded["x25519-three"]
    step = base.find(SERVER, "MASKED_INPUT", 7)
    word = int.from_bytes(base.body(step), "little")
    nobody = {"type": "FaultyClientError", "blamed": []}

    def masked(value: int) -> dict[int, bytes]:
        return {step: to_server(base.p, 7, session.MASKED_INPUT, (value % 2**64).to_bytes(8, "little"))}

    put(
        "mask-does-not-cancel",
        "client 7's word is off in a bit above all lanes",
        base,
        masked(word ^ 1 << 63),
        error=nobody,
    )
    first = base.outcome[1]["sum"][0]
    put(
        "sum-too-large",
        "client 7's word makes a sum of 46 where three clients can give 45",
        base,
        masked(word + 46 - first),
        error=nobody,
    )
