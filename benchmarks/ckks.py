"""CKKS sums of ten clients against the usual TenSEAL path (``ts.ckks_vector``, 8192/[60, 40, 40], scale 2^40): time,
bytes, exactness, memory; and the n-of-n sum. One core: nothing here starts a thread.

    securefl bench ckks [--quick] [--json PATH]

Ratios are of medians taken in one run, interleaved; absolute times depend on the machine. What is timed starts at
float32 and ends at bytes, quantization and signatures included.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line, timed, write_figures

from securefl.ckks import KEY_HOLDER, CKKSSum, KeyModel, Server
from securefl.ckks.cipher import open_sum
from securefl.ckks.messages import EncryptedSum
from securefl.ckks.ring import add_into
from securefl.ckks.threshold import ThresholdParams, ThresholdSum
from securefl.ckks.threshold.messages import Share
from securefl.cli.output import console, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.machine import RoundContext
from securefl.primitives.entropy import SystemEntropy
from securefl.transport.memory import run_session
from securefl.types import SERVER, PartyId

CLIENTS = 10
GRID = FixedPoint(1.0, 16)
#: What must be reached: encrypt, add and decrypt times faster; bytes per parameter at most; times smaller.
GOALS = {"key_holder": (3.0, 4.0, 4.0, 8.0, 7.0), "shared_key": (5.5, 5.0, 5.0, 4.0, 14.0)}
STEPS = ("encrypt", "take", "add", "decrypt")


@dataclass
class Times:
    """Seconds per client (``encrypt``; ``take``: read what arrived; ``add``) or per sum (``decrypt``); bytes."""

    encrypt: list[float] = field(default_factory=list)
    take: list[float] = field(default_factory=list)
    add: list[float] = field(default_factory=list)
    decrypt: list[float] = field(default_factory=list)
    message: int = 0
    error: float = 0.0
    wrong: int = 0


@contextmanager
def quiet() -> Iterator[None]:
    """TenSEAL writes a warning to standard output for every vector of more than one ciphertext."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


class Baseline:
    """One ``ckks_vector`` per client under one symmetric key: what NVFLARE 2.9 does per layer."""

    def __init__(self) -> None:
        import tenseal as ts

        self._ts, self.times, self._sum = ts, Times(), None
        self._context = ts.context(
            ts.SCHEME_TYPE.CKKS,
            8192,
            coeff_mod_bit_sizes=[60, 40, 40],
            encryption_type=ts.ENCRYPTION_TYPE.SYMMETRIC,
        )
        self._context.global_scale = 2.0**40

    def client(self, update: np.ndarray) -> None:
        with quiet():
            message = timed(self.times.encrypt, lambda: self._ts.ckks_vector(self._context, update).serialize())
            vector = timed(self.times.take, lambda: self._ts.ckks_vector_from(self._context, message))
            self.times.message = len(message)
            if self._sum is None:
                self._sum = vector
            else:
                self._sum = timed(self.times.add, lambda: self._sum + vector)

    def close(self, expected: np.ndarray) -> None:
        for _ in range(3):
            found = np.array(timed(self.times.decrypt, self._sum.decrypt))
        self.times.error = float(np.abs(found - expected).max())


class Ours:
    """The real roles of one session."""

    def __init__(self, model: KeyModel, dimension: int) -> None:
        ids = tuple(PartyId(i) for i in range(1, CLIENTS + 1))
        self.times, self.model = Times(), model
        self.context = RoundContext(os.urandom(8), 0, ids, dimension, GRID.max_value, 2, bytes(32))
        self._protection = CKKSSum(model)
        self.params = self._protection.params(self.context)
        self._server = self._protection.server(self.context)
        self._holder = self._protection.others(self.context)[KEY_HOLDER]
        self._server.start()
        self._notices = {event.to: event.frame for event in self._holder.start()}
        self._server.receive(self._notices[SERVER])
        self._plain = np.zeros(dimension, dtype=np.uint64)
        self.peak = 0.0

    def client(self, me: PartyId, update: np.ndarray) -> None:
        client = self._protection.client(self.context, me)
        client.start()
        client.receive(self._notices[me])
        seed = b"b" * 32 + bytes([me])
        send = timed(self.times.encrypt, lambda: client.provide(GRID.encode(update, seed=seed).values))[0]
        self._plain += GRID.encode(update, seed=seed).values
        self.times.message = len(send.frame)
        timed(self.times.take, lambda: self._server.receive(send.frame))
        self._add()

    def _add(self) -> None:
        """The additions alone, on a copy: what the server did within ``receive``."""
        chosen, total = self.params.parameters, self._server._total
        other = total.copy()
        start = perf_counter()
        for mine, theirs in zip(total, other, strict=True):
            for half, more in zip(mine, theirs, strict=True):
                for row, add, prime in zip(half, more, chosen.primes, strict=True):
                    add_into(row, add, prime)
        self.times.add.append(perf_counter() - start)
        total[...] = other

    def close(self) -> None:
        (send,) = self._server.close_round()
        # An opening happens once per session: its arithmetic is timed three times, and then the role opens.
        ciphertexts = EncryptedSum.decode(memoryview(send.frame)[56:-80], self.params).ciphertexts
        key, entropy = self._protection.ring.key_for(self.params), SystemEntropy()
        for _ in range(3):
            timed(
                self.times.decrypt,
                lambda: open_sum(self.params, key.secret, key.multiplier, ciphertexts, self.params.clients, entropy),
            )
        result, _ = self._holder.receive(send.frame)
        (done,) = self._server.receive(result.frame)
        self.times.wrong = int((done.result.values != self._plain).sum())


def server_memory(dimension: int) -> float:
    """Largest memory of the server while it takes vectors and sends their sum, in vectors of ciphertexts."""
    bench = Ours(KeyModel.KEY_HOLDER, dimension)
    update = np.zeros(dimension, dtype=np.float32)
    frames = []
    for me in bench.context.clients[:3]:
        client = bench._protection.client(bench.context, me)
        client.start()
        client.receive(bench._notices[me])
        frames.append(client.provide(GRID.encode(update, seed=bytes(33)).values)[0].frame)
    server: Server = bench._server
    tracemalloc.start()
    for frame in frames:
        server.receive(frame)
    taking = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return taking / (16 * bench.params.ciphertexts * bench.params.parameters.degree)


class Clocked:
    """A role whose steps are timed."""

    def __init__(self, role: Any, clock: dict[str, list[float]]) -> None:
        self._role, self._clock = role, clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._role, name)
        if name not in ("provide", "receive", "start", "close_round"):
            return found
        return lambda *given: timed(self._clock.setdefault(name, []), lambda: found(*given))


class ClockedSum:
    """A protection whose roles are timed: ``client`` (all clients together) and ``server``."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.name, self.vector_frame = inner, inner.name, inner.vector_frame
        self.clocks: dict[str, dict[str, list[float]]] = {"client": {}, "server": {}}

    def client(self, context: RoundContext, me: PartyId) -> Any:
        return Clocked(self._inner.client(context, me), self.clocks["client"])

    def server(self, context: RoundContext) -> Any:
        return Clocked(self._inner.server(context), self.clocks["server"])

    def others(self, context: RoundContext) -> Any:
        return self._inner.others(context)


def threshold(dimension: int, value_bits: int) -> dict[str, Any]:
    """One session of the n-of-n sum with ten parties: bytes and seconds per parameter, and whether it is exact."""
    grid = FixedPoint(1.0, value_bits)
    ids = tuple(PartyId(i) for i in range(1, CLIENTS + 1))
    context = RoundContext(os.urandom(8), 0, ids, dimension, grid.max_value, CLIENTS, bytes(32))
    params, clocked = ThresholdParams.of(context), ClockedSum(ThresholdSum())
    rng = np.random.default_rng(1)
    inputs = {me: rng.integers(0, grid.max_value + 1, dimension, dtype=np.uint64) for me in ids}
    result = run_session(clocked, context, inputs.__getitem__).unwrap()
    client = {name: sum(times) / CLIENTS for name, times in clocked.clocks["client"].items()}
    return {
        "parties": CLIENTS,
        "value_bits": value_bits,
        "up_bytes": params.input_bytes / dimension,
        "share_bytes": Share.length(params) / dimension,
        "encrypt_ns": client["provide"] / dimension * 1e9,
        "other_client_ns": sum(t for name, t in client.items() if name != "provide") / dimension * 1e9,
        "server_ns": sum(map(sum, clocked.clocks["server"].values())) / dimension * 1e9,
        "wrong": int((result.values != sum(inputs.values())).sum()),
    }


def figures(times: Times, base: Times, dimension: int) -> dict[str, Any]:
    """Nanoseconds per parameter and ratios."""
    found: dict[str, Any] = {"bytes": times.message / dimension, "smaller": base.message / times.message}
    for step in STEPS:
        mine, theirs = median(getattr(times, step)), median(getattr(base, step))
        found[step] = mine / dimension * 1e9
        found[f"{step}_faster"] = theirs / mine
    return found


def reached(name: str, found: dict[str, Any]) -> list[tuple[str, str, str]]:
    encrypt, add, decrypt, size, smaller = GOALS[name]
    rows = [
        ("encrypt + serialize", f"{found['encrypt_faster']:.1f}x", f">= {encrypt}x"),
        ("add", f"{found['add_faster']:.1f}x", f">= {add}x"),
        ("decrypt", f"{found['decrypt_faster']:.1f}x", f">= {decrypt}x"),
        ("bytes per parameter", f"{found['bytes']:.2f}", f"<= {size}"),
        ("smaller", f"{found['smaller']:.1f}x", f">= {smaller}x"),
        ("wrong integers in the sum", str(found["wrong"]), "0"),
    ]
    return [(f"{name}: {what}", value, goal) for what, value, goal in rows]


def main() -> None:
    arguments = command_line(__doc__)
    dimension = 50_000 if arguments.quick else 1_000_000
    baseline, ours = Baseline(), [Ours(model, dimension) for model in KeyModel]
    expected = np.zeros(dimension)
    for at in range(1, CLIENTS + 1):
        update = np.random.default_rng(at).normal(0, 0.05, dimension).clip(-1, 1).astype(np.float32)
        expected += update
        baseline.client(update)
        for one in ours:
            one.client(PartyId(at), update)
    baseline.close(expected)
    for one in ours:
        one.close()
    results: dict[str, dict[str, Any]] = {}
    base = baseline.times
    usual = [f"{median(getattr(base, step)) / dimension * 1e9:.2f}" for step in STEPS]
    rows: list[tuple[Any, ...]] = [
        ("ts.ckks_vector", *usual, f"{base.message / dimension:.2f}", f"off by {base.error:.1e}")
    ]
    for one in ours:
        found = figures(one.times, baseline.times, dimension) | {"wrong": one.times.wrong}
        results[one.model.label] = found
        rows.append(
            (one.model.label, *(f"{found[s]:.2f}" for s in STEPS), f"{found['bytes']:.2f}", f"{found['wrong']} wrong")
        )
    print_table(
        f"{CLIENTS} clients x {dimension:,} float32, ns per parameter ('take': read what arrived; with us also verify "
        "and add)",
        ("path", "encrypt", "take", "add", "decrypt", "B/param", "sum"),
        rows,
    )
    print_table(
        "must reach",
        ("figure", "here", "goal"),
        [row for name, found in results.items() for row in reached(name, found)],
    )
    shares = threshold(dimension if arguments.quick else 200_000, 16)
    print_table(
        f"threshold, {CLIENTS} of {CLIENTS} parties, {shares['value_bits']} value bits",
        ("figure", "here", "goal"),
        [
            ("up, bytes per parameter", f"{shares['up_bytes']:.2f}", "<= 8"),
            ("decryption share, bytes per parameter", f"{shares['share_bytes']:.2f}", "<= 4"),
            ("encrypt, ns per parameter and client", f"{shares['encrypt_ns']:.0f}", ""),
            ("a client's other steps, ns per parameter", f"{shares['other_client_ns']:.0f}", ""),
            ("server, ns per parameter", f"{shares['server_ns']:.0f}", ""),
            ("wrong integers in the sum", str(shares["wrong"]), "0"),
        ],
    )
    memory = server_memory(dimension)
    console.print(
        f"server memory while it takes vectors: {memory:.2f} vectors of ciphertexts (words of 64 bits); it holds one, "
        "however many clients",
        markup=False,
    )
    write_figures({"one_key": results, "threshold": shares, "server_memory": memory}, arguments.json)


if __name__ == "__main__":
    main()
