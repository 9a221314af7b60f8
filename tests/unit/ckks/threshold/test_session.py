"""Whole sessions, dropouts in every exchange, and what a party refuses."""

import itertools

import numpy as np
import pytest

from securefl.ckks.threshold import ThresholdClient, ThresholdParams, ThresholdServer, ThresholdSum
from securefl.ckks.threshold.messages import Kind, Sum
from securefl.ckks.threshold.params import PROTOCOL
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    LocalProtocolError,
    ProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Event, NeedInput, RoundContext, Segment, Send, Shells, SumResult
from securefl.primitives.identity import Directory, Identity
from securefl.transport.memory import Faults, run_session
from securefl.wire import HEADER_BYTES, seal_frame

IDS = (2, 3, 7)
DIMENSION = 40
CONTEXT = RoundContext(b"s", 3, IDS, DIMENSION, 1000, 2, bytes(32))
INPUTS = {i: np.random.default_rng(i).integers(0, 1001, DIMENSION).astype(np.uint64) for i in IDS}

IDENTITIES = {i: Identity(bytes([i]) * 32) for i in IDS}
DIRECTORY = Directory({i: identity.public for i, identity in IDENTITIES.items()})


def expected(*clients: int) -> np.ndarray:
    return sum((INPUTS[i] for i in clients), np.zeros(DIMENSION, dtype=np.uint64))


class Table:
    """A server and its parties, driven by hand: one exchange at a time."""

    def __init__(self, **options: object) -> None:
        self.params = ThresholdParams.of(CONTEXT)
        self.clients = {
            i: ThresholdClient(self.params, i, IDENTITIES[i], DIRECTORY, **options)  # type: ignore[arg-type]
            for i in IDS
        }
        self.server = ThresholdServer(self.params, DIRECTORY)
        self.server.start()
        self.to_server = [e.frame for i in IDS for e in self.clients[i].start() if isinstance(e, Send)]
        self.to_clients: dict[int, bytes] = {}

    def exchange(self) -> list[Event]:
        """Deliver what lies there, close the exchange, let the parties answer."""
        events = self.close()
        self.answer()
        return events

    def close(self) -> list[Event]:
        for frame in self.to_server:
            self.server.receive(frame)
        self.to_server = []
        events = list(self.server.close_round())
        self.to_clients = {e.to: bytes(e.frame) for e in events if isinstance(e, Send)}
        return events

    def answer(self) -> None:
        for i, frame in self.to_clients.items():
            self.take(i, self.clients[i].receive(frame))

    def take(self, i: int, events: object) -> None:
        for event in events:  # type: ignore[attr-defined]
            if isinstance(event, NeedInput):
                self.take(i, self.clients[i].provide(INPUTS[i]))
            elif isinstance(event, Send):
                self.to_server.append(event.frame)

    def until(self, kind: Kind) -> None:
        """Exchange until the server is about to send ``kind``: it lies in ``to_clients``, undelivered."""
        while True:
            self.close()
            if next(iter(self.to_clients.values()))[2] == kind:
                return
            self.answer()


def test_the_sum_is_exact() -> None:
    outcome = run_session(ThresholdSum(), CONTEXT, lambda i: INPUTS[i])
    result = outcome.unwrap()
    assert np.array_equal(result.values, expected(*IDS))
    assert result.survivors == IDS
    assert not outcome.failures
    assert outcome.vector_bytes[2] == ThresholdParams.of(CONTEXT).input_bytes + 64 + 72


def test_segments_and_frames_in_any_order() -> None:
    segments = (Segment(30, 1000), Segment(10, 3))
    context = RoundContext(b"s", 0, IDS, 40, 1000, 2, bytes(32), b"enc", segments)
    inputs = {i: np.concatenate((INPUTS[i][:30], INPUTS[i][30:] % np.uint64(4))) for i in IDS}
    faults = Faults(reorder=5, repeat=frozenset((i, at) for i in IDS for at in range(5)))
    result = run_session(ThresholdSum(), context, lambda i: inputs[i], faults=faults).unwrap()
    assert np.array_equal(result.values, sum(inputs.values()))


@pytest.mark.parametrize("sent", [0, 1, 2, 3])
def test_who_leaves_before_any_share_is_left_out(sent: int) -> None:
    outcome = run_session(ThresholdSum(), CONTEXT, lambda i: INPUTS[i], faults=Faults(drop_after={3: sent}))
    assert outcome.unwrap().survivors == (2, 7)
    assert np.array_equal(outcome.unwrap().values, expected(2, 7))


def test_who_leaves_with_shares_out_ends_the_session() -> None:
    outcome = run_session(ThresholdSum(), CONTEXT, lambda i: INPUTS[i], faults=Faults(drop_after={3: 4}))
    with pytest.raises(TooFewClientsError, match="shares of clients 3 are missing"):
        outcome.unwrap()


@pytest.mark.parametrize("sent", [0, 1, 2, 3, 4])
def test_too_few_left_is_a_named_error(sent: int) -> None:
    faults = Faults(drop_after={3: sent, 7: sent})
    with pytest.raises(TooFewClientsError):
        run_session(ThresholdSum(), CONTEXT, lambda i: INPUTS[i], faults=faults).unwrap()


def test_one_after_the_other_leaves() -> None:
    context = RoundContext(b"s", 0, (1, 2, 3, 4), DIMENSION, 1000, 2, bytes(32))
    inputs = {i: np.full(DIMENSION, i, dtype=np.uint64) for i in (1, 2, 3, 4)}
    # 4 is gone at its input; 3 sends three frames of the first attempt, and two of the second.
    faults = Faults(drop_after={4: 2, 3: 5})
    outcome = run_session(ThresholdSum(), context, lambda i: inputs[i], faults=faults)
    assert outcome.unwrap().survivors == (1, 2)
    assert set(outcome.unwrap().values.tolist()) == {3}


def test_a_clients_own_floor_holds_against_restarts() -> None:
    outcome = run_session(
        ThresholdSum(minimum_survivors=3), CONTEXT, lambda i: INPUTS[i], faults=Faults(drop_after={3: 2})
    )
    assert {TooFewClientsError} <= {type(error) for _, error in outcome.failures}
    with pytest.raises(TooFewClientsError):
        outcome.unwrap()


def test_a_second_decryption_share_is_never_given() -> None:
    table = Table()
    table.until(Kind.SUM_CONFIRMED)
    client, frame = table.clients[2], table.to_clients[2]
    first = client.receive(frame)
    assert isinstance(first[0], Send)
    assert client.receive(frame) == ()  # a repeated frame: nothing is produced
    other = seal_frame(PROTOCOL, Kind.SUM_CONFIRMED, frame[24:56], 0, 2, frame[HEADER_BYTES:-16][::-1])
    with pytest.raises(FaultyServerError, match="does not belong to state FINISHED"):
        client.receive(other)
    for kind, body in ((Kind.RESTART, b"\0\0\0\2\0\0\0\2\0\0\0\7"), (Kind.SUM, bytes(32 * 8192))):
        with pytest.raises(FaultyServerError):
            client.receive(seal_frame(PROTOCOL, kind, frame[24:56], 0, 2, body))


def test_the_key_itself_opens_once() -> None:
    table = Table()
    table.until(Kind.SUM_CONFIRMED)
    client = table.clients[2]
    key, announced = client._held(), client._sum
    key.open_once(announced.sums, table.params)
    with pytest.raises(LocalProtocolError, match="second decryption share"):
        key.open_once(announced.sums, table.params)
    assert "redacted" in repr(key) or repr(key) == "<PartyKey>"


def test_more_ciphertexts_than_the_sum_has_are_not_opened() -> None:
    table = Table()
    table.until(Kind.SUM_CONFIRMED)
    key, sums = table.clients[2]._held(), table.clients[2]._sum.sums
    with pytest.raises(LocalProtocolError, match="opens at most 1 ciphertexts"):
        key.open_once(itertools.repeat(sums[0], 2), table.params)


def _tampered(frame: bytes, at: int = -1) -> bytes:
    body = bytearray(frame[HEADER_BYTES:-16])
    body[at] ^= 1
    sender, recipient = int.from_bytes(frame[4:8], "big"), int.from_bytes(frame[8:12], "big")
    return seal_frame(frame[0], frame[2], frame[24:56], sender, recipient, bytes(body))


def signed(like: bytes, sender: int, body: bytes) -> bytes:
    """A frame of a client that signs what is not right."""
    signature = IDENTITIES[sender].sign(like[24:56], like[2], sender, 0, body)
    return seal_frame(PROTOCOL, like[2], like[24:56], sender, 0, body, signature)


@pytest.mark.parametrize("kind", [Kind.KEY_SHARE, Kind.INPUT, Kind.SHARE])
@pytest.mark.parametrize("at", [0, -64 - 1, -1])
def test_what_the_sender_did_not_sign_is_not_taken(kind: Kind, at: int) -> None:
    table = Table()
    if kind is not Kind.KEY_SHARE:
        table.until(Kind(kind - 1))
        table.answer()
    before = vars(table.server).copy()
    with pytest.raises(AuthenticationError, match="nothing was decoded"):
        table.server.receive(_tampered(table.to_server[0], at))
    assert vars(table.server) == before or all(
        np.array_equal(before[name], value) for name, value in vars(table.server).items()
    )
    other = bytearray(table.to_server[0][:-16])
    other[7] = 3  # the frame of client 2 in the name of client 3
    forged = seal_frame(PROTOCOL, kind, bytes(other[24:56]), 3, 0, bytes(other[HEADER_BYTES:]))
    with pytest.raises(AuthenticationError):
        table.server.receive(forged)


@pytest.mark.parametrize("kind", [Kind.JOINT_KEY, Kind.SUM])
def test_a_false_announcement_to_all_is_found_by_its_fingerprint(kind: Kind) -> None:
    table = Table()
    table.until(kind)
    confirms = []
    for i, frame in table.to_clients.items():
        confirms += table.clients[i].receive(_tampered(frame))
    # The server relays honestly signed confirmations of its false announcement.
    body = b"".join(event.frame[HEADER_BYTES:-16] for event in confirms)
    frame = seal_frame(PROTOCOL, kind + 2, table.to_clients[2][24:56], 0, 2, body)
    with pytest.raises(FaultyServerError, match="not the sum of what the parties sent"):
        table.clients[2].receive(frame)
    assert table.clients[2].state.name == "ABORTED"
    with pytest.raises(FaultyServerError, match="state ABORTED"):
        table.clients[2].receive(seal_frame(PROTOCOL, kind + 2, frame[24:56], 0, 2, body[::-1]))


@pytest.mark.parametrize("kind", [Kind.JOINT_KEY, Kind.SUM])
def test_different_announcements_are_found_by_the_signatures(kind: Kind) -> None:
    table = Table()
    table.until(kind)
    frames = dict(table.to_clients)
    frames[7] = _tampered(frames[7])
    confirms = [event for i in IDS for event in table.clients[i].receive(frames[i])]
    body = b"".join(event.frame[HEADER_BYTES:-16] for event in confirms)
    for i in IDS:
        with pytest.raises(AuthenticationError, match="did not sign for this announcement"):
            table.clients[i].receive(seal_frame(PROTOCOL, kind + 2, frames[i][24:56], 0, i, body))


@pytest.mark.parametrize("kind", [Kind.CONFIRM_KEY, Kind.CONFIRM_SUM])
@pytest.mark.parametrize("at", [0, 79])
def test_a_false_confirmation_drops_its_sender(kind: Kind, at: int) -> None:
    table = Table()
    table.until(Kind(kind - 1))
    table.answer()
    table.to_server[1] = _tampered(table.to_server[1], at)
    with pytest.raises(AuthenticationError, match="client 3"):
        table.close()
    del table.to_server[:2]
    table.close()
    assert set(table.to_clients) == {2, 7}
    assert next(iter(table.to_clients.values()))[2] == Kind.RESTART


def test_a_false_share_is_an_error_and_never_a_number() -> None:
    table = Table()
    table.until(Kind.SUM_CONFIRMED)
    table.answer()
    share = bytes(table.to_server[0])
    table.to_server[0] = signed(share, 2, bytes(len(share) - HEADER_BYTES - 16 - 64))
    events = table.close()
    assert isinstance(events[-1].reason, FaultyClientError)  # type: ignore[union-attr]


def test_a_false_ciphertext_is_an_error_and_never_a_number() -> None:
    table = Table()
    table.until(Kind.KEY_CONFIRMED)
    table.answer()
    given = bytes(table.to_server[0])
    body = given[HEADER_BYTES : -16 - 64]
    half = len(body) - 26 * 8192  # c0, then c1
    table.to_server[0] = signed(given, 2, bytes(half) + body[half:])
    reason: object = None
    while table.to_server:
        events = table.exchange()
        reason = getattr(events[-1], "reason", None)
    assert isinstance(reason, FaultyClientError)


@pytest.mark.parametrize(
    ("identity", "directory", "sentence"),
    [
        (IDENTITIES[3], DIRECTORY, "another public key of client 2"),
        (IDENTITIES[2], Directory({2: IDENTITIES[2].public}), r"without: \[3, 7\]"),
        (IDENTITIES[2], Directory(dict.fromkeys(IDS, IDENTITIES[2].public)), "one public key per invited client"),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(identity: Identity, directory: Directory, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        ThresholdClient(ThresholdParams.of(CONTEXT), 2, identity, directory)


def test_a_floor_below_the_threshold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="minimum_survivors"):
        Table(minimum_survivors=1)


def test_tiers_are_refused() -> None:
    context = RoundContext(b"s", 3, IDS, DIMENSION, 1000, 2, bytes(32), shells=Shells((40,), (1, 1, 1), 2))
    with pytest.raises(ConfigurationError, match="no shells"):
        ThresholdSum().server(context)


@pytest.mark.parametrize("parties", [(3, 7), (2, 3, 7)], ids=["without me", "with one that left"])
def test_a_joint_key_of_the_wrong_parties_is_refused(parties: tuple[int, ...]) -> None:
    table = Table()
    if len(parties) == 3:  # an attempt of 2 and 7: client 3 is gone
        table.until(Kind.SUM)
        table.answer()
        table.to_server.pop(1)
        table.exchange()
    table.until(Kind.JOINT_KEY)
    frame = table.to_clients[2]
    body = b"".join(i.to_bytes(4, "big") for i in (len(parties), *parties)) + bytes(32 * 8192)
    with pytest.raises(FaultyServerError, match="leaves this client out, or names one"):
        table.clients[2].receive(seal_frame(PROTOCOL, Kind.JOINT_KEY, frame[24:56], 0, 2, body))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\0\0\0\3\0\0\0\2\0\0\0\3\0\0\0\7", "must drop parties"),
        (b"\0\0\0\2\0\0\0\3\0\0\0\7", "and not this one"),
        (b"\0\0\0\1\0\0\0\2", "1 clients are left"),
    ],
)
def test_a_restart_that_drops_nobody_or_too_many_is_refused(body: bytes, error: str) -> None:
    table = Table()
    table.until(Kind.SUM)
    frame = seal_frame(PROTOCOL, Kind.RESTART, table.to_clients[2][24:56], 0, 2, body)
    with pytest.raises(ProtocolError, match=error):
        table.clients[2].receive(frame)


def test_frames_of_an_earlier_attempt_are_refused() -> None:
    table = Table()
    table.until(Kind.KEY_CONFIRMED)
    table.answer()
    late = table.to_server.pop(1)
    table.exchange()  # restart, fresh keys
    with pytest.raises(DecodeError, match="another session"):
        table.server.receive(late)
    result: object = None
    while table.to_server:
        result = getattr(table.exchange()[-1], "result", None)
    assert isinstance(result, SumResult)
    assert np.array_equal(result.values, expected(2, 7))


def test_each_step_happens_once() -> None:
    table = Table()
    with pytest.raises(LocalProtocolError):
        table.clients[2].start()
    with pytest.raises(LocalProtocolError):
        table.server.start()
    table.clients[2].provide(INPUTS[2])
    with pytest.raises(LocalProtocolError):
        table.clients[2].provide(INPUTS[2])


def test_a_bad_input_leaves_the_session_open() -> None:
    table = Table()
    with pytest.raises(SecureFLError):
        table.clients[2].provide(np.full(DIMENSION, 1001, dtype=np.uint64))
    table.clients[2].provide(INPUTS[2])
    result: object = None
    while table.to_server:
        result = getattr(table.exchange()[-1], "result", None)
    assert isinstance(result, SumResult)
    assert np.array_equal(result.values, expected(*IDS))


def test_the_servers_view_holds_no_secret_of_a_party() -> None:
    table = Table()
    secrets = [client._seed for client in table.clients.values()]
    table.until(Kind.SUM_CONFIRMED)
    seen = b"".join(bytes(frame) for frame in table.to_clients.values()) + repr(vars(table.server)).encode()
    assert not any(secret in seen for secret in secrets)
    for client in table.clients.values():
        assert repr(client) == f"<ThresholdClient {client.state.name}>"


def test_the_sum_message_has_one_length() -> None:
    params = ThresholdParams.of(CONTEXT)
    with pytest.raises(DecodeError, match="a sum has 262144 bytes"):
        Sum.decode(bytes(262143), params)
