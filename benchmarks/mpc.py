"""Secret-shared computation: three processes on loopback, the helper's work included.

    securefl bench mpc [--quick] [--json PATH]

Inference is what a user waits for: sharing the input, running the model, revealing the result. Single operations are
timed from the command to the parties' answer, their inputs being shared before. Medians of all repetitions, against the
goals; beside them the least, the median of those that nothing else on the machine disturbed (_speed.py), and the
processor time of the three parties together: divided by the cores that is the least that the clock can show. Times do
not carry over to other machines; bytes, rounds and errors do.

Where CrypTen is installed (_peer_crypten.py) it does the same work in turns with us, in both of its ways: its first
party deals, which its authors call a way for debugging (that party could learn everything), or a dealer apart, which is
the trust that our helper is given. Ratios are of medians.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import _mpc_engines
import _mpc_training
import numpy as np
import torch
from _harness import command_line, write_figures
from _peer_crypten import Peer, installed
from _speed import Speed, repeat
from torch import nn

from securefl.cli.output import console, print_table
from securefl.cluster.local import local_cluster
from securefl.cluster.servers import Servers
from securefl.cluster.threads import run_parties
from securefl.fl.data import load
from securefl.fl.seeds import SeedTree
from securefl.mpc.operations import mul, reveal, truncate
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared

#: What the figures are held against; measured on two cores, three processes.
GOALS = {
    "inference, batch 1": (2.0, "ms"),
    "inference, batch 128": (128 / 15, "ms"),
    "relu, 1,048,576 values": (104.86, "ms"),
    "matmul 512 × 512 × 512": (40.0, "ms"),
    "training step, batch 128": (25.0, "ms"),
}


#: Times CrypTen's over ours, at least.
RATIOS = {"inference, batch 1": 8, "inference, batch 128": 8, "relu": 12, "training step": 30}
PROVIDERS = ("TFP", "TTP")


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers with relu between them, from a fixed seed."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def processor(servers: Servers) -> float:
    """Milliseconds that the three processes have computed so far; nan where the system does not say."""
    total = 0.0
    for process in servers.processes:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        total += 1e3 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def times(servers: Servers, work: Callable[[], float], repetitions: int, speed: Speed) -> dict[str, Any]:
    """Milliseconds; ``work`` gives its own. Two are run first. ``processor``: mean of all three parties together."""
    work(), work()
    before = processor(servers)
    taken = repeat(work, repetitions, speed)
    return {"taken": taken, "processor": (processor(servers) - before) / repetitions}


def inference(
    servers: Servers, batch: int, repetitions: int, speed: Speed
) -> tuple[dict[str, Any], float, dict[str, Any]]:
    """Times, largest error against float, and the cost of one call."""
    net = mlp(784, 128, 10)
    model = servers.share(net, limit=1.0)
    x = torch.rand(batch, 784)
    model(servers.share(x)).reveal()
    servers.cost()
    got = model(servers.share(x)).reveal()
    cost = servers.cost()
    error = float((got - net(x)).abs().max().detach())

    def once() -> float:
        start = perf_counter()
        model(servers.share(x)).reveal()
        return 1e3 * (perf_counter() - start)

    spent = {"rounds": cost.rounds, "bytes": sum(cost.sent.values()), "links": _links(cost.sent)}
    return times(servers, once, repetitions, speed), error, spent


def _links(sent: dict[tuple[int, int], int]) -> dict[str, int]:
    return {f"{a}>{b}": count for (a, b), count in sorted(sent.items())}


def timed(
    servers: Servers, work: Callable[[], object], repetitions: int, speed: Speed
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times of commands until the parties have done them, and the cost of one."""
    kept: dict[str, Any] = {}

    def once() -> float:
        servers.cost()
        result = work()
        cost = servers.cost()
        kept.update(rounds=cost.rounds, bytes=sum(cost.sent.values()), links=_links(cost.sent))
        del result
        return cost.milliseconds

    return times(servers, once, repetitions, speed), kept


def truncation_failures(products: int, engine: str = "dealer") -> dict[str, int]:
    """Products with |z| up to 2^61, truncated by 16 places; failures are results off by more than the rounding."""
    block, done, failures, upward = 1 << 20, 0, 0, 0
    rng = np.random.default_rng(0)
    while done < products:
        n = min(block, products - done)
        bound = int(2**30.5)
        x, y = rng.integers(-bound, bound, (2, n))

        def program(party: Party, n: int = n, x: Any = x, y: Any = y) -> Any:
            parts = [None if party.is_helper else party.zero((n,)) for _ in range(2)]
            a, b = (Shared(party, (n,), 0, part, unsettled=party.replicated) for part in parts)
            z = mul(a.add_words(x.view(np.uint64)), b.add_words(y.view(np.uint64)))
            return reveal(truncate(z.with_fraction(32), 16))

        got = run_parties(program, engine=engine)[0].view(np.int64)
        error = got - ((x * y) >> 16)
        failures += int(((error != 0) & (error != 1)).sum())
        upward += int((error == 1).sum())
        done += n
    return {"products": done, "failures": failures, "rounded_up": upward}


def digits(servers: Servers, epochs: int) -> dict[str, float]:
    """Accuracy of training on shares beside the same steps in the clear."""
    train, test = load("digits", SeedTree(0))
    x, y = torch.from_numpy(train.inputs) / 8, torch.from_numpy(train.targets)
    net, plain = mlp(64, 32, 10), mlp(64, 32, 10)
    model, batch = servers.share(net, limit=1.0), 64
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        for rows in np.array_split(order.permutation(len(x)), len(x) // batch):
            model.train_step(servers.share(x[rows]), servers.share(y[rows]), lr=0.5)
            optimizer.zero_grad()
            nn.functional.cross_entropy(plain(x[rows]), y[rows]).backward()
            optimizer.step()
    net.load_state_dict(model.reveal_state_dict())

    def accuracy(module: nn.Module) -> float:
        with torch.no_grad():
            return float((module(torch.from_numpy(test.inputs) / 8).argmax(1).numpy() == test.targets).mean())

    return {"shared": accuracy(net), "plain": accuracy(plain)}


def beside(n: int, size: int, repetitions: int) -> dict[str, Any]:
    """The same jobs in turns: ours, and CrypTen's two ways. Milliseconds, and the largest errors of inference."""
    with ExitStack() as stack:
        servers = stack.enter_context(local_cluster(links="tcp"))
        peers = {provider: stack.enter_context(Peer(provider, n, size)) for provider in PROVIDERS}
        net = mlp(784, 128, 10)
        model, student = servers.share(net, limit=1.0), servers.share(mlp(784, 128, 10), limit=1.0)
        relu, values = servers.share(nn.ReLU()), servers.share(np.random.default_rng(0).normal(size=n))
        left, right = (np.random.default_rng(i).normal(size=(size, size)) for i in range(2))
        images, labels = servers.share(torch.rand(128, 784)), servers.share(torch.randint(0, 10, (128,)))
        inputs = {batch: torch.rand(batch, 784) for batch in (1, 128)}

        def inferred(batch: int) -> dict[str, float]:
            start = perf_counter()
            found = model(servers.share(inputs[batch])).reveal()
            milliseconds = 1e3 * (perf_counter() - start)
            return {"milliseconds": milliseconds, "error": float((found - net(inputs[batch])).abs().max().detach())}

        def done(work: Callable[[], object]) -> dict[str, float]:
            servers.cost()
            kept = work()
            cost = servers.cost()
            del kept
            return {"milliseconds": cost.milliseconds}

        def product() -> dict[str, float]:
            a, b = servers.share(left), servers.share(right)
            return done(lambda: a @ b)

        ours: dict[str, Callable[[], dict[str, float]]] = {
            "inference, batch 1": lambda: inferred(1),
            "inference, batch 128": lambda: inferred(128),
            "relu": lambda: done(lambda: relu(values)),
            "matmul": product,
            "training step": lambda: done(lambda: student.train_step(images, labels, lr=0.125)),
        }
        report: dict[str, Any] = {}
        for job, work in ours.items():
            runs: dict[str, Callable[[], dict[str, float]]] = {"ours": work}
            runs |= {name: lambda peer=peer, job=job: peer.run(job) for name, peer in peers.items()}  # type: ignore[misc]
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
            for turn in range(repetitions + 1):
                for name, run in runs.items():
                    result = run()
                    if turn:  # the first warms up
                        taken[name].append(result)
            row: dict[str, Any] = {name: median(one["milliseconds"] for one in ran) for name, ran in taken.items()}
            row["ratios"] = {provider: row[provider] / row["ours"] for provider in PROVIDERS}
            row["errors"] = {name: max(one["error"] for one in ran) for name, ran in taken.items() if "error" in ran[0]}
            report[job] = row
        return report


def show_peers(report: dict[str, Any], n: int, size: int) -> None:
    lines = []
    for job, row in report.items():
        goal = f"≥ {RATIOS[job]}×" if job in RATIOS else ""
        errors = ", ".join(f"{error:.1e}" for error in row["errors"].values())
        peers = [f"{row[provider]:.1f} ({row['ratios'][provider]:.1f}×)" for provider in PROVIDERS]
        lines.append([job, f"{row['ours']:.1f}", *peers, goal, errors])
    print_table(
        f"Beside CrypTen 0.4.1, in turns (relu of {n:,} values, matmul {size}³)",
        ["", "ours, ms", "first party deals", "dealer apart", "goal", "largest errors"],
        lines,
    )


def measure(quick: bool) -> dict[str, Any]:
    """All figures."""
    n = 1 << 16 if quick else 1 << 20
    few, many = (3, 10) if quick else (30, 400)
    speed = Speed()
    report: dict[str, Any] = {"cpu": platform.processor(), "cores": os.cpu_count(), "quick": quick, "rows": {}}
    rows = report["rows"]
    with local_cluster(links="tcp") as servers:
        for batch, repetitions in ((1, many), (32, many // 2), (128, many // 2)):
            taken, error, cost = inference(servers, batch, repetitions, speed)
            rows[f"inference, batch {batch}"] = {**taken, **cost, "error": error, "samples": batch}
        relu = servers.share(nn.ReLU())
        values = servers.share(np.random.default_rng(0).normal(size=n))
        taken, cost = timed(servers, lambda: relu(values), few, speed)
        rows[f"relu, {n:,} values"] = {**taken, **cost, "bytes_per_value": cost["bytes"] / n, "samples": n}
        size = 128 if quick else 512
        left, right = (np.random.default_rng(i).normal(size=(size, size)) for i in range(2))

        def product() -> float:
            a, b = servers.share(left), servers.share(right)  # fresh: both are opened within the time
            servers.cost()
            kept = a @ b
            cost = servers.cost()
            del kept
            return cost.milliseconds

        rows[f"matmul {size} × {size} × {size}"] = times(servers, product, few, speed)
        model = servers.share(mlp(784, 128, 10), limit=1.0)
        images = servers.share(torch.rand(128, 784))
        labels = servers.share(torch.randint(0, 10, (128,)))
        taken, cost = timed(servers, lambda: model.train_step(images, labels, lr=0.125), few, speed)
        rows["training step, batch 128"] = {**taken, **cost, "samples": 128}
        report["digits"] = digits(servers, 1 if quick else 10)
    for row in rows.values():
        row |= row.pop("taken").figures()
    report["convolutions"] = _mpc_training.measure(quick)
    report["engines"] = _mpc_engines.measure(mlp, processor, quick)
    report["engines"]["truncation"] = truncation_failures(10**6 if quick else 10**7, "replicated")
    report["truncation"] = truncation_failures(10**6 if quick else 10**8)
    if installed():
        report["crypten"] = {"values": n, "size": size, "jobs": beside(n, size, 2 if quick else 7)}
    return report


def show(report: dict[str, Any]) -> None:
    lines, costs = [], []
    for name, row in report["rows"].items():
        goal, unit = GOALS.get(name, (None, ""))
        calm = "none" if row["undisturbed"] is None else f"{row['undisturbed']:.2f} ({row['share_undisturbed']:.0%})"
        goal_text = "" if goal is None else f"≤ {goal:.4g} {unit}"
        lines.append([name, f"{row['median']:.2f}", f"{row['least']:.2f}", calm, goal_text])
        per_second = f"{1000 * row['samples'] / row['median']:,.0f}/s" if row.get("samples", 1) > 1 else ""
        bytes_of = f"{row['bytes']:,}" if "bytes" in row else ""
        costs.append([name, f"{row['processor']:.1f}", per_second, row.get("rounds", ""), bytes_of])
    print_table("Three processes on loopback, ms", ["", "median", "least", "undisturbed", "goal"], lines)
    print_table("What they cost", ["", "processor ms", "rate", "rounds", "bytes"], costs)
    relu = next(row for name, row in report["rows"].items() if name.startswith("relu"))
    error = max(row.get("error", 0.0) for row in report["rows"].values())
    cut, accuracy = report["truncation"], report["digits"]
    print_table(
        "What does not depend on the machine",
        ["", "found", "goal"],
        [
            ["bytes per relu on all links", f"{relu['bytes_per_value']:.2f}", "≤ 80"],
            ["largest error of the MLP against float", f"{error:.2e}", "≤ 2e-4"],
            [f"failures in {cut['products']:,} products up to 2^61", cut["failures"], "0"],
            ["of these rounded up", f"{cut['rounded_up'] / cut['products']:.4f}", "0.5"],
            [
                "digits trained on shares, accuracy",
                f"{accuracy['shared']:.4f}",
                f"plain {accuracy['plain']:.4f} − 0.005",
            ],
        ],
    )
    _mpc_training.show(report["convolutions"])
    _mpc_engines.show(report["engines"])
    cut = report["engines"]["truncation"]
    console.print(f"replicated: {cut['failures']} failures in {cut['products']:,} products up to 2^61", markup=False)
    if "crypten" in report:
        show_peers(report["crypten"]["jobs"], report["crypten"]["values"], report["crypten"]["size"])
    else:
        console.print(
            "CrypTen is not installed here: measured without it (python3 dev.py bench --peers mpc)",
            markup=False,
        )


def main() -> None:
    chosen = command_line(__doc__)
    report = measure(chosen.quick)
    if chosen.json != "-":
        show(report)
    write_figures(report, chosen.json)


if __name__ == "__main__":
    main()
