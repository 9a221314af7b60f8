"""What a round costs from 10 to 10,000 simulated clients, a cost model fitted to it, and the model at a million.

    securefl bench scaling [--quick] [--json PATH]

Above one cohort's size, clients are dealt into cohorts that are summed apart, and whoever stands above adds their sums:
the server then learns each cohort's sum. Every client and every server here is the real role with suite x25519 and 16
value bits; a tenth of each cohort falls silent before its masked input. All roles run in this process, one after the
other, and only the processor time of a role's calls counts; training, serialization and the network are not in it.

The model, for cohorts of k clients with d values, is fitted by non-negative least squares on relative errors:

    client seconds  a0 + a1 k + a2 k^2 + a3 d + a4 k d
    server seconds  b0 + b1 k + b2 k^2 + b3 k d + b4 k^2 d          (per cohort)

Columns headed model and formula are ratios, predicted to measured. Bytes are counted on the frames, and follow from
the lengths in protocols/secagg/SPEC.md without any fit. Memory is counted from what a role holds, not measured.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from time import process_time
from typing import Any

import numpy as np
from _harness import command_line, write_figures
from scipy.optimize import nnls
from threadpoolctl import threadpool_limits

from securefl.cli.output import bytes_text, console, print_table
from securefl.machine import Completed, NeedInput, Send
from securefl.primitives.kem import Suite
from securefl.secagg import Client, Params, Server
from securefl.secagg.messages import server_limits
from securefl.types import PartyId

MAX_VALUE, DROPOUT, COHORT = 2**16 - 2, 0.1, 32
GRID = [(k, d) for k in (10, 20, 32, 64) for d in (1_000, 30_000, 200_000)]
QUICK_GRID = [(k, d) for k in (6, 10, 16) for d in (500, 5_000, 20_000)]


@dataclass
class Cost:
    """One cohort: seconds and bytes per client (means over the survivors), seconds of its server."""

    clients: int
    values: int
    client_seconds: float
    server_seconds: float
    up: float
    down: float


def session(k: int, d: int) -> Cost:
    """One sum by the real roles, checked against the plain sum."""
    params = Params(tuple(map(PartyId, range(1, k + 1))), d, MAX_VALUE, suite=Suite.X25519, session=os.urandom(16))
    silent = set(list(params.clients)[: max(1, int(DROPOUT * k))])
    given = np.random.default_rng(k).integers(0, MAX_VALUE, d, dtype=np.uint64)
    spent, server_seconds = dict.fromkeys(params.clients, 0.0), 0.0
    up, down = dict.fromkeys(params.clients, 0), dict.fromkeys(params.clients, 0)
    server, roles, sent = (
        Server(params),
        {i: Client(params, i) for i in params.clients},
        dict.fromkeys(params.clients, 0),
    )

    def client(me: PartyId, call: Any, *arguments: Any) -> None:
        nonlocal server_seconds
        began = process_time()
        events = list(call(*arguments))
        if any(isinstance(event, NeedInput) for event in events):
            events += roles[me].provide(given)
        spent[me] += process_time() - began
        for event in events:
            if not isinstance(event, Send):
                continue
            sent[me] += 1
            if me in silent and sent[me] > 2:
                return
            up[me] += memoryview(event.frame).nbytes
            began = process_time()
            server.receive(event.frame)
            server_seconds += process_time() - began

    server.start()
    for me, role in roles.items():
        client(me, role.start)
    while True:
        began = process_time()
        events = server.close_round()
        server_seconds += process_time() - began
        for event in events:
            if isinstance(event, Send):
                down[event.to] += memoryview(event.frame).nbytes
                client(event.to, roles[event.to].receive, event.frame)
            elif isinstance(event, Completed):
                assert event.result is not None
                assert (event.result.values == given * np.uint64(k - len(silent))).all()
                alive = [i for i in params.clients if i not in silent]
                mean = [float(np.mean([table[i] for i in alive])) for table in (spent, up, down)]
                return Cost(k, d, mean[0], server_seconds, mean[1], mean[2])


def client_terms(k: float, d: float) -> list[float]:
    return [1, k, k * k, d, k * d]


def server_terms(k: float, d: float) -> list[float]:
    return [1, k, k * k, k * d, k * k * d]


def fit(terms: Any, costs: list[Cost], name: str) -> tuple[list[float], float]:
    """Coefficients, and the largest relative error over the measured points."""
    table = np.array([terms(cost.clients, cost.values) for cost in costs], dtype=float)
    seconds = np.array([getattr(cost, name) for cost in costs])
    scale = table.max(axis=0)
    found = nnls(table / scale / seconds[:, None], np.ones(len(costs)))[0] / scale
    return found.tolist(), float(np.abs(table @ found / seconds - 1).max())


def upload_bytes(k: int, d: int) -> float:
    """A surviving client's mean upload from the lengths of the specification."""
    params = Params(tuple(map(PartyId, range(1, k + 1))), d, MAX_VALUE, suite=Suite.X25519)
    kem = params.suite
    shares = 4 + (k - 1) * (4 + kem.sealed_bytes(66))
    silent = max(1, int(DROPOUT * k))
    pairs = np.mean([k - i for i in range(silent + 1, k + 1)]) * kem.sealed_bytes(32)
    limits = server_limits(params)
    return 4 * 72 + limits[1] + shares + float(pairs) + limits[5] + 4 + 34 * k


def population(clients: int, d: int, cohort: int) -> tuple[int, int]:
    """How many cohorts, and their size: as equal as can be."""
    cohorts = max(1, round(clients / cohort))
    return cohorts, -(-clients // cohorts)


def main() -> None:
    asked = command_line(__doc__)
    grid, cohort, d = (QUICK_GRID, 8, 500) if asked.quick else (GRID, COHORT, 1_000)
    sizes = (10, 100) if asked.quick else (10, 100, 1_000, 10_000)
    repeats = 1 if asked.quick else 3
    with threadpool_limits(1):
        session(6, 100)
        runs = [[session(k, values) for k, values in grid] for _ in range(repeats)]
        costs = [min(each, key=lambda cost: cost.client_seconds) for each in zip(*runs, strict=True)]
        client, client_error = fit(client_terms, costs, "client_seconds")
        server, server_error = fit(server_terms, costs, "server_seconds")
        rows, checked = [], []
        for cost in costs:
            predicted = float(np.dot(client, client_terms(cost.clients, cost.values)))
            rows.append(
                [
                    f"{cost.clients}",
                    f"{cost.values:,}",
                    f"{1e3 * cost.client_seconds:.1f}",
                    f"{predicted / cost.client_seconds:.2f}",
                    f"{1e3 * cost.server_seconds:.1f}",
                    f"{np.dot(server, server_terms(cost.clients, cost.values)) / cost.server_seconds:.2f}",
                    f"{cost.up:,.0f}",
                    f"{upload_bytes(cost.clients, cost.values) / cost.up:.4f}",
                ]
            )
        print_table(
            "one cohort",
            ["clients", "values", "client ms", "model", "server ms", "model", "B up", "formula"],
            rows,
        )
        rows = []
        for clients in sizes:
            cohorts, size = population(clients, d, cohort)
            each = [session(size, d) for _ in range(cohorts)]
            total = sum(cost.server_seconds for cost in each)
            mean = float(np.mean([cost.client_seconds for cost in each]))
            predicted = [
                float(np.dot(client, client_terms(size, d))),
                cohorts * float(np.dot(server, server_terms(size, d))),
            ]
            checked.append({"clients": clients, "cohorts": cohorts, "client_seconds": mean, "server_seconds": total})
            rows.append(
                [
                    f"{clients:,}",
                    f"{cohorts} x {size}",
                    f"{1e3 * mean:.1f}",
                    f"{predicted[0] / mean:.2f}",
                    f"{total:.2f}",
                    f"{predicted[1] / total:.2f}",
                    bytes_text(sum(cost.up for cost in each) * size),
                ]
            )
        print_table(
            f"measured populations, {d:,} values",
            ["clients", "cohorts", "client ms", "model", "server s", "model", "up, all"],
            rows,
        )
    extrapolated = []
    for clients in (10_000, 100_000, 1_000_000):
        for values in (100_000, 1_000_000):
            cohorts, size = population(clients, values, 100)
            words = server_limits(
                Params(tuple(map(PartyId, range(1, size + 1))), values, MAX_VALUE, suite=Suite.X25519)
            )[5]
            extrapolated.append(
                {
                    "clients": clients,
                    "values": values,
                    "cohorts": cohorts,
                    "client_seconds": float(np.dot(client, client_terms(size, values))),
                    "server_core_seconds": cohorts * float(np.dot(server, server_terms(size, values))),
                    "upload_bytes": upload_bytes(size, values),
                    "server_bytes_in": clients * upload_bytes(size, values),
                    # its integers and the packed vector it masks; one packed vector, and every client's boxes
                    "client_memory": 8 * values + words,
                    "server_memory_per_cohort": words + size * size * 114 + size * 100,
                }
            )
    print_table(
        "extrapolated: cohorts of 100, a tenth drops; server core hours; memory of a client, of a cohort's server",
        ["clients", "values", "cohorts", "client s", "core-h", "up", "in, all", "memory", "cohort"],
        [
            [
                f"{each['clients']:,}",
                f"{each['values']:,}",
                f"{each['cohorts']:,}",
                f"{each['client_seconds']:.2f}",
                f"{each['server_core_seconds'] / 3600:.2f}",
                bytes_text(each["upload_bytes"]),
                bytes_text(each["server_bytes_in"]),
                bytes_text(each["client_memory"]),
                bytes_text(each["server_memory_per_cohort"]),
            ]
            for each in extrapolated
        ],
    )
    console.print(f"largest relative error of the fit: client {client_error:.0%}, server {server_error:.0%}")
    console.print(f"{platform.processor() or platform.machine()}, one core, Python {platform.python_version()}")
    report = {
        "measured": [asdict(cost) for cost in costs],
        "client_coefficients": client,
        "server_coefficients": server,
        "fit_error": {"client": client_error, "server": server_error},
        "populations": checked,
        "extrapolated": extrapolated,
    }
    write_figures(report, asked.json)


if __name__ == "__main__":
    main()
