"""``securefl epsilon``, ``securefl calibrate`` and ``securefl ledger``: privacy figures and what a run has spent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from securefl.cli.output import console, write_json
from securefl.errors import ConfigurationError

__all__ = ["calibrate", "epsilon", "ledger"]

Noise = Annotated[float | None, typer.Option(help="Noise stddev over the clip norm.")]
Sampling = Annotated[float, typer.Option(help="Probability with which a client joins a round; 1: all take part.")]
Rounds = Annotated[int | None, typer.Option(help="Rounds.")]
Delta = Annotated[float, typer.Option(help="δ, in (0, 1).")]
Relation = Annotated[str, typer.Option(help="add-remove or replace-one.")]
Json = Annotated[str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")]

_SAMPLING_NOTE = "holds for Poisson sampling only: each client by its own coin, not a cohort of fixed size"


def epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise stddev over the clip norm.")],
    delta: Delta,
    sampling_probability: Sampling = 1.0,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 1,
    neighboring: Relation = "add-remove",
    json: Json = None,
) -> None:
    """ε of a number of rounds of Gaussian noise on Poisson-sampled cohorts: an upper bound, tight to 0.2 %."""
    from securefl import dp

    value = dp.epsilon(
        noise_multiplier=noise_multiplier,
        sampling_probability=sampling_probability,
        rounds=rounds,
        delta=delta,
        neighboring=neighboring,
    )
    figures: dict[str, Any] = {
        "epsilon": value,
        "delta": delta,
        "noise_multiplier": noise_multiplier,
        "sampling_probability": sampling_probability,
        "rounds": rounds,
        "neighboring": neighboring,
    }
    if json != "-":
        console.print(f"epsilon = {value:.6f} at delta = {delta:g} ({neighboring})", markup=False)
        if sampling_probability < 1:
            console.print(_SAMPLING_NOTE, markup=False)
    write_json(figures, json)


def calibrate(
    epsilon: Annotated[float, typer.Option(help="Target ε.")],
    delta: Delta,
    sampling_probability: Annotated[float | None, typer.Option(help="Leave out to find the largest.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Leave out to find the most.")] = None,
    noise_multiplier: Annotated[float | None, typer.Option(help="Leave out to find the least.")] = None,
    population: Annotated[int | None, typer.Option(help="With it, the cohort is found, not the probability.")] = None,
    neighboring: Relation = "add-remove",
    json: Json = None,
) -> None:
    """The one of noise multiplier, rounds and sampling probability that is left out, for a target (ε, δ)."""
    from securefl import dp

    value = dp.calibrate(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=noise_multiplier,
        sampling_probability=sampling_probability,
        rounds=rounds,
        population=population,
        neighboring=neighboring,
    )
    name = "noise_multiplier" if noise_multiplier is None else "rounds" if rounds is None else "sampling_probability"
    if name == "sampling_probability" and population is not None:
        name = "expected_cohort"
    given = {
        "noise_multiplier": noise_multiplier,
        "rounds": rounds,
        "sampling_probability": sampling_probability,
        "population": population,
    }
    figures: dict[str, Any] = {
        "epsilon": epsilon,
        "delta": delta,
        "neighboring": neighboring,
        **{key: each for key, each in given.items() if each is not None},
        name: value,
    }
    if json != "-":
        console.print(f"{name} = {value:.6g} for epsilon = {epsilon:g} at delta = {delta:g}", markup=False)
        if (sampling_probability or 1.0) < 1 or name in ("sampling_probability", "expected_cohort"):
            console.print(_SAMPLING_NOTE, markup=False)
    write_json(figures, json)


ledger = typer.Typer(help="What a run has spent.", no_args_is_help=True)


@ledger.callback()
def _root() -> None:
    pass


def _open(run: Path) -> Any:
    from securefl import dp
    from securefl.fl.run_folder import LEDGER_FILE

    path = run / LEDGER_FILE if run.is_dir() else run
    if not path.is_file():
        raise ConfigurationError(f"there is no privacy ledger at {path}")
    return dp.Ledger(path)


@ledger.command()
def show(run: Annotated[Path, typer.Argument(help="The run's folder, or the ledger itself.")]) -> None:
    """Every charge, and what is spent."""
    with _open(run) as opened:
        console.print(opened.show(), markup=False)


@ledger.command()
def verify(
    run: Annotated[Path, typer.Argument(help="The run's folder, or the ledger itself.")],
    head: Annotated[str | None, typer.Option(help="A pinned row's hash; default: the one in report.json.")] = None,
) -> None:
    """Check the ledger's chain and costs, and that it contains the row that the run's report names."""
    import json as codec

    report = run / "report.json"
    if head is None and run.is_dir() and report.is_file():
        try:
            head = codec.loads(report.read_text(encoding="utf-8")).get("ledger_head")
        except ValueError:
            raise ConfigurationError(f"{report} is not JSON") from None
    try:
        pinned = None if head is None else bytes.fromhex(head)
    except ValueError:
        raise ConfigurationError("--head must be hexadecimal") from None
    with _open(run) as opened:
        rows = opened.verify(pinned)
        charges = sum(row.kind == "charge" for row in rows)
        pin = "the pinned row among them" if pinned is not None else "none was pinned: rows cut off the end go unseen"
        console.print(
            f"ledger intact: {len(rows)} rows, {charges} charges ({pin}); "
            f"epsilon spent {opened.spent():.4f} of {opened.budget.epsilon:g} at delta = {opened.budget.delta:g}",
            markup=False,
        )
