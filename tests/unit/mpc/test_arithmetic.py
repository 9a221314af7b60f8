"""Sharing, opening, products and truncation, against integers and float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.cluster.threads import run_parties
from securefl.errors import FaultyPartyError, InvalidInputError, LocalProtocolError
from securefl.mpc.arithmetic import open_masked
from securefl.mpc.fixed import FRACTION, decode, encode
from securefl.mpc.gemm import Words
from securefl.mpc.handover import hand_out, take
from securefl.mpc.operations import (
    bilinear,
    matmul,
    mul,
    prepare,
    randomized_part,
    reveal,
    scale,
    settle,
    share,
    square,
    truncate,
)
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared, concatenate, public, stack
from securefl.testing import ReplayEntropy

shapes = st.sampled_from([(), (1,), (7,), (3, 5), (2, 3, 4), (0,), (0, 3)])


def both(program):
    """The servers' result of a program, which must be the same at both; the helper has none."""
    zero, one, two = run_parties(program)
    np.testing.assert_array_equal(zero, one)
    assert two is None
    return zero


def words(party: Party, values: np.ndarray, fraction: int = 0) -> Shared:
    """Ring elements shared by a random mask."""
    if party.is_helper:
        return Shared(party, values.shape, fraction)
    part = party.zero(values.shape)
    return Shared(party, values.shape, fraction, part + values if party.me else part)


def random_words(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, shape, dtype=np.uint64)


@given(shapes, st.integers(0, 1), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_what_a_server_shares_is_revealed(shape, owner: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=shape) * 1000
    got = both(lambda party: reveal(share(party, owner, shape, values if party.me == owner else None)))
    np.testing.assert_allclose(decode(got), values, rtol=0, atol=2**-17)


@given(shapes, st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_products_of_any_ring_elements_are_exact(shape, seed: int) -> None:
    x, y = random_words(shape, seed), random_words(shape, seed + 1)

    def program(party: Party):
        a, b = words(party, x), words(party, y)
        return reveal(mul(a, b) + square(a) - a.widen(3).with_fraction(0))

    with np.errstate(over="ignore"):
        expected = x * y + x * x - x * np.uint64(8)
    np.testing.assert_array_equal(both(program), expected)


@pytest.mark.parametrize("given", ["neither", "left", "both"])
def test_a_bilinear_map_is_done_once_at_each_party_and_gives_its_double(given: str) -> None:
    """Factors that do not commute are not exchanged; of an opened form every piece and view gives the same factor."""
    x, y = random_words((6, 5)), random_words((6, 5), 1)
    done: list[int] = []

    def program(party: Party):
        def product(a, b):
            done.append(party.me)
            return a.T @ b

        a = words(party, x, 16) if given == "neither" else _given(party, x, bytes(range(32)))
        b = _given(party, y, bytes(range(32, 64)), 8) if given == "both" else words(party, y, 8)
        open_masked(a, b)
        joined = concatenate((a[:4], a[4:]))
        result = bilinear(joined, b[::-1][::-1], product)
        assert result.fraction == a.fraction + b.fraction + 1
        return reveal(result)

    np.testing.assert_array_equal(both(program), np.uint64(2) * (x.T @ y))
    assert sorted(done) == [0, 1, 2]


def test_matrix_products_are_exact_and_opened_forms_are_used_again() -> None:
    x, y = random_words((5, 9)), random_words((9, 4), 1)
    rounds = []

    def program(party: Party):
        a, b = words(party, x), words(party, y)
        first = matmul(a, b)
        before = party.rounds
        again = matmul(b.T, a.T)  # opened already
        rounds.append(party.rounds - before)
        return reveal(concatenate((first, again.T)))

    np.testing.assert_array_equal(both(program), np.uint64(2) * np.concatenate((x @ y, x @ y)))
    assert rounds == [0, 0, 0]


def test_linear_work_needs_no_message() -> None:
    x, y = random_words((4, 6)), random_words((6,), 1)

    def program(party: Party):
        a, b = words(party, x, 16), words(party, y, 16)
        sent = [link.messages_sent for link in party.channel.traffic.values()]
        total = (a - b) * 5 + 1.5 - public(party, 0.25) + (2 - b) + stack((a, a)).sum(axis=0)[::-1].reshape(4, 6)
        total = total + a.sum(axis=1, keepdims=True)
        assert sent == [link.messages_sent for link in party.channel.traffic.values()]
        return reveal(total)

    places = np.uint64(2**16)
    expected = (x - y) * np.uint64(5) + np.uint64(5 * 2**14) + (2 * places - y) + 2 * x[::-1]
    np.testing.assert_array_equal(both(program), expected + x.sum(axis=1, keepdims=True, dtype=np.uint64))


@pytest.mark.parametrize("places", [1, 10, 16, 20, 32, 40, 61])
def test_truncation_is_exact_up_to_the_rounding_over_the_whole_headroom(places: int) -> None:
    most = 2**62 - 1
    exact = np.array([0, 1, -1, most, -most, 2**places, -(2**places), 2**61, -(2**61)], dtype=np.int64)
    drawn = np.random.default_rng(0).integers(-most, most, 20_000)
    values = np.concatenate((exact, drawn))
    got = both(lambda party: reveal(truncate(words(party, values.view(np.uint64), 62), places))).view(np.int64)
    error = got - (values >> places)
    assert set(np.unique(error)) <= {0, 1}
    assert np.all(error[values % 2**places == 0] == 0)  # nothing to round


def test_rounding_is_unbiased() -> None:
    values = np.full(100_000, 3 * 2**14, dtype=np.uint64)  # 0.75 of the last place
    got = both(lambda party: reveal(truncate(words(party, values), 16)))
    # Binomial(100000, 0.75): a right implementation leaves 6 standard deviations with probability 2e-9.
    assert abs(got.mean() - 0.75) < 6 * np.sqrt(0.75 * 0.25 / 100_000)


def test_the_dither_of_the_rounding_is_public() -> None:
    """SPEC §5.2: the result is floor((x + d) / 2^f) with d = 2^f − 1 − (c mod 2^f), where c is what was opened."""
    values = random_words((500,)) >> np.uint64(3)
    seen = []

    def program(party: Party):
        exchange = party.exchange

        def watch(mine):
            theirs = exchange(mine)
            seen.append(mine + theirs)
            return theirs

        party.exchange = watch  # type: ignore[method-assign]
        return reveal(truncate(words(party, values), 16))

    got = both(program)
    dither = np.uint64(0xFFFF) - (seen[0] & np.uint64(0xFFFF))
    np.testing.assert_array_equal(got, (values + dither) >> np.uint64(16))


def test_a_truncated_product_multiplies_on() -> None:
    x = np.random.default_rng(3).uniform(-1, 1, 50)  # then all roundings together stay below 8.4e-5

    def program(party: Party):
        a = share(party, 1, (50,), x if party.me == 1 else None)
        once = truncate(square(a))
        return reveal(truncate(mul(once, a)) + truncate(scale(once, -0.5)))

    np.testing.assert_allclose(decode(both(program)), x**3 - 0.5 * x**2, rtol=0, atol=8.4e-5)


def test_parts_for_outsiders_are_uniform_and_add_up() -> None:
    def program(party: Party):
        zeros = Shared(party, (20_000,), 0)
        return randomized_part(zeros), randomized_part(mul(zeros, zeros))

    (zero, first), (one, second), (helper, third) = run_parties(program)
    assert helper is None, "a settled tensor has no part there"
    assert not (zero + one).any()
    assert not (first + second + third).any()
    for part in (zero, one, first, second, third, first + second, second + third, first + third):
        counts = np.bincount(np.asarray(part).view(np.uint8), minlength=256)
        # χ² with 255 degrees of freedom exceeds 400 with probability 1e-8.
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400


def test_tensors_of_other_fractions_are_not_added() -> None:
    with pytest.raises(InvalidInputError, match="truncate one first"):
        run_parties(lambda party: Shared(party, (2,), 16) + Shared(party, (2,), 32))


def test_an_owner_must_give_its_values() -> None:
    with pytest.raises(InvalidInputError, match="party 1 owns"):
        run_parties(lambda party: share(party, 1, (2,)))


def test_matrices_that_do_not_fit_are_named() -> None:
    with pytest.raises(InvalidInputError, match=r"\[2, 3\] and \[2, 3\]"):
        run_parties(lambda party: matmul(Shared(party, (2, 3)), Shared(party, (2, 3))))


def test_parties_that_run_other_shapes_find_out() -> None:
    with pytest.raises(FaultyPartyError, match="due"):
        run_parties(lambda party: prepare(Shared(party, (3 + party.me,))))


def test_a_batch_of_correlations_is_used_once() -> None:
    def program(party: Party):
        with pytest.raises(LocalProtocolError, match="batch 1 are spent"):
            party.begin(1)
        party.begin(5)
        with pytest.raises(LocalProtocolError, match="spent"):
            party.begin(3)

    run_parties(program)


def test_masks_of_two_batches_differ() -> None:
    def program(party: Party):
        first = party.mask((4,))
        party.begin(2)
        return first, party.mask((4,))

    for first, second in run_parties(program):
        assert not (first == second).any()


def test_settling_twice_deals_once() -> None:
    def program(party: Party):
        x = square(words(party, random_words((3,))))
        settle(x)
        sent = [link.messages_sent for link in party.channel.traffic.values()]
        settle(x)
        assert sent == [link.messages_sent for link in party.channel.traffic.values()]
        return reveal(x)

    np.testing.assert_array_equal(both(program), random_words((3,)) ** np.uint64(2))


@pytest.mark.parametrize("value", [np.nan, np.inf, -(2.0**47)])
def test_values_outside_the_range_are_refused(value: float) -> None:
    with pytest.raises(InvalidInputError, match="finite and at most"):
        encode([0.0, value])


def test_decoding_is_right_just_above_negative_integers() -> None:
    values = -np.arange(1, 2000) + 2.0**-16
    np.testing.assert_array_equal(decode(encode(values)), values)


def _given(party: Party, values: Words, keys: bytes, fraction: int = FRACTION) -> Shared:
    """As a client gives it: opened, under two streams."""
    payloads = hand_out("dealer", values.copy(), ReplayEntropy([keys[:16], keys[16:]], []), opened=True)
    return take(party, values.shape, fraction, memoryview(b"".join(payloads[party.me])), opened=True)


def test_what_a_client_gave_opened_needs_no_opening() -> None:
    """Beside others, as views, and alone; the product is what it is of any tensors."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(4, 3))

    def program(party: Party):
        a, b = _given(party, encode(x), b"a" * 16 + b"b" * 16), _given(party, encode(y), b"c" * 16 + b"d" * 16)
        c = share(party, 0, (3, 2), np.ones((3, 2)) if party.me == 0 else None)
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        open_masked(a)
        assert sum(link.bytes_sent for link in party.channel.traffic.values()) == before
        assert party.rounds == 0
        open_masked(c, a.T, b)
        sent = sum(link.bytes_sent for link in party.channel.traffic.values()) - before
        product = truncate(matmul(truncate(matmul(a, b), 17), c), 17)
        return reveal(product), sent, party.rounds

    (zero, sent0, rounds), (_, sent1, _), _ = run_parties(program)
    assert np.abs(decode(zero) - (x @ y).sum(axis=1, keepdims=True)).max() < 1e-3
    assert sent0 == sent1 == 8 * 6, "the plain tensor alone"
    assert rounds == 5


def test_parts_of_what_a_client_gave_opened_add_up_without_the_form() -> None:
    values = np.arange(12, dtype=np.uint64).reshape(3, 4)

    def program(party: Party):
        a = _given(party, values, bytes(range(32)), 0)
        a.opened = None
        return reveal(a[1:] + a[:2])

    np.testing.assert_array_equal(both(program), values[1:] + values[:2])


def test_products_of_truncated_values_open_nothing_again() -> None:
    """Squares, products with another, with an ordinary tensor, after a sign and constants, in views, of any places."""
    rng = np.random.default_rng(7)
    x, y = rng.uniform(-30, 30, (5, 4)), rng.uniform(-30, 30, (5, 1))

    def program(party: Party, places: int):
        def given(values: np.ndarray) -> Shared:
            return share(party, 0, values.shape, values if party.me == 0 else None)

        a, b, plain = given(x).widen(places), given(y).widen(places), given(y)
        a, b = truncate(a, places), truncate(b, places)
        before = party.rounds
        results = [square(a), mul(a, b), mul(1.0 - a, b + 2.0), mul(-a, a), mul(a.T, b.T), mul(a[1:], a[:-1])]
        assert party.rounds == before, "no round"
        results += [mul(a, plain), mul(plain, 1.0 - a)]
        assert party.rounds == before + (0 if party.is_helper else 1), "the ordinary one is opened"
        return [reveal(result) for result in results]

    a, b = x, y
    wanted = [a * a, a * b, (1 - a) * (b + 2), -a * a, a.T * b.T, a[1:] * a[:-1], a * b, b * (1 - a)]
    for places in (1, 16, 17, 24, 32):
        found = run_parties(lambda party, places=places: program(party, places))[0]
        for number, (got, expected) in enumerate(zip(found, wanted, strict=True)):
            # Each factor is off by less than two of its places.
            assert np.abs(decode(got, 32) - expected).max() < 2e-3, (places, number)
