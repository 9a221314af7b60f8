"""The signed masked sum: the plain masked sum's integers, and what a server cannot do any more."""

from collections.abc import Callable

import numpy as np
import pytest

from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    ProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, Event, NeedInput, Send, SumResult
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kem import Suite, public_key, seal
from securefl.secagg import Client, Params, masking
from securefl.secagg.messages import AdvertiseKeys, EncryptedShares, Roster, Sealed, UnmaskRequest
from securefl.secagg.params import PROTOCOL as INNER
from securefl.secagg.signed import SignedClient, SignedServer
from securefl.secagg.signed.client import body_of
from securefl.secagg.signed.messages import PROTOCOL, Kind, Signatures
from securefl.types import SERVER, PartyId
from securefl.wire import seal_frame

N, DIMENSION, THRESHOLD = 5, 30, 4
PARAMS = Params(tuple(PartyId(i) for i in range(1, N + 1)), DIMENSION, 1000, THRESHOLD, suite=Suite.X25519)
INPUTS = {i: np.random.default_rng(i).integers(0, 1001, DIMENSION).astype(np.uint64) for i in PARAMS.clients}
IDENTITIES = {i: Identity(bytes([i]) * 32) for i in PARAMS.clients}
DIRECTORY = Directory({i: identity.public for i, identity in IDENTITIES.items()})


class Table:
    """``silent``: client → messages it answers. ``tamper``: (client, frames) → frames, of every delivery."""

    def __init__(self, *, suspend: bool = False) -> None:
        self.server = SignedServer(PARAMS, DIRECTORY)
        self.clients = {i: SignedClient(PARAMS, i, IDENTITIES[i], DIRECTORY) for i in PARAMS.clients}
        self.suspend, self.silent = suspend, dict[int, int]()
        self.answers = dict.fromkeys(PARAMS.clients, 0)
        self.errors: dict[int, SecureFLError] = {}
        self.refused: list[SecureFLError] = []
        self.tamper: Callable[[int, list[bytes]], list[bytes]] = lambda client, frames: frames
        self.exchanges = 0

    def run(self) -> SumResult | Exception:
        self.server.start()
        for i in PARAMS.clients:
            self.answer(i, list(self.clients[i].start()))
        while True:
            self.exchanges += 1
            events = self.server.close_round()
            deliveries: dict[int, list[bytes]] = {}
            for event in events:
                match event:
                    case Send(to, frame):
                        deliveries.setdefault(to, []).append(bytes(frame))
                    case Completed(result):
                        assert result is not None
                        return result
                    case Aborted(reason):
                        return reason
            for i, frames in deliveries.items():
                self.deliver(i, self.tamper(i, frames))

    def deliver(self, i: int, frames: list[bytes]) -> None:
        if i in self.errors:
            return
        client = self.clients[PartyId(i)]
        if self.suspend:
            client = SignedClient.resume(PARAMS, client.suspend(), IDENTITIES[PartyId(i)], DIRECTORY)
            self.clients[PartyId(i)] = client
        events: list[Event] = []
        try:
            for frame in frames:
                events += client.receive(frame)
            if any(isinstance(event, NeedInput) for event in events):
                events += client.provide(INPUTS[PartyId(i)])
        except SecureFLError as error:
            self.errors[i] = error
            return
        self.answer(i, events)

    def answer(self, i: int, events: list[Event]) -> None:
        frames = [event.frame for event in events if isinstance(event, Send)]
        if not frames or self.answers[PartyId(i)] >= self.silent.get(i, 99):
            return
        self.answers[PartyId(i)] += 1
        try:
            for frame in frames:
                self.server.receive(frame)
        except SecureFLError as error:
            self.refused.append(error)


def expected(*clients: int) -> np.ndarray:
    return sum((INPUTS[PartyId(i)] for i in clients), np.zeros(DIMENSION, dtype=np.uint64))


@pytest.mark.parametrize("suspend", [False, True])
def test_the_sum_of_everybody_in_five_exchanges(suspend: bool) -> None:
    table = Table(suspend=suspend)
    result = table.run()
    assert isinstance(result, SumResult)
    assert (result.values == expected(1, 2, 3, 4, 5)).all()
    assert table.exchanges == 5
    assert not table.errors
    assert not table.refused


@pytest.mark.parametrize("answers", range(5))
def test_one_leaves_at_each_step(answers: int) -> None:
    table = Table()
    table.silent = {2: answers}
    result = table.run()
    assert isinstance(result, SumResult), result
    survivors = (1, 2, 3, 4, 5) if answers >= 3 else (1, 3, 4, 5)
    assert result.survivors == survivors
    assert (result.values == expected(*survivors)).all()


@pytest.mark.parametrize("answers", range(5))
def test_below_the_threshold_it_ends_with_a_name(answers: int) -> None:
    table = Table()
    table.silent = {2: answers, 4: answers}
    assert isinstance(table.run(), TooFewClientsError)


def swapped(keys_of: int) -> Callable[[int, list[bytes]], list[bytes]]:
    """A server that puts keys of its own making in one client's place on the roster."""
    false = Client(PARAMS, PartyId(keys_of))
    (frame,) = (event.frame for event in false.start() if isinstance(event, Send))

    def tamper(client: int, frames: list[bytes]) -> list[bytes]:
        if len(frames) == 2 and frames[1][0] == INNER and client != keys_of:
            roster = Roster.decode(body_of(frames[1]), PARAMS)
            roster.keys[PartyId(keys_of)] = AdvertiseKeys.decode(body_of(frame), PARAMS)
            body = roster.encode()
            return [frames[0], seal_frame(INNER, 2, PARAMS.context_hash, SERVER, PartyId(client), body)]
        return frames

    return tamper


def test_keys_in_anothers_place_are_refused() -> None:
    table = Table()
    table.tamper = swapped(3)
    assert isinstance(table.run(), TooFewClientsError)
    assert set(table.errors) == {1, 2, 4, 5}
    assert all(isinstance(error, AuthenticationError) for error in table.errors.values())


def test_keys_without_a_signature_are_refused() -> None:
    table = Table()

    def tamper(client: int, frames: list[bytes]) -> list[bytes]:
        if len(frames) == 2 and frames[0][0] == PROTOCOL:
            listed = dict(Signatures.decode(body_of(frames[0]), PARAMS).by_client)
            listed.pop(PartyId(3))
            body = Signatures(listed).encode()
            return [
                seal_frame(PROTOCOL, Kind.KEY_SIGNATURES, PARAMS.context_hash, SERVER, PartyId(client), body),
                frames[1],
            ]
        return frames

    table.tamper = tamper
    table.run()
    assert all("without its signature" in str(error) for error in table.errors.values())
    assert len(table.errors) == N
    bare = Table()
    bare.tamper = lambda client, frames: frames[-1:] if len(frames) == 2 else frames
    bare.run()
    assert all(isinstance(error, FaultyServerError) for error in bare.errors.values())


def test_boxes_of_the_servers_making_are_refused() -> None:
    """With a pair secret of its own in a box, a server would know that pair's mask."""
    table = Table()
    keys: dict[int, AdvertiseKeys] = {}

    def tamper(client: int, frames: list[bytes]) -> list[bytes]:
        if len(frames) == 2 and frames[1][2] == 2:
            keys.update(Roster.decode(body_of(frames[1]), PARAMS).keys)
        if client == 5 and len(frames) == 2 and frames[1][2] == 4:
            delivered = EncryptedShares.decode(body_of(frames[1]), PARAMS, owner=PartyId(5), owner_sends=False)
            boxes = dict(delivered.boxes)
            info = masking.pair_box_info(PARAMS, bytes(32), PartyId(1), PartyId(5))
            forged = seal(public_key(PARAMS.suite, keys[5].mask_key), bytes(32), info)
            boxes[PartyId(1)] = Sealed(boxes[PartyId(1)].shares, forged)
            body = EncryptedShares(boxes).encode()
            return [frames[0], seal_frame(INNER, 4, PARAMS.context_hash, SERVER, PartyId(5), body)]
        return frames

    table.tamper = tamper
    result = table.run()
    assert isinstance(table.errors[5], AuthenticationError)
    assert "signature of party 1" in str(table.errors[5])
    assert isinstance(result, SumResult)
    assert result.survivors == (1, 2, 3, 4)
    bare = Table()

    def strip(client: int, frames: list[bytes]) -> list[bytes]:
        if len(frames) == 2 and frames[1][2] == 4:
            body = Signatures({}).encode()
            empty = seal_frame(PROTOCOL, Kind.BOX_SIGNATURES, PARAMS.context_hash, SERVER, PartyId(client), body)
            return [empty, frames[1]]
        return frames

    bare.tamper = strip
    bare.run()
    assert len(bare.errors) == N
    assert all("box of client" in str(error) for error in bare.errors.values())


def test_a_client_that_signs_no_box_leaves_alone() -> None:
    table = Table()
    held = table.clients[PartyId(2)]
    held._signed_boxes = lambda dealt: type(held)._signed_boxes(held, type(dealt)({}))  # type: ignore[method-assign]
    result = table.run()
    assert isinstance(result, SumResult)
    assert result.survivors == (1, 3, 4, 5)
    assert "did not sign each box" in str(table.refused[0])


def test_two_different_sets_of_survivors_are_not_unmasked() -> None:
    """The server tells three clients that 5 has dropped and two that it has not: neither has enough signatures."""
    table = Table()

    def tamper(client: int, frames: list[bytes]) -> list[bytes]:
        view = frames[0]
        if view[0] == INNER and client <= 3 and view[2] == 6:
            body = UnmaskRequest(tuple(PartyId(i) for i in (1, 2, 3, 4)), (PartyId(5),)).encode()
            return [seal_frame(INNER, 6, PARAMS.context_hash, SERVER, PartyId(client), body)]
        return frames

    table.tamper = tamper
    assert isinstance(table.run(), TooFewClientsError)
    assert sum(isinstance(error, AuthenticationError) for error in table.refused) == 3  # our server notices, too


def test_a_request_is_answered_with_enough_signatures_for_that_very_request() -> None:
    for change in ("few", "other"):
        table = Table()

        def tamper(client: int, frames: list[bytes], change: str = change) -> list[bytes]:
            if frames[0][0] != PROTOCOL or len(frames) != 1:
                return frames
            listed = dict(Signatures.decode(body_of(frames[0]), PARAMS).by_client)
            if change == "few":
                listed = {i: listed[i] for i in list(listed)[: THRESHOLD - 1]}
            else:
                listed[PartyId(1)] = listed[PartyId(2)]
            body = Signatures(listed).encode()
            return [seal_frame(PROTOCOL, Kind.REQUEST_SIGNATURES, PARAMS.context_hash, SERVER, PartyId(client), body)]

        table.tamper = tamper
        assert isinstance(table.run(), TooFewClientsError)
        wanted = TooFewClientsError if change == "few" else AuthenticationError
        assert len(table.errors) == N
        assert all(isinstance(error, wanted) for error in table.errors.values())


def test_a_client_signs_for_one_request_and_is_over_after_an_error() -> None:
    table = Table()
    seen: dict[int, bytes] = {}

    def tamper(client: int, frames: list[bytes]) -> list[bytes]:
        if frames[0][0] == INNER and frames[0][2] == 6:
            seen[client] = frames[0]
            return [frames[0], frames[0]] if client == 1 else frames
        return frames

    table.tamper = tamper
    result = table.run()
    assert isinstance(table.errors[1], FaultyServerError)
    assert isinstance(result, SumResult)
    assert (result.values == expected(1, 2, 3, 4, 5)).all()
    refused = Table()
    refused.tamper = swapped(3)
    refused.run()
    with pytest.raises(FaultyServerError, match="over"):
        refused.clients[PartyId(1)].receive(seen[1])


def test_the_server_takes_what_was_signed_and_nothing_else() -> None:
    server = SignedServer(PARAMS, DIRECTORY)
    server.start()
    client = SignedClient(PARAMS, PartyId(1), IDENTITIES[PartyId(1)], DIRECTORY)
    signature, keys = (event.frame for event in client.start() if isinstance(event, Send))
    with pytest.raises(FaultyClientError, match="did not sign"):
        server.receive(keys)
    other = SignedClient(PARAMS, PartyId(1), IDENTITIES[PartyId(1)], DIRECTORY)
    foreign = next(event.frame for event in other.start() if isinstance(event, Send))
    server.receive(foreign)
    with pytest.raises(AuthenticationError):
        server.receive(keys)
    server = SignedServer(PARAMS, DIRECTORY)
    server.start()
    server.receive(signature)
    server.receive(keys)
    assert 1 not in server.waiting_for
    with pytest.raises(ProtocolError, match="outside its exchange"):
        server.receive(seal_frame(PROTOCOL, Kind.SIGNED_REQUEST, PARAMS.context_hash, PartyId(1), SERVER, bytes(64)))
    for bad in (b"", b"\x05" + bytes(80), bytes(signature)[:-1]):
        with pytest.raises(DecodeError):
            server.receive(bad)
        with pytest.raises(DecodeError):
            client.receive(bad)


def test_directories_and_lists_that_cannot_be() -> None:
    for keys in (
        {i: DIRECTORY.keys[i] for i in (1, 2, 3, 4)},
        {**DIRECTORY.keys, PartyId(2): DIRECTORY.keys[PartyId(3)]},
        {**DIRECTORY.keys, PartyId(1): bytes(32)},
    ):
        with pytest.raises(ConfigurationError):
            SignedClient(PARAMS, PartyId(1), IDENTITIES[PartyId(1)], Directory(keys))
    good = Signatures({PartyId(1): bytes(64), PartyId(2): bytes(64)}).encode()
    assert Signatures.decode(good, PARAMS).by_client.keys() == {1, 2}
    swap = good[:4] + good[72:] + good[4:72]
    for bad in (swap, good[:-1], good + b"\0", good[:4] + b"\0\0\0\x09" + good[8:]):
        with pytest.raises(DecodeError):
            Signatures.decode(bad, PARAMS)


def test_what_is_suspended_is_of_one_session() -> None:
    client = SignedClient(PARAMS, PartyId(1), IDENTITIES[PartyId(1)], DIRECTORY)
    client.start()
    data = client.suspend()
    for bad in (data[:-1], b"\x63" + data[1:], data + b"\0"):
        with pytest.raises(DecodeError):
            SignedClient.resume(PARAMS, bad, IDENTITIES[PartyId(1)], DIRECTORY)
