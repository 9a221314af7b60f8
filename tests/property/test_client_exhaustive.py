"""Every order of messages that a malicious server can choose against one client.

A server holds frames of three rosters (the right one, one without client 3, one with the server's own keys in the
places of 1 and 3), their deliveries whole and in part, requests for all ways to split the cohort, and a farewell. All
sequences of these, mixed with the client's own steps, are played. A sequence that leads to a state seen before is not
extended again, and the search ends by itself: what is checked holds for sequences of any length over these frames.

Invariants: never both shares of one peer, never two masked vectors, never its own mask-key share, no share at all
unless it is itself among enough survivors.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from securefl.errors import SecureFLError
from securefl.machine import Event, Send
from securefl.primitives import shamir
from securefl.primitives.kem import PublicKey, Suite
from securefl.secagg import Client, Params
from securefl.secagg.messages import (
    Abort,
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    Roster,
    Sealed,
    UnmaskRequest,
    UnmaskShares,
    server_limits,
)
from securefl.secagg.params import PROTOCOL
from securefl.testing import RecordingEntropy, ReplayEntropy, SeededEntropy
from securefl.types import SERVER
from securefl.wire import open_frame, seal_frame

ME = 2
PARAMS = Params((1, ME, 3), 2, 1, threshold=2, suite=Suite.X25519)
FIRST, SECOND = np.array([0, 1], dtype=np.uint64), np.array([1, 1], dtype=np.uint64)
Shares = dict[bytes, tuple[int, int]]  # what the holder was dealt → (dealer, 0 mask-key seed or 1 self-mask seed)


class Quick(SeededEntropy):
    """Seals of the client under test go nowhere: zeros of the right length will do."""

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        return bytes(recipient.suite.sealed_bytes(len(plaintext)))


def frame(kind: Kind, body: bytes, to: int = ME) -> bytes:
    return seal_frame(PROTOCOL, kind, PARAMS.context_hash, SERVER, to, body)


def body_of(data: bytes) -> memoryview:
    limits = server_limits(PARAMS)
    return open_frame(data, protocol=PROTOCOL, context=PARAMS.context_hash, recipient=SERVER, limits=limits).body


def keys_of(client: Client) -> AdvertiseKeys:
    return AdvertiseKeys.decode(body_of(bytes(client.start()[0].frame)), PARAMS)


@dataclass
class Pool:
    """The server's frames, by name, and the shares that they carry to ``ME``."""

    frames: dict[str, bytes]
    dealt: Shares
    requests: dict[str, UnmaskRequest]


def pool() -> Pool:
    frames: dict[str, bytes] = {"farewell": frame(Kind.ABORT, Abort(Abort.TOO_FEW_CLIENTS).encode())}
    dealt: Shares = {}
    mine = keys_of(Client(PARAMS, ME, entropy=Quick(ME)))
    for name, peers, seeds in (("all", (1, 3), 0), ("two", (1,), 0), ("false", (1, 3), 100)):
        drawn = {i: RecordingEntropy(SeededEntropy(seeds + i)) for i in peers}
        others = {i: Client(PARAMS, i, entropy=drawn[i]) for i in peers}
        roster = Roster({ME: mine} | {i: keys_of(client) for i, client in others.items()}).encode()
        frames[f"roster {name}"] = frame(Kind.ROSTER, roster)
        boxes: dict[int, Sealed] = {}
        for i, client in others.items():
            (answer,) = client.receive(frame(Kind.ROSTER, roster, to=i))
            sent = EncryptedShares.decode(body_of(bytes(answer.frame)), PARAMS, owner=i, owner_sends=True)
            boxes[i] = sent.boxes[ME]
            for which in (0, 1):
                entropy = ReplayEntropy([drawn[i].tokens[3 + which]], [])
                shares = shamir.split(drawn[i].tokens[which], points=3, threshold=2, entropy=entropy)
                dealt[shares[PARAMS.point(ME) - 1]] = (seeds + i, which)
        frames[f"delivery {name}"] = frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode())
        for left in peers if len(peers) > 1 else ():
            part = {i: box for i, box in boxes.items() if i != left}
            frames[f"delivery {name} without {left}"] = frame(Kind.DELIVER_SHARES, EncryptedShares(part).encode())
    lists = (
        ((1, 2, 3), ()),
        ((1, 2), (3,)),
        ((2, 3), (1,)),
        ((1, 2), ()),
        ((2, 3), ()),
        ((2,), (1, 3)),
        ((1, 3), (2,)),
        ((1, 2, 3), (1,)),
        ((1, 2, 3), (3,)),
        ((1, 2), (1, 3)),
    )
    requests = {f"request {survivors} {dropped}": UnmaskRequest(survivors, dropped) for survivors, dropped in lists}
    frames |= {name: frame(Kind.UNMASK_REQUEST, request.encode()) for name, request in requests.items()}
    return Pool(frames, dealt, requests)


class Play:
    """One client through one sequence of actions, with everything that it let out."""

    def __init__(self, of: Pool) -> None:
        self.of = of
        self.client = Client(PARAMS, ME, entropy=Quick(ME))
        self.vectors: set[bytes] = set()
        self.revealed: set[tuple[int, int]] = set()
        self.own: set[bytes] = set()
        self.answers: list[str] = []

    def clone(self) -> "Play":
        """An independent copy. OpenSSL's handles cannot be copied and need not be."""
        secrets = self.client._secrets
        fixed = [self.of, PARAMS] + ([secrets.mask_private, secrets.channel_private] if secrets else [])
        return copy.deepcopy(self, {id(item): item for item in fixed})

    def act(self, action: str) -> None:
        peers = sorted({*self.client._inbox, ME})
        try:
            events = self.step(action)
        except SecureFLError:
            events = ()
        for event in events:
            if isinstance(event, Send):
                self.judge(action, bytes(event.frame), peers)

    def step(self, action: str) -> Sequence[Event]:
        if action == "start":
            return self.client.start()
        if action == "provide":
            return self.client.provide(FIRST)
        if action == "provide another":
            return self.client.provide(SECOND)
        return self.client.receive(self.of.frames[action])

    def judge(self, action: str, data: bytes, peers: list[int]) -> None:
        body = body_of(data)
        if data[2] == Kind.MASKED_INPUT:
            self.vectors.add(bytes(body))
        elif data[2] == Kind.UNMASK_SHARES:
            request = self.of.requests[action]
            assert ME in request.survivors
            assert ME not in request.dropped
            assert len(request.survivors) >= PARAMS.threshold
            self.answers.append(action)
            for peer, share in zip(peers, UnmaskShares.decode(body, PARAMS).shares, strict=True):
                if peer == ME:
                    self.own.add(share or b"")
                elif share is not None:
                    self.revealed.add(self.of.dealt[share])

    def fingerprint(self) -> bytes:
        client = self.client
        seen = sorted((int(kind), bytes(checksum)) for kind, checksum in client._seen.items())
        everything = (
            client.state.name,
            seen,
            client._roster_hash,
            sorted(client._inbox),
            sorted(client._pair_secrets.items()),
            None if client._packed is None else client._packed.tobytes(),
            client._own_shares,
            client._secrets is None,
            sorted(self.vectors),
            sorted(self.revealed),
            self.answers,
        )
        return hashlib.sha256(repr(everything).encode()).digest()


def own_self_mask_share() -> bytes:
    source = SeededEntropy(ME)
    tokens = [source.token(length) for length in (32, 32, 32, 48, 48)]
    entropy = ReplayEntropy([tokens[4]], [])
    return shamir.split(tokens[1], points=3, threshold=2, entropy=entropy)[PARAMS.point(ME) - 1]


def test_no_order_of_messages_gives_away_an_input() -> None:
    of, mine = pool(), own_self_mask_share()
    actions = ["start", "provide", "provide another", *of.frames]
    seen: set[bytes] = set()
    answered: set[str] = set()
    frontier, depth = [([], Play(of))], 0
    while frontier:
        longer = []
        for path, play in frontier:
            for action in actions:
                after, steps = play.clone(), [*path, action]
                after.act(action)
                assert len(after.vectors) <= 1, steps
                assert len(after.answers) <= 1, steps
                assert len({dealer % 100 for dealer, _ in after.revealed}) == len(after.revealed), steps
                assert after.own <= {mine}, steps
                mark = after.fingerprint()
                if mark not in seen:
                    seen.add(mark)
                    answered.update(after.answers)
                    longer.append((steps, after))
        frontier, depth = longer, depth + 1
        assert depth < 12, "states are still being found"
    # The search got to the bottom: requests that fit a delivery were answered, all the others never.
    assert answered == {
        "request (1, 2, 3) ()",
        "request (1, 2) (3,)",
        "request (2, 3) (1,)",
        "request (1, 2) ()",
        "request (2, 3) ()",
    }
    assert depth > 5
    assert len(seen) > 200


def test_the_search_sees_what_an_unguarded_client_gives_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is not blind: without the check for overlapping lists both shares of a peer come out."""
    of = pool()
    path = ["start", "provide", "roster all", "delivery all", "request (1, 2, 3) ()"]
    play = Play(of)
    for action in path:
        play.act(action)
    assert play.revealed == {(1, 1), (3, 1)}
    monkeypatch.setattr(Client, "_drop_secrets", lambda self: None)
    play = Play(of)
    for action in path:
        play.act(action)
    play.client._state = type(play.client.state).MASKED
    play.act("request (1, 2) (3,)")
    assert play.revealed == {(1, 1), (3, 1), (3, 0)}
