"""``securefl pki``: an authority of one's own and certificates for parties."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securefl.cli.output import console

__all__ = ["pki"]

pki = typer.Typer(no_args_is_help=True, help="Certificates for mutual TLS between parties.")


@pki.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write ca.pem and ca.key.")],
    days: Annotated[int, typer.Option(help="Validity of the authority.")] = 3650,
) -> None:
    """Make an authority. ca.pem goes to every party, ca.key stays with whoever issues."""
    from securefl.transport.tls import pki as make

    made = make.init(folder, days=days)
    console.print(
        f"authority: {made}; its key is in {folder / 'ca.key'}: keep it off the parties' machines", markup=False
    )


@pki.command()
def issue(
    folder: Annotated[Path, typer.Argument(help="Folder of the authority.")],
    names: Annotated[list[str], typer.Argument(help="The parties' names: a-z, 0-9 and inner hyphens.")],
    days: Annotated[int, typer.Option(help="Validity of the certificates.")] = 90,
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: the authority's.")] = None,
) -> None:
    """Make a key and a certificate for each party; existing files are not overwritten."""
    from securefl.transport.tls import pki as make

    for name in names:
        made = make.issue(folder, name, days=days, out=out)
        console.print(f"{name}: {made.certificate} and {made.key}, valid for {days} days", markup=False)
