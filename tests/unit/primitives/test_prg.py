"""AES-128-CTR mask streams: NIST vectors, pycryptodome as second implementation, block boundaries, seeking."""

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.primitives import prg
from securefl.primitives.prg import KEY_BYTES, MAX_STREAM_BYTES, Keystream, accumulate, stream_words

BLOCK = prg._BLOCK_WORDS
keys = st.binary(min_size=16, max_size=16)


def other_stream(key: bytes, words: int, start: int = 0) -> np.ndarray:
    """Words ``start`` … of the stream, by pycryptodome, from the beginning of the stream."""
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0)
    raw = cipher.encrypt(bytes(8 * (start + words)))
    return np.frombuffer(raw, dtype="<u8")[start:]


def other_accumulate(vector: np.ndarray, add: list[bytes], subtract: list[bytes]) -> list[int]:
    """The same sum in Python integers."""
    total = [int(word) for word in vector]
    for sign, some in ((1, add), (-1, subtract)):
        for key in some:
            for i, word in enumerate(other_stream(key, len(total))):
                total[i] += sign * int(word)
    return [value % 2**64 for value in total]


# ---- known answers ------------------------------------------------------------------------------------------

# NIST SP 800-38A, F.5.1 CTR-AES128.Encrypt
F51_KEY = "2b7e151628aed2a6abf7158809cf4f3c"
F51_COUNTER = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
F51_PLAIN = (
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
F51_CIPHER = (
    "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
    "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
)


def test_nist_sp_800_38a_f51() -> None:
    """The standard's counter is a place far into our stream: entering there gives the standard's keystream."""
    out = np.empty(8, dtype=np.uint64)
    stream_words(bytes.fromhex(F51_KEY), 2 * int(F51_COUNTER, 16), out)
    plain = np.frombuffer(bytes.fromhex(F51_PLAIN), dtype=np.uint64)
    assert (out ^ plain).tobytes().hex() == F51_CIPHER


def test_the_stream_starts_at_counter_zero_and_counts_big_endian() -> None:
    # AES-128 under the zero key: blocks 0 and 1 (FIPS 197; the first is also GCM's H of SP 800-38D test case 1)
    vector = np.zeros(4, dtype=np.uint64)
    accumulate(vector, [bytes(16)])
    assert vector.tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e" + "58e2fccefa7e3061367f1d57a4e7455a"


def test_words_are_little_endian() -> None:
    vector = np.zeros(2, dtype=np.uint64)
    accumulate(vector, [bytes(16)])
    assert int(vector[0]) == int.from_bytes(bytes.fromhex("66e94bd4ef8a2c3b"), "little")


# ---- accumulate ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    start=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    add=st.lists(keys, max_size=4),
    subtract=st.lists(keys, max_size=4),
)
def test_accumulate_is_the_sum_of_streams(start: list[int], add: list[bytes], subtract: list[bytes]) -> None:
    vector = np.array(start, dtype=np.uint64)
    expected = other_accumulate(vector, add, subtract)
    accumulate(vector, add, subtract)
    assert [int(word) for word in vector] == expected


@pytest.mark.parametrize("words", [1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 7, 3 * BLOCK - 1])
def test_streams_run_on_over_block_boundaries(words: int) -> None:
    one, two, three = b"\1" * 16, b"\2" * 16, b"\3" * 16
    vector = np.arange(words, dtype=np.uint64)
    accumulate(vector, [one, two], [three])
    expected = (
        np.arange(words, dtype=np.uint64)
        + other_stream(one, words)
        + other_stream(two, words)
        - other_stream(three, words)
    )
    assert np.array_equal(vector, expected)


@settings(max_examples=30, deadline=None)
@given(st.lists(keys, max_size=5), st.integers(1, 3 * BLOCK))
def test_what_is_added_can_be_taken_off(some: list[bytes], words: int) -> None:
    vector = np.arange(words, dtype=np.uint64)
    accumulate(vector, some)
    accumulate(vector, (), some)
    assert np.array_equal(vector, np.arange(words, dtype=np.uint64))


def test_keys_come_from_any_iterable_and_an_empty_vector_stays_empty() -> None:
    vector = np.zeros(3, dtype=np.uint64)
    accumulate(vector, iter([b"\1" * 16]), (key for key in [b"\1" * 16]))
    assert not vector.any()
    accumulate(np.zeros(0, dtype=np.uint64), [bytes(16)])


def test_two_keys_give_unrelated_streams_and_every_bit_of_a_key_matters() -> None:
    seen = set()
    for bit in range(-1, 128):
        key = bytearray(16)
        if bit >= 0:
            key[bit // 8] ^= 1 << bit % 8
        vector = np.zeros(2, dtype=np.uint64)
        accumulate(vector, [bytes(key)])
        seen.add(vector.tobytes())
    assert len(seen) == 129


def test_no_model_sized_buffer_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    empty = np.empty

    def counting(shape, *args, **kwargs):
        array = empty(shape, *args, **kwargs)
        made.append(array.nbytes)
        return array

    monkeypatch.setattr(prg.np, "empty", counting)
    accumulate(np.zeros(10 * BLOCK, dtype=np.uint64), [bytes(16)] * 3)
    assert made
    assert sum(made) <= 8 * BLOCK


# ---- stream_words -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(keys, st.integers(0, 500), st.integers(1, 200))
def test_a_stream_can_be_entered_at_any_block(key: bytes, block: int, words: int) -> None:
    out = np.empty(words, dtype=np.uint64)
    stream_words(key, 2 * block, out)
    assert np.array_equal(out, other_stream(key, words, start=2 * block))


@pytest.mark.parametrize("words", [1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_long_pieces(words: int) -> None:
    out = np.empty(words, dtype=np.uint64)
    stream_words(b"k" * 16, 6, out)
    assert np.array_equal(out, other_stream(b"k" * 16, words, start=6))


@settings(max_examples=40, deadline=None)
@given(keys, st.integers(0, 100), st.lists(st.integers(0, 60), max_size=6))
def test_a_keystream_runs_on_from_piece_to_piece(key: bytes, block: int, sizes: list[int]) -> None:
    stream = Keystream(key, 2 * block)
    pieces = [np.empty(size, dtype=np.uint64) for size in sizes]
    for piece in pieces:
        stream.fill(piece)
    expected = other_stream(key, sum(sizes), start=2 * block)
    assert [int(word) for piece in pieces for word in piece] == expected.tolist()


def test_a_keystream_writes_to_a_part_of_an_array() -> None:
    array = np.zeros(10, dtype=np.uint64)
    Keystream(b"k" * 16).fill(array[3:6])
    assert array.tolist() == [0, 0, 0, *other_stream(b"k" * 16, 3).tolist(), 0, 0, 0, 0]


def test_a_keystream_does_not_print_its_key() -> None:
    assert repr(Keystream(b"k" * 16)) == "<Keystream>"


def test_accumulate_and_stream_words_are_one_stream() -> None:
    vector, out = np.zeros(BLOCK + 10, dtype=np.uint64), np.empty(BLOCK + 10, dtype=np.uint64)
    accumulate(vector, [b"q" * 16])
    stream_words(b"q" * 16, 0, out)
    assert np.array_equal(vector, out)


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 15, 17, 24, 32])
def test_only_16_byte_keys_are_taken(length: int) -> None:
    """24 and 32 bytes would be AES-192 and AES-256: another stream, silently."""
    assert KEY_BYTES == 16
    for use in (lambda key: accumulate(np.zeros(2, dtype=np.uint64), [key]), Keystream):
        with pytest.raises(ValueError, match="16 bytes"):
            use(bytes(length))


def test_an_odd_word_is_no_entry() -> None:
    with pytest.raises(ValueError, match="even word"):
        stream_words(bytes(16), 3, np.empty(2, dtype=np.uint64))


def test_a_key_gives_at_most_2_to_36_bytes() -> None:
    huge = np.broadcast_to(np.uint64(0), (MAX_STREAM_BYTES // 8 + 1,))  # no memory behind it
    with pytest.raises(ValueError, match=r"2\*\*36"):
        accumulate(huge, [bytes(16)])
