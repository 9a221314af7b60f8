"""Server and clients under arbitrary deliveries: dropped, repeated, misdirected, damaged, forged, at any time.

Invariants: no client reveals both shares of one peer, or two masked vectors; states move along the transition tables
only; every error is one of ours; and what the server completes with is the exact sum over the survivors it reports.
"""

from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from securefl.errors import DecodeError, SecureFLError
from securefl.machine import Aborted, Completed, Event, Machine, Send
from securefl.primitives import shamir
from securefl.primitives.kem import Suite
from securefl.secagg import Client, Params, Server
from securefl.secagg.messages import (
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    Roster,
    UnmaskRequest,
    UnmaskShares,
    client_limits,
    server_limits,
)
from securefl.secagg.params import PROTOCOL
from securefl.testing import RecordingEntropy, ReplayEntropy
from securefl.types import SERVER
from securefl.wire import open_frame, seal_frame

IDS = (2, 5, 9)
# Eight lanes of two bits in one word: 48 bits of it stay free, so a mask that did not cancel is found but for 2**-48.
PARAMS = Params(IDS, 8, 1, threshold=2, suite=Suite.X25519)
INPUTS = {i: np.eye(8, dtype=np.uint64)[at] for at, i in enumerate(IDS)}
clients = st.sampled_from(IDS)
parties = st.sampled_from([SERVER, *IDS])
subsets = st.sets(clients).map(lambda found: tuple(sorted(found)))


def reachable(role: Machine, start: object) -> set[object]:
    found, frontier = {start}, [start]
    while frontier:
        for state in role.TRANSITIONS.get(frontier.pop(), {}).values():
            if state not in found:
                found.add(state)
                frontier.append(state)
    return found


class Network(RuleBasedStateMachine):
    """Every rule is one step that a network, or a server that does not keep to the protocol, can take."""

    @initialize()
    def set_up(self) -> None:
        self.drawn = {i: RecordingEntropy() for i in IDS}
        self.parties: dict[int, Client | Server] = {i: Client(PARAMS, i, entropy=self.drawn[i]) for i in IDS}
        self.parties[SERVER] = Server(PARAMS)
        self.pool: list[tuple[int, bytes]] = []  # every frame that a party has sent
        self.delivered = 0
        self.vectors: dict[int, set[bytes]] = {i: set() for i in IDS}
        self.revealed: dict[tuple[int, int], set[int]] = {}
        self.ended: list[Event] = []
        self.take(SERVER, self.parties[SERVER].start)

    # ---- what the parties do ----

    def take(self, party: int, step: Callable[[], Sequence[Event]]) -> SecureFLError | None:
        role = self.parties[party]
        before, peers = role.state, sorted({*getattr(role, "_inbox", {}), party})
        try:
            events = step()
        except SecureFLError as error:
            assert role.state in reachable(role, before)
            return error
        assert role.state in reachable(role, before)
        for event in events:
            if isinstance(event, Send):
                self.pool.append((event.to, bytes(event.frame)))
                if party != SERVER:
                    self.judge(party, bytes(event.frame), peers)
            elif party == SERVER:
                assert isinstance(event, Completed | Aborted)
                self.ended.append(event)
                if isinstance(event, Completed):
                    self.judge_sum(event)
        return None

    def judge(self, client: int, frame: bytes, peers: list[int]) -> None:
        body = open_frame(
            frame, protocol=PROTOCOL, context=PARAMS.context_hash, recipient=SERVER, limits=server_limits(PARAMS)
        ).body
        if frame[2] == Kind.MASKED_INPUT:
            self.vectors[client].add(bytes(body))
        if frame[2] == Kind.UNMASK_SHARES:
            shares = UnmaskShares.decode(body, PARAMS).shares
            assert len(shares) == len(peers)
            for dealer, share in zip(peers, shares, strict=True):
                if share is not None:
                    kinds = [which for which in (0, 1) if share == self.true_share(dealer, which, client)]
                    assert kinds, "a share that nobody dealt"
                    self.revealed.setdefault((client, dealer), set()).update(kinds)

    def true_share(self, dealer: int, which: int, holder: int) -> bytes:
        tokens = self.drawn[dealer].tokens
        entropy = ReplayEntropy([tokens[3 + which]], [])
        dealt = shamir.split(tokens[which], points=len(IDS), threshold=PARAMS.threshold, entropy=entropy)
        return dealt[PARAMS.point(holder) - 1]

    def judge_sum(self, event: Completed) -> None:
        assert event.result is not None
        survivors = event.result.survivors
        assert len(survivors) >= PARAMS.threshold
        expected = sum((INPUTS[i] for i in survivors), np.zeros(8, dtype=np.uint64))
        assert event.result.values.tolist() == expected.tolist()

    # ---- rules: an honest but unreliable network ----

    @rule(client=clients)
    def start(self, client: int) -> None:
        self.take(client, self.parties[client].start)

    @rule(client=clients)
    def provide(self, client: int) -> None:
        self.take(client, lambda: self.parties[client].provide(INPUTS[client]))

    @rule(place=st.integers(0, 10**6), back=st.booleans())
    def deliver(self, place: int, back: bool) -> None:
        """Any frame ever sent, so also again or late. Often a recent one."""
        if self.pool:
            to, frame = self.pool[-1 - place % min(4, len(self.pool)) if back else place % len(self.pool)]
            self.take(to, lambda: self.parties[to].receive(frame))

    @rule(drop=st.sets(st.integers(0, 2)), again=st.booleans())
    def deliver_what_is_new(self, drop: set[int], again: bool) -> None:
        """All frames that were never on their way yet, but for the dropped ones."""
        fresh, self.delivered = self.pool[self.delivered :], len(self.pool)
        for at, (to, frame) in enumerate(fresh):
            if at not in drop:
                self.take(to, lambda to=to, frame=frame: self.parties[to].receive(frame))
                if again:
                    self.take(to, lambda to=to, frame=frame: self.parties[to].receive(frame))

    @rule()
    def everybody_starts_and_provides(self) -> None:
        for client in IDS:
            self.start(client)
            self.provide(client)

    @rule()
    def close_round(self) -> None:
        self.take(SERVER, self.parties[SERVER].close_round)

    @rule()
    def a_clean_exchange(self) -> None:
        self.deliver_what_is_new(set(), again=False)
        self.close_round()

    # ---- rules: damage ----

    @rule(place=st.integers(0, 10**6), party=parties)
    def misdirect(self, place: int, party: int) -> None:
        if self.pool:
            to, frame = self.pool[place % len(self.pool)]
            if to != party:
                error = self.take(party, lambda: self.parties[party].receive(frame))
                assert isinstance(error, DecodeError)

    @rule(place=st.integers(0, 10**6), bit=st.integers(0, 10**6))
    def damage(self, place: int, bit: int) -> None:
        if self.pool:
            to, frame = self.pool[place % len(self.pool)]
            damaged = bytearray(frame)
            damaged[bit // 8 % len(frame)] ^= 1 << bit % 8
            before = self.parties[to].state
            error = self.take(to, lambda: self.parties[to].receive(bytes(damaged)))
            assert isinstance(error, DecodeError)
            assert self.parties[to].state is before

    @rule(party=parties, kind=st.sampled_from(Kind), sender=parties, body=st.binary(max_size=60))
    def garbage(self, party: int, kind: Kind, sender: int, body: bytes) -> None:
        """A whole frame with any body. (Not a vector to the server: a client may give any input.)"""
        if not (party == SERVER and kind is Kind.MASKED_INPUT):
            self.give(party, kind, body, sender)

    # ---- rules: a server that forges ----

    def give(self, to: int, kind: Kind, body: bytes, sender: int = SERVER) -> None:
        frame = seal_frame(PROTOCOL, kind, PARAMS.context_hash, sender, to, body)
        self.take(to, lambda: self.parties[to].receive(frame))

    def last_body(self, kind: Kind, to: int) -> memoryview | None:
        for recipient, frame in reversed(self.pool):
            if recipient == to and frame[2] == kind:
                context, limits = PARAMS.context_hash, client_limits(PARAMS)
                return open_frame(frame, protocol=PROTOCOL, context=context, recipient=to, limits=limits).body
        return None

    @rule(client=clients, survivors=subsets, dropped=subsets)
    def forge_a_request(self, client: int, survivors: tuple[int, ...], dropped: tuple[int, ...]) -> None:
        self.give(client, Kind.UNMASK_REQUEST, UnmaskRequest(survivors, dropped).encode())

    @rule(client=clients, dropped=subsets)
    def forge_a_plausible_request(self, client: int, dropped: tuple[int, ...]) -> None:
        survivors = tuple(i for i in IDS if i not in dropped)
        self.give(client, Kind.UNMASK_REQUEST, UnmaskRequest(survivors, dropped).encode())

    @rule(client=clients, left_out=subsets, swapped=st.booleans())
    def forge_a_roster(self, client: int, left_out: tuple[int, ...], swapped: bool) -> None:
        body = self.last_body(Kind.ROSTER, client)
        if body is not None:
            keys = {i: k for i, k in Roster.decode(body, PARAMS).keys.items() if i not in left_out}
            if swapped:
                keys = {
                    i: k if i == client else AdvertiseKeys(k.mask_key, k.channel_key, k.commitment)
                    for i, k in keys.items()
                }
            self.give(client, Kind.ROSTER, Roster(keys).encode())

    @rule(client=clients, left_out=subsets)
    def forge_a_delivery(self, client: int, left_out: tuple[int, ...]) -> None:
        body = self.last_body(Kind.DELIVER_SHARES, client)
        if body is not None:
            boxes = EncryptedShares.decode(body, PARAMS, owner=client, owner_sends=False).boxes
            kept = {i: box for i, box in boxes.items() if i not in left_out}
            self.give(client, Kind.DELIVER_SHARES, EncryptedShares(kept).encode())

    # ---- invariants ----

    @invariant()
    def no_client_sends_two_masked_vectors(self) -> None:
        assert all(len(vectors) <= 1 for vectors in getattr(self, "vectors", {}).values())

    @invariant()
    def no_client_reveals_both_shares_of_one_peer(self) -> None:
        assert all(len(kinds) <= 1 for kinds in getattr(self, "revealed", {}).values())

    @invariant()
    def a_session_ends_once(self) -> None:
        assert len(getattr(self, "ended", [])) <= 1


TestNetwork = Network.TestCase
TestNetwork.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
