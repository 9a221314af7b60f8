"""The vectors of the CKKS sum, made by ckks_ref: layouts, wire form, one session by roles, faults of one message."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import zip_longest
from typing import Any

import ckks_ref as ref
from ckks_ref import KEY_HOLDER, SERVER, Params, Signer
from Crypto.Hash import SHAKE256
from wire_ref import HEADER, checksum

NAME = "three-clients"
BASE = Params((1, 2, 5), 9, 65534, 2)
MIXED = Params((1, 2, 5), 41, 65535, 2, segments=((30, 2, 7), (9, 65534, 0), (2, 65535, 0)), encoding=bytes(32))
#: Shells SPEC §9: of the survivors 1 and 5 only client 1 holds shell 2, which therefore stays closed.
NESTED = Params((1, 2, 5), 20, 1000, 2, shells=((12, 8), (2, 2, 1), 2))
SURVIVORS = [1, 5]


def files() -> dict[str, Any]:
    played, nested = play(MIXED), play(NESTED)
    return {
        "vectors/params.json": params(),
        "vectors/lattice.json": layouts(),
        "vectors/residues.json": residues(),
        "vectors/roles.json": roles(played),
        "vectors/shells.json": with_shells(nested),
        "vectors/faults.json": faults(played),
        "transcript.jsonl": transcript(played),
    }


def blocks() -> dict[str, str]:
    from securefl.ckks.client import CLIENT_TRANSITIONS
    from securefl.ckks.key_holder import KEY_HOLDER_TRANSITIONS
    from securefl.ckks.server import SERVER_TRANSITIONS

    tables = {"client": CLIENT_TRANSITIONS, "server": SERVER_TRANSITIONS, "key holder": KEY_HOLDER_TRANSITIONS}
    return {f"{role} states": table_of(table) for role, table in tables.items()}


def table_of(table: Any) -> str:
    rows = [f"| {state.name} | {on} | {after.name} |" for state, edges in table.items() for on, after in edges.items()]
    return "\n".join(["| state | on | next |", "|---|---|---|", *rows])


def drawn(name: str, length: int) -> bytes:
    return SHAKE256.new(f"ckks-sum/{name}".encode()).read(length)


def described(p: Params) -> dict[str, Any]:
    values = {**asdict(p), "clients": list(p.clients), "max_value": str(p.max_value)}
    values["segments"] = [list(part) for part in p.segments]
    del values["shells"]
    if p.shells:
        sizes, tiers, least = p.shells
        values["shells"] = {"sizes": list(sizes), "tiers": list(tiers), "minimum_holders": least}
    return values | {name: values[name].hex() for name in ("session", "model_hash", "encoding")}


def group(operation: str, tests: list[dict[str, Any]], **params: Any) -> dict[str, Any]:
    return {"operation": operation, "params": params, "tests": tests}


# ---- parameters and layouts


def params() -> dict[str, Any]:
    wide = replace(BASE, set="n8192-q112")
    cases = {
        "base": ("what the others change", BASE),
        "round": ("another round", replace(BASE, round=4)),
        "session": ("another session", replace(BASE, session=b"other")),
        "threshold": ("another threshold", replace(BASE, threshold=3)),
        "set": ("another parameter set", wide),
        "model": ("another key model", replace(BASE, model="key_holder")),
        "flooded": ("flooding", replace(wide, flooded=True)),
        "release": ("the sum stays with the key holder", replace(BASE, release="key_holder")),
        "segments": ("runs of different ranges, and a hash of the encoding", MIXED),
        "shells": ("two nested shells", NESTED),
    }
    tests: list[dict[str, Any]] = [
        {"id": name, "comment": comment, "input": described(p), "expected": {"context": p.context.hex()}}
        for name, (comment, p) in cases.items()
    ]
    bad = {
        "one-client": ("a sum of one client is its update", {"clients": [1]}),
        "key-holders-id": ("no client may have it", {"clients": [1, 2, KEY_HOLDER]}),
        "threshold-one": ("less than two survivors", {"threshold": 1}),
        "threshold-beyond": ("more than there are clients", {"threshold": 4}),
        "no-room": ("three such values do not fit beside the noise", {"max_value": str(2**53)}),
        "no-room-for-flooding": ("the small set has none", {"flooded": True}),
        "ids-twice": ("a client twice", {"clients": [1, 2, 2]}),
        "holders-beyond-the-threshold": (
            "what everybody holds could stay closed",
            {"shells": {"sizes": [5, 4], "tiers": [1, 2, 2], "minimum_holders": 3}},
        ),
        "segments-contradict": ("they are 9 integers, not 8", {"segments": [[8, 65534, 0]]}),
    }
    tests += [
        {
            "id": name,
            "comment": comment,
            "derived_from": "params.json#base",
            "input": described(BASE) | change,
            "error": {"type": "ConfigurationError"},
        }
        for name, (comment, change) in bad.items()
    ]
    return {
        "spec": "protocols/ckks-sum/SPEC.md §6.1",
        "description": "The context hash of input is expected.context; or input is refused.",
        "groups": [group("params", tests)],
    }


def layouts() -> dict[str, Any]:
    ten = replace(BASE, clients=tuple(range(1, 11)), dimension=1000, max_value=65534)
    cases = {
        "ten-clients-shared": ten,
        "ten-clients": replace(ten, model="key_holder"),
        "ten-clients-wide": replace(ten, model="key_holder", set="n8192-q112"),
        "ten-clients-flooded": replace(ten, model="key_holder", set="n8192-q112", flooded=True),
        "hundred-clients": replace(ten, clients=tuple(range(1, 101)), model="key_holder"),
        "mixed": MIXED,
        "shells": replace(ten, dimension=20_000, shells=((9000, 8000, 3000), (1, 2, 3, 3, 2, 1, 1, 3, 2, 3), 2)),
    }
    tests = []
    for name, p in cases.items():
        found = ref.lattice(p)
        expected = {
            "noise_bound": str(found["bound"]),
            "delta": str(found["delta"]),
            "digits": [run[4] for run in found["runs"]],
            "coefficients": found["coefficients"],
            "ciphertexts": ref.ciphertexts(p),
        }
        tests.append({"id": name, "comment": "", "input": described(p), "expected": expected})
    coded = []
    for name, p in (("mixed-coded", MIXED), ("base-coded", BASE)):
        rows = [inputs_of(p, who) for who in p.clients]
        points = [ref.encode(p, row) for row in rows]
        total = [sum(column) for column in zip(*points, strict=True)]
        sums = ref.decode(p, total, list(p.clients))
        assert sums == [sum(column) for column in zip(*rows, strict=True)]
        expected = {"first": [str(x) for x in points[0]], "sums": [str(x) for x in sums]}
        coded.append({"id": name, "comment": "", "input": described(p) | {"rows": rows}, "expected": expected})
    return {
        "spec": "protocols/ckks-sum/SPEC.md §4",
        "description": "layout: noise bound, lattice and digits of each segment. code: the first client's centred "
        "coefficients, and what the sum of all clients' coefficients stands for.",
        "groups": [group("layout", tests), group("code", coded)],
    }


def residues() -> dict[str, Any]:
    tests = []
    for name, q in (("sixty-bits", 1152921504606830593), ("fifty-two-bits", 4503599627124737)):
        words = [int.from_bytes(drawn(f"{name}/{k}", 8), "big") % q for k in range(8)]
        words[0], words[1] = 0, q - 1
        given = {"prime": str(q), "bytes": ref.pack(words, q).hex()}
        tests.append({"id": name, "comment": "", "input": given, "expected": {"words": [str(x) for x in words]}})
    words[3] = q
    spoilt = {"prime": str(q), "bytes": ref.pack(words, q).hex()}
    short = {"prime": str(q), "bytes": given["bytes"][:-2]}
    for name, comment, bad in (
        ("residue-of-the-prime", "word 3 is the prime itself", spoilt),
        ("one-byte-short", "", short),
    ):
        tests.append(
            {
                "id": name,
                "comment": comment,
                "derived_from": "residues.json#fifty-two-bits",
                "input": bad,
                "error": {"type": "DecodeError"},
            }
        )
    return {
        "spec": "protocols/ckks-sum/SPEC.md §6.2",
        "description": "bytes are the wire form of eight words below prime.",
        "groups": [group("residues", tests)],
    }


# ---- one session


def inputs_of(p: Params, who: int) -> list[int]:
    values: list[int] = []
    for number, (size, max_value, window) in enumerate(p.parts):
        raw = drawn(f"values/{who}/{number}", 4 * size)
        if number == p.held(who):
            break
        part = [int.from_bytes(raw[4 * k : 4 * k + 4], "big") % (max_value + 1) for k in range(size)]
        if not window:
            part[0], part[-1] = max_value, 0
        values += part
    return values


def play(p: Params) -> dict[str, Any]:
    """One session under the shared key; client 2 drops out."""
    people = {who: Signer(drawn(f"identity/{who}", 32)) for who in (SERVER, KEY_HOLDER, *p.clients)}
    keys = {name: drawn(f"key/{name}", 16) for name in ("secret", "uniform", "noise")}
    s, public = ref.key_pair(p.set, keys["secret"], keys["uniform"], keys["noise"])
    identity = ref.key_id(p, public)
    holder = people[KEY_HOLDER]
    notice = holder.frame(p, ref.KEY_NOTICE, KEY_HOLDER, SERVER, identity)
    announced = {who: holder.frame(p, ref.PUBLIC_KEY, KEY_HOLDER, who, identity) for who in p.clients}
    clients, parts = {}, []
    for who in p.clients:
        values, seed, secret = inputs_of(p, who), drawn(f"seed/{who}", 32), drawn(f"noise/{who}", 32)
        first = ref.encrypt_shared(p, who, s, values, seed, secret)
        body = ref.input_body(p, identity, seed, first)
        frame = people[who].frame(p, ref.ENCRYPTED_INPUT, who, SERVER, body)
        clients[who] = {"values": values, "seed": seed, "secret": secret, "body": body, "frame": frame}
        if who in SURVIVORS:
            parts.append((who, seed, first))
    total = ref.add(p, parts)
    request = people[SERVER].frame(
        p, ref.ENCRYPTED_SUM, SERVER, KEY_HOLDER, ref.sum_body(p, identity, SURVIVORS, total)
    )
    sums = ref.open_sum(p, s, total, SURVIVORS)
    plain = [sum(column) for column in zip_longest(*(clients[who]["values"] for who in SURVIVORS), fillvalue=0)]
    if p.shells:
        plain[p.shells[0][0] :] = [0] * p.shells[0][1]
    if sums != plain:
        raise AssertionError("the reference does not open its own sum")
    answer = holder.frame(p, ref.RESULT, KEY_HOLDER, SERVER, ref.result_body(sums))
    return {
        "p": p,
        "people": people,
        "keys": keys,
        "identity": identity,
        "notice": notice,
        "announced": announced,
        "clients": clients,
        "request": request,
        "answer": answer,
        "sums": sums,
        "total": total,
    }


def common(played: dict[str, Any]) -> dict[str, Any]:
    identities = {str(who): drawn(f"identity/{who}", 32).hex() for who in played["people"]}
    keys = {name: key.hex() for name, key in played["keys"].items()}
    return described(played["p"]) | {"identities": identities, "key": keys}


def receive(frame: bytes) -> dict[str, Any]:
    return {"do": "receive", "frame": frame.hex()}


def of_client(played: dict[str, Any], who: int) -> dict[str, Any]:
    given = played["clients"][who]
    steps = [{"do": "start"}, receive(played["announced"][who]), {"do": "provide", "values": given["values"]}]
    return {"role": "client", "me": who, "tokens": [given["seed"].hex(), given["secret"].hex()], "steps": steps}


def of_server(played: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    inputs = [receive(played["clients"][who]["frame"]) for who in SURVIVORS]
    return {"role": "server", "steps": [{"do": "start"}, receive(played["notice"]), *inputs, *more]}


def roles(played: dict[str, Any]) -> dict[str, Any]:
    ends = {"sum": [str(value) for value in played["sums"]], "survivors": SURVIVORS}
    tests = [
        {
            "id": f"client-{who}",
            "comment": "",
            "input": of_client(played, who),
            "expected": {"sent": [given["frame"].hex()]},
        }
        for who, given in played["clients"].items()
    ]
    close = {"do": "close"}
    tests.append(
        {
            "id": "server",
            "comment": "client 2 drops out",
            "input": of_server(played, close, receive(played["answer"])),
            "expected": {"sent": [played["request"].hex()], **ends},
        }
    )
    notices = [played["notice"], *played["announced"].values()]
    tests.append(
        {
            "id": "key-holder",
            "comment": "",
            "input": {"role": "key_holder", "steps": [{"do": "start"}, receive(played["request"])]},
            "expected": {"sent": [frame.hex() for frame in (*notices, played["answer"])]},
        }
    )
    return {
        "spec": "protocols/ckks-sum/SPEC.md §8",
        "description": "params: the session, the seeds of everybody's signing key and the stream keys that the secret "
        "and public key are made from (reference: key_pair). Play the steps of one role, drawing tokens in order: it "
        "sends expected.sent, and the server ends with expected.sum over expected.survivors.",
        "groups": [group("play", tests, **common(played))],
    }


def with_shells(played: dict[str, Any]) -> dict[str, Any]:
    found = roles(played)
    p, one = played["p"], played["clients"][1]
    (group_of_roles,) = found["groups"]
    group_of_roles["tests"] = [each for each in group_of_roles["tests"] if each["id"] != "client-2"]
    less = one["body"][: 64 + sum(len(ref.pack([0] * ref.used(p, 0), q)) for q in ref.SETS[p.set][2])]
    frame = played["people"][1].frame(p, ref.ENCRYPTED_INPUT, 1, SERVER, less)
    group_of_roles["tests"].append(
        {
            "id": "vector-of-another-tier",
            "comment": "client 1 leaves out its second shell",
            "derived_from": "shells.json#server",
            "input": {"role": "server", "steps": [{"do": "start"}, receive(played["notice"]), receive(frame)]},
            "error": {"type": "DecodeError"},
        }
    )
    return found | {"spec": "protocols/shells/SPEC.md §9"}


# ---- faults


def faults(played: dict[str, Any]) -> dict[str, Any]:
    p, people = played["p"], played["people"]
    one = played["clients"][1]
    good, body = one["frame"], one["body"]

    def signed(body: bytes, by: Signer | None = None, who: int = 1) -> bytes:
        return (by or people[who]).frame(p, ref.ENCRYPTED_INPUT, who, SERVER, body)

    def patched(at: int, frame: bytes = good) -> bytes:
        covered = bytearray(frame[:-16])
        covered[at] ^= 1
        return bytes(covered) + checksum(bytes(covered))

    other = replace(p, round=p.round + 1)
    wide = bytearray(body)
    wide[64 : 64 + 4] = b"\xff" * 4
    at, count = 64, ref.used(p, 0)
    for place, size in ((at, 4), (at + 4 * count, 2), (at + 6 * count, 1)):
        wide[place : place + size] = b"\xff" * size
    wide[at + 7 * count] |= 15
    start = HEADER.size
    to_server: dict[str, tuple[str, bytes, str, list[int]]] = {
        "bit-on-the-way": (
            "a bit of a ciphertext flips",
            good[:200] + bytes([good[200] ^ 1]) + good[201:],
            "DecodeError",
            [],
        ),
        "bit-with-checksum": (
            "likewise, and the checksum is made right",
            patched(start + 70),
            "AuthenticationError",
            [],
        ),
        "seed-with-checksum": ("a bit of the seed", patched(start + 40), "AuthenticationError", []),
        "signature-bit": ("a bit of the signature", patched(len(good) - 20), "AuthenticationError", []),
        "signed-by-another": ("client 5 signs as client 1", signed(body, people[5]), "AuthenticationError", []),
        "not-in-the-directory": (
            "a stranger",
            signed(body, Signer(drawn("stranger", 32)), 77),
            "AuthenticationError",
            [],
        ),
        "another-key": ("signed, under another key", signed(bytes(32) + body[32:]), "FaultyClientError", [1]),
        "residue-too-large": ("signed, a residue of 2^60 − 1", signed(bytes(wide)), "FaultyClientError", [1]),
        "one-byte-short": ("signed, a byte less", signed(body[:-1]), "DecodeError", []),
        "another-round": (
            "of the next round",
            people[1].frame(other, ref.ENCRYPTED_INPUT, 1, SERVER, body),
            "DecodeError",
            [],
        ),
    }
    tests = [
        {
            "id": name,
            "comment": comment,
            "derived_from": "roles.json#server",
            "input": {"role": "server", "steps": [{"do": "start"}, receive(played["notice"]), receive(frame)]},
            "error": {"type": error, "blamed": blamed} if blamed else {"type": error},
        }
        for name, (comment, frame, error, blamed) in to_server.items()
    ]
    second = of_server(played, receive(signed(body[:64] + played["clients"][5]["body"][64:])))
    tests.append(
        {
            "id": "two-vectors",
            "comment": "client 1 sends a second, signed",
            "derived_from": "roles.json#server",
            "input": second,
            "error": {"type": "FaultyClientError", "blamed": [1]},
        }
    )
    holder = people[KEY_HOLDER]
    changed = holder.frame(p, ref.PUBLIC_KEY, KEY_HOLDER, 1, bytes(32))
    forged = people[SERVER].frame(p, ref.PUBLIC_KEY, KEY_HOLDER, 1, played["identity"])
    for name, comment, frame, error in (
        (
            "key-of-another",
            "the key holder announces a key that the client was not given",
            changed,
            "FaultyServerError",
        ),
        ("key-signed-by-the-server", "the server poses as the key holder", forged, "AuthenticationError"),
    ):
        tests.append(
            {
                "id": name,
                "comment": comment,
                "derived_from": "roles.json#client-1",
                "input": {"role": "client", "me": 1, "tokens": [], "steps": [{"do": "start"}, receive(frame)]},
                "error": {"type": error},
            }
        )
    lonely = ref.sum_body(p, played["identity"], [1], played["total"])
    tests.append(
        {
            "id": "one-survivor",
            "comment": "the server asks to open a single client",
            "derived_from": "roles.json#key-holder",
            "input": {
                "role": "key_holder",
                "steps": [
                    {"do": "start"},
                    receive(people[SERVER].frame(p, ref.ENCRYPTED_SUM, SERVER, KEY_HOLDER, lonely)),
                ],
            },
            "error": {"type": "ProtocolError"},
        }
    )
    # Three claimed, two summed: digits do not tell, the lattice does, since each client's coefficients are centred.
    moved = {
        at: ([[(x + 12345) % ref.SETS[p.set][2][0] for x in row] for row in c0], c1)
        for at, (c0, c1) in played["total"].items()
    }
    off = ref.sum_body(p, played["identity"], SURVIVORS, moved)
    tests.append(
        {
            "id": "off-the-lattice",
            "comment": "12345 is added to every coefficient of c0",
            "derived_from": "roles.json#key-holder",
            "input": {
                "role": "key_holder",
                "steps": [
                    {"do": "start"},
                    receive(people[SERVER].frame(p, ref.ENCRYPTED_SUM, SERVER, KEY_HOLDER, off)),
                ],
            },
            "error": {"type": "DecodeError"},
        }
    )
    return {
        "spec": "protocols/ckks-sum/SPEC.md §8",
        "description": "As in roles.json; the last step must give the error, raised or as the reason of an abort.",
        "groups": [group("play", tests, **common(played))],
    }


def transcript(played: dict[str, Any]) -> str:
    """Every frame of the session, in the order sent."""
    frames = [(KEY_HOLDER, SERVER, played["notice"])]
    frames += [(KEY_HOLDER, who, frame) for who, frame in played["announced"].items()]
    frames += [(who, SERVER, played["clients"][who]["frame"]) for who in SURVIVORS]
    frames += [(SERVER, KEY_HOLDER, played["request"]), (KEY_HOLDER, SERVER, played["answer"])]
    lines = [{"from": a, "to": b, "kind": frame[2], "frame": frame.hex()} for a, b, frame in frames]
    return "".join(json.dumps(line) + "\n" for line in lines)
