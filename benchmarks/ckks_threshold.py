"""The n-of-n CKKS sum: bytes and time per parameter of every step, ten parties, several value bits; flooding; memory.

    securefl bench ckks_threshold [--quick] [--json PATH]

Steps of a client are medians over the parties of one session and start at integers; steps of the server are sums over
the session. The usual single-key path (``ts.ckks_vector``, 8192/[60, 40, 40], scale 2^40) is encrypted beside it where
TenSEAL is installed: it has no threshold keys, so that only its encryption compares. One core: nothing starts a thread.
"""

from __future__ import annotations

import os
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line, write_figures

from securefl.ckks.threshold import ThresholdParams, ThresholdServer, ThresholdSum
from securefl.ckks.threshold.messages import Share
from securefl.cli.output import console, print_table
from securefl.machine import Completed, NeedInput, RoundContext, Send
from securefl.types import PartyId

#: Client steps, in the order of the protocol.
STEPS = ("key share", "check key", "encrypt", "check sum", "share")
#: What must be reached at ten parties and at least ten value bits: bytes up, bytes of a decryption share.
GOALS = (8.0, 4.0)


class Session:
    """The real roles of one session, each step timed."""

    def __init__(self, parties: int, dimension: int, value_bits: int) -> None:
        ids = tuple(PartyId(i) for i in range(1, parties + 1))
        self.context = RoundContext(os.urandom(8), 0, ids, dimension, 2**value_bits - 1, parties, bytes(32))
        protection = ThresholdSum()
        self.params: ThresholdParams = protection.params(self.context)
        self.clients = {me: protection.client(self.context, me) for me in ids}
        self.server: ThresholdServer = protection.server(self.context)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.largest_frame = 0

    def timed(self, name: str, step: Callable[[], Any]) -> Any:
        start = perf_counter()
        found = step()
        self.seconds[name].append(perf_counter() - start)
        return found

    def run(self, input_of: Callable[[PartyId], np.ndarray]) -> np.ndarray:
        self.server.start()
        sent = [event for client in self.clients.values() for event in self.timed("key share", client.start)]
        names = iter(("check key", "", "check sum", "share"))
        while True:
            for event in sent:
                self.timed("server", lambda event=event: self.server.receive(event.frame))
            events = self.timed("server", self.server.close_round)
            if isinstance(events[-1], Completed):
                return events[-1].result.values
            name, sent = next(names), []
            for event in events:
                sent += self.answer(name, event, input_of)

    def answer(self, name: str, event: Send, input_of: Callable[[PartyId], np.ndarray]) -> list[Send]:
        client = self.clients[event.to]
        events = self.timed(name or "confirm", lambda: client.receive(event.frame))
        if any(isinstance(one, NeedInput) for one in events):
            values = input_of(event.to)
            events = self.timed("encrypt", lambda: client.provide(values))
        return [one for one in events if isinstance(one, Send)]


def measured(parties: int, dimension: int, value_bits: int) -> dict[str, Any]:
    session = Session(parties, dimension, value_bits)
    rng = np.random.default_rng(value_bits)
    total = np.zeros(dimension, dtype=np.uint64)

    def input_of(_: PartyId) -> np.ndarray:
        values = rng.integers(0, 2**value_bits, dimension, dtype=np.uint64)
        np.add(total, values, out=total)
        return values

    opened = session.run(input_of)
    params = session.params
    return {
        "parties": parties,
        "value_bits": value_bits,
        "up_bytes": params.input_bytes / dimension,
        "share_bytes": Share.length(params) / dimension,
        "statistical_bits": params.achieved_bits,
        "flood_bits": params.flood_bits,
        "wrong": int((opened != total).sum()),
        "server_ns": sum(session.seconds["server"]) / dimension * 1e9,
        **{f"{step} ns": median(session.seconds[step]) / dimension * 1e9 for step in STEPS},
    }


def usual(dimension: int) -> float | None:
    """Nanoseconds per parameter of encrypting and serialising one ``ts.ckks_vector``; ``None`` without TenSEAL."""
    try:
        import tenseal as ts
    except ImportError:
        return None
    kind = ts.ENCRYPTION_TYPE.SYMMETRIC
    context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], encryption_type=kind)
    context.global_scale = 2.0**40
    update, seconds = np.random.default_rng(0).normal(0, 0.05, dimension), []
    pieces = np.array_split(update, -(-dimension // 4096))  # one ciphertext each: longer ones print warnings
    for _ in range(3):
        start = perf_counter()
        for piece in pieces:
            ts.ckks_vector(context, piece).serialize()
        seconds.append(perf_counter() - start)
    return median(seconds) / dimension * 1e9


def server_memory(dimension: int) -> tuple[float, float]:
    """Most that the server holds while it takes inputs, with 2 parties and with 10, in vectors of ciphertexts."""
    found = []
    for parties in (2, 10):
        session = Session(parties, dimension, 16)
        frames = [event.frame for client in session.clients.values() for event in client.start()]
        session.server.start()
        for _ in range(2):
            for frame in frames:
                session.server.receive(frame)
            frames = [
                reply.frame
                for event in session.server.close_round()
                for reply in session.clients[event.to].receive(event.frame)
                if isinstance(reply, Send)
            ]
        values = np.zeros(dimension, dtype=np.uint64)
        inputs = [client.provide(values)[0].frame for client in session.clients.values()]
        tracemalloc.start()
        for frame in inputs:
            session.server.receive(frame)
        held = tracemalloc.get_traced_memory()[1] + session.server._c0.nbytes + session.server._c1.nbytes
        tracemalloc.stop()
        found.append(held / session.params.input_bytes)
    return found[0], found[1]


def main() -> None:
    arguments = command_line(__doc__)
    dimension = 60_000 if arguments.quick else 1_000_000
    cases = [measured(10, dimension, bits) for bits in (10, 12, 16)] + [measured(3, dimension, 16)]
    print_table(
        f"n of n, {dimension:,} integers: bytes per parameter; goals at ten parties: up <= {GOALS[0]:g}, share <= "
        f"{GOALS[1]:g}",
        ("parties", "value bits", "up", "share", "statistical bits", "wrong"),
        [
            (
                *(str(one[name]) for name in ("parties", "value_bits")),
                *(f"{one[name]:.2f}" for name in ("up_bytes", "share_bytes")),
                f"{one['statistical_bits']:.1f}",
                str(one["wrong"]),
            )
            for one in cases
        ],
    )
    print_table(
        "ns per parameter: of one client, of the server in all",
        ("parties", "bits", *STEPS, "server"),
        [
            (
                *(str(one[name]) for name in ("parties", "value_bits")),
                *(f"{one[f'{step} ns']:.0f}" for step in STEPS),
                f"{one['server_ns']:.0f}",
            )
            for one in cases
        ],
    )
    baseline = usual(dimension)
    if baseline is not None:
        ours = cases[2]["encrypt ns"]
        console.print(
            f"ts.ckks_vector, encrypt and serialise: {baseline:.0f} ns, {baseline / ours:.1f}x ours", markup=False
        )
    few, many = server_memory(dimension)
    console.print(
        f"server while it takes inputs: {few:.2f} vectors of ciphertexts with 2 parties, {many:.2f} with 10",
        markup=False,
    )
    figures = {"cases": cases, "usual_encrypt_ns": baseline, "server_memory": [few, many]}
    write_figures(figures, arguments.json)


if __name__ == "__main__":
    main()
