"""ckks and shared inside Flower: a SuperNode that helps, pinned identities, and those who leave."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: python3 dev.py integrations")
pytest.importorskip("tenseal", reason="TenSEAL is not installed: pip install 'securefl[ckks]'")

from flower_loopback import START, LoopbackGrid, close, expected, run, secured
from flwr.app import ConfigRecord, Message
from flwr.serverapp import strategy

from securefl.errors import ConfigurationError
from securefl.integrations.flower import Policy, SecureGrid, SecureMod
from securefl.integrations.flower.records import frames_of, put_frames
from securefl.integrations.keyfile import make_key
from securefl.integrations.peers import HELPER, make_identity
from securefl.primitives.identity import Identity
from securefl.types import PartyId
from securefl.wire import body_of, seal_frame

CASES = [("ckks", "threshold"), ("ckks", "key_holder"), ("ckks", "shared_key"), ("shared", "key_holder")]
HELPER_NODE = 6


pytestmark = pytest.mark.usefixtures("server_app")


def loopback(key_model: str, folder: Path, **named: Any) -> LoopbackGrid:
    """Five clients and, where one is needed, a helper; they trust the server for public keys."""
    grid = LoopbackGrid(5 if key_model == "threshold" else HELPER_NODE, **named)
    for context in grid.contexts.values():
        context.node_config["securefl-allow-unpinned"] = True
        if key_model == "shared_key":
            context.node_config["securefl-ckks-key"] = str(folder / "ckks.key")
    if key_model != "threshold":
        grid.contexts[HELPER_NODE].node_config["securefl-role"] = "helper"
    if key_model == "shared_key":
        make_key(folder / "ckks.key")
    return grid


@pytest.mark.parametrize(("protect", "key_model"), CASES)
def test_the_exact_weighted_mean_under_every_protection(protect: str, key_model: str, tmp_path: Path) -> None:
    nodes = loopback(key_model, tmp_path)
    grid = secured(nodes, protect=protect, key_model=key_model, metrics={"loss": 2.0}, value_bits=20)
    result = run(grid)
    close(result, expected(range(1, 6)), 2e-5)
    for report in grid.reports:
        assert (report.survivors, report.failed) == ((1, 2, 3, 4, 5), None)
        assert report.exchanges == (5 if key_model == "threshold" else 3)
        assert set(report.upload_bytes) == {1, 2, 3, 4, 5}
        assert report.seconds == 0
    for context in nodes.contexts.values():
        assert set(context.state["securefl"]) == {"run", "round"}  # the session's secrets are gone
    hellos = [m for m in nodes.pushed if "hello" in m.content.config_records["securefl"]]
    assert len(hellos) == len(nodes.nodes)  # one roll call in the whole run


def test_flooded_sums_and_adaptive_strategies(tmp_path: Path) -> None:
    nodes, bare = loopback("key_holder", tmp_path), LoopbackGrid(5)
    bare.mods = list
    wanted = run(bare, strategy.FedAvgM(fraction_evaluate=0.0, server_momentum=0.9))
    grid = secured(nodes, protect="ckks", key_model="key_holder", flooding=True, value_bits=16)
    found = run(grid, strategy.FedAvgM(fraction_evaluate=0.0, server_momentum=0.9))
    close(found, {name: array.numpy() for name, array in wanted.arrays.items()}, 1e-3)


def test_evaluation_under_a_key_holder(tmp_path: Path) -> None:
    grid = secured(loopback("key_holder", tmp_path), protect="ckks", evaluate_metrics={"accuracy": 1.0})
    result = run(grid, strategy.FedAvg(), rounds=1)
    wanted = sum(10 * n * n / 100 for n in range(1, 6)) / sum(10 * n for n in range(1, 6))
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_the_threshold_key_is_made_again_without_a_node_that_died(answers: int, tmp_path: Path) -> None:
    nodes = loopback("threshold", tmp_path, dies={2: answers})
    grid = secured(nodes, protect="ckks", key_model="threshold", threshold=4)
    result = run(grid, rounds=1)
    # the roll call is no message of the round: a node that answers it and nothing else has died in the first exchange
    close(result, expected((1, 3, 4, 5), 1), 1e-5)
    assert grid.reports[0].survivors == (1, 3, 4, 5)
    assert grid.reports[0].seconds == pytest.approx(30.0 if answers == 2 else 20.0)


@pytest.mark.parametrize("protect", ["ckks", "shared"])
def test_clients_and_helpers_that_die(protect: str, tmp_path: Path) -> None:
    nodes = loopback("key_holder", tmp_path, dies={2: 0})
    grid = secured(nodes, protect=protect)
    close(run(grid, rounds=1), expected((1, 3, 4, 5), 1), 1e-3)
    nodes = loopback("key_holder", tmp_path, dies={HELPER_NODE: 1})
    grid = secured(nodes, protect=protect)

    def revive(round: int, arrays: Any) -> None:
        if round == 1:
            nodes.dies = {}

    result = run(grid, evaluate_fn=revive)
    assert grid.reports[0].failed is not None
    assert "Error" in grid.reports[0].failed
    assert grid.reports[1].failed is None
    moved = {name: expected(range(1, 6), 2)[name] - expected(range(1, 6), 1)[name] + START[name] for name in START}
    close(result, moved, 1e-3)


@pytest.mark.parametrize("wrong", ["missing", "damaged", "of another client"])
def test_a_node_that_signs_falsely_leaves_the_sum_alone(wrong: str, tmp_path: Path) -> None:
    """The second server would sum nothing; the server looks first, and says who and why."""
    nodes = loopback("key_holder", tmp_path)
    answer, signatures = nodes.deliver, {}

    def deliver(message: Message, context: Any) -> Message:
        reply = answer(message, context)
        frames = [] if reply.has_error() else [bytes(frame) for frame in frames_of(reply.content)]
        if context.node_id == HELPER_NODE or len(frames) != 3:
            return reply
        signed = signatures[context.node_id] = frames[0]
        if context.node_id == 2:
            body = {"damaged": bytes(64), "of another client": body_of(signatures[1])}.get(wrong)
            frames = frames[1:]
            if body is not None:
                frames.insert(0, seal_frame(9, 2, signed[24:56], PartyId(2), HELPER, body))
            put_frames(reply.content, frames)
        return reply

    nodes.deliver = deliver  # type: ignore[method-assign]
    grid = secured(nodes, protect="shared", identity=pin(nodes, tmp_path))
    close(run(grid, rounds=1), expected((1, 3, 4, 5), 1), 1e-3)
    (report,) = grid.reports
    assert (report.survivors, report.failed) == ((1, 3, 4, 5), None)
    assert list(report.dropped) == [2]
    assert report.dropped[2].startswith("AuthenticationError: ")
    assert sorted(signatures) == [1, 2, 3, 4, 5]


def test_without_a_helper_every_round_fails_with_a_name() -> None:
    nodes = LoopbackGrid(5, node_config={"securefl-allow-unpinned": True})
    grid = secured(nodes, protect="shared")
    run(grid, rounds=1)
    assert "0 nodes are helpers" in str(grid.reports[0].failed)
    with pytest.raises(ConfigurationError, match="one sum at a time"):
        secured(nodes, protect="shared", groups=3)


def pin(nodes: LoopbackGrid, folder: Path, strangers: tuple[int, ...] = ()) -> Path:
    """Identities and lists of peers for every node, in files; the server's identity."""
    keys = {node: make_identity(folder / f"node{node}").public.hex() for node in nodes.nodes}
    server = make_identity(folder / "server").public.hex()
    clients = [keys[node] for node in nodes.nodes if node != HELPER_NODE and node not in strangers]
    for node, context in nodes.contexts.items():
        own = clients if node not in strangers else [*clients, keys[node]]
        named = f'clients = {own!r}\nserver = "{server}"\n'.replace("'", '"')
        if HELPER_NODE in keys:
            named += f'helper = "{keys[HELPER_NODE]}"\n'
        (folder / f"peers{node}.toml").write_text(named)
        context.node_config["securefl-identity"] = str(folder / f"node{node}")
        context.node_config["securefl-peers"] = str(folder / f"peers{node}.toml")
        context.node_config.pop("securefl-allow-unpinned", None)
    return folder / "server"


@pytest.mark.parametrize(("protect", "key_model"), CASES)
def test_pinned_identities(protect: str, key_model: str, tmp_path: Path) -> None:
    nodes = loopback(key_model, tmp_path)
    server = pin(nodes, tmp_path)
    grid = secured(nodes, protect=protect, key_model=key_model, identity=server)
    close(run(grid, rounds=1), expected(range(1, 6), 1), 1e-3)
    stranger = secured(nodes, protect=protect, key_model=key_model)  # a server of another identity
    stranger._sums = 1
    run(stranger, rounds=1)
    refused = stranger.reports[0]
    assert "AuthenticationError: the server is named under" in (str(refused.failed) + str(refused.dropped))


def test_pinned_identities_in_masked_sums(tmp_path: Path) -> None:
    nodes = loopback("threshold", tmp_path)
    server = pin(nodes, tmp_path)
    unnamed = secured(nodes, protect="masked")
    run(unnamed, rounds=1)
    assert "names no public keys" in str(unnamed.reports[0].dropped[1])
    grid = secured(nodes, protect="masked", identities=True, identity=server)
    grid._sums = 1
    close(run(grid, rounds=1), expected(range(1, 6), 1), 1e-3)
    assert grid.reports[0].exchanges == 5  # the consistency check is one more


@pytest.mark.parametrize("answers", range(5))
def test_clients_with_pins_die_at_each_step(answers: int, tmp_path: Path) -> None:
    nodes = loopback("threshold", tmp_path, dies={2: answers})
    grid = secured(nodes, identities=True, identity=pin(nodes, tmp_path), threshold=4)
    survivors = (1, 2, 3, 4, 5) if answers >= 3 else (1, 3, 4, 5)
    close(run(grid, rounds=1), expected(survivors, 1), 1e-3)
    assert grid.reports[0].survivors == survivors


def test_a_client_that_the_others_do_not_know_stops_them(tmp_path: Path) -> None:
    nodes = loopback("threshold", tmp_path)
    grid = secured(nodes, protect="ckks", key_model="threshold", identity=pin(nodes, tmp_path, strangers=(5,)))
    run(grid, rounds=1)
    assert "TooFewClientsError" in str(grid.reports[0].failed)
    assert "client 5 is invited under a public key" in str(grid.reports[0].dropped[1])


def test_a_server_that_puts_its_own_key_in_a_clients_place(tmp_path: Path) -> None:
    nodes = loopback("threshold", tmp_path)
    server = pin(nodes, tmp_path)
    grid = secured(nodes, protect="ckks", key_model="threshold", identity=server)
    own, honest = Identity(bytes(32)), grid.muster.names
    grid.muster.names = lambda n, h: type(honest(n, h))((own.public, *honest(n, h).clients[1:]), b"", b"")
    run(grid, rounds=1)
    assert "TooFewClientsError" in str(grid.reports[0].failed)
    assert all("Authentication" in reason for reason in grid.reports[0].dropped.values())


def test_a_helper_is_no_client_and_a_client_no_helper(tmp_path: Path) -> None:
    nodes = loopback("key_holder", tmp_path)
    grid = secured(nodes, protect="shared")
    run(grid, rounds=1)
    invitation = next(m for m in nodes.pushed if "invitation" in m.content.config_records["securefl"])
    record = dict(invitation.content.config_records["securefl"])
    for node, me, says in ((1, 2**32 - 1, "id for this client"), (HELPER_NODE, 1, "helper and no client")):
        message = Message(invitation.content.copy(), dst_node_id=node, message_type="train")
        message.content["securefl"] = ConfigRecord({**record, "me": me})
        (reply,) = nodes.send_and_receive([message])
        assert says in str(reply.error.reason) or "own" in str(reply.error.reason)


def test_the_application_may_say_which_node_helps_in_a_simulation() -> None:
    nodes = LoopbackGrid(HELPER_NODE)
    nodes.mods = lambda: [SecureMod(Policy(allow_unpinned=True), helper=lambda c: c.node_id == HELPER_NODE)]
    grid: SecureGrid = secured(nodes, protect="shared")
    close(run(grid, rounds=1), expected(range(1, 6), 1), 1e-3)
    nodes = LoopbackGrid(5, node_config={"securefl-role": "judge"})
    assert list(secured(nodes, protect="shared").get_node_ids()) == []
    assert all("securefl-role is" in str(reply.error.reason) for reply in nodes.replies)


def test_a_node_that_is_started_anew_is_asked_again(tmp_path: Path) -> None:
    nodes = loopback("threshold", tmp_path)
    grid = secured(nodes, protect="ckks", key_model="threshold", threshold=4)

    def restart(round: int, arrays: Any) -> None:
        if round == 1:
            nodes.contexts[3].state.clear()  # its identity lasted as long as its process

    run(grid, rounds=3, evaluate_fn=restart)
    assert [len(report.survivors) for report in grid.reports] == [5, 4, 5]
