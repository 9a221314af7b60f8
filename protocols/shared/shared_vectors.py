"""The vectors of the shared sum, made by shared_ref: whole sessions, role by role, and faults of one message each."""

from __future__ import annotations

from functools import partial
from typing import Any

import shared_ref as ref
from attested_sessions import attested_file
from shared_recording import described, expect_fault, of, recordings, second_input
from shared_ref import Fault, First, Second, client, u32


def files() -> dict[str, Any]:
    played = recordings()
    return {
        "vectors/params.json": params(),
        "vectors/roles.json": roles(played),
        "vectors/faults.json": faults(played),
        "vectors/attested.json": attested_file(played),
    }


def blocks() -> dict[str, str]:
    from securefl.mpc.summation.client import CLIENT_TRANSITIONS
    from securefl.mpc.summation.second import SECOND_TRANSITIONS
    from securefl.mpc.summation.server import SERVER_TRANSITIONS

    tables = {"client": CLIENT_TRANSITIONS, "first server": SERVER_TRANSITIONS, "second server": SECOND_TRANSITIONS}
    return {f"{role} states": diagram(table) for role, table in tables.items()}


def diagram(table: Any) -> str:
    lines = ["| state | on | next |", "|---|---|---|"]
    return "\n".join(
        lines
        + [f"| {state.name} | {on} | {after.name} |" for state, edges in table.items() for on, after in edges.items()]
    )


def params() -> dict[str, Any]:
    base = of("x25519", (1, 2, 5), 7, 65534, 2)
    cases = {
        "base": ("what the others change", base),
        "hybrid": ("the other suite", of("mlkem768-x25519", (1, 2, 5), 7, 65534, 2)),
        "round": ("another round", of("x25519", (1, 2, 5), 7, 65534, 2, round=4)),
        "threshold": ("another threshold", of("x25519", (1, 2, 5), 7, 65534, 3)),
        "encoding": ("with a hash of the encoding", of("x25519", (1, 2, 5), 7, 65534, 2, encoding=bytes(32))),
        "shells": ("two nested shells", of("x25519", (1, 2, 5), 7, 65534, 2, shells=((3, 4), (1, 2, 2), 2))),
    }
    tests: list[dict[str, Any]] = [
        {"id": name, "comment": comment, "input": described(p), "expected": {"context": p.context.hex()}}
        for name, (comment, p) in cases.items()
    ]
    bad = {
        "one-client": ("a sum of one client is its update", {"clients": [1]}),
        "id-of-the-second-server": ("no client may have it", {"clients": [1, 2, 2**32 - 1]}),
        "threshold-one": ("less than two survivors", {"threshold": 1}),
        "threshold-beyond": ("more than there are clients", {"threshold": 4}),
        "no-headroom": ("three such values do not fit a word", {"max_value": str(2**63)}),
        "ids-twice": ("a client twice", {"clients": [1, 2, 2]}),
        "shells-of-another-size": (
            "shells that do not add up to the dimension",
            {"shells": {"sizes": [3, 3], "tiers": [1, 2, 2], "minimum_holders": 2}},
        ),
        "holders-beyond-the-threshold": (
            "what everybody holds could stay closed",
            {"shells": {"sizes": [3, 4], "tiers": [1, 2, 2], "minimum_holders": 3}},
        ),
    }
    tests += [
        {
            "id": name,
            "comment": comment,
            "derived_from": "params.json#base",
            "input": described(base) | change,
            "error": {"type": "ConfigurationError"},
        }
        for name, (comment, change) in bad.items()
    ]
    return {
        "spec": "protocols/shared/SPEC.md §3",
        "description": "The context hash of input is expected.context; or input is refused.",
        "groups": [{"operation": "params", "params": {}, "tests": tests}],
    }


def steps_first(session: dict[str, Any]) -> list[dict[str, Any]]:
    frames = [{"do": "receive", "frame": frame.hex()} for frame in session["first"]]
    close = {"do": "close"}
    return [{"do": "start"}, frames[0], close, *frames[1:-1], close, frames[-1], close]


def roles(played: dict[str, Any]) -> dict[str, Any]:
    groups = []
    for name, session in played.items():
        tests = []
        for who, given in session["inputs"].items():
            box = given["frames"][0][56:-16]
            steps = [
                {"do": "start"},
                {"do": "receive", "frame": given["key"].hex()},
                {"do": "provide", "values": given["values"]},
            ]
            tests.append(
                {
                    "id": f"{name}-client-{who}",
                    "comment": session["comment"],
                    "input": {
                        "role": "client",
                        "me": who,
                        "tokens": [given["seed"].hex()],
                        "seals": [box.hex()],
                        "steps": steps,
                    },
                    "expected": {"sent": [frame.hex() for frame in given["frames"]]},
                }
            )
        tests.append(
            {
                "id": f"{name}-second",
                "comment": session["comment"],
                "input": second_input(session, session["request"]),
                "expected": {"sent": [Second(session["p"], session["key_seed"]).start().hex(), session["share"].hex()]},
            }
        )
        tests.append(
            {
                "id": f"{name}-first",
                "comment": session["comment"],
                "input": {"role": "first", "tokens": [], "seals": [], "steps": steps_first(session)},
                "expected": {
                    "sent": [frame.hex() for frame in [*session["keys"], session["request"]]],
                    "sum": [str(value) for value in session["sum"]],
                    "survivors": session["survivors"],
                },
            }
        )
        groups.append({"operation": "play", "params": described(session["p"]), "tests": tests})
    return {
        "spec": "protocols/shared/SPEC.md §5",
        "description": (
            "One role of a session: input.steps are done in order, drawing input.tokens where random bytes are drawn "
            "and input.seals where a seal is made. expected.sent are the frames it sends, in order; the first server "
            "ends with expected.sum over expected.survivors."
        ),
        "groups": groups,
    }


def faults(played: dict[str, Any]) -> dict[str, Any]:
    session = played["three-of-three"]
    p, boxes = session["p"], {who: given["frames"][0][56:-16] for who, given in session["inputs"].items()}

    def request(*items: tuple[int, bytes]) -> bytes:
        body = u32(len(items)) + b"".join(u32(who) + box for who, box in items)
        return p.frame(ref.SUM_REQUEST, 0, ref.SECOND, body)

    whole = [(who, boxes[who]) for who in p.clients]
    spoiled = boxes[2][:-1] + bytes([boxes[2][-1] ^ 1])
    second_cases = {
        "request-below-threshold": (
            "a sum over one client is its vector",
            [request(whole[0])],
            "TooFewClientsError",
            [],
        ),
        "request-twice": (
            "two sums over different clients: their difference is one client's vector",
            [session["request"], request(*whole[:2])],
            "FaultyServerError",
            [],
        ),
        "request-repeats-a-client": ("client 1 twice", [request(whole[0], whole[0], whole[1])], "DecodeError", []),
        "request-descending": ("ids out of order", [request(whole[1], whole[0])], "DecodeError", []),
        "request-of-a-stranger": ("client 4 was not invited", [request(*whole[:2], (4, boxes[5]))], "DecodeError", []),
        "box-of-another-client": (
            "client 2's box under the name of client 5: bound to its client",
            [request(whole[0], whole[1], (5, boxes[2]))],
            "FaultyClientError",
            [5],
        ),
        "box-damaged": (
            "one bit of client 2's box",
            [request(whole[0], (2, spoiled), whole[2])],
            "FaultyClientError",
            [2],
        ),
        "request-of-another-round": (
            "the same request under the next round's context",
            [
                of("x25519", p.clients, 7, 65534, 2, round=4).frame(
                    ref.SUM_REQUEST, 0, ref.SECOND, session["request"][56:-16]
                )
            ],
            "DecodeError",
            [],
        ),
    }
    tests = []
    for name, (comment, frames, error, blamed) in second_cases.items():
        second = Second(p, session["key_seed"])
        second.start()
        expect_fault(name, error, blamed, [partial(answered, second, f) for f in frames])
        tests.append(fault(name, comment, "three-of-three-second", second_input(session, *frames), error, blamed))

    stream = session["first"]
    advertised, (seed_1, input_1), (seed_2, input_2), share = stream[0], stream[1:3], stream[3:5], stream[-1]
    words = input_1[56:-16]
    other = p.frame(ref.INPUT, 1, 0, words[:-1] + bytes([words[-1] ^ 0x80]))
    blame = p.frame(ref.BLAMED, ref.SECOND, 0, u32(1) + u32(2))
    wrong = p.frame(ref.SUM_SHARE, ref.SECOND, 0, share[56:-17] + bytes([share[-17] ^ 0x80]))
    rest = stream[5:-1]
    c = None  # close
    first_cases = {
        "no-key": ("the second server never shows up", [c], "LostPartyError", []),
        "input-before-the-key": ("a client's message in the first exchange", [input_1], "ProtocolError", []),
        "too-few": ("one client is left", [advertised, c, seed_1, input_1, c], "TooFewClientsError", []),
        "vector-without-seed": (
            "client 2's vector came, its sealed seed did not: it is not counted",
            [advertised, c, seed_1, input_1, input_2, c],
            "TooFewClientsError",
            [],
        ),
        "two-inputs": (
            "client 1 sends another vector",
            [advertised, c, seed_1, input_1, other],
            "FaultyClientError",
            [1],
        ),
        "short-vector": (
            "one word less",
            [advertised, c, p.frame(ref.INPUT, 1, 0, words[:-8])],
            "DecodeError",
            [],
        ),
        "client-answers-for-the-second-server": (
            "the sum's share must come from the second server",
            [advertised, c, seed_1, input_1, seed_2, input_2, c, p.frame(ref.SUM_SHARE, 1, 0, share[56:-16])],
            "FaultyClientError",
            [1],
        ),
        "no-answer": ("the second server is gone", [advertised, c, *stream[1:-1], c, c], "LostPartyError", []),
        "blamed": ("a seal does not open", [advertised, c, *stream[1:-1], c, blame, c], "FaultyClientError", [2]),
        "blames-nobody": (
            "an empty list",
            [advertised, c, *stream[1:-1], c, p.frame(ref.BLAMED, ref.SECOND, 0, u32(0))],
            "DecodeError",
            [],
        ),
        "wrong-share": (
            "a bit outside every lane: the shares do not add up",
            [advertised, c, *stream[1:-1], c, wrong, c],
            "FaultyClientError",
            [1, 2, 5],
        ),
        "late-input": (
            "client 5's vector after its exchange",
            [advertised, c, seed_1, input_1, seed_2, input_2, c, rest[1]],
            "ProtocolError",
            [],
        ),
    }
    for name, (comment, steps, error, blamed) in first_cases.items():
        first = First(p)
        expect_fault(name, error, blamed, [first.close if s is None else partial(first.receive, s) for s in steps])
        given = [{"do": "start"}] + [
            {"do": "close"} if s is None else {"do": "receive", "frame": s.hex()} for s in steps
        ]
        entry = {"role": "first", "tokens": [], "seals": [], "steps": given}
        tests.append(fault(name, comment, "three-of-three-first", entry, error, blamed))

    groups = [{"operation": "play", "params": described(p), "tests": tests}, nested_faults(played["top-closed"])]
    given = session["inputs"][1]
    client_cases = {
        "key-from-a-client": (
            "client 2 in the server's place",
            p.frame(ref.KEY, 2, 1, given["key"][56:-16]),
            "FaultyServerError",
        ),
        "key-short": ("one byte less", p.frame(ref.KEY, 0, 1, given["key"][56:-17]), "DecodeError"),
        "key-of-another-round": (
            "the next round's context",
            of("x25519", p.clients, 7, 65534, 2, round=4).frame(ref.KEY, 0, 1, given["key"][56:-16]),
            "DecodeError",
        ),
    }
    for name, (comment, frame, error) in client_cases.items():
        expect_fault(name, error, [], [lambda f=frame: client(p, 1, f, given["values"], given["seed"], bytes(32))])
        steps = [{"do": "start"}, {"do": "receive", "frame": frame.hex()}]
        entry = {"role": "client", "me": 1, "tokens": [], "seals": [], "steps": steps}
        tests.append(fault(name, comment, "three-of-three-client-1", entry, error, []))
    return {
        "spec": "protocols/shared/SPEC.md §7",
        "description": (
            "As roles.json; the last of input.steps is refused, or ends the session, with error.type; error.blamed are "
            "the clients that the error names. All steps before it are accepted."
        ),
        "groups": groups,
    }


def nested_faults(session: dict[str, Any]) -> dict[str, Any]:
    p, stream, share = session["p"], session["first"], session["share"]
    vector = stream[2][56:-16]  # of client 1, which holds all shells
    less = p.frame(ref.INPUT, 1, 0, vector[: 8 * p.words_of(2)])
    more = p.frame(ref.SUM_SHARE, ref.SECOND, 0, share[56:-16] + bytes(8 * (p.words - p.words_of(2))))
    c = None
    cases = {
        "vector-of-another-tier": ("client 1 leaves out its third shell", [stream[0], c, stream[1], less]),
        "share-of-a-closed-shell": ("the second server's share of it too", [*[stream[0], c], *stream[1:-1], c, more]),
    }
    tests = []
    for name, (comment, steps) in cases.items():
        first = First(p)
        expect_fault(name, "DecodeError", [], [first.close if s is None else partial(first.receive, s) for s in steps])
        given = [{"do": "start"}] + [
            {"do": "close"} if s is None else {"do": "receive", "frame": s.hex()} for s in steps
        ]
        entry = {"role": "first", "tokens": [], "seals": [], "steps": given}
        tests.append(fault(name, comment, "top-closed-first", entry, "DecodeError", []))
    return {"operation": "play", "params": described(p), "tests": tests}


def answered(second: Second, request: bytes) -> bytes:
    """A BLAMED answer ends the second server's session with the error that it reports."""
    answer = second.answer(request)
    if answer[2] == ref.BLAMED:
        body = answer[60:-16]
        raise Fault(
            "FaultyClientError", "blamed", *(int.from_bytes(body[i : i + 4], "big") for i in range(0, len(body), 4))
        )
    return answer


def fault(name: str, comment: str, origin: str, given: dict[str, Any], error: str, blamed: list[int]) -> dict[str, Any]:
    entry = {"type": error} | ({"blamed": blamed} if blamed else {})
    return {"id": name, "comment": comment, "derived_from": f"roles.json#{origin}", "input": given, "error": entry}
