"""A small convolutional network with max pooling, trained on digits on shares beside the same steps in the clear."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from securefl.cli.output import bytes_text, print_table
from securefl.cluster.local import local_cluster
from securefl.fl.data import Dataset, load
from securefl.fl.seeds import SeedTree

BATCH, RATE, MOMENTUM = 64, 0.25, 0.5
#: Which of two runs that differ by rounding ends higher is chance; a single one may be a point apart.
SEEDS = {"dealer": 3, "replicated": 1}


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def _images(data: Dataset) -> torch.Tensor:
    return torch.from_numpy(data.inputs).reshape(-1, 1, 8, 8) / 4


def _run(engine: str, seed: int, epochs: int) -> dict[str, float]:
    """Both accuracies, and what a step on shares took, sharing the batch included; bytes over all links of parties."""
    train, test = load("digits", SeedTree(0))
    x, y = _images(train), torch.from_numpy(train.targets)
    net, plain = network(seed), network(seed)
    optimizer = torch.optim.SGD(plain.parameters(), lr=RATE, momentum=MOMENTUM)
    order = np.random.default_rng(seed)
    batches = [rows for _ in range(epochs) for rows in np.array_split(order.permutation(len(x)), len(x) // BATCH)]
    for rows in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
        optimizer.step()
    steps = len(batches)
    with local_cluster(engine=engine, links="tcp") as servers:
        model = servers.share(net, limit=2.0)
        servers.cost()
        for rows in batches:
            model.train_step(servers.share(x[rows]), servers.share(y[rows]), lr=RATE, momentum=MOMENTUM)
        cost = servers.cost()
        net.load_state_dict(model.reveal_state_dict())

    def accuracy(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module(_images(test)).argmax(1).numpy() == test.targets).mean())

    return {
        "shared": accuracy(net),
        "plain": accuracy(plain),
        "steps": steps,
        "milliseconds": cost.milliseconds / steps,
        "rounds": cost.rounds / steps,
        "bytes": sum(cost.sent.values()) / steps,
    }


def measure(quick: bool) -> dict[str, Any]:
    """By engine: means over the seeds."""
    report = {}
    for engine, seeds in SEEDS.items():
        runs = [_run(engine, seed, 1 if quick else 6) for seed in range(1 if quick else seeds)]
        report[engine] = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]} | {"runs": len(runs)}
    return report


def show(report: dict[str, Any]) -> None:
    print_table(
        f"A convolutional network with max pooling trained on digits, batch {BATCH}; goal: plain − 0.005",
        ["", "runs", "ms a step", "rounds", "bytes", "accuracy", "plain"],
        [
            [
                engine, row["runs"], f"{row['milliseconds']:.1f}", f"{row['rounds']:.0f}", bytes_text(row["bytes"]),
                f"{row['shared']:.4f}", f"{row['plain']:.4f}",
            ]
            for engine, row in report.items()
        ],
    )  # fmt: skip
