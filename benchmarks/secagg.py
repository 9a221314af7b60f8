"""Masked sums: time against the bare AES-CTR stream and against Flower 1.42's functions, bytes, memory; and what the
signed form adds. One core.

    securefl bench secagg [--quick] [--json PATH]

Ratios are of medians taken in one run, interleaved; absolute times depend on the machine.
"""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line, timed, write_figures
from _secagg_signed import compare
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from securefl.cli.output import console, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.machine import Completed, Send
from securefl.secagg import Client, Params, Server, Suite
from securefl.types import PartyId


@dataclass
class Case:
    """``clients`` clients with ``dimension`` parameters each, a tenth of them dropped after sharing their keys."""

    clients: int
    dimension: int
    value_bits: int
    suite: Suite

    @property
    def grid(self) -> FixedPoint:
        return FixedPoint(1.0, self.value_bits)

    @property
    def dropped(self) -> int:
        return self.clients // 10

    @property
    def large(self) -> bool:
        """The case that the goals for bytes and masking are stated for."""
        return self.clients == 32 and self.dimension == 1_000_000

    @property
    def name(self) -> str:
        return f"{self.clients} clients × {self.dimension:,} values of {self.value_bits} bits"


@dataclass
class Figures:
    """Seconds, one entry per client or exchange; bytes per client."""

    keys: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    unseal: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)
    mask: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    peer_share: list[float] = field(default_factory=list)
    peer_upload: list[float] = field(default_factory=list)
    unmask: list[float] = field(default_factory=list)
    server_sum: float = 0.0
    server_open: float = 0.0
    server_route: float = 0.0
    vector_bytes: int = 0
    other_bytes: float = 0.0
    client_peak: float = 0.0
    server_peak: float = 0.0


def bare_streams(count: int, size: int) -> float:
    """Seconds for ``count`` AES-128-CTR streams over ``size`` bytes, in the best block size, and nothing else."""
    block = 1 << 18
    zeros, buffer = memoryview(bytes(block)), memoryview(bytearray(block))
    start = perf_counter()
    for _ in range(count):
        stream = Cipher(AES(os.urandom(16)), CTR(bytes(16))).encryptor()
        for at in range(0, size, block):
            piece = min(block, size - at)
            stream.update_into(zeros[:piece], buffer[:piece])
    return perf_counter() - start


def _params(case: Case) -> Params:
    ids = tuple(PartyId(i) for i in range(1, case.clients + 1))
    return Params(ids, case.dimension, case.grid.max_value, suite=case.suite)


def run(case: Case, peer: Any, peer_runs: int) -> Figures:
    """One whole session by the real roles; every client's steps are timed."""
    figures, params = Figures(), _params(case)
    server, clients = Server(params), {i: Client(params, i) for i in params.clients}
    alive = params.clients[: case.clients - case.dropped]
    update = np.random.default_rng(0).normal(0, 0.05, case.dimension).clip(-1, 1).astype(np.float32)
    uploads: dict[int, int] = dict.fromkeys(params.clients, 0)

    def to_server(client: int, events: Any) -> None:
        for event in events:
            if isinstance(event, Send):
                uploads[client] += len(event.frame)
                server.receive(event.frame)

    server.start()
    for i in params.clients:
        to_server(i, timed(figures.keys, clients[i].start))
    route: list[float] = []
    for at, event in enumerate(timed(route, server.close_round)):
        to_server(event.to, timed(figures.share, lambda event=event: clients[event.to].receive(event.frame)))
        if peer is not None and at % (case.clients // 3) == 0:
            figures.peer_share.append(peer.share_keys())
    inbox = timed(route, server.close_round)
    figures.server_route = sum(route)

    expected = np.zeros(case.dimension, dtype=np.uint64)
    sums: list[float] = []
    for at, event in enumerate(inbox):
        i = event.to
        if i not in alive:
            continue
        timed(figures.unseal, lambda event=event, i=i: clients[i].receive(event.frame))
        values = timed(figures.encode, lambda: case.grid.encode(update, seed=os.urandom(32), scale=0.5)).values
        if at == 1:  # memory in a pass of its own: tracing slows the work down
            figures.client_peak = peak(lambda: case.grid.encode(update, seed=bytes(32)).values)
            tracemalloc.start()
        (event,) = timed(figures.mask, lambda i=i, values=values: clients[i].provide(values))
        if at == 1:
            peak_now = tracemalloc.get_traced_memory()[1] + values.nbytes
            figures.client_peak = max(figures.client_peak, peak_now) / (8 * case.dimension)
            tracemalloc.stop()
            figures.mask.pop()
        else:
            figures.bare.append(bare_streams(case.clients, 8 * params.lanes.words))
        if peer is not None and at < peer_runs:
            figures.peer_upload.append(peer.masked_input(update)[0])
        uploads[i] += len(event.frame)
        figures.vector_bytes = len(event.frame)
        timed(sums, lambda event=event: server.receive(event.frame))
        expected += values
    figures.server_sum = sum(sums)
    for event in server.close_round():
        for answer in timed(figures.unmask, lambda event=event: clients[event.to].receive(event.frame)):
            if isinstance(answer, Send):
                uploads[event.to] += len(answer.frame)
                server.receive(answer.frame)
    opening: list[float] = []
    (completed,) = timed(opening, server.close_round)
    figures.server_open = opening[0]
    if not isinstance(completed, Completed) or completed.result is None or (completed.result.values != expected).any():
        raise AssertionError("the masked sum is not the plain sum")
    figures.other_bytes = sum(uploads[i] - figures.vector_bytes for i in alive) / len(alive)
    return figures


def peak(step: Callable[[], Any]) -> float:
    """Peak of traced allocations during ``step``, in bytes (numpy's arrays are traced)."""
    tracemalloc.start()
    result = step()
    _, top = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return float(top)


def server_memory(case: Case) -> tuple[float, float]:
    """Peak of the server's own allocations while it sums, and when it opens, in packed vectors of this case."""
    params = _params(case)
    server, clients = Server(params), {i: Client(params, i) for i in params.clients}
    values: NDArray[np.uint64] = np.zeros(case.dimension, dtype=np.uint64)
    server.start()
    for client in clients.values():
        server.receive(client.start()[0].frame)  # type: ignore[union-attr]
    for event in server.close_round():
        server.receive(clients[event.to].receive(event.frame)[0].frame)  # type: ignore[union-attr]
    inbox = server.close_round()
    tops = 0.0
    for event in inbox:
        client = clients[event.to]  # type: ignore[union-attr]
        client.receive(event.frame)  # type: ignore[union-attr]
        (send,) = client.provide(values)
        tops = max(tops, peak(lambda send=send: server.receive(send.frame)))
    requests = server.close_round()
    for event in requests:
        server.receive(clients[event.to].receive(event.frame)[0].frame)  # type: ignore[union-attr]
    opening = peak(server.close_round)
    packed = 8 * params.lanes.words
    return tops / packed, opening / packed


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def report(case: Case, figures: Figures, peer: Any) -> dict[str, Any]:
    """Print one case and return its figures."""
    upload = median(figures.unseal) + median(figures.encode) + median(figures.mask)
    share = median(figures.share)  # of the client in the middle: it seals to half of the others twice
    server = figures.server_sum + figures.server_open
    ratio = median(m / b for m, b in zip(figures.mask, figures.bare, strict=True))
    rows: list[tuple[object, ...]] = [
        ("client: draw and advertise keys", ms(median(figures.keys)), "", ""),
        ("client: share keys", ms(share), "", ""),
        ("client: unseal mask secrets", ms(median(figures.unseal)), "", ""),
        ("client: quantize", ms(median(figures.encode)), "", ""),
        (
            "client: mask (pack, streams, frame)",
            ms(median(figures.mask)),
            f"{ratio:.2f}× bare AES-CTR",
            "≤ 1.5×" if case.large else "",
        ),
        ("bare AES-CTR over the same bytes", ms(median(figures.bare)), "", ""),
        ("client: unmask", ms(median(figures.unmask)), "", ""),
        ("server: keys and shares routed", ms(figures.server_route), "", ""),
        (f"server: sum and open, {case.dropped} dropped", ms(server), "", ""),
    ]
    result: dict[str, Any] = {
        "clients": case.clients,
        "dimension": case.dimension,
        "suite": case.suite.label,
        "mask_over_bare": ratio,
        "milliseconds": {row[0]: float(str(row[1])) for row in rows},
        "vector_bytes_per_parameter": figures.vector_bytes / case.dimension,
        "key_and_share_bytes": figures.other_bytes,
        "client_peak_float64_vectors": figures.client_peak,
    }
    if peer is not None:
        peer_share = median(figures.peer_share)
        peer_upload = median(figures.peer_upload)
        seconds = peer.server(case.dimension, case.dropped)
        peer_server = sum(seconds.values())
        _, peer_bytes = peer.masked_input(np.zeros(case.dimension, dtype=np.float32))
        big = case.clients == 100
        rows += [
            ("flwr: share keys", ms(peer_share), f"{peer_share / share:.0f}× ours", "≥ 50×" if big else ""),
            ("flwr: masked upload", ms(peer_upload), f"{peer_upload / upload:.1f}× ours", "≥ 10×" if big else "≥ 7×"),
            (
                "flwr: server (repeats multiplied)",
                ms(peer_server),
                f"{peer_server / server:.0f}× ours",
                "≥ 300×" if big else "≥ 25×",
            ),
            ("flwr: vector, bytes", f"{peer_bytes:,}", f"{peer_bytes / figures.vector_bytes:.2f}× ours", "≥ 3×"),
        ]
        result["flwr_over_ours"] = {
            "share_keys": peer_share / share,
            "masked_upload": peer_upload / upload,
            "server": peer_server / server,
            "vector_bytes": peer_bytes / figures.vector_bytes,
        }
    print_table(f"{case.name}, {case.suite.label}: median milliseconds", ("step", "ms", "ratio", "goal"), rows)
    per_parameter = figures.vector_bytes / case.dimension
    console.print(
        f"upload per client: vector {figures.vector_bytes:,} B = {per_parameter:.3f} B per parameter"
        f"{' (goal ≤ 2.7)' if case.large else ''}, "
        f"keys and shares {figures.other_bytes:,.0f} B; client peak {figures.client_peak:.2f} vectors of float64 "
        "(goal ≤ 4)",
        markup=False,
    )
    return result


def main() -> None:
    arguments = command_line(__doc__)
    peer_class: Any = None
    try:
        sys.path.insert(0, os.path.dirname(__file__))
        from _peer_flwr import Peer as peer_class  # type: ignore[import-not-found, no-redef]
    except ImportError as error:
        console.print(
            f"flwr 1.42 is not installed here ({error.name} is missing): measuring without it; "
            "python3 dev.py bench --peers secagg installs it",
            markup=False,
        )
    sizes = [(8, 20_000, 16), (12, 5_000, 14)] if arguments.quick else [(32, 1_000_000, 16), (100, 100_000, 14)]
    # The whole session runs on one core: OpenSSL, numpy's elementwise work and Python are single-threaded here.
    results = []
    for clients, dimension, bits in sizes:
        for suite in (Suite.MLKEM768_X25519, Suite.X25519):
            case = Case(clients, dimension, bits, suite)
            peer = peer_class(clients, clients // 2 + 1) if peer_class is not None else None
            results.append(report(case, run(case, peer, peer_runs=5), peer))
    case = Case(8, sizes[0][1], 16, Suite.X25519)
    summing, opening = server_memory(case)
    console.print(
        f"server memory, {case.name}: {summing:.2f} packed vectors at most while a message is added, "
        f"{opening:.2f} when the sum is opened and unpacked; it holds one, however many clients",
        markup=False,
    )
    beside = []
    for clients, dimension, bits in sizes:
        for suite in (Suite.MLKEM768_X25519, Suite.X25519):
            case = Case(clients, dimension, bits, suite)
            beside.append(compare(case.name, _params(case), case.dropped, repeats=1 if arguments.quick else 3))
    write_figures({"cases": results, "server_memory": [summing, opening], "signed": beside}, arguments.json)


if __name__ == "__main__":
    main()
