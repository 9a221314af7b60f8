"""Functions, convolutions, pooling and sorting on shares, against numpy and torch."""

import numpy as np
import pytest
import torch

from securefl.cluster.threads import run_parties
from securefl.errors import ConfigurationError
from securefl.mpc.convolution import Window, average_pool, conv2d, fold, max_pool, unfold
from securefl.mpc.fixed import decode
from securefl.mpc.functions import cross_entropy, exp_negative, log, one_hot, reciprocal, sigmoid, softmax, to_fraction
from securefl.mpc.operations import reveal, share
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared
from securefl.mpc.sorting import layers, median, sort


@pytest.fixture(scope="module", params=["dealer", "replicated"])
def evaluate(request):
    """``function`` of shared values, decoded, by each engine."""

    def run(function, *values):
        def program(party: Party):
            inputs = [share(party, 0, v.shape, v if party.me == 0 else None) for v in values]
            y = function(*inputs)
            words = reveal(y)
            return None if words is None else decode(words, y.fraction)

        return run_parties(program, engine=request.param)[0]

    return run


def test_exp_of_negative_numbers(evaluate) -> None:
    x = -np.concatenate((np.linspace(0, 20, 2001), [1000.0, 30000.0]))
    np.testing.assert_allclose(evaluate(exp_negative, x), np.exp(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("high", [1, 2, 10, 100])
def test_reciprocal(evaluate, high: float) -> None:
    x = np.linspace(1, high, 500)
    np.testing.assert_allclose(evaluate(lambda a: reciprocal(a, high), x), 1 / x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("high", [2, 10, 100])
def test_logarithm(evaluate, high: float) -> None:
    x = np.linspace(1, high, 500)
    np.testing.assert_allclose(evaluate(lambda a: log(a, high), x), np.log(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("function", [reciprocal, log])
@pytest.mark.parametrize("high", [0.5, 101])
def test_ranges_that_do_not_work_are_refused(evaluate, function, high: float) -> None:
    with pytest.raises(ConfigurationError, match="rescale"):
        evaluate(lambda a: function(a, high), np.ones(1))


@pytest.mark.parametrize("classes", [2, 10, 30])
def test_softmax(evaluate, classes: int) -> None:
    x = np.random.default_rng(0).normal(size=(64, classes)) * 6
    expected = torch.softmax(torch.from_numpy(x), 1).numpy()
    np.testing.assert_allclose(evaluate(softmax, x), expected, rtol=0, atol=1e-4)


def test_sigmoid(evaluate) -> None:
    x = np.concatenate((np.linspace(-25, 25, 2001), [-3000.0, 3000.0]))
    np.testing.assert_allclose(evaluate(sigmoid, x), torch.sigmoid(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-4)


def test_cross_entropy_of_class_numbers(evaluate) -> None:
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(33, 10)) * 4, rng.integers(0, 10, 33)

    def loss(a: Shared, b: Shared) -> Shared:
        return cross_entropy(a, one_hot(to_fraction(b, 0), 10))

    # The label's fraction of 16 places is dropped exactly, since it is zero.
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(x), torch.from_numpy(labels)).item()
    assert abs(float(evaluate(loss, x, labels.astype(float))) - expected) < 1e-3


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_one_hot(evaluate, classes: int) -> None:
    labels = np.arange(classes).repeat(2)
    got = evaluate(lambda a: one_hot(to_fraction(a, 0), classes), labels.astype(float))
    np.testing.assert_array_equal(got, np.eye(classes)[labels])


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 1), (1, 2)])
def test_convolution(evaluate, stride: int, padding: int) -> None:
    rng = np.random.default_rng(2)
    x, weight = rng.uniform(-1, 1, (3, 2, 9, 8)), rng.uniform(-1, 1, (4, 2, 3, 3))
    window = Window((3, 3), (stride, stride), (padding, padding))
    got = evaluate(lambda a, b: conv2d(a, b, window), x, weight.reshape(4, -1).T)
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(weight), None, stride, padding)
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=18 * 2**-16)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (2, 1, 0)])
def test_pooling(evaluate, size: int, stride: int, padding: int) -> None:
    x = np.random.default_rng(3).uniform(-2, 1, (2, 3, 8, 7))
    window = Window((size, size), (stride, stride), (padding, padding))
    reference = torch.from_numpy(x)
    expected = torch.nn.functional.max_pool2d(reference, size, stride, padding).numpy()
    np.testing.assert_allclose(evaluate(lambda a: max_pool(a, window), x), expected, rtol=0, atol=2**-17)
    expected = torch.nn.functional.avg_pool2d(reference, size, stride, padding).numpy()
    np.testing.assert_allclose(evaluate(lambda a: average_pool(a, window), x), expected, rtol=0, atol=1e-4)


def test_a_window_larger_than_the_image_is_refused(evaluate) -> None:
    with pytest.raises(ConfigurationError, match="no window"):
        evaluate(lambda a: max_pool(a, Window((9, 9), (1, 1))), np.ones((1, 1, 4, 4)))


def test_images_padded_by_more_than_half_a_window_have_no_maxima(evaluate) -> None:
    with pytest.raises(ConfigurationError, match="at most half"):
        evaluate(lambda a: max_pool(a, Window((3, 2), (1, 1), (2, 1))), np.ones((1, 1, 4, 4)))


def test_padding_is_below_the_smallest_value_within_the_headroom(evaluate) -> None:
    window, lowest = Window((2, 2), (1, 1), (1, 1)), -(2.0**45) + 2.0**-8
    got = evaluate(lambda a: max_pool(a * 2, window), np.full((1, 1, 2, 2), lowest / 2))
    np.testing.assert_array_equal(got, lowest)


def test_folding_is_the_transpose_of_unfolding() -> None:
    rng = np.random.default_rng(4)
    for window in (Window((3, 2), (2, 1), (1, 0)), Window((2, 2), (2, 2))):
        x = rng.integers(0, 100, (2, 3, 7, 6)).astype(np.uint64)
        rows = unfold(x, window)
        other = rng.integers(0, 100, rows.shape).astype(np.uint64)
        assert (rows * other).sum() == (x * fold(other, x.shape, window)).sum()


@pytest.mark.parametrize("n", range(1, 18))
def test_the_network_sorts(n: int) -> None:
    """By the 0-1 principle it is enough that all (here: many) vectors of zeros and ones are sorted."""
    values = (np.arange(min(2**n, 4096))[None] >> np.arange(n)[:, None]) & 1
    for pairs in layers(n):
        for i, j in pairs:
            values[i], values[j] = np.minimum(values[i], values[j]), np.maximum(values[i], values[j])
    assert (np.diff(values, axis=0) >= 0).all()


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_sorting_and_medians(evaluate, n: int) -> None:
    x = np.round(np.random.default_rng(n).normal(size=(n, 40)) * 2**16) / 2**16
    np.testing.assert_array_equal(evaluate(sort, x), np.sort(x, axis=0))
    np.testing.assert_array_equal(evaluate(median, x), np.median(x, axis=0))
