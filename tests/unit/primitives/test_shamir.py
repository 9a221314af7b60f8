"""Shamir sharing against a second implementation, and what t and t - 1 shares can and cannot say."""

from contextlib import suppress
from fractions import Fraction
from itertools import combinations

import pytest
from Crypto.Math.Numbers import Integer
from Crypto.Math.Primality import test_probable_prime as probable_prime
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import AuthenticationError, DecodeError
from securefl.primitives import shamir
from securefl.primitives.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, Interpolation, share_from_bytes, split
from securefl.testing import RecordingEntropy, SeededEntropy

secrets = st.binary(min_size=32, max_size=32)


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, int, int, int]:
    """A secret, points, threshold, and a seed for the polynomial."""
    points = draw(st.integers(1, 9))
    return draw(secrets), points, draw(st.integers(1, points)), draw(st.integers(0, 2**64))


def deal(secret: bytes, points: int, threshold: int, seed: int = 0) -> dict[int, int]:
    shares = split(secret, points=points, threshold=threshold, entropy=SeededEntropy(seed))
    return {x: share_from_bytes(share) for x, share in enumerate(shares, start=1)}


# ---- second implementation: no Horner, no coefficients at zero, no modular inverse --------------------------


def naive_split(secret: bytes, points: int, coefficients: list[int]) -> list[int]:
    """Powers written out. ``coefficients``: of x^1, x^2, …"""
    constant = int.from_bytes(secret, "big")
    return [
        (constant + sum(c * x**power for power, c in enumerate(coefficients, start=1))) % PRIME
        for x in range(1, points + 1)
    ]


def naive_value(shares: dict[int, int], at: int) -> int:
    """Lagrange's formula over the rationals; only the last step knows the field."""
    total = 0
    for x, y in shares.items():
        weight = Fraction(1)
        for other in shares:
            if other != x:
                weight *= Fraction(at - other, x - other)
        total += y * weight.numerator * int(Integer(weight.denominator).inverse(PRIME))
    return total % PRIME


@settings(max_examples=100, deadline=None)
@given(sharings())
def test_shares_are_the_values_of_the_drawn_polynomial(sharing: tuple[bytes, int, int, int]) -> None:
    secret, points, threshold, seed = sharing
    source = RecordingEntropy(SeededEntropy(seed))
    shares = split(secret, points=points, threshold=threshold, entropy=source)
    assert [len(share) for share in shares] == [SHARE_BYTES] * points
    (drawn,) = source.tokens
    assert len(drawn) == 48 * (threshold - 1)
    highest_first = [int.from_bytes(drawn[at : at + 48], "big") % PRIME for at in range(0, len(drawn), 48)]
    expected = naive_split(secret, points, highest_first[::-1])
    assert [int.from_bytes(share, "big") for share in shares] == expected


@settings(max_examples=100, deadline=None)
@given(sharings(), st.randoms(use_true_random=False))
def test_any_t_shares_give_the_secret(sharing: tuple[bytes, int, int, int], random) -> None:
    secret, points, threshold, seed = sharing
    shares = deal(secret, points, threshold, seed)
    chosen = random.sample(sorted(shares), threshold)  # in any order
    assert Interpolation(chosen).secret(shares) == secret
    assert naive_value({x: shares[x] for x in chosen}, 0).to_bytes(33, "big")[1:] == secret
    missing = random.randint(1, points)
    assert Interpolation(chosen).value_at(missing, shares) == shares[missing]


def test_every_set_of_t_of_7_gives_the_secret() -> None:
    secret = bytes(range(32))
    shares = deal(secret, 7, 4)
    for chosen in combinations(shares, 4):
        assert Interpolation(chosen).secret({x: shares[x] for x in chosen}) == secret


@pytest.mark.parametrize("threshold", [31, 32, 33, 34, 64, 65, 66, 97])
def test_long_polynomials(threshold: int) -> None:
    """Longer than the runs between two reductions."""
    source = RecordingEntropy(SeededEntropy(threshold))
    shares = split(b"\xee" * 32, points=100, threshold=threshold, entropy=source)
    drawn = source.tokens[0]
    highest_first = [int.from_bytes(drawn[at : at + 48], "big") % PRIME for at in range(0, len(drawn), 48)]
    values = [int.from_bytes(share, "big") for share in shares]
    assert values == naive_split(b"\xee" * 32, 100, highest_first[::-1])
    last = list(range(101 - threshold, 101))
    assert Interpolation(last).secret(dict(enumerate(values, start=1))) == b"\xee" * 32


@settings(max_examples=60, deadline=None)
@given(sharings(), secrets)
def test_one_share_too_few_is_consistent_with_every_secret(sharing: tuple[bytes, int, int, int], other: bytes) -> None:
    """For any other secret there is exactly one polynomial through the same t - 1 shares."""
    secret, points, threshold, seed = sharing
    shares = deal(secret, points, threshold, seed)
    known = {x: shares[x] for x in sorted(shares)[: threshold - 1]}
    through = {0: int.from_bytes(other, "big"), **known}  # t points: the secret itself is one of them
    completed = {x: naive_value(through, x) for x in range(1, threshold + 1)}
    assert all(completed[x] == y for x, y in known.items())
    assert Interpolation(list(completed)).secret(completed) == other


def test_the_leading_coefficients_are_spread_over_the_field() -> None:
    """Deterministic: 400 polynomials from a fixed seed; each sixteenth of the field is met."""
    source = SeededEntropy(7)
    shares = [split(bytes(32), points=2, threshold=2, entropy=source)[0] for _ in range(400)]  # f(1) = c1
    buckets = {int.from_bytes(share, "big") * 16 // PRIME for share in shares}
    assert buckets == set(range(16))
    assert len(set(shares)) == 400


@settings(max_examples=60, deadline=None)
@given(sharings(), st.integers(1, PRIME - 1), st.randoms(use_true_random=False))
def test_a_wrong_share_changes_the_secret(sharing: tuple[bytes, int, int, int], by: int, random) -> None:
    secret, points, threshold, seed = sharing
    shares = deal(secret, points, threshold, seed)
    chosen = random.sample(sorted(shares), threshold)
    liar = random.choice(chosen)
    shares[liar] = (shares[liar] + by) % PRIME
    with suppress(AuthenticationError):  # the value is no 32-byte secret
        assert Interpolation(chosen).secret(shares) != secret


def test_shares_that_give_no_32_bytes_are_named() -> None:
    for value in (2**256, PRIME - 1):
        with pytest.raises(AuthenticationError, match="at least one of them is wrong"):
            Interpolation([5]).secret({5: value})
    assert Interpolation([5]).secret({5: 2**256 - 1}) == b"\xff" * 32


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, b"\0" * 31 + b"\1"])
def test_extreme_secrets(secret: bytes) -> None:
    shares = deal(secret, 5, 3)
    assert Interpolation([5, 1, 3]).secret(shares) == secret


def test_a_threshold_of_one_is_a_copy() -> None:
    assert set(deal(b"\7" * 32, 3, 1).values()) == {int.from_bytes(b"\7" * 32, "big")}


# ---- constants and bounds -----------------------------------------------------------------------------------


def test_the_prime_is_the_smallest_above_2_to_256() -> None:
    assert probable_prime(Integer(PRIME))
    assert not any(probable_prime(Integer(candidate)) for candidate in range(2**256, PRIME))
    assert (SECRET_BYTES, SHARE_BYTES) == (32, 33)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_only_32_byte_secrets_are_shared(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        split(bytes(length), points=3, threshold=2, entropy=SeededEntropy(0))


@pytest.mark.parametrize(("points", "threshold"), [(3, 0), (3, 4), (0, 0), (3, -1), (0, 1)])
def test_thresholds_outside_1_to_n_are_refused(points: int, threshold: int) -> None:
    with pytest.raises(ValueError, match="threshold"):
        split(bytes(32), points=points, threshold=threshold, entropy=SeededEntropy(0))


@pytest.mark.parametrize("points", [[], [0], [1, 1], [1, -1], [PRIME], [1, PRIME + 1], [2, 3, 2]])
def test_points_must_be_distinct_and_within_the_field(points: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct points"):
        Interpolation(points)


@pytest.mark.parametrize("length", [0, 32, 34])
def test_a_share_has_33_bytes(length: int) -> None:
    with pytest.raises(DecodeError, match="33 bytes"):
        share_from_bytes(bytes(length))


def test_a_share_is_an_element_of_the_field() -> None:
    assert share_from_bytes((PRIME - 1).to_bytes(33, "big")) == PRIME - 1
    assert share_from_bytes(memoryview(bytes(32) + b"\5")) == 5
    for value in (PRIME, PRIME + 1, 2**264 - 1):
        with pytest.raises(DecodeError, match="field"):
            share_from_bytes(value.to_bytes(33, "big"))


def test_an_interpolation_uses_its_own_points_only() -> None:
    shares = deal(bytes(32), 5, 2)
    shares[4] = 12345
    assert Interpolation([1, 2]).secret(shares) == bytes(32)
    with pytest.raises(KeyError):
        Interpolation([1, 6]).secret(shares)


def test_nothing_prints_a_share() -> None:
    shares = deal(b"\x5a" * 32, 3, 2)
    interpolation = Interpolation([1, 2])
    interpolation.secret(shares)
    assert str(shares[1]) not in repr(interpolation)
    assert repr(shamir.Interpolation([1, 2])).startswith("<")
