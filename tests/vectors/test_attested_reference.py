"""The attested form of the shared sum between its reference and securefl: each side's clients and servers with the
other's, with fresh keys and seals, and the same verdict on damaged signatures.
"""

import itertools
import os
import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securefl.errors import SecureFLError
from securefl.integrations.attested import AttestedClient, AttestedSecond
from securefl.integrations.attested_first import AttestedFirst
from securefl.integrations.peers import HELPER
from securefl.machine import Completed, RoundContext, Send
from securefl.mpc.summation import Params, SecondServer
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kem import Suite
from securefl.types import PartyId
from securefl.wire import body_of, seal_frame

FOLDERS = [str(folder) for folder in (Path(__file__).resolve().parents[2] / "protocols").iterdir() if folder.is_dir()]
IDS = (PartyId(2), PartyId(3), PartyId(70000))
#: Of the clients, the first and the second server: whether it is the library's.
SIDES = [sides for sides in itertools.product((True, False), repeat=3) if any(sides)]


@pytest.fixture(scope="module", autouse=True)
def references() -> Iterator[None]:
    sys.path[:0] = FOLDERS
    yield
    for folder in FOLDERS:
        sys.path.remove(folder)


class Cast:
    """``clients``, ``first``, ``second``: whether they are the library's."""

    def __init__(self, suite: Suite, clients: bool, first: bool, second: bool) -> None:
        import attested_ref
        import shared_ref

        context = RoundContext(b"both", 4, IDS, 5, 1000, 2, os.urandom(32))
        self.p = Params(context, suite)
        theirs = shared_ref.Params(IDS, 5, 1000, 2, b"both", 4, context.model_hash, suite.label)
        assert theirs.context == self.p.context_hash
        seeds = {who: os.urandom(32) for who in (*IDS, HELPER)}
        known = {who: Identity(seed).public for who, seed in seeds.items()}
        self.ours, self.random = clients, random.Random(7)
        self.values = {who: [self.random.randrange(1001) for _ in range(5)] for who in IDS}
        self.clients: dict[int, Any] = {
            who: AttestedClient(self.p, who, Identity(seeds[who]), Directory(known))
            if clients
            else attested_ref.Client(theirs, who, seeds[who], known)
            for who in IDS
        }
        mine = AttestedSecond(self.p, SecondServer(self.p), Identity(seeds[HELPER]), Directory(known))
        self.second: Any = mine if second else attested_ref.Second(theirs, os.urandom(32), seeds[HELPER], known)
        self.first: Any = AttestedFirst(self.p, Directory(known)) if first else attested_ref.First(theirs, known)
        if first:
            self.first.start()
        self.seal_bytes = 32 if suite is Suite.X25519 else 64

    def client(self, who: PartyId, frame: bytes) -> list[bytes]:
        role, values = self.clients[who], self.values[who]
        if not self.ours:
            return list(role.receive(frame, values, os.urandom(32), os.urandom(self.seal_bytes)))
        return [bytes(event.frame) for event in role.receive(frame) if isinstance(event, Send)]

    def close(self) -> list[tuple[int, bytes]]:
        """What the first server sends when the exchange is closed, and to whom."""
        made = self.first.close_round() if isinstance(self.first, AttestedFirst) else self.first.close()
        frames = [bytes(event.frame) if isinstance(event, Send) else event for event in made]
        return [(int.from_bytes(frame[8:12], "big"), frame) for frame in frames]

    def end(self) -> tuple[list[int], list[int]]:
        """The sum and the survivors."""
        if not isinstance(self.first, AttestedFirst):
            return self.first.close()
        (event,) = self.first.close_round()
        return event.result.values.tolist(), list(event.result.survivors)

    @staticmethod
    def frames(events: Any) -> list[bytes]:
        """Of either side's second server."""
        made = [event.frame if isinstance(event, Send) else event for event in events]
        return [bytes(frame) for frame in made if not isinstance(frame, Completed)]


def started(cast: Cast) -> tuple[dict[PartyId, bytes], dict[PartyId, bytes]]:
    """The attestation and the key for each client."""
    advertised, *attested = cast.frames(cast.second.start())
    cast.first.receive(advertised)
    keys = {PartyId(to): frame for to, frame in cast.close()}
    if cast.ours:
        for who, role in cast.clients.items():
            role.start()
            role.provide(np.array(cast.values[PartyId(who)], dtype=np.uint64))
    return dict(zip(IDS, attested, strict=True)), keys


@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.label)
@pytest.mark.parametrize(("clients", "first", "second"), SIDES)
def test_sessions_of_both(suite: Suite, clients: bool, first: bool, second: bool) -> None:
    cast = Cast(suite, clients, first, second)
    attested, keys = started(cast)
    for who in IDS:
        assert cast.client(who, attested[who]) == []
        signed, seed, vector = cast.client(who, keys[who])
        cast.first.receive(signed)
        cast.first.receive(seed)
        if who != IDS[1]:  # it sealed and signed, and leaves
            cast.first.receive(vector)
    share: list[bytes] = []
    for to, frame in cast.close():
        assert to == HELPER
        assert share == []  # the request is the last
        share = cast.frames(cast.second.receive(frame))
    cast.first.receive(share[0])
    both = zip(cast.values[IDS[0]], cast.values[IDS[2]], strict=True)
    assert cast.end() == ([a + b for a, b in both], [IDS[0], IDS[2]])


def error_of(step: Any) -> str:
    from shared_ref import Fault

    try:
        step()
    except Fault as error:
        return str(error.error)
    except SecureFLError as error:
        return type(error).__name__
    return "accepted"


@pytest.mark.parametrize("side", [True, False], ids=["library", "reference"])
def test_every_bit_of_a_signature_counts(side: bool) -> None:
    """Behind a right checksum. Each byte of an attestation and of a signed seed, one bit of it, at either server."""
    cast = Cast(Suite.X25519, side, side, side)
    attested, keys = started(cast)
    who = IDS[0]

    def spoiled(frame: bytes, at: int) -> bytes:
        body = bytearray(body_of(frame))
        body[at] ^= 1 << cast.random.randrange(8)
        ends = (int.from_bytes(frame[4:8], "big"), int.from_bytes(frame[8:12], "big"))
        return seal_frame(9, frame[2], cast.p.context_hash, PartyId(ends[0]), PartyId(ends[1]), body)

    for at in range(64):
        cast.client(who, spoiled(attested[who], at))
        assert error_of(lambda: cast.client(who, keys[who])) == "AuthenticationError", at
    signed = {}
    for each in IDS:
        cast.client(each, attested[each])
        signed[each], seed, vector = cast.client(each, keys[each])
        for at in range(64):
            cast.first.receive(spoiled(signed[each], at))
            assert error_of(partial(cast.first.receive, seed)) == "AuthenticationError", at
        cast.first.receive(vector)
        if each != IDS[2]:  # whose seed is never signed
            cast.first.receive(signed[each])
            cast.first.receive(seed)
    *relayed, request = (frame for _, frame in cast.close())
    assert relayed == [signed[IDS[0]], signed[IDS[1]]]
    for frame in relayed:
        cast.second.receive(frame)
    for at in range(64):
        cast.second.receive(spoiled(signed[who], at))
        assert error_of(lambda: cast.second.receive(request)) == "AuthenticationError", at
    cast.second.receive(signed[who])
    assert error_of(lambda: cast.second.receive(request)) == "accepted"  # refusals changed nothing
