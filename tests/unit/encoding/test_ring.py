"""Lanes: exact packing against Python integers, room for the sum of all clients, stray bits found."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding import ring
from securefl.encoding.ring import MAX_WORDS, Lanes
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError


@st.composite
def lanes(draw: st.DrawFn, largest_dimension: int = 120) -> Lanes:
    clients = draw(st.integers(1, 300))
    largest = draw(st.one_of(st.integers(1, 2**20), st.integers(1, (2**64 - 1) // clients)))
    return Lanes(draw(st.integers(1, largest_dimension)), largest, clients)


def vector(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def pack_by_hand(of: Lanes, values: list[int]) -> list[int]:
    """Encoding SPEC §4: integer i in word i mod W, lane floor(i / W)."""
    words = [0] * of.words
    for i, value in enumerate(values):
        words[i % of.words] += value << of.bits * (i // of.words)
    assert all(word < 2**64 for word in words)
    return words


# ---- shape --------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(lanes(10**6))
def test_a_lane_holds_the_largest_sum_and_not_a_bit_more(of: Lanes) -> None:
    largest = of.clients * of.max_value
    assert largest < 2**of.bits
    assert largest >= 2 ** (of.bits - 1)
    assert of.bits <= of.max_value.bit_length() + math.ceil(math.log2(of.clients))
    assert of.per_word * of.bits <= 64 < (of.per_word + 1) * of.bits
    assert (of.words - 1) * of.per_word < of.dimension <= of.words * of.per_word


@pytest.mark.parametrize(
    ("dimension", "max_value", "clients", "bits", "per_word", "words"),
    [
        (1, 1, 1, 1, 64, 1),
        (64, 1, 1, 1, 64, 1),
        (65, 1, 1, 1, 64, 2),
        (100, 65534, 20, 21, 3, 34),  # the bundled run: 16-bit values, 20 clients
        (10**6, 65534, 32, 21, 3, 333334),  # 2.667 bytes per value
        (10, 2**32 - 1, 2**32 - 1, 64, 1, 10),
        (3, 2**64 - 1, 1, 64, 1, 3),
        (7, 2**31, 1, 32, 2, 4),
        (7, 2**32, 1, 33, 1, 7),
        (5, 255, 3, 10, 6, 1),
        (5, 85, 3, 8, 8, 1),  # 3 × 85 = 255 fits eight bits: less than the bound "value bits + ceil(log2 n)"
    ],
)
def test_known_shapes(dimension: int, max_value: int, clients: int, bits: int, per_word: int, words: int) -> None:
    of = Lanes(dimension, max_value, clients)
    assert (of.bits, of.per_word, of.words) == (bits, per_word, words)


@pytest.mark.parametrize(
    ("dimension", "max_value", "clients", "message"),
    [
        (0, 1, 1, "empty"),
        (-1, 1, 1, "empty"),
        (1, 0, 1, "largest value of at least 1"),
        (1, -5, 1, "largest value of at least 1"),
        (1, 1, 0, "at least one client"),
        (1, 2**64, 1, "need 65 bits"),
        (1, 2**32, 2**32, "need 65 bits"),
        (1, 2**63, 2, "need 65 bits"),
        (MAX_WORDS + 1, 2**63, 1, "at most 8589934592"),
        (2 * MAX_WORDS + 1, 2**31, 1, "at most 8589934592"),
    ],
)
def test_what_could_overflow_is_refused(dimension: int, max_value: int, clients: int, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Lanes(dimension, max_value, clients)


def test_the_largest_vector_is_that_of_one_mask_key() -> None:
    assert Lanes(2 * MAX_WORDS, 2**31, 1).words == MAX_WORDS
    assert 8 * MAX_WORDS == 2**36


# ---- packing ------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_packing_is_the_one_of_the_specification_and_is_undone(data: st.DataObject) -> None:
    of = data.draw(lanes())
    values = data.draw(st.lists(st.integers(0, of.max_value), min_size=of.dimension, max_size=of.dimension))
    of.check(vector(values))
    packed = of.pack(vector(values))
    assert (packed.dtype, packed.shape) == (np.uint64, (of.words,))
    assert packed.tolist() == pack_by_hand(of, values)
    assert of.unpack(packed).tolist() == values


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_sum_of_packed_vectors_unpacks_to_the_sum(data: st.DataObject) -> None:
    """Also at the very top: when every client gives the largest value everywhere."""
    of = data.draw(lanes(30).filter(lambda found: found.clients <= 12))
    rows = [
        data.draw(
            st.one_of(
                st.just([of.max_value] * of.dimension),
                st.lists(st.integers(0, of.max_value), min_size=of.dimension, max_size=of.dimension),
            )
        )
        for _ in range(of.clients)
    ]
    total = np.zeros(of.words, dtype=np.uint64)
    for row in rows:
        total += of.pack(vector(row))
    assert of.unpack(total).tolist() == [sum(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("clients", [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("max_value", [1, 2, 126, 254, 65534, 2**31 - 2])
def test_the_top_of_every_lane(clients: int, max_value: int) -> None:
    of = Lanes(11, max_value, clients)
    packed = of.pack(np.full(11, max_value, dtype=np.uint64))
    assert of.unpack(packed * np.uint64(clients)).tolist() == [clients * max_value] * 11


@pytest.mark.parametrize("extra", [-1, 0, 1, 2, 3])
def test_pieces_longer_than_a_block(extra: int) -> None:
    of = Lanes(3 * (ring._BLOCK + 5) + extra, 65534, 20)
    values = np.arange(of.dimension, dtype=np.uint64) * np.uint64(7919) % np.uint64(65535)
    packed = of.pack(values)
    assert of.words > ring._BLOCK
    assert np.array_equal(of.unpack(packed), values)
    assert packed.tolist() == pack_by_hand(of, values.tolist())


def test_neither_direction_changes_or_keeps_its_argument() -> None:
    of = Lanes(5, 100, 3)
    values = vector([1, 2, 3, 4, 100])
    packed = of.pack(values)
    kept = packed.copy()
    packed += np.uint64(0)
    unpacked = of.unpack(packed)
    unpacked[:] = 0
    assert values.tolist() == [1, 2, 3, 4, 100]
    assert np.array_equal(packed, kept)
    one_lane = Lanes(2, 2**63, 1)  # packing copies even where it has nothing to shift
    given_values = vector([1, 2])
    one_lane.pack(given_values)[0] = 9
    assert given_values.tolist() == [1, 2]


def test_strided_vectors_are_packed_like_others() -> None:
    of = Lanes(6, 100, 3)
    spread = np.arange(12, dtype=np.uint64)[::2]
    assert np.array_equal(of.pack(spread), of.pack(spread.copy()))


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(4, dtype=np.uint64), r"shape \(3,\)"),
        (np.zeros(2, dtype=np.uint64), r"shape \(3,\)"),
        (np.zeros((3, 1), dtype=np.uint64), r"shape \(3,\)"),
        (np.zeros(0, dtype=np.uint64), r"shape \(3,\)"),
        (np.zeros(3, dtype=np.int64), "expected uint64"),
        (np.zeros(3, dtype=np.float64), "expected uint64"),
        (np.zeros(3, dtype=np.uint32), "expected uint64"),
        (np.zeros(3, dtype=">u8"), "expected uint64"),
        (vector([0, 11, 0]), "largest value 10"),
        (vector([2**64 - 1, 0, 0]), "largest value 10"),
    ],
)
def test_integers_that_do_not_fit_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Lanes(3, 10, 2).check(values)
    Lanes(3, 10, 2).check(vector([0, 10, 5]))


def test_what_is_no_array_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError):
        Lanes(3, 10, 2).check([1, 2, 3])  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_words_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    of = Lanes(12, 100, 3)
    assert of.words == 2
    with pytest.raises(DecodeError, match="expected 2 words"):
        of.unpack(np.zeros(shape, dtype=np.uint64))


@pytest.mark.parametrize(
    "of",
    [
        Lanes(1, 1, 2),
        Lanes(1, 100, 4),
        Lanes(10, 100, 4),
        Lanes(15, 100, 4),
        Lanes(13, 65534, 20),
        Lanes(3, 2**31, 1),
        Lanes(4, 2**63, 1),
        Lanes(64, 1, 1),
        Lanes(65, 1, 1),
        Lanes(9, 2**20, 5),
    ],
    ids=str,
)
def test_every_bit_outside_a_lane_is_found(of: Lanes) -> None:
    """Masks that did not cancel, or a damaged vector, must not pass as a sum."""
    owned = {(i % of.words, of.bits * (i // of.words) + bit) for i in range(of.dimension) for bit in range(of.bits)}
    for word in range(of.words):
        for bit in range(64):
            packed = np.zeros(of.words, dtype=np.uint64)
            packed[word] = np.uint64(1) << np.uint64(bit)
            if (word, bit) in owned:
                assert int(of.unpack(packed).sum()) == 2 ** (bit % of.bits)
            else:
                with pytest.raises(DecodeError, match="outside every lane"):
                    of.unpack(packed)
