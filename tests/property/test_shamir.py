"""Sharing as a property: linear, exact for every t shares, and every share is needed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import DecodeError
from securefl.primitives.shamir import PRIME, Interpolation, share_from_bytes, split
from securefl.testing import SeededEntropy

secrets = st.binary(min_size=32, max_size=32)


@st.composite
def shared(draw: st.DrawFn) -> tuple[bytes, int, dict[int, int], list[int]]:
    """A secret, the threshold, all shares, and at least t of the points in any order."""
    points = draw(st.integers(1, 40))
    threshold = draw(st.integers(1, points))
    secret = draw(secrets)
    shares = split(secret, points=points, threshold=threshold, entropy=SeededEntropy(draw(st.integers(0, 2**64))))
    size = draw(st.integers(threshold, points))
    chosen = draw(st.permutations(range(1, points + 1)))[:size]
    return secret, threshold, {x: share_from_bytes(share) for x, share in enumerate(shares, start=1)}, chosen


@settings(max_examples=150, deadline=None)
@given(shared())
def test_at_least_t_shares_in_any_order_give_the_secret(sharing: tuple[bytes, int, dict[int, int], list[int]]) -> None:
    secret, _, shares, chosen = sharing
    interpolation = Interpolation(chosen)
    assert interpolation.secret({x: shares[x] for x in chosen}) == secret
    assert all(interpolation.value_at(x, shares) == y for x, y in shares.items())


@settings(max_examples=100, deadline=None)
@given(shared(), shared())
def test_sharing_is_linear(
    a: tuple[bytes, int, dict[int, int], list[int]], b: tuple[bytes, int, dict[int, int], list[int]]
) -> None:
    """The sum of two sharings shares the sum: checked on the points both have."""
    points = sorted(a[2].keys() & b[2].keys())
    if len(points) < max(a[1], b[1]):
        return
    total = {x: (a[2][x] + b[2][x]) % PRIME for x in points}
    expected = (int.from_bytes(a[0], "big") + int.from_bytes(b[0], "big")) % PRIME
    interpolation = Interpolation(points)
    assert sum(c * total[x] for c, x in zip(interpolation._at_zero, points, strict=True)) % PRIME == expected


@settings(max_examples=100, deadline=None)
@given(shared(), st.integers(1, PRIME - 1), st.data())
def test_every_share_matters(
    sharing: tuple[bytes, int, dict[int, int], list[int]], by: int, data: st.DataObject
) -> None:
    """A change of one share changes what comes out, by its Lagrange coefficient, which is never 0."""
    secret, _, shares, chosen = sharing
    interpolation = Interpolation(chosen)
    liar = data.draw(st.sampled_from(chosen))
    before = sum(c * shares[x] for c, x in zip(interpolation._at_zero, chosen, strict=True)) % PRIME
    shares[liar] = (shares[liar] + by) % PRIME
    after = sum(c * shares[x] for c, x in zip(interpolation._at_zero, chosen, strict=True)) % PRIME
    assert before == int.from_bytes(secret, "big") != after


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_shares_have_one_encoding(raw: bytes) -> None:
    try:
        value = share_from_bytes(raw)
    except DecodeError:
        assert len(raw) != 33 or int.from_bytes(raw, "big") >= PRIME
    else:
        assert value.to_bytes(33, "big") == raw
