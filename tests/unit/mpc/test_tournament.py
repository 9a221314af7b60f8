"""The largest along an axis, and the way back to the one that won, against numpy."""

import numpy as np
import pytest

from securefl.cluster.threads import run_parties
from securefl.mpc.compare import SEGMENT
from securefl.mpc.operations import reveal
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared, concatenate, public
from securefl.mpc.tournament import maximum_along, play, route


def words(party: Party, values: np.ndarray) -> Shared:
    zeros = public(party, np.zeros(values.shape), 0)
    return zeros.add_words(np.asarray(values, np.int64).view(np.uint64))


@pytest.fixture(params=["dealer", "replicated"])
def both(request):
    def run(program):
        results = run_parties(program, engine=request.param)
        np.testing.assert_array_equal(results[0], results[1])
        return results[0].view(np.int64)

    return run


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_maxima_along_an_axis(both, n: int, axis: int) -> None:
    shape = [4, 3, 2]
    shape[axis] = n
    values = np.random.default_rng(n).integers(-(2**61), 2**61, shape)
    got = both(lambda party: reveal(maximum_along(words(party, values), axis)))
    np.testing.assert_array_equal(got, values.max(axis=axis))


@pytest.mark.parametrize(
    ("n", "columns"), [(1, 50), (2, 50), (3, 50), (4, 50), (5, 50), (9, 50), (13, 50), (5, 2 * SEGMENT)]
)
def test_what_the_winners_get_goes_to_the_first_of_the_largest(both, n: int, columns: int) -> None:
    """Of few different numbers, so that most columns have several that are largest."""
    rng = np.random.default_rng(n)
    values, prizes = rng.integers(0, 3, (n, columns)), rng.integers(-(2**60), 2**60, columns)

    def program(party: Party):
        best, wins = play(words(party, values))
        got = route(wins, words(party, prizes))
        return reveal(concatenate((got, best.reshape(1, columns))))

    expected = np.zeros((n + 1, columns), np.int64)
    expected[values.argmax(axis=0), np.arange(columns)] = prizes
    expected[n] = values.max(axis=0)
    np.testing.assert_array_equal(both(program), expected)
