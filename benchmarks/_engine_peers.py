"""Whole rounds of federated averaging beside pfl 0.6 and Flower's simulation, where they are installed.

Same data, model, batches in the same order, local SGD, weights; every client in every round; nothing protected. The
frameworks take turns, round by round: pfl and the rounds here run while Flower waits. All must end in the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from statistics import median
from time import perf_counter

import _engine_site as site
import numpy as np
from numpy.typing import NDArray

from securefl.encoding.quantize import FixedPoint
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.engine_choice import EngineName
from securefl.fl.fedavg import FedAvg
from securefl.fl.interfaces import Aggregate, Aggregator, Contribution
from securefl.fl.training import torch_threads
from securefl.fl.workload import Workload
from securefl.plain import PlainSum
from securefl.types import ClientId, Tensors

#: Times faster than a peer's round, 100 clients.
GOALS = {"pfl": 8.0, "flwr": 40.0}
NEEDS = {"pfl": ("pfl",), "flwr": ("flwr", "ray")}
NAMES = {"pfl": "pfl", "flwr": "Flower's simulation"}
#: Rounding of float32 in another order, over the rounds of a run.
SAME = 1e-4


class FloatMean:
    """The weighted mean in float64 and nothing else: what the peers' rounds do with the updates."""

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        given = contributions.values()
        total = sum(one.weight for one in given)
        shares = np.array([one.weight / total for one in given])
        mean = {
            name: np.tensordot(shares, np.stack([one.tensors[name] for one in given]).astype(np.float64), axes=1)
            for name in next(iter(given)).tensors
        }
        return Aggregate(mean, tuple(contributions), total, {}, {}, {})


@dataclass
class PeerRow:
    """Milliseconds per round, medians; ``same``: the largest difference from the stacked engine's final model."""

    name: str
    partition: str
    milliseconds: float
    ratio: float
    same: float


@dataclass
class _Rounds:
    """Rounds of this package: the whole loop, the test of the new model included."""

    steps: Iterator[object]
    run: FedAvg

    @classmethod
    def of(cls, found: site.Site, rounds: int, engine: EngineName, aggregator: Aggregator) -> _Rounds:
        workload = Workload(site.build(), found.dataset, found.test, found.rows)
        run = FedAvg(workload, aggregator, found.settings, rounds=rounds, seed=found.seeds, engine=engine)
        return cls(run.rounds_left(), run)

    def round(self) -> float:
        started = perf_counter()
        next(self.steps)
        return perf_counter() - started

    def tensors(self) -> Tensors:
        return self.run.result().tensors


def missing(peer: str) -> str | None:
    """The sentence that says why a peer is not measured; ``None`` when it is installed."""
    absent = [name for name in NEEDS[peer] if find_spec(name) is None]
    return f"{NAMES[peer]} is not measured: not installed here: {', '.join(absent)}" if absent else None


def measure(kind: str, clients: int, rounds: int) -> list[PeerRow]:
    """One row per engine and installed peer; the first round of each warms up and is left out."""
    found = site.Site.of(kind, clients, rounds)
    plain = ProtectedAggregator(PlainSum(), 2, FixedPoint(1.0, 16), 256)
    each = {
        "securefl, stacked": _Rounds.of(found, rounds, "stacked", FloatMean()),
        "securefl, stacked, plain sum of 16-bit integers": _Rounds.of(found, rounds, "stacked", plain),
        "securefl, sequential": _Rounds.of(found, rounds, "sequential", FloatMean()),
    }
    seconds: dict[str, list[float]] = {}
    models: dict[str, Mapping[str, NDArray[np.float32]]] = {}
    tracked: dict[str, Callable[[], float]] = {name: rounds_of.round for name, rounds_of in each.items()}
    pfl = None
    if missing("pfl") is None:
        from _peer_pfl import PflRounds

        pfl = PflRounds(
            site.build(),
            found.dataset.inputs,
            found.dataset.targets,
            range(clients),
            lambda client, round: found.orders[round][client],
            batch_size=found.settings.batch_size,
            learning_rate=found.settings.learning_rate,
        )
        tracked[_named("pfl")] = pfl.round

    def others(round: int) -> None:
        with torch_threads(1):
            for name, step in tracked.items():
                seconds.setdefault(name, []).append(step())

    if missing("flwr") is None:
        import _peer_flwr_simulation

        name = _named("flwr")
        seconds[name], models[name] = _peer_flwr_simulation.run(kind, clients, rounds, others)
    else:
        for round in range(1, rounds + 1):
            others(round)
    models |= {name: rounds_of.tensors() for name, rounds_of in each.items()}
    if pfl is not None:
        models[_named("pfl")] = pfl.tensors()
    return list(_rows(kind, seconds, models))


def _named(peer: str) -> str:
    try:
        return f"{NAMES[peer]} ({peer} {version(peer)})"
    except PackageNotFoundError:
        return NAMES[peer]


def _rows(
    kind: str, seconds: Mapping[str, list[float]], models: Mapping[str, Mapping[str, NDArray[np.float32]]]
) -> Iterator[PeerRow]:
    ours = "securefl, stacked"
    own = median(seconds[ours][1:])
    for name in sorted(seconds, key=lambda name: median(seconds[name][1:])):
        same = max(float(np.abs(models[name][key] - value).max()) for key, value in models[ours].items())
        if same > SAME and "integers" not in name:
            raise AssertionError(f"{name} trained another model: off by {same:.1e}")
        taken = median(seconds[name][1:])
        yield PeerRow(name, kind, 1e3 * taken, taken / own, same)
