"""Exact ring arithmetic, against whole numbers of Python."""

import numpy as np
import pytest

from securefl.ckks import ring
from securefl.ckks.params import PARAMETER_SETS
from securefl.errors import ConfigurationError

Q = PARAMETER_SETS["n4096-q60"].primes[0]
PRIMES = [Q, *PARAMETER_SETS["n8192-q112"].primes]


def _product(a, s, q):
    """Negacyclic product by Kronecker substitution."""
    degree, width = len(a), 96
    pack = lambda poly: sum(int(x) << (width * at) for at, x in enumerate(poly))  # noqa: E731
    plus, minus = pack(a) * pack([x == 1 for x in s]), pack(a) * pack([x == -1 for x in s])
    mask = (1 << width) - 1
    out = [0] * degree
    for at in range(2 * degree):
        term = ((plus >> (width * at)) & mask) - ((minus >> (width * at)) & mask)
        out[at % degree] += term if at < degree else -term
    return [x % q for x in out]


@pytest.mark.parametrize("q", PRIMES)
@pytest.mark.parametrize("degree", [4, 64, 1024])
def test_products_are_exact_on_random_and_extreme_residues(q, degree):
    rng = np.random.default_rng(degree)
    s = rng.integers(-1, 2, degree).astype(np.int8)
    times = ring.Multiplier(s)
    a = rng.integers(0, q, (4, degree), dtype=np.uint64)
    a[1], a[2], a[3] = q // 2, q // 2 + 1, q - 1
    out = times.times(a, q)
    for row, found in zip(a, out, strict=True):
        assert _product(row, s, q) == found.tolist()


@pytest.mark.parametrize("degree", [4096, 8192])
@pytest.mark.parametrize("key", ["ones", "alternating"])
def test_the_worst_keys_and_residues_still_give_exact_products(degree, key):
    s = np.ones(degree, dtype=np.int8)
    if key == "alternating":
        s[1::2] = -1
    times = ring.Multiplier(s)
    assert times.error_bound < 0.25
    a = np.full(degree, Q // 2, dtype=np.uint64)
    # (Σ s_j) for constant a: coefficient k is Q//2 (Σ_{j<=k} s_j − Σ_{j>k} s_j).
    prefix = np.cumsum(s.astype(int))
    expected = [int(Q // 2) * int(2 * p - prefix[-1]) % Q for p in prefix]
    assert times.times(a, Q).tolist() == expected


@pytest.mark.parametrize("q", PRIMES)
def test_scaled_lift_centered_and_addition_agree_with_whole_numbers(q):
    rng = np.random.default_rng(1)
    x = np.concatenate((rng.integers(-q + 1, q, 500), [q - 1, 1 - q, 0, q // 2, -(q // 2)]))
    for factor in (1, 2**30, q - 1, int(rng.integers(0, q)), q << 3, -5):
        assert [int(v) * factor % q for v in x] == ring.scaled(x, factor, q).tolist()
    r = ring.lift(x, q)
    assert r.tolist() == [int(v) % q for v in x]
    middle = ring.centered(r, q)
    assert int(np.abs(middle).max()) <= q // 2
    assert ring.lift(middle, q).tolist() == r.tolist()
    total = r.copy()
    ring.add_into(total, r[::-1].copy(), q)
    assert total.tolist() == [(int(a) + int(b)) % q for a, b in zip(r, r[::-1], strict=True)]


def test_uniform_leaves_out_words_of_q_and_above_and_nothing_else():
    q = 3 << 58  # a quarter of the words is left out
    words = np.empty(4000, dtype=np.uint64)
    ring.Keystream(b"k" * 16).fill(words)
    expected = [int(w) & (2**60 - 1) for w in words]
    expected = [w for w in expected if w < q][:2048]
    assert ring.uniform(b"k" * 16, 2048, q).tolist() == expected


def test_noise_is_centered_binomial():
    words = np.empty(4096, dtype=np.uint64)
    ring.Keystream(b"n" * 16).fill(words)
    expected = [(int(w) & 0x1FFFFF).bit_count() - (int(w) >> 21 & 0x1FFFFF).bit_count() for w in words]
    found = ring.noise(b"n" * 16, 4096)
    assert found.tolist() == expected
    # Fixed key; variance 10.5, its estimate has standard deviation 10.5·sqrt(2/4096) = 0.23.
    assert abs(found.var() - 10.5) < 1


@pytest.mark.parametrize("bad", [np.array([0, 1, 2, 0], np.int8), np.ones(3, np.int8), np.ones(2, np.int8)])
def test_keys_that_are_not_ternary_or_no_power_of_two_are_refused(bad):
    with pytest.raises(ConfigurationError):
        ring.Multiplier(bad)


def test_a_multiplier_does_not_print_the_key():
    assert repr(ring.Multiplier(np.ones(8, np.int8))) == "<Multiplier>"
