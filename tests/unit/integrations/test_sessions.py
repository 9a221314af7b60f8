"""Whole sums by participants that live for one message each, without any engine: means, metrics, refusals."""

import math
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from securefl.encoding.layout import Layout
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
    TooFewClientsError,
)
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.invitation import Invitation
from securefl.integrations.participant import Participant
from securefl.integrations.policy import Policy
from securefl.integrations.settings import Settings
from securefl.integrations.tensors import arrays_hash, difference, floating, layout_of
from securefl.integrations.terms import CompressionTerms
from securefl.integrations.vector import VectorCoder
from securefl.types import PartyId
from securefl.wire import Reader, Writer

SHAPES = {"a": (3, 2), "b": (4,)}
UPDATES = {
    i: {n: np.random.default_rng([i, len(n)]).uniform(-0.4, 0.4, s).astype(np.float32) for n, s in SHAPES.items()}
    for i in range(1, 6)
}


def invitation(**changes: Any) -> Invitation:
    settings = Settings(suite="x25519", threshold=3, clip_range=0.5, max_weight=64, value_bits=24, metrics={"m": 2.0})
    made = settings.invitation(
        "train",
        b"session",
        1,
        5,
        weight_key="n",
        layout=Layout.of(UPDATES[1]).tensors,
        model_hash=bytes(32),
        arguments_hash=bytes(32),
    )
    return replace(made, **changes)


def one_sum(proposal: Invitation, policy: Policy | None = None, silent_after: dict[int, int] | None = None) -> Any:
    """A session in which every participant is suspended after each message."""
    server, asleep, sent = Coordinator(proposal), dict[int, bytes](), dict.fromkeys(proposal.ids, 0)

    def act(me: int, participant: Participant, frames: list[Any]) -> None:
        if participant.ready:
            frames += participant.provide(participant.coder.encode(UPDATES[me], me, {"m": 1 / me, "other": math.nan}))
        asleep[me] = b"" if participant.over else participant.suspend()
        sent[me] += 1
        if frames and sent[me] <= (silent_after or {}).get(me, 9):
            server.receive(PartyId(me), frames)

    for me in proposal.ids:
        act(me, *Participant.invited(proposal.encode(), me, policy or Policy()))
    while not server.over:
        for me, frames in server.close().items():
            participant = Participant.resume(asleep[me])
            if server.error is not None:
                with pytest.raises(type(server.error)):  # the notice that the session has ended
                    participant.receive(frames)
                continue
            act(me, participant, participant.receive(frames))
    return server


def test_the_weighted_means_of_updates_and_metrics() -> None:
    server = one_sum(invitation(), silent_after={2: 2})
    means, alive = server.coder.decode(server.result), (1, 3, 4, 5)
    assert server.result.survivors == alive
    assert (means.total_weight, means.survivors) == (13, 4)
    for name in SHAPES:
        assert np.abs(means.update[name] - sum(i * UPDATES[i][name] for i in alive) / 13).max() < 1e-5
    assert means.metrics == pytest.approx({"m": 4 / 13}, abs=1e-5)
    assert list(server.dropped()) == [2]
    assert server.exchange == 4


def test_an_update_is_clipped_before_its_metrics_are_added() -> None:
    server = one_sum(invitation(clip_norm=0.1))
    means = server.coder.decode(server.result)
    clipped = {
        i: np.concatenate([UPDATES[i][n].ravel() for n in SHAPES]).astype(float) for i in range(1, 6)
    }  # fmt: skip
    mean = sum(i * x * min(1, 0.1 / np.linalg.norm(x)) for i, x in clipped.items()) / 15
    assert np.abs(np.concatenate([means.update[n].ravel() for n in SHAPES]) - mean).max() < 1e-5
    assert means.metrics == pytest.approx({"m": 5 / 15}, abs=1e-5)


def test_too_few_are_left() -> None:
    server = one_sum(invitation(), silent_after=dict.fromkeys((1, 2, 3), 2))
    assert isinstance(server.error, TooFewClientsError)
    assert server.result is None


def test_whom_the_engine_names_is_who_speaks() -> None:
    server = Coordinator(invitation())
    _, frames = Participant.invited(invitation().encode(), PartyId(2), Policy())
    server.receive(PartyId(3), frames)
    assert "speaks for another" in server.failures[3]
    server.receive(PartyId(4), [b"short"])
    assert server.waiting_for == {1, 2, 5}
    server.receive(PartyId(2), [b"\0" * 200])
    assert "FaultyClientError" in server.failures[2]


@pytest.mark.parametrize("protect", ["shared", "ckks", "rot13"])
def test_sums_that_name_nobody_and_unknown_protections_are_refused_on_both_sides(protect: str) -> None:
    proposal = invitation(protect=protect)
    with pytest.raises(ConfigurationError):
        Coordinator(proposal)
    with pytest.raises((ConfigurationError, AuthenticationError)):
        Participant.invited(proposal.encode(), PartyId(1), Policy(allow_plain=True))


def test_a_client_that_is_bound_to_other_terms_is_not_understood() -> None:
    server = Coordinator(invitation())
    other = invitation(metrics=(("m", 3.0),))
    _, frames = Participant.invited(other.encode(), PartyId(1), Policy())
    server.receive(PartyId(1), frames)
    assert "another session, round, parameter set or model" in server.failures[1]


def test_what_is_suspended() -> None:
    participant, _ = Participant.invited(invitation().encode(), PartyId(1), Policy())
    data = participant.suspend()
    with pytest.raises(DecodeError):
        Participant.resume(data + b"\0")
    plain = invitation(protect="plain")
    open_one, _ = Participant.invited(plain.encode(), PartyId(1), Policy(allow_plain=True))
    assert open_one.ready
    with pytest.raises(LocalProtocolError):
        open_one.suspend()
    reader = Reader(data)
    reader.blob(limit=2**20)
    with pytest.raises(DecodeError, match="plain"):
        Participant.resume(Writer().blob(plain.encode()).blob(reader.blob(limit=2**20)).done())


@pytest.mark.parametrize("metrics", [{}, {"m": math.nan}, {"m": True}, {"m": "1"}, {"other": 1.0}])
def test_a_metric_that_is_asked_for_must_be_a_number(metrics: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="'m'"):
        VectorCoder.of(invitation()).encode(UPDATES[1], 1, metrics)


COMPRESSED = CompressionTerms("", 1.0, 3, 3.0, False, 1.0, bytes(32))


@pytest.mark.parametrize("compression", [None, COMPRESSED])
@pytest.mark.parametrize(
    ("weight", "metrics", "added", "says"),
    [
        (73123, {"m": 1.0}, 0.0, "'n' must be a whole number from 1 to 64"),
        (0, {"m": 1.0}, 0.0, "'n' must be a whole number from 1 to 64"),
        (73123.5, {"m": 1.0}, 0.0, "'n' must be a whole number from 1 to 64"),
        (5, {"m": "73123"}, 0.0, "'m' is asked for"),
        (5, {"m": [73123]}, 0.0, "'m' is asked for"),
        (5, {"m": 1.0}, np.nan, "not finite"),
        (5, {"m": 1.0}, 7.3123e30, "no finite square"),
    ],
)
def test_what_cannot_be_summed_is_not_in_the_error(
    weight: Any, metrics: Any, added: float, says: str, compression: CompressionTerms | None
) -> None:
    """An engine carries the text to the server."""
    given = {name: value + np.float32(added) for name, value in UPDATES[1].items()}
    coder = VectorCoder.of(invitation(compression=compression))
    if says == "no finite square" and compression is None:
        coder.encode(given, weight, metrics)  # cut at the clip range
        return
    with pytest.raises(InvalidInputError, match=says) as caught:
        coder.encode(given, weight, metrics)
    assert "3123" not in str(caught.value)


def test_a_metric_beyond_its_bound_is_cut() -> None:
    coder = VectorCoder.of(invitation())
    low, high = (coder.encode(UPDATES[1], 64, {"m": value})[-2] for value in (-99.0, 99.0))
    assert (low, high) == (0, coder.coder.max_value)


def test_settings_make_majorities() -> None:
    assert [Settings(threshold=0.6).threshold_for(n) for n in (2, 3, 10, 20)] == [2, 2, 6, 12]
    assert [Settings(threshold=0.1).threshold_for(n) for n in (2, 5, 10)] == [2, 3, 6]
    assert Settings(threshold=7).threshold_for(10) == 7
    groups = Settings(groups=3).split(list(range(10, 20)))
    assert sorted(node for group in groups for node in group) == list(range(10, 20))
    assert sorted(map(len, groups)) == [3, 3, 4]


def test_tensors_are_taken_by_name() -> None:
    model = {"b": np.zeros(2, np.float32), "a": np.ones(1), "count": np.array(3)}
    summed = floating(model, ["count"])
    assert list(summed) == ["a", "b"]
    assert arrays_hash(model) == arrays_hash(dict(reversed(model.items()))) != arrays_hash(summed)
    with pytest.raises(InvalidInputError, match="count"):
        floating(model, [])
    layout = layout_of(summed)
    after = {"a": model["a"] + 1, "b": model["b"], "count": np.array(9)}
    assert difference(model, after, layout)["a"] == 1
    assert "count" not in difference(model, after, layout)
    with pytest.raises(InvalidInputError, match="other tensors"):
        difference(model, {"a": model["a"]}, layout)
    with pytest.raises(InvalidInputError, match="shape or type"):
        difference(model, {**after, "b": np.zeros(3, np.float32)}, layout)
    with pytest.raises(FaultyServerError, match="another model"):
        difference({**model, "b": np.zeros(3, np.float32)}, after, layout)


def test_random_bytes_are_no_invitation() -> None:
    valid = invitation().encode()
    draw = np.random.default_rng(7)
    for _ in range(500):
        damaged = bytearray(valid)
        for at in draw.integers(0, len(valid), 3):
            damaged[at] = int(draw.integers(0, 256))
        for data in (bytes(damaged), os.urandom(int(draw.integers(0, 200)))):
            try:
                Invitation.decode(data).encode()
            except DecodeError:
                continue


@pytest.mark.parametrize(
    ("said", "noted"),
    [
        ("Traceback …\nValueError: no", "ValueError: no"),
        ("", "an error without words"),
        (" \n\n", "an error without words"),
        ("red \x1b[31m\u202ealert", "red ?[31m?alert"),
        ("x" * 10_000, "x" * 500 + "…"),
    ],
)
def test_what_a_failed_party_says_is_one_short_printable_line(said: str, noted: str) -> None:
    server = Coordinator(invitation())
    server.failed(PartyId(2), said)
    assert server.failures[2] == noted
