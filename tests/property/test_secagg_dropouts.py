"""A thousand random dropout patterns: the exact sum over the survivors reported, or TooFewClientsError; nothing else.

Each client's input is one-hot at a place of its own (as in Divvi Up's Janus simulation): a 2 in the sum proves that an
input was counted twice, a 0 that one was lost. The server's rule is written out again here, from the frames each
client managed to send, and must predict every outcome.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from securefl.errors import FaultyServerError, TooFewClientsError
from securefl.machine import RoundContext
from securefl.primitives.kem import Suite
from securefl.secagg import MaskedSum
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.types import SERVER

FRAMES = 4  # keys, shares, masked input, unmask shares


@dataclass(frozen=True)
class Pattern:
    """One session: who is invited, how many frames each manages to send, and how the network treats the others."""

    ids: tuple[int, ...]
    threshold: int
    places: tuple[int, ...]  # where each client's 1 stands
    dimension: int
    max_value: int
    sent: tuple[int, ...]  # frames sent by each client; FRAMES: it never drops
    repeat: frozenset[tuple[int, int]]
    reorder: int | None


@st.composite
def patterns(draw: st.DrawFn) -> Pattern:
    n = draw(st.integers(2, 9))
    ids = draw(st.lists(st.one_of(st.integers(1, 20), st.integers(1, 2**32 - 1)), min_size=n, max_size=n, unique=True))
    dimension = draw(st.integers(n, n + 12))
    sent = draw(st.lists(st.one_of(st.just(FRAMES), st.integers(0, FRAMES)), min_size=n, max_size=n))
    order = st.one_of(st.none(), st.integers(0, 2**32))
    spots = st.tuples(st.sampled_from([SERVER, *ids]), st.integers(0, 3 * n))
    return Pattern(
        ids=tuple(sorted(ids)),
        threshold=draw(st.integers(n // 2 + 1, n).filter(lambda t: t >= 2)),
        places=tuple(draw(st.permutations(range(dimension)))[:n]),
        dimension=dimension,
        max_value=draw(st.sampled_from([1, 2, 100, 65534, 2**40])),
        sent=tuple(sent),
        repeat=frozenset(draw(st.lists(spots, max_size=6))),
        reorder=draw(order),
    )


def run(pattern: Pattern) -> Outcome:
    context = RoundContext(
        b"dropouts", 7, pattern.ids, pattern.dimension, pattern.max_value, pattern.threshold, bytes(32)
    )
    inputs = dict(zip(pattern.ids, np.eye(pattern.dimension, dtype=np.uint64)[list(pattern.places)], strict=True))
    drop_after = {i: sent for i, sent in zip(pattern.ids, pattern.sent, strict=True) if sent < FRAMES}
    faults = Faults(drop_after=drop_after, repeat=pattern.repeat, reorder=pattern.reorder)
    return run_session(MaskedSum(Suite.X25519), context, lambda client: inputs[client], faults=faults)


def expected_survivors(pattern: Pattern) -> tuple[int, ...] | None:
    """Who is in the sum, or None when some exchange falls short of the threshold."""
    for exchange in range(FRAMES):
        if sum(sent > exchange for sent in pattern.sent) < pattern.threshold:
            return None
    return tuple(i for i, sent in zip(pattern.ids, pattern.sent, strict=True) if sent >= 3)


NEVER = Pattern((1, 2), 2, (0, 1), 2, 1, (4, 4), frozenset(), None)
LAST = Pattern((1, 2, 3, 4, 5), 3, (0, 1, 2, 3, 4), 5, 1, (4, 3, 4, 3, 4), frozenset(), 1)
EVERYWHERE = Pattern((1, 2, 3, 4, 5, 6, 7, 8, 9), 5, tuple(range(9)), 9, 1, (0, 4, 1, 4, 2, 4, 3, 4, 4), frozenset(), 2)
SHORT = Pattern((1, 2, 3), 2, (0, 1, 2), 3, 1, (4, 3, 3), frozenset(), None)


@pytest.mark.parametrize("part", range(4))  # 4 × 250 patterns, so that they spread over the processes of pytest -n
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(pattern=patterns())
@example(pattern=NEVER)
@example(pattern=LAST)
@example(pattern=EVERYWHERE)
@example(pattern=SHORT)
def test_the_exact_sum_over_the_survivors_or_too_few_clients(part: int, pattern: Pattern) -> None:
    outcome, survivors = run(pattern), expected_survivors(pattern)
    if survivors is None:
        assert outcome.result is None
        assert type(outcome.error) is TooFewClientsError
        assert outcome.blamed == ()
    else:
        assert outcome.error is None
        assert outcome.result is not None
        assert outcome.result.survivors == survivors
        assert outcome.result.suspects == ()
        one_hot = [0] * pattern.dimension
        for client, place in zip(pattern.ids, pattern.places, strict=True):
            one_hot[place] = int(client in survivors)
        assert outcome.result.values.tolist() == one_hot
    # The only error a party may raise is at a repeated unmask request, which a client answers once.
    assert {type(error) for _, error in outcome.failures} <= {FaultyServerError}
    requests = {(SERVER, place) for place in range(3 * len(pattern.ids))} & pattern.repeat
    assert len(outcome.failures) <= len(requests)


def test_the_rule_above_has_all_outcomes() -> None:
    """The prediction is not vacuous: each step can be the one that falls short, and each can be survived."""
    assert expected_survivors(NEVER) == (1, 2)
    assert expected_survivors(LAST) == (1, 2, 3, 4, 5)
    assert expected_survivors(EVERYWHERE) == (2, 4, 6, 7, 8, 9)
    assert expected_survivors(SHORT) is None
