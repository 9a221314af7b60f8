"""Products, carries and cuts against Python integers, and against SEAL's transforms."""

import numpy as np
import pytest

from securefl.ckks.threshold import sampling, wide
from securefl.errors import ConfigurationError

Q = 1 << wide.MODULUS_BITS


def integers(limbs: wide.Limbs) -> list[int]:
    return [sum(int(x) << (wide.LIMB_BITS * at) for at, x in enumerate(column)) for column in limbs.T]


def limbs_from(values: list[int]) -> wide.Limbs:
    words = np.array([[value >> (64 * at) & (2**64 - 1) for value in values] for at in range(4)], dtype=np.uint64)
    return wide.limbs_of(words)


@pytest.fixture(scope="module")
def pair() -> tuple[wide.Limbs, np.ndarray]:
    return sampling.reference(bytes(32)), sampling.ternary(bytes(16))


def test_products_are_exact_at_coefficients_of_every_kind(pair: tuple[wide.Limbs, np.ndarray]) -> None:
    a, t = pair
    got = integers(wide.carry(wide.product(wide.image(a), wide.ternary_image(t))))
    values, signs = integers(a), t.tolist()
    for at in (0, 1, 2, 4095, 4096, 5000, wide.DEGREE - 1):
        expected = sum(values[j] * (signs[at - j] if j <= at else -signs[at - j]) for j in range(wide.DEGREE))
        assert got[at] == expected % Q


@pytest.mark.parametrize("fill", [0, 1, (1 << 25) - 1, 1 << 25, (1 << 26) - 1])
def test_products_of_extreme_limbs_are_exact(fill: int, pair: tuple[wide.Limbs, np.ndarray]) -> None:
    # A constant polynomial c·(1 + X + …): coefficient i of the product is c·(Σ_{j<=i} t_j − Σ_{j>i} t_j).
    _, t = pair
    a = np.full((wide.LIMBS, wide.DEGREE), fill, dtype=np.int64)
    value = integers(a[:, :1])[0]
    prefix = np.cumsum(t.astype(np.int64))
    expected = [value * int(2 * x - prefix[-1]) % Q for x in prefix]
    assert integers(wide.carry(wide.product(wide.image(a), wide.ternary_image(t)))) == expected


def test_a_polynomial_with_a_peak_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not random"):
        wide.ternary_image(np.ones(wide.DEGREE, dtype=np.int8))


def test_the_measured_error_of_a_product_is_far_inside_the_bound(pair: tuple[wide.Limbs, np.ndarray]) -> None:
    a, t = pair
    back = np.fft.ifft(wide.image(a) * wide.ternary_image(t), axis=-1) * wide._UNTWIST
    error = max(np.abs(back.real - np.rint(back.real)).max(), np.abs(back.imag - np.rint(back.imag)).max())
    assert error < 0.25 * np.abs(wide.ternary_image(t)).max() / wide.LARGEST_IMAGE


def test_carry_takes_negative_and_large_limbs_modulo_q() -> None:
    limbs = np.array([[-1, 5], [0, -(1 << 40)], [0, 0], [0, 0], [0, 0], [0, 0], [0, 1 << 60], [0, -7]], dtype=np.int64)
    before = [sum(int(x) << (26 * at) for at, x in enumerate(column)) % Q for column in limbs.T]
    wide.carry(limbs)
    assert integers(limbs) == before
    assert limbs.min() >= 0
    assert limbs.max() < 1 << 26


def test_words_and_limbs_are_the_same_numbers(pair: tuple[wide.Limbs, np.ndarray]) -> None:
    a, _ = pair
    words = wide.words_of(a)
    assert [sum(int(w) << (64 * at) for at, w in enumerate(c)) for c in words.T[:50]] == integers(a[:, :50])
    assert np.array_equal(wide.limbs_of(words), a)


@pytest.mark.parametrize("value", [0, (1 << 79) - 1, 1 << 79, Q - 1, Q - (1 << 79), Q - (1 << 79) - 1, 3 << 100])
def test_the_top_is_the_nearest_multiple(value: int) -> None:
    high = wide.top(limbs_from([value]))
    assert int(high[0, 0]) | int(high[1, 0]) << 64 == (value + (1 << 79) >> 80) % (1 << 128)


def test_words_add_with_carry() -> None:
    total = np.array([[2**64 - 1, 7], [2**64 - 1, 1]], dtype=np.uint64)
    wide.add_words(total, np.array([[1, 8], [0, 2**63]], dtype=np.uint64))
    assert total.tolist() == [[0, 15], [0, 2**63 + 1]]


def test_flooding_is_uniform_on_its_range() -> None:
    limbs = np.zeros((wide.LIMBS, wide.DEGREE), dtype=np.int64)
    sampling.add_flood(limbs, bytes(16), 90)
    values = [x - Q if x >= Q // 2 else x for x in integers(wide.carry(limbs))]
    assert all(-(1 << 90) <= x < 1 << 90 for x in values)
    # Sixteen bins of 8,192 draws: chi-square with 15 degrees of freedom, 60 is exceeded with probability 2e-7.
    counts = np.bincount([(x + (1 << 90)) >> 87 for x in values], minlength=16)
    assert ((counts - 512) ** 2 / 512).sum() < 60


def test_ternary_secrets_are_balanced() -> None:
    counts = np.bincount(sampling.ternary(b"k" * 16) + 1, minlength=3)
    assert counts.sum() == wide.DEGREE
    assert ((counts - wide.DEGREE / 3) ** 2 / (wide.DEGREE / 3)).sum() < 33  # 2 degrees of freedom: 7e-8


def test_every_purpose_context_and_index_has_its_own_stream() -> None:
    args = [(p, c, i) for p in sampling.Purpose for c in (b"a", b"b") for i in (0, 1)]
    assert len({sampling.stream_key(bytes(32), c, p, i) for p, c, i in args}) == len(args)
