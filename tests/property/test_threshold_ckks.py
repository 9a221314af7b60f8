"""Whoever leaves, whenever, in whatever order frames come: the exact sum over the survivors named, or a named error."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from securefl.ckks.threshold import ThresholdParams, ThresholdSum
from securefl.errors import ProtocolError, TooFewClientsError
from securefl.machine import RoundContext
from securefl.transport.memory import Faults, run_session


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_sum_is_exact_or_an_error_is_named(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 4))
    ids = tuple(sorted(data.draw(st.sets(st.integers(1, 2**32 - 1), min_size=n, max_size=n))))
    dimension = data.draw(st.integers(1, 40))
    max_value = data.draw(st.sampled_from([1, 255, 65535, 2**31 - 1, 2**50]))
    threshold = data.draw(st.integers(2, n))
    leaves = {i: data.draw(st.integers(0, 9)) for i in ids if data.draw(st.booleans())}
    context = RoundContext(b"p", 0, ids, dimension, max_value, threshold, bytes(32))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    inputs = {i: rng.integers(0, max_value, dimension, endpoint=True).astype(np.uint64) for i in ids}
    faults = Faults(drop_after=leaves, reorder=data.draw(st.none() | st.integers(0, 99)))
    outcome = run_session(ThresholdSum(), context, lambda i: inputs[i], faults=faults)
    if outcome.result is None:
        assert isinstance(outcome.error, TooFewClientsError)
        assert leaves
        return
    survivors = outcome.result.survivors
    assert len(survivors) >= threshold
    assert set(ids) - set(leaves) <= set(survivors)
    assert np.array_equal(outcome.result.values, sum(inputs[i] for i in survivors))
    assert all(isinstance(error, ProtocolError) or "another session" in str(error) for _, error in outcome.failures)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 64),
    size=st.integers(1, 300),
    max_value=st.integers(1, 2**50),
    bits=st.integers(30, 50),
    seed=st.integers(0, 2**32),
)
def test_digits_of_any_shape_come_back(n: int, size: int, max_value: int, bits: int, seed: int) -> None:
    p = ThresholdParams(tuple(range(1, n + 1)), size, max_value, 2, statistical_bits=bits)
    values = np.random.default_rng(seed).integers(0, max_value, size, endpoint=True).astype(np.uint64)
    assert np.array_equal(p.decode(p.encode(values), n), values)
    # The sum of n clients with these values, from Python integers.
    words = p.encode(values)
    total = [n * (int(low) | int(high) << 64) for low, high in words.T]
    summed = np.array([[x >> 64 * at & (2**64 - 1) for x in total] for at in (0, 1)], dtype=np.uint64)
    assert np.array_equal(p.decode(summed, n), values * np.uint64(n))
