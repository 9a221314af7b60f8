"""Layouts, bounds, refusals: what a session promises before it begins."""

import math
from dataclasses import replace

import numpy as np
import pytest

from securefl.ckks.threshold.params import MAX_CIPHERTEXTS, ThresholdParams
from securefl.ckks.threshold.wide import DEGREE
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError
from securefl.machine import Segment


def params(n: int = 10, dimension: int = 1000, max_value: int = 65535, **changes: object) -> ThresholdParams:
    return replace(ThresholdParams(tuple(range(1, n + 1)), dimension, max_value, 2), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [2, 3, 10, 20, 64])
@pytest.mark.parametrize("bits", [1, 8, 10, 16, 31])
@pytest.mark.parametrize("dimension", [1, 100, 10**6])
def test_the_plaintext_and_all_noise_fit(n: int, bits: int, dimension: int) -> None:
    p = params(n, dimension, 2**bits - 1)
    for run in p.runs:
        assert run.base > n * run.max_value
        assert run.base**run.digits << p.shift <= 1 << 128
    assert p.noise_bound == n * (n * 2 * 21 * DEGREE + 21)
    assert p.residue_bound >= n + (n * 2**p.flood_bits + p.noise_bound) / 2**80
    assert 4 * p.residue_bound <= 1 << p.shift
    assert p.achieved_bits >= p.statistical_bits == 40
    assert 64 <= p.flood_bits <= 120
    assert 2 <= p.shift <= 60
    assert math.isclose(2**-p.achieved_bits, p.coefficients * p.noise_bound / 2 ** (p.flood_bits + 1), rel_tol=1e-9)


def test_bytes_per_parameter_at_ten_parties() -> None:
    sixteen = params(10, 10**6, 2**16 - 1)
    assert sixteen.input_bytes / 10**6 < 7.2
    assert 16 * sixteen.coefficients / 10**6 < 2.7
    ten = params(10, 10**6, 2**10 - 1)
    assert ten.input_bytes / 10**6 < 4.8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"statistical_bits": 29}, "at least 30 bits"),
        ({"statistical_bits": 110}, "need flooding of 2"),
        ({"statistical_bits": 85, "max_value": 2**54}, "do not fit beside"),
        ({"threshold": 1}, "threshold must be 2"),
        ({"threshold": 11}, "threshold must be 2"),
        ({"clients": (1,)}, "2 to 64 clients"),
        ({"clients": tuple(range(1, 66))}, "2 to 64 clients"),
        ({"dimension": 40 * MAX_CIPHERTEXTS * DEGREE, "max_value": 2**31 - 1}, "one key may open at most"),
        ({"max_value": 2**57}, "fit"),
    ],
)
def test_what_cannot_work_is_refused_beforehand(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        params(**changes)  # type: ignore[arg-type]


def test_digits_come_back_at_the_edges_of_the_noise() -> None:
    segments = (Segment(500, 65535), Segment(300, 1), Segment(3, 2**40), Segment(1, 2**31))
    p = params(5, 804, 2**40, segments=segments)
    sizes = [np.full(s.size, s.max_value, dtype=np.uint64) for s in segments]
    for values in (np.concatenate(sizes), np.zeros(804, dtype=np.uint64)):
        p.packing.check(values)
        word = p.encode(values)
        total = word.copy()
        for _ in range(4):
            carried = total[0] + word[0]
            total[1] += word[1] + (carried < word[0])
            total[0] = carried
        for noise in (0, p.residue_bound, -p.residue_bound):
            noisy = _plus(total, noise)
            assert np.array_equal(p.decode(noisy, 5), values * np.uint64(5))
        with pytest.raises(DecodeError, match="off the lattice"):
            p.decode(_plus(total, p.residue_bound + 1), 5)


def test_a_sum_of_more_than_the_clients_is_refused() -> None:
    p = params(5, 12, 9)
    six = p.encode(np.full(12, 9, dtype=np.uint64))
    low = six[0] * np.uint64(5)
    with pytest.raises(DecodeError, match="no sum of 4 clients"):
        p.decode(np.stack((low, six[1] * np.uint64(5))), 4)


def test_values_beyond_the_range_are_refused() -> None:
    with pytest.raises(InvalidInputError):
        params().packing.check(np.full(1000, 65536, dtype=np.uint64))


@pytest.mark.parametrize(
    "changes",
    [
        {"session": b"other"},
        {"round": 1},
        {"threshold": 3},
        {"statistical_bits": 41},
        {"dimension": 999},
        {"max_value": 65534},
        {"model_hash": b"m" * 32},
        {"encoding": b"e"},
        {"clients": tuple(range(2, 12))},
    ],
)
def test_every_field_is_bound(changes: dict[str, object]) -> None:
    assert params(**changes).context_hash != params().context_hash  # type: ignore[arg-type]


def test_attempts_are_bound_by_number_and_members() -> None:
    p = params()
    hashes = {p.attempt_hash(a, c) for a in (0, 1) for c in (p.clients, p.clients[:-1])}
    assert len(hashes) == 4


def _plus(total: np.ndarray, noise: int) -> np.ndarray:
    low = np.full(total.shape[1], noise % 2**64, dtype=np.uint64)
    out = total.copy()
    out[0] += low
    out[1] += np.uint64(2**64 - 1 if noise < 0 else 0) + (out[0] < low)
    return out
