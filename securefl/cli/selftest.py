"""``securefl selftest``: every vector in protocols/ on the installed package."""

from __future__ import annotations

from typing import Annotated

import typer

from securefl.cli.output import console, write_json

__all__ = ["selftest"]


def selftest(
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the result here; - is standard output.")
    ] = None,
) -> None:
    """Run every known-answer vector in protocols/ on the installed package."""
    from securefl.audit import selftest as tests

    result = tests.run()
    if json != "-":
        for item in result.files:
            mark = "ok  " if item.failed == 0 else "FAIL"
            reason = f"  {item.first_failure}" if item.first_failure else ""
            console.print(f"{mark} {item.path}  {item.passed} passed, {item.failed} failed{reason}", markup=False)
        console.print(f"selftest: {result.passed} passed, {result.failed} failed", markup=False)
    write_json(result.as_dict(), json)
    if result.failed or not result.passed:
        raise typer.Exit(1)
