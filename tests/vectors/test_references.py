"""The references and securefl talk to each other: random sessions in which each role is played by either.

The references share no code with securefl and use another library for every primitive, so a session that comes to the
exact sum shows that both read the SPEC the same way, seals made by OpenSSL included.
"""

import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securefl.errors import DecodeError, SecureFLError
from securefl.machine import Aborted, Completed, Event, NeedInput, Send
from securefl.primitives import kem
from securefl.secagg import Client, Params, Server, Suite
from securefl.types import SERVER, PartyId
from securefl.wire import open_frame, seal_frame

FOLDERS = [str(folder) for folder in (Path(__file__).resolve().parents[2] / "protocols").iterdir() if folder.is_dir()]
LIBRARY, REFERENCE = "library", "reference"


@pytest.fixture(scope="module", autouse=True)
def references() -> Iterator[None]:
    """The references import each other by bare names."""
    sys.path[:0] = FOLDERS
    yield
    for folder in FOLDERS:
        sys.path.remove(folder)


def reference_params(p: Params) -> Any:
    from secagg_ref import Params as ReferenceParams

    shared = (p.clients, p.dimension, p.max_value, p.threshold, p.session, p.round, p.model_hash)
    return ReferenceParams(*shared, p.suite.label)


def shown(events: Any) -> list[tuple[Any, ...]]:
    """Events of either side as the references' tuples."""
    return [event if isinstance(event, tuple) else tuple_of(event) for event in events]


def tuple_of(event: Event) -> tuple[Any, ...]:
    match event:
        case Send(to, frame):
            return "send", to, bytes(frame)
        case NeedInput():
            return ("need_input",)
        case Completed(result):
            if result is None:
                return "completed", None
            sums, survivors = result.values.tolist(), list(result.survivors)
            return "completed", {"sum": sums, "survivors": survivors, "suspects": list(result.suspects)}
        case Aborted(reason, blamed):
            return "aborted", type(reason).__name__, list(blamed)


class Cast:
    """One session with the roles played as cast, until the server has an outcome."""

    def __init__(self, p: Params, played: Callable[[int], str], drop: dict[int, int], seed: int) -> None:
        import session_ref

        self.p, self.drop, self.random = p, drop, random.Random(seed)
        theirs = reference_params(p)
        self.values = {i: [self.random.randrange(p.max_value + 1) for _ in range(p.dimension)] for i in p.clients}
        self.roles: dict[int, Any] = {
            SERVER: Server(p) if played(SERVER) == LIBRARY else session_ref.Server(theirs),
            **{
                i: Client(p, i) if played(i) == LIBRARY else session_ref.Client(theirs, i, lambda _, n: os.urandom(n))
                for i in p.clients
            },
        }
        self.way: deque[tuple[int, bytes]] = deque()
        self.sent = dict.fromkeys(self.roles, 0)
        self.outcome: tuple[Any, ...] | None = None

    def run(self) -> tuple[Any, ...]:
        self.handle(SERVER, self.roles[SERVER].start())
        for client in self.p.clients:
            self.handle(client, self.roles[client].start())
        self.deliver()
        while self.outcome is None:
            self.handle(SERVER, self.roles[SERVER].close_round())
            self.deliver()
        return self.outcome

    def deliver(self) -> None:
        while self.way:
            self.way.rotate(self.random.randrange(len(self.way)))
            to, frame = self.way.popleft()
            self.handle(to, self.roles[to].receive(frame))

    def handle(self, party: int, events: Any) -> None:
        for event in shown(events):
            if event[0] == "send":
                self.sent[party] += 1
                if self.sent[party] <= self.drop.get(party, self.sent[party]):
                    self.way.append(event[1:])
            elif event[0] == "need_input":
                role, values = self.roles[party], self.values[party]
                mine = isinstance(role, Client)
                self.handle(party, role.provide(np.array(values, dtype=np.uint64) if mine else values))
            elif party == SERVER:
                self.outcome = event


CASTS = {
    "library server, reference clients": lambda i: LIBRARY if i == SERVER else REFERENCE,
    "reference server, library clients": lambda i: REFERENCE if i == SERVER else LIBRARY,
    "library server, clients of both": lambda i: LIBRARY if i % 2 == 0 else REFERENCE,
    "reference server, clients of both": lambda i: REFERENCE if i % 2 == 0 else LIBRARY,
}


@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.label)
@pytest.mark.parametrize("cast", CASTS)
def test_sessions_of_both(cast: str, suite: Suite) -> None:
    outcomes = set()
    for seed in range(24 if suite is Suite.X25519 else 10):
        draw = random.Random(f"{cast} {suite.label} {seed}")
        n = draw.randrange(2, 6)
        ids = tuple(PartyId(i) for i in sorted(draw.sample(range(1, 2**32), n)))
        p = Params(
            clients=ids,
            dimension=draw.randrange(1, 20),
            max_value=draw.choice([1, 15, 65534, 2**31 - 2, (2**64 - 1) // n]),
            threshold=draw.randrange(n // 2 + 1, n + 1) if n > 2 else 2,
            session=draw.randbytes(draw.randrange(1, 65)),
            round=draw.randrange(2**32),
            model_hash=draw.randbytes(32),
            suite=suite,
        )
        drop = {i: draw.randrange(5) for i in ids if draw.random() < 0.25}
        session = Cast(p, CASTS[cast], drop, seed)
        outcome = session.run()
        outcomes.add(outcome[0])
        if outcome[0] == "completed":
            result = outcome[1]
            inputs = [session.values[i] for i in result["survivors"]]
            assert result["sum"] == [sum(column) for column in zip(*inputs, strict=True)]
            assert result["suspects"] == []
            assert set(result["survivors"]) == {i for i in ids if drop.get(i, 9) >= 3}
        else:
            assert outcome[1:] == ("TooFewClientsError", [])
            assert sum(drop.get(i, 9) >= 4 for i in ids) < p.threshold
    assert outcomes == {"completed", "aborted"}


@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.label)
def test_seals_open_on_the_other_side(suite: Suite) -> None:
    import primitives_ref

    for length in (0, 1, 32, 66, 1000):
        seed, info, plaintext = os.urandom(32), os.urandom(length), os.urandom(length)
        private, public = kem.key_pair(suite, seed)
        assert primitives_ref.public_key(suite.label, seed) == public.raw
        assert primitives_ref.unseal(suite.label, seed, kem.seal(public, plaintext, info), info) == plaintext
        coins = os.urandom(32 if suite is Suite.X25519 else 64)
        sealed = primitives_ref.seal(suite.label, public.raw, plaintext, info, coins)
        assert kem.unseal(private, sealed, info) == plaintext
        assert len(sealed) == suite.sealed_bytes(length)


def test_flipped_frames_are_refused_by_both_or_by_neither() -> None:
    """Every bit of a short frame, and of the same frame with its checksum made right again."""
    import wire_ref

    context, limits = bytes(range(32)), {3: 4, 7: 9}
    good = bytearray(seal_frame(1, 3, context, PartyId(9), PartyId(7), b"body"))
    assert bytes(good) == wire_ref.seal_frame(1, 3, context, 9, 7, b"body")
    accepted = 0
    for bit in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        for frame in (bytes(damaged), bytes(damaged[:-16]) + wire_ref.checksum(bytes(damaged[:-16]))):
            try:
                mine: Any = open_frame(frame, protocol=1, context=context, recipient=PartyId(7), limits=limits)
                mine = (mine.kind, mine.sender, bytes(mine.body))
            except DecodeError:
                mine = "refused"
            try:
                theirs: Any = wire_ref.open_frame(frame, 1, context, 7, limits)
            except wire_ref.DecodeError:
                theirs = "refused"
            assert mine == theirs
            accepted += mine != "refused"
    # a right checksum, and bits of the sender, of the body, or kind 7; and the 128 bits of the checksum, put right
    assert accepted == 32 + 32 + 1 + 128


def test_random_damage_in_sessions_is_refused_alike() -> None:
    """One byte of a body changed, the checksum made right: library and reference clients agree on the error."""
    import session_ref
    import wire_ref
    from secagg_ref import Fault

    draw = random.Random(5)
    p = Params((3, 7, 20), 5, 15, 2, suite=Suite.X25519)
    agreed = set()
    for _ in range(80):
        session = Cast(p, lambda _: LIBRARY, {}, draw.randrange(2**32))
        tokens: dict[str, bytes] = {}

        def random_bytes(name: str, length: int, tokens: dict[str, bytes] = tokens) -> bytes:
            return tokens.setdefault(name, os.urandom(length))

        class Same:
            """The same randomness for the library's client."""

            def __init__(self, tokens: dict[str, bytes]) -> None:
                self.tokens = tokens
                self.names = iter(("mask_seed", "self_seed", "channel_seed", "mask_coefficients", "self_coefficients"))

            def token(self, length: int) -> bytes:
                return self.tokens.setdefault(next(self.names), os.urandom(length))

            def seal(self, recipient: kem.PublicKey, plaintext: bytes, info: bytes) -> bytes:
                return kem.seal(recipient, plaintext, info)

        reference = session_ref.Client(reference_params(p), 7, random_bytes)
        library = Client(p, PartyId(7), entropy=Same(tokens))
        session.roles[7] = reference
        assert reference.start() == shown(library.start())
        reference.state = "NEW"  # the cast starts it again, with the same randomness
        frames: list[bytes] = []
        original = reference.receive
        reference.receive = lambda frame, frames=frames, original=original: frames.append(frame) or original(frame)
        session.run()
        target = draw.randrange(len(frames))
        twin = session_ref.Client(reference_params(p), 7, random_bytes)
        twin.start()
        values = np.array(session.values[7], dtype=np.uint64)
        for frame in frames[:target]:
            for role, given in ((twin, session.values[7]), (library, values)):
                for event in shown(role.receive(frame)):
                    if event[0] == "need_input":
                        role.provide(given)
        covered = bytearray(frames[target][:-16])
        covered[56 + draw.randrange(len(covered) - 56)] ^= 1 << draw.randrange(8)
        frame = bytes(covered) + wire_ref.checksum(bytes(covered))
        outcomes = []
        for role in (library, twin):
            try:
                sizes = [(event[0], *(len(part) for part in event[2:])) for event in shown(role.receive(frame))]
                outcomes.append(("accepted", sizes))
            except SecureFLError as error:
                outcomes.append((type(error).__name__, list(getattr(error, "clients", ()))))
            except Fault as fault:
                outcomes.append((fault.error, fault.blamed))
            except wire_ref.DecodeError:
                outcomes.append(("DecodeError", []))
        assert outcomes[0] == outcomes[1]
        agreed.add(outcomes[0][0])
    assert {"accepted", "DecodeError", "FaultyServerError", "FaultyClientError"} <= agreed
