"""What the commands print: a progress bar on a terminal, plain lines elsewhere; JSON to a file or to ``-``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from securefl.errors import ConfigurationError

__all__ = ["Steps", "bytes_text", "console", "print_table", "steps", "write_json"]

console = Console(soft_wrap=True, highlight=False)


class Steps:
    """Counts steps; :meth:`done` takes a line that says what the step gave."""

    def __init__(self, total: int, done: int, progress: Progress | None, show: bool) -> None:
        self._progress = progress
        self._show = show
        self._total = total
        self._count = done
        self._task = progress.add_task("", total=total, completed=done) if progress is not None else None

    def done(self, line: str) -> None:
        self._count += 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._count, description=line)
        elif self._show:
            console.print(f"[{self._count}/{self._total}] {line}", markup=False)


@contextmanager
def steps(total: int, *, done: int = 0, show: bool = True) -> Iterator[Steps]:
    """A bar on a terminal, one plain line per step elsewhere. ``done`` steps are behind already."""
    if not (show and console.is_terminal):
        yield Steps(total, done, None, show)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        yield Steps(total, done, progress, show)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table whose first column is text and whose others are figures."""
    table = Table(title=title, title_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def bytes_text(count: float) -> str:
    """Bytes with a unit: 512 B, 2.7 kB, 1.3 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def write_json(report: dict[str, Any], target: str | None) -> None:
    """Write to ``target``, or to standard output for ``-``. Raises ConfigurationError when it cannot be written."""
    if target is None:
        return
    text = json.dumps(report, indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    try:
        Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {target}: {error.strerror}") from None
