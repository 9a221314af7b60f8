"""The largest of a row by ranks and by a tournament, with labels beside it."""

import numpy as np
import pytest

from securefl.cluster.threads import run_parties
from securefl.mpc import classes as module
from securefl.mpc.classes import largest, one_hot
from securefl.mpc.fixed import decode
from securefl.mpc.functions import softmax_less_labels
from securefl.mpc.operations import mul, reveal, share
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared


def given(party: Party, values: np.ndarray) -> Shared:
    return share(party, 0, values.shape, values if party.me == 0 else None)


def numbers(party: Party, labels: np.ndarray) -> Shared:
    """Class numbers, without binary places."""
    return given(party, np.ldexp(labels.astype(float), -16)).with_fraction(0)


@pytest.mark.parametrize("classes", [1, 2, 4, 5, 10, 11])
def test_the_largest_of_a_row_is_exact_also_among_equals(classes: int) -> None:
    rng = np.random.default_rng(classes)
    values = rng.integers(-3, 3, (40, classes)).astype(float)  # many equal ones
    values[0], values[1] = -5.0, 1e6

    def program(party: Party):
        x = given(party, values)
        top, targets = largest(x)
        assert targets is None
        rounds = party.rounds
        return reveal(top), rounds

    found, rounds = run_parties(program)[0]
    np.testing.assert_array_equal(decode(found), values.max(axis=1, keepdims=True))
    if classes >= 5:
        assert rounds == 11


def test_labels_go_with_the_comparison_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(30, 7)), rng.integers(0, 7, 30)

    def program(party: Party):
        y = mul(given(party, values), given(party, np.ones(values.shape)))  # not settled, 32 places
        before = party.rounds
        top, targets = largest(y, numbers(party, labels))
        together = party.rounds - before
        assert targets is not None
        alone = one_hot(numbers(party, labels), 7)
        return reveal(top), reveal(targets), reveal(alone), together

    for most in (1 << 13, 0):
        monkeypatch.setattr(module, "_MOST_PAIRS", most)
        top, targets, alone, together = run_parties(program)[0]
        assert np.abs(decode(top, 32)[:, 0] - values.max(axis=1)).max() < 1e-4
        np.testing.assert_array_equal(decode(targets), np.eye(7)[labels])
        np.testing.assert_array_equal(targets, alone)
        assert together == (11 if most else 20), "ranks, and a tournament of three steps and the labels"


def test_the_gradient_of_cross_entropy() -> None:
    rng = np.random.default_rng(2)
    values, labels = rng.normal(scale=3, size=(20, 10)), rng.integers(0, 10, 20)
    found = run_parties(lambda party: reveal(softmax_less_labels(given(party, values), numbers(party, labels))))[0]
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    expected = powers / powers.sum(axis=1, keepdims=True) - np.eye(10)[labels]
    assert np.abs(decode(found) - expected).max() < 1e-4
