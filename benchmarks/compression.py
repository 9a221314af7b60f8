"""Compression before protection: accuracy, upload counted on the frames, encode and decode time, memory.

    securefl bench compression [--quick] [--json PATH]

digits, 20 clients, Dirichlet(0.3), MLP 64-128-64-10 (17,226 parameters), 100 rounds of one local epoch (batch 16),
accuracy: mean of the last 10 rounds, over seeds 0 to 4. Runs are plain; the first rounds of each are repeated masked
and have to give the same model, bit for bit. The vector frames of both have the same length; keys and shares are
those of the masked rounds. Times are per core (one thread); ratios carry over to other machines, times do not.
"""

from __future__ import annotations

import os
import tracemalloc
from dataclasses import asdict, dataclass
from statistics import fmean, median, pstdev
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line, write_figures
from threadpoolctl import threadpool_limits

from securefl.cli.output import bytes_text, console, print_table
from securefl.encoding.compressor import Scale
from securefl.encoding.packing import Packing
from securefl.encoding.payload import Payload
from securefl.encoding.public import PublicRandomness
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.compression import compression_of, pruning_of
from securefl.fl.config import CompressionConfig, Config, parse
from securefl.fl.fedavg import FedAvg
from securefl.fl.workload import prepare

CASES: dict[str, dict[str, Any]] = {
    "16 bits, no coder": {"chain": []},
    "rotated 15": {"chain": ["rotated"], "levels": 15},
    "rotated 3": {"chain": ["rotated"]},
    "rotated 3, exact lanes": {"chain": ["rotated"], "width": "exact"},
    "random-k 10 % + rotated 3": {"chain": ["random_k", "rotated"]},
    "random-k 10 % + rotated 3 + EF": {"chain": ["random_k", "rotated"], "error_feedback": True},
    "random-k 7 % + rotated 3": {"chain": ["random_k", "rotated"], "fraction": 0.07},
    "projection 10 % + rotated 3 + EF": {"chain": ["random_projection", "rotated"]},
    "PowerSGD 1 + rotated 15 + EF": {"chain": ["powersgd", "rotated"], "rank": 1, "levels": 15},
    "PowerSGD 2 + rotated 5 + EF": {"chain": ["powersgd", "rotated"], "rank": 2, "levels": 5},
    "pruned 50 % + rotated 7": {"chain": ["pruned", "rotated"], "levels": 7, "end_round": 50},
}
QUICK = ("16 bits, no coder", "rotated 3", "random-k 10 % + rotated 3")
MASKED_ROUNDS = 2


@dataclass
class Row:
    name: str
    sums: int
    accuracy: float
    deviation: float
    lost: float
    vector_bytes: float
    ratio: float
    other_bytes: float
    failed_rounds: int
    total_to_095: float | None


def configuration(case: dict[str, Any], seed: int, rounds: int, method: str) -> Config:
    return parse(
        {
            "data": {"alpha": 0.3, "seed": seed},
            "model": {"hidden": [128, 64]},
            "training": {"rounds": rounds},
            "protection": {"method": method},
            "compression": case,
        }
    )


def train(config: Config) -> Any:
    workload = prepare(config)
    pruning = pruning_of(config.compression)
    aggregator = aggregator_of(config, config.protection.max_weight_for(workload.weights.values()), pruning=pruning)
    return FedAvg.from_config(config, workload, aggregator, pruning=pruning).run()


def measure(name: str, case: dict[str, Any], seeds: int, rounds: int, baseline: float | None) -> Row:
    accuracies, vectors, totals, failed, parameters = [], [], [], 0, 0
    for seed in range(seeds):
        result = train(configuration(case, seed, rounds, "plain"))
        accuracies.append(fmean(record.accuracy for record in result.records[-10:]))
        good = [record for record in result.records if record.failed is None]
        failed += len(result.records) - len(good)
        vectors.append(fmean(record.vector_bytes_per_client for record in good))
        parameters = sum(value.size for value in result.tensors.values())
        spent = 0.0
        for record in result.records:
            spent += record.clients * (record.vector_bytes_per_client or 0.0)
            if record.accuracy >= 0.95:
                totals.append(spent)
                break
    masked = train(configuration(case, 0, MASKED_ROUNDS, "masked"))
    assert masked.model_hash == train(configuration(case, 0, MASKED_ROUNDS, "plain")).model_hash
    last = masked.records[-1]
    accuracy, vector = fmean(accuracies), fmean(vectors)
    return Row(
        name=name,
        sums=compression_of(CompressionConfig.model_validate(case)).sums,
        accuracy=accuracy,
        deviation=pstdev(accuracies),
        lost=(baseline if baseline is not None else accuracy) - accuracy,
        vector_bytes=vector,
        ratio=4 * parameters / vector,
        other_bytes=last.upload_bytes_per_client - last.vector_bytes_per_client,
        failed_rounds=failed,
        total_to_095=fmean(totals) if len(totals) == seeds else None,
    )


def speed(case: dict[str, Any], dimension: int, repetitions: int) -> dict[str, float]:
    """Encode (with packing) and decode (with unpacking), ns per parameter; peak of a client's buffers in float32s."""
    compression = compression_of(CompressionConfig.model_validate(case))
    assert compression.quantizer is not None
    clients = 20
    update = np.random.default_rng(0).normal(0, 0.01, dimension).astype(np.float32)
    scale = Scale(1e-4, clients * 1e-4)

    def set_up(round: int) -> tuple[Any, Payload, Packing]:
        public = PublicRandomness(bytes(32), round)
        coder = compression.coder.at(((dimension,),), public)
        grid = compression.quantizer.at(coder.sizes[0], clients, scale, public)  # type: ignore[union-attr]
        payload = Payload(grid, 256, scale.mean_square, clients)
        return coder, payload, Packing(payload.segments, clients)

    def encode(round: int) -> tuple[Any, Payload, Packing, Any]:
        coder, payload, packing = set_up(round)
        values = payload.encode(coder.project(update, 0), 100, seed=os.urandom(32)).values
        packing.check(values)
        return coder, payload, packing, packing.pack(values)

    def decode(coder: Any, payload: Payload, packing: Packing, words: Any) -> Any:
        return coder.expand(payload.decode(packing.unpack(words, 1), 1, in_place=True).mean)

    encoding, decoding = [], []
    with threadpool_limits(1):  # the goal is per core
        for round in range(repetitions):
            start = perf_counter()
            packed = encode(round)
            middle = perf_counter()
            decode(*packed)
            encoding.append(middle - start)
            decoding.append(perf_counter() - middle)
    tracemalloc.start()
    packed = encode(0)
    encode_peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    decode(*packed)
    decode_peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return {
        "encode_ns": 1e9 * median(encoding) / dimension,
        "decode_ns": 1e9 * median(decoding) / dimension,
        "encode_peak_buffers": encode_peak / (4 * dimension),
        "decode_peak_buffers": decode_peak / (4 * dimension),
    }


def _speed_row(name: str, figures: dict[str, float]) -> tuple[str, ...]:
    encode, decode, *peaks = figures.values()
    return (name, *(f"{value:.2f}" for value in (encode, decode, encode + decode, *peaks)))


def main() -> None:
    options = command_line(__doc__)
    quiet = options.json == "-"
    seeds, rounds = (1, 15) if options.quick else (5, 100)
    rows: list[Row] = []
    for name in QUICK if options.quick else CASES:
        rows.append(measure(name, CASES[name], seeds, rounds, rows[0].accuracy if rows else None))
        if not quiet:
            console.print(f"{name}: {100 * rows[-1].accuracy:.2f} %, {rows[-1].ratio:.1f}×", markup=False)
    dimension, repetitions = (1 << 17, 5) if options.quick else (1 << 20, 15)
    speeds = {name: speed(CASES[name], dimension, repetitions) for name in ("rotated 3", "random-k 10 % + rotated 3")}
    if not quiet:
        print_table(
            f"digits, 20 clients, Dirichlet(0.3), 17,226 parameters, {rounds} rounds, {seeds} seeds",
            ("coder", "sums", "accuracy %", "lost", "vector", "against float32", "keys, shares", "failed", "to 0.95"),
            [
                (
                    row.name,
                    row.sums,
                    f"{100 * row.accuracy:.2f} ± {100 * row.deviation:.2f}",
                    f"{100 * row.lost:+.2f}",
                    bytes_text(row.vector_bytes),
                    f"{row.ratio:.1f}×",
                    bytes_text(row.other_bytes),
                    row.failed_rounds,
                    bytes_text(row.total_to_095) if row.total_to_095 is not None else "-",
                )
                for row in rows
            ],
        )
        print_table(
            f"one core, {dimension:,} parameters, 20 clients",
            (
                "coder",
                "encode ns",
                "decode ns",
                "both (goal 15)",
                "encode peak, float32 buffers (goal 3)",
                "decode peak (3)",
            ),
            [_speed_row(name, figures) for name, figures in speeds.items()],
        )
    write_figures(
        {
            "rows": [asdict(row) for row in rows],
            "speed": speeds,
            "rounds": rounds,
            "seeds": seeds,
        },
        options.json,
    )


if __name__ == "__main__":
    main()
