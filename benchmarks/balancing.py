"""Generative balancing beside doing nothing: what a federated conditional GAN's samples do to accuracy.

    securefl bench balancing [--quick] [--json PATH]

digits, 20 clients, Dirichlet(0.1), MLP 64-64-10, 10 local steps of batch 16 per round in every case, so that all
clients compute the same. The GAN (34,721 parameters) is trained before, under the same protection; its upload comes on
top and is stated. "its samples alone": accuracy of a model trained on nothing but samples. DP: the discriminator
by DP-SGD.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import fmean, pstdev

import numpy as np
import torch
from _harness import command_line, write_figures

from securefl.cli.output import print_table
from securefl.encoding.quantize import FixedPoint
from securefl.fl import models
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.balancing import balanced, gan_epsilon, train_gan
from securefl.fl.config import parse
from securefl.fl.fedavg import FedAvg
from securefl.fl.gan import ConditionalGan
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.fl.training import ExampleNoise, LocalTraining, torch_threads
from securefl.fl.workload import Workload, prepare

CHECKPOINTS = (5, 10, 30)
DELTA = 1e-3  # below 1 / 72, the examples of an average client


@dataclass
class Row:
    name: str
    accuracies: list[float]
    deviation: float
    samples_alone: float | None
    epsilon: float | None


def aggregator(workload: Workload) -> ProtectedAggregator:
    """Plain: masked sums give the same integers, and the tests check that."""
    return ProtectedAggregator(protection_named("plain", "x25519"), 12, FixedPoint(1.0, 20), 2048)


def classify(workload: Workload, seed: int, rounds: int) -> list[float]:
    run = FedAvg(workload, aggregator(workload), LocalTraining(steps=10), rounds=rounds, seed=seed)
    accuracies = [record.accuracy for record in run.run().records]
    return [accuracies[min(at, rounds) - 1] for at in CHECKPOINTS]


def samples_alone(workload: Workload, own: int, rounds: int) -> float:
    """Trained on the samples alone, by one party."""
    made = np.arange(own, len(workload.train))
    run = FedAvg(
        Workload(workload.model, workload.train, workload.test, [made, made]),
        ProtectedAggregator(protection_named("plain", "x25519"), 2, FixedPoint(1.0, 20), 2**18),
        LocalTraining(steps=20),
        rounds=rounds,
    )
    return run.run().accuracy


def measure(
    seed: int, noise: ExampleNoise | None, gan_rounds: int, rounds: int
) -> tuple[list[float], float, float | None]:
    workload = prepare(parse({"data": {"alpha": 0.1, "seed": seed}}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gan = ConditionalGan(workload.train.input_shape, workload.train.classes)
    settings = LocalTraining(epochs=4, batch_size=16, learning_rate=2e-3 if noise is None else 0.05, dpsgd=noise)
    seeds = SeedTree(seed).child("gan")
    tensors = train_gan(gan, workload, aggregator(workload), settings, rounds=gan_rounds, seeds=seeds)
    filled = balanced(workload, gan, tensors, seeds)
    examples = [len(rows) for rows in workload.rows]
    epsilon = None if noise is None else gan_epsilon(gan, examples, settings, rounds=gan_rounds, delta=DELTA)
    return classify(filled, seed, rounds), samples_alone(filled, len(workload.train), rounds), epsilon


def main() -> None:
    options = command_line(__doc__)
    seeds, gan_rounds, rounds = (1, 6, 10) if options.quick else (3, 60, 30)
    rows = []
    with torch_threads(1):
        nothing = [classify(prepare(parse({"data": {"alpha": 0.1, "seed": s}})), s, rounds) for s in range(seeds)]
        rows.append(_row("nothing", nothing, None, None))
        for name, noise in (("GAN", None), ("GAN, DP-SGD", ExampleNoise(1.0, 2.0))):
            found = [measure(seed, noise, gan_rounds, rounds) for seed in range(seeds)]
            epsilon = max((each[2] for each in found if each[2] is not None), default=None)
            rows.append(_row(name, [each[0] for each in found], fmean(each[1] for each in found), epsilon))
    if options.json != "-":
        gan = ConditionalGan((64,), 10)
        size = sum(value.size for value in models.tensors_of(gan).values())
        print_table(
            f"test accuracy in %, {seeds} seeds; the GAN: {gan_rounds} rounds of {size:,} parameters on top",
            ("balancing", *(f"round {min(at, rounds)}" for at in CHECKPOINTS), "±", "its samples alone", "ε"),
            [
                (
                    row.name,
                    *(f"{100 * value:.2f}" for value in row.accuracies),
                    f"{100 * row.deviation:.2f}",
                    "-" if row.samples_alone is None else f"{100 * row.samples_alone:.2f}",
                    "-" if row.epsilon is None else f"{row.epsilon:.1f}",
                )
                for row in rows
            ],
        )
    write_figures({"rows": list(map(_finite, rows)), "gan_rounds": gan_rounds, "seeds": seeds}, options.json)


def _finite(row: Row) -> dict[str, object]:
    """For JSON, which has no infinity: an epsilon that the accountant cannot bound is null."""
    bounded = row.epsilon is not None and math.isfinite(row.epsilon)
    return {**asdict(row), "epsilon": row.epsilon if bounded else None}


def _row(name: str, found: list[list[float]], alone: float | None, epsilon: float | None) -> Row:
    return Row(
        name, [fmean(column) for column in zip(*found, strict=True)], pstdev(f[-1] for f in found), alone, epsilon
    )


if __name__ == "__main__":
    main()
