"""The stacked engine beside the sequential one: milliseconds per round, and how far the updates lie apart.

    securefl bench engine [--quick] [--json PATH]

One epoch of local SGD (batch 10) of every client on digits (8 x 8, or enlarged to 28 x 28), one torch thread; the
engines take turns and medians are compared. `auto` is the engine that a run picks by itself. Then whole rounds of the
MLP with 100 clients beside pfl and Flower's simulation, where they are installed; a line says so where they are not.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

import _engine_peers as peers
import numpy as np
from _harness import command_line, write_figures
from torch import nn

from securefl.cli.output import console, print_table
from securefl.fl import data, models, partition
from securefl.fl.engine import LocalTask, SequentialEngine
from securefl.fl.engine_choice import choose_engine
from securefl.fl.seeds import SeedTree
from securefl.fl.stacked import StackedEngine
from securefl.fl.training import LocalTraining, torch_threads
from securefl.types import ClientId

SETTINGS = LocalTraining(batch_size=10)
GOAL = 5.0  # times faster, digits MLP, 100 clients
TOLERANCE = 1.05


@dataclass
class Case:
    """``large``: images of 28 x 28."""

    name: str
    clients: int
    large: bool
    build: object


def cnn28() -> nn.Module:
    """Two convolutions of 5 x 5, two linear layers: 55,368 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(500, 98),
        nn.ReLU(),
        nn.Linear(98, 10),
    )


CASES = (
    Case("MLP 64-32-10", 100, False, lambda: models.mlp(64, (32,), 10)),
    Case("MLP 64-32-10", 20, False, lambda: models.mlp(64, (32,), 10)),
    Case("MLP 64-128-64-10", 20, False, lambda: models.mlp(64, (128, 64), 10)),
    Case("MLP 64-256-256-10", 20, False, lambda: models.mlp(64, (256, 256), 10)),
    Case("CNN 8 x 8", 20, False, lambda: models.small_cnn(1, 8, 8, 10)),
    Case("CNN 8 x 8", 100, False, lambda: models.small_cnn(1, 8, 8, 10)),
    Case("CNN 28 x 28", 20, True, cnn28),
)


@dataclass
class Row:
    """``distance``: the largest difference of two updates. ``chosen``: the time of what `auto` picks."""

    model: str
    clients: int
    partition: str
    sequential_ms: float
    stacked_ms: float
    ratio: float
    distance: float
    auto: str
    chosen_over_sequential: float


def digits(*, large: bool) -> data.Dataset:
    train, _ = data.load("digits", SeedTree(0).child("data"))
    if not large:
        return train
    images = np.kron(train.inputs.reshape(-1, 8, 8), np.ones((1, 4, 4), dtype=np.float32))[:, 2:30, 2:30]
    return data.Dataset(np.ascontiguousarray(images[:, None]), train.targets, 10, "digits, 28 x 28")


def measure(case: Case, kind: str, repetitions: int) -> Row:
    dataset, module = (
        digits(large=case.large),
        models.build(
            case.build,
            input_shape=(64,),
            classes=10,
            seeds=SeedTree(1),  # type: ignore[arg-type]
        ),
    )
    start, seeds = models.tensors_of(module), SeedTree(2)
    rows = partition.partition(kind, dataset, case.clients, seeds.child("partition"), alpha=0.3)
    tasks = [LocalTask(ClientId(i), own, start, seeds.child(i)) for i, own in enumerate(rows, start=1)]
    engines = {"sequential": SequentialEngine(module, dataset), "stacked": StackedEngine(module, dataset)}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    results = {}
    for turn in range(repetitions + 1):
        for name, engine in engines.items():
            began = perf_counter()
            results[name] = engine.train(1, tasks, SETTINGS)
            if turn:  # the first warms up
                seconds[name].append(perf_counter() - began)
    distance = max(
        float(np.abs(value - results["stacked"][client].update[name]).max())
        for client, result in results["sequential"].items()
        for name, value in result.update.items()
    )
    sequential, stacked = (1e3 * median(seconds[name]) for name in engines)
    stacks = isinstance(choose_engine("auto", module, dataset, SETTINGS), StackedEngine)
    return Row(
        case.name,
        case.clients,
        kind,
        sequential,
        stacked,
        sequential / stacked,
        distance,
        "stacked" if stacks else "sequential",
        (stacked if stacks else sequential) / sequential,
    )


def show_peers(rows: list[peers.PeerRow]) -> None:
    print_table(
        "whole rounds of federated averaging, MLP 64-32-10, 100 clients, medians",
        ("framework", "partition", "ms per round", "times the stacked engine's", "largest difference of the models"),
        [(r.name, r.partition, f"{r.milliseconds:.1f}", f"{r.ratio:.1f}", f"{r.same:.1e}") for r in rows],
    )
    for peer, goal in peers.GOALS.items():
        found = [row.ratio for row in rows if f"({peer} " in row.name]
        reason = peers.missing(peer)
        console.print(reason or f"goal against {peers.NAMES[peer]}: {goal:g} times; {min(found):.1f}", markup=False)


def main() -> None:
    options = command_line(__doc__)
    repetitions, cases = (3, CASES[:1] + CASES[-1:]) if options.quick else (11, CASES)
    with torch_threads(1):
        rows = [measure(case, kind, repetitions) for case in cases for kind in ("iid", "dirichlet")]
        beside = [row for kind in ("iid", "dirichlet") for row in peers.measure(kind, 100, 4 if options.quick else 12)]
    if options.json != "-":
        print_table(
            f"one epoch of every client, batch 10, one thread, medians of {repetitions}",
            ("model", "clients", "partition", "sequential ms", "stacked ms", "ratio", "largest difference", "auto"),
            [
                (
                    row.model,
                    row.clients,
                    row.partition,
                    f"{row.sequential_ms:.1f}",
                    f"{row.stacked_ms:.1f}",
                    f"{row.ratio:.2f}",
                    f"{row.distance:.1e}",
                    row.auto,
                )
                for row in rows
            ],
        )
        slowest = max(row.chosen_over_sequential for row in rows)
        console.print(
            f"goal: {GOAL:g} for the first model with 100 clients: {min(row.ratio for row in rows[:2]):.2f}; "
            f"what auto picks takes at most {TOLERANCE:g} of the sequential time: {slowest:.2f}",
            markup=False,
        )
        show_peers(beside)
    write_figures({"rows": [asdict(row) for row in rows], "rounds": [asdict(row) for row in beside]}, options.json)


if __name__ == "__main__":
    main()
