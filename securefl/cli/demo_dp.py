"""Differential privacy, narrated: where distributed noise enters, what the server sees, and what is charged."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from securefl.cli.output import console, print_table
from securefl.dp.accountant import event_epsilon
from securefl.dp.distributed import DistributedSkellam
from securefl.dp.events import SelfComposed
from securefl.dp.filters import Budget
from securefl.dp.ledger import Ledger
from securefl.errors import ConfigurationError, PrivacyBudgetExceededError
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.machine import RoundContext
from securefl.transport.memory import Faults, run_session
from securefl.types import ClientId, IntegerVector, PartyId

__all__ = ["narrate"]

_DELTA = 1e-5


def narrate(
    clients: int, drop: int, dimension: int, noise_multiplier: float, rounds: int, *, quiet: bool
) -> dict[str, Any]:
    """Run masked rounds with distributed noise on made-up updates until the budget of ``rounds`` planned rounds ends.

    Raises :class:`ConfigurationError` when the numbers cannot work.
    """
    if clients < 3 or not 0 <= drop < clients or dimension < 1 or rounds < 1:
        raise ConfigurationError("the demo needs at least 3 clients, fewer dropped ones, a value and a round")
    ids = tuple(PartyId(i) for i in range(1, clients + 1))
    survivors = clients - drop
    least = max(clients // 2 + 1, survivors - 1)
    if survivors < least:
        raise ConfigurationError(f"with {drop} of {clients} clients dropped too few are left: {least} must stay")
    noise = DistributedSkellam(
        1.0, dimension, noise_multiplier, clients=clients, minimum_survivors=least, value_bits=22
    )
    planned = noise.event()
    epsilon = event_epsilon(SelfComposed(planned, rounds), 0.99 * _DELTA)
    # the filter for adaptively chosen rounds is a little looser than composition known beforehand
    budget = Budget.renyi_for(planned, epsilon=1.1 * epsilon, delta=_DELTA)

    def say(line: str) -> None:
        if not quiet:
            console.print(line, markup=False)

    say(f"{clients} clients, {drop} of them dropping out a round, {dimension} values")
    say(f"clip norm 1, noise multiplier {noise_multiplier:g}")
    stddev = float(noise.client_variance) ** 0.5
    say(f"each client adds Skellam noise of stddev {stddev:.1f} steps, its share for {least} survivors")
    say(f"one unit is {noise.scale:.0f} steps")
    say(f"budget: epsilon {budget.epsilon:.3f} at delta {_DELTA:g}")
    seeds = SeedTree(0)
    updates = {i: _unit(seeds.child("update", i).numpy().normal(0, 1, dimension)) for i in ids}
    faults = Faults(drop_after=dict.fromkeys(ids[survivors:], 2))
    rows: list[tuple[object, ...]] = []
    refused = None
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger(Path(folder) / "l.sqlite", run="demo", budget=budget) as ledger,
    ):
        for round in range(1, 10 * rounds + 1):
            if not ledger.allows(planned):
                refused = round
                break
            first: list[IntegerVector] = []

            def input_of(client: ClientId, first: list[IntegerVector] = first) -> IntegerVector:
                encoded = noise.encode(updates[client])
                if client == ids[0]:
                    first.append(encoded.copy())
                return encoded

            context = RoundContext(b"demo", round, ids, dimension, noise.max_value, least, bytes(32))
            result = run_session(protection_named("masked", "x25519"), context, input_of, faults=faults).unwrap()
            ledger.charge(round, noise.event(len(result.survivors)))
            noisy = noise.decode(result.values, len(result.survivors))
            ledger.released(round, bytes([round % 256]))
            true = np.sum([updates[i] for i in result.survivors], axis=0)
            own = (first[0].astype(np.int64) - noise.offset) / noise.scale - updates[ids[0]]
            deviations = f"{np.std(own):.3f}", f"{np.std(noisy - true):.3f}"
            rows.append((round, len(result.survivors), *deviations, f"{ledger.spent():.3f}"))
        spent = ledger.spent()
    if not quiet:
        print_table("rounds", ("round", "survivors", "noise of one client", "noise of the sum", "epsilon spent"), rows)
    say("the server saw the sum with the noise of all survivors in it; a client's own message was masked besides")
    if refused is not None:
        say(f"round {refused} is refused: {PrivacyBudgetExceededError.__name__}")
    return {
        "clients": clients,
        "survivors": survivors,
        "epsilon": spent,
        "budget": budget.epsilon,
        "delta": _DELTA,
        "rounds": len(rows),
        "refused_round": refused,
        "noise_stddev_of_the_sum": [float(str(row[3])) for row in rows],
    }


def _unit(vector: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The vector scaled to ℓ2 norm 1."""
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float64)
