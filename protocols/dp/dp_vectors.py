"""The vectors of differential privacy, made by dp_ref. Each says how it is derived."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from fractions import Fraction
from typing import Any

from dp_ref import (
    composed_bracket,
    draw,
    gaussian_delta,
    l2_bound,
    one_step_delta,
    round_values,
    row_hash,
    sampled_rdp,
    skellam_rdp,
    skellam_table,
)

SECRET = hashlib.sha256(b"protocols/dp").digest()


def files() -> dict[str, dict[str, Any]]:
    return {
        "vectors/curves.json": curves(),
        "vectors/renyi.json": renyi(),
        "vectors/noise.json": noise(),
        "vectors/rounding.json": rounding(),
        "vectors/ledger.json": ledger(),
    }


def blocks() -> dict[str, str]:
    return {}


def test(name: str, comment: str, given: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "comment": comment, "input": given, "expected": expected}


def refused(name: str, comment: str, base: str, given: dict[str, Any]) -> dict[str, Any]:
    error = {"type": "ConfigurationError"}
    return {"id": name, "comment": comment, "derived_from": base, "input": given, "error": error}


def digits(value: Decimal) -> str:
    return f"{value:.30e}"


def outward(value: float, factor: float) -> str:
    """Five digits: the same on every machine, whatever the last bits of its mathematics library."""
    return f"{value * factor:.4e}"


def curves() -> dict[str, Any]:
    exact = []
    for i, (z, epsilon) in enumerate((("1", "1"), ("1", "4.377178"), ("0.5", "3"), ("5", "0.1"), ("20", "0"))):
        value = gaussian_delta(1 / Decimal(z), Decimal(epsilon))
        given = {"noise_multiplier": z, "sampling_probability": "1", "rounds": 1, "epsilon": epsilon}
        exact.append(test(f"gaussian-{i}", "Balle & Wang 2018, Thm 8", given, {"delta": digits(value)}))
    for i, (z, q, epsilon) in enumerate(
        (("1", "0.1", "1"), ("0.5", "0.01", "2"), ("2", "0.5", "0.3"), ("1", "0.9", "0"))
    ):
        directions = [one_step_delta(Decimal(z), Decimal(q), Decimal(epsilon), d) for d in ("remove", "add")]
        given = {"noise_multiplier": z, "sampling_probability": q, "rounds": 1, "epsilon": epsilon}
        exact.append(test(f"sampled-{i}", "the larger of two directions", given, {"delta": digits(max(directions))}))
    base = exact[0]["input"]
    bad = {"q-above-one": {"sampling_probability": "1.5"}, "no-noise": {"noise_multiplier": "0"},
           "negative-epsilon": {"epsilon": "-1"}, "nan": {"noise_multiplier": "nan"}}  # fmt: skip
    refusals = [refused(name, "out of range", "curves.json#gaussian-0", base | change) for name, change in bad.items()]
    brackets = []
    for i, (z, q, rounds, epsilon, h) in enumerate(
        ((1.0, 0.1, 100, 7.046603, 3e-4), (1.0, 0.01, 1000, 1.828244, 6e-5), (4.0, 0.3, 300, 6.138658, 3e-4))
    ):
        low, high = composed_bracket(z, q, rounds, epsilon, h, 17)
        given = {"noise_multiplier": str(z), "sampling_probability": str(q), "rounds": rounds, "epsilon": str(epsilon)}
        comment = f"grid {h}, 2^17 points; the add direction is smaller here"
        brackets.append(
            test(f"composed-{i}", comment, given, {"at_least": outward(low, 0.999999), "at_most": outward(high, 1.02)})
        )
    return {
        "spec": "protocols/dp/SPEC.md §2",
        "description": (
            "delta: the privacy curve under add-remove at input.epsilon; numbers are decimal strings. An "
            "accountant's upper bound must be at least expected.delta (30 digits, exact) and at most 1.005 "
            "times it. delta_bracket: it must be at least expected.at_least, a proven lower bound of the true "
            "value, and at most expected.at_most, 1.02 times the upper bound of a fine grid."
        ),
        "groups": [
            {"operation": "delta", "params": {"neighboring": "add-remove"}, "tests": exact + refusals},
            {"operation": "delta_bracket", "params": {"neighboring": "add-remove"}, "tests": brackets},
        ],
    }


def renyi() -> dict[str, Any]:
    plain, sampled = [], []
    l2, l1, variance = Fraction(4), Fraction(16), Fraction(100)
    for alpha in (2, 8, 32):
        value = skellam_rdp(alpha, l2, l1, variance)
        text = digits(Decimal(value.numerator) / Decimal(value.denominator))
        plain.append(
            test(f"skellam-{alpha}", "Agarwal, Kairouz, Liu 2021, Thm 3.5", {"order": alpha}, {"epsilon": text})
        )
        epsilons = {k: skellam_rdp(k, l2, l1, variance) for k in range(2, alpha + 1)}
        value = sampled_rdp(alpha, Fraction(1, 10), epsilons)
        given = {"order": alpha, "sampling_probability": "0.1"}
        sampled.append(test(f"sampled-{alpha}", "Zhu & Wang 2019, Thm 6", given, {"epsilon": digits(value)}))
    params = {"l2_sensitivity": 4, "l1_sensitivity": 16, "variance": 100}
    return {
        "spec": "protocols/dp/SPEC.md §4",
        "description": (
            "The Rényi divergence bound of order input.order of Skellam noise, one release, without and with "
            "Poisson sampling, to 30 digits. An implementation may exceed it by one part in 10^8 and never fall"
            " below it."
        ),
        "groups": [
            {"operation": "renyi", "params": params, "tests": plain},
            {"operation": "renyi_sampled", "params": params, "tests": sampled},
        ],
    }


def noise() -> dict[str, Any]:
    tests = []
    for name, variance in (("quarter", Fraction(1, 4)), ("nine", Fraction(9)), ("odd", Fraction(123457, 1024))):
        cut, bits, thresholds, aliases = table = skellam_table(variance)
        digest = hashlib.sha256(b"".join(t.to_bytes(24, "big") for t in thresholds))
        digest.update(b"".join(a.to_bytes(4, "big") for a in aliases))
        drawn = draw(table, SECRET, 40)
        long = hashlib.sha256(
            b"".join(x.to_bytes(8, "big", signed=True) for x in draw(table, SECRET, 20001))
        ).hexdigest()
        expected = {
            "cut": cut,
            "slot_bits": bits,
            "table_sha256": digest.hexdigest(),
            "drawn": drawn,
            "drawn_20001_sha256": long,
        }
        given = {"variance": [variance.numerator, variance.denominator], "secret": SECRET.hex()}
        tests.append(test(name, "Miller's recurrence, Vose's table, AES-128-CTR words", given, expected))
    return {
        "spec": "protocols/dp/SPEC.md §6",
        "description": (
            "input.variance is numerator, denominator. table_sha256: over all thresholds (24 bytes, big-endian)"
            " and then all aliases (4 bytes). drawn: the first 40 integers; drawn_20001_sha256: over 20001 "
            "integers, each 8 bytes, big-endian, two's complement."
        ),
        "groups": [{"operation": "skellam", "params": {}, "tests": tests}],
    }


def rounding() -> dict[str, Any]:
    bounds = []
    for i, (scale, clip, dimension) in enumerate(((1.0, 1.0, 4), (100.0, 0.5, 1000), (3e4, 1.0, 2**20))):
        given = {"scale": scale.hex(), "clip_norm": clip.hex(), "dimension": dimension, "beta": (1e-9).hex()}
        bounds.append(
            test(
                f"bound-{i}",
                "Kairouz, Liu, Steinke 2021, Eq. 2",
                given,
                {"l2": l2_bound(scale, clip, dimension, 1e-9).hex()},
            )
        )
    values = [0.25, -0.5, 0.0, 1e-3, 0.125, -0.37, 0.4999, -0.1]
    given = {
        "values": [x.hex() for x in values],
        "scale": (1000.5).hex(),
        "coordinate_bound": 450,
        "seed": SECRET.hex(),
    }
    integers = test(
        "eight-values",
        "53-bit stochastic rounding, then the cut",
        given,
        {"integers": round_values(values, 1000.5, 450, SECRET)},
    )
    return {
        "spec": "protocols/dp/SPEC.md §7",
        "description": (
            "l2_bound: equal to 1e-12 relative. round: clip norm 1 and an ℓ2 bound of 10^9 change nothing here."
        ),
        "groups": [
            {"operation": "l2_bound", "params": {}, "tests": bounds},
            {"operation": "round", "params": {}, "tests": [integers]},
        ],
    }


def ledger() -> dict[str, Any]:
    content = '{"noise_multiplier":5.0,"type":"Gaussian"}'
    before, tests = b"", []
    for position, (kind, number, text, cost) in enumerate(
        (("open", 0, "header", 0.0), ("charge", 7, content, 0.04), ("released", 7, "00ff", 0.0))
    ):
        value = row_hash(before, position, kind, number, text, cost, 2.0**-90)
        given = {"before": before.hex(), "position": position, "kind": kind, "round": number, "content": text,
                 "cost": cost.hex(), "distance": (2.0**-90).hex()}  # fmt: skip
        tests.append(test(f"row-{position}", "TupleHash256, chained", given, {"hash": value.hex()}))
        before = value
    return {
        "spec": "protocols/dp/SPEC.md §8",
        "description": ("expected.hash is the hash of the row, chained to input.before."),
        "groups": [{"operation": "row_hash", "params": {}, "tests": tests}],
    }
