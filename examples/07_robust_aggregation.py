"""Rules on shared updates: two servers find the poisoned updates that neither of them can read.

Eight clients share their updates between two servers; a helper deals masks and receives nothing. Two clients send
poison: one an update fifty times too long, one words that are no update at all, whose length looks small modulo 2^64.
All three parties run here as threads. Needs the base install only.

python3 examples/07_robust_aggregation.py
"""

import os

import numpy as np

from securefl.cluster.threads import run_parties
from securefl.encoding.quantize import FixedPoint
from securefl.mpc.party import Party
from securefl.mpc.robust import accepted_sum, median, multi_krum, trimmed_sum, vet
from securefl.mpc.shared import Shared

CLIENTS, DIMENSION, NORM_BOUND = 8, 200, 2.0
GRID = FixedPoint(clip_range=1.0, value_bits=16)
LARGEST = GRID.max_value // 2  # integers less the middle of their grid: within ± this
STEP = GRID.clip_range / LARGEST


def client_shares(integers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a client sends: one uniform share to each server; they add up to its integers modulo 2^64."""
    words = integers.astype(np.int64).view(np.uint64)
    mask = np.frombuffer(os.urandom(words.nbytes), np.uint64)
    return words - mask, mask


def main() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.05, DIMENSION)
    updates = common + rng.normal(0, 0.02, (CLIENTS, DIMENSION))
    values = np.stack([GRID.encode(row, seed=os.urandom(32)).values.astype(np.int64) - LARGEST for row in updates])
    honest = [0, 1, 2, 4, 5, 7]
    values[3] = np.clip(values[3] * -50, -LARGEST, LARGEST)  # backwards, and as long as the range allows
    values[6] = 2**32  # the square of 2^32 is 0 modulo 2^64: without the range check its length would be 0

    sent = [client_shares(row) for row in values]
    held = [np.stack([share[server] for share in sent]) for server in (0, 1)]
    assert abs(float(held[0].astype(np.float64).mean()) / 2**63 - 1) < 0.1  # a server sees uniform words

    def matrix(party: Party, rows: np.ndarray | slice = slice(None)) -> Shared:
        """A party's part of the matrix [clients, dimension]; the helper has none."""
        shape = held[0][rows].shape
        return Shared(party, shape, 0, None if party.is_helper else held[party.me][rows])

    # The servers learn one bit per client, the helper nothing.
    bound = int((NORM_BOUND / STEP) ** 2)
    accepted = run_parties(lambda party: vet(matrix(party), LARGEST, bound))[0]
    assert accepted is not None
    assert list(np.flatnonzero(accepted)) == honest
    print("dropped by range or norm, known to the servers only: clients", *np.flatnonzero(~accepted))

    total = run_parties(lambda party: accepted_sum(matrix(party), None if party.is_helper else accepted))[0]
    assert total is not None
    assert (total == values[accepted].sum(axis=0)).all()
    print("sum of the accepted updates: exact")

    # Rules for poison within the bounds: client 0 now sends the opposite of what the others learned.
    held[0][0] -= (values[0] + values[1]).view(np.uint64)
    values[0] = -values[1]
    kept = np.flatnonzero(accepted)
    for name, rule, count in (
        ("coordinate median", lambda party: median(matrix(party, kept)), 2),
        ("trimmed mean", lambda party: trimmed_sum(matrix(party, kept), 1), len(kept) - 2),
        ("multi-Krum", lambda party: multi_krum(matrix(party, kept), 1, 4, LARGEST), 4),
    ):
        opened = run_parties(rule)[0]
        assert opened is not None
        error = np.abs(opened * STEP / count - common).mean()
        mean_error = np.abs(values[kept].mean(axis=0) * STEP - common).mean()
        print(f"{name}: mean error {error:.4f}, the plain mean's {mean_error:.4f}")
        assert error < mean_error
    print("poisoned updates were dropped or outvoted, and no update was read")


if __name__ == "__main__":
    main()
