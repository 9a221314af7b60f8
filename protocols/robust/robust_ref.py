"""Reference for protocols/robust/SPEC.md §3 to §5: the rules on integers in the clear. No code of securefl/."""

from __future__ import annotations


class Refused(Exception):
    """``args[0]`` is the name of the error in the SPEC."""


def need(condition: bool, error: str) -> None:
    if not condition:
        raise Refused(error)


def signed(word: int) -> int:
    """A 64-bit word as a signed number."""
    return word - 2**64 if word >= 2**63 else word


def vet(rows: list[list[int]], largest: int, bound: int | None) -> list[bool]:
    """§3, for words of any value."""
    need(largest >= 1 and len(rows[0]) * largest**2 < 2**62, "ConfigurationError")
    verdicts = []
    for row in rows:
        values = [signed(word) for word in row]
        in_range = all(-largest <= value <= largest for value in values)
        verdicts.append(in_range and (bound is None or sum(value**2 for value in values) <= bound))
    return verdicts


def accepted_sum(rows: list[list[int]], accepted: list[bool]) -> list[int]:
    """§4.1."""
    return [sum(value for value, ok in zip(column, accepted, strict=True) if ok) for column in zip(*rows, strict=True)]


def median(rows: list[list[int]]) -> list[int]:
    """§4.2: twice the median."""
    n = len(rows)
    return [sorted(column)[(n - 1) // 2] + sorted(column)[n // 2] for column in zip(*rows, strict=True)]


def trimmed_sum(rows: list[list[int]], trim: int) -> list[int]:
    """§4.3."""
    n = len(rows)
    need(trim >= 0 and 2 * trim < n, "ConfigurationError")
    return [sum(sorted(column)[trim : n - trim]) for column in zip(*rows, strict=True)]


def multi_krum(rows: list[list[int]], faulty: int, chosen: int) -> list[int]:
    """§4.4."""
    n = len(rows)
    need(faulty >= 0 and 2 * faulty + 2 < n and 1 <= chosen <= n - faulty, "ConfigurationError")
    scores = []
    for at, row in enumerate(rows):
        distances = sorted(
            sum((a - b) ** 2 for a, b in zip(row, other, strict=True)) for i, other in enumerate(rows) if i != at
        )
        scores.append((sum(distances[: n - faulty - 2]), at))
    best = [at for _, at in sorted(scores)[:chosen]]
    return [sum(rows[at][i] for at in best) for i in range(len(rows[0]))]


def count_correct(logits: list[list[int]], labels: list[int]) -> int:
    """§5."""
    return sum(row[label] >= max(row) for row, label in zip(logits, labels, strict=True))
