"""securefl against protocols/dp/vectors: known answers made by a reference that shares no code with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securefl import dp
from securefl.dp.events import Skellam
from securefl.dp.ledger import LedgerRow
from securefl.dp.rdp import LAMBDAS, cumulant
from securefl.dp.rounding import l2_bound, round_update
from securefl.dp.sampler import noise_table
from securefl.errors import ConfigurationError

FOLDER = Path(__file__).resolve().parents[3] / "protocols" / "dp" / "vectors"
Case = dict[str, Any]


def close(found: float, exact: float, loosest: float) -> bool:
    return exact * (1 - 1e-14) <= found <= exact * loosest


def delta_of(params: Case, given: Case) -> float:
    return dp.delta(
        noise_multiplier=float(given["noise_multiplier"]),
        sampling_probability=float(given["sampling_probability"]),
        rounds=given["rounds"],
        epsilon=float(given["epsilon"]),
        neighboring=params["neighboring"],
    )


def delta(params: Case, given: Case, expected: Case) -> None:
    assert close(delta_of(params, given), float(expected["delta"]), 1.005)


def delta_bracket(params: Case, given: Case, expected: Case) -> None:
    assert float(expected["at_least"]) <= delta_of(params, given) <= float(expected["at_most"])


def divergence(params: Case, given: Case, q: float) -> float:
    event = Skellam(params["l2_sensitivity"], params["l1_sensitivity"], params["variance"], 1)
    at = int(np.flatnonzero(given["order"] - 1 == LAMBDAS)[0])
    return float(cumulant(event, q, False)[at] / LAMBDAS[at])


def renyi(params: Case, given: Case, expected: Case) -> None:
    assert close(divergence(params, given, 1.0), float(expected["epsilon"]), 1 + 1e-8)


def renyi_sampled(params: Case, given: Case, expected: Case) -> None:
    assert close(divergence(params, given, float(given["sampling_probability"])), float(expected["epsilon"]), 1 + 1e-8)


def skellam(params: Case, given: Case, expected: Case) -> None:
    table = noise_table("skellam", Fraction(*given["variance"]))
    assert (table.bound, table.slot_bits) == (expected["cut"], expected["slot_bits"])
    digest = hashlib.sha256()
    low = (1 << (64 - table.slot_bits)) - 1
    for prefix, rest in zip(table._thresholds, table._rest, strict=True):
        threshold = ((int(prefix) & low) << 128) | (int(rest[0]) << 64) | int(rest[1])
        digest.update(threshold.to_bytes(24, "big"))
    for alias in table._values[1::2]:
        digest.update((int(alias) + table.bound).to_bytes(4, "big"))
    assert digest.hexdigest() == expected["table_sha256"]
    secret = bytes.fromhex(given["secret"])
    assert table.draw(secret, 40).tolist() == expected["drawn"]
    long = table.draw(secret, 20001).astype(">i8").tobytes()
    assert hashlib.sha256(long).hexdigest() == expected["drawn_20001_sha256"]


def l2(params: Case, given: Case, expected: Case) -> None:
    scale, clip, beta = (float.fromhex(given[name]) for name in ("scale", "clip_norm", "beta"))
    assert l2_bound(scale, clip, given["dimension"], beta) == pytest.approx(float.fromhex(expected["l2"]), rel=1e-12)


def rounded(params: Case, given: Case, expected: Case) -> None:
    found = round_update(
        np.array([float.fromhex(x) for x in given["values"]]),
        scale=float.fromhex(given["scale"]),
        clip_norm=1.0,
        coordinate_bound=given["coordinate_bound"],
        l2=1e9,
        seed=bytes.fromhex(given["seed"]),
    )
    assert found.tolist() == expected["integers"]


def row_hash(params: Case, given: Case, expected: Case) -> None:
    cost, distance = float.fromhex(given["cost"]), float.fromhex(given["distance"])
    row = LedgerRow(given["position"], given["kind"], given["round"], given["content"], cost, distance, b"")
    assert row.expected_hash(bytes.fromhex(given["before"])).hex() == expected["hash"]


OPERATIONS: dict[str, Callable[[Case, Case, Case], None]] = {
    "delta": delta,
    "delta_bracket": delta_bracket,
    "renyi": renyi,
    "renyi_sampled": renyi_sampled,
    "skellam": skellam,
    "l2_bound": l2,
    "round": rounded,
    "row_hash": row_hash,
}


def cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.json")):
        for group in json.loads(path.read_text(encoding="utf-8"))["groups"]:
            for test in group["tests"]:
                yield pytest.param(group["operation"], group["params"], test, id=f"{path.stem}-{test['id']}")


@pytest.mark.parametrize(("operation", "params", "test"), list(cases()))
def test_vector(operation: str, params: Case, test: Case) -> None:
    if "error" in test:
        assert test["error"]["type"] == "ConfigurationError"
        with pytest.raises(ConfigurationError):
            OPERATIONS[operation](params, test["input"], {"delta": "0"})
    else:
        OPERATIONS[operation](params, test["input"], test["expected"])
