"""Radix lanes and vectors of several segments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.encoding.packing import Packing
from securefl.encoding.radix import RadixLanes, digits_per_word, widest_window
from securefl.encoding.ring import Lanes
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.machine import RoundContext, Segment
from securefl.plain import _context_hash
from securefl.secagg.params import Params
from securefl.types import PartyId


def total(lanes, rows):
    words = np.zeros(lanes.words, dtype=np.uint64)
    for row in rows:
        lanes.check(row)
        words += lanes.pack(row)
    return words


@given(
    dimension=st.integers(1, 200),
    largest=st.integers(1, 300),
    clients=st.integers(1, 50),
    present=st.integers(1, 50),
    seed=st.integers(0, 2**32),
)
def test_exact_radix_lanes_give_every_sum(dimension, largest, clients, present, seed):
    present = min(present, clients)
    lanes = RadixLanes(dimension, largest, clients, widest_window(clients * largest + 1))
    assert lanes.exact
    rows = np.random.default_rng(seed).integers(0, largest + 1, (present, dimension)).astype(np.uint64)
    rows[0, 0] = largest
    assert (lanes.unpack(total(lanes, rows), present) == rows.sum(axis=0)).all()
    extreme = np.full((present, dimension), largest, dtype=np.uint64)
    assert (lanes.unpack(total(lanes, extreme), present) == extreme.sum(axis=0)).all()


def test_narrow_lanes_hold_the_window_and_no_more():
    lanes = RadixLanes(40, 2, 20, 31)
    middle = np.ones((20, 40), dtype=np.uint64)
    assert (lanes.unpack(total(lanes, middle), 20) == 20).all()
    edge = middle.copy()
    edge[:15, 3] = 2  # 35, the window's last value is 20 + 15
    assert lanes.unpack(total(lanes, edge), 20)[3] == 35
    edge[15, 3] = 2
    assert lanes.unpack(total(lanes, edge), 20)[3] == 36 - 31


@pytest.mark.parametrize("window", [2, 3, 23, 30, 41, 255, 65535, 2**31])
def test_widest_window_is_the_largest_with_as_many_digits(window):
    widest = widest_window(window)
    assert digits_per_word(widest) == digits_per_word(window) > digits_per_word(widest + 1)


@pytest.mark.parametrize(
    ("dimension", "largest", "clients", "window"), [(0, 2, 2, 5), (5, 2, 2, 2), (5, 2, 2, 2**33), (5, 0, 2, 5)]
)
def test_impossible_radix_lanes_are_refused(dimension, largest, clients, window):
    with pytest.raises(ConfigurationError):
        RadixLanes(dimension, largest, clients, window)


def test_a_uniform_vector_is_packed_as_before():
    values = np.arange(100, dtype=np.uint64)
    lanes, packing = Lanes(100, 1000, 20), Packing.of(100, 1000, 20)
    assert (packing.pack(values) == lanes.pack(values)).all()
    assert (packing.words, packing.bits, packing.per_word) == (lanes.words, lanes.bits, lanes.per_word)


def test_segments_have_their_own_ranges():
    packing = Packing((Segment(10, 2, 41), Segment(3, 65535)), 20)
    values = np.array([2] * 10 + [65535, 0, 7], dtype=np.uint64)
    packing.check(values)
    words = packing.pack(values) * np.uint64(20)
    assert (packing.unpack(words, 20) == 20 * values).all()
    values[0] = 3
    with pytest.raises(InvalidInputError, match="largest value 2"):
        packing.check(values)
    with pytest.raises(DecodeError):
        packing.unpack(words[:-1], 20)
    words[-1] = np.uint64(2**64 - 1)
    with pytest.raises(DecodeError):
        packing.unpack(words, 20)


def test_segments_that_contradict_the_context_are_refused():
    with pytest.raises(ConfigurationError, match="sum of the segments"):
        Packing.of(9, 2, 20, (Segment(10, 2),))
    with pytest.raises(ConfigurationError):
        Packing((), 20)


def context(**changes):
    ids = tuple(PartyId(i) for i in (1, 2, 3))
    return RoundContext(b"s", 1, ids, 10, 2, 2, bytes(32), **changes)


def test_the_context_hash_covers_segments_and_encoding_and_leaves_uniform_vectors_alone():
    variants = [context(), context(segments=(Segment(10, 2, 7),)), context(segments=(Segment(10, 2, 8),))]
    variants += [context(encoding=bytes(32)), context(segments=(Segment(10, 2, 7),), encoding=b"x" * 32)]
    assert len({_context_hash(variant) for variant in variants}) == len(variants)
    assert len({Params.of(variant).context_hash for variant in variants}) == len(variants)
    # the hash of a uniform vector, as it was before there were segments
    assert Params.of(context()).context_hash.hex() == UNIFORM


UNIFORM = "84643d7b09f5906562d2d37aa7060891b9b11ce5752fd024a7c6d343f889d1df"
