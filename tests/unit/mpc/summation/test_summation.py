"""The shared sum: the plain sum's integers, whoever drops out; what each server sees says nothing by itself."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from securefl.errors import (
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
    LostPartyError,
    TooFewClientsError,
)
from securefl.machine import Aborted, RoundContext, Segment, Send, Shells
from securefl.mpc.summation import SECOND_SERVER, FirstServer, Params, SecondServer, SharedClient, SharedSum
from securefl.mpc.summation.messages import Kind, limits_of
from securefl.plain import PlainSum
from securefl.primitives.kem import Suite
from securefl.transport.memory import Faults, run_session
from securefl.types import SERVER
from securefl.wire import HEADER_BYTES, OVERHEAD_BYTES

SHARED = SharedSum(Suite.X25519)
CLIENTS = (1, 2, 3, 7)
CONTEXT = RoundContext(b"test", 1, CLIENTS, 50, 2**16 - 2, 2, bytes(32))


def inputs(context=CONTEXT, seed=0):
    rng = np.random.default_rng(seed)
    return {client: rng.integers(0, context.max_value + 1, context.dimension, dtype=np.uint64) for client in CLIENTS}


def outcome(protection=SHARED, context=CONTEXT, faults=None, values=None, observe=None):
    values = inputs(context) if values is None else values
    return run_session(protection, context, lambda client: values[client].copy(), faults=faults, observe=observe)


def both(context=CONTEXT, faults_of=lambda frame: None, values=None):
    results = [
        outcome(protection, context, faults_of(protection.vector_frame), values).unwrap()
        for protection in (PlainSum(), SHARED)
    ]
    assert results[0].survivors == results[1].survivors
    assert np.array_equal(results[0].values, results[1].values)
    return results[1]


# ---- the same integers ----------------------------------------------------------------------------------------


def test_the_sum_is_that_of_the_plain_sum():
    result = both()
    assert result.survivors == CLIENTS
    assert np.array_equal(result.values, sum(inputs().values()))


@given(dropped=st.sets(st.sampled_from(CLIENTS)), reorder=st.integers(0, 9), seed_only=st.booleans())
@settings(max_examples=25, deadline=None)
def test_whoever_drops_out_the_sum_is_exact_over_the_survivors_or_an_error(dropped, reorder, seed_only):
    faults = Faults(drop_after=dict.fromkeys(dropped, int(seed_only)), reorder=reorder)
    found = outcome(faults=faults)
    left = tuple(client for client in CLIENTS if client not in dropped)
    if len(left) < 2:
        assert isinstance(found.error, TooFewClientsError)
        return
    result = found.unwrap()
    assert result.survivors == left
    assert np.array_equal(result.values, sum(inputs()[client] for client in left))


def test_segments_and_windows_of_compressed_vectors_come_out_alike():
    segments = (Segment(40, 6, 16), Segment(3, 100), Segment(7, 6, 9))
    context = replace(CONTEXT, dimension=50, max_value=100, segments=segments, encoding=b"e")
    rng = np.random.default_rng(1)
    values = {
        client: np.concatenate([rng.integers(0, part.max_value + 1, part.size, dtype=np.uint64) for part in segments])
        for client in CLIENTS
    }
    both(context, values=values)  # windows come back wrapped, and wrapped alike
    both(context, lambda frame: Faults(drop_after={3: frame}), values=values)


# ---- nested shells ---------------------------------------------------------------------------------------------

SHELLS = Shells((20, 18, 12), (3, 1, 3, 1), 2)


def nested(shells=SHELLS):
    context = replace(CONTEXT, shells=shells)
    held = dict(zip(CLIENTS, shells.tiers, strict=True))
    return context, {c: given[: sum(shells.sizes[: held[c]])] for c, given in inputs().items()}


@given(
    tiers=st.tuples(*[st.integers(1, 3)] * 4),
    dropped=st.sets(st.sampled_from(CLIENTS)),
    seed_only=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_shells_are_those_of_the_plain_sum(tiers, dropped, seed_only):
    context, values = nested(Shells(SHELLS.sizes, tiers, 2))
    found = outcome(context=context, faults=Faults(drop_after=dict.fromkeys(dropped, int(seed_only))), values=values)
    plain = outcome(PlainSum(), context, Faults(drop_after=dict.fromkeys(dropped, 0)), values)
    if len(dropped) > 2:
        assert isinstance(found.error, TooFewClientsError)
        return
    assert found.unwrap().survivors == plain.unwrap().survivors
    assert np.array_equal(found.unwrap().values, plain.unwrap().values)
    assert found.vector_bytes == plain.vector_bytes


def test_the_second_server_keeps_its_share_of_a_closed_shell():
    context, values = nested()
    seen = {}

    def observe(sender, recipient, frame):
        if sender == SECOND_SERVER and recipient == SERVER:
            seen[len(seen)] = len(frame) - OVERHEAD_BYTES

    params = Params(context)
    outcome(context=context, values=values, observe=observe)
    assert seen[1] == params.vector_bytes  # all shells: two clients hold the third
    seen.clear()
    result = outcome(context=context, values=values, faults=Faults(drop_after={3: 0}), observe=observe).unwrap()
    # of the clients left, 1, 2 and 7, one holds shells 2 and 3
    assert seen[1] == 8 * params.packing.words_of(1)
    assert result.values[:20].tolist() == sum(values[c][:20] for c in (1, 2, 7)).tolist()
    assert not result.values[20:].any()


def test_a_vector_has_the_length_of_its_tier():
    context, values = nested()
    client, server = SharedClient(Params(context, Suite.X25519), 2), FirstServer(Params(context, Suite.X25519))
    client.start()
    with pytest.raises(InvalidInputError, match="tier 1"):
        client.provide(inputs()[2])
    client.provide(values[2])
    assert server.waiting_for == ()
    with pytest.raises(ConfigurationError, match="minimum_holders"):
        Params(replace(CONTEXT, shells=replace(SHELLS, minimum_holders=3)))


def test_extremes_of_the_largest_lanes():
    context = replace(CONTEXT, max_value=2**62 - 1, dimension=3)
    for value in (0, 2**62 - 1):
        both(context, values={client: np.full(3, value, dtype=np.uint64) for client in CLIENTS})


def test_a_client_uploads_the_vector_and_a_seal():
    found = outcome()
    params = Params(CONTEXT, Suite.X25519)
    assert found.vector_bytes[1] == params.vector_bytes + OVERHEAD_BYTES
    assert found.uploaded[1] == found.vector_bytes[1] + 80 + OVERHEAD_BYTES
    assert found.downloaded[1] == 32 + OVERHEAD_BYTES
    assert set(found.uploaded) == set(CLIENTS)  # what the servers exchange is counted apart
    assert found.other_bytes == 3 * OVERHEAD_BYTES + 32 + 4 + 4 * 84 + params.vector_bytes


# ---- what is seen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 2**16 - 2])
def test_a_share_is_uniform_whatever_is_shared(value):
    """χ² over every byte position of the words; a right implementation fails with probability 16 · 10⁻⁵."""
    context = replace(CONTEXT, dimension=60_000)
    seen = []

    def observe(sender, to, frame):
        if sender in CLIENTS and frame[2] == Kind.INPUT:
            seen.append(np.frombuffer(frame, np.uint8, offset=HEADER_BYTES)[: -(OVERHEAD_BYTES - HEADER_BYTES)])

    outcome(context=context, values={c: np.full(60_000, value, dtype=np.uint64) for c in CLIENTS}, observe=observe)
    columns = np.concatenate(seen).reshape(-1, 8)
    for at in range(8):
        assert chisquare(np.bincount(columns[:, at], minlength=256)).pvalue > 1e-5


def test_two_clients_and_two_sessions_never_share_a_stream():
    params = Params(CONTEXT, Suite.X25519)
    other = Params(replace(CONTEXT, round=2), Suite.X25519)
    keys = {each.share_key(client, bytes(32)) for each in (params, other) for client in (1, 2)}
    assert len(keys) == 4


def test_roles_do_not_print_secrets():
    second = SecondServer(Params(CONTEXT, Suite.X25519))
    second.start()
    assert repr(second) == "<SecondServer OPEN>"


# ---- what is refused ------------------------------------------------------------------------------------------


def session(context=CONTEXT):
    """(first, second, clients), each having started, with the key delivered."""
    params = Params(context, Suite.X25519)
    first, second = FirstServer(params), SecondServer(params)
    clients = {client: SharedClient(params, client) for client in CLIENTS}
    first.start()
    first.receive(second.start()[0].frame)
    for event in first.close_round():
        clients[event.to].start()
        clients[event.to].receive(event.frame)
    return first, second, clients


def shares(client, me, context=CONTEXT):
    return [event.frame for event in client.provide(inputs(context)[me]) if isinstance(event, Send)]


def test_the_second_server_opens_one_sum_and_not_over_few():
    first, second, clients = session()
    for me in (1, 2, 3):
        for frame in shares(clients[me], me):
            first.receive(frame)
    (request,) = first.close_round()
    (answer, _) = second.receive(request.frame)
    with pytest.raises(FaultyServerError, match="one sum is opened per session"):
        second.receive(request.frame)
    first.receive(answer.frame)
    assert first.receive(answer.frame) == ()  # repeated by the transport
    assert first.close_round()[0].result.survivors == (1, 2, 3)
    strict = SecondServer(Params(CONTEXT, Suite.X25519), minimum_survivors=4)
    strict.start()
    (end,) = strict.receive(request.frame)
    assert isinstance(end, Aborted)
    assert isinstance(end.reason, TooFewClientsError)
    with pytest.raises(ConfigurationError, match="minimum_survivors"):
        SecondServer(Params(CONTEXT, Suite.X25519), minimum_survivors=5)


def test_a_seal_of_another_sessions_key_names_the_client():
    first, second, clients = session()
    _, _, strangers = session()
    for me in CLIENTS:
        for frame in shares((strangers if me == 3 else clients)[me], me):
            first.receive(frame)
    (request,) = first.close_round()
    blamed, end = second.receive(request.frame)
    assert end.blamed == (3,)
    first.receive(blamed.frame)
    (end,) = first.close_round()
    assert isinstance(end.reason, FaultyClientError)
    assert end.reason.clients == (3,)


@pytest.mark.parametrize("kind", [Kind.ADVERTISE_KEY, Kind.SUM_SHARE])
def test_a_second_server_that_is_gone_is_named(kind):
    lost = frozenset({(SECOND_SERVER, 0 if kind is Kind.ADVERTISE_KEY else 1)})
    found = outcome(faults=Faults(lose=lost))
    assert isinstance(found.error, LostPartyError)
    assert found.error.party == SECOND_SERVER
    assert found.blamed == (SECOND_SERVER,)


def test_waiting_for():
    first, second, clients = session()
    assert set(first.waiting_for) == set(CLIENTS)
    seed, vector = shares(clients[1], 1)
    first.receive(vector)
    assert 1 in first.waiting_for
    first.receive(seed)
    assert 1 not in first.waiting_for
    for frame in shares(clients[2], 2):
        first.receive(frame)
    (request,) = first.close_round()
    assert first.waiting_for == (SECOND_SERVER,)
    first.receive(second.receive(request.frame)[0].frame)
    assert first.waiting_for == ()


@pytest.mark.parametrize(
    "change",
    [
        {"clients": (1,)},
        {"clients": (1, SECOND_SERVER)},
        {"threshold": 1},
        {"threshold": 5},
        {"max_value": 2**63},
    ],
)
def test_contexts_that_cannot_work(change):
    with pytest.raises(ConfigurationError):
        SHARED.server(replace(CONTEXT, **change))


def test_a_client_is_driven_in_order_and_gives_what_fits():
    params = Params(CONTEXT, Suite.X25519)
    client = SharedClient(params, 1)
    with pytest.raises(LocalProtocolError):
        client.provide(inputs()[1])
    client.start()
    with pytest.raises(InvalidInputError):
        client.provide(np.full(50, 2**16, dtype=np.uint64))
    assert client.provide(inputs()[1]) == ()  # before the key is there
    with pytest.raises(LocalProtocolError):
        client.provide(inputs()[1])
    with pytest.raises(ConfigurationError, match="not among the invited"):
        SharedClient(params, 9)
    with pytest.raises(LocalProtocolError):
        SecondServer(params).provide(inputs()[1])


def test_a_low_order_key_is_the_servers_fault():
    from securefl.mpc.summation.params import PROTOCOL
    from securefl.wire import seal_frame

    params = Params(CONTEXT, Suite.X25519)
    client = SharedClient(params, 1)
    client.start()
    client.receive(seal_frame(PROTOCOL, Kind.KEY, params.context_hash, SERVER, 1, bytes(32)))
    with pytest.raises(FaultyServerError, match="cannot be used"):
        client.provide(inputs()[1])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_body_of_any_kind_is_taken_or_refused_by_name(data):
    """A frame whose checksum is right around a body that is anything."""
    from securefl.errors import SecureFLError
    from securefl.mpc.summation.params import PROTOCOL
    from securefl.wire import seal_frame

    first, second, clients = session()
    params = Params(CONTEXT, Suite.X25519)
    kind = data.draw(st.sampled_from(list(Kind)))
    limit = limits_of(params, kind)[kind]
    body = data.draw(st.binary(max_size=min(limit, 300)) | st.just(bytes(limit)))
    sender = data.draw(st.sampled_from([0, 1, 5, SECOND_SERVER]))
    for role, me in ((first, SERVER), (second, SECOND_SERVER), (clients[1], 1)):
        try:
            role.receive(seal_frame(PROTOCOL, kind, params.context_hash, sender, me, body))
        except SecureFLError:
            continue


def test_a_flipped_bit_is_found():
    for place in ((1, 0), (1, 1), (SECOND_SERVER, 0), (SERVER, 0)):
        found = outcome(faults=Faults(flip={place: 8 * 60}))
        assert any(isinstance(error, DecodeError) for _, error in found.failures)
        if found.result is not None:
            assert np.array_equal(found.result.values, sum(inputs()[c] for c in found.result.survivors))
