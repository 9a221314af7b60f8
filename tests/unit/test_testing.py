"""Replaceable randomness: recorded sessions replay bit for bit, and the product cannot reach the seeds."""

import ast
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from Crypto.Hash import SHAKE256

import securefl
from securefl.machine import Completed, Send
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.kem import Suite, key_pair, unseal
from securefl.secagg import Client, Params, Server
from securefl.testing import RecordingEntropy, ReplayEntropy, SeededEntropy

PARAMS = Params((1, 2, 3), 5, 9, suite=Suite.X25519)


def by_hand(seed: bytes, counter: int, length: int) -> bytes:
    return SHAKE256.new(seed + counter.to_bytes(8, "big")).read(length)


@pytest.mark.parametrize(
    ("seed", "encoded"), [(b"seed", b"seed"), (5, (5).to_bytes(16, "big")), (-1, b"\xff" * 16), (0, bytes(16))]
)
def test_seeded_tokens_are_shake256_of_seed_and_counter(seed: bytes | int, encoded: bytes) -> None:
    source = SeededEntropy(seed)
    assert [source.token(n) for n in (32, 5, 200)] == [by_hand(encoded, i, n) for i, n in ((1, 32), (2, 5), (3, 200))]


def test_equal_seeds_give_equal_tokens_and_others_do_not() -> None:
    assert SeededEntropy(1).token(32) == SeededEntropy(1).token(32) != SeededEntropy(2).token(32)


def test_seals_of_a_seeded_source_are_real() -> None:
    private, public = key_pair(Suite.X25519, bytes(32))
    source = SeededEntropy(1)
    assert unseal(private, source.seal(public, b"x", b"i"), b"i") == b"x"
    assert source.seal(public, b"x", b"i") != source.seal(public, b"x", b"i")


def test_a_recording_keeps_everything_in_order() -> None:
    _, public = key_pair(Suite.X25519, bytes(32))
    recording = RecordingEntropy(SeededEntropy(3))
    given = [recording.token(4), recording.token(8)]
    sealed = [recording.seal(public, b"a", b""), recording.seal(public, b"b", b"")]
    assert recording.tokens == given == [by_hand((3).to_bytes(16, "big"), i, n) for i, n in ((1, 4), (2, 8))]
    assert recording.seals == sealed
    assert len(RecordingEntropy().token(7)) == 7  # the system's by default
    assert isinstance(RecordingEntropy()._source, SystemEntropy)


def play(entropies: Mapping[int, Entropy]) -> list[bytes]:
    """A whole session; client 3 drops after sharing. Returns every frame that the server took."""
    server, clients = Server(PARAMS), {i: Client(PARAMS, i, entropy=entropies[i]) for i in PARAMS.clients}
    server.start()
    taken: list[bytes] = []
    waiting = [client.start()[0].frame for client in clients.values()]
    for i, client in clients.items():
        client.provide(np.full(5, i, dtype=np.uint64))
    while True:
        for frame in waiting:
            taken.append(bytes(frame))
            server.receive(frame)
        events = server.close_round()
        if isinstance(events[0], Completed):
            assert events[0].result.values.tolist() == [1 + 2] * 5
            return taken
        waiting = []
        for event in events:
            answers = clients[event.to].receive(event.frame)
            if not (event.to == 3 and server.state.name == "MASK"):
                waiting += [answer.frame for answer in answers if isinstance(answer, Send)]


def test_a_recorded_session_replays_bit_for_bit() -> None:
    recordings = {i: RecordingEntropy() for i in PARAMS.clients}
    frames = play(recordings)
    replays = {i: ReplayEntropy(r.tokens, r.seals) for i, r in recordings.items()}
    assert play(replays) == frames
    assert all(replay.exhausted for replay in replays.values())
    assert play({i: SeededEntropy(i) for i in PARAMS.clients}) != frames


def test_a_replay_refuses_other_amounts() -> None:
    _, public = key_pair(Suite.X25519, bytes(32))
    replay = ReplayEntropy([b"1234"], [b"sealed"])
    with pytest.raises(LookupError, match="no recorded token of 5 bytes"):
        replay.token(5)
    assert replay.token(4) == b"1234"
    with pytest.raises(LookupError, match="no recorded token of 4 bytes"):
        replay.token(4)
    assert not replay.exhausted
    assert replay.seal(public, b"", b"") == b"sealed"
    assert replay.exhausted
    with pytest.raises(LookupError, match="no recorded seal"):
        replay.seal(public, b"", b"")


def test_nothing_in_the_package_imports_the_seeds() -> None:
    root = Path(securefl.__file__).parent
    importers = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            if any(name == "securefl.testing" or name.startswith("securefl.testing.") for name in names):
                importers.append(path.name)
    assert importers == []
