"""Private inference, narrated: who holds a model and an image, what each party held, in pictures, and the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from securefl.cli.output import bytes_text, console, print_table
from securefl.errors import ConfigurationError
from securefl.mpc.fixed import FRACTION, decode

if TYPE_CHECKING:
    import torch

    from securefl.cluster.importing import Imported

__all__ = ["narrate"]

_SHADES = " ░▒▓█"
_ONE = 1 << FRACTION
Say = Callable[[str], None]
#: What one party wrote down: words by name.
Seen = dict[str, Any]

_WHO: Final[Mapping[str, Sequence[str]]] = {
    "dealer": (
        "each sends server 0 and server 1 one share. The helper gets no share of anything; it deals masks.",
    ),
    "replicated": (
        "each makes three components, which add up to the value, two of them streams of fresh keys. Party 0 is sent",
        "components 0 and 1, party 1 gets 1 and 2, party 2 gets 2 and 0. There is no dealer; all three compute.",
    ),
}  # fmt: skip


def picture(values: Any, low: float, high: float) -> list[str]:
    """An 8 × 8 image as lines of text, two characters a pixel."""
    steps = np.clip((np.asarray(values, float).reshape(8, 8) - low) / (high - low) * len(_SHADES), 0, len(_SHADES) - 1)
    return ["".join(_SHADES[int(step)] * 2 for step in line) for line in steps]


def beside(titles: Sequence[str], pictures: Sequence[Sequence[str]]) -> list[str]:
    width = max(18, *(len(title) + 2 for title in titles))
    lines = ["".join(title.ljust(width) for title in titles)]
    lines += ["".join(line.ljust(width) for line in row) for row in zip(*pictures, strict=True)]
    return lines


def _words(words: Any) -> list[str]:
    """Ring elements as a picture: their lowest bits, where values from 0 to 1 are."""
    return picture(words % _ONE, 0, _ONE)


def _trained(epochs: int) -> tuple[torch.nn.Module, Any]:
    """A small network that was trained on digits in the clear, and the test set."""
    import torch
    from torch import nn

    from securefl.fl.data import load
    from securefl.fl.seeds import SeedTree

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
    return net, test


def _watched(imported: Imported, image: Any, engine: str) -> tuple[Any, list[Seen]]:
    """One inference by three threads: the logits, and what each party held of the image."""
    from securefl.cluster.threads import run_parties
    from securefl.mpc.network import Network
    from securefl.mpc.operations import reveal, share
    from securefl.mpc.party import Party

    seen: list[Seen] = [{}, {}, {}]

    def program(party: Party) -> Any:
        mine = share(party, 0, (1, 64), image if party.me == 0 else None)  # the owner stands at party 0's side here
        weights = {
            name: share(party, 1, value.shape, value if party.me == 1 else None)
            for name, value in imported.parameters.items()
        }
        output = Network(imported.graph, weights).forward(mine)
        seen[party.me] = {"part": mine.part, "second": mine.second}
        if mine.opened is not None:
            seen[party.me] |= {"opened": mine.opened.m, "mask": mine.opened.mask}
        words = reveal(output)
        return None if words is None else decode(words, output.fraction)

    return run_parties(program, engine=engine)[0][0], seen


def _show_dealer(image: Any, seen: Sequence[Seen], say: Say) -> Any:
    """The parts of two servers, what they saw opened, and the helper's mask. Gives the sum of the parts."""
    if any("opened" not in party for party in seen):
        raise ConfigurationError("the input was not opened under its mask")
    titles = ["the image", "server 0's share", "server 1's share", "opened: image + mask", "the helper: the mask"]
    held = [seen[0]["part"], seen[1]["part"], seen[0]["opened"], seen[2]["mask"]]
    for line in beside(titles, [picture(image, 0, 1), *map(_words, held)]):
        say(line)
    say("")
    total = seen[0]["part"] + seen[1]["part"]
    say(f"Shares added: the image, to {_distance(total, image):.1e}. Any one alone: uniform words.")
    say("Both servers see image + mask, the helper knows the mask; only two of them together would see the image.")
    return total


def _show_replicated(image: Any, seen: Sequence[Seen], say: Say) -> Any:
    """The three components, and the most that a party can make of its two. Gives the sum of the components."""
    components = [party["part"] for party in seen]
    for me, party in enumerate(seen):
        if not np.array_equal(party["second"], components[(me + 1) % 3]):
            raise ConfigurationError(f"party {me} does not hold the component that party {(me + 1) % 3} has")
    titles = ["the image", "component 0", "component 1", "component 2"]
    for line in beside(titles, [picture(image, 0, 1), *map(_words, components)]):
        say(line)
    say("")
    total = components[0] + components[1] + components[2]
    titles = ["any two parties", "party 0: 0 + 1", "party 1: 1 + 2", "party 2: 2 + 0"]
    held = [party["part"] + party["second"] for party in seen]
    for line in beside(titles, [picture(decode(total, FRACTION), 0, 1), *map(_words, held)]):
        say(line)
    say("")
    say(f"All three added: the image, to {_distance(total, image):.1e}. The two of one party: uniform words, and")
    say("so is their sum, the image less the third. Any two parties hold all three: together they see the image.")
    return total


def _distance(words: Any, image: Any) -> float:
    return float(np.abs(decode(words, FRACTION) - image).max())


def narrate(images: int, epochs: int, *, engine: str = "dealer", processes: bool, quiet: bool) -> dict[str, Any]:
    """Train a small network on digits in the clear, share it, and let three parties classify test images.

    Raises :class:`ConfigurationError` when the numbers cannot work or for an engine that there is not,
    :class:`MissingExtraError` without torch.
    """
    if images < 1 or epochs < 1:
        raise ConfigurationError("--images and --epochs must be at least 1")
    if engine not in _WHO:
        raise ConfigurationError(f"--engine is {' or '.join(_WHO)}, not {engine!r}")
    net, test = _trained(epochs)
    import torch

    from securefl.cluster.importing import import_module
    from securefl.cluster.local import local_cluster

    def say(line: str = "") -> None:
        if not quiet:
            console.print(line, markup=False)

    images = min(images, len(test.targets))
    queries = torch.from_numpy(test.inputs[:images]) / 8
    say("The hospital has a model (64-32-10, trained on digits), the patient an image. Neither shows it to anybody:")
    for line in _WHO[engine]:
        say(line)
    say(f"Below, of each 64-bit word the {FRACTION} bits behind the point, where an image from 0 to 1 is:")
    say()
    image = queries[:1].double().numpy()
    logits, seen = _watched(import_module(net), image, engine)
    total = (_show_dealer if engine == "dealer" else _show_replicated)(image, seen, say)
    say()
    clear = net(queries[:1]).detach().numpy()[0]
    say(f"The patient gets the logits; largest difference from float: {np.abs(logits - clear).max():.1e}")
    say(f"class {int(np.argmax(logits))}, truth {int(test.targets[0])}")
    say()

    with local_cluster(engine=engine, parties="processes" if processes else "threads") as servers:
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
        "engine": engine,
        "images": images,
        "agree": agree,
        "correct": correct,
        "largest_error": error,
        "shares_error": _distance(total, image),
        "milliseconds": cost.milliseconds,
        "rounds": cost.rounds,
        "bytes": {f"{a}>{b}": count for (a, b), count in sorted(cost.sent.items())},
    }
