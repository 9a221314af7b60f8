"""Rules on shares: what numpy says in the clear, poisoned updates found, nothing bent by words of any value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.cluster.threads import run_parties
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.mpc.bits import Bits
from securefl.mpc.operations import reveal_bits
from securefl.mpc.robust import accepted_sum, count_correct, median, multi_krum, trimmed_sum, vet
from securefl.mpc.robust.logic import all_of_rows, both
from securefl.mpc.robust.sorting import network
from securefl.mpc.shared import Shared

LARGEST = 2**15 - 1


def held(party, values, fraction=0):
    """Additive shares modulo 2^64, as two clients' streams would give them."""
    words = np.asarray(values)
    words = words if words.dtype == np.uint64 else words.astype(np.int64).view(np.uint64)
    mask = np.random.default_rng(7).integers(0, 2**64, words.shape, dtype=np.uint64)
    part = None if party.is_helper else (words - mask, mask, np.zeros_like(words))[party.me]
    return Shared(party, words.shape, fraction, part, unsettled=party.replicated)


def run(program, *values):
    """The servers' result, which must be the same at all and by both engines; a helper gets nothing."""

    def work(party):
        return program(party, *(held(party, each) for each in values))

    zero, one, helper = run_parties(work)
    assert helper is None
    assert np.array_equal(zero, one)
    for replicated in run_parties(work, engine="replicated"):
        assert np.array_equal(zero, replicated)
    return zero


def honest(clients, dimension, seed=0, largest=LARGEST):
    return np.random.default_rng(seed).integers(-largest, largest + 1, (clients, dimension))


def krum_in_the_clear(x, faulty, chosen):
    distances = ((x[:, None, :] - x[None, :, :]) ** 2).sum(-1)
    scores = [np.sort(np.delete(row, at))[: len(x) - faulty - 2].sum() for at, row in enumerate(distances)]
    return x[np.argsort(scores, kind="stable")[:chosen]].sum(axis=0)


# ---- vetting --------------------------------------------------------------------------------------------------

EDGES = [LARGEST + 1, -LARGEST - 1, 2**31, 2**32, 2**62, 2**62 + 1, 2**63 - 1, -(2**63), -(2**62), 2**48]


@pytest.mark.parametrize("word", EDGES)
def test_a_word_beyond_the_range_is_found_wherever_it_stands(word):
    x = honest(4, 19, largest=100)
    x[2, 13] = word
    assert run(lambda party, s: vet(s, LARGEST), x).tolist() == [True, True, False, True]
    # also where its square is small modulo 2^64
    assert not run(lambda party, s: vet(s, LARGEST, 2**61), x)[2]


def test_the_ends_of_the_range_are_in_it():
    x = np.array([[LARGEST, -LARGEST, 0], [LARGEST, -LARGEST, LARGEST]])
    assert run(lambda party, s: vet(s, LARGEST), x).all()


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9), min_size=6, max_size=6), st.integers(0, 300))
@settings(max_examples=25, deadline=None)
def test_vetting_is_the_check_on_true_integers(values, bound):
    x = np.array(values, dtype=np.int64).reshape(2, 3)
    expected = [all(abs(int(v)) <= 8 for v in row) and sum(int(v) ** 2 for v in row) <= bound for row in x]
    assert run(lambda party, s: vet(s, 8, bound), x).tolist() == expected


def test_a_long_update_is_dropped_and_the_others_are_summed():
    x = honest(6, 40, largest=1000)
    x[4] *= 30
    bound = int((x[:4].astype(float) ** 2).sum(axis=1).max()) * 2
    accepted = run(lambda party, s: vet(s, LARGEST, bound), x)
    assert accepted.tolist() == [True, True, True, True, False, True]
    total = run(lambda party, s: accepted_sum(s, None if party.is_helper else accepted), x)
    assert np.array_equal(total, x[accepted].sum(axis=0))


def test_the_norm_bound_is_exact():
    x = np.array([[3, 4, 0], [3, 4, 1]])
    assert run(lambda party, s: vet(s, LARGEST, 25), x).tolist() == [True, False]


@pytest.mark.parametrize(("dimension", "levels"), [(64, 7), (1024, 11), (4096, 13)])
def test_vetting_costs_what_the_specification_says(dimension, levels):
    def work(party):
        rows = Shared(party, (16, dimension), 0)
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        vet(rows, LARGEST, 25)
        return sum(link.bytes_sent for link in party.channel.traffic.values()) - before, party.rounds

    results = run_parties(work)
    assert [rounds for _, rounds in results] == [4 + levels + 6 + 1] * 2 + [0]
    per_coordinate = sum(sent for sent, _ in results) / (16 * dimension)
    assert 142.75 <= per_coordinate < 142.75 + 100 / dimension, "and something for every row"


def test_many_blocks_are_one_verdict(monkeypatch):
    monkeypatch.setattr("securefl.mpc.robust.vetting._BLOCK", 64)
    x = honest(3, 50)
    x[1, 49] = 2**40
    assert run(lambda party, s: vet(s, LARGEST), x).tolist() == [True, False, True]


@given(st.integers(1, 9), st.integers(1, 5), st.data())
@settings(max_examples=15, deadline=None)
def test_all_of_a_row(rows, octets, data):
    bits = np.array(
        data.draw(
            st.lists(st.sampled_from([0, 1, 1, 1, 1, 1, 1]), min_size=rows * octets * 8, max_size=rows * octets * 8)
        )
    ).reshape(rows, octets * 8)
    plane = np.packbits(bits.astype(np.uint8))
    masks = np.random.default_rng(0).integers(0, 256, (2, plane.size), dtype=np.uint8)

    def program(party):
        part = [masks[0], masks[1], plane ^ masks[0] ^ masks[1]][party.me]  # the helper has a part too
        x = Bits(party, bits.shape, part)
        row = all_of_rows(x)
        return reveal_bits(both(row, row))

    assert np.array_equal(run_parties(program)[0], bits.all(axis=1))


@pytest.mark.parametrize(("largest", "bound"), [(2**31, None), (0, None), (LARGEST, 2**62), (LARGEST, -1)])
def test_what_cannot_be_checked_soundly_is_refused(largest, bound):
    with pytest.raises(ConfigurationError):
        run(lambda party, s: vet(s, largest, bound), honest(3, 4))


def test_only_matrices_of_integers_are_vetted():
    with pytest.raises(InvalidInputError, match="matrix"):
        run_parties(lambda party: vet(held(party, [1, 2, 3]), LARGEST))
    with pytest.raises(InvalidInputError, match="matrix"):
        run_parties(lambda party: vet(held(party, [[1, 2]], 16), LARGEST))


# ---- rules ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 6, 7, 16])
def test_median_and_trimmed_mean_are_those_of_numpy(n):
    x = honest(n, 11, seed=n)
    assert np.array_equal(run(lambda party, s: median(s), x), (2 * np.median(x, axis=0)).astype(np.int64))
    for trim in {0, (n - 1) // 2}:
        expected = np.sort(x, axis=0)[trim : n - trim].sum(axis=0)
        assert np.array_equal(run(lambda party, s, b=trim: trimmed_sum(s, b), x), expected)


def test_fewer_than_half_the_clients_cannot_move_the_median_beyond_the_others():
    x = honest(7, 20, largest=50)
    x[:3] = LARGEST  # three of seven agree on the largest value
    twice = run(lambda party, s: median(s), x)
    assert (twice <= 2 * x[3:].max(axis=0)).all()


@pytest.mark.parametrize(("n", "faulty", "chosen"), [(5, 1, 1), (5, 1, 4), (9, 3, 4), (4, 0, 2)])
def test_multi_krum_is_that_in_the_clear(n, faulty, chosen):
    x = honest(n, 10, seed=n)
    x[1] = x[0]  # equal scores: the lower row first
    found = run(lambda party, s: multi_krum(s, faulty, chosen, LARGEST), x)
    assert np.array_equal(found, krum_in_the_clear(x, faulty, chosen))


def test_multi_krum_leaves_out_a_colluding_minority():
    x = honest(9, 30, largest=100)
    x[6:] = 20_000 + honest(3, 30, seed=1, largest=5)
    found = run(lambda party, s: multi_krum(s, 3, 5, LARGEST), x)
    assert np.array_equal(found, krum_in_the_clear(x, 3, 5))
    assert np.abs(found).max() <= 5 * 100


def test_multi_krum_where_distances_must_lose_places():
    largest = 2**28 - 1
    x = honest(5, 8, seed=3, largest=2**20)
    x[4] = largest  # far enough away that rounding cannot change the choice
    x[3] = -largest
    found = run(lambda party, s: multi_krum(s, 1, 1, largest), x)
    assert any(np.array_equal(found, row) for row in x[:3])


def test_multi_krum_refuses_distances_beyond_the_headroom():
    with pytest.raises(ConfigurationError, match="headroom"):
        run(lambda party, s: multi_krum(s, 1, 1, 2**29), honest(5, 8))


@pytest.mark.parametrize(
    "rule",
    [
        lambda party, s: trimmed_sum(s, 3),
        lambda party, s: trimmed_sum(s, -1),
        lambda party, s: multi_krum(s, 2, 1, LARGEST),
        lambda party, s: multi_krum(s, 1, 5, LARGEST),
        lambda party, s: multi_krum(s, 1, 0, LARGEST),
    ],
)
def test_rules_that_cannot_bear_so_many_are_refused(rule):
    with pytest.raises(ConfigurationError):
        run(rule, honest(5, 3))


def test_every_network_sorts_all_zeros_and_ones():
    """The 0-1 principle: a network that sorts these sorts everything. [Knuth 3, §5.3.4, Theorem Z]"""
    for n in range(1, 11):
        inputs = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        for wanted in ((0,), (n // 2,), tuple(range(n)), (0, n - 1)):
            x = inputs.copy()
            for layer in network(n, wanted):
                for i, j in layer:
                    x[:, [i, j]] = np.sort(x[:, [i, j]], axis=1)
            assert np.array_equal(x[:, list(wanted)], np.sort(inputs, axis=1)[:, list(wanted)])


def test_what_no_wanted_place_needs_is_left_out():
    whole = sum(map(len, network(64, tuple(range(64)))))
    assert sum(map(len, network(64, (31, 32)))) < whole
    assert whole == 543


# ---- private test ---------------------------------------------------------------------------------------------


def test_only_the_count_of_right_answers_comes_out():
    rng = np.random.default_rng(2)
    logits, labels = rng.integers(-(2**30), 2**30, (50, 10)), np.eye(10, dtype=int)[rng.integers(0, 10, 50)]
    logits[:20] += labels[:20] * 2**31
    logits[49] = 5  # a tie counts as right
    expected = int((logits[np.arange(50), labels.argmax(1)] >= logits.max(1)).sum())
    assert run(lambda party, x, y: count_correct(x, y), logits, labels) == expected
    noisy = run(lambda party, x, y: count_correct(x, y, noise=[3, -10, 0][party.me]), logits, labels)
    assert noisy == expected - 7

    def everybody(party):
        return count_correct(held(party, logits), held(party, labels), noise=[3, -10, 99][party.me])

    assert run_parties(everybody)[0] == expected - 7, "a helper adds none"
    assert run_parties(everybody, engine="replicated") == (expected + 92,) * 3


def test_logits_and_labels_must_fit():
    with pytest.raises(InvalidInputError, match="one-hot"):
        run(lambda party, x, y: count_correct(x, y), honest(3, 4), honest(3, 5))
