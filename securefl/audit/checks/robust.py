"""Vectors of the rules on shared updates, by three parties in threads. SPEC: protocols/robust."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.cluster.threads import run_parties
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party
from securefl.mpc.robust import accepted_sum, count_correct, median, multi_krum, trimmed_sum, vet
from securefl.mpc.shared import Shared

__all__ = ["CHECKS"]


def held(party: Party, words: Words) -> Shared:
    """A party's part of a tensor of integers, of which server 0 has all: the rules do not depend on the split."""
    part = None if party.is_helper else words.copy() if party.me == 0 else np.zeros_like(words)
    return Shared(party, words.shape, 0, part)


def _matrix(rows: list[list[str]]) -> Words:
    return np.array([[int(word) for word in row] for row in rows], dtype=np.uint64)


def _vet(case: Case) -> None:
    rows, largest = _matrix(case.input["rows"]), case.input["largest"]
    bound = None if case.input["bound"] is None else int(case.input["bound"])

    def step() -> Any:
        return run_parties(lambda party: vet(held(party, rows), largest, bound))

    if case.error is not None:
        refused(case.error, step)
        return
    results = step()
    for server in (0, 1):
        expect("the verdicts", results[server].tolist(), case.expected["accepted"])


def _rule(case: Case) -> None:
    given = case.input
    rows = _matrix(given["rows"])
    rules: Mapping[str, Callable[[Party, Shared], Any]] = {
        "accepted_sum": lambda party, x: accepted_sum(
            x, None if party.is_helper else np.array(given["accepted"], dtype=bool)
        ),
        "median": lambda party, x: median(x),
        "trimmed_sum": lambda party, x: trimmed_sum(x, given["trim"]),
        "multi_krum": lambda party, x: multi_krum(x, given["faulty"], given["chosen"], given["largest"]),
    }

    def step() -> Any:
        return run_parties(lambda party: rules[given["rule"]](party, held(party, rows)))

    if case.error is not None:
        refused(case.error, step)
        return
    results = step()
    for server in (0, 1):
        expect("the result", [str(value) for value in results[server].tolist()], case.expected["result"])


def _count(case: Case) -> None:
    logits = _matrix(case.input["logits"])
    labels = np.eye(logits.shape[1], dtype=np.uint64)[case.input["labels"]]
    noise = [*case.input["noise"], 0]
    results = run_parties(lambda party: count_correct(held(party, logits), held(party, labels), noise[party.me]))
    for server in (0, 1):
        expect("the count", results[server], case.expected["count"])


CHECKS: Final[Mapping[str, Check]] = {"vet": _vet, "rule": _rule, "count": _count}
