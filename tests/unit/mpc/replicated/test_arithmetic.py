"""Replicated shares: sharing, opening, products and truncation, against integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.cluster.threads import run_parties
from securefl.errors import FaultyPartyError, InvalidInputError, LocalProtocolError
from securefl.mpc.fixed import decode
from securefl.mpc.operations import (
    bilinear,
    matmul,
    mul,
    randomized_part,
    reveal,
    scale,
    settle,
    share,
    square,
    truncate,
)
from securefl.mpc.party import Party
from securefl.mpc.replicated import ReplicatedParty
from securefl.mpc.shared import Shared, concatenate, public, stack

shapes = st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4), (0,), (0, 3)])


def run(program):
    return run_parties(program, engine="replicated")


def everybody(program):
    """The parties' result of a program, which must be the same at all three."""
    zero, one, two = run(program)
    np.testing.assert_array_equal(zero, one)
    np.testing.assert_array_equal(zero, two)
    return zero


def words(party: Party, values: np.ndarray, fraction: int = 0, owner: int = 0, loose: bool = False) -> Shared:
    """Ring elements that one party has, shared; left loose if asked for."""
    part = party.zero(values.shape)
    part = part + values.view(np.uint64) if party.me == owner else part
    x = Shared(party, values.shape, fraction, part, unsettled=True)
    if not loose:
        settle(x)
    return x


def random_words(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)


@given(shapes, st.integers(0, 2), st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_what_a_party_shares_is_revealed(shape, owner: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=shape) * 1000
    got = everybody(lambda party: reveal(share(party, owner, shape, values if party.me == owner else None)))
    np.testing.assert_allclose(decode(got), values, rtol=0, atol=2**-17)


def test_neighbours_hold_the_same_component_and_any_two_have_everything() -> None:
    values = random_words((50,))

    def program(party: Party):
        x = words(party, values)
        return x.part, x.second

    held = run(program)
    for me in range(3):
        part, second = held[me]
        np.testing.assert_array_equal(second, held[(me + 1) % 3][0])
        np.testing.assert_array_equal(part + second + held[(me + 1) % 3][1], values)


@given(shapes, st.integers(0, 99))
@settings(deadline=None, max_examples=15)
def test_products_of_any_ring_elements_are_exact(shape, seed: int) -> None:
    x, y = random_words(shape, seed), random_words(shape, seed + 1)

    def program(party: Party):
        a, b = words(party, x), words(party, y, owner=2, loose=True)
        return reveal(mul(a, b) + square(a) - a.widen(3).with_fraction(0))

    with np.errstate(over="ignore"):
        expected = x * y + x * x - x * np.uint64(8)
    np.testing.assert_array_equal(everybody(program), expected)


def test_a_bilinear_map_is_done_once_at_each_party_and_gives_its_double() -> None:
    """Factors that do not commute are not exchanged."""
    x, y = random_words((5, 5)), random_words((5, 5), 1)
    done: list[int] = []

    def program(party: Party):
        def product(a, b):
            done.append(party.me)
            return a.T @ b

        result = bilinear(words(party, x, 16), words(party, y, 8), product)
        assert result.fraction == 16 + 8 + 1
        return reveal(result)

    np.testing.assert_array_equal(everybody(program), np.uint64(2) * (x.T @ y))
    assert sorted(done) == [0, 1, 2]


def test_a_product_is_one_word_from_each_party() -> None:
    def program(party: Party):
        a, b = words(party, random_words((5, 9))), words(party, random_words((9, 4), 1))
        before = party.rounds, {to: link.bytes_sent for to, link in party.channel.traffic.items()}
        c = matmul(a, b)
        again = matmul(b.T, a.T)
        assert party.rounds == before[0]
        settle(c, again)
        assert party.rounds == before[0] + 1
        sent = {to: link.bytes_sent - before[1][to] for to, link in party.channel.traffic.items()}
        return sent, reveal(concatenate((c, again.T)))

    results = run(program)
    x, y = random_words((5, 9)), random_words((9, 4), 1)
    for me, (sent, got) in enumerate(results):
        assert sent == {(me - 1) % 3: 8 * 2 * 20, (me + 1) % 3: 0}
        np.testing.assert_array_equal(got, np.uint64(2) * np.concatenate((x @ y, x @ y)))


@pytest.mark.parametrize("loose", [False, True])
def test_linear_work_needs_no_message(loose: bool) -> None:
    x, y = random_words((4, 6)), random_words((6,), 1)

    def program(party: Party):
        a, b = words(party, x, 16, loose=loose), words(party, y, 16)
        sent = [link.messages_sent for link in party.channel.traffic.values()]
        total = (a - b) * 5 + 1.5 - public(party, 0.25) + (2 - b) + stack((a, a)).sum(axis=0)[::-1].reshape(4, 6)
        total = total + a.sum(axis=1, keepdims=True)
        assert total.unsettled == loose
        assert sent == [link.messages_sent for link in party.channel.traffic.values()]
        return reveal(total)

    places = np.uint64(2**16)
    expected = (x - y) * np.uint64(5) + np.uint64(5 * 2**14) + (2 * places - y) + 2 * x[::-1]
    np.testing.assert_array_equal(everybody(program), expected + x.sum(axis=1, keepdims=True, dtype=np.uint64))


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("places", [1, 10, 16, 20, 32, 40, 61])
def test_truncation_is_exact_up_to_the_rounding_over_the_whole_headroom(places: int, loose: bool) -> None:
    most = 2**62 - 1
    exact = np.array([0, 1, -1, most, -most, 2**places, -(2**places), 2**61, -(2**61)], dtype=np.int64)
    values = np.concatenate((exact, np.random.default_rng(0).integers(-most, most, 20_000)))

    def program(party: Party):
        y = truncate(words(party, values, 62, loose=loose), places)
        # What neighbours hold must agree, or it is the wrong value in some later product.
        return np.stack((reveal(y), reveal(y * 1 + public(party, np.zeros(len(values)), 62 - places))))

    got = everybody(program).view(np.int64)
    np.testing.assert_array_equal(got[0], got[1])
    error = got[0] - (values >> places)
    assert set(np.unique(error)) <= {0, 1}
    assert np.all(error[values % 2**places == 0] == 0)  # nothing to round


def test_truncated_shares_are_replicated_consistently() -> None:
    values = random_words((300,)) >> np.uint64(2)

    def program(party: Party):
        y = truncate(words(party, values), 16)
        return y.part, y.second

    held = run(program)
    for me in range(3):
        np.testing.assert_array_equal(held[me][1], held[(me + 1) % 3][0])


def test_rounding_is_unbiased() -> None:
    values = np.full(100_000, 3 * 2**14, dtype=np.uint64)  # 0.75 of the last place
    got = everybody(lambda party: reveal(truncate(words(party, values), 16)))
    # Binomial(100000, 0.75): a right implementation leaves 6 standard deviations with probability 2e-9.
    assert abs(got.mean() - 0.75) < 6 * np.sqrt(0.75 * 0.25 / 100_000)


def test_a_truncated_product_multiplies_on() -> None:
    x = np.random.default_rng(3).uniform(-1, 1, 50)  # then all roundings together stay below 8.4e-5

    def program(party: Party):
        a = share(party, 1, (50,), x if party.me == 1 else None)
        before = party.rounds
        once = truncate(square(a))
        assert party.rounds == before + 2
        return reveal(truncate(mul(once, a)) + truncate(scale(once, -0.5)))

    np.testing.assert_allclose(decode(everybody(program)), x**3 - 0.5 * x**2, rtol=0, atol=8.4e-5)


def test_bytes_of_a_truncated_product() -> None:
    n = 1 << 12

    def program(party: Party):
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        x = Shared(party, (n,), 16)
        truncate(mul(x, x))
        return sum(link.bytes_sent for link in party.channel.traffic.values()) - before

    assert sum(run(program)) == n * 30


def test_what_a_party_gets_is_uniform() -> None:
    """Everything received while zeros, and then extremes, are multiplied, truncated and revealed in parts."""
    n = 20_000

    def program(party: Party, values: np.ndarray):
        got: list[np.ndarray] = []
        receive = party.channel.receive

        def watch(sender: int, size: int) -> memoryview:
            message = receive(sender, size)
            got.append(np.frombuffer(message, np.uint8).copy())
            return message

        party.channel.receive = watch
        x = words(party, values)
        z = mul(x, x)
        settle(z)
        truncate(x, 16)
        held = (z.part, z.second, randomized_part(x))
        return [*got, *(words.view(np.uint8).reshape(-1) for words in held)]

    for values in (np.zeros(n, np.uint64), np.full(n, 2**62 - 1, np.uint64)):
        for seen in run(lambda party, values=values: program(party, values)):
            for message in seen:
                counts = np.bincount(message, minlength=256)
                # χ² with 255 degrees of freedom exceeds 400 with probability 1e-8.
                assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400


def test_parts_for_outsiders_add_up() -> None:
    x = random_words((40,))
    parts = run(lambda party: randomized_part(mul(words(party, x), words(party, x))))
    np.testing.assert_array_equal(sum(parts), x * x)


def test_tensors_of_other_fractions_are_not_added() -> None:
    with pytest.raises(InvalidInputError, match="truncate one first"):
        run(lambda party: Shared(party, (2,), 16) + Shared(party, (2,), 32))


@pytest.mark.parametrize("places", [0, -1, 62])
def test_places_that_cannot_be_dropped_are_refused(places: int) -> None:
    with pytest.raises(InvalidInputError, match="between 1 and 61"):
        run(lambda party: truncate(Shared(party, (2,)), places))


def test_an_owner_must_give_its_values() -> None:
    with pytest.raises(InvalidInputError, match="party 2 owns"):
        run(lambda party: share(party, 2, (2,)))


def test_parties_that_run_other_shapes_find_out() -> None:
    with pytest.raises(FaultyPartyError, match="due"):
        run(lambda party: settle(Shared(party, (3 + party.me,), unsettled=True)))


def test_streams_are_used_once_and_are_not_the_other_engines() -> None:
    def program(party: Party):
        assert isinstance(party, ReplicatedParty)
        with pytest.raises(LocalProtocolError, match="batch 1 are spent"):
            party.begin(1)
        first = party.zero((4,))
        party.begin(5)
        second = party.zero((4,))
        with pytest.raises(LocalProtocolError, match="spent"):
            party.begin(3)
        other = Party(party.channel, {}, b"threads")
        other._secrets = party._secrets
        assert all(other.batch_key(who, 5) != party.batch_key(who, 5) for who in (party.next, party.previous))
        return first, second

    results = run(program)
    assert all((first != second).all() for first, second in results)
    for batch in range(2):
        assert not sum(result[batch] for result in results).any()
