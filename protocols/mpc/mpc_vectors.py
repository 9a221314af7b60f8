"""The vectors of secret-shared computation, made by mpc_ref."""

from __future__ import annotations

from typing import Any

import mpc_ref as ref
import tournament_ref
from mpc_inference import inferences, story, transcript
from mpc_naming import SESSION, expand, group, strings, words

#: Five rows of four columns that play, and what the winners of the columns get. Equals: the first of them wins.
TOURNAMENT = [
    [3, -5, 0, 7],
    [2**60, -5, 0, 7],
    [-(2**60), -6, 0, 9],
    [4, -5, -1, 9],
    [5, 1, 0, 9],
    [11, -12, 13, 2**60],
]


def files() -> dict[str, dict[str, Any] | str]:
    return {
        "vectors/fixed.json": fixed(),
        "vectors/streams.json": streams(),
        "vectors/operations.json": operations(),
        "vectors/commands.json": commands(),
        "vectors/inference.json": inferences(),
        "transcript.jsonl": transcript(),
        "transcript.md": story(),
    }


def blocks() -> dict[str, str]:
    return {}


# ---- §3


def fixed() -> dict[str, Any]:
    values = [0.0, 1.0, -1.0, 0.5, -0.5, 2.0**-16, -(2.0**-16), 2.0**-17, 3 * 2.0**-17, -(2.0**-17), 1 / 3, -4096.0001]
    tests: list[dict[str, Any]] = [
        {
            "id": "values",
            "comment": "signs, ties to even, values between the steps",
            "input": {"values": [value.hex() for value in values]},
            "expected": {
                "words": strings([ref.encode(value, 16) for value in values]),
                "decoded": [ref.decode(ref.encode(value, 16), 16).hex() for value in values],
            },
        }
    ]
    for name, value in (("not-a-number", float("nan")), ("infinite", float("inf")), ("too-large", 2.0**46 * 1.001)):
        tests.append(
            {
                "id": name,
                "comment": "cannot be shared",
                "derived_from": "fixed.json#values",
                "input": {"values": [value.hex()]},
                "error": {"type": "InvalidInputError"},
            }
        )
    return {
        "spec": "protocols/mpc/SPEC.md §3",
        "description": "Reals to ring elements of 16 binary places, and back.",
        "groups": [group("encode", tests, fraction=16)],
    }


# ---- §4.1


def streams() -> dict[str, Any]:
    tests = []
    for name, pair, session, batch, program in (
        ("base", (0, 2), SESSION, 1, b""),
        ("other-pair", (1, 2), SESSION, 1, b""),
        ("other-session", (0, 2), b"vector", 1, b""),
        ("other-batch", (0, 2), SESSION, 2, b""),
        ("other-program", (0, 2), SESSION, 1, b"\0"),
    ):
        key = ref.stream_key(expand("secret", 32), session, pair, batch, program)
        given = {"secret": expand("secret", 32).hex(), "session": session.hex(), "pair": list(pair), "batch": batch}
        tests.append(
            {
                "id": name,
                "comment": "one thing changed from the base" if name != "base" else "servers 0 and the helper",
                "input": {**given, "program": program.hex()},
                "expected": {"key": key.hex(), "stream": ref.Stream(key).take(64).hex()},
            }
        )
    spent = {"type": "LocalProtocolError"}
    batches: list[dict[str, Any]] = [
        {"id": "rising", "comment": "numbers may be left out", "input": {"batches": [1, 2, 7]}, "expected": {}},
        {
            "id": "twice",
            "comment": "correlations replayed",
            "derived_from": "streams.json#rising",
            "input": {"batches": [1, 2, 2]},
            "error": spent,
        },
        {
            "id": "earlier",
            "comment": "correlations of an earlier batch",
            "derived_from": "streams.json#rising",
            "input": {"batches": [1, 7, 2]},
            "error": spent,
        },
    ]
    return {
        "spec": "protocols/mpc/SPEC.md §4.1",
        "description": "Keys of a batch's streams; batch numbers that are spent.",
        "groups": [group("stream", tests), group("batches", batches)],
    }


# ---- §5, §6


def operations() -> dict[str, Any]:
    big = 2**62 - 1
    edges = [0, 1, -1, big, -big, 2**16, -(2**16), 12345678901, -98765432109]
    halves = [0, 1, -1, 2**30, -(2**30), 3, 70000, -70000, 5]
    cases: list[tuple[str, str, list[list[int]], int]] = [
        ("product", "product", [edges, words("factor", 9)], 0),
        ("product-of-given", "product-of-given", [edges, words("factor", 9)], 0),
        ("double-product", "double-product", [edges, words("factor", 9)], 0),
        ("double-product-of-given", "double-product-of-given", [edges, words("factor", 9)], 0),
        ("square-of-truncated", "square-of-truncated", [edges], 24),
        ("product-of-truncated-16", "product-of-truncated", [edges, edges[::-1]], 16),
        ("product-of-truncated-32", "product-of-truncated", [edges, edges[::-1]], 32),
        ("truncate-16", "truncate", [edges], 16),
        ("truncate-24", "truncate", [edges], 24),
        ("truncate-40", "truncate", [edges], 40),
        ("negative", "negative", [[*edges, 2**63 - 1, -(2**63)]], 0),
        ("relu", "relu", [edges], 0),
        ("relu-drop", "relu", [edges], 16),
        ("relu-of-product", "relu-of-product", [halves, halves[::-1]], 16),
        ("relu-of-double-product", "relu-of-double-product", [halves, halves[::-1]], 17),
        ("one-element", "relu", [[-5]], 0),
        ("tournament", "tournament", TOURNAMENT, 0),
    ]
    tests: list[dict[str, Any]] = []
    for name, operation, operands, places in cases:
        tests.append(operation_test(name, operation, operands, places))
    base = next(test for test in tests if test["id"] == "truncate-16")
    tests += [
        {
            "id": f"{kind}-{link.replace('>', '-to-')}",
            "comment": f"the first message of the link is a byte {'short' if change < 0 else 'long'}",
            "derived_from": "operations.json#truncate-16",
            "input": {**base["input"], "spoil": {"link": link, "bytes": change}},
            "error": {"type": "FaultyPartyError"},
        }
        for kind, change in (("truncated", -1), ("oversized", 1))
        for link in ("0>1", "1>0", "2>1")
    ]
    return {
        "spec": "protocols/mpc/SPEC.md §5",
        "description": "One operation by all three parties from given keys and shares: all messages, and the result. "
        "Messages are listed per link, in order. 'parts' are the servers' shares of each operand; the operands' helper "
        "parts are zero; of products of given values the first comes opened from 'given', two keys. 'result' are the "
        "three parts; 'signs' what a comparison or relu finds.",
        "groups": [group("operation", tests)],
    }


def tournament(session: ref.Session, values: list[ref.Value]) -> ref.Value:
    """The largest of every column of the rows, below what each row gets of the last operand by it."""

    def relu(parts: Any) -> tuple[Any, Any]:
        result, bits = session.relu_and_bits(ref.Value(*parts), 0)
        return [result.zero, result.one, result.helper], bits

    def select(bits: Any, parts: Any) -> Any:
        result = session.select(bits, ref.Value(*parts))
        return [result.zero, result.one, result.helper]

    *rows, prize = ([value.zero, value.one, value.helper] for value in values)
    best, rounds = tournament_ref.play(rows, relu)
    return ref.Value(*tournament_ref.joined([*tournament_ref.route(rounds, prize, select), best]))


def won(operands: list[list[int]]) -> list[int]:
    """What comes out of a tournament, in the clear: of equals the first wins."""
    *rows, prize = operands
    columns = [[row[at] for row in rows] for at in range(len(prize))]
    first = [column.index(max(column)) for column in columns]
    got = [[p if first[at] == i else 0 for at, p in enumerate(prize)] for i in range(len(rows))]
    return [word for row in got for word in row] + [max(column) for column in columns]


def operation_test(name: str, operation: str, operands: list[list[int]], places: int) -> dict[str, Any]:
    keys = [expand(f"{name}/key/{i}", 16) for i in range(2)]
    session = ref.Session(ref.Stream(keys[0]), ref.Stream(keys[1]))
    values = []
    for at, operand in enumerate(operands):
        zero = words(f"{name}/share/{at}", len(operand))
        values.append(
            ref.Value(zero, [(v - z) % ref.RING for v, z in zip(operand, zero, strict=True)], [0] * len(operand))
        )
    given: dict[str, Any] = {"operation": operation, "places": places, "keys": [key.hex() for key in keys]}
    forms: list[ref.Form] = []
    if operation.endswith("-of-given"):
        chosen = expand(f"{name}/given", 32)
        values[0], form = ref.given([v % ref.RING for v in operands[0]], chosen[:16], chosen[16:])
        forms = [form, *session.open_masked(values[1:])]
        given["given"] = chosen.hex()
    signs: list[int] | None = None
    if operation == "product":
        result = session.product(*values)
    elif operation == "product-of-given":
        result = ref.product(*forms)
    elif operation == "double-product":
        result = session.double(*values)
    elif operation == "double-product-of-given":
        result = ref.double(*forms)
    elif operation in {"square-of-truncated", "product-of-truncated"}:
        result = session.product_of_truncated(values, places)
    elif operation == "truncate":
        result = session.truncate(values[0], places)
    elif operation == "negative":
        c, r = session.open_value(values[0], 0)
        signs = signs_of(session, c, r)
        result = ref.Value([], [], [])
        assert signs == [int(v < 0) for v in operands[0]]
    elif operation == "relu":
        result, signs = session.relu(values[0], places)
    elif operation == "tournament":
        result = tournament(session, values)
    else:
        made = session.double(*values) if operation == "relu-of-double-product" else session.product(*values)
        result, signs = session.relu(made, places)
    check(operation, operands, places, result)
    sent: dict[str, list[str]] = {}
    for sender, recipient, message in session.sent:
        sent.setdefault(f"{sender}>{recipient}", []).append(message.hex())
    expected: dict[str, Any] = {"messages": sent}
    if result.zero:
        expected["result"] = [strings(part) for part in (result.zero, result.one, result.helper)]
    if signs is not None:
        expected["signs"] = signs
    parts = [[strings(value.zero), strings(value.one)] for value in values]
    return {
        "id": name,
        "comment": f"{operation}, {places} places",
        "input": {**given, "parts": parts},
        "expected": expected,
    }


def signs_of(session: ref.Session, c: list[int], r: list[int]) -> list[int]:
    zero, one, top = session.sign(c, r)
    return ref.bits_of(zero ^ one ^ top, len(c))


def check(operation: str, operands: list[list[int]], places: int, result: ref.Value) -> None:
    """The reference against integers."""
    got = [v - ref.RING if v >= ref.RING // 2 else v for v in result.total()]
    if operation.startswith("product-of-truncated") or operation == "square-of-truncated":
        ends = [[v >> places, (v >> places) + 1] for v in operands[0]]
        others = ends if len(operands) == 1 else [[v >> places, (v >> places) + 1] for v in operands[1]]
        for g, a, b in zip(got, ends, others, strict=True):
            assert g % ref.RING in {u * v % ref.RING for u in a for v in b}, (operation, g, a, b)
    elif operation.removesuffix("-of-given") in {"product", "double-product"}:
        times = 2 if operation.startswith("double") else 1
        assert [v % ref.RING for v in got] == [times * x * y % ref.RING for x, y in zip(*operands, strict=True)]
    elif operation == "tournament":
        assert got == won(operands), (got, won(operands))
    elif got:
        times = 2 if operation == "relu-of-double-product" else 1
        exact = operands[0] if len(operands) == 1 else [times * x * y for x, y in zip(*operands, strict=True)]
        floor = [v >> places for v in exact]
        if operation != "truncate":
            floor = [max(v, 0) if e >= 0 else 0 for v, e in zip(floor, exact, strict=True)]
        assert all(g - f in {0, 1} for g, f in zip(got, floor, strict=True)), (operation, got, floor)


# ---- §9


def commands() -> dict[str, Any]:
    layers = [
        {"kind": "input", "inputs": [], "name": ""},
        {"kind": "linear", "inputs": [0], "name": "0", "parameters": ["0.weight"], "gain": 1, "offset": -32},
    ]
    good = {
        "put": '{"do":"put","fraction":16,"id":1,"shape":[2,3],"opened":true}',
        "get": '{"batch":9,"do":"get","tensor":1}',
        "apply": '{"batch":3,"do":"apply","fresh":false,"input":1,"model":2,"output":4}',
        "cost": '{"do":"cost"}',
        "forward": '{"batch":3,"do":"forward","fresh":false,"input":1,"model":2,"output":4}',
        "backward": '{"batch":4,"do":"backward","fresh":false,"gradient":5,"of":4,"output":6}',
        "step": '{"batch":5,"divisor":32,"do":"step","fresh":false,"model":2,"momentum":0.9,"rate":0.05}',
    }
    bad = {
        "no-object": ("put", "[1]"),
        "not-json": ("put", '{"do":"put"'),
        "unknown": ("put", '{"do":"eval","code":"1"}'),
        "extra-field": ("cost", '{"do":"cost","also":1}'),
        "missing-field": ("put", '{"do":"put","id":1,"shape":[2,3],"opened":true}'),
        "negative": ("put", '{"do":"put","fraction":16,"id":-1,"shape":[2,3],"opened":true}'),
        "float-id": ("put", '{"do":"put","fraction":16,"id":1.0,"shape":[2,3],"opened":true}'),
        "boolean-number": ("get", '{"batch":true,"do":"get","tensor":1}'),
        "shape-of-text": ("put", '{"do":"put","fraction":16,"id":1,"shape":["2"],"opened":true}'),
        "rate-of-text": (
            "step",
            '{"batch":5,"divisor":32,"do":"step","fresh":false,"model":2,"momentum":0.9,"rate":"0.05"}',
        ),
        "rate-without-end": (
            "step",
            '{"batch":5,"divisor":32,"do":"step","fresh":false,"model":2,"momentum":0.9,"rate":Infinity}',
        ),
        "pass-of-text": ("backward", '{"batch":4,"do":"backward","fresh":false,"gradient":5,"of":"4","output":6}'),
        "flag-of-number": ("apply", '{"batch":3,"do":"apply","fresh":0,"input":1,"model":2,"output":4}'),
    }
    tests: list[dict[str, Any]] = [
        {"id": name, "comment": "accepted", "input": {"text": text}, "expected": {}} for name, text in good.items()
    ]
    tests += [
        {
            "id": name,
            "comment": "refused before anything is done",
            "derived_from": f"commands.json#{base}",
            "input": {"text": text},
            "error": {"type": "DecodeError"},
        }
        for name, (base, text) in bad.items()
    ]
    graphs: list[dict[str, Any]] = [
        {"id": "network", "comment": "one layer", "input": {"layers": layers}, "expected": {}}
    ]
    spoiled: dict[str, Any] = {
        "unknown-kind": [layers[0], {**layers[1], "kind": "exec"}],
        "later-input": [layers[0], {**layers[1], "inputs": [1]}],
        "two-inputs": [layers[0], {**layers[1], "inputs": [0, 0]}],
        "no-input": layers[1:],
        "field-too-many": [layers[0], {**layers[1], "window": [1, 1, 1, 1, 0, 0]}],
        "gain-too-large": [layers[0], {**layers[1], "gain": 65}],
        "nothing": [],
    }
    graphs += [
        {
            "id": name,
            "comment": "refused",
            "derived_from": "commands.json#network",
            "input": {"layers": value},
            "error": {"type": "DecodeError"},
        }
        for name, value in spoiled.items()
    ]
    return {
        "spec": "protocols/mpc/SPEC.md §9",
        "description": "Commands of a client and networks, accepted or refused as a whole.",
        "groups": [group("command", tests), group("network", graphs)],
    }
