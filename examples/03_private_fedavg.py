"""Federated averaging of your own model on your own arrays, under masks and without: the same model, bit for bit.

python3 examples/03_private_fedavg.py          needs the extra `torch`
"""

import numpy as np
import torch
from torch import nn

from securefl.encoding.quantize import FixedPoint
from securefl.fl import FedAvg, LocalTraining, RunResult, SeedTree, Workload
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.data import from_arrays
from securefl.fl.models import build
from securefl.fl.partition import dirichlet
from securefl.fl.protections import protection_named

CLIENTS, ROUNDS, SEED = 8, 5, 7


class Rings(nn.Module):
    """Any module that maps an example to its class scores will do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 32)
        self.norm = nn.LayerNorm(32)  # not BatchNorm: running statistics are not parameters, so they are not summed
        self.outer = nn.Linear(32, 2)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.outer(torch.relu(self.norm(self.inner(points))))


def rings(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points on two rings, float64[count, 2], and which ring each is on."""
    labels = rng.integers(0, 2, count)
    angle, radius = rng.uniform(0, 2 * np.pi, count), 1.0 + labels + rng.normal(0, 0.15, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), labels


def workload() -> Workload:
    rng = np.random.default_rng(SEED)
    train, test = (from_arrays(*rings(count, rng), classes=2, name="rings") for count in (1200, 400))
    seeds = SeedTree(SEED)
    model = build(Rings, input_shape=train.input_shape, classes=2, seeds=seeds.child("model"))
    return Workload(model, train, test, dirichlet(train.targets, CLIENTS, seeds.child("partition"), alpha=0.5))


def run(protect: str) -> RunResult:
    job = workload()
    aggregator = ProtectedAggregator(
        protection=protection_named(protect),
        threshold=5,
        grid=FixedPoint(clip_range=1.0, value_bits=16),
        max_weight=1024,  # public: no client counts for more examples than this
    )
    settings = LocalTraining(epochs=2, batch_size=16, learning_rate=0.1)
    fedavg = FedAvg(job, aggregator, settings, rounds=ROUNDS, seed=SEED)
    for record in fedavg.rounds_left():
        print(
            f"{protect:6} round {record.round}: accuracy {record.accuracy:.3f}, "
            f"{len(record.survivors)} of {record.clients} clients, {record.upload_bytes_per_client:.0f} B per client"
        )
    return fedavg.result()


def main() -> None:
    print("examples per client:", list(workload().weights.values()), "(the server learns their sum only)")
    masked, plain = run("masked"), run("plain")
    assert masked.accuracy > 0.95
    assert masked.model_hash == plain.model_hash
    print(f"the same model with and without masks: {masked.model_hash[:16]}…")


if __name__ == "__main__":
    main()
