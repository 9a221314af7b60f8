"""``securefl run``: train as configured, show the progress, leave a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from securefl.cli.output import bytes_text, console, steps, write_json
from securefl.errors import ConfigurationError
from securefl.fl.interfaces import RoundRecord

if TYPE_CHECKING:
    from securefl.fl.config import Config
    from securefl.fl.tracking import Tracker

__all__ = ["run"]


def run(
    config: Annotated[Path | None, typer.Argument(help="TOML file; none: the bundled run.", show_default=False)] = None,
    protect: Annotated[str | None, typer.Option(help="Overrides [protection] method, or [split] protect.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Overrides [training] rounds.")] = None,
    clients: Annotated[int | None, typer.Option(help="Overrides [data] clients.")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides [data] seed. Masks are never seeded.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report and checkpoint; default: runs/last.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, as it was configured.")
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Measure each decoded aggregate against the plain mean; plain runs only.")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Also write TensorBoard event files to this folder.", show_default=False)
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Also log to this MLflow tracking server or folder.", show_default=False)
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the report here; - is standard output.")
    ] = None,
) -> None:
    """Train a model over clients whose updates the server never sees.

    Writes report.json and report.html to --out, and after every round a checkpoint and a line of metrics.jsonl.
    """
    from securefl.audit import report as reports
    from securefl.fl import runner
    from securefl.fl.config import load
    from securefl.fl.run_folder import saved_config

    if resume is not None:
        if any(given is not None for given in (config, protect, clients, seed, out)):
            raise ConfigurationError("a resumed run keeps its configuration and folder: only --rounds can be given")
        settings, folder = saved_config(resume).with_overrides(rounds=rounds), resume
    else:
        folder = Path("runs/last") if out is None else out
        settings = load(config).with_overrides(protect=protect, rounds=rounds, clients=clients, seed=seed)
    if settings.split is not None:
        from securefl.cli.run_split import train

        if shadow or tensorboard is not None or mlflow is not None:
            raise ConfigurationError("split learning has no --shadow, --tensorboard or --mlflow in this version")
        train(settings, folder, json, resume=resume is not None)
        return
    session = runner.Run(settings, folder, resume=resume is not None, shadow=shadow)
    session.trackers = _trackers(settings, tensorboard, mlflow)
    quiet = json == "-"
    if not quiet:
        for line in session.headline():
            console.print(line, markup=False)
    with steps(settings.training.rounds, done=session.rounds_done, show=not quiet) as progress:
        for record in session.rounds():
            progress.done(_line(record))
    finished = session.finish()
    report = reports.build(finished)
    reports.write(report, finished, folder)
    write_json(report, json)
    if not quiet:
        _summary(report, folder)


def _trackers(settings: Config, tensorboard: Path | None, mlflow: str | None) -> list[Tracker]:
    from securefl.fl.tracking import MLflow, TensorBoard

    found: list[Tracker] = []
    if tensorboard is not None:
        found.append(TensorBoard(tensorboard))
    if mlflow is not None:
        values = settings.model_dump(mode="json", exclude_none=True)
        found.append(MLflow(mlflow, {f"{part}.{key}": v for part, keys in values.items() for key, v in keys.items()}))
    return found


def _line(record: RoundRecord) -> str:
    if record.failed is not None:
        return f"round {record.round}: no sum ({record.failed}); the model stays, accuracy {record.accuracy:.4f}"
    upload = bytes_text(record.upload_bytes_per_client or 0)
    error = f", aggregate error {record.aggregate_error:.3g}" if record.aggregate_error is not None else ""
    return (
        f"round {record.round}: accuracy {record.accuracy:.4f}, {len(record.survivors)} of {record.clients} clients, "
        f"upload {upload} per client{error}" + (f", epsilon {record.privacy.epsilon:.3f}" if record.privacy else "")
    )


def _summary(report: dict[str, object], out: Path) -> None:
    if report["stopped"]:
        console.print(f"stopped at the budget: {report['stopped']}", markup=False)
    console.print(
        f"test accuracy {report['accuracy']:.4f} (mean over classes {report['balanced_accuracy'] or 0:.4f}) "
        f"after {report['rounds']} rounds, "
        f"model {str(report['model_hash'])[:16]}…, {report['privacy']}",
        markup=False,
    )
    for tier in cast(list[dict[str, object]], report["tiers"]):
        console.print(
            f"tier {tier['tier']} (size {tier['size']:g}): {tier['clients']} clients, {tier['parameters']} parameters, "
            f"its slice alone has test accuracy {tier['accuracy']:.4f}",
            markup=False,
        )
    own = report["personalization"]
    if isinstance(own, dict):
        shared = (
            ""
            if own["shared_mean"] is None
            else f" (the shared model: {own['shared_mean']:.4f} and {own['shared_worst_tenth']:.4f})"
        )
        console.print(
            f"own models ({own['method']}) on held-out examples: mean {own['mean']:.4f}, worst tenth "
            f"{own['worst_tenth']:.4f}{shared}",
            markup=False,
        )
    console.print(f"report: {out / 'report.html'} and {out / 'report.json'}", markup=False)
