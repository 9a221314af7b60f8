"""The rotation and the grid of few levels behind it."""

import numpy as np
import pytest

from securefl.encoding.compressor import Scale
from securefl.encoding.hadamard import Rotation, block_length
from securefl.encoding.public import PublicRandomness, bits, halves
from securefl.encoding.rotate import RotatedQuantizer
from securefl.errors import ConfigurationError

PUBLIC = PublicRandomness(bytes(range(32)), 7)


def rotated(rotation, x):
    y = np.empty((rotation.block, rotation.blocks), dtype=np.float32)
    for columns, _, piece in rotation.forward(x):
        y[:, columns] = piece
    return y


@pytest.mark.parametrize("size", [1, 2, 3, 5, 31, 64, 65, 1000, 17_226, 70_000, 200_001])
def test_the_rotation_keeps_norms_and_comes_back(size):
    x = np.random.default_rng(size).integers(-50, 50, size).astype(np.float32)
    rotation = Rotation(size, PUBLIC.key("test"))
    y = rotated(rotation, x)
    assert (y.astype(np.float64) ** 2).sum() == pytest.approx(rotation.block * (x.astype(np.float64) ** 2).sum())
    back = np.empty_like(x)
    rotation.backward(lambda columns, block: np.copyto(block, y[:, columns]), back, np.float32(1))
    assert (back == rotation.block * x).all()  # exact: small integers


def test_the_rotation_is_the_hadamard_matrix_of_interleaved_signed_blocks():
    size = 100
    x = np.random.default_rng(0).integers(-9, 9, size).astype(np.float32)
    rotation = Rotation(size, PUBLIC.key("test"))
    length, count = rotation.block, rotation.blocks
    padded = np.zeros(length * count)
    padded[:size] = x
    signs = 1 - 2 * bits(rotation.key, 0, padded.size).astype(float)  # one group: the order is that of the vector
    matrix = np.array([[(-1) ** bin(i & j).count("1") for j in range(length)] for i in range(length)])
    assert (rotated(rotation, x) == matrix @ (padded * signs).reshape(length, count)).all()


@pytest.mark.parametrize(("size", "block"), [(1, 4), (64, 64), (1000, 1024), (1723, 64), (17_226, 1024)])
def test_block_length(size, block):
    assert block_length(size) == block


def test_streams_can_be_entered_anywhere():
    key = PUBLIC.key("test")
    assert (bits(key, 256, 100) == bits(key, 0, 356)[256:]).all()
    assert (halves(key, 8, 9) == halves(key, 0, 17)[8:]).all()


@pytest.mark.parametrize("levels", [2, 3, 7, 255])
@pytest.mark.parametrize("width", ["exact", "auto"])
def test_integers_stay_in_range_and_wild_values_are_clipped(levels, width):
    x = np.random.default_rng(0).normal(0, 1, 3000).astype(np.float32)
    x[5] = 1e6
    grid = RotatedQuantizer(levels, width).at(3000, 20, Scale(1.0, 20.0), PUBLIC)
    out = np.empty(grid.segment.size, dtype=np.uint64)
    assert grid.encode(x, seed=bytes(32), out=out) > 0
    assert out.max() <= levels - 1


def test_zeros_cost_nothing_with_an_odd_number_of_levels():
    grid = RotatedQuantizer(3).at(500, 5, Scale(1.0, 5.0), PUBLIC)
    out = np.empty(grid.segment.size, dtype=np.uint64)
    grid.encode(np.zeros(500, dtype=np.float32), seed=bytes(32), out=out)
    assert (out == 1).all()
    assert not grid.decode(out, 1).any()


@pytest.mark.parametrize(
    "settings", [{"levels": 1}, {"levels": 256}, {"width": "wide"}, {"clip_multiple": 0.0}, {"clip_multiple": np.inf}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigurationError):
        RotatedQuantizer(**settings)


@pytest.mark.parametrize("mean_square", [0.0, np.nan, np.inf])
def test_a_grid_needs_a_scale(mean_square):
    with pytest.raises(ConfigurationError, match="scale"):
        RotatedQuantizer().at(10, 5, Scale(mean_square, 0.0), PUBLIC)


def test_public_seeds_are_checked():
    with pytest.raises(ConfigurationError):
        PublicRandomness(b"short", 0)
    with pytest.raises(ConfigurationError):
        PublicRandomness(bytes(32), -1)


@pytest.mark.parametrize("size", [3, 100, 5_000, 70_000])
def test_decoding_within_the_memory_of_the_sum_gives_the_same(size):
    grid = RotatedQuantizer().at(size, 3, Scale(1e-4, 3e-4), PUBLIC)
    total = np.random.default_rng(size).integers(0, 7, grid.segment.size).astype(np.uint64)
    expected = grid.decode(total, 3)
    found = grid.decode_over(total, 3)
    assert found.flags.c_contiguous
    assert np.shares_memory(found, total)
    assert (found == expected).all()
