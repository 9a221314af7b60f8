"""One thousand random dropout patterns: the exact sum over exactly the survivors reported, or TooFewClientsError.

Inputs are one-hot at a place of each client's own (as in divviup/janus' simulations): a 2 in the sum proves a replay,
a missing 1 a loss, and who counted can be read off the sum.
"""

import random

import numpy as np
import pytest

from securefl.errors import TooFewClientsError
from securefl.machine import RoundContext
from securefl.secagg import MaskedSum, Suite
from securefl.transport.memory import Faults, run_session

PATTERNS = 1000
SLICES = 10
LAST_FRAME = 4  # keys, shares, masked input, unmask shares; 4 sends them all


def pattern(seed):
    """A cohort with its threshold, and what goes wrong in it."""
    rng = random.Random(seed)
    n = rng.randint(2, 9)
    clients = tuple(sorted(rng.sample(range(1, 2**32), n)))
    threshold = rng.randint(max(2, n // 2 + 1), n)
    drops = {client: rng.randint(0, LAST_FRAME - 1) for client in clients if rng.random() < rng.choice([0.1, 0.3, 0.6])}
    everyone = (0, *clients)
    repeats = {(rng.choice(everyone), rng.randint(0, 8)) for _ in range(rng.randint(0, 4))}
    reorder = rng.choice([None, rng.randint(0, 2**32)])
    return clients, threshold, Faults(drop_after=drops, repeat=frozenset(repeats), reorder=reorder)


def expected(clients, threshold, faults):
    """The survivors, or None: by the definition of the protocol, exchange by exchange."""
    sent = {client: faults.drop_after.get(client, LAST_FRAME) for client in clients}
    present = [sum(frames > exchange for frames in sent.values()) for exchange in range(LAST_FRAME)]
    if min(present) < threshold:
        return None
    return tuple(client for client in clients if sent[client] > 2)


@pytest.mark.parametrize("part", range(SLICES))
def test_the_exact_sum_over_the_survivors_or_too_few_clients(part):
    outcomes = set()
    for seed in range(part, PATTERNS, SLICES):
        clients, threshold, faults = pattern(seed)
        n = len(clients)
        context = RoundContext(b"dropouts", seed, clients, n + 3, 3, threshold, bytes(32))
        inputs = {client: np.zeros(n + 3, dtype=np.uint64) for client in clients}
        for at, client in enumerate(clients):
            inputs[client][at] = 1
        outcome = run_session(MaskedSum(Suite.X25519), context, inputs.__getitem__, faults=faults)
        survivors = expected(clients, threshold, faults)
        outcomes.add(None if survivors is None else len(survivors) < n)
        if survivors is None:
            assert outcome.result is None, seed
            assert isinstance(outcome.error, TooFewClientsError), (seed, outcome.error)
        else:
            assert outcome.result is not None, (seed, outcome.error)
            assert outcome.result.survivors == survivors, seed
            total = np.sum([inputs[client] for client in survivors], axis=0)
            assert (outcome.result.values == total).all(), seed
            assert outcome.result.suspects == (), seed
    assert outcomes == {None, True, False}, "every kind of outcome occurs in every part"
