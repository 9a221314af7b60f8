"""The signed form of the masked sum beside the plain one: processor time and bytes, client by client, by turns.

Part of ``securefl bench secagg``. Two sessions with the same clients, values and dropouts, one of each form, are played
in step: beside each client's work in one session comes the same client's work in the other, in an order drawn anew at
every turn. Times are processor time of this process, which is one thread; a ratio is one of medians over all clients
(of sums, for the server).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from random import Random
from statistics import median
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securefl.cli.output import console, print_table
from securefl.machine import Completed, Event, Send
from securefl.primitives.identity import Directory, Identity
from securefl.secagg import Client, Params, Server
from securefl.secagg.signed import SignedClient, SignedServer
from securefl.testing import SeededEntropy
from securefl.types import ClientId

#: A client's work, by what it answers.
KEYS, SHARE, UNSEAL, MASK, UNMASK = "keys", "share keys", "unseal", "mask", "unmask"
WORK = (KEYS, SHARE, UNSEAL, MASK, UNMASK)
#: What the signed form adds to each, with n clients of whom s survive.
ADDED = {
    KEYS: "1 signed",
    SHARE: "n − 1 signed, n verified",
    UNSEAL: "n − 1 verified",
    MASK: "nothing",
    UNMASK: "1 signed, s verified",
}


class Session:
    """One session; :meth:`play` stops after each client's step. Seconds of processor time, bytes of frames."""

    def __init__(self, params: Params, alive: Sequence[ClientId], values: NDArray[np.uint64], signed: bool) -> None:
        self.params, self.alive, self.values = params, alive, values
        self.client: dict[str, dict[ClientId, float]] = {work: defaultdict(float) for work in WORK}
        self.server: Counter[str] = Counter()
        self.up: Counter[ClientId] = Counter()
        self.down: Counter[ClientId] = Counter()
        self.vector = 0
        self.result: NDArray[np.uint64] | None = None
        self.clients: dict[ClientId, Client | SignedClient]
        self.role: Server | SignedServer
        if not signed:
            self.role, self.clients = Server(params), {i: Client(params, i) for i in params.clients}
            return
        identities = {i: Identity(SeededEntropy(i).token(32)) for i in params.clients}
        known = Directory({i: identity.public for i, identity in identities.items()})
        self.role = SignedServer(params, known)
        self.clients = {i: SignedClient(params, i, identities[i], known) for i in params.clients}

    def play(self) -> Iterator[None]:
        """Ends with :attr:`result`."""
        self.role.start()
        for client in self.params.clients:
            yield from self._step(client, KEYS)
        for work in (SHARE, UNSEAL):
            inbox = self._close(work)
            for client in self.params.clients if work == SHARE else self.alive:
                yield from self._step(client, work, inbox[client])
                if work == UNSEAL:
                    yield from self._step(client, MASK)
        while self.result is None:  # two exchanges in the signed form
            for client, frames in self._close(UNMASK).items():
                yield from self._step(client, UNMASK, frames)

    def _step(self, client: ClientId, work: str, frames: Sequence[bytes] = ()) -> Iterator[None]:
        """One client's work, and the server's with what it sends."""
        role, events = self.clients[client], []
        start = process_time()
        if work == KEYS:
            events += role.start()
        elif work == MASK:
            events += role.provide(self.values)
        for frame in frames:
            events += role.receive(frame)
        self.client[work][client] += process_time() - start
        for event in events:
            if isinstance(event, Send):
                self.up[client] += len(event.frame)
                self.vector = len(event.frame) if work == MASK else self.vector
                start = process_time()
                self.role.receive(event.frame)
                self.server[work] += process_time() - start
        yield

    def _close(self, work: str) -> dict[ClientId, list[bytes]]:
        start = process_time()
        events: Sequence[Event] = self.role.close_round()
        self.server[work] += process_time() - start
        inbox: dict[ClientId, list[bytes]] = {}
        for event in events:
            if isinstance(event, Send):
                self.down[event.to] += len(event.frame)
                inbox.setdefault(event.to, []).append(event.frame)
            elif isinstance(event, Completed) and event.result is not None:
                self.result = event.result.values
            else:
                raise AssertionError(f"the session ended without a sum: {event}")
        return inbox

    # ---- figures

    def seconds(self, work: str) -> list[float]:
        return [self.client[work][client] for client in self.alive]

    def sent(self, counter: Counter[ClientId]) -> float:
        """Mean over the survivors."""
        return sum(counter[client] for client in self.alive) / len(self.alive)


def by_turns(*sessions: Session) -> None:
    """Play them in step, in another order at every turn: who comes second finds shared values in the caches."""
    order, running = Random(0), [session.play() for session in sessions]  # noqa: S311 - no secret depends on it
    over = object()
    while running:
        order.shuffle(running)
        running = [turn for turn in running if next(turn, over) is not over]


def compare(name: str, params: Params, dropped: int, repeats: int) -> dict[str, Any]:
    """Measure both forms, print the table, and return the figures. ``dropped``: clients that leave with their keys."""
    alive = params.clients[: len(params.clients) - dropped]
    values = np.random.default_rng(0).integers(0, params.max_value, params.dimension, dtype=np.uint64, endpoint=True)
    plain, signed = [], []
    for _ in range(repeats):
        pair = [Session(params, alive, values, signed=form) for form in (False, True)]
        by_turns(*pair)
        if any((session.result != values * np.uint64(len(alive))).any() for session in pair):
            raise AssertionError("the masked sum is not the plain sum")
        plain.append(pair[0])
        signed.append(pair[1])
    rows: list[tuple[str, float, float, str]] = []
    for work in WORK:
        times = [median([t for session in form for t in session.seconds(work)]) for form in (plain, signed)]
        rows.append((f"client: {work}", times[0], times[1], ADDED[work]))
    whole = [
        median([sum(session.client[work][i] for work in WORK) for session in form for i in alive])
        for form in (plain, signed)
    ]
    rows.append(("client: whole session", *whole, ""))
    for title, works in (
        ("server: keys and shares", (KEYS, SHARE, UNSEAL)),
        ("server: sum and open", (MASK, UNMASK)),
        ("server: whole session", WORK),
    ):
        sums = [median([sum(session.server[work] for work in works) for session in form]) for form in (plain, signed)]
        rows.append((title, *sums, ""))
    print_table(
        f"signed beside plain: {name}, {params.suite.label}: median milliseconds of processor time",
        ("step", "plain", "signed", "ratio", "the signed form adds"),
        [(step, f"{1000 * a:.1f}", f"{1000 * b:.1f}", f"{b / a:.2f}×", more) for step, a, b, more in rows],
    )
    a, b = plain[0], signed[0]
    up, down = (a.sent(a.up), b.sent(b.up)), (a.sent(a.down), b.sent(b.down))
    small = tuple(each - a.vector for each in up)
    console.print(
        f"bytes per surviving client, plain → signed: up {up[0]:,.0f} → {up[1]:,.0f} ({up[1] / up[0]:.3f}×), "
        f"of which without the vector {small[0]:,.0f} → {small[1]:,.0f} ({small[1] / small[0]:.2f}×, "
        f"+ {small[1] - small[0]:,.0f}); down {down[0]:,.0f} → {down[1]:,.0f} ({down[1] / down[0]:.2f}×, "
        f"+ {down[1] - down[0]:,.0f})",
        markup=False,
    )
    return {
        "clients": len(params.clients),
        "survivors": len(alive),
        "dimension": params.dimension,
        "suite": params.suite.label,
        "milliseconds": {step: {"plain": 1000 * x, "signed": 1000 * y} for step, x, y, _ in rows},
        "signed_over_plain": {step: y / x for step, x, y, _ in rows},
        "vector_bytes": a.vector,
        "upload_bytes": {"plain": up[0], "signed": up[1]},
        "download_bytes": {"plain": down[0], "signed": down[1]},
    }
