"""From digits to numbers on shared planes, against the boolean formula."""

from collections.abc import Callable

import numpy as np
import pytest

from securefl.cluster.threads import run_parties
from securefl.mpc.bits import prefix_less
from securefl.mpc.party import Party


def horner(less: np.ndarray, equal: np.ndarray) -> np.ndarray:
    """less_n ^ equal_n·(… less_0), lowest first."""
    result = less[0]
    for below, same in zip(less[1:], equal[1:], strict=True):
        result = below ^ same & result
    return result


def drawn(digits: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Planes less and equal; of equal seven bits in eight are 1, or the lowest digits would hardly ever count."""
    planes = np.random.default_rng(digits).integers(0, 256, (4, digits, width), dtype=np.uint8)
    return planes[0], planes[1] | planes[2] | planes[3]


def joined(
    less: np.ndarray, equal: np.ndarray, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> tuple[np.ndarray, list[int], list[int]]:
    """The result from planes in the clear, and each party's rounds and bytes. ``change``: of what the helper deals."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 256, (2, *less.shape), dtype=np.uint8)
    given = [(masks[0], masks[1]), (less ^ masks[0], equal ^ masks[1]), (None, None)]
    digits, width = less.shape

    def program(party: Party) -> tuple[np.ndarray, int, int]:
        if party.is_helper and change is not None:
            deal = party.deal
            party.deal = lambda to, pieces, values: deal(to, pieces, [change(values[0])])
        before = sum(link.bytes_sent for link in party.channel.traffic.values())
        part = prefix_less(party, *given[party.me], digits, width)
        return part, party.rounds, sum(link.bytes_sent for link in party.channel.traffic.values()) - before

    parts, rounds, sent = zip(*run_parties(program), strict=True)
    assert not parts[2].any(), "the helper's part"
    return parts[0] ^ parts[1], list(rounds), list(sent)


def test_all_combinations_of_four_digits() -> None:
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    planes = np.packbits(bits.astype(np.uint8), axis=0).T
    (less, equal), values = planes.reshape(2, 4, 32), bits.T
    result, rounds, sent = joined(less, equal)
    b = values.astype(bool)
    expected = b[3] ^ (b[7] & (b[2] ^ (b[6] & (b[1] ^ (b[5] & b[0])))))
    np.testing.assert_array_equal(np.unpackbits(result), expected)
    assert rounds == [1, 1, 0]
    assert sent == [6 * 32, 6 * 32, 15 * 32]


@pytest.mark.parametrize(("digits", "opened", "dealt"), [(4, 6, 15), (8, 11 + 6, 7 + 15), (16, 23 + 11 + 6, 37)])
def test_any_planes(digits: int, opened: int, dealt: int) -> None:
    less, equal = drawn(digits, 500)
    result, rounds, sent = joined(less, equal)
    np.testing.assert_array_equal(result, horner(less, equal))
    assert rounds == [digits.bit_length() - 2] * 2 + [0]
    assert sent == [opened * 500, opened * 500, dealt * 500]


@pytest.mark.parametrize("digits", [4, 8, 16])
def test_every_digit_decides(digits: int) -> None:
    """Numbers that differ first at digit k, from the highest down, and numbers that are equal."""
    for k in range(digits):
        less, equal = np.zeros((2, digits, 8), np.uint8)
        equal[k + 1 :] = 255
        less[k] = 255
        np.testing.assert_array_equal(joined(less, equal)[0], np.full(8, 255))
    assert not joined(np.zeros((digits, 8), np.uint8), np.full((digits, 8), 255, np.uint8))[0].any()


@pytest.mark.parametrize(("digits", "dealt"), [(4, 15), (16, 37)])
def test_a_wrong_dealt_plane_makes_a_wrong_result(digits: int, dealt: int) -> None:
    less, equal = drawn(digits, 500)
    right = horner(less, equal)

    def wrong_at(plane: int) -> Callable[[np.ndarray], np.ndarray]:
        wrong = np.zeros((dealt, 1), np.uint8)
        wrong[plane] = 255
        return lambda values: values ^ wrong

    np.testing.assert_array_equal(joined(less, equal, lambda values: values)[0], right)
    for plane in range(dealt):
        assert np.any(joined(less, equal, wrong_at(plane))[0] != right), plane
