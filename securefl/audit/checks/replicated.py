"""Vectors of replicated sharing among three servers. SPEC: protocols/mpc-replicated/SPEC.md §2 to §6."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.audit.checks.mpc import (
    Links,
    at_all_parties,
    check_batches,
    check_stream,
    product_of,
    tournament_of,
    words_of,
)
from securefl.mpc.bits import Bits
from securefl.mpc.channel import PARTIES
from securefl.mpc.operations import mul, negative, relu_and_sign, select, settle, truncate
from securefl.mpc.replicated import ReplicatedParty
from securefl.mpc.shared import Shared

__all__ = ["CHECKS"]


def _run(operation: str, places: int, operands: list[Shared]) -> tuple[Shared | None, Bits | None]:
    x = operands[0]
    bits: Bits | None = None
    result: Shared | None = None
    if operation in {"product", "double-product"}:
        result = product_of(operation, operands)
        settle(result)
    elif operation == "tournament":
        result = tournament_of(operands)
    elif operation == "truncate":
        result = truncate(x, places)
    elif operation == "truncated-product":
        result = truncate(mul(x, operands[1]), places)
    elif operation == "negative":
        bits = negative(x)
    elif operation == "select":
        bits = negative(x)
        result = select(bits, operands[1])
    else:
        x = x if operation == "relu" else product_of(operation.removeprefix("relu-of-"), operands)
        result, bits = relu_and_sign(x, places)
    return result, bits


def _operation(case: Case) -> None:
    given = case.input
    links = Links(given.get("spoil"))
    keys = [bytes.fromhex(key) for key in given["keys"]]

    def work(me: int) -> tuple[Shared | None, Bits | None]:
        after, before = (me + 1) % PARTIES, (me - 1) % PARTIES
        party = ReplicatedParty.with_keys(links.channels[me], {before: keys[me], after: keys[after]})
        operands = []
        for components in given["components"]:
            part, second = words_of(components[me]), words_of(components[after])
            operands.append(Shared(party, part.shape, 62, part, second=second))
        try:
            return _run(given["operation"], given["places"], operands)
        finally:
            links.channels[me].close()

    if case.error is not None:
        refused(case.error, lambda: at_all_parties(work))
        return
    results = at_all_parties(work)
    for link, messages in case.expected["messages"].items():
        expect(f"the messages {link}", links.sent.get(link), messages)
    expect("the links used", sorted(links.sent), sorted(case.expected["messages"]))
    for me, (result, bits) in enumerate(results):
        if result is not None:
            for component, half in ((me, result.part), ((me + 1) % PARTIES, result.second)):
                wanted = case.expected["result"][component]
                found = [] if half is None else [str(word) for word in half.tolist()]
                expect(f"component {component} of the result at party {me}", found, wanted)
        if bits is not None:
            planes = [results[other][1] for other in range(PARTIES)]
            total = np.bitwise_xor.reduce([plane.part for plane in planes if plane is not None])
            found_signs = np.unpackbits(total, count=bits.size).tolist()
            expect("the signs", found_signs, case.expected["signs"])


CHECKS: Final[Mapping[str, Check]] = {
    "stream": partial(check_stream, ReplicatedParty),
    "batches": partial(check_batches, ReplicatedParty, 1),
    "operation": _operation,
}
