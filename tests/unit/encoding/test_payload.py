"""The integers behind the values, and both together."""

import numpy as np
import pytest

from securefl.encoding.compressor import Scale
from securefl.encoding.packing import Packing
from securefl.encoding.payload import FixedGrid, Payload
from securefl.encoding.public import PublicRandomness
from securefl.encoding.quantize import FixedPoint
from securefl.encoding.rotate import RotatedQuantizer
from securefl.encoding.tail import Tail, checksum
from securefl.errors import HeadroomError, InvalidInputError, TooFewClientsError
from securefl.machine import Segment

PUBLIC = PublicRandomness(bytes(32), 1)


def total(payload, rows, clients):
    packing = Packing(payload.segments, clients)
    words = np.zeros(packing.words, dtype=np.uint64)
    for at, (row, weight) in enumerate(rows):
        words += packing.pack(payload.encode(row, weight, seed=bytes([at]) * 32).values)
    return packing.unpack(words, len(rows))


@pytest.mark.parametrize("max_weight", [1, 255, 65535, 65536, 2**32 - 1])
def test_statistics_of_any_size_ride_exactly(max_weight):
    tail = Tail(max_weight, Segment(1000, 200))
    values = np.arange(1000, dtype=np.uint64) % 201
    out = np.empty(tail.segment.size, dtype=np.uint64)
    tail.encode(max_weight, 0.75, values, out)
    assert out.max() <= tail.segment.max_value
    weight, energy, check = tail.decode(20 * out)
    assert (weight, energy, check) == (20 * max_weight, 15.0, 20 * checksum(values))


def test_energies_saturate():
    tail = Tail(5)
    out = np.empty(tail.segment.size, dtype=np.uint64)
    tail.encode(1, 1e30, np.zeros(1, dtype=np.uint64), out)
    assert tail.decode(out)[1] == pytest.approx(65536)


@pytest.mark.parametrize("weight", [0, 6, True, 1.0])
def test_wrong_weights_are_refused(weight):
    tail = Tail(5)
    with pytest.raises(InvalidInputError, match="1 to 5"):
        tail.encode(weight, 0.0, np.zeros(1, dtype=np.uint64), np.empty(tail.segment.size, dtype=np.uint64))


def test_the_checksum_is_the_weighted_sum():
    values = np.random.default_rng(0).integers(0, 100, 1000).astype(np.uint64)
    assert checksum(values) == sum((1 + j % 255) * int(v) for j, v in enumerate(values))


def test_the_mean_and_the_next_scale_come_out():
    rng = np.random.default_rng(0)
    rows = [(rng.normal(0, 0.01, 5000).astype(np.float32), weight) for weight in (3, 5, 8)]
    payload = Payload(FixedGrid(FixedPoint(1.0, 16), 5000), 8, 1.0, 3)
    decoded = payload.decode(total(payload, rows, 3), 3)
    assert decoded.weight == 16
    assert np.allclose(decoded.mean, sum(row for row, _ in rows) * 8 / 16, atol=1e-4)
    assert decoded.scale.mean_square == pytest.approx(1e-4, rel=0.05)
    assert decoded.scale.sum_square == pytest.approx(3e-4, rel=0.05)


def test_a_sum_beyond_the_window_is_found():
    rows = [(np.full(512, 1.0, dtype=np.float32), 1)] * 20  # all alike: the sum is 20 times one, not √20 times
    payload = Payload(RotatedQuantizer(3, "auto").at(512, 20, Scale(1.0, 0.01), PUBLIC), 1, 1.0, 20)
    assert payload.segments[0].window < 41
    with pytest.raises(HeadroomError):
        payload.decode(total(payload, rows, 20), 20)
    exact = Payload(RotatedQuantizer(3, "exact").at(512, 20, Scale(1.0, 0.01), PUBLIC), 1, 1.0, 20)
    assert np.linalg.norm(exact.decode(total(exact, rows, 20), 20).mean - 1) < 15


def test_no_weight_is_no_mean():
    payload = Payload(FixedGrid(FixedPoint(1.0, 8), 4), 8, 1.0, 3)
    with pytest.raises(TooFewClientsError):
        payload.decode(np.zeros(sum(part.size for part in payload.segments), dtype=np.uint64), 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e20])
def test_values_that_cannot_be_summed_are_refused(bad):
    payload = Payload(RotatedQuantizer().at(4, 3, Scale(1.0, 1.0), PUBLIC), 8, 1.0, 3)
    with pytest.raises(InvalidInputError):
        payload.encode(np.array([1, 2, bad, 3], dtype=np.float32), 1, seed=bytes(32))
