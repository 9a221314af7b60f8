"""``securefl demo``: watch a protocol happen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securefl.errors import ConfigurationError

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
    key_model: Annotated[str, typer.Option(help="key_holder, shared_key or threshold.")] = "key_holder",
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
    from securefl.cli.demo_threshold import narrate_threshold
    from securefl.cli.output import write_json
    from securefl.fl.protections import THRESHOLD

    if key_model == THRESHOLD:
        if flooding or attack:
            raise ConfigurationError(
                "decryption shares of the threshold key model are always flooded and only integers are released: "
                "leave out --flooding and --attack"
            )
        write_json(narrate_threshold(clients, drop, values, quiet=json == "-"), json)
        return
    figures = narrate(clients, drop, values, key_model, flooding=flooding, attack=attack, quiet=json == "-")
    write_json(figures, json)


@demo.command()
def mpc(
    images: Annotated[int, typer.Option(help="How many test images are classified.")] = 100,
    epochs: Annotated[int, typer.Option(help="Training of the model in the clear, beforehand.")] = 10,
    engine: Annotated[
        str, typer.Option(help="dealer: two servers and a helper that deals masks; replicated: three servers.")
    ] = "dealer",
    processes: Annotated[bool, typer.Option(help="Three processes; otherwise three threads.")] = True,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
) -> None:
    """Private inference on digits: what each party held, in pictures, and the answers."""
    from securefl.cli.demo_mpc import narrate
    from securefl.cli.output import write_json

    write_json(narrate(images, epochs, engine=engine, processes=processes, quiet=json == "-"), json)


@demo.command()
def split(
    protect: Annotated[str, typer.Option(help="plain, quantized, noise, ckks or shared.")] = "ckks",
    series: Annotated[bool, typer.Option("--series", help="Synthetic series instead of digits.")] = False,
    rounds: Annotated[int, typer.Option(help="Rounds of training before the attack.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Folder for split.html, with the pictures.")] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
) -> None:
    """Split learning: one batch, and what the server rebuilds from plain, noised and protected activations."""
    from securefl.cli.demo_split import narrate
    from securefl.cli.output import write_json

    write_json(narrate(protect, series, rounds, out, quiet=json == "-"), json)
