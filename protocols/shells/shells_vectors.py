"""The vectors of nested shells, made by shells_ref."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import shells_ref as ref
from secagg_known_answers import MODEL, expand, params_json
from secagg_ref import Fault, key

BASE = ref.ShellParams(
    clients=(2, 3, 5, 8, 13, 21, 34),
    dimension=18,
    max_value=1000,
    threshold=4,
    session=b"shells",
    round=3,
    model_hash=MODEL,
    suite="x25519",
    sizes=(5, 6, 7),
    tiers=(3, 1, 2, 3, 2, 3, 1),
    minimum_holders=2,
)


def files() -> dict[str, dict[str, Any]]:
    return {"vectors/params.json": params(), "vectors/opened.json": which(), "vectors/sums.json": sums()}


def blocks() -> dict[str, str]:
    return {}


def as_json(p: ref.ShellParams) -> dict[str, Any]:
    shells = {"sizes": list(p.sizes), "tiers": list(p.tiers), "minimum_holders": p.minimum_holders}
    return {**params_json(p), "shells": shells}


def group(operation: str, tests: list[dict[str, Any]], **common: Any) -> dict[str, Any]:
    return {"operation": operation, "params": common, "tests": tests}


def params() -> dict[str, Any]:
    cases: dict[str, tuple[str, ref.ShellParams]] = {
        "base": ("three shells, seven clients", BASE),
        "one-shell": ("a single shell is not the same session as none", replace(BASE, sizes=(18,), tiers=(1,) * 7)),
        "tiers": ("another client's tier", replace(BASE, tiers=(3, 1, 2, 3, 2, 3, 2))),
        "sizes": ("other sizes, the same dimension", replace(BASE, sizes=(6, 5, 7))),
        "minimum": ("another least number of holders", replace(BASE, minimum_holders=3)),
        "nobody": ("a shell that nobody of the cohort holds", replace(BASE, tiers=(2, 1, 2, 2, 2, 1, 1))),
        "encoding": ("what else clients agree on", replace(BASE, encoding=bytes(range(32)))),
        "dimension": ("sizes that do not add up to the dimension", replace(BASE, dimension=17)),
        "tier-zero": ("a tier of 0", replace(BASE, tiers=(3, 0, 2, 3, 2, 3, 1))),
        "tier-beyond": ("a tier beyond the shells", replace(BASE, tiers=(3, 1, 2, 4, 2, 3, 1))),
        "tiers-missing": ("a client without a tier", replace(BASE, tiers=(3, 1, 2, 3, 2, 3))),
        "empty-shell": ("a shell without integers", replace(BASE, sizes=(5, 13, 0))),
        "minimum-one": ("a shell opened over one client", replace(BASE, minimum_holders=1)),
        "minimum-beyond": ("a least number beyond the threshold", replace(BASE, minimum_holders=5)),
    }
    tests = []
    for name, (comment, p) in cases.items():
        test: dict[str, Any] = {"id": name, "comment": comment}
        try:
            ref.check(p)
            tests.append(test | {"input": as_json(p), "expected": {"context_hash": p.context.hex()}})
        except Fault as fault:
            error = {"type": fault.error}
            tests.append(test | {"derived_from": "params.json#base", "input": as_json(p), "error": error})
    return {
        "spec": "protocols/shells/SPEC.md §2",
        "description": "Parameters with shells and the context hash, or the refusal.",
        "groups": [group("params", tests)],
    }


def which() -> dict[str, Any]:
    """Every rule of §4 at its edge."""
    cohort = replace(
        BASE, clients=tuple(range(1, 13)), tiers=(1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), threshold=7, minimum_holders=3
    )
    cases = {
        "all": ("nobody dropped", list(range(1, 13))),
        "top-at-the-minimum": ("as many holders of the top shell as must be", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        "top-below": ("one fewer: it stays closed", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        "difference-too-small": ("two clients hold shell 1 only: shell 2 stays closed", [1, 2, 5, 6, 7, 8, 9, 10, 11]),
        "difference-none": ("nobody holds shell 1 only: shells 1 and 2 have one cohort", [5, 6, 7, 8, 9, 10, 11, 12]),
        "middle-closed": ("shell 3 is compared with shell 1, the last that opened", [1, 2, 5, 6, 9, 10, 11, 12]),
        "only-the-first": ("too few of any higher tier", [1, 2, 3, 4, 5, 6, 9]),
        "one-left-out": ("one client holds shells 1 and 2 only", [1, 2, 3, 5, 9, 10, 11, 12]),
    }
    tests = [
        {
            "id": name,
            "comment": comment,
            "input": {"survivors": alive},
            "expected": {"shells": ref.opened(cohort, alive)},
        }
        for name, (comment, alive) in cases.items()
    ]
    return {
        "spec": "protocols/shells/SPEC.md §4",
        "description": "Which shells are opened over which survivors.",
        "groups": [group("opened", tests, **as_json(cohort))],
    }


def secrets(p: ref.ShellParams) -> tuple[dict[int, bytes], dict[int, list[bytes]], dict[int, list[int]]]:
    """Mask seeds, self-mask seeds and integers of every client, expanded from names."""
    mask = {i: expand(32, "shells", i, "mask_seed") for i in p.clients}
    own = {i: [expand(32, "shells", i, "self_seed", k) for k in range(1, p.tier(i) + 1)] for i in p.clients}
    values = {}
    for i in p.clients:
        count = sum(p.sizes[: p.tier(i)])
        drawn = expand(2 * count, "shells", i, "values")
        values[i] = [int.from_bytes(drawn[2 * at : 2 * at + 2], "big") % (p.max_value + 1) for at in range(count)]
    return mask, own, values


def sums() -> dict[str, Any]:
    cases = {
        "nobody-dropped": ("all seven: every shell opens", ()),
        "one-dropped": ("a client of the top tier dropped: its masks come off all its shells", (8,)),
        "top-closed": ("one holder of shell 3 is left: the shell stays closed", (8, 21)),
        "low-tiers-dropped": ("nobody is left that holds shell 1 only", (3, 34)),
        "difference": ("one client is left that holds shell 1 only: shells 1 and 2 differ by it", (34,)),
    }
    mask, own, values = secrets(BASE)
    pairs = {(i, j): key(BASE, mask[i], "pair-secret", i, j) for i in BASE.clients for j in BASE.clients if i < j}
    sent = {
        i: ref.masked_input(
            BASE, i, values[i], own[i], {j: pairs[min(i, j), max(i, j)] for j in BASE.clients if j != i}
        )
        for i in BASE.clients
    }
    inputs = [
        {
            "id": f"client-{i}",
            "comment": f"a client of tier {BASE.tier(i)}",
            "input": {
                "client": i,
                "self_seeds": [seed.hex() for seed in own[i]],
                "pair_secrets": {str(j): pairs[min(i, j), max(i, j)].hex() for j in BASE.clients if j != i},
                "values": values[i],
            },
            "expected": {
                "commitments": [ref.commitment(BASE, i, k, seed).hex() for k, seed in enumerate(own[i], start=1)],
                "words": [str(word) for word in sent[i]],
            },
        }
        for i in BASE.clients
    ]
    tests = []
    for name, (comment, dropped) in cases.items():
        survivors = [i for i in BASE.clients if i not in dropped]
        shells = ref.opened(BASE, survivors)
        seeds = {i: [own[i][k - 1] for k in shells if k <= BASE.tier(i)] for i in survivors}
        found = ref.open_sum(BASE, {i: sent[i] for i in survivors}, seeds, pairs, list(dropped))
        plain = [0] * BASE.dimension
        for shell in shells:
            start = sum(BASE.sizes[: shell - 1])
            for at in range(start, start + BASE.sizes[shell - 1]):
                plain[at] = sum(values[i][at] for i in survivors if BASE.tier(i) >= shell)
        if found != plain:
            raise SystemExit(f"shells_ref does not open {name}")
        tests.append(
            {
                "id": name,
                "comment": comment,
                "input": {
                    "masked": {str(i): [str(word) for word in sent[i]] for i in survivors},
                    "self_seeds": {str(i): [seed.hex() for seed in seeds[i]] for i in survivors},
                    "mask_seeds": {str(i): mask[i].hex() for i in dropped},
                    "pair_secrets": {
                        f"{i},{j}": pairs[i, j].hex() for i, j in pairs if j in dropped and i in survivors
                    },
                },
                "expected": {"shells": shells, "values": [str(value) for value in found]},
            }
        )
    digest = hashlib.sha256(b"shells roster").hexdigest()
    return {
        "spec": "protocols/shells/SPEC.md §5",
        "description": (
            "masked_input: a client's words from its integers and secrets. sum: the sums of the opened shells (0 "
            "elsewhere) from the survivors' words, their self-mask seeds of the opened shells, the mask seeds of the "
            "dropped, and what lower survivors had sealed to the dropped (pair_secrets, by 'lower,higher')."
        ),
        "groups": [group("masked_input", inputs, **as_json(BASE)), group("sum", tests, **as_json(BASE), roster=digest)],
    }
