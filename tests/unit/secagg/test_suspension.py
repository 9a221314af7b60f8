"""A client that is suspended and resumed between any two messages is the same client, and only of its own session."""

from dataclasses import replace

import numpy as np
import pytest

from securefl.errors import DecodeError, FaultyServerError, LocalProtocolError
from securefl.machine import Aborted, Completed, NeedInput, Send, SumResult
from securefl.primitives.kem import Suite
from securefl.secagg import Client, Params, Server
from securefl.types import PartyId

PARAMS = Params(tuple(map(PartyId, (1, 3, 4, 9, 12))), 7, 1000, threshold=3)
X25519 = replace(PARAMS, suite=Suite.X25519)
INPUTS = {i: np.arange(7, dtype=np.uint64) * np.uint64(i) for i in PARAMS.clients}


@pytest.mark.parametrize("params", [PARAMS, X25519], ids=["mlkem768-x25519", "x25519"])
@pytest.mark.parametrize("silent_after", [0, 1, 2, 3])
def test_a_session_of_clients_that_live_for_one_message(params: Params, silent_after: int) -> None:
    server, asleep, sent = Server(params), dict[int, bytes](), dict.fromkeys(params.clients, 0)
    server.start()

    def act(me: PartyId, client: Client, events: list) -> None:
        while events:
            event = events.pop(0)
            if isinstance(event, NeedInput):
                events += client.provide(INPUTS[me].copy())
            elif isinstance(event, Send):
                sent[me] += 1
                if me != 4 or sent[me] <= silent_after:
                    server.receive(event.frame)
        if client.state.name in {"FINISHED", "ABORTED"}:
            asleep.pop(me, None)
        else:
            asleep[me] = client.suspend()

    for me in params.clients:
        client = Client(params, me, minimum_survivors=4)
        act(me, client, list(client.start()))
    while True:
        for event in server.close_round():
            if isinstance(event, Send) and event.to in asleep:
                client = Client.resume(params, asleep[event.to])
                act(event.to, client, list(client.receive(event.frame)))
            elif isinstance(event, Completed):
                assert isinstance(event.result, SumResult)
                counted = tuple(i for i in params.clients if i != 4 or silent_after == 3)
                assert event.result.survivors == counted
                assert (event.result.values == sum(INPUTS[i] for i in counted)).all()
                return
            assert not isinstance(event, Aborted)


def started(params: Params = X25519) -> Client:
    client = Client(params, params.clients[0], minimum_survivors=4)
    client.start()
    return client


def test_the_local_minimum_is_kept() -> None:
    client, server = Client.resume(X25519, started().suspend()), Server(X25519)
    server.start()
    assert client.suspend() == Client.resume(X25519, client.suspend()).suspend()
    assert client._minimum == 4


@pytest.mark.parametrize(
    "other",
    [
        replace(X25519, round=1),
        replace(X25519, session=b"another"),
        replace(X25519, model_hash=b"m" * 32),
        replace(X25519, threshold=4),
        PARAMS,
    ],
)
def test_bytes_of_another_session_are_refused(other: Params) -> None:
    with pytest.raises(DecodeError, match="another session"):
        Client.resume(other, started().suspend())


def test_damaged_bytes_are_refused() -> None:
    data = started().suspend()
    for length in range(len(data)):
        with pytest.raises(DecodeError):
            Client.resume(X25519, data[:length])
    with pytest.raises(DecodeError, match="left over"):
        Client.resume(X25519, data + b"\0")
    with pytest.raises(DecodeError, match="version 9"):
        Client.resume(X25519, b"\x09" + data[1:])
    with pytest.raises(DecodeError, match="no state 200"):
        Client.resume(X25519, data[:1] + b"\xc8" + data[2:])
    with pytest.raises(DecodeError, match="not invited"):
        Client.resume(X25519, data[:34] + (77).to_bytes(4, "big") + data[38:])


def test_only_a_client_within_a_session_is_suspended() -> None:
    with pytest.raises(LocalProtocolError, match="over"):
        Client(X25519, PartyId(1)).suspend()
    client = started()
    client.provide(INPUTS[1].copy())
    with pytest.raises(LocalProtocolError, match="waits to be masked"):
        client.suspend()


def test_a_resumed_client_refuses_what_is_out_of_turn() -> None:
    server = Server(X25519)
    server.start()
    clients = {i: Client(X25519, i) for i in X25519.clients}
    for client in clients.values():
        server.receive(client.start()[0].frame)
    rosters = {event.to: event.frame for event in server.close_round()}
    keys = clients[PartyId(1)].receive(rosters[PartyId(1)])
    resumed = Client.resume(X25519, clients[PartyId(1)].suspend())
    assert resumed.receive(rosters[PartyId(1)]) == ()  # a repeated frame is known by its checksum
    assert resumed.state.name == "SHARED"
    altered = {event.to: event.frame for event in _again().close_round()}[PartyId(1)]
    with pytest.raises(FaultyServerError, match="each step happens once"):
        resumed.receive(altered)
    assert keys


def _again() -> Server:
    """A server of the same session with other keys on its roster."""
    server = Server(X25519)
    server.start()
    for i in X25519.clients:
        server.receive(Client(X25519, i).start()[0].frame)
    return server
