"""``securefl split``: one client and the server as two processes over mutual TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securefl.cli.output import bytes_text, console
from securefl.errors import ConfigurationError

__all__ = ["split"]

split = typer.Typer(help="Split learning between two processes over mutual TLS.", no_args_is_help=True)

_Config = Annotated[Path, typer.Argument(help="TOML file with [split]; the same for both sides.", show_default=False)]
_Folder = Annotated[Path, typer.Option(help="Folder of ca.pem, NAME.pem and NAME.key (securefl pki).")]
_Client = Annotated[int, typer.Option(help="Which client of the configuration.")]


@split.command()
def serve(
    config: _Config,
    listen: Annotated[str, typer.Option(help="host:port; port 0 takes a free one.")] = "127.0.0.1:0",
    credentials: _Folder = Path("pki"),
    name: Annotated[str, typer.Option(help="This party's name in its certificate.")] = "server",
    peer: Annotated[str, typer.Option(help="The client's name in its certificate.")] = "client",
    client: _Client = 1,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the client.")] = 60.0,
) -> None:
    """Hold the body and answer one client until it leaves."""
    from securefl.fl.config import load
    from securefl.split.remote import Session, refuse_shared
    from securefl.split.remote import serve as answer
    from securefl.transport.tls import Credentials, Listener, parse_address
    from securefl.types import PartyId

    session = Session.of(load(config), PartyId(client))
    refuse_shared(session)
    mine = Credentials.in_folder(credentials, name)
    with Listener(parse_address(listen), mine, [peer], context=session.context.hash) as listener:
        host, port = listener.address
        console.print(f"listening on {host}:{port}", markup=False)
        console.file.flush()
        link = listener.accept(wait)
    batches = answer(session, link)
    link.close()
    console.print(f"{batches} batches served; {bytes_text(link.received_bytes)} came in", markup=False)


@split.command()
def join(
    config: _Config,
    connect: Annotated[str | None, typer.Option(help="The server's host:port.", show_default=False)] = None,
    cluster: Annotated[
        Path | None, typer.Option(help="cluster.toml of the computing parties, for protect = 'shared'.")
    ] = None,
    credentials: _Folder = Path("pki"),
    name: Annotated[
        str | None,
        typer.Option(help="This party's name in its certificate; none: client, or the cluster's only one."),
    ] = None,
    peer: Annotated[str, typer.Option(help="The server's name in its certificate.")] = "server",
    client: _Client = 1,
    ledger: Annotated[Path | None, typer.Option(help="The privacy ledger's file, where one is needed.")] = None,
) -> None:
    """Hold the ends and the data, and train with the server, or with computing parties (--cluster)."""
    from securefl import mpc
    from securefl.cluster.servers import Servers
    from securefl.fl.config import load
    from securefl.split.remote import RemoteClient, Session
    from securefl.transport.tls import Credentials, Link, parse_address
    from securefl.transport.tls import connect as open_link
    from securefl.types import PartyId

    session = Session.of(load(config), PartyId(client))
    where: Link | Servers
    if (connect is None) == (cluster is None):
        raise ConfigurationError("say where the body is: --connect HOST:PORT, or --cluster FILE for protect = 'shared'")
    if cluster is not None:
        where = mpc.connect(cluster, name=name, wait=10.0)
    else:
        mine = Credentials.in_folder(credentials, name or "client")
        where = open_link(parse_address(str(connect)), mine, peer, context=session.context.hash, wait=10.0)
    remote = RemoteClient(session, where, ledger)
    for number, loss, epsilon in remote.rounds():
        spent = "" if epsilon is None else f", epsilon {epsilon:.3f}"
        console.print(f"round {number}: loss {loss:.4f}{spent}", markup=False)
    if session.settings.protect != "noise":  # there, each prediction would be one more release about a test example
        console.print(f"test accuracy {remote.accuracy():.4f}", markup=False)
    traffic = remote.learner.traffic
    where.close()
    console.print(f"{bytes_text(traffic.up)} sent, {bytes_text(traffic.down)} received", markup=False)
