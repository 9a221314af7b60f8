import numpy as np
import pytest

import securefl
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError

ONES = {"a": np.ones(5), "b": 2 * np.ones(5), "c": np.ones(5)}


def test_the_example_of_the_readme():
    total = securefl.secure_sum(ONES, protect="masked", clip_range=4.0, value_bits=16, threshold=2, dropped={"c"})
    assert total.survivors == ("a", "b")
    assert np.abs(total.sum - 3).max() < 2 * 2 * 4.0 / 2**16
    assert total.sum.dtype == np.float64
    assert set(total.upload_bytes) == {"a", "b", "c"}
    assert total.vector_bytes["c"] == 0


@pytest.mark.parametrize("suite", ["x25519", "mlkem768-x25519"])
def test_every_protection_gives_the_same_integers(suite):
    rng = np.random.default_rng(0)
    inputs = {name: rng.normal(0, 1, (3, 4)).clip(-4, 4) for name in "abcde"}
    seed = bytes(32)
    plain = securefl.secure_sum(inputs, protect="plain", clip_range=4.0, seed=seed)
    masked = securefl.secure_sum(inputs, protect="masked", clip_range=4.0, seed=seed, suite=suite)
    assert (plain.integers == masked.integers).all()
    assert masked.sum.shape == (3, 4)
    assert (plain.sum == masked.sum).all()


def test_rounding_is_fresh_by_default():
    many = {name: np.linspace(-1, 1, 1000) for name in "ab"}
    first, second = (securefl.secure_sum(many, protect="plain", clip_range=3.0).integers for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"a": np.ones(3), "b": np.ones(4)}, "shape"),
        ({"a": np.ones(3), "b": np.array([1, np.nan, 1])}, "'b'.*finite"),
        ({"a": np.ones(3), "b": np.array([1, np.inf, 1])}, "'b'.*finite"),
        ({"a": np.ones(3), "b": np.ones(3, dtype=int)}, "'b'.*floats"),
        ({"a": np.ones(3), "b": np.ones(3, dtype=complex)}, "'b'.*floats"),
        ({"a": np.ones(3), "b": [1.0, 2.0, 3.0]}, "'b'.*floats"),
        ({"a": np.ones(0), "b": np.ones(0)}, "empty"),
        ({"a": np.ones(3), "b": np.array([1, 1e30, 1])}, "'b'.*clip_range"),
    ],
)
def test_values_that_cannot_be_summed(inputs, words):
    with pytest.raises(InvalidInputError, match=words):
        securefl.secure_sum(inputs, clip_range=4.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 1}, "threshold"),
        ({"threshold": 4}, "threshold"),
        ({"clip_range": 0.0}, "clip_range"),
        ({"clip_range": float("nan")}, "clip_range"),
        ({"value_bits": 1}, "value_bits"),
        ({"value_bits": 40}, "value_bits"),
        ({"protect": "rot13"}, "rot13"),
        ({"suite": "rsa"}, "rsa"),
        ({"dropped": {"z"}}, "'z'"),
    ],
)
def test_parameters_that_cannot_work(options, words):
    with pytest.raises(ConfigurationError, match=words):
        securefl.secure_sum(ONES, **{"clip_range": 4.0, **options})


def test_one_client_is_no_sum():
    with pytest.raises(ConfigurationError, match="2 clients"):
        securefl.secure_sum({"a": np.ones(3)}, clip_range=4.0)


def test_too_few_survivors():
    with pytest.raises(TooFewClientsError):
        securefl.secure_sum(ONES, clip_range=4.0, dropped={"b", "c"})
