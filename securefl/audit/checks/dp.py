"""Vectors of differential privacy: curves, Rényi bounds, noise, rounding, ledger rows. SPEC: protocols/dp/SPEC.md."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import numpy as np

from securefl import dp
from securefl.audit.checks import Case, Check, Mismatch, expect, refused
from securefl.dp.events import Skellam
from securefl.dp.ledger import LedgerRow
from securefl.dp.rdp import LAMBDAS, cumulant
from securefl.dp.rounding import l2_bound, round_update
from securefl.dp.sampler import noise_table

__all__ = ["CHECKS"]


def _within(what: str, found: float, least: float, most: float) -> None:
    if not least <= found <= most:
        raise Mismatch(f"{what} lies outside its proven bounds")


def _delta_of(case: Case) -> float:
    return dp.delta(
        noise_multiplier=float(case.input["noise_multiplier"]),
        sampling_probability=float(case.input["sampling_probability"]),
        rounds=case.input["rounds"],
        epsilon=float(case.input["epsilon"]),
        neighboring=case.params["neighboring"],
    )


def _delta(case: Case) -> None:
    if case.error is not None:
        refused(case.error, lambda: _delta_of(case))
        return
    exact = float(case.expected["delta"])
    _within("delta", _delta_of(case), exact * (1 - 1e-14), exact * 1.005)


def _delta_bracket(case: Case) -> None:
    _within("delta", _delta_of(case), float(case.expected["at_least"]), float(case.expected["at_most"]))


def _divergence(case: Case, sampling_probability: float) -> None:
    params = case.params
    event = Skellam(params["l2_sensitivity"], params["l1_sensitivity"], params["variance"], 1)
    at = int(np.flatnonzero(case.input["order"] - 1 == LAMBDAS)[0])
    found = float(cumulant(event, sampling_probability, False)[at] / LAMBDAS[at])
    exact = float(case.expected["epsilon"])
    _within("the divergence", found, exact * (1 - 1e-14), exact * (1 + 1e-8))


def _renyi(case: Case) -> None:
    _divergence(case, 1.0)


def _renyi_sampled(case: Case) -> None:
    _divergence(case, float(case.input["sampling_probability"]))


def _skellam(case: Case) -> None:
    table, expected = noise_table("skellam", Fraction(*case.input["variance"])), case.expected
    expect("the cut", table.bound, expected["cut"])
    expect("the number of slots", table.slot_bits, expected["slot_bits"])
    digest = hashlib.sha256()
    low = (1 << (64 - table.slot_bits)) - 1
    for prefix, rest in zip(table._thresholds, table._rest, strict=True):
        threshold = ((int(prefix) & low) << 128) | (int(rest[0]) << 64) | int(rest[1])
        digest.update(threshold.to_bytes(24, "big"))
    for alias in table._values[1::2]:
        digest.update((int(alias) + table.bound).to_bytes(4, "big"))
    expect("the table", digest.hexdigest(), expected["table_sha256"])
    secret = case.bytes("secret")
    expect("the draws", table.draw(secret, 40).tolist(), expected["drawn"])
    long = table.draw(secret, 20001).astype(">i8").tobytes()
    expect("a long draw", hashlib.sha256(long).hexdigest(), expected["drawn_20001_sha256"])


def _l2_bound(case: Case) -> None:
    scale, clip, beta = (float.fromhex(case.input[name]) for name in ("scale", "clip_norm", "beta"))
    found = l2_bound(scale, clip, case.input["dimension"], beta)
    if not math.isclose(found, float.fromhex(case.expected["l2"]), rel_tol=1e-12):
        raise Mismatch("the sensitivity differs")


def _round(case: Case) -> None:
    found = round_update(
        np.array([float.fromhex(x) for x in case.input["values"]]),
        scale=float.fromhex(case.input["scale"]),
        clip_norm=1.0,
        coordinate_bound=case.input["coordinate_bound"],
        l2=1e9,
        seed=case.bytes("seed"),
    )
    expect("the integers", found.tolist(), case.expected["integers"])


def _row_hash(case: Case) -> None:
    given = case.input
    cost, distance = float.fromhex(given["cost"]), float.fromhex(given["distance"])
    row = LedgerRow(given["position"], given["kind"], given["round"], given["content"], cost, distance, b"")
    expect("the hash", row.expected_hash(case.bytes("before")).hex(), case.expected["hash"])


CHECKS: Final[Mapping[str, Check]] = {
    "delta": _delta,
    "delta_bracket": _delta_bracket,
    "renyi": _renyi,
    "renyi_sampled": _renyi_sampled,
    "skellam": _skellam,
    "l2_bound": _l2_bound,
    "round": _round,
    "row_hash": _row_hash,
}
