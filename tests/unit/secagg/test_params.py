"""Parameters that cannot work are refused before anything is sent; every one of them enters the context hash."""

from dataclasses import FrozenInstanceError, replace

import pytest
from Crypto.Hash import TupleHash256
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding.ring import Lanes
from securefl.errors import ConfigurationError
from securefl.machine import RoundContext
from securefl.primitives.kem import Suite
from securefl.secagg import Adversary, Graph, Params

CLIENTS = (2, 3, 5, 8, 13)
PARAMS = Params(CLIENTS, 10, 100, session=b"run", round=4, model_hash=b"\7" * 32)


@pytest.mark.parametrize(("n", "threshold"), [(2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (100, 51), (101, 51)])
def test_the_default_threshold_is_the_smallest_majority(n: int, threshold: int) -> None:
    params = Params(tuple(range(1, n + 1)), 1, 1)
    assert params.threshold == threshold
    assert 2 * params.threshold > n >= 2 * (params.threshold - 1)


def test_the_default_suite_is_the_hybrid() -> None:
    assert (PARAMS.suite, PARAMS.adversary, PARAMS.graph) == (
        Suite.MLKEM768_X25519,
        Adversary.SEMI_HONEST,
        Graph.COMPLETE,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clients": ()}, "needs 2 to 65536 clients, got 0"),
        ({"clients": (1,)}, "needs 2 to 65536 clients, got 1"),
        ({"clients": tuple(range(1, 2**16 + 2))}, "got 65537"),
        ({"clients": (1, 1, 2)}, "distinct, ascending"),
        ({"clients": (2, 1, 3)}, "distinct, ascending"),
        ({"clients": (0, 1, 2)}, "within 1 to"),
        ({"clients": (-1, 1, 2)}, "within 1 to"),
        ({"clients": (1, 2, 2**32)}, "within 1 to"),
        ({"threshold": 1}, "threshold must be 2 to 5"),
        ({"threshold": -3}, "threshold must be 2 to 5"),
        ({"threshold": 6}, "threshold must be 2 to 5"),
        ({"threshold": 2}, "not a majority of 5 clients"),
        ({"threshold": 3.0}, "whole number"),
        ({"threshold": True}, "whole number"),
        ({"dimension": 0}, "empty"),
        ({"dimension": -1}, "empty"),
        ({"max_value": 0}, "at least 1"),
        ({"max_value": 2**62}, "need 65 bits"),
        ({"session": b""}, "1 to 64 bytes, got 0"),
        ({"session": bytes(65)}, "1 to 64 bytes, got 65"),
        ({"round": -1}, "round must be"),
        ({"round": 2**32}, "round must be"),
        ({"model_hash": b""}, "32 bytes, got 0"),
        ({"model_hash": bytes(33)}, "32 bytes, got 33"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_refused(change: dict, message: str) -> None:
    arguments = {"clients": CLIENTS, "dimension": 10, "max_value": 100, "threshold": 3, **change}
    with pytest.raises(ConfigurationError, match=message):
        Params(**arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"clients": (1, 2**32 - 1), "threshold": 2},
        {"threshold": 5},
        {"session": bytes(64)},
        {"session": b"\0"},
        {"round": 0},
        {"round": 2**32 - 1},
        {"dimension": 1, "max_value": 1},
        {"max_value": (2**64 - 1) // 5},
    ],
    ids=str,
)
def test_the_bounds_themselves_work(change: dict) -> None:
    replace(PARAMS, **change)


@pytest.mark.parametrize(("n", "threshold"), [(4, 2), (5, 2), (6, 3), (100, 50)])
def test_a_minority_threshold_must_be_asked_for(n: int, threshold: int) -> None:
    """Two disjoint sets of shares could open both seeds of one client."""
    clients = tuple(range(1, n + 1))
    with pytest.raises(ConfigurationError, match="not a majority"):
        Params(clients, 1, 1, threshold=threshold)
    assert Params(clients, 1, 1, threshold=threshold, allow_minority_threshold=True).threshold == threshold
    assert Params(clients, 1, 1, threshold=n // 2 + 1).threshold == n // 2 + 1
    with pytest.raises(ConfigurationError, match="must be 2 to"):
        Params(clients, 1, 1, threshold=1, allow_minority_threshold=True)


def test_lanes_have_room_for_the_whole_cohort() -> None:
    assert PARAMS.lanes.lanes == (Lanes(10, 100, 5),)
    assert PARAMS.lanes is PARAMS.lanes


def test_points_are_places_in_the_cohort() -> None:
    assert [PARAMS.point(client) for client in CLIENTS] == [1, 2, 3, 4, 5]
    assert [client in PARAMS for client in (0, 1, 2, 4, 13, 14, -2, "2", None)] == [
        client in CLIENTS for client in (0, 1, 2, 4, 13, 14, -2, "2", None)
    ]
    with pytest.raises(KeyError):
        PARAMS.point(4)


def test_parameters_are_frozen_values() -> None:
    with pytest.raises(FrozenInstanceError):
        PARAMS.threshold = 2  # type: ignore[misc]
    again = replace(PARAMS)
    assert again == PARAMS
    assert hash(again) == hash(PARAMS)
    assert again.context_hash == PARAMS.context_hash


# ---- the context hash ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    clients=st.sets(st.integers(1, 2**32 - 1), min_size=2, max_size=6),
    dimension=st.integers(1, 2**33),
    max_value=st.integers(1, 2**60),
    session=st.binary(min_size=1, max_size=64),
    number=st.integers(0, 2**32 - 1),
    model=st.binary(min_size=32, max_size=32),
    suite=st.sampled_from(Suite),
    encoding=st.binary(max_size=32),
)
def test_the_context_hash_is_the_one_of_the_specification(
    clients: set[int],
    dimension: int,
    max_value: int,
    session: bytes,
    number: int,
    model: bytes,
    suite: Suite,
    encoding: bytes,
) -> None:
    ids = tuple(sorted(clients))
    params = Params(
        ids, dimension, max_value, session=session, round=number, model_hash=model, suite=suite, encoding=encoding
    )
    hasher = TupleHash256.new(digest_bytes=32, custom=b"securefl/v1/context")
    hasher.update(b"secagg", session, number.to_bytes(4, "big"), bytes([suite.code, 1, 1]))
    hasher.update((len(ids) // 2 + 1).to_bytes(4, "big"), dimension.to_bytes(8, "big"), max_value.to_bytes(8, "big"))
    hasher.update(b"".join(i.to_bytes(4, "big") for i in ids), model)
    if encoding:  # appended after an empty field; without it the hash is as if there were no such parameter
        hasher.update(b"", encoding)
    assert params.context_hash == hasher.digest()


def test_every_parameter_enters_the_context_hash() -> None:
    variants = [
        PARAMS,
        replace(PARAMS, clients=(2, 3, 5, 8, 14)),
        replace(PARAMS, clients=(2, 3, 5, 8, 13, 21), threshold=3, allow_minority_threshold=True),
        replace(PARAMS, dimension=11),
        replace(PARAMS, max_value=101),
        replace(PARAMS, threshold=4),
        replace(PARAMS, session=b"ruN"),
        replace(PARAMS, round=5),
        replace(PARAMS, model_hash=b"\7" * 31 + b"\6"),
        replace(PARAMS, suite=Suite.X25519),
        replace(PARAMS, encoding=b"grid"),
        replace(PARAMS, encoding=bytes(32)),
    ]
    assert len({params.context_hash for params in variants}) == len(variants)


def test_a_local_permission_does_not_enter_the_context_hash() -> None:
    """Whether a minority threshold is acceptable is each party's own decision; the threshold itself is bound."""
    assert replace(PARAMS, allow_minority_threshold=True).context_hash == PARAMS.context_hash


# ---- from a round of the pipeline ---------------------------------------------------------------------------


def test_a_rounds_context_becomes_parameters() -> None:
    context = RoundContext(b"run", 4, CLIENTS, 10, 100, 4, b"\7" * 32, b"grid")
    expected = replace(PARAMS, threshold=4, encoding=b"grid")
    assert Params.of(context) == expected
    assert Params.of(context, Suite.X25519) == replace(expected, suite=Suite.X25519)


def test_a_threshold_of_zero_in_a_context_is_out_of_range() -> None:
    with pytest.raises(ConfigurationError):
        Params.of(RoundContext(b"run", 4, CLIENTS, 10, 100, 0, bytes(32)))


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 254, 255, 256, 65534, 2**31 - 2])
def test_value_bits(largest: int) -> None:
    assert Params((1, 2), 1, largest).value_bits == largest.bit_length()


def test_value_bits_of_large_values() -> None:
    for largest in (2**53, 2**60, 2**63 - 1):
        assert Params((1, 2), 1, largest).value_bits == largest.bit_length()
