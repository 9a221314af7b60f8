"""Sessions of the attested form of the shared sum, run by attested_ref, and tests of one role of them."""

from __future__ import annotations

from functools import partial
from typing import Any

from attested_ref import Client, Directory, First, Second, body_of
from shared_recording import described, drawn, expect_fault
from shared_ref import SECOND, Fault, Params
from signed_ref import Signer

Step = dict[str, Any]
#: A frame for the first server, and the error that refuses it.
Given = tuple[bytes, str | None]


def identity(party: int) -> bytes:
    return drawn(f"identity/{party}", 32)


def known_to(p: Params, *without: int) -> Directory:
    """The public keys that the parties were given beforehand."""
    return {who: Signer(identity(who)).public for who in (*p.clients, SECOND) if who not in without}


def params(p: Params, known: Directory) -> dict[str, Any]:
    return {**described(p), "directory": [{"party": who, "key": key.hex()} for who, key in known.items()]}


def received(*frames: bytes) -> list[Step]:
    return [{"do": "receive", "frame": frame.hex()} for frame in frames]


class Recording:
    """One session: what the second server and each client sent, from what they drew."""

    def __init__(self, name: str, session: dict[str, Any]) -> None:
        self.name, self.session, self.p = name, session, session["p"]
        self.known = known_to(self.p)
        second = self.second(self.known)
        self.advertised, *attested = second.start()
        self.attested = dict(zip(self.p.clients, attested, strict=True))
        self.keys = dict(zip(self.p.clients, session["keys"], strict=True))
        self.sent = {}
        for who in self.p.clients:
            role = self.client(who, self.known)
            assert self.give(role, who, self.attested[who]) == []
            self.sent[who] = self.give(role, who, self.keys[who])
            assert self.sent[who][1:] == session["inputs"][who]["frames"]
        self.signed = {who: frames[0] for who, frames in self.sent.items()}
        for frame in self.signed.values():
            assert second.receive(frame) == []
        self.answer = second.receive(session["request"])
        assert self.answer == [session["share"]]

    def second(self, known: Directory) -> Second:
        return Second(self.p, self.session["key_seed"], identity(SECOND), known)

    def client(self, who: int, known: Directory) -> Client:
        return Client(self.p, who, identity(who), known)

    def give(self, role: Client, who: int, frame: bytes) -> list[bytes]:
        given, size = self.session["inputs"][who], 32 if self.p.suite == "x25519" else 64
        drawn_for_seal = drawn(f"{self.name}/{who}/seal", size)
        return role.receive(frame, given["values"], given["seed"], drawn_for_seal)

    def box(self, who: int) -> bytes:
        return body_of(self.sent[who][1])

    # ---- inputs of tests

    def client_input(self, who: int, *frames: bytes, provides: bool = False) -> dict[str, Any]:
        given = self.session["inputs"][who]
        end = [{"do": "provide", "values": given["values"]}] if provides else []
        return {
            "role": "client",
            "me": who,
            "identity": identity(who).hex(),
            "tokens": [given["seed"].hex()],
            "seals": [self.box(who).hex()],
            "steps": [{"do": "start"}, *received(*frames), *end],
        }

    def second_input(self, *frames: bytes) -> dict[str, Any]:
        return {
            "role": "second",
            "identity": identity(SECOND).hex(),
            "tokens": [self.session["key_seed"].hex()],
            "seals": [],
            "steps": [{"do": "start"}, *received(*frames)],
        }

    # ---- tests

    def accepted(self) -> list[dict[str, Any]]:
        comment = self.session["comment"]
        tests = [
            {
                "id": f"{self.name}-client-{who}",
                "comment": comment,
                "input": self.client_input(who, self.attested[who], self.keys[who], provides=True),
                "expected": {"sent": [frame.hex() for frame in self.sent[who]]},
            }
            for who in self.p.clients
        ]
        tests.append(self.second_test("second", comment, *self.signed.values()))
        frames = [frame for who in self.p.clients for frame in self.arrived(who)]
        name = f"{self.name}-first"
        tests.append(self.first_test(name, comment, self.session["survivors"], *[(frame, None) for frame in frames]))
        return tests

    def arrived(self, who: int) -> list[bytes]:
        """What came of a client: SIGNED_SEED, SEED and, unless it left, INPUT."""
        return self.sent[who] if who in self.session["survivors"] else self.sent[who][:2]

    def given_to_first(self, first: First, *given: Given) -> list[Step]:
        """Starts, takes the second server's key and what clients send: the steps."""
        first.receive(self.advertised)
        sent = first.close()
        assert sent == list(self.keys.values())
        steps = [{"do": "start"}, *received(self.advertised), {"do": "close"}]
        for frame, error in given:
            try:
                first.receive(frame)
            except Fault as fault:
                if fault.error != error:
                    raise AssertionError((fault, error)) from None
                refused = {"type": fault.error} | ({"blamed": fault.blamed} if fault.blamed else {})
                steps.append({"do": "receive", "frame": frame.hex(), "refused": refused})
            else:
                assert error is None, error
                steps += received(frame)
        return steps

    def first_test(
        self, name: str, comment: str, survivors: list[int], *given: Given, known: Directory | None = None
    ) -> dict[str, Any]:
        """The whole session, over ``survivors``, with the second server's own verdict on what is relayed to it."""
        first, second = First(self.p, self.known if known is None else known), self.second(self.known)
        steps = self.given_to_first(first, *given)
        second.start()
        relayed = first.close()
        assert isinstance(relayed, list)
        (share,) = [answer for frame in relayed for answer in second.receive(frame)]
        first.receive(share)
        ended = first.close()
        values = [self.session["inputs"][who]["values"] for who in survivors]
        assert ended == ([sum(column) for column in zip(*values, strict=True)], survivors)
        end = [{"do": "close"}, *received(share), {"do": "close"}]
        return {
            "id": name,
            "comment": comment,
            "input": {"role": "first", "steps": [*steps, *end]},
            "expected": {
                "sent": [frame.hex() for frame in [*self.keys.values(), *relayed]],
                "sum": [str(value) for value in ended[0]],
                "survivors": survivors,
            },
        }

    def refused_by_first(self, name: str, comment: str, error: str, *given: Given) -> dict[str, Any]:
        """``given`` are refused as they say; then the exchange is closed, which ends the session with ``error``."""
        first = First(self.p, self.known)
        steps = self.given_to_first(first, *given)
        expect_fault(name, error, [], [first.close])
        entry = {"role": "first", "steps": [*steps, {"do": "close"}]}
        return self.fault(name, comment, "first", entry, error)

    def second_test(self, name: str, comment: str, *signed: bytes) -> dict[str, Any]:
        sent = [self.advertised, *self.attested.values(), *self.answer]
        return {
            "id": f"{self.name}-{name}",
            "comment": comment,
            "input": self.second_input(*signed, self.session["request"]),
            "expected": {"sent": [frame.hex() for frame in sent]},
        }

    def refused_by_client(
        self, name: str, comment: str, error: str, *frames: bytes, known: Directory | None = None
    ) -> dict[str, Any]:
        who = self.p.clients[0]
        role = self.client(who, self.known if known is None else known)
        expect_fault(name, error, [], [partial(self.give, role, who, frame) for frame in frames])
        return self.fault(name, comment, f"client-{who}", self.client_input(who, *frames), error)

    def refused_by_second(
        self, name: str, comment: str, error: str, *frames: bytes, known: Directory | None = None
    ) -> dict[str, Any]:
        role = self.second(self.known if known is None else known)
        role.start()
        expect_fault(name, error, [], [partial(role.receive, frame) for frame in frames])
        return self.fault(name, comment, "second", self.second_input(*frames), error)

    def fault(self, name: str, comment: str, origin: str, given: dict[str, Any], error: str) -> dict[str, Any]:
        derived = f"attested.json#{self.name}-{origin}"
        return {"id": name, "comment": comment, "derived_from": derived, "input": given, "error": {"type": error}}
