"""The vectors of the rules on shared updates, made by robust_ref."""

from __future__ import annotations

from typing import Any

import robust_ref as ref
from Crypto.Hash import SHAKE256

LARGEST = 2**15 - 1


def files() -> dict[str, Any]:
    return {"vectors/vetting.json": vetting(), "vectors/rules.json": rules(), "vectors/count.json": counts()}


def blocks() -> dict[str, str]:
    return {}


def drawn(name: str, rows: int, columns: int, largest: int = LARGEST) -> list[list[int]]:
    raw = SHAKE256.new(f"robust/{name}".encode()).read(8 * rows * columns)
    numbers = [int.from_bytes(raw[at : at + 8], "big") % (2 * largest + 1) - largest for at in range(0, len(raw), 8)]
    return [numbers[at : at + columns] for at in range(0, len(numbers), columns)]


def words(rows: list[list[int]]) -> list[list[str]]:
    return [[str(value % 2**64) for value in row] for row in rows]


def texts(values: list[int]) -> list[str]:
    return [str(value) for value in values]


def refused(name: str, comment: str, origin: str, given: dict[str, Any]) -> dict[str, Any]:
    error = {"type": "ConfigurationError"}
    return {"id": name, "comment": comment, "derived_from": origin, "input": given, "error": error}


def vetting() -> dict[str, Any]:
    rows = drawn("vetting", 6, 5, 1000)
    bad = {
        "one-beyond": ("one more than the largest", 1, LARGEST + 1),
        "one-below": ("one less than the smallest", 1, -LARGEST - 1),
        "at-the-ends": ("exactly the largest: accepted", 1, LARGEST),
        "half-the-ring": ("2^63, whose square is 0", 2, 2**63),
        "small-square": ("2^32, whose square is 0 modulo 2^64", 3, 2**32),
        "just-below-zero": ("2^64 − 1 is −1: accepted", 4, 2**64 - 1),
        "2-62": ("2^62", 5, 2**62),
    }
    tests = []
    cases = {"in-range": ("nobody is out of range", rows)}
    for name, (comment, at, value) in bad.items():
        changed = [list(row) for row in rows]
        changed[at][3] = value
        cases[name] = (comment, changed)
    bound = sorted(sum(value**2 for value in row) for row in rows)[3]
    for name, (comment, matrix) in cases.items():
        given = [[value % 2**64 for value in row] for row in matrix]
        for limit in (None, bound):
            suffix = "" if limit is None else "-norm"
            tests.append(
                {
                    "id": name + suffix,
                    "comment": comment if limit is None else f"{comment}; three rows are longer than the bound",
                    "input": {
                        "rows": words(matrix),
                        "largest": LARGEST,
                        "bound": None if limit is None else str(limit),
                    },
                    "expected": {"accepted": ref.vet(given, LARGEST, limit)},
                }
            )
    for name, comment, largest in (
        ("headroom", "the squares do not fit", 2**31),
        ("largest-zero", "no range at all", 0),
    ):
        try:
            ref.vet([[0] * 5], largest, None)
        except ref.Refused:
            given = {"rows": words(rows), "largest": largest, "bound": None}
            tests.append(refused(name, comment, "vetting.json#in-range", given))
        else:
            raise AssertionError(name)
    return {
        "spec": "protocols/robust/SPEC.md §3",
        "description": "Of input.rows (words), those that expected.accepted marks are accepted; or input is refused.",
        "groups": [{"operation": "vet", "params": {}, "tests": tests}],
    }


def rules() -> dict[str, Any]:
    tests = []
    for n in (5, 8):
        rows = drawn(f"rules-{n}", n, 6)
        rows[1] = list(rows[0])  # equal values and equal scores
        accepted = [at % 3 != 1 for at in range(n)]
        for name, comment, given, result in (
            (
                "sum",
                "the accepted rows",
                {"rule": "accepted_sum", "accepted": accepted},
                ref.accepted_sum(rows, accepted),
            ),
            ("median", "twice the median", {"rule": "median"}, ref.median(rows)),
            ("untrimmed", "nothing is trimmed", {"rule": "trimmed_sum", "trim": 0}, ref.trimmed_sum(rows, 0)),
            ("trimmed", "two at each end", {"rule": "trimmed_sum", "trim": 2}, ref.trimmed_sum(rows, 2)),
            ("krum", "one is chosen", {"rule": "multi_krum", "faulty": 1, "chosen": 1}, ref.multi_krum(rows, 1, 1)),
            ("multi-krum", "three are", {"rule": "multi_krum", "faulty": 1, "chosen": 3}, ref.multi_krum(rows, 1, 3)),
        ):
            given = {"rows": words(rows), "largest": LARGEST, **given}
            tests.append(
                {"id": f"{name}-{n}", "comment": comment, "input": given, "expected": {"result": texts(result)}}
            )
    rows = drawn("rules-5", 5, 6)
    for name, comment, origin, given, call in (
        (
            "trim-too-many",
            "nobody would be left",
            "trimmed-5",
            {"rule": "trimmed_sum", "trim": 3},
            (ref.trimmed_sum, 3),
        ),
        (
            "krum-too-many-faulty",
            "2f + 2 = n is too many",
            "krum-5",
            {"rule": "multi_krum", "faulty": 2, "chosen": 1},
            (ref.multi_krum, 2, 1),
        ),
        (
            "krum-none-chosen",
            "none is chosen",
            "krum-5",
            {"rule": "multi_krum", "faulty": 1, "chosen": 0},
            (ref.multi_krum, 1, 0),
        ),
        (
            "krum-too-many-chosen",
            "a faulty one would be chosen",
            "krum-5",
            {"rule": "multi_krum", "faulty": 1, "chosen": 5},
            (ref.multi_krum, 1, 5),
        ),
    ):
        try:
            call[0](rows, *call[1:])
        except ref.Refused:
            given = {"rows": words(rows), "largest": LARGEST, **given}
            tests.append(refused(name, comment, f"rules.json#{origin}", given))
        else:
            raise AssertionError(name)
    return {
        "spec": "protocols/robust/SPEC.md §4",
        "description": "input.rule over input.rows opens expected.result, signed; or input is refused.",
        "groups": [{"operation": "rule", "params": {}, "tests": tests}],
    }


def counts() -> dict[str, Any]:
    logits = drawn("count", 12, 4, 2**20)
    labels = [max(range(4), key=row.__getitem__) if at % 3 else at % 4 for at, row in enumerate(logits)]
    logits[3] = [7, 7, 7, 7]  # a tie counts as right
    right = ref.count_correct(logits, labels)
    given = {"logits": words(logits), "labels": labels}
    tests = [
        {
            "id": "count",
            "comment": "twelve rows, one tie",
            "input": {**given, "noise": [0, 0]},
            "expected": {"count": right},
        },
        {
            "id": "noise",
            "comment": "both servers add noise",
            "input": {**given, "noise": [-9, 4]},
            "expected": {"count": right - 5},
        },
    ]
    return {
        "spec": "protocols/robust/SPEC.md §5",
        "description": "expected.count is opened for input.logits, input.labels; input.noise: the servers' integers.",
        "groups": [{"operation": "count", "params": {}, "tests": tests}],
    }
