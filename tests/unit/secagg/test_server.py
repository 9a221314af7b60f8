"""What the server adds, whom it drops, what it refuses, whom it names, and how little it holds."""

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from securefl.errors import (
    DecodeError,
    FaultyClientError,
    LocalProtocolError,
    ProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, Event, Send
from securefl.primitives import shamir
from securefl.primitives.kem import Suite, key_pair
from securefl.secagg import Client, Params, Server
from securefl.secagg.messages import (
    Abort,
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    MaskedInput,
    Roster,
    Sealed,
    UnmaskRequest,
    UnmaskShares,
    client_limits,
    server_limits,
)
from securefl.secagg.params import PROTOCOL
from securefl.types import SERVER
from securefl.wire import OVERHEAD_BYTES, open_frame, seal_frame

IDS = (1, 4, 6, 8, 9)
PARAMS = Params(IDS, 5, 1000, threshold=3, suite=Suite.X25519)


def values_of(client: int, params: Params = PARAMS) -> np.ndarray:
    return (np.arange(params.dimension, dtype=np.uint64) * np.uint64(31 * client)) % np.uint64(params.max_value + 1)


def expected(survivors: Sequence[int], params: Params = PARAMS) -> list[int]:
    return [int(sum(int(values_of(i, params)[at]) for i in survivors)) for at in range(params.dimension)]


def frame(kind: Kind, sender: int, body: bytes, *, to: int = SERVER, params: Params = PARAMS) -> bytes:
    """A frame as a client would make it, whatever is in it."""
    return seal_frame(PROTOCOL, kind, params.context_hash, sender, to, body)


class Session:
    """A server and its clients. Each ``play`` is one exchange: who answers what the server sent last."""

    def __init__(self, params: Params = PARAMS, liars: Mapping[int, type[Client]] | None = None) -> None:
        self.params = params
        kinds = dict.fromkeys(params.clients, Client) | dict(liars or {})
        self.clients = {i: kinds[i](params, i) for i in params.clients}
        self.server = Server(params)
        self.server.start()
        self.waiting: dict[int, list[bytes]] = {}
        for i, client in self.clients.items():
            self.waiting[i] = [event.frame for event in client.start() if isinstance(event, Send)]
            client.provide(values_of(i, params))

    def answers(self, client: int) -> list[bytes]:
        return self.waiting.get(client, [])

    def play(self, silent: Sequence[int] = ()) -> list[Event]:
        """Deliver the answers of all but the silent, close the exchange, and let the clients answer that."""
        for client, frames in self.waiting.items():
            for data in frames if client not in silent else ():
                self.server.receive(data)
        return self.close()

    def close(self) -> list[Event]:
        events = list(self.server.close_round())
        self.waiting = {}
        for event in events:
            if isinstance(event, Send):
                try:
                    sent = self.clients[event.to].receive(event.frame)
                except SecureFLError:
                    sent = ()  # that client is out
                self.waiting[event.to] = [answer.frame for answer in sent if isinstance(answer, Send)]
        return events

    def to(self, state: str) -> "Session":
        while self.server.state.name != state:
            self.play()
        return self

    def end(self) -> Completed | Aborted:
        while True:
            events = self.play()
            if isinstance(events[-1], Completed | Aborted):
                return events[-1]

    def sent_body(self, data: bytes) -> memoryview:
        limits = server_limits(self.params)
        return open_frame(
            data, protocol=PROTOCOL, context=self.params.context_hash, recipient=SERVER, limits=limits
        ).body


def assert_sum(event: Completed | Aborted, survivors: Sequence[int], params: Params = PARAMS) -> None:
    assert isinstance(event, Completed), event
    assert event.result is not None
    assert event.result.survivors == tuple(survivors)
    assert event.result.values.tolist() == expected(survivors, params)
    assert event.result.values.dtype == np.uint64


# ---- sums and dropouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("dimension", [1, 5, 1000])
def test_nobody_drops(suite: Suite, dimension: int) -> None:
    params = replace(PARAMS, suite=suite, dimension=dimension)
    event = Session(params).end()
    assert_sum(event, IDS, params)
    assert event.result.suspects == ()


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("gone", [(1,), (9,), (6,), (1, 9), (4, 6)], ids=str)
@pytest.mark.parametrize("step", ["ADVERTISE", "SHARE", "MASK", "UNMASK"])
def test_dropouts_at_every_step(step: str, gone: tuple[int, ...], suite: Suite) -> None:
    """A client is in the sum when its vector arrived, also if it vanishes after that."""
    params = replace(PARAMS, suite=suite)
    session = Session(params).to(step)
    events = session.play(silent=gone)
    event = events[-1] if step == "UNMASK" else session.end()
    assert_sum(event, IDS if step == "UNMASK" else [i for i in IDS if i not in gone], params)


def test_dropouts_at_several_steps_at_once() -> None:
    params = replace(PARAMS, clients=tuple(range(1, 11)), threshold=6)
    session = Session(params)
    for silent in ((10,), (9,), (1,)):
        session.play(silent=silent)
    assert_sum(session.play(silent=(2,))[-1], [2, 3, 4, 5, 6, 7, 8], params)


def test_answers_may_come_in_any_order() -> None:
    session = Session()
    while session.server.state.name != "FINISHED":
        session.waiting = dict(reversed(session.waiting.items()))
        events = session.play()
    assert_sum(events[-1], IDS)


def test_the_largest_values_of_all_clients_add_up() -> None:
    params = replace(PARAMS, max_value=2**61)
    session = Session(params)
    session.clients = {}
    server = Server(params)
    clients = {i: Client(params, i) for i in IDS}
    server.start()
    waiting = [client.start()[0].frame for client in clients.values()]
    for client in clients.values():
        client.provide(np.full(5, 2**61, dtype=np.uint64))
    while True:
        for data in waiting:
            server.receive(data)
        events = server.close_round()
        if isinstance(events[-1], Completed):
            assert events[-1].result.values.tolist() == [5 * 2**61] * 5
            return
        answers = [clients[event.to].receive(event.frame)[0] for event in events]
        waiting = [answer.frame for answer in answers]


def test_an_exchange_waits_for_whom_it_asked() -> None:
    session = Session()
    assert tuple(Server(PARAMS).waiting_for) == ()
    seen = [session.server.waiting_for]
    session.play(silent=(1,))
    seen.append(session.server.waiting_for)
    session.server.receive(session.answers(4)[0])
    seen.append(session.server.waiting_for)
    session.play(silent=(6,))
    seen.append(session.server.waiting_for)
    session.play(silent=())
    seen.append(session.server.waiting_for)
    session.play()
    seen.append(session.server.waiting_for)
    assert seen == [IDS, (4, 6, 8, 9), (6, 8, 9), (4, 8, 9), (4, 8, 9), ()]


# ---- what is sent -------------------------------------------------------------------------------------------


def test_messages_and_their_recipients() -> None:
    session = Session()
    kinds = []
    for silent in ((1,), (4,), ()):
        events = session.play(silent=silent)
        kinds.append([(event.to, Kind(event.frame[2]).name) for event in events])
    assert kinds == [
        [(i, "ROSTER") for i in (4, 6, 8, 9)],
        [(i, "DELIVER_SHARES") for i in (6, 8, 9)],
        [(i, "UNMASK_REQUEST") for i in (6, 8, 9)],
    ]


def opened(event: Event, params: Params = PARAMS) -> memoryview:
    assert isinstance(event, Send)
    limits = client_limits(params)
    return open_frame(
        event.frame, protocol=PROTOCOL, context=params.context_hash, recipient=event.to, limits=limits
    ).body


def test_everybody_gets_the_same_roster_and_the_same_request() -> None:
    session = Session()
    keys = {
        i: AdvertiseKeys.decode(session.sent_body(frames[0]), PARAMS) for i, frames in session.waiting.items() if i != 9
    }
    rosters = session.play(silent=(9,))
    assert len({bytes(opened(event)) for event in rosters}) == 1
    assert Roster.decode(opened(rosters[0]), PARAMS).keys == keys
    session.play()
    requests = session.play(silent=(6,))
    assert {UnmaskRequest.decode(opened(event), PARAMS) for event in requests} == {UnmaskRequest((1, 4, 8), (6,))}


def test_boxes_are_routed_to_their_recipients() -> None:
    session = Session().to("SHARE")
    sent = {
        i: EncryptedShares.decode(session.sent_body(session.answers(i)[0]), PARAMS, owner=i, owner_sends=True).boxes
        for i in IDS
    }
    deliveries = session.play(silent=(6,))
    for event in deliveries:
        boxes = EncryptedShares.decode(opened(event), PARAMS, owner=event.to, owner_sends=False).boxes
        assert boxes == {i: sent[i][event.to] for i in IDS if i not in (6, event.to)}


@pytest.mark.parametrize("suite", Suite)
def test_frames_have_the_lengths_of_the_specification(suite: Suite) -> None:
    """§6 of the SPEC, for n = 5 of which one drops after sharing; a frame adds 72 bytes."""
    params = replace(PARAMS, suite=suite)
    key, seal = {Suite.X25519: (32, 32), Suite.MLKEM768_X25519: (1216, 1120)}[suite]
    shares, pair = seal + 66 + 16, seal + 32 + 16
    assert OVERHEAD_BYTES == 72
    session = Session(params)

    def uploads() -> list[int]:
        return [len(session.answers(i)[0]) - 72 for i in IDS]

    def downloads(events: Sequence[Event]) -> list[int]:
        return [len(event.frame) - 72 for event in events if isinstance(event, Send)]

    assert uploads() == [2 * key + 32] * 5
    assert downloads(session.play()) == [4 + 5 * (2 * key + 36)] * 5
    assert uploads() == [4 + 4 * (4 + shares) + higher * pair for higher in (4, 3, 2, 1, 0)]
    assert downloads(session.play()) == [4 + 4 * (4 + shares) + lower * pair for lower in (0, 1, 2, 3, 4)]
    assert uploads() == [8 * params.lanes.words] * 5
    assert downloads(session.play(silent=(6,))) == [8 + 4 * 5] * 4
    assert [len(session.answers(i)[0]) - 72 for i in IDS if i != 6] == [4 + 34 * 5] * 4


# ---- too few ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["ADVERTISE", "SHARE", "MASK", "UNMASK"])
def test_fewer_than_the_threshold_end_the_session_with_a_notice(step: str) -> None:
    session = Session().to(step)
    asked = session.server.waiting_for
    events = session.play(silent=(1, 4, 9))
    assert [(event.to, event.frame[2]) for event in events[:-1]] == [(i, Kind.ABORT) for i in asked]
    assert all(Abort.decode(opened(event)) == Abort(Abort.TOO_FEW_CLIENTS) for event in events[:-1])
    (end,) = events[-1:]
    assert isinstance(end, Aborted)
    assert isinstance(end.reason, TooFewClientsError)
    assert str(end.reason) == f"2 clients are left in {step}; the threshold is 3"
    assert end.blamed == ()
    assert session.server.state.name == "ABORTED"
    for client in asked:
        assert session.clients[client].state.name == "ABORTED"
    assert_forgotten(session.server)


@pytest.mark.parametrize("step", ["ADVERTISE", "SHARE", "MASK", "UNMASK"])
def test_exactly_the_threshold_goes_on(step: str) -> None:
    session = Session().to(step)
    events = session.play(silent=(1, 4))
    assert_sum(events[-1] if step == "UNMASK" else session.end(), IDS if step == "UNMASK" else (6, 8, 9))


def test_nobody_at_all() -> None:
    server = Server(PARAMS)
    server.start()
    assert isinstance(server.close_round()[-1], Aborted)


# ---- frames that do not belong ------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["ADVERTISE", "SHARE", "MASK", "UNMASK"])
def test_bytes_that_are_no_message_change_nothing(step: str) -> None:
    session = Session().to(step)
    good = session.answers(4)[0]
    body = bytes(session.sent_body(good))
    kind = Kind(good[2])
    waiting = session.server.waiting_for
    for data in (
        b"",
        good[:-1],
        good + b"\0",
        good[:60] + bytes([good[60] ^ 1]) + good[61:],
        frame(kind, 4, body, params=replace(PARAMS, round=9)),
        frame(kind, 4, body, to=6),
        frame(kind, 4, body[:-1]),
        frame(kind, 4, b""),
        frame(Kind.ROSTER, 4, body),
        frame(Kind.ABORT, 4, b"\1"),
        frame(9, 4, body),  # type: ignore[arg-type]
        seal_frame(PROTOCOL + 1, kind, PARAMS.context_hash, 4, SERVER, body),
    ):
        with pytest.raises(DecodeError):
            session.server.receive(data)
        assert session.server.waiting_for == waiting
    assert_sum(session.end(), IDS)


def test_strangers_are_named() -> None:
    session = Session()
    body = bytes(session.sent_body(session.answers(4)[0]))
    for stranger in (SERVER, 2, 2**32 - 1):
        with pytest.raises(FaultyClientError, match=f"party {stranger} was not invited") as caught:
            session.server.receive(frame(Kind.ADVERTISE_KEYS, stranger, body))
        assert caught.value.clients == (stranger,)
    assert_sum(session.end(), IDS)


def test_a_client_with_another_model_never_enters() -> None:
    """The model's hash is in the context of every frame and key: its masks would not cancel."""
    session = Session()
    other = Client(replace(PARAMS, model_hash=b"\1" * 32), 4)
    with pytest.raises(DecodeError, match="another session, round, parameter set or model"):
        session.server.receive(other.start()[0].frame)
    session.waiting.pop(4)
    assert_sum(session.end(), [1, 6, 8, 9])


@pytest.mark.parametrize("step", ["SHARE", "MASK", "UNMASK"])
def test_who_comes_late_is_refused_and_not_blamed(step: str) -> None:
    """A message of a closed exchange counts no more, be it the first of its kind or another one than was taken."""
    session = Session()
    late = session.answers(1)[0]
    while session.server.state.name != step:
        answered = session.answers(4)[0]
        session.play(silent=(1,))
    body = bytearray(session.sent_body(answered))
    body[-1] ^= 1
    for data in (late, frame(Kind(answered[2]), 4, bytes(body))):
        with pytest.raises(ProtocolError, match="came outside its exchange") as caught:
            session.server.receive(data)
        assert not isinstance(caught.value, FaultyClientError)
    assert session.server.receive(answered) == ()  # a repeat, however late, is none of it
    assert_sum(session.end(), [4, 6, 8, 9])


@pytest.mark.parametrize("step", ["SHARE", "MASK", "UNMASK"])
def test_who_was_dropped_does_not_come_back(step: str) -> None:
    """Its vector may arrive in time for the next exchange; its keys and shares are not there."""
    session = Session()
    while session.server.state.name != step:
        session.play(silent=(1,))
    mine = bytes(session.sent_body(session.answers(4)[0]))
    with pytest.raises(ProtocolError, match="client 1 came outside its exchange"):
        session.server.receive(frame(Kind(session.answers(4)[0][2]), 1, mine))
    assert_sum(session.end(), [4, 6, 8, 9])


def test_early_messages_are_refused_for_being_early() -> None:
    session = Session()
    for kind, body in (
        (Kind.SHARE_KEYS, EncryptedShares({}).encode()),
        (Kind.MASKED_INPUT, bytes(8 * PARAMS.lanes.words)),
        (Kind.UNMASK_SHARES, UnmaskShares(()).encode()),
    ):
        with pytest.raises(ProtocolError, match=f"{kind.name} from client 4 came outside its exchange"):
            session.server.receive(frame(kind, 4, body))
    assert_sum(session.end(), IDS)


@pytest.mark.parametrize("step", ["ADVERTISE", "SHARE", "MASK", "UNMASK"])
def test_repeats_are_ignored_and_second_thoughts_refused(step: str) -> None:
    session = Session().to(step)
    good = session.answers(4)[0]
    assert session.server.receive(good) == ()
    assert session.server.receive(good) == ()
    body = bytearray(session.sent_body(good))
    body[-1] ^= 1
    with pytest.raises(FaultyClientError, match="client 4 sent two different") as caught:
        session.server.receive(frame(Kind(good[2]), 4, bytes(body)))
    assert caught.value.clients == (4,)
    assert_sum(session.play()[-1] if step == "UNMASK" else session.end(), IDS)


def advertisement(channel: bytes, mask: bytes, suite: Suite = Suite.X25519) -> bytes:
    return frame(
        Kind.ADVERTISE_KEYS,
        4,
        AdvertiseKeys(channel, mask, bytes(32)).encode(),
        params=replace(PARAMS, suite=suite),
    )


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("which", ["channel", "mask"])
def test_a_key_that_nobody_can_seal_to_keeps_its_client_out(which: str, suite: Suite) -> None:
    """On the roster it would stop everyone: a low-order point, or ML-KEM coefficients of q and more."""
    params = replace(PARAMS, suite=suite)
    good = [key_pair(suite, bytes([fill]) * 32)[1].raw for fill in (1, 2)]
    bad = good[0][:-32] + bytes(32)
    worse = b"\xff" * (suite.public_bytes - 32) + good[0][-32:]
    for key in (bad, worse) if suite is Suite.MLKEM768_X25519 else (bad,):
        session = Session(params)
        with pytest.raises(FaultyClientError, match="client 4 advertised an unusable key") as caught:
            session.server.receive(advertisement(*((key, good[1]) if which == "channel" else (good[1], key)), suite))
        assert caught.value.clients == (4,)
        assert 4 in session.server.waiting_for
        session.waiting.pop(4)
        assert_sum(session.end(), [1, 6, 8, 9], params)


def test_a_key_that_is_on_the_roster_already_keeps_its_client_out() -> None:
    session = Session()
    session.server.receive(session.answers(1)[0])
    taken = AdvertiseKeys.decode(session.sent_body(session.answers(1)[0]), PARAMS)
    fresh = key_pair(Suite.X25519, b"\1" * 32)[1].raw
    for channel, mask in (
        (taken.channel_key, fresh),
        (fresh, taken.channel_key),
        (fresh, taken.mask_key),
        (taken.mask_key, fresh),
        (fresh, fresh),
    ):
        with pytest.raises(FaultyClientError, match="client 4 advertised a key that stands on the roster") as caught:
            session.server.receive(advertisement(channel, mask))
        assert caught.value.clients == (4,)
    assert_sum(session.end(), IDS)  # its own keys are still welcome


def test_another_spelling_of_a_key_is_no_key() -> None:
    """X25519 ignores the highest bit: a key of the roster with that bit set is the same key."""
    session = Session()
    session.server.receive(session.answers(1)[0])
    taken = AdvertiseKeys.decode(session.sent_body(session.answers(1)[0]), PARAMS)
    fresh = key_pair(Suite.X25519, b"\1" * 32)[1].raw
    respelled = taken.channel_key[:-1] + bytes([taken.channel_key[-1] | 0x80])
    for channel, mask in ((respelled, fresh), (fresh, respelled)):
        with pytest.raises(DecodeError, match="canonical form"):
            session.server.receive(advertisement(channel, mask))


@pytest.mark.parametrize("recipients", [(1, 6, 8), (1, 6, 8, 9), (), (6, 8), (1, 8)], ids=str)
def test_shares_for_other_clients_than_the_rosters_are_refused(recipients: tuple[int, ...]) -> None:
    session = Session()
    session.play(silent=(9,))
    boxes = {i: Sealed(bytes(114), bytes(80) if i > 4 else None) for i in recipients}
    data = frame(Kind.SHARE_KEYS, 4, EncryptedShares(boxes).encode())
    if recipients == (1, 6, 8):
        session.server.receive(data)
        return
    with pytest.raises(FaultyClientError, match="client 4 did not share with exactly") as caught:
        session.server.receive(data)
    assert caught.value.clients == (4,)
    assert 4 in session.server.waiting_for


@pytest.mark.parametrize("count", [0, 3, 5])
def test_another_number_of_shares_is_refused(count: int) -> None:
    session = Session().to("MASK")
    session = Session()
    session.play(silent=(9,))
    session.play()
    session.play(silent=(8,))
    with pytest.raises(FaultyClientError, match=f"client 4 sent {count} of 4 shares") as caught:
        session.server.receive(frame(Kind.UNMASK_SHARES, 4, UnmaskShares((bytes(33),) * count).encode()))
    assert caught.value.clients == (4,)
    assert_sum(session.play()[-1], [1, 4, 6])


# ---- liars --------------------------------------------------------------------------------------------------


class WrongResponder(Client):
    """Returns shares that it was not dealt."""

    def _shares_for(self, client: int, shells: Sequence[int]) -> list[bytes | None]:
        shares = super()._shares_for(client, shells)
        return [
            ((int.from_bytes(share, "big") + 1) % shamir.PRIME).to_bytes(33, "big")
            for share in shares
            if share is not None
        ]


class SilentResponder(Client):
    """Says that no box opened."""

    def _shares_for(self, client: int, shells: Sequence[int]) -> list[bytes | None]:
        return [None for _ in shells]


class OutsideTheField(Client):
    def _shares_for(self, client: int, shells: Sequence[int]) -> list[bytes | None]:
        return [b"\xff" * 33 for _ in shells]


class WrongDealer(Client):
    """Deals shares of seeds it did not commit to."""

    def _split(self, secret: bytes) -> list[bytes]:
        return super()._split(bytes(32))


class UnfairDealer(Client):
    """Deals one wrong share, to the client with the lowest point."""

    def _split(self, secret: bytes) -> list[bytes]:
        shares = super()._split(secret)
        return [bytes(33), *shares[1:]]


class WrongPairSecret(Client):
    """Masks with other keys than those it sealed to its peers."""

    def _seal_for(self, other: int, keys: AdvertiseKeys, shares: bytes) -> Sealed:
        sealed = super()._seal_for(other, keys, shares)
        if other in self._pair_secrets:
            self._pair_secrets[other] = bytes(16)
        return sealed


class DamagedBoxes(Client):
    """Seals what nobody can open."""

    def _seal_for(self, other: int, keys: AdvertiseKeys, shares: bytes) -> Sealed:
        sealed = super()._seal_for(other, keys, shares)
        return Sealed(bytes(len(sealed.shares)), sealed.pair and bytes(len(sealed.pair)))


@pytest.mark.parametrize("dropped", [(), (6,)], ids=["self masks", "mask keys"])
@pytest.mark.parametrize("liar", [WrongResponder, OutsideTheField])
def test_a_wrong_share_is_found_and_named(liar: type[Client], dropped: tuple[int, ...]) -> None:
    session = Session(liars={1: liar}).to("MASK")
    session.play(silent=dropped)
    event = session.play()[-1]
    assert_sum(event, [i for i in IDS if i not in dropped])
    assert event.result.suspects == (1,)


def test_two_liars_of_five_are_found_and_named() -> None:
    event = Session(liars={1: WrongResponder, 8: WrongResponder}).end()
    assert_sum(event, IDS)
    assert event.result.suspects == (1, 8)


def test_a_liar_beyond_the_shares_needed_changes_nothing() -> None:
    event = Session(liars={9: WrongResponder}).end()
    assert_sum(event, IDS)
    assert set(event.result.suspects) <= {9}


def test_more_liars_than_spare_shares_end_the_session_with_an_error() -> None:
    event = Session(liars=dict.fromkeys((1, 8, 9), WrongResponder)).end()
    assert isinstance(event, Aborted)
    assert isinstance(event.reason, FaultyClientError)
    assert event.blamed == event.reason.clients != ()


def test_absent_shares_are_done_without() -> None:
    event = Session(liars={1: SilentResponder, 9: SilentResponder}).end()
    assert_sum(event, IDS)
    assert event.result.suspects == ()


@pytest.mark.parametrize("dropped", [(), (6,)], ids=["survives", "drops"])
def test_a_dealer_of_wrong_shares_is_named(dropped: tuple[int, ...]) -> None:
    session = Session(liars={6: WrongDealer}).to("MASK")
    session.play(silent=dropped)
    events = session.play()
    end = events[-1]
    assert isinstance(end, Aborted)
    assert isinstance(end.reason, FaultyClientError)
    assert end.blamed == end.reason.clients
    assert 6 in end.blamed
    notices = [Abort.decode(opened(event)).reason for event in events[:-1]]
    assert notices == [Abort.FAULTY_CLIENTS] * (5 - len(dropped))
    assert_forgotten(session.server)


def test_one_unfairly_dealt_share_does_not_cost_the_sum() -> None:
    """Whether dealer or holder lied cannot be told: the holder is a suspect, which is no proof."""
    event = Session(liars={6: UnfairDealer}).end()
    assert_sum(event, IDS)
    assert event.result.suspects == (1,)


@pytest.mark.parametrize("dropped", [(), (8,)], ids=["nobody drops", "a peer drops"])
def test_masks_made_of_other_secrets_than_those_sealed_are_found(dropped: tuple[int, ...]) -> None:
    session = Session(liars={4: WrongPairSecret}).to("MASK")
    session.play(silent=dropped)
    end = session.play()[-1]
    assert isinstance(end, Aborted)
    assert isinstance(end.reason, FaultyClientError)
    assert "masks did not cancel" in str(end.reason)


def test_boxes_that_do_not_open_drop_the_recipients_or_name_the_sender() -> None:
    """Peers above 4 cannot mask without its secret and leave; too few are left, or their masks cannot be removed."""
    session = Session(liars={4: DamagedBoxes})
    end = session.end()
    assert isinstance(end, Aborted)
    assert isinstance(end.reason, FaultyClientError | TooFewClientsError)
    session = Session(liars={8: DamagedBoxes})
    end = session.end()
    assert isinstance(end, Aborted)
    assert end.blamed[:1] == (8,)


def test_a_vector_that_is_not_masked_does_not_pass_as_a_sum() -> None:
    session = Session().to("MASK")
    words = np.full(PARAMS.lanes.words, 2**64 - 1, dtype=np.uint64)
    session.waiting[4] = [frame(Kind.MASKED_INPUT, 4, bytes(MaskedInput(words).encode()))]
    end = session.end()
    assert isinstance(end, Aborted)
    assert isinstance(end.reason, FaultyClientError)


def test_a_sum_beyond_what_the_survivors_can_give_is_refused() -> None:
    """A lane has room for the whole cohort; with fewer survivors the top of it is out of reach."""
    session = Session().to("MASK")
    for client, frames in session.waiting.items():
        words = MaskedInput.decode(session.sent_body(frames[0]), PARAMS).words.copy()
        if client == 4:
            words[0] += np.uint64(3001 - 0)  # its own value there is 0
        session.waiting[client] = [frame(Kind.MASKED_INPUT, client, bytes(MaskedInput(words).encode()))]
    session.play(silent=(8, 9))  # survivors 1, 4, 6: at most 3000
    end = session.play()[-1]
    assert isinstance(end, Aborted)
    assert "exceeds what the survivors can have given" in str(end.reason)


# ---- once only ----------------------------------------------------------------------------------------------


def assert_forgotten(server: Server) -> None:
    assert server._total is None
    assert (server._keys, server._boxes, server._shares) == ({}, {}, {})
    assert tuple(server.waiting_for) == ()


def test_a_server_serves_one_session() -> None:
    session = Session()
    last: list[bytes] = []
    while session.server.state.name != "FINISHED":
        last = [data for frames in session.waiting.values() for data in frames]
        session.play()
    assert_forgotten(session.server)
    for step in (session.server.start, session.server.close_round):
        with pytest.raises(LocalProtocolError, match="one object serves one session"):
            step()
    for data in last:
        assert session.server.receive(data) == ()  # repeats
        with pytest.raises(ProtocolError):
            session.server.receive(frame(Kind.UNMASK_SHARES, data[7], bytes(4)))


def test_a_server_that_was_not_started_takes_nothing() -> None:
    server = Server(PARAMS)
    with pytest.raises(LocalProtocolError):
        server.close_round()
    with pytest.raises(ProtocolError, match="NEW"):
        server.receive(Client(PARAMS, 4).start()[0].frame)


def test_a_server_prints_its_state_only() -> None:
    session = Session().to("UNMASK")
    assert repr(session.server) == str(session.server) == "<Server UNMASK>"


# ---- memory -------------------------------------------------------------------------------------------------


def test_the_server_holds_one_vector_whatever_the_number_of_clients() -> None:
    """It adds masked inputs as they arrive and forgets them: growth is counted by the allocator, not timed."""
    params = Params(tuple(range(1, 13)), 400_000, 65534, suite=Suite.X25519)
    vector = 8 * params.lanes.words
    session = Session(replace(params, dimension=1))
    server = Server(params)
    server.start()
    clients = {i: Client(params, i) for i in params.clients}
    for client in clients.values():
        server.receive(client.start()[0].frame)
    shares = [clients[event.to].receive(event.frame)[0].frame for event in server.close_round()]
    for data in shares:
        server.receive(data)
    server.close_round()
    del session
    words = np.zeros(params.lanes.words, dtype=np.uint64)
    body = MaskedInput(words).encode()
    tracemalloc.start()
    try:
        for client in params.clients:
            data = seal_frame(PROTOCOL, Kind.MASKED_INPUT, params.context_hash, client, SERVER, body)
            server.receive(data)
            del data
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert vector > 1_000_000
    assert tuple(server.waiting_for) == ()
    assert kept < 1.1 * vector
    assert peak < 3.1 * vector  # the sum, the frame, and one copy while the frame is made
    assert len(params.clients) > 4


def test_the_client_holds_less_than_four_float64_vectors() -> None:
    dimension = 400_000
    params = Params((1, 2, 3), dimension, 65534, suite=Suite.X25519)
    clients = {i: Client(params, i) for i in params.clients}
    server = Server(params)
    server.start()
    for client in clients.values():
        server.receive(client.start()[0].frame)
    for frames in ([c.receive(e.frame)[0].frame for e in server.close_round() for c in [clients[e.to]]],):
        for data in frames:
            server.receive(data)
    (delivery,) = [event.frame for event in server.close_round() if event.to == 2]
    clients[2].receive(delivery)
    values = np.zeros(dimension, dtype=np.uint64)
    tracemalloc.start()
    try:
        (masked,) = clients[2].provide(values)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(masked.frame) > dimension * 2
    assert peak + values.nbytes < 4 * 8 * dimension
