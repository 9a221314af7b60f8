"""A whole session as a vector and as a transcript: one private inference, made by inference_ref."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import inference_ref
import mpc_ref as ref
from mpc_naming import SESSION, expand, group

WEIGHTS = [[0.5, -1.0, 0.25, 2.0], [1.5, 0.5, -0.75, -0.25], [-0.5, 1.0, 1.25, 0.125]], [0.25, -0.5, 0.0, 1.0]
HEAD = [[1.0, -0.5], [0.25, 0.75], [-1.5, 0.5], [0.5, 0.125]], [-0.25, 0.5]
INPUT = [[0.5, -0.25, 1.0], [-1.0, 0.75, 0.125]]
LAYERS = [
    {"kind": "input", "inputs": [], "name": ""},
    {"kind": "linear", "inputs": [0], "name": "0", "parameters": ["0.weight", "0.bias"], "gain": 2, "offset": 0},
    {"kind": "relu", "inputs": [1], "name": "1"},
    {"kind": "linear", "inputs": [2], "name": "2", "parameters": ["2.weight", "2.bias"], "gain": 2, "offset": -1},
]


@cache
def session() -> dict[str, Any]:
    """A private inference: what was given, and every message in an order that the protocol allows."""
    pairs = ((0, 2), (1, 2), (0, 1))
    secrets = {pair: expand(f"inference/secret/{pair[0]}{pair[1]}", 32) for pair in pairs}
    play = inference_ref.Inference(SESSION, secrets)
    matrices = [WEIGHTS[0], [WEIGHTS[1]], HEAD[0], [HEAD[1]], INPUT]
    tensors, told = [], []
    for number, rows in enumerate(matrices, 1):
        flat = [value for row in rows for value in row]
        shape = (len(flat),) if len(rows) == 1 else (len(rows), len(rows[0]))
        tensor, commands = play.put(number, shape, flat, expand(f"inference/key/{number}", 32))
        tensors.append(tensor)
        told.append(commands)
    names = {"0.weight": 1, "0.bias": 2, "2.weight": 3, "2.bias": 4}
    model = inference_ref.command(do="model", id=6, graph=LAYERS, tensors=names)
    apply = inference_ref.command(do="apply", batch=1, fresh=False, model=6, input=5, output=7)
    get = inference_ref.command(do="get", batch=2, tensor=7)
    for party in range(3):
        commands = [put[party] for put in told] + [(model, b""), (apply, b"")]
        data = inference_ref.message(commands)
        play.sent.append((inference_ref.CLIENT, party, "five tensors, the network, the command to apply it", data))
    w0, b0, w1, b1, x = tensors
    result = play.apply(apply, x, [(w0, b0), (w1, b1)])
    for party in range(3):
        data = inference_ref.message([(get, b"")])
        play.sent.append((inference_ref.CLIENT, party, "the command to give the result", data))
    for party, data in enumerate(play.answers(get, result)):
        play.sent.append((party, inference_ref.CLIENT, "its masked part of the result", data))
    values = [ref.decode(word, 33) for word in result.value.total()]
    hidden = [
        [
            max(sum(a * w for a, w in zip(row, column, strict=True)) + b, 0)
            for column, b in zip(zip(*WEIGHTS[0], strict=True), WEIGHTS[1], strict=True)
        ]
        for row in INPUT
    ]
    exact = [
        sum(h * w for h, w in zip(row, column, strict=True)) + b
        for row in hidden
        for column, b in zip(zip(*HEAD[0], strict=True), HEAD[1], strict=True)
    ]
    assert max(abs(a - b) for a, b in zip(values, exact, strict=True)) < 1e-4, (values, exact)
    return {"secrets": secrets, "sent": play.sent, "values": values}


def transcript() -> str:
    return "".join(
        json.dumps({"from": sender, "to": to, "what": what, "message": data.hex()}) + "\n"
        for sender, to, what, data in session()["sent"]
    )


def story() -> str:
    names = {0: "server 0", 1: "server 1", 2: "helper", inference_ref.CLIENT: "client"}
    values = ", ".join(f"{value:.6f}" for value in session()["values"])
    lines = [
        "# One private inference, message by message",
        "",
        "<!-- made by protocols/generate.py: do not edit -->",
        "",
        "A network of three inputs, four hidden values with relu, and two outputs, on two examples, all shared",
        f"by one client, who learns {values}. All randomness is expanded from names.",
        "`transcript.jsonl` has the same messages in the same order, one to a line.",
        "",
        "| # | from | to | bytes | what it is |",
        "|---|---|---|---|---|",
    ]
    for at, (sender, to, what, data) in enumerate(session()["sent"]):
        lines.append(f"| {at} | {names[sender]} | {names[to]} | {len(data)} | {what} |")
    return "\n".join(lines) + "\n"


def inferences() -> dict[str, Any]:
    played = session()
    links: dict[str, list[str]] = {}
    for sender, to, _, data in played["sent"]:
        links.setdefault(f"{sender}>{to}", []).append(data.hex())
    told = {str(party): links.pop(f"{inference_ref.CLIENT}>{party}") for party in range(3)}
    test = {
        "id": "two-layers",
        "comment": "from joining to the revealed result: every message that a party sends",
        "input": {"secrets": {f"{a}-{b}": secret.hex() for (a, b), secret in played["secrets"].items()}, "told": told},
        "expected": {"messages": links, "values": [value.hex() for value in played["values"]]},
    }
    return {
        "spec": "protocols/mpc/SPEC.md §9",
        "description": "A private inference. 'told' are the client's messages to each party; messages are listed per "
        "link, party 3 being the client.",
        "groups": [group("inference", [test], session=SESSION.hex())],
    }
