"""Integers in coefficients: exact for every sum that can be, refused for what cannot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.ckks.lattice import Lattice
from securefl.ckks.params import PARAMETER_SETS
from securefl.encoding.packing import Packing
from securefl.errors import ConfigurationError, DecodeError
from securefl.machine import Segment

Q = PARAMETER_SETS["n4096-q60"].primes[0]


def _sum(lattice, vectors, noise, block=64):
    out = np.zeros(lattice.dimension, dtype=np.uint64)
    for start in range(0, lattice.coefficients, block):
        total = sum(lattice.encode(v, start, start + block) for v in vectors)
        lattice.decode(total * lattice.scale + noise, len(vectors), start, out)
    return out


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sums_come_back_whatever_the_data_and_the_noise(data):
    clients = data.draw(st.integers(2, 40))
    parts = data.draw(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 2**20)), min_size=1, max_size=3))
    segments = tuple(Segment(size, top) for size, top in parts)
    bound = data.draw(st.integers(1, 2**14))
    lattice = Lattice(segments, clients, Q, bound)
    count = data.draw(st.integers(1, clients))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    extreme = data.draw(st.booleans())
    vectors = [
        np.concatenate([rng.integers(top if extreme else 0, top + 1, size, dtype=np.uint64) for size, top in parts])
        for _ in range(count)
    ]
    noise = data.draw(st.sampled_from([-bound, 0, bound]))
    assert _sum(lattice, vectors, noise).tolist() == sum(vectors).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 500])
def test_windows_are_read_as_the_lanes_of_the_other_protections_read_them(size):
    segments = (Segment(size, 14, 40), Segment(3, 1000))
    clients, rng = 12, np.random.default_rng(size)
    lattice, lanes = Lattice(segments, clients, Q, 2000), Packing(segments, clients)
    centre = [rng.integers(5, 10, size, dtype=np.uint64) for _ in range(clients)]
    vectors = [np.concatenate((v, rng.integers(0, 1001, 3, dtype=np.uint64))) for v in centre]
    words = np.zeros(lanes.words, dtype=np.uint64)
    for v in vectors:
        words += lanes.pack(v)
    assert _sum(lattice, vectors, 7).tolist() == lanes.unpack(words, clients).tolist() == sum(vectors).tolist()
    assert lattice.runs[0].digits > Lattice((Segment(size, 14),), clients, Q, 2000).runs[0].digits or size < 9


def test_a_sum_outside_its_window_is_wrong_by_multiples_of_the_window_as_announced():
    lattice = Lattice((Segment(1, 14, 40),), 12, Q, 2000)
    out = _sum(lattice, [np.array([14], np.uint64)] * 12, 0)
    assert (int(out[0]) - 168) % 40 == 0
    assert int(out[0]) != 168


def test_the_lattice_is_no_finer_than_twice_the_noise_and_no_sum_reaches_half_the_modulus():
    for clients in (2, 10, 100):
        for top in (1, 254, 65534, 2**31 - 2):
            lattice = Lattice((Segment(1000, top),), clients, Q, 15180)
            run = lattice.runs[0]
            assert lattice.scale > 2 * lattice.bound
            reach = clients * (top * sum(run.base**k for k in range(run.digits)) // 2 + 1)
            assert reach * lattice.scale + lattice.bound < Q / 2
            # one digit more would not fit, even on the coarsest lattice
            assert reach * run.base * 2 ** (2 * lattice.bound).bit_length() > Q / 2


def test_sums_that_do_not_fit_are_refused_beforehand():
    with pytest.raises(ConfigurationError, match="fewer value bits"):
        Lattice((Segment(10, 2**31),), 2**16, Q, 2**20)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda lattice, v: v + lattice.bound + 1, "off the lattice"),
        (lambda lattice, v: v - lattice.bound - 1, "off the lattice"),
        (lambda lattice, v: v + 3 * lattice.scale * lattice.runs[0].span, "no sum of 2 clients"),
        (lambda lattice, v: v - 3 * lattice.scale * lattice.runs[0].span, "no sum of 2 clients"),
    ],
)
def test_what_cannot_be_a_sum_is_refused(spoil, sentence):
    lattice = Lattice((Segment(100, 1000),), 5, Q, 2000)
    good = 2 * lattice.encode(np.full(100, 400, np.uint64), 0, 64) * lattice.scale
    out = np.zeros(100, dtype=np.uint64)
    lattice.decode(good, 2, 0, out)
    bad = good.copy()
    bad[3] = spoil(lattice, bad[3])
    with pytest.raises(DecodeError, match=sentence):
        lattice.decode(bad, 2, 0, out)


def test_values_beyond_the_end_and_digits_too_large_are_refused():
    lattice = Lattice((Segment(10, 1000),), 5, Q, 2000)
    coefficients = 2 * lattice.encode(np.full(10, 400, np.uint64), 0, 64) * lattice.scale
    out = np.zeros(10, dtype=np.uint64)
    lattice.decode(coefficients, 2, 0, out)
    longer = coefficients.copy()
    longer[lattice.coefficients] = lattice.scale
    with pytest.raises(DecodeError, match="beyond"):
        lattice.decode(longer, 2, 0, out)
    heavy = coefficients.copy()
    heavy[0] += 1500 * lattice.scale  # the lowest digit becomes 2300 of two clients with at most 1000 each
    with pytest.raises(DecodeError, match="digit"):
        lattice.decode(heavy, 2, 0, out)
