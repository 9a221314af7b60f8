"""The command line. One module per command:

``output``    progress and tables: a bar on a terminal, plain lines elsewhere
``run``       train as configured
``plan``      what a configuration will cost
``demo``      narrated protocols: ``demo_secagg``, ``demo_dp``
``privacy``   epsilon, calibrate, ledger
``selftest``  the vectors on the installed package
``pki``       certificates for parties
``bench``     the checkout's benchmarks
"""

from __future__ import annotations

from typing import Annotated

import typer

import securefl
from securefl.cli.bench import bench
from securefl.cli.demo import demo
from securefl.cli.pki import pki
from securefl.cli.plan import plan
from securefl.cli.privacy import calibrate, epsilon, ledger
from securefl.cli.run import run
from securefl.cli.selftest import selftest

__all__ = ["app"]

app = typer.Typer(
    name="securefl",
    help="Cryptographic privacy for federated learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # tracebacks with local variables could print secrets
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"securefl {securefl.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.command()(run)
app.command()(plan)
app.add_typer(demo, name="demo")
app.command()(epsilon)
app.command()(calibrate)
app.add_typer(ledger, name="ledger")
app.add_typer(pki, name="pki")
app.command()(selftest)
app.command()(bench)
