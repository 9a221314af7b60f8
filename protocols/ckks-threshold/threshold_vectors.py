"""The vectors of the n-of-n CKKS sum, made by threshold_ref. Long byte strings stand as their SHA-256."""

from __future__ import annotations

import hashlib
from typing import Any

import threshold_ref as ref
from Crypto.Hash import SHAKE256
from threshold_ref import Layout, Member, Params

BASE = Params((1, 2, 5), 12, 65535, 2, segments=((9, 65535), (3, 1)), encoding=bytes(32))
SESSIONS = {
    "three": ("everybody stays", {}),
    "late": ("client 2 falls silent before its ciphertexts; the others begin again", {2: 2}),
    "share-missing": ("client 2 keeps its share: nothing is opened", {2: 4}),
}


def files() -> dict[str, Any]:
    return {
        "vectors/params.json": params(),
        "vectors/streams.json": streams(),
        "vectors/ring.json": ring(),
        "vectors/sessions.json": sessions(),
        "vectors/faults.json": faults(),
    }


def blocks() -> dict[str, str]:
    from securefl.ckks.threshold.client import CLIENT_TRANSITIONS
    from securefl.ckks.threshold.server import SERVER_TRANSITIONS

    return {"client states": table(CLIENT_TRANSITIONS), "server states": table(SERVER_TRANSITIONS)}


def table(transitions: Any) -> str:
    rows = [
        f"| {state.name} | {on} | {after.name} |" for state, edges in transitions.items() for on, after in edges.items()
    ]
    return "\n".join(["| state | on | next |", "|---|---|---|", *rows])


def drawn(name: str, length: int) -> bytes:
    return SHAKE256.new(f"ckks-threshold/{name}".encode()).read(length)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def described(p: Params) -> dict[str, Any]:
    return {
        "clients": list(p.clients),
        "dimension": p.dimension,
        "max_value": str(p.max_value),
        "threshold": p.threshold,
        "session": p.session.hex(),
        "round": p.round,
        "model_hash": p.model_hash.hex(),
        "statistical_bits": p.statistical_bits,
        "encoding": p.encoding.hex(),
        "segments": [[size, str(top)] for size, top in p.segments],
    }


def params() -> dict[str, Any]:
    tests: list[dict[str, Any]] = []
    good = {
        "base": ("what the others change", BASE),
        "ten-parties": ("a million integers of 16 bits", Params(tuple(range(1, 11)), 10**6, 65535, 2)),
        "ten-bits": ("a million integers of 10 bits", Params(tuple(range(1, 11)), 10**6, 1023, 6)),
        "most-parties": ("the largest cohort", Params(tuple(range(1, 65)), 10**5, 65535, 33)),
        "bits": ("integers of one bit", Params((1, 2), 300, 1, 2)),
        "wide": ("integers of 53 bits", Params((1, 2, 3), 10, 2**53, 2)),
        "uniform": ("one range", ref.changed(BASE, segments=(), encoding=b"")),
        "statistical": ("more statistical security", ref.changed(BASE, statistical_bits=64)),
    }
    for name, (comment, p) in good.items():
        lay: Layout = ref.layout(p)
        expected = {
            "context": p.context.hex(),
            "attempt": p.attempt(1, list(p.clients[1:])).hex(),
            "digits": [run[3] for run in lay.runs],
            "coefficients": lay.coefficients,
            "shift": lay.shift,
            "flood_bits": lay.flood,
            "residue_bound": str(lay.residue),
        }
        tests.append({"id": name, "comment": comment, "input": described(p), "expected": expected})
    bad = {
        "one-client": ("a sum of one client is its input", {"clients": (1,)}),
        "too-many": ("limb sums would not fit", {"clients": tuple(range(1, 66))}),
        "threshold-one": ("less than two survivors", {"threshold": 1}),
        "threshold-beyond": ("more than there are clients", {"threshold": 4}),
        "little-flooding": ("below 30 bits of statistical security", {"statistical_bits": 29}),
        "no-room": ("flooding beyond the modulus", {"statistical_bits": 110}),
        "too-wide": ("a sum beyond 56 bits", {"max_value": 2**56, "segments": ((12, 2**56),)}),
        "too-many-ciphertexts": ("more than one key may open", {"dimension": 10**9, "segments": ((10**9, 65535),)}),
    }
    for name, (comment, change) in bad.items():
        p = ref.changed(BASE, **change)
        try:
            ref.layout(p)
        except ref.Refused as error:
            given = {"derived_from": "params.json#base", "input": described(p), "error": {"type": error.error}}
            tests.append({"id": name, "comment": comment, **given})
        else:
            raise AssertionError(name)
    return {
        "spec": "protocols/ckks-threshold/SPEC.md §2",
        "description": (
            "Of the parameters input follow: the context hash, the hash of attempt 1 without the first client, and the "
            "layout; or they are refused."
        ),
        "groups": [{"operation": "params", "params": {}, "tests": tests}],
    }


def streams() -> dict[str, Any]:
    seed, attempt = drawn("seed", 32), drawn("attempt", 32)
    keys = [
        {
            "id": f"key-{purpose}-{index}",
            "comment": "the key of one polynomial's stream",
            "input": {"seed": seed.hex(), "attempt": attempt.hex(), "purpose": purpose, "index": index},
            "expected": {"key": ref.stream_key(seed, attempt, purpose, index).hex()},
        }
        for purpose, index in ((1, 0), (3, 0), (3, 1), (6, 2**32 - 1))
    ]
    key = drawn("key", 16)
    small = [
        {
            "id": name,
            "comment": comment,
            "input": {"key": key.hex()},
            "expected": {"first": values[:12], "sha256": sha(b"".join((v + 64).to_bytes(1, "big") for v in values))},
        }
        for name, comment, values in (
            ("ternary", "bytes of 255 are left out", ref.ternary(key)),
            ("noise", "21 bits less 21 bits", ref.noise(key)),
        )
    ]
    wide = [
        {
            "id": "reference",
            "comment": "the common polynomial of an attempt",
            "input": {"attempt": attempt.hex()},
            "expected": {"sha256": sha(ref.polynomial_bytes(ref.reference(attempt)))},
        },
        *(
            {
                "id": f"flood-{f}",
                "comment": f"uniform on [-2^{f}, 2^{f}), modulo q",
                "input": {"key": key.hex(), "flood_bits": f},
                "expected": {"sha256": sha(ref.polynomial_bytes([v % ref.Q for v in ref.flood(key, f)]))},
            }
            for f in (64, 90, 120)
        ),
    ]
    return {
        "spec": "protocols/ckks-threshold/SPEC.md §3.2",
        "description": (
            "What is drawn from streams. stream_key: the derivation. small: the first twelve of the N integers, and "
            "the SHA-256 of all, one byte each, plus 64. wide: the SHA-256 of the polynomial as §7 writes it."
        ),
        "groups": [
            {"operation": "stream_key", "params": {}, "tests": keys},
            {"operation": "small", "params": {}, "tests": small},
            {"operation": "wide", "params": {}, "tests": wide},
        ],
    }


def ring() -> dict[str, Any]:
    tests = []
    for at in range(2):
        attempt, key = drawn(f"ring/{at}", 32), drawn(f"ring/key/{at}", 16)
        product = ref.times(ref.reference(attempt), ref.ternary(key))
        tests.append(
            {
                "id": f"product-{at}",
                "comment": "the common polynomial of the attempt times the ternary polynomial of the key",
                "input": {"attempt": attempt.hex(), "key": key.hex()},
                "expected": {
                    "product": sha(ref.polynomial_bytes(product)),
                    "high": sha(ref.halves_bytes(ref.high(product))),
                },
            }
        )
    return {
        "spec": "protocols/ckks-threshold/SPEC.md §3.1",
        "description": "Products in the ring, as SHA-256 of their bytes (§7), and of their high 128 bits, rounded.",
        "groups": [{"operation": "product", "params": {}, "tests": tests}],
    }


def members(p: Params, leaves: dict[int, int]) -> dict[int, Member]:
    found = {}
    for i in p.clients:
        segments = p.segments or ((p.dimension, p.max_value),)
        raw = drawn(f"{i}/values", 8 * p.dimension)
        values, at = [], 0
        for size, top in segments:
            values += [int.from_bytes(raw[8 * j : 8 * j + 8], "big") % (top + 1) for j in range(at, at + size)]
            values[at] = top
            at += size
        tokens = [drawn(f"{i}/token/{number}", 32) for number in range(2)]
        found[i] = Member(i, drawn(f"{i}/identity", 32), tokens, values, leaves.get(i, 99))
    return found


def sessions() -> dict[str, Any]:
    tests = []
    for name, (comment, leaves) in SESSIONS.items():
        p, cast = BASE, members(BASE, leaves)
        given = {
            "clients": {
                str(i): {"identity": m.identity.hex(), "tokens": [t.hex() for t in m.tokens], "values": m.values}
                for i, m in cast.items()
            },
            "leaves": {str(i): count for i, count in leaves.items()},
        }
        outcome = ref.session(p, cast)
        if "sum" in outcome:
            kept = [cast[i].values for i in outcome["survivors"]]
            if outcome["sum"] != [sum(column) for column in zip(*kept, strict=True)]:
                raise AssertionError(name)
        frames = [[sender, to, len(frame), sha(frame)] for sender, to, frame in outcome["frames"]]
        expected = {"frames": frames} | {key: outcome[key] for key in ("sum", "survivors", "error") if key in outcome}
        tests.append({"id": name, "comment": comment, "input": given, "expected": expected})
    return {
        "spec": "protocols/ckks-threshold/SPEC.md §5",
        "description": (
            "Whole sessions. input.clients: the seed of each client's signing key, the 32 bytes it draws in each "
            "attempt, its integers. input.leaves: after how many frames a client falls silent. expected.frames: "
            "sender, recipient, length and SHA-256 of every frame, in the order of sending: exchange by exchange, "
            "clients ascending. Then the sum and its survivors, or the error that ends the session."
        ),
        "groups": [{"operation": "session", "params": described(BASE), "tests": tests}],
    }


def faults() -> dict[str, Any]:
    """Byte ``at`` of the body of one frame of session "three" changed, its checksum right."""
    share = 16 * ref.layout(BASE).coefficients
    cases = {
        # By threes: key shares, joint keys, confirmations, the same relayed, inputs, sums, and again, and shares.
        "key-share": ("one bit of b_1", 0, 5, "AuthenticationError"),
        "key-signature": ("one bit of the signature", 0, -1, "AuthenticationError"),
        "joint-key": ("one limb of the announced key: found when the confirmations come", 3, -1, "AuthenticationError"),
        "joint-key-list": ("a client that was not invited", 3, 7, "DecodeError"),
        "confirm": ("one bit of a fingerprint", 6, 0, "AuthenticationError"),
        "confirmed": ("one bit of a relayed signature", 9, 79, "AuthenticationError"),
        "input": ("one bit of a ciphertext", 12, 40, "AuthenticationError"),
        "sum": ("one limb of the announced sum: found when the confirmations come", 15, 1000, "AuthenticationError"),
        "share": ("one bit of a decryption share", 24, share - 1, "AuthenticationError"),
    }
    tests = [
        {
            "id": name,
            "comment": comment,
            "derived_from": "sessions.json#three",
            "input": {"frame": frame, "at": at},
            "error": {"type": error},
        }
        for name, (comment, frame, at, error) in cases.items()
    ]
    return {
        "spec": "protocols/ckks-threshold/SPEC.md §8",
        "description": (
            "In the session derived_from, the lowest bit of byte input.at of the body of frame input.frame is inverted "
            "(negative: from the end) and the frame's checksum made right. The first error that anybody raises is "
            "error.type."
        ),
        "groups": [{"operation": "fault", "params": described(BASE), "tests": tests}],
    }
