"""One bit flipped, or one frame lost, anywhere in a session: the exact sum over the survivors, or a named error.

Single faults are within what the threshold tolerates here, so the sum is not only right if it comes: it comes, over
exactly the clients whose vector still arrived. Damage that a party itself seals (so that the checksum is right) may
end a session by a named error, but never change a sum.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from securefl.errors import DecodeError, FaultyClientError, FaultyServerError, SecureFLError, TooFewClientsError
from securefl.machine import ClientRole, Event, RoundContext, Send, ServerRole
from securefl.plain import PlainSum
from securefl.primitives.kem import Suite
from securefl.secagg import MaskedSum
from securefl.secagg.messages import Kind
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.transport.transcript import Transcript
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import HEADER_BYTES, seal_frame

IDS = (1, 3, 6)
CONTEXT = RoundContext(b"faults", 2, IDS, 12, 1, 2, bytes(32))
# One-hot inputs, and lanes of two bits: twelve of 32 in one word are used, so 40 bits stay free to betray a mask.
INPUTS = {i: np.eye(12, dtype=np.uint64)[at] for at, i in enumerate(IDS)}
MASKED, PLAIN = MaskedSum(Suite.X25519), PlainSum()

Place = tuple[int, int]


def run(protection: Any, faults: Faults | None = None) -> Outcome:
    return run_session(protection, CONTEXT, lambda client: INPUTS[client], faults=faults)


def assert_exact(outcome: Outcome, survivors: Sequence[int] | None = None) -> None:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    if survivors is not None:
        assert outcome.result.survivors == tuple(survivors)
    expected = sum((INPUTS[i] for i in outcome.result.survivors), np.zeros(12, dtype=np.uint64))
    assert outcome.result.values.tolist() == expected.tolist()


def assert_exact_or_named(outcome: Outcome) -> None:
    if outcome.result is None:
        assert isinstance(outcome.error, SecureFLError)
    else:
        assert_exact(outcome)


def without(*clients: int) -> list[int]:
    return [i for i in IDS if i not in clients]


def frames_of(protection: MaskedSum | PlainSum) -> dict[Place, tuple[int, bytes]]:
    """Every frame of a clean session: where it comes in its sender's order → (recipient, bytes)."""
    transcript, counts, found = Transcript(), dict.fromkeys((SERVER, *IDS), 0), {}
    run_session(protection, CONTEXT, lambda client: INPUTS[client], observe=transcript)
    for entry in transcript:
        found[entry.sender, counts[entry.sender]] = (entry.recipient, entry.frame)
        counts[entry.sender] += 1
    return found


def survivors_without_frame(place: Place, recipient: int) -> list[int]:
    """Who is in the sum when this one frame does not arrive whole."""
    sender, number = place
    if sender == SERVER:
        return list(IDS) if number >= 6 else without(recipient)
    return list(IDS) if number == 3 else without(sender)


def sampled_bits(frame: bytes) -> list[int]:
    """Every byte of the header once, with varying bits; the edges and a spread of the body; the checksum."""
    length, body = 8 * len(frame), range(8 * HEADER_BYTES, 8 * (len(frame) - 16))
    header = [8 * at + (at * 3) % 8 for at in range(HEADER_BYTES)]
    step = max(1, len(body) // 10)
    return sorted({*header[::3], *body[:2], *body[-2:], *body[::step], length - 128, length - 64, length - 1})


MASKED_PLACES = [(i, number) for i in IDS for number in range(4)] + [(SERVER, number) for number in range(9)]


@pytest.fixture(scope="module")
def clean() -> dict[Place, tuple[int, bytes]]:
    return frames_of(MASKED)


def test_the_places_below_are_all_the_frames_there_are(clean: dict[Place, tuple[int, bytes]]) -> None:
    assert sorted(clean) == sorted(MASKED_PLACES)
    assert [Kind(clean[1, number][1][2]).name for number in range(4)] == [
        "ADVERTISE_KEYS",
        "SHARE_KEYS",
        "MASKED_INPUT",
        "UNMASK_SHARES",
    ]
    assert_exact(run(MASKED), IDS)
    assert_exact(run(PLAIN), IDS)


# ---- one bit on the way -------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", MASKED_PLACES, ids=str)
def test_a_flipped_bit_costs_one_frame_at_most(place: Place, clean: dict[Place, tuple[int, bytes]]) -> None:
    recipient, frame = clean[place]
    bits = sampled_bits(frame)
    assert len(bits) > 25
    survivors = survivors_without_frame(place, recipient)
    for bit in bits:
        outcome = run(MASKED, Faults(flip={place: bit}))
        assert_exact(outcome, survivors)
        assert [(party, type(error)) for party, error in outcome.failures] == [(recipient, DecodeError)], bit


@pytest.mark.parametrize("client", IDS)
def test_a_flipped_bit_in_a_plain_sum_costs_one_client(client: int) -> None:
    _, frame = frames_of(PLAIN)[client, 0]
    for bit in range(8 * len(frame)):
        outcome = run(PLAIN, Faults(flip={(client, 0): bit}))
        assert_exact(outcome, without(client))
        assert [(party, type(error)) for party, error in outcome.failures] == [(SERVER, DecodeError)]


def test_the_hybrid_suite_is_no_different() -> None:
    protection = MaskedSum(Suite.MLKEM768_X25519)
    for place, (recipient, frame) in frames_of(protection).items():
        outcome = run(protection, Faults(flip={place: (len(frame) * 5 + place[1]) % (8 * len(frame))}))
        assert_exact(outcome, survivors_without_frame(place, recipient))
        assert [type(error) for _, error in outcome.failures] == [DecodeError]


def test_two_flipped_frames() -> None:
    """More than the threshold tolerates where they hit two clients early: then an error, named."""
    places = MASKED_PLACES[::2]
    short = 0
    for at, (one, other) in enumerate(combinations(places, 2)):
        outcome = run(MASKED, Faults(flip={one: 8 * HEADER_BYTES + at, other: 300 + at}))
        assert_exact_or_named(outcome)
        if outcome.error is not None:
            assert type(outcome.error) is TooFewClientsError
            short += 1
    assert short > 0


# ---- one frame lost, or repeated ----------------------------------------------------------------------------


@pytest.mark.parametrize("reorder", [None, 1])
def test_a_lost_frame_costs_one_client_at_most(reorder: int | None, clean: dict[Place, tuple[int, bytes]]) -> None:
    for place, (recipient, _) in clean.items():
        outcome = run(MASKED, Faults(lose=frozenset({place}), reorder=reorder))
        assert_exact(outcome, survivors_without_frame(place, recipient))
        assert outcome.failures == []


def test_two_lost_frames() -> None:
    seen = set()
    for one, other in combinations(MASKED_PLACES, 2):
        outcome = run(MASKED, Faults(lose=frozenset({one, other})))
        assert_exact_or_named(outcome)
        assert outcome.error is None or type(outcome.error) is TooFewClientsError
        assert outcome.failures == []
        seen.add(outcome.error is None)
    assert seen == {True, False}


def test_a_repeated_frame_changes_nothing() -> None:
    for place in MASKED_PLACES:
        outcome = run(MASKED, Faults(repeat=frozenset({place})))
        assert_exact(outcome, IDS)
        answered_once = place[0] == SERVER and place[1] >= 6
        assert [type(error) for _, error in outcome.failures] == [FaultyServerError] * answered_once


# ---- one bit changed by the sender, under a right checksum --------------------------------------------------


@dataclass(frozen=True)
class Tampering:
    """A masked sum in which one party's frame is changed before it is sealed."""

    place: Place
    change: Callable[[bytearray], None]
    name: str = "masked"
    vector_frame: int = 2

    def client(self, context: RoundContext, me: ClientId) -> ClientRole:
        return self.wrapped(MASKED.client(context, me), me)

    def server(self, context: RoundContext) -> ServerRole:
        return self.wrapped(MASKED.server(context), SERVER)

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        return {}

    def wrapped(self, role: Any, party: int) -> Any:
        sent = 0

        def tampered(step: Callable[..., Sequence[Event]]) -> Callable[..., Sequence[Event]]:
            def steps(*arguments: Any) -> Iterator[Event]:
                nonlocal sent
                for event in step(*arguments):
                    if isinstance(event, Send):
                        if (party, sent) == self.place:
                            event = Send(event.to, self.changed(bytes(event.frame)))
                        sent += 1
                    yield event

            return lambda *arguments: list(steps(*arguments))

        for name in {"start", "provide", "receive", "close_round"} & set(dir(role)):
            setattr(role, name, tampered(getattr(role, name)))
        return role

    def changed(self, frame: bytes) -> bytes:
        body = bytearray(frame[HEADER_BYTES:-16])
        self.change(body)
        sender, to = (int.from_bytes(frame[at : at + 4], "big") for at in (4, 8))
        return seal_frame(frame[0], frame[2], frame[24:56], sender, to, bytes(body))


def flip(bit: int) -> Callable[[bytearray], None]:
    def change(body: bytearray) -> None:
        body[bit // 8 % len(body)] ^= 1 << bit % 8

    return change


@pytest.mark.parametrize("place", [place for place in MASKED_PLACES if place[0] == SERVER or place[1] != 2], ids=str)
def test_a_bit_flipped_before_sealing_never_changes_a_sum(place: Place, clean: dict[Place, tuple[int, bytes]]) -> None:
    """Keys, rosters, boxes, requests, shares. (A vector is its client's own to choose.)"""
    size = 8 * (len(clean[place][1]) - HEADER_BYTES - 16)
    effects = set()
    for bit in sorted({*range(0, size, max(1, size // 20)), 1, 31, 33, size - 1, size - 9}):
        outcome = run(Tampering(place, flip(bit)))
        assert_exact_or_named(outcome)
        for _, error in outcome.failures:
            assert isinstance(error, SecureFLError)
        effects.add((type(outcome.error), len(outcome.failures) > 0, outcome.result and outcome.result.suspects))
    assert effects != {(type(None), False, ())}, "no change had any effect: nothing was tampered with"


def test_a_tampered_vector_is_found_unless_it_is_a_vector_its_client_could_have_sent() -> None:
    """All 64 bits of the word: free bits and lanes that leave their range are found, the rest is the client's say."""
    found = 0
    for bit in range(64):
        outcome = run(Tampering((3, 2), flip(bit)))
        if outcome.error is not None:
            assert isinstance(outcome.error, FaultyClientError)
            found += 1
        else:
            assert outcome.result is not None
            assert outcome.result.survivors == IDS
            assert max(outcome.result.values) <= len(IDS)
    assert found >= 64 - 12 * 2


def test_the_tampering_itself_is_harmless_when_it_changes_nothing() -> None:
    for place in ((1, 0), (3, 3), (SERVER, 4)):
        outcome = run(Tampering(place, lambda body: None))
        assert_exact(outcome, IDS)
        assert outcome.failures == []
