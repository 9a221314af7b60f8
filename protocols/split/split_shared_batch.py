"""Mode shared as a vector and as a transcript: one batch, message by message, made by split_shared_ref."""

from __future__ import annotations

import hashlib
from typing import Any

from split_naming import draw
from split_ref import Refused
from split_shared_ref import Batch, Rules

SHARED = {
    "two-examples": {
        "weight": [[0.5, 2.0], [-1.0, 0.25], [0.125, -3.0]],
        "bias": [0.125, -0.5],
        "activations": [[1.0, 2.0, -0.5], [-0.5, 4.0, 8.0]],
        "gradient": [[0.25, -0.25], [-1.0, 0.5]],
        "rate": 0.05,
        "examples": 2,
    },
    "one-example": {
        "weight": [[-60.0], [0.0001]],
        "bias": [1.5],
        "activations": [[-64.0, 64.0]],
        "gradient": [[16.0]],
        "rate": 0.5,
        "examples": 1,
    },
}
SHARED_FAULTS = (
    ("again", "a pass is gone back through a second time", "DecodeError"),
    ("stale", "a step, then backward through a pass that was forward before it", "LocalProtocolError"),
    ("early", "a step before any gradient", "LocalProtocolError"),
    ("shape", "the gradient of one example for a pass of two", "InvalidInputError"),
    ("rate", "a step at a rate of 0", "DecodeError"),
)
NAMES = {0: "server 0", 1: "server 1", 2: "helper", 3: "client"}


def shared_run(name: str, given: dict[str, Any]) -> tuple[Batch, dict[str, list[int]]]:
    pairs = ((0, 2), (1, 2), (0, 1))
    secrets = {pair: draw(f"{name} secret {pair[0]} {pair[1]}", 32) for pair in pairs}
    batch = Batch(secrets, draw(f"{name} session", 16), [draw(f"{name} put {at}", 32) for at in range(4)])
    found = batch.run(*(given[key] for key in ("weight", "bias", "activations", "gradient", "rate", "examples")))
    check_shared(given, found)
    return batch, found


def check_shared_fault(fault: str, error: str) -> None:
    rules = Rules(2)
    steps = {
        "again": [("forward", 5), ("backward", 5, 2), ("backward", 5, 2)],
        "stale": [("forward", 5), ("forward", 8), ("backward", 5, 2), ("step", 0.05), ("backward", 8, 2)],
        "early": [("forward", 5), ("step", 0.05)],
        "shape": [("forward", 5), ("backward", 5, 1)],
        "rate": [("forward", 5), ("backward", 5, 2), ("step", 0.0)],
    }[fault]
    for name, *arguments in steps[:-1]:
        getattr(rules, name)(*arguments)
    try:
        getattr(rules, steps[-1][0])(*steps[-1][1:])
    except Refused as refused:
        if str(refused) == error:
            return
    raise AssertionError(fault)


def check_shared(given: dict[str, Any], found: dict[str, list[int]]) -> None:
    """The reference against real numbers."""

    def real(words: list[int], places: int) -> list[float]:
        return [(word - 2**64 if word >= 2**63 else word) / 2**places for word in words]

    w, b, a, dz = (given[key] for key in ("weight", "bias", "activations", "gradient"))
    z = [sum(x * r[o] for x, r in zip(row, w, strict=True)) + b[o] for row in a for o in range(len(b))]
    da = [sum(d * v for d, v in zip(row, r, strict=True)) for row in dz for r in w]
    factor = given["rate"] / given["examples"]
    new_b = [b[o] - factor * sum(row[o] for row in dz) for o in range(len(b))]
    new_w = [
        w[f][o] - factor * sum(x[f] * d[o] for x, d in zip(a, dz, strict=True))
        for f in range(len(w))
        for o in range(len(b))
    ]
    for key, exact, places, near in (
        ("outputs", z, 33, 2e-2),  # weights off the grid, times 64
        ("input_gradient", da, 16, 1e-3),
        ("bias", new_b, 16, 2e-2),  # a factor of 12 bits
        ("weight", new_w, 16, 2e-1),
    ):
        for got, want in zip(real(found[key], places), exact, strict=True):
            if abs(got - want) > near:
                raise AssertionError((key, got, want))


def hexadecimal(value: Any) -> Any:
    return [hexadecimal(each) for each in value] if isinstance(value, list) else value.hex()


def shared() -> dict[str, Any]:
    tests = []
    for name, given in SHARED.items():
        batch, found = shared_run(name, given)
        messages: dict[str, list[str]] = {}
        for _, sender, to, message in batch.log:
            messages.setdefault(f"{sender}>{to}", []).append(hashlib.sha256(message).hexdigest())
        expected = {"messages": messages, **{key: [str(word) for word in words] for key, words in found.items()}}
        written = {key: value if key == "examples" else hexadecimal(value) for key, value in given.items()}
        tests.append({"id": name, "comment": "forward, backward, step", "input": written, "expected": expected})
    base = tests[0]["input"]
    for fault, comment, error in SHARED_FAULTS:
        check_shared_fault(fault, error)
        tests.append(
            {
                "id": fault,
                "comment": comment,
                "derived_from": "shared.json#two-examples",
                "input": {**base, "fault": fault},
                "error": {"type": error},
            }
        )
    return {
        "spec": "protocols/split/SPEC.md §8",
        "description": (
            "One batch of the mode shared through z = a W + b. Secrets of pairs, session and keys of what is put are "
            "expanded from the test's id as split_vectors.py writes. expected.messages: for every link, SHA-256 of "
            "each message in order; 3 is the client, whose messages are the command's text and its bytes, and answers "
            "are given without their status. Results are ring elements: outputs with 33 binary places, all others with "
            "16. With error: the command that input.fault names is refused by every party."
        ),
        "groups": [{"operation": "shared", "params": {}, "tests": tests}],
    }


def shared_story() -> str:
    given = SHARED["two-examples"]
    batch, _ = shared_run("two-examples", given)
    what = {
        "weight": "the body's weights in shares",
        "bias": "the body's bias in shares",
        "model": "the graph, with each layer's gain",
        "activations": "a in shares: a key, or the rest",
        "forward": "a and W under masks",
        "outputs": "shares of z = a W + b",
        "gradient": "dz in shares",
        "backward": "dz under a mask; δ at the input, truncated",
        "input gradient": "shares of da",
        "step": "dW and db, truncated twice, on shares",
    }
    lines = [
        "# One batch of split learning over secret shares",
        "",
        "<!-- made by protocols/generate.py: do not edit -->",
        "",
        "Mode shared, F = 3, O = 2, two examples, one step; the test `two-examples` of `vectors/shared.json`. What the",
        "client sends is a command with its bytes; party 2 is the helper. Nothing goes to it but commands.",
        "",
        "| # | from | to | part of | bytes | what it is about |",
        "|---|---|---|---|---|---|",
    ]
    for at, (name, sender, to, message) in enumerate(batch.log):
        lines.append(f"| {at} | {NAMES[sender]} | {NAMES[to]} | {name} | {len(message)} | {what[name]} |")
    return "\n".join(lines) + "\n"
