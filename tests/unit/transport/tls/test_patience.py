"""How long a peer is waited for: while it makes progress, and not too slowly."""

import pytest

from securefl.transport.tls import patience
from securefl.transport.tls.patience import MIN_RATE, Patience


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(patience, "monotonic", lambda: now[0])
    return now


def test_silence_ends_it_after_the_timeout_whatever_came_before(clock):
    waiting = Patience(10.0)
    waiting.moved(10**9)  # a gigabyte at once, then nothing
    clock[0] += 9.9
    assert waiting.left > 0
    clock[0] += 0.2
    assert waiting.left <= 0


def test_a_trickle_ends_it_too(clock):
    waiting = Patience(10.0)
    for _ in range(9):
        clock[0] += 1
        waiting.moved(MIN_RATE // 10)  # a tenth of the least rate
        assert waiting.left > 0
    for _ in range(3):
        clock[0] += 1
        waiting.moved(MIN_RATE // 10)
    assert waiting.left <= 0


def test_a_peer_at_the_least_rate_is_waited_for(clock):
    waiting = Patience(10.0)
    for _ in range(1000):
        clock[0] += 1
        waiting.moved(MIN_RATE)
        assert waiting.left > 0


def test_an_end_is_an_end(clock):
    waiting = Patience.until(105.0)
    waiting.moved(10**9)
    assert waiting.left == 5.0
    assert Patience(float("inf")).left == float("inf")
