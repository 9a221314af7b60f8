"""The vectors of replicated sharing, made by replicated_ref."""

from __future__ import annotations

import hashlib
from typing import Any

import mpc_ref
import replicated_ref as ref
import tournament_ref
from mpc_naming import group, strings
from mpc_vectors import TOURNAMENT, check

SESSION = b"vectors"
LINKS = ("0>1", "1>0", "0>2", "1>2", "2>0", "2>1")


def files() -> dict[str, dict[str, Any]]:
    return {"vectors/streams.json": streams(), "vectors/operations.json": operations()}


def blocks() -> dict[str, str]:
    return {}


def expand(name: str, count: int) -> bytes:
    return hashlib.shake_256(f"protocols/mpc-replicated/{name}".encode()).digest(count)


def words(name: str, count: int) -> list[int]:
    raw = expand(name, 8 * count)
    return [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]


def streams() -> dict[str, Any]:
    tests = []
    for name, pair, session, batch, program in (
        ("base", (0, 2), SESSION, 1, b""),
        ("other-pair", (0, 1), SESSION, 1, b""),
        ("other-session", (0, 2), b"vector", 1, b""),
        ("other-batch", (0, 2), SESSION, 2, b""),
        ("other-program", (0, 2), SESSION, 1, b"\0"),
    ):
        key = ref.stream_key(expand("secret", 32), session, pair, batch, program)
        given = {"secret": expand("secret", 32).hex(), "session": session.hex(), "pair": list(pair), "batch": batch}
        tests.append(
            {
                "id": name,
                "comment": "one thing changed from the base" if name != "base" else "parties 0 and 2, component 0",
                "input": {**given, "program": program.hex()},
                "expected": {"key": key.hex(), "stream": mpc_ref.Stream(key).take(64).hex()},
            }
        )
    batches: list[dict[str, Any]] = [
        {"id": "rising", "comment": "numbers may be left out", "input": {"batches": [1, 2, 7]}, "expected": {}}
    ]
    batches += [
        {
            "id": name,
            "comment": "streams used again",
            "derived_from": "streams.json#rising",
            "input": {"batches": numbers},
            "error": {"type": "LocalProtocolError"},
        }
        for name, numbers in (("twice", [1, 2, 2]), ("earlier", [1, 7, 2]))
    ]
    return {
        "spec": "protocols/mpc-replicated/SPEC.md §2",
        "description": "Keys of a batch's streams; batch numbers that are spent.",
        "groups": [group("stream", tests), group("batches", batches)],
    }


def operations() -> dict[str, Any]:
    big = 2**62 - 1
    edges = [0, 1, -1, big, -big, 2**16, -(2**16), 12345678901, -98765432109]
    halves = [0, 1, -1, 2**30, -(2**30), 3, 70000, -70000, 5]
    cases: list[tuple[str, str, list[list[int]], int]] = [
        ("product", "product", [edges, words("factor", 9)], 0),
        ("double-product", "double-product", [edges, words("factor", 9)], 0),
        ("truncate-16", "truncate", [edges], 16),
        ("truncate-24", "truncate", [edges], 24),
        ("truncate-40", "truncate", [edges], 40),
        ("truncated-product", "truncated-product", [halves, halves[::-1]], 16),
        ("negative", "negative", [[*edges, 2**63 - 1, -(2**63)]], 0),
        ("relu", "relu", [edges], 0),
        ("relu-drop", "relu", [edges], 16),
        ("relu-of-product", "relu-of-product", [halves, halves[::-1]], 16),
        ("relu-of-double-product", "relu-of-double-product", [halves, halves[::-1]], 17),
        ("one-element", "relu", [[-5]], 0),
        ("select", "select", [halves, edges], 0),
        ("tournament", "tournament", TOURNAMENT, 0),
    ]
    tests = [operation_test(*case) for case in cases]
    for name, base, links in (
        ("truncate-16", tests[2], ("0>1", "1>0", "2>1")),
        ("product", tests[0], ("0>2", "1>0", "2>1")),
    ):
        tests += [
            {
                "id": f"{name}-{kind}-{link.replace('>', '-to-')}",
                "comment": f"the first message of the link is a byte {'short' if change < 0 else 'long'}",
                "derived_from": f"operations.json#{name}",
                "input": {**base["input"], "spoil": {"link": link, "bytes": change}},
                "error": {"type": "FaultyPartyError"},
            }
            for kind, change in (("truncated", -1), ("oversized", 1))
            for link in links
        ]
    return {
        "spec": "protocols/mpc-replicated/SPEC.md §3",
        "description": "One operation by three parties from given keys and components: all messages and the result. "
        "Messages are listed per link, in order. 'keys': of the streams, by component; 'components': of each operand, "
        "of which party i holds i and i + 1. 'result': the three components; 'signs': what a comparison finds.",
        "groups": [group("operation", tests)],
    }


def tournament(session: ref.Session, values: list[ref.Value]) -> ref.Value:
    """The largest of every column of the rows, below what each row gets of the last operand by it."""

    def relu(parts: Any) -> tuple[Any, Any]:
        result, bits = session.relu_and_bits(ref.Value(parts), 0)
        return result.c, bits

    def select(bits: Any, parts: Any) -> Any:
        return session.choose(bits[0], ref.Value(parts), bits[1])[0].c

    best, rounds = tournament_ref.play([value.c for value in values[:-1]], relu)
    return ref.Value(tournament_ref.joined([*tournament_ref.route(rounds, values[-1].c, select), best]))


def operation_test(name: str, operation: str, operands: list[list[int]], places: int) -> dict[str, Any]:
    keys = [expand(f"{name}/key/{i}", 16) for i in range(3)]
    session = ref.Session([mpc_ref.Stream(key) for key in keys])
    values = []
    for at, operand in enumerate(operands):
        zero, two = (words(f"{name}/component/{at}/{k}", len(operand)) for k in (0, 2))
        one = [(v - a - b) % ref.RING for v, a, b in zip(operand, zero, two, strict=True)]
        values.append(ref.Value([zero, one, two]))
    bits: list[int] | None = None
    result: ref.Value | None = None
    if operation == "product":
        result = session.settle(session.product(*values))
    elif operation == "double-product":
        result = session.settle(session.double(*values))
    elif operation == "truncate":
        result = session.truncate(values[0].c, places)
    elif operation == "truncated-product":
        result = session.truncate(session.product(*values), places)
    elif operation == "negative":
        bits = session.negative(values[0].c)
    elif operation == "relu":
        result, bits = session.relu(values[0], places)
    elif operation == "relu-of-product":
        result, bits = session.relu(session.product(*values), places)
    elif operation == "relu-of-double-product":
        result, bits = session.relu(session.double(*values), places)
    elif operation == "tournament":
        result = tournament(session, values)
    else:  # the second where the first is negative
        bits = session.negative(values[0].c)
        result = session.select(bits, values[1])
    signs = None if bits is None else ref.bits_of(bits[0] ^ bits[1] ^ bits[2], len(operands[0]))
    verify(operation, operands, places, result, signs)
    sent: dict[str, list[str]] = {}
    for sender, recipient, message in session.sent:
        sent.setdefault(f"{sender}>{recipient}", []).append(message.hex())
    expected: dict[str, Any] = {"messages": sent}
    if result is not None:
        expected["result"] = [strings(part) for part in result.c]
    if signs is not None:
        expected["signs"] = signs
    return {
        "id": name,
        "comment": f"{operation}, {places} places",
        "input": {
            "operation": operation,
            "places": places,
            "keys": [key.hex() for key in keys],
            "components": [[strings(part) for part in value.c] for value in values],
        },
        "expected": expected,
    }


def verify(
    operation: str, operands: list[list[int]], places: int, result: ref.Value | None, signs: list[int] | None
) -> None:
    """The reference against integers."""
    first = operands[0]
    if operation in {"negative", "select"}:
        assert signs == [int(v < 0) for v in first]
    elif signs is not None:
        exact = first if operation == "relu" else [x * y for x, y in zip(*operands, strict=True)]  # the double's sign
        assert signs == [int(v >= 0) for v in exact]
    if result is None:
        return
    if operation == "select":
        assert result.total() == [(y if x < 0 else 0) % ref.RING for x, y in zip(*operands, strict=True)]
        return
    kind = {"truncated-product": "truncate"}.get(operation, operation)
    check(kind, operands, places, mpc_ref.Value(*result.c))
