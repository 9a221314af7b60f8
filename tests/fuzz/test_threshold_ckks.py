"""Decoders of the n-of-n sum accept bytes that encode to themselves, or raise DecodeError."""

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from securefl.ckks.threshold import ThresholdParams, ThresholdSum
from securefl.ckks.threshold.messages import (
    Abort,
    Confirm,
    Confirmed,
    Input,
    JointKey,
    KeyShare,
    Kind,
    Restart,
    Share,
    Sum,
    client_limits,
    server_limits,
    write_polynomial,
)
from securefl.errors import DecodeError
from securefl.machine import RoundContext
from securefl.transport.memory import Faults, run_session
from securefl.transport.transcript import Transcript
from securefl.wire import HEADER_BYTES

CONTEXT = RoundContext(b"fuzz", 0, (1, 2, 5), 11, 100, 2, bytes(32))
PARAMS = ThresholdParams.of(CONTEXT)
INPUTS = np.arange(11, dtype=np.uint64)
SIGNED = (Kind.KEY_SHARE, Kind.INPUT, Kind.SHARE)

DECODERS = {
    Kind.KEY_SHARE: (KeyShare.decode, lambda m: m.encode()),
    Kind.JOINT_KEY: (lambda body: JointKey.decode(body, PARAMS), lambda m: m.encode()),
    Kind.CONFIRM_KEY: (Confirm.decode, lambda m: m.encode()),
    Kind.KEY_CONFIRMED: (lambda body: Confirmed.decode(body, 3), lambda m: m.encode()),
    Kind.INPUT: (lambda body: Input.decode(body, PARAMS), lambda m: m.c0.tobytes() + b"".join(m.c1)),
    Kind.SUM: (lambda body: Sum.decode(body, PARAMS), lambda m: bytes(m.encode())),
    Kind.SHARE: (lambda body: Share.decode(body, PARAMS), lambda m: bytes(m.encode())),
    Kind.RESTART: (lambda body: Restart.decode(body, PARAMS), lambda m: m.encode()),
    Kind.ABORT: (Abort.decode, lambda m: m.encode()),
}


@cache
def bodies() -> dict[int, bytes]:
    """A body of every kind, from sessions with a restart and with an abort."""
    found: dict[int, bytes] = {}
    for leaves in ({5: 2}, {5: 4}):
        transcript = Transcript()
        faults = Faults(drop_after=leaves)
        run_session(ThresholdSum(), CONTEXT, lambda _: INPUTS, faults=faults, observe=transcript)
        for entry in transcript:
            cut = -16 - 64 if entry.kind in SIGNED else -16
            found[entry.kind] = entry.frame[HEADER_BYTES:cut]
    return found


def test_the_corpus_has_every_kind_within_its_limit() -> None:
    limits = {**client_limits(PARAMS), **server_limits(PARAMS)}
    assert set(bodies()) == set(Kind) == set(limits)
    for kind, body in bodies().items():
        assert len(body) <= limits[kind]


@pytest.mark.parametrize("kind", DECODERS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_mutants_encode_to_themselves_or_are_refused(kind: Kind, data: st.DataObject) -> None:
    mutant = bytearray(bodies()[kind])
    for _ in range(data.draw(st.integers(0, 3))):
        mutant[data.draw(st.integers(0, min(len(mutant), 400) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 0, 1, 7, len(mutant)]))
    mutant = mutant[: len(mutant) - cut] + bytes(data.draw(st.sampled_from([0, 0, 0, 1, 9])))
    decode, encode = DECODERS[kind]
    try:
        message = decode(bytes(mutant))
    except DecodeError:
        assert mutant != bodies()[kind]
        return
    assert encode(message) == bytes(mutant)


def test_polynomials_are_written_as_they_are_read() -> None:
    share = KeyShare.decode(bodies()[Kind.KEY_SHARE])
    assert write_polynomial(share.words) == bodies()[Kind.KEY_SHARE]
    assert share.words[3].max() < 2**16
