"""``securefl plan``: what a configuration will cost, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securefl.cli.output import bytes_text, console, print_table, write_json

__all__ = ["plan"]


def plan(
    config: Annotated[Path | None, typer.Argument(help="TOML file; none: the bundled run.", show_default=False)] = None,
    json: Annotated[
        str | None, typer.Option("--json", help="Also write the figures here; - is standard output.")
    ] = None,
) -> None:
    """Parameters, lanes, bytes per client and round under every protection, headroom, rounding error; no training.

    Refuses what cannot work, as ``securefl run`` would.
    """
    import dataclasses

    from securefl.fl.config import load
    from securefl.fl.plan import plan as make

    settings = load(config)
    made = make(settings)
    write_json({**dataclasses.asdict(made), "chain": list(settings.compression.chain)}, json)
    if json == "-":
        return
    console.print(
        f"{made.parameters} parameters, {made.clients} clients, at least {made.threshold} survivors, "
        f"chain {' + '.join(settings.compression.chain) or 'none'}, method {settings.protection.method}",
        markup=False,
    )
    rows = []
    for name, sums in (("first round", made.first), ("later rounds", made.sums)):
        for at, one in enumerate(sums, start=1):
            rows.append(
                (
                    f"{name}, sum {at}",
                    one.integers,
                    one.max_value,
                    one.lanes_per_word,
                    f"{one.bits_per_value:.2f}",
                    f"{one.headroom_bits:.2f}" if one.exact else "narrow",
                    bytes_text(one.vector_bytes),
                )
            )
    print_table(
        "sums", ("sum", "integers", "largest", "per word", "bits each", "headroom (bits)", "vector per client"), rows
    )
    float32 = 4 * made.parameters
    vectors = sum(one.vector_bytes for one in made.sums)
    rows_2 = [
        (name, bytes_text(up), bytes_text(made.download[name]), bytes_text(made.model_bytes))
        for name, up in made.upload.items()
    ]
    print_table("bytes per client and round", ("protection", "upload", "download", "and the model"), rows_2)
    console.print(
        f"the vector takes {float32 / vectors:.1f} times less than float32 ({bytes_text(float32)}); keys and shares do "
        "not grow with the model",
        markup=False,
    )
    console.print(
        f"rounding: a value of the mean errs by at most {made.rounding_error:.2g} (standard deviation), in units of "
        f"{made.rounding_unit}",
        markup=False,
    )
    if not all(one.exact for one in made.sums):
        console.print(
            "narrow lanes: sized by the last round's sums (here: a typical one); a sum beyond is detected and fails "
            "the round",
            markup=False,
        )
    if made.epsilon is None or settings.privacy is None:
        console.print("no differential privacy is configured: ε is not bounded", markup=False)
    else:
        console.print(
            f"ε = {made.epsilon:.3f} of {settings.privacy.epsilon:g} at δ = {settings.privacy.delta:g} after "
            f"{settings.training.rounds} rounds with the least survivors, noise multiplier {made.noise_multiplier:.3f}",
            markup=False,
        )
