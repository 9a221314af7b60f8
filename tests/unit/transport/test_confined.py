"""A step in a child process: its errors come back by name, and its crashes are errors."""

import os
import signal
import time

import numpy as np
import pytest

from securefl.ckks import CKKSSum
from securefl.errors import AuthenticationError, ConfigurationError, DecodeError, FaultyClientError
from securefl.machine import RoundContext
from securefl.transport.confined import confined
from securefl.transport.memory import run_session
from securefl.types import PartyId


def test_a_step_that_ends_well_changes_nothing_here():
    touched = []
    confined()(lambda: touched.append(1))
    assert touched == []


def test_errors_come_back_by_name_and_blame():
    def raising(error):
        def step():
            raise error

        return step

    with pytest.raises(AuthenticationError, match="no such seal"):
        confined()(raising(AuthenticationError("no such seal")))
    with pytest.raises(FaultyClientError, match="bad vector") as caught:
        confined()(raising(FaultyClientError("bad vector", [3, 1])))
    assert caught.value.clients == (1, 3)
    with pytest.raises(DecodeError, match="without an answer"):
        confined()(raising(RuntimeError("not one of ours")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
        (lambda: np.ones(1 << 30), "memory"),
        (lambda: os._exit(7), "without an answer"),
    ],
)
def test_crashes_and_floods_are_named_errors(step, words):
    with pytest.raises(DecodeError, match=words):
        confined(memory=1 << 28)(step)


def test_an_endless_step_is_ended():
    def forever():
        while True:
            time.thread_time()

    with pytest.raises(DecodeError, match=r"SIGXCPU|SIGKILL"):
        confined(seconds=1)(forever)


def test_limits_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError):
        confined(memory=0)


def test_a_session_with_a_guard_gives_the_same_sum():
    pytest.importorskip("tenseal")
    ids = tuple(PartyId(i) for i in (1, 2, 3))
    context = RoundContext(b"s", 0, ids, 50, 100, 2, bytes(32))
    calls = []
    guard = confined()
    protection = CKKSSum(guard=lambda step: calls.append(1) or guard(step))
    outcome = run_session(protection, context, lambda c: np.full(50, int(c), np.uint64))
    assert outcome.unwrap().values.tolist() == [6] * 50
    assert len(calls) == 4  # three vectors and one sum
