"""The oracle: sums as plain Python adds them, with the rules for survivors that the protected sums follow."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding.ring import Lanes
from securefl.errors import (
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
    ProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, NeedInput, RoundContext, Send
from securefl.plain import INPUT, PROTOCOL, PlainClient, PlainServer, PlainSum
from securefl.types import SERVER
from securefl.wire import OVERHEAD_BYTES, seal_frame

CONTEXT = RoundContext(b"session", 3, (2, 5, 9), 4, 100, 2, bytes(32))
INPUTS = {2: [1, 2, 3, 100], 5: [0, 0, 0, 0], 9: [100, 100, 100, 100]}


def vector(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def frame_of(client: int, context: RoundContext = CONTEXT, values: list[int] | None = None) -> bytes:
    role = PlainClient(context, client)
    assert role.start() == [NeedInput()]
    sent, completed = role.provide(vector(INPUTS[client] if values is None else values))
    assert isinstance(sent, Send)
    assert sent.to == SERVER
    assert completed == Completed(None)
    return sent.frame


def started(context: RoundContext = CONTEXT) -> PlainServer:
    server = PlainServer(context)
    assert server.start() == ()
    return server


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_sum_is_pythons(data: st.DataObject) -> None:
    ids = tuple(sorted(data.draw(st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=6))))
    dimension, largest = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 2**40))
    context = RoundContext(b"s", 0, ids, dimension, largest, data.draw(st.integers(1, len(ids))), bytes(32))
    inputs = {i: data.draw(st.lists(st.integers(0, largest), min_size=dimension, max_size=dimension)) for i in ids}
    answering = data.draw(st.lists(st.sampled_from(ids), unique=True))
    server = started(context)
    for client in answering:
        assert server.receive(frame_of(client, context, inputs[client])) == ()
    (event,) = server.close_round()
    if len(answering) < context.threshold:
        assert isinstance(event, Aborted)
        assert isinstance(event.reason, TooFewClientsError)
    else:
        assert isinstance(event, Completed)
        assert event.result is not None
        assert event.result.survivors == tuple(sorted(answering))
        expected = [sum(column) for column in zip(*(inputs[i] for i in answering), strict=True)]
        assert event.result.values.tolist() == expected


def test_the_server_waits_for_who_has_not_answered() -> None:
    server = PlainServer(CONTEXT)
    assert server.waiting_for == ()
    server.start()
    assert server.waiting_for == (2, 5, 9)
    server.receive(frame_of(5))
    assert server.waiting_for == (2, 9)
    server.receive(frame_of(2))
    server.close_round()
    assert server.waiting_for == ()


def test_frames_have_the_length_of_the_packed_vector() -> None:
    assert len(frame_of(2)) == OVERHEAD_BYTES + 8 * Lanes(4, 100, 3).words


def test_a_repeated_frame_is_added_once() -> None:
    server = started()
    for client in (2, 5, 2, 5, 2):
        server.receive(frame_of(client))
    (event,) = server.close_round()
    assert event.result.values.tolist() == INPUTS[2]


def test_two_different_inputs_of_one_client_are_refused_and_the_first_counts() -> None:
    server = started()
    server.receive(frame_of(2))
    with pytest.raises(FaultyClientError, match="two different inputs") as caught:
        server.receive(frame_of(2, values=[0, 0, 0, 1]))
    assert caught.value.clients == (2,)
    server.receive(frame_of(5))
    assert server.close_round()[0].result.values.tolist() == INPUTS[2]


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"other"},
        {"round": 4},
        {"clients": (2, 5, 8)},
        {"dimension": 3},
        {"max_value": 99},
        {"threshold": 3},
        {"model_hash": b"\1" * 32},
        {"encoding": b"grid"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_the_context_binds_the_frames(change: dict) -> None:
    other = replace(CONTEXT, **change)
    server = started()
    with pytest.raises(DecodeError):
        server.receive(frame_of(2, other, [*INPUTS[2][: other.dimension - 1], 99]))
    assert server.waiting_for == (2, 5, 9)


def test_frames_of_others_or_of_another_size_are_refused() -> None:
    server = started()
    body = bytes(8 * Lanes(4, 100, 3).words)
    for sender, data in ((4, body), (SERVER, body), (2, body[:-8]), (2, b"")):
        with pytest.raises(FaultyClientError) as caught:
            server.receive(seal_frame(PROTOCOL, INPUT, server._hash, sender, SERVER, data))
        assert caught.value.clients == (sender,)
    for frame in (
        seal_frame(PROTOCOL, INPUT, server._hash, 2, SERVER, body + bytes(8)),
        seal_frame(PROTOCOL, INPUT + 1, server._hash, 2, SERVER, body),
        seal_frame(PROTOCOL + 1, INPUT, server._hash, 2, SERVER, body),
        seal_frame(PROTOCOL, INPUT, server._hash, 2, 5, body),
        b"",
    ):
        with pytest.raises(DecodeError):
            server.receive(frame)
    assert server.waiting_for == (2, 5, 9)


def test_the_threshold_is_the_least_number_of_survivors() -> None:
    server = started()
    server.receive(frame_of(2))
    (event,) = server.close_round()
    assert isinstance(event.reason, TooFewClientsError)
    assert str(event.reason) == "1 clients are left; the threshold is 2"
    with pytest.raises(LocalProtocolError):
        server.close_round()


def test_late_frames_are_refused() -> None:
    server = started()
    for client in (2, 5):
        server.receive(frame_of(client))
    total = server.close_round()[0].result.values.copy()
    with pytest.raises(ProtocolError):
        server.receive(frame_of(9))
    assert server._total is not None
    assert total.tolist() == INPUTS[2]


def test_a_server_that_was_not_started_takes_nothing() -> None:
    server = PlainServer(CONTEXT)
    for step in (lambda: server.receive(frame_of(2)), server.close_round):
        with pytest.raises(LocalProtocolError):
            step()


# ---- the client ---------------------------------------------------------------------------------------------


def test_an_input_is_given_once_and_after_the_start() -> None:
    client = PlainClient(CONTEXT, 2)
    with pytest.raises(LocalProtocolError):
        client.provide(vector(INPUTS[2]))
    client.start()
    client.provide(vector(INPUTS[2]))
    with pytest.raises(LocalProtocolError):
        client.provide(vector(INPUTS[2]))


@pytest.mark.parametrize("values", [[1, 2, 3], [1, 2, 3, 101], [1, 2, 3, 4, 5], []], ids=str)
def test_an_input_that_does_not_fit_may_be_given_again(values: list[int]) -> None:
    client = PlainClient(CONTEXT, 2)
    client.start()
    with pytest.raises(InvalidInputError):
        client.provide(vector(values))
    assert isinstance(client.provide(vector(INPUTS[2]))[0], Send)


def test_a_client_takes_no_message() -> None:
    client = PlainClient(CONTEXT, 2)
    client.start()
    with pytest.raises(FaultyServerError):
        client.receive(frame_of(2))


# ---- set-up -------------------------------------------------------------------------------------------------


def test_the_protection_names_itself() -> None:
    assert (PlainSum().name, PlainSum().vector_frame, PlainSum().others(CONTEXT)) == ("plain", 0, {})


@pytest.mark.parametrize("threshold", [0, -1, 4])
def test_a_threshold_outside_1_to_n_is_refused(threshold: int) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        PlainSum().server(replace(CONTEXT, threshold=threshold))


@pytest.mark.parametrize("change", [{"dimension": 0}, {"max_value": 0}, {"max_value": 2**63}, {"max_value": -1}])
def test_a_sum_that_cannot_work_is_refused_on_both_sides(change: dict) -> None:
    with pytest.raises(ConfigurationError):
        PlainSum().server(replace(CONTEXT, **change))
    with pytest.raises(ConfigurationError):
        PlainSum().client(replace(CONTEXT, **change), 2)


def test_who_was_not_invited_has_no_role() -> None:
    with pytest.raises(ConfigurationError, match="client 3 is not among"):
        PlainSum().client(CONTEXT, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"clients": (5, 2)},
        {"clients": (2, 2, 5)},
        {"clients": (-1, 2)},
        {"clients": (0, 2)},
        {"clients": (2, 2**32)},
        {"session": b""},
        {"session": bytes(65)},
        {"round": -1},
        {"round": 2**32},
        {"model_hash": b""},
    ],
    ids=str,
)
def test_a_context_that_cannot_be_bound_is_refused(change: dict) -> None:
    with pytest.raises(ConfigurationError):
        PlainSum().server(replace(CONTEXT, **change))


def test_words_that_no_client_can_have_packed_end_the_session_with_a_named_error() -> None:
    server = started()
    lanes = Lanes(4, 100, 3)
    assert lanes.bits * lanes.per_word < 64  # so there are bits that no lane owns
    server.receive(seal_frame(PROTOCOL, INPUT, server._hash, 2, SERVER, b"\xff" * 8 * lanes.words))
    server.receive(frame_of(5))
    (event,) = server.close_round()
    assert isinstance(event, Aborted)
    assert isinstance(event.reason, SecureFLError)
