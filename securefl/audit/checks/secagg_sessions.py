"""Whole sessions of the masked sum, replayed from their recorded randomness. SPEC: protocols/secagg/SPEC.md §5, §7.

Parties do not share state, so each party's steps are played by themselves: frame in, events out, as recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from securefl.audit.checks import Case, Check, Mismatch, expect, refused
from securefl.machine import Aborted, Completed, Event, NeedInput, Send, Shells, SumResult
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kem import PublicKey, Suite, seal
from securefl.secagg import Client, Params, Server
from securefl.secagg.messages import EncryptedShares, Kind
from securefl.secagg.signed import SignedClient, SignedServer
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import body_of

__all__ = ["SESSION_CHECKS", "params_of"]

Json: TypeAlias = Mapping[str, Any]


def params_of(given: Json, shells: Shells | None = None) -> Params:
    """The parameters of a vector. Raises :class:`~securefl.errors.ConfigurationError` when they cannot work."""
    return Params(
        clients=tuple(PartyId(client) for client in given["clients"]),
        dimension=given["dimension"],
        max_value=int(given["max_value"]),
        threshold=given["threshold"],
        session=bytes.fromhex(given["session"]),
        round=given["round"],
        model_hash=bytes.fromhex(given["model_hash"]),
        suite=next(suite for suite in Suite if suite.label == given["suite"]),
        encoding=bytes.fromhex(given.get("encoding", "")),
        allow_minority_threshold=given.get("allow_minority_threshold", False),
        shells=shells,
    )


class _Replay:
    """A client's recorded randomness and seals, in the order in which it drew them.

    ``strict``: what is sealed must be what was recorded. A forged roster changes that before it is refused.
    """

    strict = True

    def __init__(self, client: Json, seals: Sequence[bytes]) -> None:
        names = ("mask_seed", "self_seed", "channel_seed", "mask_coefficients", "self_coefficients")
        self._tokens = [bytes.fromhex(client["randomness"][name]) for name in names if name in client["randomness"]]
        self._seals = list(zip(seals, client["seals"], strict=True))

    def token(self, length: int) -> bytes:
        if not self._tokens or len(self._tokens[0]) != length:
            raise Mismatch(f"{length} random bytes are drawn where none, or another number, were recorded")
        return self._tokens.pop(0)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        seal(recipient, plaintext, info)  # a key that cannot be sealed to is refused, as when nothing is replayed
        if not self._seals:
            raise Mismatch("more is sealed than was recorded")
        sealed, detail = self._seals.pop(0)
        found = {
            "key_sha256": hashlib.sha256(recipient.raw).hexdigest(),
            "info": info.hex(),
            "plaintext": plaintext.hex(),
        }
        for name, value in found.items():
            if self.strict and name in detail:
                expect(f"the {name} of a seal", value, detail[name])
        return sealed


def _recorded_seals(params: Params, me: ClientId, frames: Sequence[Json]) -> list[bytes]:
    """The seals in the SHARE_KEYS frame that the client sent, in the order in which it made them."""
    for frame in frames:
        if frame["from"] == me and frame["kind"] == Kind.SHARE_KEYS.name:
            body = body_of(bytes.fromhex(frame["hex"]))
            boxes = EncryptedShares.decode(body, params, owner=me, owner_sends=True).boxes
            return [part for box in boxes.values() for part in (box.shares, box.pair) if part is not None]
    return []


class _Party:
    """One role of a recorded session."""

    def __init__(self, case: Case, party: int) -> None:
        params = params_of(case.params)
        self.party, self.frames, self.steps = party, case.input["frames"], case.input["steps"]
        self.role: Client | Server | SignedClient | SignedServer
        seeds = {
            PartyId(c["id"]): Identity(bytes.fromhex(c["identity"])) for c in case.input["clients"] if "identity" in c
        }
        known = Directory({client: identity.public for client, identity in seeds.items()})
        if party == SERVER:
            self.role = SignedServer(params, known) if seeds else Server(params)
            return
        me = PartyId(party)
        client = next(client for client in case.input["clients"] if client["id"] == party)
        self.replay = _Replay(client, _recorded_seals(params, me, self.frames))
        self.values = np.array(client["values"], dtype=np.uint64)
        floor = client.get("minimum_survivors")
        if seeds:
            self.role = SignedClient(params, me, seeds[me], known, minimum_survivors=floor, entropy=self.replay)
        else:
            self.role = Client(params, me, minimum_survivors=floor, entropy=self.replay)

    def play(self, start: int = 0, stop: int | None = None, frames: Mapping[int, bytes] | None = None) -> list[Event]:
        """This party's steps among ``start`` … ``stop`` − 1; gives the events of the last.

        ``frames``: what comes instead of the recorded frame, by step; with it, only errors are compared.
        """
        events: list[Event] = []
        for at in range(start, len(self.steps) if stop is None else stop):
            step = self.steps[at]
            if step["party"] != self.party:
                continue
            frame = None if frames is None else frames.get(at)
            if "raises" in step:
                refused(step["raises"], partial(self.take, step, frame))
                continue
            events = list(self.take(step, frame))
            if frames is None:
                expect(f"step {at}, what party {self.party} gives", self.shown(events), self.wanted(step["gives"]))
        return events

    def take(self, step: Json, frame: bytes | None = None) -> Sequence[Event]:
        if step["do"] == "receive":
            return self.role.receive(bytes.fromhex(self.frames[step["frame"]]["hex"]) if frame is None else frame)
        if step["do"] == "start":
            return self.role.start()
        if step["do"] == "close_round" and isinstance(self.role, (Server, SignedServer)):
            return self.role.close_round()
        if step["do"] == "provide" and isinstance(self.role, (Client, SignedClient)):
            return self.role.provide(self.values)
        raise Mismatch(f"party {self.party} has no step {step['do']!r}")

    @staticmethod
    def shown(events: Sequence[Event]) -> list[object]:
        """Events in the words of the vector files."""
        shown: list[object] = []
        for event in events:
            match event:
                case Send(to, frame):
                    shown.append({"send": [to, bytes(frame).hex()]})
                case NeedInput():
                    shown.append("need_input")
                case Completed(SumResult(values, survivors, suspects)):
                    outcome = {"sum": values.tolist(), "survivors": list(survivors), "suspects": list(suspects)}
                    shown.append({"completed": outcome})
                case Completed():
                    shown.append({"completed": None})
                case Aborted(reason, blamed):
                    shown.append({"aborted": {"type": type(reason).__name__, "blamed": list(blamed)}})
        return shown

    def wanted(self, gives: Sequence[Any]) -> list[object]:
        wanted: list[object] = []
        for item in gives:
            if isinstance(item, dict) and "send" in item:
                frame = self.frames[item["send"]]
                wanted.append({"send": [frame["to"], frame["hex"]]})
            else:
                wanted.append(item)
        return wanted


def _outcome(case: Case) -> dict[str, object]:
    return {"aborted": case.error} if case.error is not None else {"completed": case.expected}


def _session(case: Case) -> None:
    closing = [step for step in case.input["steps"] if step["do"] == "close_round"]
    expect("how the recorded session ends", closing[-1]["gives"][-1], _outcome(case))
    for party in (SERVER, *case.params["clients"]):
        _Party(case, party).play()


def _inject(case: Case) -> None:
    given, error = case.input, case.test["error"]
    party = _Party(case.find(case.test["derived_from"]), given["party"])
    party.play(stop=given["before_step"])
    if party.party != SERVER:
        party.replay.strict = given["then"] == "continues"
    refused(error, lambda: party.role.receive(case.bytes("frame")))
    if given["then"] == "continues":
        party.play(start=given["before_step"])
        return
    for step in party.steps[given["before_step"] :]:
        if step["party"] == given["party"] and step["do"] == "receive":
            refused({"type": "FaultyServerError"}, partial(party.take, step))


def _swap(case: Case) -> None:
    frames = {int(at): bytes.fromhex(frame) for at, frame in case.input["frames"].items()}
    events = _Party(case.find(case.test["derived_from"]), SERVER).play(frames=frames)
    expect("how the session ends", _Party.shown(events[-1:]), [_outcome(case)])


SESSION_CHECKS: Final[Mapping[str, Check]] = {"session": _session, "inject": _inject, "swap": _swap}
