"""Comparison over 64 bits and what chooses by it, against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.cluster.threads import run_parties
from securefl.mpc.compare import SEGMENT
from securefl.mpc.operations import (
    greater,
    maximum,
    minimum,
    mul,
    negative,
    number,
    relu,
    relu_and_sign,
    reveal,
    reveal_bits,
    select,
)
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared


def words(party: Party, values: np.ndarray, fraction: int = 0) -> Shared:
    if party.is_helper:
        return Shared(party, values.shape, fraction)
    part = party.zero(values.shape)
    part = part + values.view(np.uint64) if party.me == 1 else part
    return Shared(party, values.shape, fraction, part, unsettled=party.replicated)


@pytest.fixture(scope="module", params=["dealer", "replicated"])
def engine(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def both(engine):
    """Runs a program; gives its result, the same at all parties that hold values. A helper has none."""

    def run(program):
        zero, one, two = run_parties(program, engine=engine)
        np.testing.assert_array_equal(zero, one)
        if engine == "dealer":
            assert two is None
        else:
            np.testing.assert_array_equal(zero, two)
        return zero

    return run


#: Where comparisons go wrong: around zero, at the ends of every digit and of the range.
EDGES = np.array(
    [0, 1, -1, 2**63 - 1, -(2**63)] + [s * 2**k + e for k in range(1, 63) for s in (1, -1) for e in (-1, 0, 1)]
)


@pytest.mark.parametrize("seed", range(3))
def test_the_sign_is_right_over_all_64_bits(both, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, 20_001)
    values = np.concatenate((EDGES, drawn >> np.arange(20_001) % 64))
    got = both(lambda party: reveal_bits(negative(words(party, values))))
    np.testing.assert_array_equal(got, values < 0)


@given(st.sampled_from([1, 2, 7, 8, 9, 63, 64, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 5]), st.integers(0, 9))
@settings(deadline=None, max_examples=12)
def test_any_number_of_elements(both, elements: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(-(2**40), 2**40, elements)

    def program(party: Party):
        x, bits = relu_and_sign(words(party, values))
        larger, signs = reveal(x), reveal_bits(bits)
        return None if larger is None else np.stack((larger, signs))

    got = both(program)
    np.testing.assert_array_equal(got[0].view(np.int64), np.maximum(values, 0))
    np.testing.assert_array_equal(got[1], values >= 0)


@pytest.mark.parametrize("drop", [1, 12, 16, 24, 40])
def test_relu_truncates_in_the_same_opening(both, drop: int) -> None:
    most = 2**62 - 1
    values = np.concatenate(([0, most, -most], np.random.default_rng(0).integers(-most, most, 9_000)))
    got = both(lambda party: reveal(relu(words(party, values, 62), drop))).view(np.int64)
    error = got - np.where(values >= 0, values >> drop, 0)
    assert set(np.unique(error)) <= {0, 1}
    assert not error[values < 0].any()


def test_relu_of_a_product_that_nobody_has_dealt_out(both) -> None:
    values = np.random.default_rng(1).integers(-(2**30), 2**30, (40, 3))

    def program(party: Party):
        x = words(party, values)
        return reveal(relu(mul(x, x[::-1])))

    np.testing.assert_array_equal(both(program).view(np.int64), np.maximum(values * values[::-1], 0))


def test_choice_by_bits_and_by_their_complement(both) -> None:
    values = np.random.default_rng(2).integers(-9, 9, (11, 5))
    others = np.random.default_rng(3).integers(-(2**50), 2**50, (11, 5))

    def program(party: Party):
        x, y = words(party, values), words(party, others)
        less = negative(x)
        kept = select(less, y) + select(~less, y) * 3 + select(less, mul(x, y)) * 5
        return reveal(kept + number(less) * 7 + number(~less) * 11)

    low = values < 0
    expected = np.where(low, 1, 3) * others + np.where(low, values * others, 0) * 5 + np.where(low, 7, 11)
    np.testing.assert_array_equal(both(program).view(np.int64), expected)


def test_the_sign_of_relu_serves_its_derivative(both) -> None:
    values = np.random.default_rng(4).integers(-9, 9, 100)

    def program(party: Party):
        x, gradient = words(party, values), words(party, values * 3)
        _, bits = relu_and_sign(x)
        mul(gradient, gradient)  # opened
        before = party.rounds
        kept = select(bits, gradient)
        assert party.rounds == before + (2 if party.replicated else 0)
        return reveal(kept)

    np.testing.assert_array_equal(both(program).view(np.int64), np.where(values >= 0, values * 3, 0))


def test_larger_and_smaller_with_broadcasting(both) -> None:
    a = np.random.default_rng(0).integers(-99, 99, (6, 1))
    b = np.random.default_rng(1).integers(-99, 99, (5,))

    def program(party: Party):
        x, y = words(party, a), words(party, b)
        return reveal(maximum(x, y) - minimum(x, y) * 1000 + number(greater(x, y)) * 10**6)

    expected = np.maximum(a, b) - 1000 * np.minimum(a, b) + 10**6 * (a > b)
    np.testing.assert_array_equal(both(program).view(np.int64), expected)


def test_bytes_per_relu_on_all_links_stay_within_eighty() -> None:
    n = 1 << 15

    def program(party: Party):
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        relu(Shared(party, (n,)))
        return sum(link.bytes_sent for link in party.channel.traffic.values()) - before

    assert sum(run_parties(program)) / n <= 80


@pytest.mark.parametrize(
    ("operation", "each", "rounds"),
    [
        (negative, 62.625, 4),
        (relu, 78.875, 5),
        (lambda x: relu(x, 16), 90.875, 5),
        (lambda x: relu(x, 17), 94.875, 5),
    ],
)
def test_bytes_and_rounds_are_those_of_the_specification(operation, each: float, rounds: int) -> None:
    n = 1 << 14

    def program(party: Party):
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        operation(Shared(party, (n,)))
        return sum(link.bytes_sent for link in party.channel.traffic.values()) - before, party.rounds

    results = run_parties(program)
    assert sum(sent for sent, _ in results) / n == each
    assert [taken for _, taken in results] == [rounds, rounds, 0]


def test_what_is_opened_in_a_comparison_is_uniform() -> None:
    """The bytes that server 0 gets when zeros are compared: a right implementation fails with probability 1e-8."""
    n = 1 << 15

    def program(party: Party):
        got: list[np.ndarray] = []
        receive = party.channel.receive

        def watch(sender: int, size: int) -> memoryview:
            message = receive(sender, size)
            got.append(np.frombuffer(message, np.uint8).copy())
            return message

        party.channel.receive = watch
        relu(Shared(party, (n,)), 16)
        return np.concatenate(got) if got else None

    for seen in run_parties(program)[:2]:
        counts = np.bincount(seen, minlength=256)
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400
