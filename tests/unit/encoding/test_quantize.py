"""Stochastic rounding: exact against a reference in Python floats, unbiased, bounded, and equal everywhere."""

import hashlib
import hmac
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding import quantize
from securefl.encoding.quantize import FixedPoint, Quantized, require_finite
from securefl.errors import ConfigurationError, InvalidInputError

SEED = bytes(range(32))
DTYPES = [np.float16, np.float32, np.float64]
grids = st.builds(FixedPoint, st.floats(1e-6, 1e6), st.integers(2, 31))
seeds = st.binary(min_size=32, max_size=32)


def uniform_words(seed: bytes, count: int) -> list[int]:
    """Encoding SPEC §3: u_i, 32 bits, from AES-128-CTR under HKDF-SHA256(seed); both by second implementations."""
    label = b"securefl/v1/encoding/rounding"
    prk = hmac.new(bytes(32), seed, hashlib.sha256).digest()
    key = hmac.new(prk, len(label).to_bytes(4, "big") + label + b"\1", hashlib.sha256).digest()[:16]
    raw = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(4 * count))
    return [int.from_bytes(raw[at : at + 4], "little") for at in range(0, 4 * count, 4)]


def encode_by_hand(grid: FixedPoint, update: np.ndarray, seed: bytes, scale: float = 1.0) -> list[int]:
    """The same operations, one value at a time, in Python's doubles."""
    half = 2 ** (grid.value_bits - 1) - 1
    factor = scale * (half / grid.clip_range)
    result = []
    for value, word in zip(update, uniform_words(seed, update.size), strict=True):
        clamped = min(max(float(value), -grid.clip_range), grid.clip_range)
        result.append(int(min(clamped * factor + (word * 2.0**-32 + half), float(2 * half))))
    return result


@st.composite
def encodings(draw: st.DrawFn) -> tuple[FixedPoint, np.ndarray, float]:
    """A grid, an update within its range, and a scale."""
    grid, dtype = draw(grids), draw(st.sampled_from(DTYPES))
    fractions = draw(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
    update = np.array([fraction * grid.clip_range for fraction in fractions])
    with np.errstate(over="ignore", under="ignore"):
        update = update.astype(dtype)
    update = np.where(np.abs(update.astype(np.float64)) <= grid.clip_range, update, dtype(0))
    return grid, update, draw(st.one_of(st.just(1.0), st.floats(1e-3, 1)))


# ---- exactness ----------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(encodings(), seeds)
def test_the_integers_are_those_of_the_reference(encoding: tuple[FixedPoint, np.ndarray, float], seed: bytes) -> None:
    grid, update, scale = encoding
    quantized = grid.encode(update, seed=seed, scale=scale)
    assert (quantized.values.dtype, quantized.values.shape) == (np.uint64, update.shape)
    assert quantized.values.tolist() == encode_by_hand(grid, update, seed, scale)
    assert quantized.clipped == 0
    assert int(quantized.values.max()) <= grid.max_value


@settings(max_examples=200, deadline=None)
@given(encodings(), seeds)
def test_rounding_goes_to_one_of_the_two_neighbours(
    encoding: tuple[FixedPoint, np.ndarray, float], seed: bytes
) -> None:
    """Against exact fractions: floor or ceiling of s·x/δ + h, up to double rounding."""
    grid, update, scale = encoding
    for value, integer in zip(update, grid.encode(update, seed=seed, scale=scale).values, strict=True):
        exact = Fraction(scale) * Fraction(float(value)) * grid.half / Fraction(grid.clip_range) + grid.half
        assert abs(int(integer) - exact) <= 1 + Fraction(1, 2**20)


@pytest.mark.parametrize("size", [1, 2, 3, quantize._BLOCK - 1, quantize._BLOCK, quantize._BLOCK + 1])
def test_blocks_are_invisible(size: int) -> None:
    """Long updates draw one random word per value, across blocks of any size."""
    grid = FixedPoint(1.0, 16)
    update = np.sin(np.arange(2 * quantize._BLOCK + size, dtype=np.float32))
    assert grid.encode(update, seed=SEED).values.tolist() == encode_by_hand(grid, update, SEED)


def test_a_prefix_of_an_update_gets_the_same_integers() -> None:
    grid, update = FixedPoint(1.0, 8), np.cos(np.arange(1000.0))
    whole = grid.encode(update, seed=SEED).values
    for size in (1, 2, 3, 500, 999):
        assert np.array_equal(grid.encode(update[:size], seed=SEED).values, whole[:size])


def test_the_same_integers_in_another_process() -> None:
    program = (
        "import hashlib, numpy as np; from securefl.encoding.quantize import FixedPoint; "
        "x = np.sin(np.arange(50000, dtype=np.float32)) / 3; "
        "v = FixedPoint(0.3, 16).encode(x, seed=bytes(range(32)), scale=0.7, clip=True).values; "
        "print(hashlib.sha256(v.astype('<u8').tobytes()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONHASHSEED": str(i), "PYTHONPATH": ":".join(sys.path)},
        ).stdout.strip()
        for i in range(2)
    }
    update = np.sin(np.arange(50000, dtype=np.float32)) / 3
    here = FixedPoint(0.3, 16).encode(update, seed=SEED, scale=0.7, clip=True).values
    assert digests == {hashlib.sha256(here.astype("<u8").tobytes()).hexdigest()}


def test_a_known_encoding_never_changes() -> None:
    """Frozen on purpose: other implementations, stored vectors and resumed runs rely on these integers."""
    update = np.array([-1.0, -0.5, -1e-3, 0.0, 1e-3, 0.1, 0.5, 0.999, 1.0])
    values = FixedPoint(1.0, 16).encode(update, seed=SEED).values.tolist()
    assert values == encode_by_hand(FixedPoint(1.0, 16), update, SEED)
    assert (values[0], values[3], values[-1]) == (0, 32767, 65534)


def test_views_and_strides_do_not_matter() -> None:
    grid, update = FixedPoint(2.0, 12), np.sin(np.arange(100.0))
    expected = grid.encode(update[::2].copy(), seed=SEED).values
    assert np.array_equal(grid.encode(update[::2], seed=SEED).values, expected)
    read_only = update[::2].copy()
    read_only.flags.writeable = False
    assert np.array_equal(grid.encode(read_only, seed=SEED).values, expected)


def test_the_update_is_not_changed_and_an_output_array_is_used() -> None:
    grid, update = FixedPoint(0.5, 12), np.sin(np.arange(40000.0))
    before, out = update.copy(), np.full(40000, 7, dtype=np.uint64)
    quantized = grid.encode(update, seed=SEED, clip=True, out=out)
    assert quantized.values is out
    assert np.array_equal(out, grid.encode(update, seed=SEED, clip=True).values)
    assert np.array_equal(update, before)


# ---- statistics (fixed seeds: they pass or fail for good) ---------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.3, -0.123456, 0.9999, -1.0, 1.0, 1e-9])
@pytest.mark.parametrize("bits", [2, 8, 16])
def test_rounding_is_unbiased(value: float, bits: int) -> None:
    grid, count = FixedPoint(1.0, bits), 200_000
    values = grid.encode(np.full(count, value), seed=SEED).values.astype(np.int64)
    exact = value * grid.half + grid.half
    up = exact - math.floor(exact)
    deviation = abs(float(values.mean()) - exact)
    assert deviation <= 5 * math.sqrt(up * (1 - up) / count) + 1e-8
    assert float(values.var()) <= 0.25 + 0.01  # at most δ²/4 per value


def test_rounding_errors_of_two_clients_are_independent() -> None:
    """Equal updates under two seeds: correlated errors would not average out over the clients."""
    grid, update = FixedPoint(1.0, 8), np.full(200_000, 0.30103)
    one, other = (grid.encode(update, seed=bytes([i]) * 32).values.astype(np.float64) for i in (1, 2))
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 0.012  # 5 standard errors


def test_every_bit_of_the_seed_matters() -> None:
    grid, update, seen = FixedPoint(1.0, 8), np.full(64, 0.30103), set()
    for bit in range(-1, 256):
        seed = bytearray(32)
        if bit >= 0:
            seed[bit // 8] ^= 1 << bit % 8
        seen.add(grid.encode(update, seed=bytes(seed)).values.tobytes())
    assert len(seen) == 257


# ---- decoding -----------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_decoded_sum_is_within_one_step_per_client(data: st.DataObject) -> None:
    grid = data.draw(st.builds(FixedPoint, st.floats(1e-3, 1e3), st.integers(2, 24)))
    clients, dimension = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 10))
    values = st.lists(st.floats(-1, 1), min_size=dimension, max_size=dimension)
    updates = [np.array(data.draw(values)) * grid.clip_range for _ in range(clients)]
    encoded = [grid.encode(update, seed=bytes([i]) * 32, clip=True).values for i, update in enumerate(updates)]
    total = np.sum(encoded, axis=0, dtype=np.uint64)
    decoded = grid.decode(total, clients)
    assert decoded.dtype == np.float64
    assert np.all(np.abs(decoded - np.sum(updates, axis=0)) <= clients * grid.step * (1 + 1e-6))


@pytest.mark.parametrize("bits", [2, 3, 8, 16, 22])
def test_grid_points_come_back_exactly(bits: int) -> None:
    """With δ = 1 every grid point is a double, and no random word may move it."""
    half = 2 ** (bits - 1) - 1
    grid = FixedPoint(float(half), bits)
    points = np.unique(np.linspace(-half, half, 1001).round())
    quantized = grid.encode(points, seed=SEED)
    assert np.array_equal(quantized.values, (points + half).astype(np.uint64))
    assert np.array_equal(grid.decode(quantized.values, 1), points)


@pytest.mark.parametrize("bits", [2, 8, 16, 22])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_is_on_the_grid_whatever_its_sign(bits: int, dtype: type) -> None:
    grid = FixedPoint(0.7, bits)
    zeros = np.array([0.0, -0.0] * 5000, dtype=dtype)
    quantized = grid.encode(zeros, seed=SEED)
    assert np.all(quantized.values == grid.half)
    assert not grid.decode(quantized.values, 1).any()


def test_decoding_is_exact_where_the_arithmetic_is() -> None:
    grid = FixedPoint(127.0, 8)
    assert (grid.half, grid.max_value, grid.step) == (127, 254, 1.0)
    assert grid.decode(np.array([0, 254, 127, 508], dtype=np.uint64), 2).tolist() == [-254.0, 0.0, -127.0, 254.0]
    assert grid.decode(np.array([0], dtype=np.uint64), 0).tolist() == [0.0]


def test_decoding_does_not_change_the_sum() -> None:
    total = np.array([5, 6], dtype=np.uint64)
    FixedPoint(1.0, 8).decode(total, 3)
    assert total.tolist() == [5, 6]


# ---- ranges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_range", [1e-290, 1e-30, 1e-3, 1.0, 1e30, 1e300])
@pytest.mark.parametrize("bits", [2, 16, 31])
def test_very_small_and_very_large_ranges(clip_range: float, bits: int) -> None:
    grid = FixedPoint(clip_range, bits)
    update = np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) * clip_range
    values = grid.encode(update, seed=SEED).values
    assert values[0] == 0
    assert values[-1] == grid.max_value
    assert np.all(np.abs(grid.decode(values, 1) - update) <= grid.step * (1 + 1e-6))


@pytest.mark.parametrize("dtype", DTYPES)
def test_subnormal_values_round_to_a_neighbour_of_zero(dtype: type) -> None:
    tiny = dtype(np.finfo(dtype).smallest_subnormal)
    grid = FixedPoint(1.0, 16)
    values = grid.encode(np.array([tiny, -tiny] * 1000, dtype=dtype), seed=SEED).values
    assert set((values.astype(np.int64) - grid.half).tolist()) <= {-1, 0, 1}
    if dtype is not np.float64:  # and when the range is as small, they are its ends
        ends = FixedPoint(float(tiny), 8).encode(np.array([tiny, -tiny], dtype=dtype), seed=SEED)
        assert ends.values.tolist() == [254, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_never_changes_what_its_values_mean(dtype: type) -> None:
    grid, update = FixedPoint(1.0, 16), np.sin(np.arange(1000)).astype(dtype)
    assert np.array_equal(grid.encode(update, seed=SEED).values, grid.encode(update.astype(float), seed=SEED).values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [2, 16, 24, 31])
@pytest.mark.parametrize("clip_range", [0.1, 0.3, 1.0, 1e-3, 7.77])
def test_clipped_values_are_the_ends_of_the_grid(dtype: type, bits: int, clip_range: float) -> None:
    """Also where the range is no number of the update's dtype: float16(0.3) lies beyond 0.3."""
    grid = FixedPoint(clip_range, bits)
    update = np.array([-100.0, 100.0, -2 * clip_range, 2 * clip_range, 0.0], dtype=dtype)
    quantized = grid.encode(update, seed=SEED, clip=True)
    assert quantized.values.tolist()[:4] == [0, grid.max_value, 0, grid.max_value]
    assert quantized.clipped == 4


@settings(max_examples=150, deadline=None)
@given(grids, st.lists(st.floats(-3, 3), min_size=1, max_size=40), st.sampled_from(DTYPES), seeds)
def test_clipping_counts_and_clamps(grid: FixedPoint, fractions: list[float], dtype: type, seed: bytes) -> None:
    with np.errstate(over="ignore", under="ignore"):
        update = (np.array(fractions) * grid.clip_range).astype(dtype)
    update = np.nan_to_num(update, posinf=0, neginf=0)
    quantized = grid.encode(update, seed=seed, clip=True)
    assert quantized.clipped == sum(abs(float(value)) > grid.clip_range for value in update)
    assert quantized.values.tolist() == encode_by_hand(grid, update, seed)


@pytest.mark.parametrize("bits", [2, 8, 16, 23, 24, 31])
@pytest.mark.parametrize("clip_range", [0.1, 1.0, 3.0, 1e-3, 7.77, 1e30])
@pytest.mark.parametrize("word", [0, 2**32 - 1])
def test_no_random_word_leads_off_the_grid(
    word: int, clip_range: float, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extreme draws are too rare to be met by chance; double rounding must not carry them beyond an end."""

    class Constant:
        def __init__(self, key: bytes) -> None:
            assert len(key) == 16

        def fill(self, out: np.ndarray) -> None:
            out.view("<u4")[:] = word

    monkeypatch.setattr(quantize, "Keystream", Constant)
    grid = FixedPoint(clip_range, bits)
    for scale in (1.0, 0.9999999999999999):
        values = grid.encode(np.array([clip_range, -clip_range]), seed=SEED, scale=scale).values
        assert abs(int(values[0]) - grid.max_value) <= 1
        assert int(values[1]) <= 1
        assert int(values[0]) <= grid.max_value


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("place", [0, 20000, 40000])
def test_a_value_beyond_the_range_is_refused_unless_clipping(place: int, sign: int) -> None:
    grid, update = FixedPoint(1.0, 16), np.zeros(40001)
    update[place] = sign
    assert grid.encode(update, seed=SEED).clipped == 0
    update[place] = sign * np.nextafter(1.0, 2.0)
    with pytest.raises(InvalidInputError, match="beyond clip_range"):
        grid.encode(update, seed=SEED)
    quantized = grid.encode(update, seed=SEED, clip=True)
    assert quantized.clipped == 1
    assert quantized.values[place] == (grid.max_value if sign > 0 else 0)


def test_the_scale_multiplies_every_value() -> None:
    grid, update = FixedPoint(1.0, 16), np.array([1.0, -1.0, 0.5])
    scaled = grid.decode(grid.encode(update, seed=SEED, scale=0.25).values, 1)
    assert np.all(np.abs(scaled - update * 0.25) <= grid.step)


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("place", [0, 1, 20000, 40000])
def test_what_is_not_finite_is_refused_with_its_place(bad: float, dtype: type, place: int) -> None:
    update = np.zeros(40001, dtype=dtype)
    update[place] = bad
    update[-1] = math.nan if place != 40000 else bad
    for clip in (False, True):
        with pytest.raises(InvalidInputError, match=f"flat index {place}\\)"):
            FixedPoint(1.0, 16).encode(update, seed=SEED, clip=clip)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (np.array([], dtype=np.float64), "empty"),
        (np.zeros((2, 2)), r"shape \(2, 2\)"),
        (np.array(1.0), r"shape \(\)"),
        (np.float64(1.0), "numpy array of floats, got float64"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "got MaskedArray"),
        (np.zeros(2, dtype=np.int64), "array of floats, got int64"),
        (np.zeros(2, dtype=bool), "array of floats, got bool"),
        (np.zeros(2, dtype=np.complex128), "array of floats, got complex128"),
        (np.array(["1.0"]), "array of floats"),
    ],
    ids=str,
)
def test_what_is_no_flat_float_vector_is_refused(update: np.ndarray, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FixedPoint(1.0, 16).encode(update, seed=SEED)


def test_a_list_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="numpy array of floats, got list"):
        FixedPoint(1.0, 16).encode([0.5], seed=SEED)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.0000001, math.inf, math.nan])
def test_a_scale_outside_0_to_1_is_refused(scale: float) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        FixedPoint(1.0, 16).encode(np.zeros(2), seed=SEED, scale=scale)


@pytest.mark.parametrize("length", [0, 16, 31])
def test_a_short_seed_is_refused(length: int) -> None:
    with pytest.raises(InvalidInputError, match="at least 32 secret bytes"):
        FixedPoint(1.0, 16).encode(np.zeros(2), seed=bytes(length))


@pytest.mark.parametrize("bits", [-1, 0, 1, 32, 64, 16.0, True, "16"])
def test_value_bits_outside_2_to_31_are_refused(bits: int) -> None:
    with pytest.raises(ConfigurationError, match="value_bits must be 2 to 31"):
        FixedPoint(1.0, bits)


@pytest.mark.parametrize("clip_range", [0.0, -1.0, math.nan, math.inf, -math.inf, 5e-324, "1.0", None])
def test_a_clip_range_that_is_no_positive_number_is_refused(clip_range: float) -> None:
    with pytest.raises(ConfigurationError, match="clip_range"):
        FixedPoint(clip_range, 16)


def test_require_finite_gives_the_largest_magnitude() -> None:
    assert require_finite(np.array([1.0, -3.0, 2.0])) == 3.0
    assert require_finite(np.array([[0.5], [-0.25]], dtype=np.float32)) == 0.5
    assert require_finite(np.array([-0.0])) == 0.0


# ---- what is printed ----------------------------------------------------------------------------------------


def test_a_quantized_update_does_not_print_its_values() -> None:
    text = repr(Quantized(np.array([48879, 51966], dtype=np.uint64), 0))
    assert "48879" not in text


def test_an_error_does_not_quote_a_value_of_the_update() -> None:
    with pytest.raises(InvalidInputError) as caught:
        FixedPoint(1.0, 16).encode(np.array([0.5, 1.375]), seed=SEED)
    assert "1.375" not in str(caught.value)


@pytest.mark.parametrize("out", [np.empty(3, dtype=np.int64), np.empty(2, dtype=np.uint64)], ids=["dtype", "size"])
def test_integers_go_to_a_vector_of_their_size_and_type(out):
    with pytest.raises(InvalidInputError, match="out must be uint64"):
        FixedPoint(1.0, 8).encode(np.zeros(3, dtype=np.float32), seed=SEED, out=out)


def test_decoding_within_the_memory_of_the_sum_gives_the_same():
    grid = FixedPoint(0.7, 11)
    total = np.random.default_rng(0).integers(0, 3 * grid.max_value, 1000).astype(np.uint64)
    expected = grid.decode(total, 3)
    found = grid.decode_over(total, 3)
    assert np.shares_memory(found, total)
    assert (found == expected).all()
