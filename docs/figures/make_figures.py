"""Make the figures of the documentation: docs/figures/server_view.svg, from a real round under masks.

    .venv/bin/python docs/figures/make_figures.py

One round of the bundled configuration; the picture is the one that report.html shows. The masks are fresh randomness,
so the right half differs each time it is made.
"""

from __future__ import annotations

from pathlib import Path

from securefl.audit.figures import server_view
from securefl.encoding.quantize import FixedPoint
from securefl.fl import FedAvg, ServerView, prepare
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.config import Config
from securefl.fl.protections import protection_named

TARGET = Path(__file__).with_name("server_view.svg")


def one_round() -> ServerView:
    """Client 1's integers in the first round of the bundled run, beside what the server received of them."""
    config = Config().with_overrides(rounds=1)
    workload = prepare(config)
    aggregator = ProtectedAggregator(
        protection=protection_named(config.protection.method, config.protection.suite),
        threshold=config.protection.threshold_count(config.data.clients),
        grid=FixedPoint(config.protection.clip_range, config.protection.value_bits),
        max_weight=config.protection.max_weight_for(workload.weights.values()),
        record_view=True,
    )
    view = FedAvg.from_config(config, workload, aggregator).run().server_view
    if view is None:
        raise RuntimeError("client 1 sent no vector")
    return view


def main() -> None:
    """Write the figure."""
    TARGET.write_text(server_view(one_round()), encoding="utf-8")


if __name__ == "__main__":
    main()
