"""A model trained part by part beside the whole: accuracy, what a device holds while it trains, uploads.

    securefl bench decomposition [--quick] [--json PATH]

digits, 20 clients, Dirichlet(0.5), MLP 64-128-128-64-10, as many rounds in all whatever the number of parts; plain
sums, whose vectors are as long as masked ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean

from _harness import command_line, write_figures

from securefl.cli.output import bytes_text, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.config import parse
from securefl.fl.decomposition import train_by_parts
from securefl.fl.protections import protection_named
from securefl.fl.training import LocalTraining, torch_threads
from securefl.fl.workload import prepare


@dataclass
class Row:
    parts: int
    accuracy: float
    largest_values: int
    upload_per_round: float
    upload_in_all: float


def measure(parts: int, seeds: int, rounds: int) -> Row:
    found = []
    for seed in range(seeds):
        workload = prepare(parse({"data": {"seed": seed}, "model": {"hidden": [128, 128, 64]}}))
        aggregator = ProtectedAggregator(protection_named("plain", "x25519"), 12, FixedPoint(1.0, 16), 1024)
        found.append(train_by_parts(workload, parts, aggregator, LocalTraining(), rounds=rounds // parts, seed=seed))
    records = found[0].parts
    uploads = [record.upload_bytes or 0.0 for record in records]
    return Row(
        parts,
        fmean(each.accuracy for each in found),
        max(record.values for record in records),
        max(uploads),
        sum(upload * (rounds // parts) for upload in uploads),
    )


def main() -> None:
    options = command_line(__doc__)
    seeds, rounds = (1, 12) if options.quick else (5, 60)
    with torch_threads(1):
        rows = [measure(parts, seeds, rounds) for parts in (1, 2, 3, 4)]
    if options.json != "-":
        print_table(
            f"{rounds} rounds in all, {seeds} seeds",
            ("parts", "accuracy %", "numbers held", "largest upload per round", "upload in all"),
            [
                (
                    row.parts,
                    f"{100 * row.accuracy:.2f}",
                    f"{row.largest_values:,}",
                    bytes_text(row.upload_per_round),
                    bytes_text(row.upload_in_all),
                )
                for row in rows
            ],
        )
    write_figures({"rows": [asdict(row) for row in rows], "rounds": rounds, "seeds": seeds}, options.json)


if __name__ == "__main__":
    main()
