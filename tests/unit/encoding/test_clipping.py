"""The ℓ2 bound: short updates are untouched, long ones keep their direction and lose their length."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from securefl.encoding.clipping import clip_to_norm
from securefl.errors import ConfigurationError, InvalidInputError

#: How far one rounding of the factor and one of each product may carry the norm below the bound.
SLACK = {np.float16: 2.0**-9, np.float32: 2.0**-22, np.float64: 2.0**-51}
#: What a sum of 30 squares in float64 may be off by: the norm lies no farther above the bound.
ABOVE = 2.0**-48
updates = st.sampled_from([np.float32, np.float64]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.integers(1, 30),
        elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-6),
    )
)


def norm(update: np.ndarray) -> float:
    """Exact sum of squares, then one rounding."""
    total = sum(Fraction(float(value)) ** 2 for value in update)
    return math.sqrt(total)


@settings(max_examples=200, deadline=None)
@given(updates, st.floats(1e-3, 1e7))
def test_the_norm_is_bounded_and_the_direction_kept(update: np.ndarray, bound: float) -> None:
    clipped = clip_to_norm(update, bound)
    assert (clipped.dtype, clipped.shape) == (update.dtype, update.shape)
    length, slack = norm(update), SLACK[update.dtype.type]
    assert norm(clipped) <= bound * (1 + ABOVE)
    if length <= bound * (1 - 2.0**-40):
        assert clipped is update
    elif length > bound * (1 + 2.0**-40):
        assert norm(clipped) >= bound * (1 - 2 * slack)
        np.testing.assert_allclose(clipped, update * (bound / length), rtol=4 * slack, atol=1e-40)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_no_rounding_carries_the_norm_beyond_the_bound(dtype: type) -> None:
    rng = np.random.default_rng(0)
    shortened = 0
    for size in (1, 2, 3, 100, 5000):
        for bound in (1.0, 0.1, 1 / 3):
            update = (rng.standard_normal(size) * 3).astype(dtype)
            clipped = clip_to_norm(update, bound)
            shortened += clipped is not update
            assert norm(clipped) <= bound * (1 + ABOVE)
            # at most a few units of the dtype's precision are given up
            assert clipped is update or norm(clipped) >= bound * (1 - 8 * float(np.finfo(dtype).eps))
    assert shortened > 9
    equal = np.full(7, 0.3, dtype=dtype)  # all products are rounded the same way
    assert norm(clip_to_norm(equal, 0.7)) <= 0.7 * (1 + ABOVE)
    denormal = np.array([1.0, 1.0, 1.0], dtype=dtype)
    bound = float(np.finfo(dtype).smallest_subnormal) * 2.5
    assert norm(clip_to_norm(denormal, bound)) <= bound * (1 + ABOVE)


def test_a_known_triangle() -> None:
    assert clip_to_norm(np.array([3.0, -4.0]), 5.0).tolist() == [3.0, -4.0]
    assert clip_to_norm(np.array([3.0, -4.0]), 2.5).tolist() == [1.5, -2.0]
    assert clip_to_norm(np.array([3.0, -4.0], dtype=np.float32), 10.0).tolist() == [3.0, -4.0]


def test_the_argument_is_never_changed() -> None:
    update = np.array([3.0, 4.0])
    clip_to_norm(update, 1.0)
    assert update.tolist() == [3.0, 4.0]


def test_zeros_have_no_direction() -> None:
    zeros = np.zeros(4, dtype=np.float32)
    assert clip_to_norm(zeros, 1e-9) is zeros


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_squares_may_leave_the_range_of_the_dtype(dtype: type) -> None:
    """The sum of squares overflows float16 and float32, and underflows them, long before the values do."""
    info = np.finfo(dtype)
    big = np.full(4, float(info.max) / 4, dtype=dtype)
    np.testing.assert_allclose(norm(clip_to_norm(big, 1.0)), 1.0, rtol=2e-3 if dtype is np.float16 else 1e-6)
    tiny = np.full(4, float(info.tiny), dtype=dtype)
    assert clip_to_norm(tiny, 4 * float(info.tiny)) is tiny
    assert norm(clip_to_norm(tiny, float(info.tiny))) <= float(info.tiny) * 1.01


@pytest.mark.parametrize(
    ("update", "bound"),
    [
        (np.array([1.5e308, 1.5e308]), 1.0),  # the norm itself is infinite in float64
        (np.full(4, 1e38, dtype=np.float32), 1e-9),  # 5e-48 is no float32, the result 5e-10 is
        (np.full(4, 6e4, dtype=np.float16), 1e-3),
    ],
    ids=["float64", "float32", "float16"],
)
def test_a_long_update_is_shortened_and_not_erased(update: np.ndarray, bound: float) -> None:
    assert norm(clip_to_norm(update, bound)) == pytest.approx(bound, rel=2e-2)


@pytest.mark.parametrize("bound", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_a_bound_that_is_no_positive_number_is_refused(bound: float) -> None:
    with pytest.raises(ConfigurationError, match="clip_norm"):
        clip_to_norm(np.ones(2), bound)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    with pytest.raises(InvalidInputError, match="flat index 3"):
        clip_to_norm(np.array([1.0, 2.0, 3.0, bad, bad]), 1.0)


@pytest.mark.parametrize("update", [np.array([], dtype=np.float32), np.ones(3, dtype=np.int64), [1.0, 2.0]], ids=str)
def test_what_is_no_update_is_refused(update: np.ndarray) -> None:
    with pytest.raises(InvalidInputError):
        clip_to_norm(update, 1.0)
