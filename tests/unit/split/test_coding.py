from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.dp.accountant import event_epsilon
from securefl.dp.events import NeighboringRelation
from securefl.dp.gaussian import gaussian_mu
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.split.coding import FloatRows, GridRows, NoisyRows
from securefl.testing import SeededEntropy


def _rows(batch: int = 6, width: int = 9, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).uniform(-1, 1, (batch, width))).astype(np.float32)


def test_floats_come_back() -> None:
    rows = _rows()
    payload = FloatRows().encode(rows)
    assert len(payload) == FloatRows().size(6, 9)
    assert np.array_equal(FloatRows().decode(payload, 6, 9), rows)


@given(bits=st.integers(2, 16), batch=st.integers(1, 5), width=st.integers(1, 7), seed=st.integers(0, 99))
def test_the_grid_is_within_a_step_and_as_long_as_it_says(bits: int, batch: int, width: int, seed: int) -> None:
    coding = GridRows(2.0, bits)
    rows = _rows(batch, width, 2.0, seed)
    payload = coding.encode(rows)
    assert len(payload) == coding.size(batch, width) == -(-batch * width * bits // 8)
    step = 2.0 / (2 ** (bits - 1) - 1)
    assert np.abs(coding.decode(payload, batch, width) - rows).max() <= step * (1 + 1e-5)


def test_the_grid_is_unbiased() -> None:
    coding = GridRows(1.0, 3, SeededEntropy(1))
    rows = np.full((4000, 1), 0.4, np.float32)
    mean = coding.decode(coding.encode(rows), 4000, 1).mean()
    assert abs(mean - 0.4) < 5 * (1 / 3) / 2 / np.sqrt(4000)


def test_beyond_the_range_is_a_named_error() -> None:
    with pytest.raises(InvalidInputError, match=r"beyond the declared range of ±0\.5"):
        GridRows(0.5, 8).encode(_rows())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("coding", [FloatRows(), GridRows(4.0, 8), NoisyRows(1.0, 1.0, 9)])
def test_values_that_are_not_finite_are_refused(bad: float, coding: FloatRows) -> None:
    rows = _rows()
    rows[3, 4] = bad
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        coding.encode(rows)


def test_another_size_is_refused() -> None:
    coding = GridRows(1.0, 5)
    payload = coding.encode(_rows(3, 3))
    with pytest.raises(DecodeError):
        coding.decode(payload + b"\0", 3, 3)
    with pytest.raises(InvalidInputError):
        FloatRows().decode(b"\0" * 35, 3, 3)


def test_a_value_off_the_grid_and_bits_left_over_are_refused() -> None:
    with pytest.raises(DecodeError, match="beyond the grid"):
        GridRows(1.0, 8).decode(b"\xff", 1, 1)
    with pytest.raises(DecodeError, match="not zero"):
        GridRows(1.0, 5).decode(bytes([0b00001001]), 1, 1)


@pytest.mark.parametrize("bits", [1, 17])
def test_bits_have_a_range(bits: int) -> None:
    with pytest.raises(ConfigurationError):
        GridRows(1.0, bits)


def test_noise_has_the_stddev_it_says_and_rows_are_clipped() -> None:
    coding = NoisyRows(2.0, 0.5, 50, SeededEntropy(3))
    rows = np.full((2000, 50), 100.0, np.float32)
    noisy = coding.decode(coding.encode(rows), 2000, 50)
    assert abs(noisy.mean() - 2.0 / np.sqrt(50)) < 5 * coding.stddev / np.sqrt(noisy.size)
    assert abs(noisy.std() / coding.stddev - 1) < 0.02
    assert coding.stddev >= 1.0


def test_short_rows_are_not_stretched() -> None:
    coding = NoisyRows(100.0, 1e-6, 9, SeededEntropy(4))
    rows = _rows()
    assert np.abs(coding.decode(coding.encode(rows), 6, 9) - rows).max() < 1e-3


def test_noise_is_fresh_every_time() -> None:
    coding = NoisyRows(1.0, 1.0, 9)
    assert coding.encode(_rows()) != coding.encode(_rows())


def test_the_event_costs_what_a_gaussian_of_its_multiplier_costs() -> None:
    """Replacing an example moves its row by up to 2 C: mu = 2 / z in the closed form of the Gaussian mechanism."""
    z, delta = 3.0, 1e-5
    epsilon = event_epsilon(NoisyRows(1.0, z, 40).event(), delta, NeighboringRelation.REPLACE_ONE)
    assert gaussian_mu(epsilon, delta) == pytest.approx(2 / z, rel=2e-3)


@pytest.mark.parametrize("clip_norm", [1e-9, 1.0, 1e9])
def test_rows_of_nothing_are_noise_alone_at_every_clip_norm(clip_norm: float) -> None:
    rows = NoisyRows(clip_norm, 0.5, 3)
    found = rows.decode(rows.encode(np.zeros((4, 3), dtype=np.float32)), 4, 3)
    assert 0 < np.abs(found).max() < 6 * rows.stddev
