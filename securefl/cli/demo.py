"""``securefl demo``: watch a protocol happen."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["demo"]

demo = typer.Typer(
    help="Watch a protocol happen: who sends what to whom, and what each role sees.", no_args_is_help=True
)


@demo.callback()
def _root() -> None:
    pass


@demo.command()
def secagg(
    clients: Annotated[int, typer.Option(help="How many clients.")] = 8,
    drop: Annotated[int, typer.Option(help="How many of them fall silent after sharing their keys.")] = 2,
    values: Annotated[int, typer.Option(help="Values per update.")] = 1000,
    suite: Annotated[str, typer.Option(help="mlkem768-x25519 or x25519.")] = "mlkem768-x25519",
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
) -> None:
    """The masked sum: four exchanges, with the bytes, and what the server saw."""
    from securefl.cli.demo_secagg import narrate
    from securefl.cli.output import write_json

    write_json(narrate(clients, drop, values, suite, quiet=json == "-"), json)


@demo.command()
def dp(
    clients: Annotated[int, typer.Option(help="How many clients.")] = 10,
    drop: Annotated[int, typer.Option(help="How many fall silent in every round.")] = 1,
    values: Annotated[int, typer.Option(help="Values per update.")] = 200,
    noise_multiplier: Annotated[float, typer.Option(help="Noise stddev of the sum over the clip norm.")] = 4.0,
    rounds: Annotated[int, typer.Option(help="Rounds that the budget is made for.")] = 5,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
) -> None:
    """Distributed noise: each client adds its share, the ledger charges, the budget ends the run."""
    from securefl.cli.demo_dp import narrate
    from securefl.cli.output import write_json

    write_json(narrate(clients, drop, values, noise_multiplier, rounds, quiet=json == "-"), json)


@demo.command()
def ckks(
    clients: Annotated[int, typer.Option(help="How many clients.")] = 10,
    drop: Annotated[int, typer.Option(help="How many of them never send their vector.")] = 1,
    values: Annotated[int, typer.Option(help="Values per update.")] = 20_000,
    key_model: Annotated[str, typer.Option(help="key_holder or shared_key.")] = "key_holder",
    flooding: Annotated[bool, typer.Option("--flooding", help="Drown the noise of the sum before it is read.")] = False,
    attack: Annotated[
        bool, typer.Option("--attack", help="Also try to recover the secret key: on the usual TenSEAL path, and here.")
    ] = False,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
) -> None:
    """Encrypted sums: who holds which key, the messages with their bytes, and what key recovery gets."""
    from securefl.cli.demo_ckks import narrate
    from securefl.cli.output import write_json

    figures = narrate(clients, drop, values, key_model, flooding=flooding, attack=attack, quiet=json == "-")
    write_json(figures, json)
