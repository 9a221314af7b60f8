"""What a node refuses a server, and what it answers only once: floors, other models, repeated sums."""

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: python3 dev.py integrations")

from flower_loopback import (
    RUN,
    START,
    LoopbackGrid,
    arrays_of,
    close,
    expected,
    run,
    secured,
)
from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import strategy

from securefl.integrations.flower import Policy, SecureMod

pytestmark = pytest.mark.usefixtures("server_app")


def errors_of(grid: LoopbackGrid) -> set[str]:
    return {str(reply.error.reason) for reply in grid.replies if reply.has_error()}


def test_a_client_gives_nothing_to_a_server_without_protection() -> None:
    loopback = LoopbackGrid(5)
    run(loopback, strategy.FedAvg(), rounds=1)
    assert len(errors_of(loopback)) == 2
    assert all("without protection" in error for error in errors_of(loopback))
    open_handed = LoopbackGrid(5)
    open_handed.mods = lambda: [SecureMod(Policy(allow_unprotected_evaluate=True))]
    run(open_handed, strategy.FedAvg(), rounds=1)
    assert len(errors_of(open_handed)) == 1


@pytest.mark.parametrize(
    ("node_config", "settings", "says"),
    [
        ({"securefl-minimum-clients": 6}, {}, "5 clients are invited"),
        ({"securefl-minimum-threshold": 5}, {"threshold": 4}, "a threshold of 4"),
        ({"securefl-minimum-survivors": 7}, {}, "asks for 7"),
        ({"securefl-minimum-noise": 0.5}, {}, "noise multiplier of 0"),
        ({"securefl-minimum-client": 6}, {}, "no setting of a policy"),
        ({"securefl-allow-plain": "yes"}, {}, "true or false"),
        ({"securefl-policy": "/nowhere.toml"}, {}, "cannot be read"),
        ({}, {"protect": "plain"}, "unprotected sum"),
    ],
)
def test_floors_come_from_the_node(node_config: dict[str, Any], settings: dict[str, Any], says: str) -> None:
    loopback = LoopbackGrid(5, node_config=node_config)
    grid = secured(loopback, **settings)
    run(grid, rounds=1)
    assert "TooFewClientsError" in grid.reports[0].failed
    assert len(loopback.replies) == 5
    assert all(says in error for error in errors_of(loopback))


def test_a_floor_of_survivors_holds_within_the_session() -> None:
    loopback = LoopbackGrid(5, dies={3: 2}, node_config={"securefl-minimum-survivors": 5})
    grid = secured(loopback, threshold=3)
    run(grid, rounds=1)
    assert "TooFewClientsError" in grid.reports[0].failed
    assert any("4 clients survived" in error for error in errors_of(loopback))


def test_another_model_or_configuration_for_one_client_is_refused_by_it() -> None:
    for what in ("arrays", "config"):
        loopback = LoopbackGrid(5)

        def tamper(message: Message, what: str = what) -> None:
            if message.metadata.dst_node_id == 3 and "arrays" in message.content:
                if what == "arrays":
                    other = {**START, "b": START["b"] + np.float32(1e-6)}
                    message.content["arrays"] = ArrayRecord(arrays_of(other))
                else:
                    message.content["config"] = ConfigRecord({"server-round": 9})

        loopback.tamper = tamper
        grid = secured(loopback, threshold=3)
        result = run(grid, rounds=1)
        assert grid.reports[0].survivors == (1, 2, 4, 5)
        assert "AuthenticationError" in grid.reports[0].dropped[3]
        close(result, expected((1, 2, 4, 5), 1))


def test_a_sum_is_not_repeated_with_other_clients() -> None:
    loopback = LoopbackGrid(5)
    grid = secured(loopback)
    run(grid, rounds=2)
    grid._sums = 0
    run(grid, rounds=1)
    assert "TooFewClientsError" in grid.reports[-1].failed
    assert any("answered already" in error for error in errors_of(loopback))


def test_an_error_does_not_make_room_for_a_repetition() -> None:
    loopback = LoopbackGrid(5)

    def spoil(message: Message) -> None:
        if "securefl.frames" in message.content and "arrays" in message.content:
            message.content["config"] = ConfigRecord({"server-round": 9})

    loopback.tamper = spoil
    grid = secured(loopback)
    run(grid, rounds=1)
    assert "TooFewClientsError" in grid.reports[0].failed
    assert all(set(context.state["securefl"]) == {"run", "round"} for context in loopback.contexts.values())
    loopback.tamper, grid._sums = lambda message: None, 0
    run(grid, rounds=1)
    assert any("answered already" in error for error in errors_of(loopback))


@pytest.mark.parametrize("protect", ["masked", "signed", "ckks-threshold", "ckks"])
def test_of_two_messages_at_once_a_node_answers_one(protect: str) -> None:
    """Flower gives both processes the state that the node had: a server that deviates sends two sets of survivors, or
    asks a key holder to open two sums.
    """
    loopback, second = LoopbackGrid(5), []
    helped = protect == "ckks"

    def both(message: Message, context: Context) -> Message:
        before = Context(RUN, context.node_id, context.node_config, copy.deepcopy(context.state), {}, 5)
        again, counts = copy.deepcopy(message), "hello" not in message.content.config_records["securefl"]
        reply = deliver(message, context)
        if counts:
            assert not reply.has_error()
            second.append(deliver(again, before))
        return reply

    deliver, loopback.deliver = loopback.deliver, both
    loopback.mods = lambda: [
        SecureMod(Policy(allow_unpinned=True), helper=lambda context: helped and context.node_id == 5)
    ]
    settings = {
        "masked": {},
        "signed": {"identities": True},
        "ckks": {"protect": "ckks", "key_model": "key_holder", "value_bits": 16},
        "ckks-threshold": {"protect": "ckks", "key_model": "threshold", "value_bits": 16},
    }[protect]
    grid = secured(loopback, **settings)
    run(grid, rounds=1)
    assert grid.reports[0].survivors == ((1, 2, 3, 4) if helped else (1, 2, 3, 4, 5))
    refused = [reply.error.reason for reply in second if reply.has_error()]
    assert len(refused) == len(second) == {"masked": 20, "signed": 25, "ckks": 6, "ckks-threshold": 25}[protect]
    assert all("second message to one state" in why or "answered already" in why for why in refused)
