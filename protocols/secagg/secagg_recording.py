"""Whole sessions of the masked sum, run by session_ref and written down."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import secagg_ref as ref
import session_ref as session
from secagg_known_answers import SPEC, expand, params_json, small
from secagg_ref import Fault, Params
from session_ref import SERVER
from wire_ref import DecodeError, seal_frame

KIND_NAMES = {
    session.ADVERTISE_KEYS: "ADVERTISE_KEYS",
    session.ROSTER: "ROSTER",
    session.SHARE_KEYS: "SHARE_KEYS",
    session.DELIVER_SHARES: "DELIVER_SHARES",
    session.MASKED_INPUT: "MASKED_INPUT",
    session.UNMASK_REQUEST: "UNMASK_REQUEST",
    session.UNMASK_SHARES: "UNMASK_SHARES",
    session.ABORT: "ABORT",
}

# ---- recorded sessions


@contextmanager
def logged_seals(log: list[tuple[Any, ...]]) -> Iterator[None]:
    original = ref.seal

    def logging(suite: str, public: bytes, plaintext: bytes, info: bytes, coins: bytes) -> bytes:
        log.append((public, plaintext, info, coins))
        return original(suite, public, plaintext, info, coins)

    ref.seal = logging
    try:
        yield
    finally:
        ref.seal = original


class Recording:
    """One session of the reference, with everything that was drawn, sent, received and concluded.

    ``drop``: the client's frames from that number on (0 is its keys) are lost. ``early``: clients that give their input
    at once. Of frames, named (sender, number): ``twice`` arrive twice, ``late`` arrive when the exchange is over,
    ``again`` arrive in time and once more when it is over, ``tamper`` have their body changed by a function on the way.
    ``floors``: the clients' own least number of survivors.
    """

    def __init__(
        self,
        file: str,
        name: str,
        comment: str,
        p: Params,
        *,
        drop: dict[int, int] | None = None,
        early: tuple[int, ...] = (),
        twice: tuple[tuple[int, int], ...] = (),
        late: tuple[tuple[int, int], ...] = (),
        again: tuple[tuple[int, int], ...] = (),
        floors: dict[int, int] | None = None,
        tamper: dict[tuple[int, int], Callable[[bytes], bytes]] | None = None,
        values: dict[int, list[int]] | None = None,
        derived_from: str | None = None,
    ) -> None:
        self.file, self.name, self.comment, self.p, self.derived_from = file, name, comment, p, derived_from
        self.drop, self.early, self.twice, self.late, self.again = drop or {}, early, twice, late, again
        self.floors, self.tamper = floors or {}, tamper or {}
        self.values = values or {
            i: [b % (p.max_value + 1) for b in expand(p.dimension, name, i, "values")] for i in p.clients
        }
        self.drawn: dict[int, dict[str, str]] = {i: {} for i in p.clients}
        self.seals: dict[int, list[dict[str, str]]] = {i: [] for i in p.clients}
        self.frames: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self.sent = dict.fromkeys((SERVER, *p.clients), 0)
        self.roles: dict[int, Any] = {party: self.role(party) for party in (SERVER, *p.clients)}
        self.outcome: tuple[Any, ...] | None = None
        self.run()

    def role(self, party: int) -> Any:
        """A fresh role of this session."""
        if party == SERVER:
            return session.Server(self.p)
        return session.Client(self.p, party, self.source(party), self.floors.get(party))

    @staticmethod
    def kind_name(frame: bytes) -> str:
        return KIND_NAMES[frame[2]]

    def source(self, client: int) -> Callable[[str, int], bytes]:
        def random(name: str, length: int) -> bytes:
            token = expand(length, self.name, client, name)
            if not name.startswith("seal"):
                self.drawn[client][name] = token.hex()
            return token

        return random

    def run(self) -> None:
        p, way, held = self.p, deque(), []
        self.way, self.held = way, held
        self.step(SERVER, "start")
        for client in p.clients:
            self.step(client, "start")
            if client in self.early:
                self.step(client, "provide")
        self.deliver()
        while self.outcome is None:
            self.step(SERVER, "close_round")
            late, self.held = self.held, []
            for index in late:
                self.step(SERVER, "receive", index)
            self.deliver()

    def deliver(self) -> None:
        while self.way:
            index = self.way.popleft()
            self.step(self.frames[index]["to"], "receive", index)

    def step(self, party: int, do: str, index: int | None = None) -> None:
        role, entry = self.roles[party], {"party": party, "do": do}
        log: list[tuple[Any, ...]] = []
        try:
            with logged_seals(log):
                if do == "receive":
                    entry["frame"] = index
                    events = role.receive(bytes.fromhex(self.frames[index]["hex"]))
                elif do == "provide":
                    events = role.provide(self.values[party])
                else:
                    events = getattr(role, do)()
        except Fault as fault:
            entry["raises"] = {"type": fault.error, "blamed": fault.blamed}
            events = []
        except DecodeError:
            entry["raises"] = {"type": "DecodeError", "blamed": []}
            events = []
        for public, plaintext, info, coins in log:
            item = {"key_sha256": hashlib.sha256(public).digest(), "info": info, "plaintext": plaintext}
            self.seals[party].append({key: value.hex() for key, value in (item | {"randomness": coins}).items()})
        self.steps.append(entry)
        ask = False
        gives: list[Any] = []
        for event in events:
            if event[0] == "send":
                gives.append({"send": self.put(party, event[1], event[2])})
            elif event[0] == "need_input":
                gives.append("need_input")
                ask = True
            elif event[0] == "completed":
                gives.append({"completed": event[1]})
            else:
                gives.append({"aborted": {"type": event[1], "blamed": event[2]}})
            if party == SERVER and event[0] in ("completed", "aborted"):
                self.outcome = event
        if "raises" not in entry:
            entry["gives"] = gives
        if ask:
            self.step(party, "provide")

    def put(self, sender: int, to: int, frame: bytes) -> int:
        """Put a frame on the way; gives its place in the table."""
        number, self.sent[sender] = self.sent[sender], self.sent[sender] + 1
        index = len(self.frames)
        self.frames.append({"from": sender, "to": to, "kind": self.kind_name(frame), "hex": frame.hex()})
        if number >= self.drop.get(sender, number + 1):
            self.frames[index]["lost"] = True
            return index
        if (sender, number) in self.tamper:
            body = self.tamper[sender, number](frame[56:-16])
            forged = seal_frame(1, frame[2], self.p.context, sender, to, body)
            self.frames.append({**self.frames[index], "hex": forged.hex(), "forged": True})
            self.frames[index]["lost"] = True
            self.way.append(index + 1)
        elif (sender, number) in self.late:
            self.held.append(index)
        else:
            self.way.extend([index] * (2 if (sender, number) in self.twice else 1))
            self.held.extend([index] * ((sender, number) in self.again))
        return index

    # ---- what is written

    def test(self) -> dict[str, Any]:
        keys = (
            ("key_sha256", "info", "plaintext", "randomness") if self.file == "session" else ("plaintext", "randomness")
        )
        clients = [
            {
                "id": i,
                "values": self.values[i],
                **({"minimum_survivors": self.floors[i]} if i in self.floors else {}),
                "randomness": self.drawn[i],
                "seals": [{key: item[key] for key in keys} for item in self.seals[i]],
            }
            for i in self.p.clients
        ]
        head = {"id": self.name, "comment": self.comment}
        if self.derived_from:
            head["derived_from"] = self.derived_from
        given = {"clients": clients, "frames": self.frames, "steps": self.steps}
        if self.outcome[0] == "completed":
            result = self.outcome[1]
            plain = [self.values[i] for i in result["survivors"]]
            assert result["sum"] == [sum(column) for column in zip(*plain, strict=True)], self.name
            return {**head, "input": given, "expected": result}
        return {**head, "input": given, "error": {"type": self.outcome[1], "blamed": self.outcome[2]}}

    def group(self) -> dict[str, Any]:
        return {"operation": "session", "params": params_json(self.p), "tests": [self.test()]}

    def find(self, party: int, kind: str, sender: int = SERVER) -> int:
        """The step in which a party first receives a frame of this kind from this sender."""
        for at, step in enumerate(self.steps):
            frame = self.frames[step["frame"]] if step["do"] == "receive" else {}
            if step["party"] == party and (frame.get("kind"), frame.get("from")) == (kind, sender):
                return at
        raise LookupError(kind)

    def body(self, step: int) -> bytes:
        return bytes.fromhex(self.frames[self.steps[step]["frame"]]["hex"])[56:-16]

    def transcript(self) -> str:
        lines = []
        for frame in self.frames:
            kind = next(number for number, name in KIND_NAMES.items() if name == frame["kind"])
            lines.append(json.dumps({"from": frame["from"], "to": frame["to"], "kind": kind, "frame": frame["hex"]}))
        return "\n".join(lines) + "\n"

    def story(self) -> str:
        p = self.p
        lines = [
            f"# One session, frame by frame: `{self.name}`",
            "",
            "<!-- made by protocols/generate.py from the recording in transcript.jsonl: do not edit -->",
            "",
            f"{self.comment[0].upper()}{self.comment[1:]}. Clients {', '.join(map(str, p.clients))}; threshold "
            f"{p.threshold}; suite {p.suite}; {p.dimension} integers of at most {p.max_value}, "
            f"in {session.sizes(p)[3]} word. `transcript.jsonl` has the same frames in the same order, one to a line.",
            "",
            "| # | from | to | message | bytes | what is in it |",
            "|---|---|---|---|---|---|",
        ]
        for number, frame in enumerate(self.frames):
            ends = ["server" if frame[end] == SERVER else f"client {frame[end]}" for end in ("from", "to")]
            what = STORY[frame["kind"]] + (" **Lost on the way.**" if frame.get("lost") else "")
            size = len(frame["hex"]) // 2
            lines.append(f"| {number} | {ends[0]} | {ends[1]} | {frame['kind']} | {size} | {what} |")
        result = self.outcome[1]
        survivors = result["survivors"]
        lines += [
            "",
            f"Result: the sum over clients {', '.join(map(str, survivors))} is `{result['sum']}`. Their inputs were "
            + ", ".join(f"`{self.values[i]}` ({i})" for i in survivors)
            + ": the server saw none of them.",
        ]
        return "\n".join(lines) + "\n"


STORY = {
    "ADVERTISE_KEYS": "channel key, mask key, commitment to the self-mask seed",
    "ROSTER": "everybody's keys, the same bytes for all",
    "SHARE_KEYS": "for each other client: sealed shares of both seeds; to higher ids also the sealed pair secret",
    "DELIVER_SHARES": "the boxes addressed to this client",
    "MASKED_INPUT": "the packed integers plus all masks: uniformly random to the server",
    "UNMASK_REQUEST": "who survived, who dropped after sharing keys",
    "UNMASK_SHARES": "one share per client: of a survivor's self-mask seed, or of a dropped client's mask seed",
    "ABORT": "the session ends without a result",
}
HOW_TO_READ = (
    "input.clients: what each client drew, and its integers. A client draws mask_seed, self_seed, channel_seed, "
    "mask_coefficients, self_coefficients, in this order; then it seals, to ascending ids, the shares and (to a "
    "higher id) the pair secret, with the KEM randomness of seals (SPEC §4.4). What else a seal says (key_sha256, "
    "info, plaintext) is given for convenience. input.steps: what each party does, in order; 'gives' are the "
    "events of the step, 'send' is a place in input.frames, 'raises' is the error of a refused call. A frame that "
    "is 'lost' was sent and not delivered; one that is 'forged' was delivered and not sent by a role. Every frame "
    "must come out byte for byte, and the server must end with 'expected' or 'error'."
)
SESSIONS = f"Whole sessions in which every client answers. {HOW_TO_READ}"
DROPOUTS = f"Whole sessions in which clients fall silent. {HOW_TO_READ}"


def sessions() -> Iterator[Recording]:
    yield Recording("session", "x25519-three", "three clients, all answer", small())
    five = small((1, 2, 5, 9, 4000000000), 3)
    yield Recording(
        "session",
        "x25519-five",
        "five clients; two give their input before they are asked; five frames arrive twice, one of them late",
        five,
        early=(2, 9),
        twice=((1, 0), (9, 2), (SERVER, 0), (SERVER, 7)),  # keys, a masked input, a roster, delivered shares
        again=((5, 1),),  # shared keys
    )
    wide = small((1, 2), 2, dimension=7, max_value=2**31 - 2)
    yield Recording(
        "session",
        "x25519-two-extremes",
        "the smallest cohort, four words, largest and smallest integers",
        wide,
        values={1: [2**31 - 2] * 6 + [0], 2: [2**31 - 2] * 3 + [0] * 3 + [1]},
    )


def flip_shares_box(body: bytes) -> bytes:
    """Damage the first shares box of a SHARE_KEYS body of suite x25519."""
    at = 4 + 4 + 40
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def dropouts() -> Iterator[Recording]:
    three, four = small(), small((3, 7, 20, 21), 3)

    def one(name: str, comment: str, p: Params = three, **options: Any) -> Recording:
        return Recording("dropouts", name, comment, p, **options)

    yield one("x25519-never-answered", "client 7 sends nothing at all", drop={7: 0})
    yield one("x25519-dropped-after-keys", "client 7 advertises keys and shares nothing", four, drop={7: 1})
    yield one(
        "x25519-dropped-after-sharing",
        "client 7 shares keys and sends no input: both directions of its pairwise masks are taken off",
        four,
        drop={7: 2},
    )
    yield one(
        "x25519-dropped-after-input", "client 7 sends its masked input and no shares: it is in the sum", drop={7: 3}
    )
    five = small((1, 2, 5, 9, 4000000000), 3)
    yield one(
        "x25519-dropped-twice", "one client drops after sharing, another after its input", five, drop={9: 2, 1: 3}
    )
    yield one(
        "x25519-late-input",
        "client 20's masked input comes when the exchange is over: it is refused, and client 20 counts as dropped",
        late=((20, 2),),
    )
    yield one(
        "x25519-box-damaged",
        "client 3's shares for client 7 were damaged before the server had them: client 7 answers without them",
        tamper={(3, 1): flip_shares_box},
    )
    yield one(
        "hybrid-dropped-after-sharing",
        "the hybrid suite; client 7 drops: one pair secret from its seed, one from a box to its key",
        small(suite="mlkem768-x25519"),
        drop={7: 2},
    )
    yield one(
        "x25519-input-forged",
        "client 7's masked input was changed: the masks do not cancel, and all are told, also who finished",
        tamper={(7, 2): lambda body: body[:-1] + bytes([body[-1] ^ 0x80])},
        derived_from="session.json#x25519-three",
    )
    for number, (what, comment, base) in enumerate(
        (
            ("keys", "one of three advertises keys: all are told that the session has ended", "never-answered"),
            ("shares", "one of three shares keys", "dropped-after-keys"),
            ("inputs", "one of three sends its masked input", "dropped-after-sharing"),
            (
                "answers",
                "one of three sends shares at the end: nothing is opened; who finished is told, too",
                "dropped-after-input",
            ),
        )
    ):
        drop, base = {7: number, 20: number}, f"dropouts.json#x25519-{base}"
        yield one(f"x25519-too-few-{what}", comment, drop=drop, derived_from=base)
    yield one(
        "x25519-own-floor",
        "clients 3 and 7 demand three survivors and leave when two are listed; nobody answers",
        drop={20: 2},
        floors={3: 3, 7: 3},
        derived_from="dropouts.json#x25519-dropped-after-sharing",
    )


def session_file(recordings: list[Recording], description: str) -> dict[str, Any]:
    return {
        "spec": f"{SPEC} §5",
        "description": description,
        "groups": [recording.group() for recording in recordings],
    }
