"""The report of a split-learning run: ``report.json`` and ``report.html``."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from securefl.audit.page import template, versions, write_files
from securefl.errors import ConfigurationError
from securefl.split.runner import FinishedSplitRun

__all__ = ["build", "render", "write"]


def build(run: FinishedSplitRun) -> dict[str, Any]:
    """JSON-ready values. Bytes are per training example: up and down of the split protocol, sums beside them."""
    config, records = run.config, run.records
    if config.split is None:
        raise ConfigurationError("this run has no [split] section")
    figures = run.leakage
    return {
        "split": True,
        "protect": config.split.protect,
        "statement": run.statement,
        "order": config.split.order,
        "dataset": run.dataset,
        "rounds": len(records),
        "clients": config.data.clients,
        "accuracy": records[-1].accuracy,
        "protected_accuracy": run.protected_accuracy,
        "accuracy_per_round": [record.accuracy for record in records],
        "loss_per_round": [record.loss for record in records],
        "up_bytes_per_example": fmean(record.up for record in records),
        "down_bytes_per_example": fmean(record.down for record in records),
        "sum_bytes_per_example": fmean(record.sum_bytes for record in records),
        "between_bytes_per_example": fmean(record.between for record in records),
        "seconds_per_round": fmean(record.seconds for record in records),
        "epsilon": records[-1].epsilon,
        "delta": None if records[-1].epsilon is None else config.split.delta,
        "noise_multiplier": run.noise_multiplier,
        "not_covered_by_epsilon": run.uncovered,
        "privacy_unit": None if records[-1].epsilon is None else "example",
        "leakage": None
        if figures is None
        else {
            "reconstruction": figures.reconstruction,
            "distance_correlation": figures.distance_correlation,
            "label_auc": figures.label_auc,
        },
        "activations": run.features,
        "outputs": run.outputs,
        "parameters": run.parameters,
        "model_hash": run.model_hash,
        "seconds": run.seconds,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
    }


def render(report: dict[str, Any], run: FinishedSplitRun) -> str:
    """One HTML page that opens without a network. Raises :class:`MissingExtraError` without jinja2 and matplotlib."""
    page = template("split_report.html.j2")
    from securefl.audit import figures, split_figures

    pictures = run.pictures
    return page.render(
        report=report,
        records=run.records,
        curve=figures.learning_curve([r.round for r in run.records], [r.accuracy for r in run.records]),
        pictures=None
        if pictures is None
        else split_figures.reconstructions(pictures.inputs, {"what the server rebuilds": pictures.guesses}),
    )


def write(report: dict[str, Any], run: FinishedSplitRun, folder: Path) -> None:
    """``report.json`` and ``report.html`` in ``folder``. Raises :class:`ConfigurationError` when that cannot be."""
    write_files(report, lambda: render(report, run), folder)
