"""``securefl party``: one computing party of an MPC session, over mutual TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securefl.cli.output import console

__all__ = ["party"]


def party(
    cluster: Annotated[Path, typer.Argument(help="The cluster file: parties, addresses, clients, certificates.")],
    name: Annotated[str, typer.Option(help="Which of its parties this is.")],
    sessions: Annotated[int | None, typer.Option(min=1, help="End after so many clients; default: never.")] = None,
) -> None:
    """Compute for the clients that the cluster file lists, as one of its three parties.

    Ends with a named error when another party is gone or gives up; a client that is gone ends its session only.
    """
    from securefl.cluster.process import calibrate, one_thread
    from securefl.cluster.remote import serve_party
    from securefl.cluster.roster import Roster

    roster = Roster.load(cluster)
    roster.credentials(name)  # what peers would refuse is refused here first
    calibrate()
    one_thread()
    serve_party(roster, name, sessions=sessions, tell=lambda line: console.print(line, markup=False))
