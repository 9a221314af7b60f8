import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl.interfaces import Contribution
from securefl.fl.pipeline import Pipeline
from securefl.machine import SumResult

GRID = FixedPoint(1.0, 16)


def contribution(values, weight=1, seed=bytes(32)):
    values = np.asarray(values, dtype=np.float32)
    return Contribution({"a": values[:2].reshape(1, 2), "b": values[2:]}, weight, seed)


def pipeline(size=5, max_weight=64, **options):
    layout = Layout.of(contribution(np.zeros(size)).tensors)
    return Pipeline(layout, GRID, max_weight, **options)


def summed(line, contributions):
    encoded = [line.encode(each) for each in contributions]
    values = np.sum([each.values for each in encoded], axis=0, dtype=np.uint64)
    return SumResult(values, tuple(range(1, len(contributions) + 1)))


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5), st.integers(1, 64)),
        min_size=1,
        max_size=6,
    )
)
def test_the_decoded_mean_is_the_weighted_mean_within_the_rounding(clients):
    line = pipeline()
    contributions = [contribution(x, n, bytes([i]) * 32) for i, (x, n) in enumerate(clients)]
    mean, total = line.decode(summed(line, contributions))
    weights = np.array([n for _, n in clients], dtype=float)
    expected = np.average(np.array([x for x, _ in clients], dtype=np.float64), axis=0, weights=weights)
    # each client's rounding error is below one step of the scaled value
    bound = len(clients) * GRID.step * 64 / weights.sum()
    assert total == weights.sum()
    assert np.abs(np.concatenate([mean["a"].ravel(), mean["b"]]) - expected).max() <= bound + 1e-7


def test_shapes_and_names_come_back():
    line = pipeline()
    mean, _ = line.decode(summed(line, [contribution([0.5, -0.5, 0, 1, -1])]))
    assert {name: tensor.shape for name, tensor in mean.items()} == {"a": (1, 2), "b": (3,)}
    assert mean["b"].dtype == np.float32


def test_the_weight_rides_in_the_last_integer():
    encoded = pipeline().encode(contribution(np.zeros(5), weight=17))
    assert encoded.values[-1] == 17
    assert encoded.values.dtype == np.uint64
    assert (encoded.values[:-1] == GRID.half).all()  # zero is on the grid


def test_the_same_seed_gives_the_same_integers_and_another_does_not():
    line, x = pipeline(500), np.linspace(-0.9, 0.9, 500)
    first, again, other = (line.encode(contribution(x, 3, bytes([s]) * 32)).values for s in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_values_beyond_the_clip_range_are_clamped_and_counted():
    encoded = pipeline().encode(contribution([2, -3, 0.5, 1, 0], weight=64))
    assert encoded.clipped == 2
    assert encoded.values[0] == GRID.max_value
    assert encoded.values[1] == 0


def test_the_clip_norm_bounds_the_whole_update():
    line = pipeline(clip_norm=0.5)
    mean, _ = line.decode(summed(line, [contribution([0.8, 0.8, 0.8, 0.8, 0.8], weight=64)]))
    flat = np.concatenate([mean["a"].ravel(), mean["b"]])
    assert math.isclose(float(np.linalg.norm(flat)), 0.5, rel_tol=1e-3)


@pytest.mark.parametrize("weight", [0, -1, 65, 1.5, True, None])
def test_a_weight_that_does_not_fit_is_refused(weight):
    with pytest.raises(InvalidInputError, match="weight"):
        pipeline().encode(contribution(np.zeros(5), weight=weight))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(InvalidInputError, match="finite"):
        pipeline().encode(contribution([0, 0, bad, 0, 0]))


def test_another_layout_is_refused():
    with pytest.raises(InvalidInputError, match="'b'"):
        pipeline(5).encode(contribution(np.zeros(6)))


def test_a_largest_weight_beyond_the_lane_is_refused_with_the_bits_that_would_do():
    with pytest.raises(ConfigurationError, match="at least 17"):
        pipeline(max_weight=2**16 - 1)


def test_weights_that_sum_to_zero_have_no_mean():
    line = pipeline()
    values = np.zeros(line.dimension, dtype=np.uint64)
    with pytest.raises(TooFewClientsError):
        line.decode(SumResult(values, (1,)))
