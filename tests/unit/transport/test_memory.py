"""The in-process transport: what it delivers, loses, repeats, damages, counts; and that every session ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from securefl.errors import (
    ConfigurationError,
    DecodeError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Aborted, ClientRole, Completed, Event, NeedInput, RoundContext, Send, SumResult
from securefl.plain import PlainServer, PlainSum
from securefl.primitives.kem import Suite
from securefl.secagg import MaskedSum, Params, Server
from securefl.secagg.messages import Kind
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import Buffer

IDS = (1, 2, 3, 7)
CONTEXT = RoundContext(b"session", 0, IDS, 9, 50, 3, bytes(32))
MASKED = MaskedSum(Suite.X25519)
INPUTS = {i: np.full(9, i, dtype=np.uint64) for i in IDS}
both = pytest.mark.parametrize("protection", [PlainSum(), MASKED], ids=lambda protection: protection.name)


def run(protection: PlainSum | MaskedSum, faults: Faults | None = None, **arguments: object) -> Outcome:
    return run_session(protection, CONTEXT, lambda client: INPUTS[client], faults=faults, **arguments)


def sum_of(ids: Sequence[int]) -> list[int]:
    return [sum(ids)] * 9


class Watch:
    """What was put on the way, by sender and place."""

    def __init__(self) -> None:
        self.seen: list[tuple[PartyId, PartyId, bytes]] = []

    def __call__(self, sender: PartyId, to: PartyId, frame: Buffer) -> None:
        self.seen.append((sender, to, bytes(frame)))

    def of(self, sender: PartyId) -> list[bytes]:
        return [frame for who, _, frame in self.seen if who == sender]


# ---- sessions without faults --------------------------------------------------------------------------------


@both
def test_a_session_without_faults(protection: PlainSum | MaskedSum) -> None:
    outcome = run(protection)
    assert outcome.unwrap().values.tolist() == sum_of(IDS)
    assert outcome.unwrap().survivors == IDS
    assert (outcome.error, outcome.blamed, outcome.failures) == (None, (), [])


def test_every_frame_is_observed_once_and_counted() -> None:
    watch = Watch()
    outcome = run(MASKED, observe=watch)
    for client in IDS:
        assert outcome.uploaded[client] == sum(len(frame) for frame in watch.of(client))
        assert outcome.downloaded[client] == sum(len(f) for who, to, f in watch.seen if (who, to) == (SERVER, client))
        assert outcome.vector_bytes[client] == len(watch.of(client)[2]) == 72 + 8 * Params.of(CONTEXT).lanes.words
        assert [frame[2] for frame in watch.of(client)] == [1, 3, 5, 7]
    assert [frame[2] for frame in watch.of(SERVER)] == [2] * 4 + [4] * 4 + [6] * 4
    assert SERVER not in outcome.uploaded
    assert SERVER not in outcome.downloaded


def test_inputs_are_asked_for_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector has arrived at the server before the next client's input is made."""
    log: list[str] = []
    real = Server.receive

    def receive(self: Server, frame: bytes) -> Sequence[Event]:
        if frame[2] == Kind.MASKED_INPUT:
            log.append(f"vector {frame[7]}")
        return real(self, frame)

    def input_of(client: ClientId) -> np.ndarray:
        log.append(f"input {client}")
        return INPUTS[client]

    monkeypatch.setattr(Server, "receive", receive)
    run_session(MASKED, CONTEXT, input_of)
    assert log == [line for i in IDS for line in (f"input {i}", f"vector {i}")]


def test_a_session_that_cannot_be_set_up_raises() -> None:
    with pytest.raises(ConfigurationError):
        run_session(MASKED, replace(CONTEXT, threshold=2), lambda client: INPUTS[client])


# ---- faults -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 1, 2, 3, 4])
def test_a_dropped_client_sends_so_many_frames_and_no_more(sent: int) -> None:
    watch = Watch()
    outcome = run(MASKED, Faults(drop_after={2: sent}), observe=watch)
    assert len(watch.of(2)) == sent
    survivors = IDS if sent > 2 else (1, 3, 7)
    assert outcome.unwrap().survivors == survivors
    assert outcome.unwrap().values.tolist() == sum_of(survivors)
    assert outcome.uploaded[2] == sum(len(frame) for frame in watch.of(2))


def test_too_many_dropped_clients_end_the_session() -> None:
    outcome = run(MASKED, Faults(drop_after={1: 2, 2: 2}))
    assert outcome.result is None
    assert isinstance(outcome.error, TooFewClientsError)
    with pytest.raises(TooFewClientsError):
        outcome.unwrap()


@both
def test_a_lost_frame_is_counted_and_observed_but_does_not_arrive(protection: PlainSum | MaskedSum) -> None:
    watch, place = Watch(), (2, protection.vector_frame)
    outcome = run(protection, Faults(lose=frozenset({place})), observe=watch)
    assert outcome.unwrap().survivors == (1, 3, 7)
    assert len(watch.of(2)) == protection.vector_frame + 1
    assert outcome.vector_bytes[2] == outcome.vector_bytes[1]


def test_a_lost_frame_of_the_server_drops_its_recipient() -> None:
    # the server's frames: 0-3 rosters, 4-7 deliveries, 8-11 requests, in the order of the clients
    outcome = run(MASKED, Faults(lose=frozenset({(SERVER, 5)})))
    assert outcome.unwrap().survivors == (1, 3, 7)
    outcome = run(MASKED, Faults(lose=frozenset({(SERVER, 8)})))
    assert outcome.unwrap().survivors == IDS


@both
def test_repeated_frames_arrive_twice_and_count_once(protection: PlainSum | MaskedSum) -> None:
    watch = Watch()
    places = frozenset((i, place) for i in IDS for place in range(4))
    outcome = run(protection, Faults(repeat=places), observe=watch)
    assert outcome.unwrap().values.tolist() == sum_of(IDS)
    assert outcome.failures == []
    assert len(watch.of(2)) == protection.vector_frame + (2 if protection.name == "masked" else 1)


def test_what_arrives_is_what_was_sent_but_for_the_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[bytes] = []
    real = PlainServer.receive

    def receive(self: PlainServer, frame: bytes) -> Sequence[Event]:
        arrived.append(bytes(frame))
        return real(self, frame)

    clean, watch = Watch(), Watch()
    run(PlainSum(), observe=clean)
    monkeypatch.setattr(PlainServer, "receive", receive)
    run(PlainSum(), Faults(flip={(2, 0): 77}, repeat=frozenset({(3, 0)}), lose=frozenset({(7, 0)})), observe=watch)
    damaged = bytearray(clean.of(2)[0])
    damaged[77 // 8] ^= 1 << 77 % 8
    assert watch.of(2) == [bytes(damaged)]  # the observer sees what is on the way
    assert arrived == [clean.of(1)[0], bytes(damaged), clean.of(3)[0], clean.of(3)[0]]


@pytest.mark.parametrize("bit", [0, 7, 8, 8 * 100, 10**9 + 3])
def test_a_flipped_bit_is_one_bit_wherever_it_falls(bit: int) -> None:
    watch, clean = Watch(), Watch()
    run(PlainSum(), Faults(flip={(1, 0): bit}), observe=watch)
    run(PlainSum(), observe=clean)
    a, b = (int.from_bytes(found.of(1)[0], "big") for found in (watch, clean))
    assert (a ^ b).bit_count() == 1


def test_a_flipped_frame_is_refused_and_its_error_kept() -> None:
    outcome = run(MASKED, Faults(flip={(2, 2): 8 * 60}))
    assert outcome.unwrap().survivors == (1, 3, 7)
    assert [(party, type(error)) for party, error in outcome.failures] == [(SERVER, DecodeError)]


def test_the_order_of_delivery_is_a_function_of_the_seed() -> None:
    def order(seed: int | None) -> list[tuple[int, int]]:
        watch = Watch()
        outcome = run(MASKED, Faults(reorder=seed), observe=watch)
        assert outcome.unwrap().values.tolist() == sum_of(IDS)
        return [(sender, frame[2]) for sender, _, frame in watch.seen]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1
    assert order(None) == order(None)


# ---- parties that fail --------------------------------------------------------------------------------------


@both
def test_a_client_whose_input_does_not_fit_is_dropped_with_its_error(protection: PlainSum | MaskedSum) -> None:
    def input_of(client: ClientId) -> np.ndarray:
        return np.full(9, 51 if client == 2 else client, dtype=np.uint64)

    outcome = run_session(protection, CONTEXT, input_of)
    assert outcome.unwrap().survivors == (1, 3, 7)
    assert [(party, type(error)) for party, error in outcome.failures] == [(2, InvalidInputError)]


def test_an_input_that_cannot_be_made_is_a_dropped_client_when_the_error_is_ours() -> None:
    def input_of(client: ClientId) -> np.ndarray:
        if client == 7:
            raise InvalidInputError("the update is not finite")
        return INPUTS[client]

    outcome = run_session(MASKED, CONTEXT, input_of)
    assert outcome.unwrap().survivors == (1, 2, 3)
    assert [party for party, _ in outcome.failures] == [7]


def test_an_error_that_is_not_ours_is_not_swallowed() -> None:
    def input_of(client: ClientId) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_session(MASKED, CONTEXT, input_of)


@dataclass
class Scripted:
    """A protection whose server does what the test says at each ``close_round``."""

    script: list[object]
    closes: int = 0
    name: str = "scripted"
    vector_frame: int = 0
    clients: dict[ClientId, "Echo"] = field(default_factory=dict)

    def client(self, context: RoundContext, me: ClientId) -> "Echo":
        self.clients[me] = Echo(asks=True)
        return self.clients[me]

    def server(self, context: RoundContext) -> "Scripted":
        return self

    def others(self, context: RoundContext) -> Mapping[PartyId, ClientRole]:
        self.clients[100] = Echo(asks=False)
        return {PartyId(100): self.clients[100]}

    waiting_for = ()

    def start(self) -> Sequence[Event]:
        return ()

    def receive(self, frame: bytes) -> Sequence[Event]:
        return ()

    def close_round(self) -> Sequence[Event]:
        self.closes += 1
        if self.closes > 50:
            raise AssertionError("the session does not end")
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


class Echo:
    """A client asks for its input when it is spoken to; another party answers with what it was sent."""

    def __init__(self, *, asks: bool) -> None:
        self.got: list[bytes] = []
        self.asks = asks

    def start(self) -> Sequence[Event]:
        return [Send(SERVER, b"hello")]

    def provide(self, values: np.ndarray) -> Sequence[Event]:
        return [Completed(None)]

    def receive(self, frame: bytes) -> Sequence[Event]:
        self.got.append(bytes(frame))
        return [NeedInput()] if self.asks else [Send(SERVER, frame)]


RESULT = SumResult(np.zeros(1, dtype=np.uint64), (1,))


def test_other_parties_take_part_and_strangers_do_not() -> None:
    protection = Scripted([[Send(100, b"x"), Send(55, b"lost"), Send(1, b"y")], [Completed(RESULT)]])
    outcome = run(protection)
    assert outcome.result is RESULT
    assert protection.clients[100].got == [b"x"]
    assert protection.clients[1].got == [b"y"]
    assert 100 not in outcome.uploaded  # clients' bytes; those of party 100 are counted apart
    sent_by_100 = len(b"hello") + len(b"x")
    assert outcome.other_bytes == sent_by_100 + len(b"x") + len(b"lost")


def test_a_client_that_completes_or_aborts_does_not_end_the_session() -> None:
    protection = Scripted([[Send(1, b"y")], [Send(1, b"z")], [Aborted(TooFewClientsError("few"), (3,))]])
    outcome = run(protection)
    assert protection.closes == 3
    assert isinstance(outcome.error, TooFewClientsError)
    assert outcome.blamed == (3,)


def test_an_outcome_without_an_end_says_so() -> None:
    with pytest.raises(LocalProtocolError, match="did not end"):
        Outcome().unwrap()


def test_a_server_that_raises_ends_the_session() -> None:
    error: SecureFLError = FaultyServerError("the server's own state is broken")
    outcome = run(Scripted([error]))
    assert outcome.result is None
    assert (SERVER, error) in outcome.failures or outcome.error is error
