"""Unequal clients: accuracy of every tier's slice, upload per tier, masked beside plain.

    securefl bench tiers [--quick] [--json PATH]

digits, 20 clients (7, 7 and 6 per tier), Dirichlet(0.5), MLP 64-128-64-10 (depth: 64-64-64-64-10), 60 rounds of one
local epoch (batch 16), accuracy after the last round, means over seeds 0 to 4. "uniform quarter": everybody trains the
quarter model and nothing else. "large clients alone": the six of the last tier train the whole model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from _harness import command_line, write_figures

from securefl.cli.output import console, print_table
from securefl.fl import learning
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.config import Config, parse
from securefl.fl.fedavg import FedAvg
from securefl.fl.tiered_engine import evaluate_tiers
from securefl.fl.workload import Workload, prepare

GOAL = 0.92  # the quarter slice
KINDS: dict[str, dict[str, Any]] = {
    "width, nested": {"slices": "width"},
    "width, own slice only": {"slices": "width", "nested": False},
    "rolling, own slice only": {"slices": "rolling", "nested": False},
    "depth, nested": {"slices": "depth", "sizes": [1, 2, 3]},
    "depth, own slice only": {"slices": "depth", "sizes": [1, 2, 3], "nested": False},
}


@dataclass
class Row:
    name: str
    accuracies: list[float]


def configuration(seed: int, rounds: int, method: str = "plain", tiers: dict[str, Any] | None = None) -> Config:
    depth = tiers is not None and tiers["slices"] == "depth"
    return parse(
        {
            "data": {"seed": seed},
            "model": {"hidden": [64, 64, 64] if depth else [128, 64]},
            "training": {"rounds": rounds},
            "protection": {"method": method, "suite": "x25519"},
            "compression": {"chain": []},
            **({"tiers": tiers} if tiers is not None else {}),
        }
    )


def train(config: Config, workload: Workload) -> tuple[FedAvg, Any]:
    plan = learning.tiers_of(config, workload)
    max_weight = config.protection.max_weight_for(workload.weights.values())
    run = FedAvg.from_config(config, workload, aggregator_of(config, max_weight, tiers=plan), tiers=plan)
    return run, plan


def tiered(kind: dict[str, Any], seed: int, rounds: int) -> list[float]:
    config = configuration(seed, rounds, tiers=kind)
    workload = prepare(config)
    run, plan = train(config, workload)
    result = run.run()
    return [found.accuracy for found in evaluate_tiers(plan, result.tensors, workload.test, round=rounds + 1)]


def uniform(seed: int, rounds: int) -> float:
    values = configuration(seed, rounds).model_dump(exclude_unset=True)
    small = parse({**values, "model": {"hidden": [32, 16]}})
    run, _ = train(small, prepare(small))
    return run.run().accuracy


def large_alone(seed: int, rounds: int) -> float:
    config = configuration(seed, rounds)
    workload = prepare(config)
    only = Workload(workload.model, workload.train, workload.test, workload.rows[-6:])
    run, _ = train(config, only)
    return run.run().accuracy


def upload() -> list[dict[str, float]]:
    """Bytes of the vector per tier, counted on the frames of a masked round; and that masked is plain."""
    models, vectors = set(), {}
    for method in ("masked", "plain"):
        config = configuration(0, 2, method, {"slices": "width"})
        workload = prepare(config)
        run, plan = train(config, workload)
        models.add(run.run().model_hash)
        if method == "masked":
            given = run._contributions(3, run._tensors)
            vectors = run.aggregator.aggregate(3, bytes(32), given).vector_bytes
    assert len(models) == 1, "masked and plain runs differ"
    members = {tier: next(c for c, t in plan.tiers.items() if t == tier) for tier in (1, 2, 3)}
    return [
        {
            "tier": tier,
            "parameters": plan.parameters(tier),
            "share": plan.parameters(tier) / plan.parameters(3),
            "vector_bytes": vectors[client],
            "upload_share": vectors[client] / vectors[members[3]],
        }
        for tier, client in members.items()
    ]


def main() -> None:
    options = command_line(__doc__)
    seeds, rounds = (1, 15) if options.quick else (5, 60)
    rows = []
    for name, kind in KINDS.items():
        found = [tiered(kind, seed, rounds) for seed in range(seeds)]
        rows.append(Row(name, [fmean(column) for column in zip(*found, strict=True)]))
    rows.append(Row("uniform quarter", [fmean(uniform(seed, rounds) for seed in range(seeds))]))
    rows.append(Row("large clients alone", [0.0, 0.0, fmean(large_alone(seed, rounds) for seed in range(seeds))]))
    uploads = upload()
    if options.json != "-":
        print_table(
            f"test accuracy of each slice in %, {rounds} rounds, {seeds} seeds",
            ("training", "smallest", "middle", "whole"),
            [
                (row.name, *(f"{100 * value:.2f}" if value else "-" for value in (*row.accuracies, 0.0, 0.0)[:3]))
                for row in rows
            ],
        )
        print_table(
            "the masked vector of each tier (width)",
            ("tier", "parameters", "of the whole", "bytes", "of the whole upload"),
            [
                (
                    each["tier"],
                    each["parameters"],
                    f"{100 * each['share']:.1f} %",
                    each["vector_bytes"],
                    f"{100 * each['upload_share']:.1f} %",
                )
                for each in uploads
            ],
        )
        console.print(
            f"goal: the quarter slice at {100 * GOAL:g} %: {100 * rows[0].accuracies[0]:.2f} %; "
            "masked and plain runs gave the same model, bit for bit",
            markup=False,
        )
    write_figures({"rows": [asdict(row) for row in rows], "upload": uploads}, options.json)


if __name__ == "__main__":
    main()
