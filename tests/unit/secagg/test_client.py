"""What the client does at each step, and everything it refuses from a server that does not keep to the protocol."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from securefl.errors import (
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, Event, NeedInput, Send
from securefl.primitives import shamir
from securefl.primitives.kem import Suite
from securefl.secagg import Client, Params, Server, masking
from securefl.secagg import client as client_module
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
from securefl.testing import RecordingEntropy, ReplayEntropy
from securefl.types import SERVER
from securefl.wire import open_frame, seal_frame

IDS = (2, 5, 7, 9, 11)
ME = 7  # has peers below and above
PARAMS = Params(IDS, 6, 100, threshold=3, suite=Suite.X25519)
VALUES = np.array([1, 2, 3, 4, 5, 100], dtype=np.uint64)


def frames_of(events: Sequence[Event]) -> dict[int, bytes]:
    return {event.to: bytes(event.frame) for event in events if isinstance(event, Send)}


def frame(kind: Kind, body: bytes, *, to: int = ME, sender: int = SERVER, params: Params = PARAMS) -> bytes:
    """A frame as a server would make it, whatever is in it."""
    return seal_frame(PROTOCOL, kind, params.context_hash, sender, to, body)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


class Session:
    """A server and its clients, driven exchange by exchange; every client's randomness is recorded."""

    def __init__(self, params: Params = PARAMS, **floors: int) -> None:
        self.params = params
        self.drawn = {i: RecordingEntropy() for i in params.clients}
        self.clients = {i: Client(params, i, entropy=self.drawn[i], **floors) for i in params.clients}
        self.server = Server(params)
        self.server.start()
        self.me = self.clients[ME]

    def close(self, frames: Mapping[int, bytes]) -> dict[int, bytes]:
        for data in frames.values():
            self.server.receive(data)
        return frames_of(self.server.close_round())

    def step(self, frames: Mapping[int, bytes], silent: Sequence[int] = ()) -> dict[int, bytes]:
        """Deliver the server's frames to all but the silent, and their answers to the server."""
        answers = {}
        for client, data in frames.items():
            if client not in silent:
                sent = frames_of(self.clients[client].receive(data))
                if SERVER in sent:
                    answers[client] = sent[SERVER]
        return self.close(answers)

    def rosters(self, silent: Sequence[int] = ()) -> dict[int, bytes]:
        started = {i: frames_of(client.start())[SERVER] for i, client in self.clients.items()}
        return self.close({i: data for i, data in started.items() if i not in silent})

    def deliveries(self, silent: Sequence[int] = ()) -> dict[int, bytes]:
        return self.step(self.rosters(), silent)

    def requests(self, silent: Sequence[int] = ()) -> dict[int, bytes]:
        deliveries = self.deliveries()
        for client in self.clients.values():
            client.provide(VALUES)
        return self.step(deliveries, silent)

    def body(self, data: bytes) -> memoryview:
        """The body of a frame to ``ME`` or to the server."""
        to = int.from_bytes(data[8:12], "big")
        limits = server_limits(self.params) if to == SERVER else client_limits(self.params)
        return open_frame(data, protocol=PROTOCOL, context=self.params.context_hash, recipient=to, limits=limits).body

    def roster(self, data: bytes) -> Roster:
        return Roster.decode(self.body(data), self.params)

    def delivery(self, data: bytes) -> EncryptedShares:
        return EncryptedShares.decode(self.body(data), self.params, owner=ME, owner_sends=False)

    def true_share(self, dealer: int, which: int, holder: int) -> bytes:
        """What ``holder`` was dealt of the dealer's seed: 0 the mask-key seed, 1 the self-mask seed."""
        tokens = self.drawn[dealer].tokens
        dealt = shamir.split(
            tokens[which],
            points=len(self.params.clients),
            threshold=self.params.threshold,
            entropy=ReplayEntropy([tokens[3 + which]], []),
        )
        return dealt[self.params.point(holder) - 1]


def assert_over(client: Client) -> None:
    """Out of the session, with nothing secret left."""
    assert client.state.name in ("ABORTED", "FINISHED")
    assert client._secrets is None
    assert client._packed is None
    assert (client._pair_secrets, client._inbox, client._own_shares) == ({}, {}, ())
    with pytest.raises(LocalProtocolError):
        client.start()
    with pytest.raises(LocalProtocolError):
        client.provide(VALUES)
    for kind in (Kind.ROSTER, Kind.DELIVER_SHARES, Kind.UNMASK_REQUEST):
        with pytest.raises(SecureFLError):
            client.receive(frame(kind, b"", to=client._me, params=client._params))


# ---- the way of an honest session ---------------------------------------------------------------------------


def test_an_honest_session_step_by_step() -> None:
    session, states = Session(), []
    client = session.me
    states.append(client.state.name)
    rosters = session.rosters()
    states.append(client.state.name)
    assert client.provide(VALUES) == ()
    (shares,) = client.receive(rosters.pop(ME))
    assert (shares.to, shares.frame[2]) == (SERVER, Kind.SHARE_KEYS)
    states.append(client.state.name)
    session.server.receive(shares.frame)
    deliveries = session.step(rosters)
    (masked,) = client.receive(deliveries.pop(ME))
    assert (masked.to, masked.frame[2]) == (SERVER, Kind.MASKED_INPUT)
    states.append(client.state.name)
    session.server.receive(masked.frame)
    for other in deliveries:
        session.clients[other].provide(VALUES)
    requests = session.step(deliveries)
    answer, completed = client.receive(requests[ME])
    assert (answer.to, answer.frame[2]) == (SERVER, Kind.UNMASK_SHARES)
    assert completed == Completed(None)
    states.append(client.state.name)
    assert states == ["NEW", "ADVERTISED", "SHARED", "MASKED", "FINISHED"]
    assert_over(client)


@pytest.mark.parametrize("silent", [(), (2,), (9,), (2, 11)])
def test_one_kind_of_share_per_client_and_the_right_one(silent: tuple[int, ...]) -> None:
    """The self-mask share of a survivor, the mask-key share of a dropped client, never both."""
    session = Session()
    requests = session.requests(silent)
    answer = session.me.receive(requests[ME])[0]
    shares = UnmaskShares.decode(session.body(answer.frame), PARAMS).shares
    for dealer, share in zip(IDS, shares, strict=True):
        assert share == session.true_share(dealer, 0 if dealer in silent else 1, ME)
        assert share != session.true_share(dealer, 1 if dealer in silent else 0, ME)


def test_three_fresh_seeds_are_drawn_and_two_of_them_shared() -> None:
    session = Session()
    session.deliveries()
    tokens = session.drawn[ME].tokens
    assert [len(token) for token in tokens] == [32, 32, 32, 48 * 2, 48 * 2]
    assert len(set(tokens[:3])) == 3
    assert len(session.drawn[ME].seals) == 4 + 2  # a box of shares for each peer, a pair secret for each higher one


def test_two_sessions_share_no_key() -> None:
    """Fresh keys every round: the roster of one session has nothing in common with that of another."""
    raw = []
    for session in (Session(), Session()):
        keys = session.roster(session.rosters()[ME]).keys.values()
        raw += [part for entry in keys for part in (entry.channel_key, entry.mask_key, entry.commitment)]
    assert len(set(raw)) == 2 * 3 * len(IDS)


# ---- set-up -------------------------------------------------------------------------------------------------


def test_who_was_not_invited_is_refused() -> None:
    for stranger in (0, 3, 12):
        with pytest.raises(ConfigurationError, match=f"client {stranger} is not among"):
            Client(PARAMS, stranger)


@pytest.mark.parametrize("floor", [-1, 0, 2, 6])
def test_an_own_minimum_must_lie_between_threshold_and_cohort(floor: int) -> None:
    with pytest.raises(ConfigurationError, match="minimum_survivors must be 3"):
        Client(PARAMS, ME, minimum_survivors=floor)


@pytest.mark.parametrize("floor", [3, 4, 5])
def test_an_own_minimum_within_them_is_taken(floor: int) -> None:
    Client(PARAMS, ME, minimum_survivors=floor)


def test_a_threshold_below_the_own_minimum_is_refused() -> None:
    Client(PARAMS, ME, minimum_threshold=3)
    with pytest.raises(ConfigurationError, match="this client demands at least 4"):
        Client(PARAMS, ME, minimum_threshold=4)


# ---- the input ----------------------------------------------------------------------------------------------


def test_an_input_may_come_at_any_time_after_the_start() -> None:
    for when in ("ADVERTISED", "SHARED", "KEYED"):
        session = Session()
        rosters = session.rosters()
        if when == "ADVERTISED":
            assert session.me.provide(VALUES) == ()
        shares = session.me.receive(rosters.pop(ME))
        if when == "SHARED":
            assert session.me.provide(VALUES) == ()
        session.server.receive(shares[0].frame)
        events = session.me.receive(session.step(rosters)[ME])
        if when == "KEYED":
            assert events == [NeedInput()]
            assert session.me.state.name == "KEYED"
            events = session.me.provide(VALUES)
        assert [event.frame[2] for event in events] == [Kind.MASKED_INPUT]


def test_an_input_before_the_start_is_refused() -> None:
    with pytest.raises(LocalProtocolError):
        Client(PARAMS, ME).provide(VALUES)


@pytest.mark.parametrize("when", ["ADVERTISED", "MASKED", "FINISHED"])
def test_a_second_input_is_refused(when: str) -> None:
    """A second vector under the same keys would reveal the difference of the two."""
    session = Session()
    if when == "ADVERTISED":
        session.rosters()
        session.me.provide(VALUES)
    else:
        requests = session.requests()
        if when == "FINISHED":
            session.me.receive(requests[ME])
    assert session.me.state.name == when
    with pytest.raises(LocalProtocolError, match="one object serves one session"):
        session.me.provide(VALUES)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(5, dtype=np.uint64),
        np.zeros((6, 1), dtype=np.uint64),
        np.zeros(6, dtype=np.int64),
        np.zeros(6),
        np.full(6, 101, dtype=np.uint64),
    ],
    ids=["short", "2-d", "signed", "float", "too large"],
)
@pytest.mark.parametrize("when", ["ADVERTISED", "KEYED"])
def test_an_input_that_does_not_fit_is_refused_before_anything_is_masked(when: str, values: np.ndarray) -> None:
    session = Session()
    if when == "ADVERTISED":
        session.rosters()
    else:
        session.me.receive(session.deliveries()[ME])
    with pytest.raises(InvalidInputError):
        session.me.provide(values)
    assert session.me.state.name == when
    sent = frames_of(session.me.provide(VALUES))  # the session waits for values that fit
    assert len(sent) == (when == "KEYED")


def test_the_array_may_be_reused_and_is_not_written_to() -> None:
    session, values = Session(), VALUES.copy()
    deliveries = session.deliveries()
    for client in session.clients.values():
        client.provide(values)
    assert np.array_equal(values, VALUES)
    values[:] = 0
    requests = session.step(deliveries)
    answers = {i: frames_of(session.clients[i].receive(data))[SERVER] for i, data in requests.items()}
    for data in answers.values():
        session.server.receive(data)
    (event,) = session.server.close_round()
    assert event.result.values.tolist() == (5 * VALUES).tolist()


def test_the_masked_vector_is_not_the_packed_one() -> None:
    session = Session()
    session.me.start()
    session.me.provide(VALUES)
    packed = PARAMS.lanes.pack(VALUES)
    assert np.array_equal(session.me._packed, packed)
    session = Session()
    deliveries = session.deliveries()
    session.me.provide(VALUES)
    (masked,) = session.me.receive(deliveries[ME])
    words = MaskedInput.decode(session.body(masked.frame), PARAMS).words
    assert not np.any(words == packed)
    assert session.me._packed is None


# ---- frames that are none of the session's ------------------------------------------------------------------


def test_bytes_that_are_no_message_of_this_session_change_nothing() -> None:
    session = Session()
    roster = session.rosters()[ME]
    body = bytes(session.body(roster))
    for data in (
        b"",
        roster[:-1],
        roster + b"\0",
        flipped(roster, 0),
        flipped(roster, 8 * 60),
        frame(Kind.ROSTER, body, params=replace(PARAMS, round=1)),
        frame(Kind.ROSTER, body, params=replace(PARAMS, model_hash=b"\1" * 32)),
        frame(Kind.ROSTER, body, to=5),
        frame(Kind.ROSTER, body[:-1]),
        frame(Kind.ROSTER, body + b"\0"),
        frame(Kind.ADVERTISE_KEYS, body[:96]),
        seal_frame(PROTOCOL + 1, Kind.ROSTER, PARAMS.context_hash, SERVER, ME, body),
    ):
        with pytest.raises(DecodeError):
            session.me.receive(data)
        assert session.me.state.name == "ADVERTISED"
    assert frames_of(session.me.receive(roster))  # the right one is still welcome


@pytest.mark.parametrize(
    "data",
    [
        frame(Kind.ROSTER, Roster({}).encode(), sender=5),
        frame(Kind.ROSTER, Roster({}).encode(), sender=ME),
        frame(Kind.ABORT, b"\1", sender=5),
        frame(Kind.DELIVER_SHARES, EncryptedShares({}).encode()),
        frame(Kind.UNMASK_REQUEST, UnmaskRequest(IDS, ()).encode()),
    ],
    ids=["from a client", "from itself", "farewell of a client", "delivery", "request"],
)
def test_a_message_out_of_turn_or_not_from_the_server_changes_nothing(data: bytes) -> None:
    session = Session()
    roster = session.rosters()[ME]
    with pytest.raises(FaultyServerError, match="does not belong to state ADVERTISED"):
        session.me.receive(data)
    assert session.me.state.name == "ADVERTISED"
    assert frames_of(session.me.receive(roster))


def test_a_message_before_the_start_is_refused() -> None:
    client = Client(PARAMS, ME)
    for kind, body in (
        (Kind.ROSTER, bytes(4)),
        (Kind.DELIVER_SHARES, bytes(4)),
        (Kind.UNMASK_REQUEST, bytes(8)),
        (Kind.ABORT, b"\1"),
    ):
        with pytest.raises(FaultyServerError, match="does not belong to state NEW"):
            client.receive(frame(kind, body))
    assert frames_of(client.start())


def test_a_refusal_names_the_state_in_which_the_message_came() -> None:
    session = Session()
    session.rosters()
    with pytest.raises(FaultyServerError, match="does not belong to state ADVERTISED"):
        session.me.receive(frame(Kind.DELIVER_SHARES, EncryptedShares({}).encode()))


def to_masked(session: Session) -> tuple[dict[int, bytes], dict[int, bytes], dict[int, bytes]]:
    rosters = session.rosters()
    for client in session.clients.values():
        client.provide(VALUES)
    deliveries = session.step(rosters)
    return rosters, deliveries, session.step(deliveries)


def test_repeated_frames_are_ignored() -> None:
    session = Session()
    rosters, deliveries, requests = to_masked(session)
    assert session.me.state.name == "MASKED"
    for data in (rosters[ME], deliveries[ME], rosters[ME], deliveries[ME]):
        assert session.me.receive(data) == ()
    assert frames_of(session.me.receive(requests[ME]))


@pytest.mark.parametrize("which", ["roster", "delivery"])
def test_a_second_message_of_a_kind_is_refused(which: str) -> None:
    """It would have another vector masked, or another set of clients in it. Nothing is answered, nothing changes."""
    session = Session()
    rosters, deliveries, requests = to_masked(session)
    if which == "roster":
        data = frame(Kind.ROSTER, Roster({ME: session.roster(rosters[ME]).keys[ME]}).encode())
    else:
        boxes = session.delivery(deliveries[ME]).boxes
        boxes.pop(2)
        data = frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode())
    with pytest.raises(FaultyServerError, match="does not belong to state MASKED"):
        session.me.receive(data)
    assert session.me.state.name == "MASKED"
    assert frames_of(session.me.receive(requests[ME]))


# ---- exchange 2: the roster ---------------------------------------------------------------------------------


def roster_without_me(keys: dict[int, AdvertiseKeys]) -> None:
    del keys[ME]


def roster_with_a_stranger_as_me(keys: dict[int, AdvertiseKeys]) -> None:
    keys[ME] = replace(keys[ME], channel_key=bytes(31) + b"\x09")


def roster_with_my_mask_key_changed(keys: dict[int, AdvertiseKeys]) -> None:
    keys[ME] = replace(keys[ME], mask_key=bytes(31) + b"\x09")


def roster_with_my_commitment_changed(keys: dict[int, AdvertiseKeys]) -> None:
    keys[ME] = replace(keys[ME], commitment=bytes(32))


def roster_with_a_key_twice(keys: dict[int, AdvertiseKeys]) -> None:
    keys[2] = replace(keys[2], channel_key=keys[5].channel_key)


def roster_with_a_mask_key_twice(keys: dict[int, AdvertiseKeys]) -> None:
    keys[2] = replace(keys[2], mask_key=keys[11].mask_key)


def roster_with_my_key_under_another_name(keys: dict[int, AdvertiseKeys]) -> None:
    keys[9] = replace(keys[9], channel_key=keys[ME].channel_key)


def roster_with_one_key_for_two_purposes(keys: dict[int, AdvertiseKeys]) -> None:
    keys[9] = replace(keys[9], mask_key=keys[9].channel_key)


def roster_with_a_copy_of_a_client(keys: dict[int, AdvertiseKeys]) -> None:
    keys[9] = keys[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (roster_without_me, "own keys"),
        (roster_with_a_stranger_as_me, "own keys"),
        (roster_with_my_mask_key_changed, "own keys"),
        (roster_with_my_commitment_changed, "own keys"),
        (roster_with_a_key_twice, "are the same"),
        (roster_with_a_mask_key_twice, "are the same"),
        (roster_with_my_key_under_another_name, "are the same"),
        (roster_with_one_key_for_two_purposes, "are the same"),
        (roster_with_a_copy_of_a_client, "are the same"),
    ],
)
def test_a_roster_that_does_not_hold_together_ends_the_session(change: Callable[[dict], None], message: str) -> None:
    session = Session()
    keys = session.roster(session.rosters()[ME]).keys
    change(keys)
    with pytest.raises(FaultyServerError, match=message):
        session.me.receive(frame(Kind.ROSTER, Roster(keys).encode()))
    assert_over(session.me)
    assert session.drawn[ME].seals == []  # nothing was sealed, let alone sent


@pytest.mark.parametrize("floor", [3, 4, 5])
def test_a_roster_below_the_own_minimum_ends_the_session(floor: int) -> None:
    session = Session(minimum_survivors=floor)
    keys = session.roster(session.rosters()[ME]).keys
    for gone in (2, 5, 9)[: 6 - floor]:
        del keys[gone]
    with pytest.raises(TooFewClientsError, match=f"{floor - 1} clients advertised keys"):
        session.me.receive(frame(Kind.ROSTER, Roster(keys).encode()))
    assert_over(session.me)
    assert session.drawn[ME].seals == []


@pytest.mark.parametrize("field", ["channel_key", "mask_key"])
@pytest.mark.parametrize("other", [2, 9])
@pytest.mark.parametrize("suite", Suite)
def test_a_key_that_is_none_names_its_client(suite: Suite, other: int, field: str) -> None:
    """A low-order point, or ML-KEM coefficients beyond q. A lower id's mask key is not used by this client."""
    session = Session(replace(PARAMS, suite=suite))
    keys = session.roster(session.rosters()[ME]).keys
    bad = bytes(32) if suite is Suite.X25519 else b"\xff" * 1184 + keys[other].mask_key[1184:]
    keys[other] = replace(keys[other], **{field: bad})
    data = frame(Kind.ROSTER, Roster(keys).encode(), params=session.params)
    if field == "mask_key" and other < ME:
        assert frames_of(session.me.receive(data))
        return
    with pytest.raises(FaultyClientError, match=f"client {other} advertised something that is no key") as caught:
        session.me.receive(data)
    assert caught.value.clients == (other,)
    assert_over(session.me)


def test_everything_sealed_is_for_the_roster_that_was_seen() -> None:
    """A server that shows two clients two rosters does not get them to use each other's boxes."""
    session = Session()
    rosters = session.rosters()
    keys = session.roster(rosters[ME]).keys
    keys[11] = replace(keys[11], commitment=bytes(32))
    shown_to_2 = frame(Kind.ROSTER, Roster(keys).encode(), to=2)
    (sent,) = session.clients[2].receive(shown_to_2)
    from_2 = EncryptedShares.decode(session.body(sent.frame), PARAMS, owner=2, owner_sends=True).boxes[ME]
    session.me.receive(rosters[ME])
    boxes = {2: from_2, 9: Sealed(bytes(114), None), 11: Sealed(bytes(114), None)}
    with pytest.raises(FaultyClientError, match="made for another roster or model") as caught:
        session.me.receive(frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode()))
    assert caught.value.clients == (2,)


# ---- exchange 3: delivered shares ---------------------------------------------------------------------------


def test_shares_from_outside_the_roster_end_the_session() -> None:
    session = Session()
    deliveries = session.step(session.rosters(silent=(11,)))
    boxes = session.delivery(deliveries[ME]).boxes
    boxes[11] = boxes[9]
    with pytest.raises(FaultyServerError, match="not on the roster"):
        session.me.receive(frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode()))
    assert_over(session.me)


@pytest.mark.parametrize("floor", [3, 4, 5])
def test_deliveries_below_the_own_minimum_end_the_session(floor: int) -> None:
    session = Session(minimum_survivors=floor)
    boxes = session.delivery(session.deliveries()[ME]).boxes
    session.me.provide(VALUES)
    for gone in (2, 5, 9)[: 6 - floor]:
        del boxes[gone]
    with pytest.raises(TooFewClientsError, match=f"{floor - 1} clients shared keys"):
        session.me.receive(frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode()))
    assert_over(session.me)


@pytest.mark.parametrize("bit", [0, 255, 256, 8 * 60, 8 * 80 - 1])
@pytest.mark.parametrize("sender", [2, 5])
def test_a_damaged_pair_box_names_its_sender(sender: int, bit: int) -> None:
    session = Session()
    boxes = session.delivery(session.deliveries()[ME]).boxes
    assert boxes[sender].pair is not None
    boxes[sender] = replace(boxes[sender], pair=flipped(boxes[sender].pair, bit))
    with pytest.raises(FaultyClientError, match=f"mask secret from client {sender} does not open") as caught:
        session.me.receive(frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode()))
    assert caught.value.clients == (sender,)
    assert_over(session.me)


def test_boxes_under_another_senders_name_do_not_open() -> None:
    session = Session()
    boxes = session.delivery(session.deliveries()[ME]).boxes
    boxes[2], boxes[5] = boxes[5], boxes[2]
    with pytest.raises(FaultyClientError):
        session.me.receive(frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode()))


@pytest.mark.parametrize("sender", [2, 11])
@pytest.mark.parametrize("bit", [0, 300, 8 * 114 - 1])
def test_a_damaged_box_of_shares_is_told_as_absent_and_stops_nobody(sender: int, bit: int) -> None:
    session = Session()
    deliveries = session.deliveries()
    boxes = session.delivery(deliveries[ME]).boxes
    boxes[sender] = replace(boxes[sender], shares=flipped(boxes[sender].shares, bit))
    deliveries[ME] = frame(Kind.DELIVER_SHARES, EncryptedShares(boxes).encode())
    for client in session.clients.values():
        client.provide(VALUES)
    answer = session.me.receive(session.step(deliveries)[ME])[0]
    shares = UnmaskShares.decode(session.body(answer.frame), PARAMS).shares
    assert [share is None for share in shares] == [i == sender for i in IDS]


@pytest.mark.parametrize("sender", [2, 11])
def test_a_dealt_share_outside_the_field_is_told_as_absent(sender: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passed on, it would make its honest holder the suspect."""
    session = Session()
    request = session.requests()[ME]
    opened = client_module.unseal

    def dealt(private, sealed, info):  # type: ignore[no-untyped-def]
        pair = opened(private, sealed, info)
        return bytes([255]) * len(pair) if info == masking.shares_box_info(*where, sender, ME) else pair

    where = (session.me._params, session.me._roster_hash)
    monkeypatch.setattr(client_module, "unseal", dealt)
    answer = session.me.receive(request)[0]
    shares = UnmaskShares.decode(session.body(answer.frame), PARAMS).shares
    assert [share is None for share in shares] == [i == sender for i in IDS]


# ---- exchange 4: the request --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("survivors", "dropped", "error", "message"),
    [
        (IDS, (2,), FaultyServerError, "surviving and as dropped"),
        (IDS, IDS, FaultyServerError, "surviving and as dropped"),
        ((2, 5, 7, 9), (9, 11), FaultyServerError, "surviving and as dropped"),
        ((2, 5, 9, 11), (7,), FaultyServerError, "this client is listed as dropped"),
        ((2, 5, 7, 9), (), FaultyServerError, "exactly the clients that shared keys"),
        ((2, 5, 9, 11), (), FaultyServerError, "exactly the clients that shared keys"),
        ((), (), FaultyServerError, "exactly the clients that shared keys"),
        ((5, 7), (2, 9, 11), TooFewClientsError, "2 clients survived"),
        ((7,), (2, 5, 9, 11), TooFewClientsError, "1 clients survived"),
    ],
    ids=str,
)
def test_a_request_that_could_open_an_input_ends_the_session(
    survivors: tuple[int, ...], dropped: tuple[int, ...], error: type[SecureFLError], message: str
) -> None:
    session = Session()
    request = session.requests()[ME]
    with pytest.raises(error, match=message):
        session.me.receive(frame(Kind.UNMASK_REQUEST, UnmaskRequest(survivors, dropped).encode()))
    assert_over(session.me)
    with pytest.raises(FaultyServerError):
        session.me.receive(request)  # not even the right one is answered now


@pytest.mark.parametrize("ids", [(2, 3, 7), (2, 7, 7), (7, 2), (0, 7)], ids=["unknown", "repeated", "order", "server"])
def test_a_request_with_unknown_or_repeated_ids_is_no_message(ids: tuple[int, ...]) -> None:
    session = Session()
    request = session.requests()[ME]
    for lists in (UnmaskRequest(ids, ()), UnmaskRequest((7,), ids)):
        with pytest.raises(DecodeError):
            session.me.receive(frame(Kind.UNMASK_REQUEST, lists.encode()))
    assert frames_of(session.me.receive(request))


def test_a_request_naming_who_never_shared_ends_the_session() -> None:
    session = Session()
    deliveries = session.deliveries(silent=(11,))
    for client in session.clients.values():
        client.provide(VALUES)
    session.step(deliveries)
    with pytest.raises(FaultyServerError, match="exactly the clients that shared keys"):
        session.me.receive(frame(Kind.UNMASK_REQUEST, UnmaskRequest((2, 5, 7, 9), (11,)).encode()))


@pytest.mark.parametrize("floor", [4, 5])
def test_fewer_survivors_than_the_own_minimum_are_refused(floor: int) -> None:
    """The server's threshold is 3; this client's own floor comes from its configuration alone."""
    session = Session(minimum_survivors=floor)
    requests = session.requests(silent=(2, 11)[: 6 - floor])
    with pytest.raises(TooFewClientsError, match=f"takes part with at least {floor}"):
        session.me.receive(requests[ME])
    assert_over(session.me)


def test_a_second_request_is_refused_be_it_the_same_or_another() -> None:
    session = Session()
    request = session.requests()[ME]
    session.me.receive(request)
    for data in (
        request,
        frame(Kind.UNMASK_REQUEST, UnmaskRequest((2, 5, 7, 9), (11,)).encode()),
        frame(Kind.UNMASK_REQUEST, UnmaskRequest((7, 9, 11), (2, 5)).encode()),
    ):
        with pytest.raises(FaultyServerError, match="each step happens once"):
            session.me.receive(data)
    assert_over(session.me)


# ---- the server's farewell ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "error"), [(Abort.TOO_FEW_CLIENTS, TooFewClientsError), (Abort.FAULTY_CLIENTS, FaultyClientError)]
)
@pytest.mark.parametrize("when", ["ADVERTISED", "SHARED", "KEYED", "MASKED", "FINISHED"])
def test_an_abort_ends_the_session_in_every_state(when: str, reason: int, error: type[SecureFLError]) -> None:
    session = Session()
    rosters = session.rosters()
    if when == "SHARED":
        session.me.receive(rosters[ME])
    elif when != "ADVERTISED":
        deliveries = session.step(rosters)
        if when == "KEYED":
            session.me.receive(deliveries[ME])
        else:
            for client in session.clients.values():
                client.provide(VALUES)
            requests = session.step(deliveries)
            if when == "FINISHED":
                session.me.receive(requests[ME])
    assert session.me.state.name == when
    notice = frame(Kind.ABORT, Abort(reason).encode())
    (event,) = session.me.receive(notice)
    assert isinstance(event, Aborted)
    assert isinstance(event.reason, error)
    assert session.me.state.name == "ABORTED"
    assert_over(session.me)
    assert session.me.receive(notice) == ()


def test_a_client_that_left_by_itself_takes_the_farewell_too() -> None:
    session = Session()
    session.rosters()
    with pytest.raises(SecureFLError):
        session.me.receive(frame(Kind.ROSTER, bytes(4)))
    assert isinstance(session.me.receive(frame(Kind.ABORT, b"\1"))[0], Aborted)


# ---- what is printed ----------------------------------------------------------------------------------------


def test_a_client_prints_its_state_only() -> None:
    session = Session()
    assert repr(session.me) == "<Client NEW>"
    session.rosters()
    assert repr(session.me) == str(session.me) == "<Client ADVERTISED>"
    assert repr(session.me._secrets) == str(session.me._secrets) == "<redacted>"
