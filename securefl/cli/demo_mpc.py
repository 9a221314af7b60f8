"""Private inference, narrated: who holds a model and an image, what each party held, in pictures, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from securefl.cli.output import bytes_text, console, print_table
from securefl.errors import ConfigurationError

__all__ = ["narrate"]

_SHADES = " ░▒▓█"


def picture(values: Any, low: float, high: float) -> list[str]:
    """An 8 × 8 image as lines of text, two characters a pixel."""
    steps = np.clip((np.asarray(values, float).reshape(8, 8) - low) / (high - low) * len(_SHADES), 0, len(_SHADES) - 1)
    return ["".join(_SHADES[int(step)] * 2 for step in line) for line in steps]


def beside(titles: Sequence[str], pictures: Sequence[Sequence[str]]) -> list[str]:
    width = max(18, *(len(title) + 2 for title in titles))
    lines = ["".join(title.ljust(width) for title in titles)]
    lines += ["".join(line.ljust(width) for line in row) for row in zip(*pictures, strict=True)]
    return lines


def narrate(images: int, epochs: int, *, processes: bool, quiet: bool) -> dict[str, Any]:
    """Train a small network on digits in the clear, share it, and let three parties classify test images.

    Raises :class:`ConfigurationError` when the numbers cannot work, :class:`MissingExtraError` without torch.
    """
    if images < 1 or epochs < 1:
        raise ConfigurationError("--images and --epochs must be at least 1")
    import torch
    from torch import nn

    from securefl.cluster.importing import import_module
    from securefl.cluster.local import local_cluster
    from securefl.cluster.threads import run_parties
    from securefl.fl.data import load
    from securefl.fl.seeds import SeedTree
    from securefl.mpc.fixed import decode
    from securefl.mpc.network import Network
    from securefl.mpc.operations import reveal, share
    from securefl.mpc.party import Party

    def say(line: str = "") -> None:
        if not quiet:
            console.print(line, markup=False)

    train, test = load("digits", SeedTree(0))
    x, y = torch.from_numpy(train.inputs) / 8, torch.from_numpy(train.targets)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(x)), 64):
            optimizer.zero_grad()
            torch.autograd.backward([nn.functional.cross_entropy(net(x[rows]), y[rows])])
            optimizer.step()
    images = min(images, len(test.targets))
    queries = torch.from_numpy(test.inputs[:images]) / 8

    say("The hospital has a model (64-32-10, trained on digits), the patient an image. Neither shows it to anybody:")
    say("each sends server 0 and server 1 one share. The helper gets no share of anything; it deals masks.")
    say()

    imported = import_module(net)
    seen: list[dict[str, Any]] = [{}, {}, {}]

    def program(party: Party) -> Any:
        """One image, with what this party held written down."""
        first = queries[:1].double().numpy()
        mine = share(party, 0, (1, 64), first if party.me == 0 else None)  # the owner stands at server 0's side here
        weights = {
            name: share(party, 1, value.shape, value if party.me == 1 else None)
            for name, value in imported.parameters.items()
        }
        output = Network(imported.graph, weights).forward(mine)
        if mine.opened is None:
            raise ConfigurationError("the input was not opened under its mask")
        seen[party.me] = {"part": mine.part, "opened": mine.opened.m, "mask": mine.opened.mask}
        words = reveal(output)
        return None if words is None else decode(words, output.fraction)

    logits = run_parties(program)[0][0]
    word = 2.0**64
    pictures = [
        picture(queries[0].numpy(), 0, 1),
        picture(seen[0]["part"].astype(float), 0, word),
        picture(seen[1]["part"].astype(float), 0, word),
        picture(seen[0]["opened"].astype(float), 0, word),
        picture(seen[2]["mask"].astype(float), 0, word),
    ]
    titles = ["the image", "server 0's share", "server 1's share", "opened: image + mask", "the helper: the mask"]
    for line in beside(titles, pictures):
        say(line)
    say()
    total = (seen[0]["part"] + seen[1]["part"]).view(np.int64) * 2.0**-16
    say(f"Shares added: the image, to {np.abs(total - queries[0].numpy()).max():.1e}. Any one alone: uniform words.")
    say("Both servers see image + mask, the helper knows the mask; only two of them together would see the image.")
    say()
    clear = net(queries[:1]).detach().numpy()[0]
    say(f"The patient gets the logits; largest difference from float: {np.abs(logits - clear).max():.1e}")
    say(f"class {int(np.argmax(logits))}, truth {int(test.targets[0])}")
    say()

    with local_cluster(parties="processes" if processes else "threads") as servers:
        model = servers.share(net, limit=1.0)
        shared = servers.share(queries)
        servers.cost()
        answers = model(shared).reveal()
        cost = servers.cost()
    plain = net(queries).detach()
    agree = int((answers.argmax(1) == plain.argmax(1)).sum())
    correct = int((answers.argmax(1).numpy() == test.targets[:images]).sum())
    error = float((answers - plain).abs().max())
    kind = "three processes" if processes else "three threads"
    if not quiet:
        traffic = [[f"party {a} → party {b}", bytes_text(count)] for (a, b), count in sorted(cost.sent.items())]
        print_table(
            f"{images} images by {kind}: {cost.milliseconds:.1f} ms, {cost.rounds} rounds", ["link", "bytes"], traffic
        )
        say(f"{agree} of {images} answers are those of the clear model, {correct} are right; largest error {error:.1e}")
    return {
        "images": images,
        "agree": agree,
        "correct": correct,
        "largest_error": error,
        "milliseconds": cost.milliseconds,
        "rounds": cost.rounds,
        "bytes": {f"{a}>{b}": count for (a, b), count in sorted(cost.sent.items())},
    }
