"""Matrix products modulo 2^64, each way against numpy's."""

import numpy as np
import pytest

from securefl.mpc import gemm as module
from securefl.mpc.gemm import by_limbs, candidates, gemm, use


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (17, 2049, 9), (1, 784, 128), (90, 70, 1), (2, 0, 3)])
@pytest.mark.parametrize("product", candidates())
def test_every_way_is_exact(product, shape) -> None:
    m, k, n = shape
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 2**64, (m, k), dtype=np.uint64), rng.integers(0, 2**64, (k, n), dtype=np.uint64)
    np.testing.assert_array_equal(product(left, right), left @ right)
    np.testing.assert_array_equal(gemm(left, right), left @ right)


def test_extreme_limbs_are_exact() -> None:
    """All limbs at their largest size, at the depth where float64 holds them just about."""
    value = np.uint64(sum((2**21 - 1) << (22 * i) for i in range(2)) + ((2**19) << 44))
    left = np.full((2, 2048), value)
    np.testing.assert_array_equal(by_limbs(left, left.T), left @ left.T)
    lowest = np.full((2, 2048), np.uint64(2**21))
    np.testing.assert_array_equal(by_limbs(lowest, lowest.T), lowest @ lowest.T)


def test_transposed_and_strided_matrices() -> None:
    words = np.random.default_rng(1).integers(0, 2**64, (64, 96), dtype=np.uint64)
    np.testing.assert_array_equal(gemm(words.T, words), words.T @ words)
    np.testing.assert_array_equal(gemm(words[::2], words.T[:, ::3]), words[::2] @ words.T[:, ::3])


def test_the_way_can_be_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_chosen", [])
    asked = []
    use(lambda left, right: asked.append(1) or by_limbs(left, right))
    words = np.ones((20, 20), np.uint64)
    np.testing.assert_array_equal(gemm(words, words), words * np.uint64(20))
    assert asked == [1]
