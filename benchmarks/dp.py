"""Differential privacy: tightness and time of the accountant, noise per second, error of distributed noise, DP-SGD.

    python benchmarks/dp.py [--quick] [--json PATH]

Every figure that the part promises is printed beside its limit. Ratios are of interleaved measurements in one run on
one thread; absolute times depend on the machine. Peers (dp-accounting, opacus) are measured where they are installed.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line

from securefl import dp
from securefl.dp.accountant import event_epsilon
from securefl.dp.calibration import calibrate_noise, rounds_event
from securefl.dp.distributed import DistributedSkellam
from securefl.dp.gaussian import gaussian_mu
from securefl.dp.sampler import noise_table

#: (noise multiplier, sampling probability, rounds)
SETTINGS = [
    (1.1, 0.0042667, 14062), (1.0, 0.01, 1000), (1.0, 0.1, 100), (1.0, 0.1, 1000), (0.5, 0.01, 100), (0.8, 0.05, 500),
    (4.0, 0.3, 300), (10.0, 0.5, 1000), (0.4, 0.001, 1600),
]  # fmt: skip
DELTA = 1e-5
Row = tuple[str, str, str, bool | None]


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = perf_counter()
    result = action()
    return perf_counter() - start, result


def row(name: str, value: float, limit: float, form: str = "{:.2f}", at_most: bool = True) -> Row:
    sign = "≤" if at_most else "≥"
    return name, form.format(value), f"{sign} " + form.format(limit), value <= limit if at_most else value >= limit


def note(name: str, text: str) -> Row:
    return name, text, "", None


def accountant(quick: bool) -> list[Row]:
    settings = SETTINGS[2:6] if quick else SETTINGS
    rows, mine, theirs, above = [], [], [], []
    peer = find_spec("dp_accounting") is not None
    logging.disable(logging.WARNING)
    for sigma, q, rounds in settings:
        event = rounds_event(sigma, q, rounds)
        event_epsilon.cache_clear()
        seconds, found = timed(lambda event=event: event_epsilon(event, DELTA))
        mine.append(seconds)
        if peer:
            from dp_accounting.pld import privacy_loss_distribution as pld

            def oracle(sigma: float = sigma, q: float = q, rounds: int = rounds) -> float:
                one = pld.from_gaussian_mechanism(sigma, sampling_prob=q, value_discretization_interval=1e-4)
                return float(one.self_compose(rounds).get_epsilon_for_delta(DELTA))

            seconds, exact = timed(oracle)
            theirs.append(seconds)
            above.append((found / exact - 1) * 100)
    rows.append(row("epsilon, slowest call, ms", max(mine) * 1e3, 100, "{:.0f}"))
    if peer:
        rows.append(row("epsilon above dp-accounting PLD 1e-4, worst, %", max(above), 0.2, "{:+.3f}"))
        rows.append(
            row("epsilon: dp-accounting's time over ours, median", median(theirs) / median(mine), 10, "{:.0f}", False)
        )
    else:
        rows.append(note("epsilon against dp-accounting", "not installed: no comparison"))
    slowest = 0.0
    for q, rounds in ((0.01, 1000), (0.1, 100), (1.0, 100)):
        seconds, z = timed(
            lambda q=q, rounds=rounds: calibrate_noise(epsilon=3, delta=DELTA, sampling_probability=q, rounds=rounds)
        )
        slowest = max(slowest, seconds)
        rows.append(note(f"calibrate epsilon 3, q {q}, {rounds} rounds", f"z = {z:.6f}"))
    rows.append(row("calibrate, slowest, s", slowest, 0.7))
    return rows


def sampler(quick: bool) -> list[Row]:
    count = 2_000_000 if quick else 8_000_000
    table = noise_table("skellam", Fraction(1000) ** 2)
    table.draw(os.urandom(32), 100_000)
    generator = np.random.default_rng()
    ours, numpys = [], []
    for _ in range(5):
        ours.append(count / timed(lambda: table.draw(os.urandom(32), count))[0])
        fewer = count // 8
        poisson = timed(lambda n=fewer: generator.poisson(5e5, n) - generator.poisson(5e5, n))[0]
        numpys.append(fewer / poisson)
    return [
        row("Skellam stddev 1000, million per second and core", max(ours) / 1e6, 50, "{:.0f}", False),
        note("numpy Poisson difference (not cryptographic), million/s", f"{max(numpys) / 1e6:.0f}"),
        note("ours over numpy, median", f"{median(ours) / median(numpys):.1f}"),
    ]


def distributed(quick: bool) -> list[Row]:
    rows = []
    rng = np.random.default_rng(0)
    updates = rng.normal(size=(100, 256))
    updates *= 10 / np.linalg.norm(updates, axis=1, keepdims=True)
    for bits in (20,) if quick else (16, 20, 24):
        for epsilon in (1.0, 3.0, 6.0):
            start = DistributedSkellam(10.0, 256, 1.0, 100, 100, 0, bits)
            plan = start.calibrated(epsilon=epsilon, delta=DELTA, rounds=1)
            errors = []
            for _ in range(4 if quick else 20):
                total = np.sum([plan.encode(u) for u in updates], axis=0, dtype=np.uint64)
                errors.append(float(((plan.decode(total, 100) - updates.sum(0)) ** 2).mean()))
            ratio = float(np.mean(errors)) / (10 / gaussian_mu(epsilon, DELTA)) ** 2
            name = f"distributed Skellam n 100, {bits} bits, epsilon {epsilon:g}: MSE over central Gaussian"
            rows.append(row(name, ratio, 1.2) if bits >= 20 else note(name, f"{ratio:.2f}"))
    return rows


def dpsgd(quick: bool) -> list[Row]:
    if find_spec("torch") is None:
        return [note("DP-SGD", "torch is not installed")]
    import torch
    from torch import nn
    from torch.nn import functional as F

    from securefl.fl.dpsgd import ClippedGradients, add_noise

    torch.set_num_threads(1)
    torch.manual_seed(0)
    cnn = nn.Sequential(
        nn.Conv2d(1, 16, 8, 2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(16, 32, 4, 2), nn.ReLU(),
        nn.MaxPool2d(2, 1), nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10),
    )  # fmt: skip
    mlp = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    rows = []
    for name, model, x, limit in (
        ("MLP", mlp, torch.randn(64, 64), 4.0),
        ("CNN", cnn, torch.randn(64, 1, 28, 28), 2.5),
    ):
        y = torch.randint(0, 10, (64,))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        clipper = ClippedGradients(model, 1.0)
        parameters = list(model.parameters())

        def plain(model: nn.Module = model, x: Any = x, y: Any = y, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

        def private(
            x: Any = x, y: Any = y, optimizer: Any = optimizer, clipper: Any = clipper, ps: Any = parameters
        ) -> None:
            sums, _ = clipper.accumulate(x, y, lambda o, t: F.cross_entropy(o, t, reduction="none"))
            for p, g in zip(ps, add_noise(sums, clip_norm=1.0, noise_multiplier=1.0), strict=True):
                p.grad = g.div_(64)
            optimizer.step()

        actions: dict[str, Callable[[], None]] = {"plain": plain, "private": private}
        if find_spec("opacus") is not None:
            actions["opacus"] = _opacus(model, x, y)
        times: dict[str, list[float]] = {key: [] for key in actions}
        for _ in range(30 if quick else 80):
            for key, action in actions.items():
                times[key].append(timed(action)[0])
        base = median(times["plain"])
        rows.append(
            row(
                f"DP-SGD {name} batch 64, noise and step included, over plain SGD",
                median(times["private"]) / base,
                limit,
            )
        )
        if "opacus" in times:
            rows.append(
                note(f"Opacus hooks {name}, clipping only, over plain SGD", f"{median(times['opacus']) / base:.2f}")
            )
        else:
            rows.append(note("Opacus", "not installed: no comparison"))
    return rows


def _opacus(model: Any, x: Any, y: Any) -> Callable[[], None]:
    import copy

    import torch
    from opacus.grad_sample import GradSampleModule
    from torch.nn import functional as F

    hooked = GradSampleModule(copy.deepcopy(model))

    def step() -> None:
        hooked.zero_grad()
        F.cross_entropy(hooked(x), y).backward()
        each = [p.grad_sample for p in hooked.parameters()]
        norms = torch.sqrt(sum(g.flatten(1).square().sum(1) for g in each))
        for g in each:
            torch.tensordot((1 / norms).clamp(max=1.0), g, dims=1)

    return step


def main(argv: list[str] | None = None) -> int:
    arguments = command_line(__doc__, argv)
    dp.epsilon(noise_multiplier=1.0, sampling_probability=0.5, rounds=10, delta=DELTA)  # import costs nothing below
    rows = [r for part in (accountant, sampler, distributed, dpsgd) for r in part(arguments.quick)]
    width = max(len(r[0]) for r in rows)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name, value, limit, good in rows:
        verdict = "" if good is None else ("met" if good else "NOT MET")
        print(f"{name:<{width}}  {value:>14}  {limit:>9}  {verdict}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump([dict(zip(("name", "value", "limit", "met"), r, strict=True)) for r in rows], file, indent=1)
    return 0 if all(good is not False for *_, good in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
