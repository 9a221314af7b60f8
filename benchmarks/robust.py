"""Rules on shared updates: milliseconds and bytes, three processes on this machine, the helper's work included.

The range check compares all 64 bits of every coordinate from both sides; the norm check adds one product and one
comparison per client. Parties are processes joined by Unix socket pairs; each has one thread.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line, write_figures
from _speed import Speed, repeat

from securefl.cli.output import print_table
from securefl.cluster.local import PARTY_ENVIRONMENT
from securefl.cluster.sockets import SocketChannel, connected_pair
from securefl.mpc.operations import reveal_bits
from securefl.mpc.party import Party, join
from securefl.mpc.robust import accepted_sum, median, multi_krum, trimmed_sum, vet
from securefl.mpc.robust.vetting import norm_within
from securefl.mpc.shared import Shared

LARGEST = 2**15 - 1


def updates(clients: int, dimension: int) -> np.ndarray:
    values = np.random.default_rng(0).normal(0, LARGEST / 20, (clients, dimension))
    return np.rint(values.clip(-LARGEST, LARGEST)).astype(np.int64)


def held(party: Party, values: np.ndarray) -> Shared:
    """A party's part of the updates, as clients would have sent it."""
    if party.is_helper:
        return Shared(party, values.shape, 0)
    mask = np.random.default_rng(1).integers(0, 2**64, values.shape, dtype=np.uint64)
    return Shared(party, values.shape, 0, values.view(np.uint64) - mask if party.me == 0 else mask)


def jobs(clients: int, dimension: int) -> dict[str, Callable[[Party, Shared], object]]:
    bound = dimension * LARGEST**2 // 100
    faulty, everyone = clients // 5, np.ones(clients, bool)
    return {
        "range and norm check": lambda party, x: vet(x, LARGEST, bound),
        "range check": lambda party, x: vet(x, LARGEST),
        "norm check alone": lambda party, x: reveal_bits(norm_within(x, bound)),
        "sum of the accepted": lambda party, x: accepted_sum(x, None if party.is_helper else everyone),
        "coordinate median": lambda party, x: median(x),
        "trimmed mean": lambda party, x: trimmed_sum(x, faulty),
        "multi-Krum": lambda party, x: multi_krum(x, faulty, clients // 2, LARGEST),
    }


def play(me: int, links: dict[int, socket.socket], pipe: Any, clients: int, dimension: int, repeats: int) -> None:
    """One party: every job in turn, repeats + 1 times; the first is not counted."""
    channel = SocketChannel(me, links, deadline=120.0)
    party = join(channel, b"benchmark")
    values, batch = updates(clients, dimension), 0
    for job in jobs(clients, dimension).values():
        for _ in range(repeats + 1):
            batch += 1
            party.begin(batch)
            x = held(party, values)
            pipe.recv()
            before, rounds = sum(link.bytes_sent for link in channel.traffic.values()), party.rounds
            begin = perf_counter()
            job(party, x)
            channel.flush()
            taken = perf_counter() - begin
            pipe.send(
                (taken, sum(link.bytes_sent for link in channel.traffic.values()) - before, party.rounds - rounds)
            )
    channel.close()


def measure(clients: int, dimension: int, repeats: int) -> dict[str, dict[str, Any]]:
    context = multiprocessing.get_context("fork")
    pairs = {(a, b): connected_pair() for a, b in ((0, 1), (0, 2), (1, 2))}
    pipes, processes = [], []
    for me in range(3):
        links = {b if a == me else a: pair[a != me] for (a, b), pair in pairs.items() if me in (a, b)}
        mine, theirs = context.Pipe()
        process = context.Process(target=play, args=(me, links, theirs, clients, dimension, repeats), daemon=True)
        process.start()
        pipes.append(mine)
        processes.append(process)
    results: dict[str, dict[str, Any]] = {}
    speed, taken = Speed(), {}
    for name in jobs(clients, dimension):
        spent: dict[str, int] = {}

        def once(spent: dict[str, int] = spent) -> float:
            for pipe in pipes:
                pipe.send("go")
            each = [pipe.recv() for pipe in pipes]
            spent.update(bytes=sum(sent for _, sent, _ in each), rounds=each[0][2])
            return 1000 * max(seconds for seconds, _, _ in each)

        once()
        taken[name] = repeat(once, repeats, speed)
        results[name] = spent
    for name, repetitions in taken.items():
        results[name] |= repetitions.figures()
    for process in processes:
        process.join(10)
    return results


def main() -> None:
    if not os.environ.keys() >= PARTY_ENVIRONMENT.keys():  # a process manages its memory as it was told when it started
        os.execve(sys.executable, [sys.executable, *sys.argv], {**PARTY_ENVIRONMENT, **os.environ})  # noqa: S606
    arguments = command_line(__doc__)
    clients, dimension, repeats = (8, 500, 2) if arguments.quick else (64, 10_000, 15)
    results = measure(clients, dimension, repeats)
    report = {"clients": clients, "dimension": dimension, "rules": results}
    write_figures(report, arguments.json)
    if arguments.json == "-":
        return
    lines = []
    for name, figures in results.items():
        times = [f"{figures['median']:.1f}", f"{figures['least']:.1f}", f"{figures['slowdown']:.2f}×"]
        lines.append([name, *times, f"{figures['bytes'] / 1e6:.2f}", figures["rounds"]])
    print_table(
        f"{clients} clients × {dimension:,} coordinates, three processes",
        ["ms", "median", "least", "machine slowed", "MB", "rounds"],
        lines,
    )


if __name__ == "__main__":
    main()
