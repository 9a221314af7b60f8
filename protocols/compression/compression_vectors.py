"""The vectors of compression, made by compression_ref."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import compression_ref as ref
import payload_ref

SEED = hashlib.sha256(b"protocols/compression").digest()
SECRET = hashlib.sha256(b"protocols/compression rounding").digest()


def files() -> dict[str, dict[str, Any]]:
    return {
        "vectors/lanes.json": lanes(),
        "vectors/rotation.json": rotation(),
        "vectors/coders.json": coders(),
        "vectors/tail.json": tail(),
        "vectors/weights.json": weights(),
        "vectors/payload.json": payload(),
    }


def blocks() -> dict[str, str]:
    return {}


def numbers(count: int, span: int, name: str) -> list[int]:
    """Integers in [−span, span], expanded from a name."""
    data = hashlib.shake_256(name.encode()).digest(2 * count)
    return [int.from_bytes(data[2 * i : 2 * i + 2], "big") % (2 * span + 1) - span for i in range(count)]


def floats(values: list[float]) -> list[str]:
    return [float(value).hex() for value in values]


def group(operation: str, tests: list[dict[str, Any]], **params: Any) -> dict[str, Any]:
    return {"operation": operation, "params": params, "tests": tests}


#: The accepted test from which a refused one differs in one place.
BASES = {
    "window-too-small": "lanes.json#ternary-exact",
    "one-level": "rotation.json#ternary",
    "none": "coders.json#tenth",
    "too-many": "coders.json#tenth",
    "unweighted-client": "payload.json#chain",
    "sum-outside-the-window": "payload.json#chain",
    "weight-zero": "tail.json#plain",
    "weight-beyond": "tail.json#plain",
}


def test(name: str, comment: str, given: dict[str, Any], make: Callable[[], Any]) -> dict[str, Any]:
    base = {"id": name, "comment": comment}
    try:
        return base | {"input": given, "expected": {"result": make()}}
    except ref.CompressionError as error:
        return base | {"derived_from": BASES[name], "input": given, "error": {"type": error.args[0]}}


def lanes() -> dict[str, Any]:
    context = []
    for name, segments, encoding in (
        ("uniform", [], ""),
        ("segments", [[1728, 2, 40], [7, 65535, 0]], "aa" * 32),
        ("encoding-only", [], "01" * 32),
    ):
        fields = [part.hex() for part in ref.extra_fields(segments, bytes.fromhex(encoding))]
        context.append(test(name, "", {"segments": segments, "encoding": encoding}, lambda fields=fields: fields))
    radix = []
    for name, dimension, largest, window, clients in (
        ("one-value", 1, 2, 41, 20),
        ("ternary-exact", 50, 2, 56, 20),
        ("ternary-narrow", 50, 2, 23, 20),
        ("levels-255", 20, 254, 5081, 20),
        ("window-too-small", 5, 6, 6, 2),
    ):
        rows = [
            [abs(v) % (largest + 1) for v in numbers(dimension, 9999, f"{name} {client}")] for client in range(clients)
        ]

        def make(rows: Any = rows, d: int = dimension, m: int = largest, w: int = window) -> dict[str, Any]:
            packed = [ref.radix_pack(row, m, w) for row in rows]
            total = [sum(column) % 2**64 for column in zip(*packed, strict=True)]
            sums = ref.radix_unpack(total, d, m, w, len(rows))
            return {
                "first_words": list(map(str, packed[0])),
                "total_words": list(map(str, total)),
                "sums": list(map(str, sums)),
            }

        comment = "sums stay in the window" if "window" not in name else "a single value leaves the window"
        given = {"max_value": largest, "window": window, "rows": rows}
        radix.append(test(name, comment, given, make))
    over = [[2, 1, 0]] * 20
    words = [sum(ref.radix_pack(row, 2, 23)[i] for row in over) % 2**64 for i in range(1)]
    given = {"max_value": 2, "window": 23, "rows": over}
    radix.append(
        test(
            "wrap",
            "sums of 40 and 0 lie outside the window of 23 around 20: they come back wrong, and the check of §7 tells",
            given,
            lambda: {
                "first_words": list(map(str, ref.radix_pack(over[0], 2, 23))),
                "total_words": list(map(str, words)),
                "sums": list(map(str, ref.radix_unpack(words, 3, 2, 23, 20))),
            },
        )
    )
    widest = []
    for window in (3, 20, 30, 41, 5081, 65536):
        found = {"per_word": ref.digits_per_word(window), "widest": ref.widest_window(window)}
        widest.append(test(f"window-{window}", "", {"window": window}, lambda found=found: found))
    return {
        "spec": "protocols/compression/SPEC.md §3",
        "description": "context: the fields appended to the context hash. radix: pack every row, add the words modulo "
        "2^64, read the sums over all rows. widest: digits per word and the widest window with as many.",
        "groups": [group("context", context), group("radix", radix), group("widest", widest)],
    }


def rotation() -> dict[str, Any]:
    public = []
    for purpose, round in (("random_k", 0), ("rotation 0", 7), ("powersgd", 2**32 - 1)):
        key, name = ref.public_key(SEED, round, purpose).hex(), purpose.replace(" ", "-").replace("_", "-")
        public.append(test(name, "", {"round": round, "purpose": purpose}, lambda key=key: key))
    turn, grid = [], []
    for size in (1, 3, 64, 100, 130):
        x = numbers(size, 50, f"x {size}")
        key = ref.public_key(SEED, 1, "rotation 0")
        turn.append(test(f"size-{size}", "", {"values": x}, lambda x=x, k=key: list(map(int, ref.rotate(x, k)))))
    for name, size, levels, clip in (
        ("ternary", 100, 3, 60.0),
        ("seven", 130, 7, 100.0),
        ("clipped", 64, 3, 10.0),
        ("two", 3, 2, 40.0),
        ("largest", 100, 255, 80.0),
        ("one-level", 64, 1, 10.0),
    ):
        x = numbers(size, 50, f"grid {name}")

        def make(x: Any = x, levels: int = levels, clip: float = clip) -> dict[str, Any]:
            key = ref.public_key(SEED, 1, "rotation 0")
            integers = ref.rotated_encode(x, levels, clip, key, SECRET)
            back = ref.rotated_decode([3 * v for v in integers], len(x), levels, clip, key, 3)
            return {"integers": integers, "decoded": floats(back)}

        given = {"values": x, "levels": levels, "clip_range": clip.hex()}
        grid.append(test(name, "decoded: three clients with these integers", given, make))
    return {
        "spec": "protocols/compression/SPEC.md §5",
        "description": "public_key: of seed, round and purpose. rotate: the unscaled rotation, round 1, purpose "
        '"rotation 0", entry by entry. rotated: integers under that rotation with the client seed given, and the sum '
        "of three such vectors decoded.",
        "groups": [
            group("public_key", public, seed=SEED.hex()),
            group("rotate", turn, seed=SEED.hex()),
            group("rotated", grid, seed=SEED.hex(), secret=SECRET.hex()),
        ],
    }


def coders() -> dict[str, Any]:
    chosen = []
    for name, dimension, kept, round in (
        ("all", 5, 5, 1),
        ("tenth", 1000, 100, 1),
        ("uneven", 97, 13, 2),
        ("none", 10, 0, 1),
        ("too-many", 10, 11, 1),
    ):

        def make(d: int = dimension, k: int = kept, r: int = round) -> dict[str, Any]:
            positions, sizes = ref.support(d, k, ref.public_key(SEED, r, "random_k"))
            return {"positions": positions, "sizes": sizes}

        chosen.append(test(name, "", {"dimension": dimension, "kept": kept, "round": round}, make))
    projected = []
    for size, kept in ((64, 16), (100, 25)):
        x = numbers(size, 50, f"projection {size}")
        sent = floats(ref.project(x, kept, SEED, 4))
        given = {"values": x, "kept": kept, "round": 4}
        projected.append(test(f"size-{size}", "", given, lambda sent=sent: sent))
    starts = [
        test(
            "two-tensors",
            "",
            {"columns": [3, 5], "rank": 2, "round": 1},
            lambda: [[floats(row) for row in matrix] for matrix in ref.powersgd_start([3, 5], 2, SEED, 1)],
        )
    ]
    bases = []
    for name, matrix in (
        ("independent", [[3, 1], [4, 2], [0, 5]]),
        ("dependent", [[1, 2], [2, 4], [3, 6]]),
        ("zero", [[0, 0], [0, 0]]),
    ):
        rows = [floats(row) for row in ref.orthonormal([list(map(float, row)) for row in matrix])]
        comment = "a column without direction becomes zero"
        bases.append(test(name, comment, {"matrix": matrix}, lambda rows=rows: rows))
    return {
        "spec": "protocols/compression/SPEC.md §6",
        "description": "support: positions and stratum sizes of random-k. projection: the values sent. powersgd_start: "
        "the public Q of the first round. orthonormal: within 1e-6 of the expected values.",
        "groups": [
            group("support", chosen, seed=SEED.hex()),
            group("projection", projected, seed=SEED.hex()),
            group("powersgd_start", starts, seed=SEED.hex()),
            group("orthonormal", bases),
        ],
    }


def tail() -> dict[str, Any]:
    tests = []
    for name, weight, bound, energy, check in (
        ("plain", 17, 256, 0.5, False),
        ("checked", 200, 256, 1.25, True),
        ("large-weight", 70000, 2**20, 0.0, True),
        ("saturated", 1, 1, 1e9, False),
        ("weight-zero", 0, 256, 0.5, False),
        ("weight-beyond", 257, 256, 0.5, False),
    ):
        values = [abs(v) % 3 for v in numbers(600, 999, f"tail {name}")]
        given = {"weight": weight, "max_weight": bound, "energy": energy.hex(), "check": check, "values": values}
        arguments = (weight, bound, energy, values, 2, check)
        tests.append(test(name, "", given, lambda arguments=arguments: ref.tail(*arguments)))
    return {
        "spec": "protocols/compression/SPEC.md §7",
        "description": "tail: the integers behind the values, for values up to max_value.",
        "groups": [group("tail", tests, max_value=2)],
    }


def weights() -> dict[str, Any]:
    tests = []
    for name, bits, values in (
        ("eight-bits", 8, [v / 64 for v in numbers(131, 500, "weights 8")]),
        ("four-bits", 4, [v / 64 for v in numbers(131, 500, "weights 4")]),
        ("zeros", 4, [0.0] * 65),
    ):
        data = ref.encode_weights(values, bits).hex()
        tests.append(test(name, "", {"bits": bits, "values": floats(values)}, lambda data=data: data))
    return {
        "spec": "protocols/compression/SPEC.md §9",
        "description": "weights: the bytes of a tensor of one row with these float32 values.",
        "groups": [group("weights", tests)],
    }


def payload() -> dict[str, Any]:
    windows = []
    for name, clients, levels, mean_square, sum_square in (
        ("even", 20, 3, 1e-4, 2e-3),
        ("odd", 20, 4, 1e-4, 2e-3),
        ("exact-is-narrower", 3, 3, 1.0, 50.0),
        ("one-client", 1, 15, 0.25, 0.25),
        ("aligned-clients", 100, 15, 1e-6, 1e-2),
    ):
        given = {"clients": clients, "levels": levels, "clip_multiple": (3.0).hex()}
        given |= {"mean_square": mean_square.hex(), "sum_square": sum_square.hex()}
        found = payload_ref.window(clients, levels, 3.0, mean_square, sum_square)
        windows.append(test(name, "", given, lambda found=found: found))
    sums = []
    chain = {"clients": 20, "size": 60, "kept": 24, "levels": 3, "spread": 0.125}
    for name, comment, shape in (
        ("rotated", "no linear coder", {"clients": 3, "size": 40, "kept": None, "levels": 3, "spread": 1.0}),
        ("chain", "random_k, then the rotated grid in narrow lanes", chain),
        (
            "pruned-chain",
            "a mask, random_k of what it leaves, then fifteen levels",
            {"clients": 3, "size": 90, "kept": 40, "levels": 15, "spread": 1.0, "mask": True},
        ),
        ("unweighted-client", "", chain | {"weights": [0] + [64] * 19}),
        (
            "sum-outside-the-window",
            "all clients alike, in a window for unlike ones",
            chain | {"alike": True, "weights": [256] * 20},
        ),
    ):
        clients, size = shape["clients"], shape["size"]
        rows = [[float(v) for v in numbers(size, 40, f"{name} {client}")] for client in range(clients)]
        if "alike" in shape:
            rows = [rows[0]] * clients
        case: dict[str, Any] = {
            "updates": rows,
            "weights": shape.get("weights", [64 << client % 3 for client in range(clients)]),
            "max_weight": 256,
            "levels": shape["levels"],
            "clip_multiple": 3.0,
            "mean_square": 240.0,
            "sum_square": 240.0 * clients * shape["spread"],
            "kept": shape["kept"],
            "mask": [v % 3 != 0 for v in numbers(size, 500, f"mask {name}")] if "mask" in shape else None,
        }
        secrets = [hashlib.sha256(f"{name} {client}".encode()).digest() for client in range(clients)]
        given = {k: v.hex() if isinstance(v, float) else v for k, v in case.items()}
        given |= {"updates": [list(map(int, row)) for row in rows], "secrets": [s.hex() for s in secrets]}
        case["secrets"] = secrets
        sums.append(test(name, comment, given, lambda case=case: payload_ref.payload(case, SEED, 5)))
    factors = []
    for name, height, columns, rank in (("one", 4, 6, 1), ("two", 7, 9, 2)):
        updates = [
            [[float(v) for v in numbers(columns, 9, f"powersgd {name} {client} {row}")] for row in range(height)]
            for client in range(3)
        ]
        made = payload_ref.powersgd(updates, rank, SEED, 1)
        result = {key: [floats(row) for row in matrix] for key, matrix in made.items()}
        given = {"rank": rank, "round": 1, "updates": [[list(map(int, r)) for r in m] for m in updates]}
        factors.append(test(f"rank-{name}", "", given, lambda result=result: result))
    return {
        "spec": "protocols/compression/SPEC.md §7",
        "description": "window: of automatic width. payload: every client's integers of one sum in round 5 (values, "
        "then tail), the words of the values' total, and what it decodes to: mean of the update, weight, next mean "
        "square. powersgd: the means of both sums and the estimate, all within 1e-5 of the largest.",
        "groups": [
            group("window", windows),
            group("payload", sums, seed=SEED.hex(), round=5),
            group("powersgd", factors, seed=SEED.hex()),
        ],
    }
