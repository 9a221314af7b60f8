"""A role moves along its table and nowhere else; every role's table is well formed; events do not print their load."""

import inspect
from dataclasses import FrozenInstanceError
from enum import Enum
from typing import ClassVar

import numpy as np
import pytest

from securefl import machine
from securefl.errors import LocalProtocolError, TooFewClientsError
from securefl.machine import Aborted, Completed, Machine, NeedInput, RoundContext, Send, SumResult
from securefl.plain import PlainClient, PlainServer, PlainSum
from securefl.primitives.kem import Suite
from securefl.secagg import Client, MaskedSum, Params, Server
from securefl.secagg.messages import Kind

CONTEXT = RoundContext(b"s", 0, (1, 2, 3), 4, 10, 2, bytes(32))
ROLES = [Client, Server, PlainClient, PlainServer]
#: Steps that the role itself takes, beside messages received.
LOCAL = {"start", "provide", "mask", "close", "fail"}


class Light(Enum):
    RED = 1
    GREEN = 2
    DARK = 3


class Lamp(Machine):
    TRANSITIONS: ClassVar = {Light.RED: {"go": Light.GREEN}, Light.GREEN: {"stop": Light.RED, "break": Light.DARK}}
    INITIAL = Light.RED

    def __init__(self) -> None:
        super().__init__()
        self.secret = b"never printed"

    def take(self, trigger: str) -> None:
        self._advance(trigger)


def test_a_machine_moves_along_its_table() -> None:
    lamp = Lamp()
    seen = [lamp.state]
    for trigger in ("go", "stop", "go", "break"):
        lamp.take(trigger)
        seen.append(lamp.state)
    assert seen == [Light.RED, Light.GREEN, Light.RED, Light.GREEN, Light.DARK]


@pytest.mark.parametrize(("path", "trigger"), [([], "stop"), ([], "unknown"), (["go"], "go"), (["go", "break"], "go")])
def test_anything_else_is_refused_and_changes_nothing(path: list[str], trigger: str) -> None:
    lamp = Lamp()
    for step in path:
        lamp.take(step)
    before = lamp.state
    with pytest.raises(LocalProtocolError, match=f"Lamp cannot take '{trigger}' in state {before.name}"):
        lamp.take(trigger)
    assert lamp.state is before


def test_the_state_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        Lamp().state = Light.DARK  # type: ignore[misc]


def test_a_machine_prints_its_name_and_state_only() -> None:
    lamp = Lamp()
    assert repr(lamp) == str(lamp) == f"{lamp}" == "<Lamp RED>"


# ---- the tables of the roles --------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_a_table_stays_within_its_states_and_reaches_all_of_them(role: type[Machine]) -> None:
    states = set(type(role.INITIAL))
    assert set(role.TRANSITIONS) <= states
    reached, frontier = {role.INITIAL}, [role.INITIAL]
    while frontier:
        for state in role.TRANSITIONS.get(frontier.pop(), {}).values():
            assert state in states
            if state not in reached:
                reached.add(state)
                frontier.append(state)
    unreachable = {state.name for state in states - reached}
    assert unreachable <= ({"ABORTED"} if role is PlainClient else set())


@pytest.mark.parametrize("role", ROLES)
def test_triggers_are_messages_or_local_steps(role: type[Machine]) -> None:
    known = LOCAL | (set(Kind.__members__) if role in (Client, Server) else {"INPUT"})
    assert {trigger for edges in role.TRANSITIONS.values() for trigger in edges} <= known


@pytest.mark.parametrize("role", ROLES)
def test_start_is_the_only_way_out_of_the_initial_state_and_never_comes_back(role: type[Machine]) -> None:
    assert set(role.TRANSITIONS[role.INITIAL]) == {"start"}
    for state, edges in role.TRANSITIONS.items():
        assert role.INITIAL not in edges.values()
        assert "start" not in edges or state is role.INITIAL


@pytest.mark.parametrize("role", ROLES)
def test_a_table_never_goes_back(role: type[Machine]) -> None:
    """States are declared in the order of the protocol: a finished step is not repeated."""
    order = list(type(role.INITIAL))
    for state, edges in role.TRANSITIONS.items():
        for target in edges.values():
            assert order.index(target) >= order.index(state)


def test_an_ended_client_takes_the_servers_farewell_only() -> None:
    ended = {state.name: set(edges) for state, edges in Client.TRANSITIONS.items() if not set(edges) - {"ABORT"}}
    assert ended == {"FINISHED": {"ABORT"}, "ABORTED": {"ABORT"}}
    assert not any(edges for state, edges in Server.TRANSITIONS.items() if state.name in ("FINISHED", "ABORTED"))


def roles() -> list[Machine]:
    params = Params((1, 2, 3), 4, 10, suite=Suite.X25519)
    return [Client(params, 1), Server(params), PlainClient(CONTEXT, 1), PlainServer(CONTEXT)]


@pytest.mark.parametrize("role", roles(), ids=lambda role: type(role).__name__)
def test_one_object_serves_one_session(role: Machine) -> None:
    assert role.state is role.INITIAL
    role.start()
    with pytest.raises(LocalProtocolError, match="one object serves one session"):
        role.start()


# ---- the face that protections share ------------------------------------------------------------------------


@pytest.mark.parametrize("protection", [PlainSum(), MaskedSum(Suite.X25519)], ids=lambda p: p.name)
def test_protections_and_their_roles_have_the_common_face(protection: machine.Protection) -> None:
    def face(protocol: type) -> set[str]:
        return {name for name in vars(protocol) if not name.startswith("_")}

    assert face(machine.Protection) <= set(dir(protection))
    assert face(machine.ClientRole) <= set(dir(protection.client(CONTEXT, 2)))
    server = protection.server(CONTEXT)
    assert face(machine.ServerRole) <= set(dir(server))
    assert protection.others(CONTEXT) == {}
    assert list(server.waiting_for) == []
    server.start()
    assert list(server.waiting_for) == [1, 2, 3]
    assert protection.client(CONTEXT, 2) is not protection.client(CONTEXT, 2)
    for name in face(machine.ClientRole):
        wanted = inspect.signature(getattr(machine.ClientRole, name)).parameters
        assert list(inspect.signature(getattr(protection.client(CONTEXT, 1), name)).parameters) == list(wanted)[1:]


# ---- events -------------------------------------------------------------------------------------------------

VALUES = np.array([987654321], dtype=np.uint64)
EVENTS = [
    Send(3, b"\xaa\xbb\xcc"),
    NeedInput(),
    Completed(SumResult(VALUES, (1, 2), (2,))),
    Completed(),
    Aborted(TooFewClientsError("1 client"), (4,)),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_frozen_and_print_no_load(event: machine.Event) -> None:
    text = repr(event)
    assert "987654321" not in text
    assert "xaa" not in text
    for name in getattr(event, "__slots__", ()):
        with pytest.raises(FrozenInstanceError):
            setattr(event, name, None)


def test_a_result_prints_who_is_in_it() -> None:
    assert repr(SumResult(VALUES, (1, 2), (2,))) == "SumResult(survivors=(1, 2), suspects=(2,))"
