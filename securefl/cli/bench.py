"""``securefl bench``: the benchmarks of a checkout; they are not part of the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

import securefl
from securefl.cli.output import console
from securefl.errors import ConfigurationError

__all__ = ["bench"]


def bench(
    name: Annotated[str | None, typer.Argument(help="Which one; none: list them.", show_default=False)] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller sizes and fewer repetitions: a check, not a figure.")
    ] = False,
) -> None:
    """Measure on this machine; peers are measured beside it where they are installed."""
    folder = Path(securefl.__file__).parent.parent / "benchmarks"
    known = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    if not known:
        raise ConfigurationError("benchmarks come with a checkout of the repository, not with the installed package")
    if name is None:
        for each in known:
            console.print(each, markup=False)
        return
    if name not in known:
        raise ConfigurationError(f"there is no benchmark {name!r}; there are {', '.join(known)}")
    target = json if json in (None, "-") else str(Path(json).resolve())
    arguments = ["--quick"] * quick + (["--json", target] if target else [])
    raise typer.Exit(subprocess.call([sys.executable, str(folder / f"{name}.py"), *arguments], cwd=folder.parent))  # noqa: S603
