"""A run's report: ``report.json`` for programs, ``report.html`` for people (one file, opens without a network)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from securefl.audit.page import template, versions, write_files
from securefl.fl.interfaces import RoundRecord
from securefl.fl.protections import trust_of
from securefl.fl.runner import FinishedRun

__all__ = ["build", "render", "write"]


def build(run: FinishedRun) -> dict[str, Any]:
    """The report as JSON-ready values. Byte figures are means per client and round over the rounds that gave a sum."""
    config, records = run.config, run.result.records
    summed = [record for record in records if record.failed is None]
    return {
        "protect": config.protection.method,
        "suite": config.protection.suite if config.protection.method in ("masked", "shared") else None,
        "key_model": config.protection.key_model if config.protection.method == "ckks" else None,
        "trust": trust_of(config.protection.method, config.protection.key_model),
        "rounds": len(records),
        "failed_rounds": [{"round": r.round, "reason": r.failed} for r in records if r.failed is not None],
        "clients": config.data.clients,
        "threshold": config.protection.threshold_count(config.data.clients),
        "survivors": [list(record.survivors) for record in records],
        "accuracy": run.result.accuracy,
        "balanced_accuracy": records[-1].balanced_accuracy,
        "accuracy_per_round": [record.accuracy for record in records],
        "epsilon": None if run.privacy is None else run.privacy.epsilon,
        "delta": None if config.privacy is None else config.privacy.delta,
        "noise_multiplier": None if run.privacy is None else run.privacy.noise_multiplier,
        "neighboring": None if run.privacy is None else run.privacy.neighboring,
        "privacy": privacy_sentence(run),
        "assumptions": [] if run.privacy is None else list(run.privacy.assumptions),
        "ledger_head": None if run.privacy is None else run.privacy.ledger_head,
        "epsilon_per_round": [None if r.privacy is None else r.privacy.epsilon for r in records],
        "clip_norm_per_round": [None if r.privacy is None else r.privacy.clip_norm for r in records],
        "stopped": run.result.stopped,
        "upload_bytes_per_client": _mean(summed, "upload_bytes_per_client"),
        "vector_bytes_per_client": _mean(summed, "vector_bytes_per_client"),
        "download_bytes_per_client": _mean(summed, "download_bytes_per_client"),
        "model_bytes_per_client": _mean(summed, "model_bytes"),
        "compression": list(config.compression.chain),
        "to_reach": _to_reach(records, 0.95),
        "aggregate_error_per_round": [record.aggregate_error for record in records],
        "clipped_fraction": _mean(summed, "clipped_fraction"),
        "personalization": _personal(run),
        "parameters": run.parameters,
        "tiers": [asdict(tier) for tier in run.tiers],
        "model_hash": run.result.model_hash,
        "seconds": sum(record.seconds for record in records),
        "config": config.model_dump(mode="json"),
        "versions": versions(),
    }


def _personal(run: FinishedRun) -> dict[str, Any] | None:
    """The clients' own models on what each held out; only a simulation sees a client's figure."""
    report = run.personal
    if report is None:
        return None
    return {
        "method": report.method,
        "mean": report.mean(),
        "worst_tenth": report.worst_tenth(),
        "shared_mean": report.mean(shared=True),
        "shared_worst_tenth": report.worst_tenth(shared=True),
        "clients": [dataclasses.asdict(each) for each in report.clients],
    }


def _to_reach(records: Sequence[RoundRecord], accuracy: float) -> dict[str, Any]:
    """When the run first reached ``accuracy``, and what all clients had uploaded by then; ``None``: it did not."""
    found: dict[str, Any] = {"accuracy": accuracy, "round": None, "upload_bytes": None, "vector_bytes": None}
    upload = vector = 0.0
    for record in records:
        upload += record.clients * (record.upload_bytes_per_client or 0)
        vector += record.clients * (record.vector_bytes_per_client or 0)
        if record.accuracy >= accuracy:
            return found | {"round": record.round, "upload_bytes": upload, "vector_bytes": vector}
    return found


def privacy_sentence(run: FinishedRun) -> str:
    """What the sum itself gives away, in one line."""
    clients, chosen = run.config.data.clients, run.config.privacy
    if run.privacy is not None and chosen is not None:
        return (
            f"epsilon = {run.privacy.epsilon:.3f} of {chosen.epsilon:g} spent at delta = {chosen.delta:g}, "
            f"per {chosen.unit}, {run.privacy.neighboring}"
        )
    if run.config.robust is not None:
        return (
            f"no differential privacy: the two servers learn exactly what the rule {run.config.robust.rule} gives, and "
            "whom it drops"
        )
    if run.config.protection.method == "plain":
        return "no protection and no differential privacy: the server saw every client's update"
    sentence = "no differential privacy: the server learns the sum of the survivors' updates exactly"
    return sentence if clients >= 100 else f"{sentence}, and {clients} clients are too few for a useful user-level ε"


def _mean(records: list[RoundRecord], name: str) -> float | None:
    return fmean(getattr(record, name) or 0 for record in records) if records else None


def render(report: dict[str, Any], run: FinishedRun) -> str:
    """The report as one HTML page. Raises :class:`MissingExtraError` without jinja2 and matplotlib."""
    page = template("report.html.j2")
    from securefl.audit import figures

    records = run.result.records
    view = run.result.server_view
    return page.render(
        report=report,
        config=run.config,
        records=records,
        curve=figures.learning_curve([r.round for r in records], [r.accuracy for r in records]),
        traffic=figures.traffic(report["upload_bytes_per_client"], report["vector_bytes_per_client"], run.parameters),
        view=None if view is None else figures.server_view(view),
        viewed_client=None if view is None else view.client,
    )


def write(report: dict[str, Any], run: FinishedRun, folder: Path) -> None:
    """``report.json`` and ``report.html`` in ``folder``. Raises :class:`ConfigurationError` when that cannot be."""
    write_files(report, lambda: render(report, run), folder)
