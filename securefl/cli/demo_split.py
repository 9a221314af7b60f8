"""Split learning, narrated: one batch frame by frame, and what the server can rebuild in each mode."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securefl.cli.output import bytes_text, console, print_table
from securefl.errors import ConfigurationError
from securefl.fl.config import Config, parse
from securefl.fl.seeds import SeedTree
from securefl.split.leakage import decode, leakage_of
from securefl.split.messages import (
    ACTIVATIONS,
    GRADIENT,
    INPUT_GRADIENT,
    LABELLED,
    OUTPUTS,
    PROBE,
    SETUP,
    WEIGHT_GRADIENT,
)
from securefl.split.runner import default_cut, settings_of, workload_of
from securefl.split.shared import SharedHost
from securefl.split.training import SplitTraining
from securefl.types import ClientId

__all__ = ["narrate"]

_NAMES = {
    SETUP: "set-up (public key)",
    ACTIVATIONS: "activations",
    LABELLED: "activations and labels",
    PROBE: "activations, to predict",
    OUTPUTS: "outputs of the body",
    GRADIENT: "gradient at the outputs",
    INPUT_GRADIENT: "gradient at the activations",
    WEIGHT_GRADIENT: "weight gradient, clipped and noised",
}
_GREYS = " .:-=+*#%@"
_SHOWN = 4


def narrate(protect: str, series: bool, rounds: int, out: Path | None, *, quiet: bool) -> dict[str, Any]:
    """Train a small model under ``protect``, and under the modes it is compared with; attack each server's view.

    ``out``: a folder for ``split.html``, with the pictures. Raises :class:`ConfigurationError`.
    """
    if rounds < 1:
        raise ConfigurationError("the demo needs at least one round")

    def say(line: str) -> None:
        if not quiet:
            console.print(line, markup=False)

    modes = list(dict.fromkeys(("plain", "noise", protect)))
    figures: dict[str, dict[str, Any]] = {}
    pictures: dict[str, NDArray[np.float32]] = {}
    inputs: NDArray[np.float32] | None = None
    for mode in modes:
        frames: list[tuple[bool, int, int]] = []

        def watch(client: ClientId, up: bool, frame: bytes, frames: list[tuple[bool, int, int]] = frames) -> None:
            if client == 1 and len(frames) < 5:
                frames.append((up, frame[2], len(frame)))

        training, test = _training(_config(mode, series, rounds), watch)
        shared: list[str] = []
        with training, tempfile.TemporaryDirectory() as folder:
            if training.privacy is not None:
                training.privacy.open(Path(folder) / "ledger.sqlite", "demo")
            *_, last = training.rounds()
            if training.privacy is not None:
                training.privacy.ledger.close()
            view, gradients = training.server_views(test)
            if training.host is not None:
                shared = _one_batch(training.host, training.features, training.outputs)
        found = leakage_of(view, gradients, test, SeedTree(0).child("leakage"))
        flat = test.inputs.reshape(len(test), -1).astype(np.float64)
        _, guesses = decode(view[_SHOWN:], flat[_SHOWN:], view[:_SHOWN], SeedTree(0).child("pictures"))
        inputs = test.inputs[:_SHOWN]
        pictures[mode] = guesses.astype(np.float32).reshape(inputs.shape)
        figures[mode] = {
            "accuracy": last.accuracy,
            "epsilon": last.epsilon,
            "up_bytes_per_example": last.up,
            "down_bytes_per_example": last.down,
            "reconstruction": found.reconstruction,
            "distance_correlation": found.distance_correlation,
            "label_auc": found.label_auc,
        }
        if mode == protect:
            say(f"split learning on {test.name}, protect = {mode}: {training.statement}")
            for line in shared:
                say(line)
            if frames:
                say(f"client 1's first batch of {training.settings.batch_size} examples at most:")
            for up, kind, size in frames:
                say(f"  {'client → server' if up else 'server → client'}  {_NAMES[kind]:30} {bytes_text(size)}")
            if training.mode.hides_gradients:
                say(f"the body's gradient reaches the server {training.settings.releases}: never one client's as it is")
    if inputs is None:
        raise ConfigurationError("the demo has no modes to show")
    if not quiet:
        _show(inputs, pictures, figures)
    page = None if out is None else _page(out, inputs, pictures)
    if page is not None:
        say(f"pictures: {page}")
    return {"protect": protect, "rounds": rounds, "modes": figures, "page": None if page is None else str(page)}


def _one_batch(host: SharedHost, features: int, outputs: int) -> list[str]:
    """One more batch through the parties, counted; no step is made with it."""
    batch, middle = host.mode.max_batch, host.middle()
    host.servers.cost()
    middle.outputs(np.zeros((batch, features), np.float32), train=True)
    forward = middle.traffic.up, middle.traffic.down
    middle.input_gradient(np.zeros((batch, outputs), np.float32))
    up, down = middle.traffic.up - forward[0], middle.traffic.down - forward[1]
    cost = host.servers.cost()
    between = sum(cost.sent.values())
    return [
        f"one batch of {batch} examples, with the commands that go with it:",
        f"  client → parties  {'activations in shares':30} {bytes_text(forward[0])}",
        f"  parties → client  {'outputs in shares':30} {bytes_text(forward[1])}",
        f"  client → parties  {'gradient in shares':30} {bytes_text(up)}",
        f"  parties → client  {'gradient at the activations':30} {bytes_text(down)}",
        f"  among the parties {'masked openings and deals':30} {bytes_text(between)} in {cost.rounds} rounds",
        "the weight gradient is added up on shares and never opened; neither are the weights",
    ]


def _config(mode: str, series: bool, rounds: int) -> Config:
    split: dict[str, Any] = {"protect": mode, "series": series}
    if mode == "ckks":
        split["ciphertexts"] = "compact"
    return parse(
        {
            "data": {"clients": 3, "partition": "iid"},
            "training": {"rounds": rounds, "batch_size": 64, "learning_rate": 0.1},
            "protection": {"suite": "x25519"},
            "split": split,
        }
    )


def _training(config: Config, watch: Any) -> tuple[SplitTraining, Any]:
    if config.split is None:
        raise ConfigurationError("this configuration has no [split] section")
    seeds = SeedTree(0)
    model, clients, test = workload_of(config, config.split, seeds)
    parts = default_cut(model, None, None, labels_at_server=False)
    settings = settings_of(config, config.split)
    return SplitTraining(parts, clients, test, settings, seeds.child("split"), suite="x25519", observe=watch), test


def _show(inputs: NDArray[np.float32], pictures: dict[str, NDArray[np.float32]], figures: dict[str, Any]) -> None:
    side = round(float(np.sqrt(inputs[0].size)))
    if side * side == inputs[0].size:
        for title, values in {"input": inputs, **{f"rebuilt from {m}": p for m, p in pictures.items()}}.items():
            console.print(title, markup=False)
            for row in range(side):
                line = "   ".join(_line(each.reshape(side, side)[row], inputs) for each in values)
                console.print("  " + line, markup=False)
    print_table(
        "what a decoder trained on leaked pairs makes of the server's view",
        ("mode", "accuracy", "up/example", "inputs rebuilt", "distance corr.", "label AUC"),
        [
            (
                mode,
                f"{row['accuracy']:.3f}",
                bytes_text(row["up_bytes_per_example"]),
                *(f"{row[key]:.3f}" for key in ("reconstruction", "distance_correlation", "label_auc")),
            )
            for mode, row in figures.items()
        ],
    )


def _line(values: NDArray[np.float32], reference: NDArray[np.float32]) -> str:
    low, high = float(reference.min()), float(reference.max())
    steps = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * (len(_GREYS) - 1)
    return "".join(2 * _GREYS[round(float(step))] for step in steps)


def _page(out: Path, inputs: NDArray[np.float32], pictures: dict[str, NDArray[np.float32]]) -> Path:
    from securefl.audit.split_figures import reconstructions

    picture = reconstructions(inputs, {f"rebuilt from\n{mode}": values for mode, values in pictures.items()})
    try:
        out.mkdir(parents=True, exist_ok=True)
        page = out / "split.html"
        text = "<!doctype html><meta charset='utf-8'><title>securefl demo split</title>" + picture
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write to {out}: {error.strerror}") from None
    return page
