"""The engines of secret-shared computation beside each other: the same jobs in one run, by turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from securefl.cli.output import print_table
from securefl.cluster.local import local_cluster
from securefl.cluster.servers import Servers
from securefl.cluster.threads import run_parties
from securefl.mpc.bits import Bits
from securefl.mpc.operations import ENGINES, mul, negative, number, prepare, relu, relu_and_sign, select, truncate
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared

#: Name → what is counted, and what comes before it: both get a tensor ready to be multiplied, and its sign if asked.
#: Products, and results that go into one, are counted until they are ready again: engines leave them differently.
OPERATIONS: Mapping[str, Callable[[Shared, Bits], Shared]] = {
    "product": lambda x, _: mul(x, x),
    "product with truncation": lambda x, _: truncate(mul(x, x), 16),
    "comparison to a number": lambda x, _: number(negative(x)),
    "relu": lambda x, _: relu(x),
    "relu with truncation": lambda x, _: relu(x, 16),
    "selection by bits used before": lambda x, bits: select(bits, x),
}


def _sent(party: Party) -> int:
    return sum(link.bytes_sent for link in party.channel.traffic.values())


def bytes_and_rounds(elements: int) -> dict[str, dict[str, dict[str, float]]]:
    """Payload bytes per element over all links and rounds of one operation, by operation and engine."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, operation in OPERATIONS.items():
        found[name] = {}
        for engine in ENGINES:

            def program(party: Party, operation: Any = operation) -> tuple[int, int]:
                x, bits = relu_and_sign(Shared(party, (elements,), 16))
                prepare(x)
                before = _sent(party), party.rounds
                prepare(operation(x, bits))
                return _sent(party) - before[0], party.rounds - before[1]

            results = run_parties(program, engine=engine)
            found[name][engine] = {"bytes": sum(sent for sent, _ in results) / elements, "rounds": results[0][1]}
    return found


def jobs(servers: Servers, mlp: Callable[..., nn.Module], quick: bool) -> dict[str, Callable[[], float]]:
    """Milliseconds of one repetition of each job, by its name."""
    net, n, size = mlp(784, 128, 10), 1 << (16 if quick else 20), 128 if quick else 512
    model, trained = servers.share(net, limit=1.0), servers.share(net, limit=1.0)
    relu_model, values = servers.share(nn.ReLU()), servers.share(np.random.default_rng(0).normal(size=n))
    left, right = (np.random.default_rng(i).normal(size=(size, size)) for i in range(2))
    images, labels = servers.share(torch.rand(128, 784)), servers.share(torch.randint(0, 10, (128,)))

    def inference(batch: int) -> float:
        x = torch.rand(batch, 784)
        start = perf_counter()
        model(servers.share(x)).reveal()
        return 1e3 * (perf_counter() - start)

    def spent(work: Callable[[], object]) -> float:
        servers.cost()
        kept = work()
        milliseconds = servers.cost().milliseconds
        del kept
        return milliseconds

    def product() -> float:
        a, b = servers.share(left), servers.share(right)
        return spent(lambda: a @ b)

    return {
        "inference, batch 1": lambda: inference(1),
        "inference, batch 128": lambda: inference(128),
        f"relu, {n:,} values": lambda: spent(lambda: relu_model(values)),
        f"matmul {size} × {size} × {size}": product,
        "training step, batch 128": lambda: spent(lambda: trained.train_step(images, labels, lr=0.125)),
    }


def measure(mlp: Callable[..., nn.Module], processor: Callable[[Servers], float], quick: bool) -> dict[str, Any]:
    """Times of both engines in turns, the median of the ratios of neighbours, and bytes by operation."""
    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        clusters = {name: stack.enter_context(local_cluster(engine=name, links="tcp")) for name in ENGINES}
        work = {name: jobs(servers, mlp, quick) for name, servers in clusters.items()}
        for job in work["dealer"]:
            repetitions = (3 if quick else 15) * (1 if "inference" not in job else 5)
            taken: dict[str, list[float]] = {name: [] for name in ENGINES}
            before: dict[str, float] = {}
            for repetition in range(-2, repetitions):
                if repetition == 0:
                    before = {name: processor(servers) for name, servers in clusters.items()}
                for name in ENGINES:
                    milliseconds = work[name][job]()
                    if repetition >= 0:
                        taken[name].append(milliseconds)
            rows[job] = {
                name: {
                    "median": median(taken[name]),
                    "least": min(taken[name]),
                    "processor": (processor(clusters[name]) - before[name]) / repetitions,
                }
                for name in ENGINES
            }
            ratios = [r / d for r, d in zip(taken["replicated"], taken["dealer"], strict=True)]
            rows[job]["ratio"] = median(ratios)
        errors = {}
        net, x = mlp(784, 128, 10), torch.rand(512, 784)
        for name, servers in clusters.items():
            got = servers.share(net, limit=1.0)(servers.share(x)).reveal()
            errors[name] = float((got - net(x)).abs().max().detach())
    return {"rows": rows, "errors": errors, "operations": bytes_and_rounds(1 << 13)}


def show(report: Mapping[str, Any]) -> None:
    lines = []
    for job, row in report["rows"].items():
        both = [row[engine] for engine in ENGINES]
        times = [f"{figures['median']:.2f} ({figures['least']:.2f})" for figures in both]
        lines.append(
            [job, *times, f"{row['ratio']:.2f}", " / ".join(f"{figures['processor']:.0f}" for figures in both)]
        )
    heads = ["by turns, ms (least)", *ENGINES, "ratio", "processor"]
    print_table("Engines: median of three processes, and of the ratios of neighbours", heads, lines)
    lines = [
        [name, *(f"{by[engine]['bytes']:.3f} / {by[engine]['rounds']}" for engine in ENGINES)]
        for name, by in report["operations"].items()
    ]
    lines.append(["error of the MLP against float", *(f"{report['errors'][engine]:.2e}" for engine in ENGINES)])
    print_table("Until the result can be multiplied: bytes per element over all links / rounds", ["", *ENGINES], lines)
