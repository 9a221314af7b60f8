"""``securefl run`` of a configuration with ``[split]``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securefl.cli.output import bytes_text, console, steps, write_json
from securefl.fl.config import Config

if TYPE_CHECKING:
    from securefl.split.runner import FinishedSplitRun, SplitRun

__all__ = ["train"]


def train(settings: Config, folder: Path, json: str | None, *, resume: bool) -> None:
    """Run or go on, show progress, write the report to ``folder`` and, if asked, to ``json``."""
    from securefl.audit import split_report
    from securefl.split.runner import SplitRun

    quiet = json == "-"
    with closing(SplitRun(settings, folder, resume=resume)) as session:
        finished = _rounds(session, settings, quiet=quiet)
    report = split_report.build(finished)
    split_report.write(report, finished, folder)
    write_json(report, json)
    if not quiet:
        _summary(report, finished, folder)


def _rounds(session: SplitRun, settings: Config, *, quiet: bool) -> FinishedSplitRun:
    if not quiet:
        for line in session.headline():
            console.print(line, markup=False)
    with steps(settings.training.rounds, done=session.rounds_done, show=not quiet) as progress:
        for record in session.rounds():
            spent = "" if record.epsilon is None else f", epsilon {record.epsilon:.3f}"
            progress.done(
                f"round {record.round}: accuracy {record.accuracy:.4f}, {bytes_text(record.up)} up and "
                f"{bytes_text(record.down)} down per example, {record.seconds:.2f} s{spent}"
            )
    if session.training.lost and not quiet:
        console.print(
            f"charged before an interruption and not repeated: rounds {', '.join(map(str, session.training.lost))}",
            markup=False,
        )
    return session.finish()


def _summary(report: dict[str, Any], finished: FinishedSplitRun, folder: Path) -> None:
    protected = finished.protected_accuracy
    by_path = "" if protected is None else f", {protected:.4f} by the protected path"
    console.print(f"test accuracy {report['accuracy']:.4f}{by_path}", markup=False)
    if finished.leakage is not None:
        auc = finished.leakage.label_auc
        who = "one server" if report["protect"] == "shared" else "the server"
        console.print(
            f"what {who} can rebuild: inputs with correlation {finished.leakage.reconstruction:.3f}, distance "
            f"correlation {finished.leakage.distance_correlation:.3f}, label AUC "
            + ("- (it was given the labels)" if auc is None else f"{auc:.3f}"),
            markup=False,
        )
    console.print(f"report: {folder / 'report.html'} and {folder / 'report.json'}", markup=False)
