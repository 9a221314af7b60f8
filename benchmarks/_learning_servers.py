"""Server steps and client algorithms: test accuracy on the way and at the end.

digits as bundled, 20 clients, Dirichlet(0.1), MLP 64-64-10, 7 steps of batch 10, SGD 0.1, 16 value bits, plain sums,
seeds 0 to 4.
"""

from __future__ import annotations

from statistics import fmean, pstdev
from typing import Any

from securefl.cli.output import print_table
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.config import parse
from securefl.fl.fedavg import FedAvg
from securefl.fl.workload import prepare

CHOICES: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "server learning rate 2": {"server_learning_rate": 2.0},
    "server momentum 0.9": {"server_momentum": 0.9},
    "Adam, 0.03": {"server_optimizer": "adam", "server_learning_rate": 0.03},
    "Yogi, 0.03": {"server_optimizer": "yogi", "server_learning_rate": 0.03},
    "FedProx, 0.1": {"algorithm": "fedprox"},
    "SCAFFOLD": {"algorithm": "scaffold"},
    "SCAFFOLD, server learning rate 2": {"algorithm": "scaffold", "server_learning_rate": 2.0},
}
MARKS = (10, 20, 50)


def measure(quick: bool) -> dict[str, Any]:
    """Accuracy after the rounds in MARKS, and bytes of the vector."""
    seeds, marks = (1, MARKS[:1]) if quick else (5, MARKS)
    found: dict[str, Any] = {"marks": list(marks), "seeds": seeds, "choices": {}}
    for name, choice in CHOICES.items():
        records = []
        for seed in range(seeds):
            config = parse(
                {
                    "data": {"alpha": 0.1, "seed": seed},
                    "training": {"rounds": marks[-1], "local_steps": 7, "batch_size": 10, **choice},
                    "protection": {"method": "plain"},
                    "compression": {"chain": []},
                }
            )
            workload = prepare(config)
            aggregator = aggregator_of(config, config.protection.max_weight_for(workload.weights.values()))
            records.append(FedAvg.from_config(config, workload, aggregator).run().records)
        found["choices"][name] = {
            "accuracy": [fmean(run[mark - 1].accuracy for run in records) for mark in marks],
            "deviation": pstdev(run[-1].accuracy for run in records),
            "vector_bytes": records[0][0].vector_bytes_per_client,
        }
    return found


def show(figures: dict[str, Any]) -> None:
    """One table."""
    print_table(
        f"servers and algorithms: digits, 20 clients, Dirichlet(0.1), {figures['seeds']} seeds, accuracy %",
        ("choice", *(f"round {mark}" for mark in figures["marks"]), "deviation", "vector bytes"),
        [
            (
                name,
                *(f"{100 * value:.2f}" for value in row["accuracy"]),
                f"{100 * row['deviation']:.2f}",
                f"{row['vector_bytes']:.0f}",
            )
            for name, row in figures["choices"].items()
        ],
    )
