"""Known answers of the masked sum: parameters, sharing, keys, seals, streams. Made by the references."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import primitives_ref as prim
import secagg_ref as ref
from Crypto.Hash import SHAKE256
from secagg_ref import Fault, Params
from wire_ref import DecodeError

SPEC = "protocols/secagg/SPEC.md"
MODEL = hashlib.sha256(b"a global model").digest()
OTHER_MODEL = hashlib.sha256(b"another global model").digest()


def expand(length: int, *name: object) -> bytes:
    """The vectors' randomness: SHAKE256 of a name."""
    return SHAKE256.new("/".join(map(str, ("securefl vectors", *name))).encode()).read(length)


# ---- params


def params_json(p: Params) -> dict[str, Any]:
    return {
        "clients": list(p.clients),
        "dimension": p.dimension,
        "max_value": str(p.max_value),
        "threshold": p.threshold,
        "session": p.session.hex(),
        "round": p.round,
        "model_hash": p.model_hash.hex(),
        "suite": p.suite,
        **({"encoding": p.encoding.hex()} if p.encoding else {}),
    }


def small(clients: tuple[int, ...] = (3, 7, 20), threshold: int = 2, suite: str = "x25519", **changes: Any) -> Params:
    base = Params(clients, 5, 15, threshold, b"vectors", 1, MODEL, suite)
    return replace(base, **changes)


def params_file() -> dict[str, Any]:
    base = small()
    valid = {
        "base": ("three clients, x25519", base),
        "hybrid": ("another suite", replace(base, suite="mlkem768-x25519")),
        "threshold": ("another threshold", replace(base, threshold=3)),
        "cohort": ("another cohort", replace(base, clients=(3, 7, 21))),
        "dimension": ("another dimension", replace(base, dimension=6)),
        "max-value": ("another largest value", replace(base, max_value=16)),
        "session": ("another session name", replace(base, session=b"vectors2")),
        "session-longest": ("a session name of 64 bytes", replace(base, session=bytes(64))),
        "round": ("another round", replace(base, round=2)),
        "round-last": ("the last round", replace(base, round=2**32 - 1)),
        "model": ("another model", replace(base, model_hash=OTHER_MODEL)),
        "two-clients": ("the smallest cohort, extreme ids", replace(base, clients=(1, 2**32 - 1))),
        "encoding": ("what else clients agree on to encode alike", replace(base, encoding=bytes(range(32)))),
        "encoding-short": ("any bytes can stand for it", replace(base, encoding=b"\0")),
        "minority": ("half the cohort as threshold, allowed explicitly", replace(base, clients=(3, 7, 20, 21))),
        "widest-lane": ("a sum that fills 64 bits", replace(base, max_value=(2**64 - 1) // 3)),
    }
    invalid = {
        "one-client": ("a cohort of one", {"clients": [3], "threshold": 1}),
        "ids-descending": ("ids not ascending", {"clients": [7, 3, 20]}),
        "id-repeated": ("an id twice", {"clients": [3, 7, 7]}),
        "id-zero": ("the server's id among the clients", {"clients": [0, 7, 20]}),
        "id-beyond-u32": ("an id of 33 bits", {"clients": [3, 7, 2**32]}),
        "threshold-one": (
            "a threshold of 1, minority allowed: every share is the secret",
            {"threshold": 1, "allow_minority_threshold": True},
        ),
        "threshold-beyond-cohort": ("a threshold above the number of clients", {"threshold": 4}),
        "threshold-minority": ("a threshold of half the cohort", {"clients": [3, 7, 20, 21]}),
        "session-empty": ("no session name", {"session": ""}),
        "session-too-long": ("a session name of 65 bytes", {"session": bytes(65).hex()}),
        "round-negative": ("round -1", {"round": -1}),
        "round-beyond-u32": ("round 2^32", {"round": 2**32}),
        "model-hash-short": ("a model hash of 31 bytes", {"model_hash": bytes(31).hex()}),
        "dimension-zero": ("nothing to sum", {"dimension": 0}),
        "max-value-zero": ("integers that can only be zero", {"max_value": "0"}),
        "sum-beyond-word": ("a sum of 65 bits", {"max_value": str((2**64 - 1) // 3 + 1)}),
    }
    tests: list[dict[str, Any]] = []
    for name, (comment, p) in valid.items():
        given = params_json(p) | ({"allow_minority_threshold": True} if name == "minority" else {})
        ref.check(p, name == "minority")
        expected = {"context_hash": p.context.hex()}
        tests.append({"id": name, "comment": comment, "input": given, "expected": expected})
    for name, (comment, changes) in invalid.items():
        given = {**params_json(base), **changes}
        minority = given.get("allow_minority_threshold", False)
        must_raise("ConfigurationError", lambda given=given, m=minority: ref.check(params_from(given), m), name)
        tests.append(refusal(name, comment, "params.json#base", given, {"type": "ConfigurationError"}))
    return {
        "spec": f"{SPEC} §3",
        "description": (
            "The context hash of the parameters is expected.context_hash, or the parameters are refused. Each "
            "valid vector but the first changes one field of 'base': no two context hashes are equal."
        ),
        "groups": [{"operation": "params", "params": {}, "tests": tests}],
    }


def params_from(given: dict[str, Any]) -> Params:
    return Params(
        tuple(given["clients"]),
        given["dimension"],
        int(given["max_value"]),
        given["threshold"],
        bytes.fromhex(given["session"]),
        given["round"],
        bytes.fromhex(given["model_hash"]),
        given["suite"],
        bytes.fromhex(given.get("encoding", "")),
    )


def refusal(name: str, comment: str, base: str, given: dict[str, Any], error: dict[str, Any]) -> dict[str, Any]:
    return {"id": name, "comment": comment, "derived_from": base, "input": given, "error": error}


def must_raise(error: str, step: Callable[[], object], name: str) -> list[int]:
    """Whom the reference blames; it must refuse ``step`` with ``error``."""
    try:
        step()
    except Fault as fault:
        found, blamed = fault.error, fault.blamed
    except DecodeError:
        found, blamed = "DecodeError", []
    else:
        found, blamed = "nothing", []
    if found != error:
        raise AssertionError(f"{name}: the reference raises {found}, not {error}")
    return blamed


# ---- shamir


def shamir_file() -> dict[str, Any]:
    splits, combines = [], []
    for name, comment, secret, n, t in (
        ("two-of-two", "the smallest sharing", expand(32, "shamir", 1), 2, 2),
        ("two-of-three", "a line", expand(32, "shamir", 2), 3, 2),
        ("three-of-five", "a parabola", expand(32, "shamir", 3), 5, 3),
        ("seven-of-ten", "ten points", expand(32, "shamir", 4), 10, 7),
        ("thirty-five-of-thirty-six", "a polynomial of degree 34", expand(32, "shamir", 5), 36, 35),
        ("secret-zero", "the secret 0", bytes(32), 3, 2),
        ("secret-largest", "the largest secret, 2^256 - 1", b"\xff" * 32, 3, 2),
    ):
        randomness = expand(48 * (t - 1), "shamir", name)
        shares = prim.split(secret, n, t, randomness)
        given = {"secret": secret.hex(), "points": n, "threshold": t, "randomness": randomness.hex()}
        splits.append(
            {"id": name, "comment": comment, "input": given, "expected": {"shares": [share.hex() for share in shares]}}
        )
        for which, points in (("lowest", range(1, t + 1)), ("highest", range(n - t + 1, n + 1))):
            chosen = {str(x): shares[x - 1].hex() for x in points}
            other = 1 if which == "highest" else n
            expected = {"secret": secret.hex(), "value_at": {str(other): shares[other - 1].hex()}}
            combines.append(
                {
                    "id": f"{name}-{which}",
                    "comment": f"the {which} {t} points; they also give the share of point {other}",
                    "input": {"shares": chosen},
                    "expected": expected,
                }
            )
    # f(x) = 2^256 + x is a line through values of the field whose value at 0 is no 32-byte secret
    beyond = {str(x): (2**256 + x).to_bytes(33, "big").hex() for x in (1, 2)}
    base = "shamir.json#two-of-three-lowest"
    line = splits[1]["expected"]["shares"]
    for name, comment, shares, error in (
        (
            "share-not-in-field",
            "a share equal to the prime",
            {"1": prim.PRIME.to_bytes(33, "big").hex(), "2": line[1]},
            "DecodeError",
        ),
        ("share-largest-bytes", "a share of 33 bytes 0xff", {"1": "ff" * 33, "2": line[1]}, "DecodeError"),
        ("share-too-short", "a share of 32 bytes", {"1": line[0][2:], "2": line[1]}, "DecodeError"),
        ("share-too-long", "a share of 34 bytes", {"1": "00" + line[0], "2": line[1]}, "DecodeError"),
        (
            "secret-beyond-32-bytes",
            "the value at 0 is 2^256: at least one share is wrong",
            beyond,
            "AuthenticationError",
        ),
    ):
        combines.append(refusal(name, comment, base, {"shares": shares}, {"type": error}))
    return {
        "spec": f"{SPEC} §4.3",
        "description": (
            "split: input.secret with coefficients from input.randomness gives expected.shares, for the points 1, "
            "2, ... combine: input.shares, by point, give expected.secret and the polynomial's values "
            "expected.value_at."
        ),
        "groups": [
            {"operation": "split", "params": {}, "tests": splits},
            {"operation": "combine", "params": {}, "tests": combines},
        ],
    }


# ---- masking


def masking_file() -> dict[str, Any]:
    groups = []
    for suite in prim.SUITES:
        p = small(suite=suite)
        roster = hashlib.sha256(b"a roster").digest()
        own, pairs = [], []
        for client in p.clients:
            seeds = {name: expand(32, "masking", suite, client, name) for name in ("mask", "self", "channel")}
            channel, mask, keys = ref.advertise(p, client, seeds["mask"], seeds["self"], seeds["channel"])
            expected = {
                "mask_private": mask.hex(),
                "mask_key": keys[1].hex(),
                "channel_private": channel.hex(),
                "channel_key": keys[0].hex(),
                "commitment": keys[2].hex(),
                "self_stream_key": ref.key(p, seeds["self"], "self-stream", client, length=16).hex(),
                "self_stream": words(prim.stream(ref.key(p, seeds["self"], "self-stream", client, length=16), 4)),
            }
            own.append(
                {
                    "id": f"{suite}-client-{client}",
                    "comment": "every key of one client",
                    "input": {"client": client, **{f"{name}_seed": seed.hex() for name, seed in seeds.items()}},
                    "expected": expected,
                }
            )
        for low, high in ((3, 7), (3, 20), (7, 20)):
            seed = expand(32, "masking", suite, low, "mask")
            secret = ref.key(p, seed, "pair-secret", low, high)
            stream_key = ref.key(p, secret, "pair-stream", low, high, length=16)
            expected = {
                "pair_secret": secret.hex(),
                "pair_stream_key": stream_key.hex(),
                "pair_stream": words(prim.stream(stream_key, 4)),
                "pair_box_info": ref.box_info(p, "pair-box", roster, low, high).hex(),
                "shares_box_info": ref.box_info(p, "shares-box", roster, low, high).hex(),
                "shares_box_info_back": ref.box_info(p, "shares-box", roster, high, low).hex(),
            }
            given = {"low": low, "high": high, "low_mask_seed": seed.hex(), "roster_hash": roster.hex()}
            pairs.append(
                {"id": f"{suite}-pair-{low}-{high}", "comment": "one pair's keys", "input": given, "expected": expected}
            )
        groups.append({"operation": "keys", "params": params_json(p), "tests": own})
        groups.append({"operation": "pair", "params": params_json(p), "tests": pairs})
    p = small()
    bodies = {
        "roster-two": ("two entries", expand(204, "roster")),
        "roster-empty": ("the empty list", bytes(4)),
    }
    rosters = [
        {
            "id": name,
            "comment": comment,
            "input": {"body": body.hex()},
            "expected": {"roster_hash": ref.roster_hash(p, body).hex()},
        }
        for name, (comment, body) in bodies.items()
    ]
    groups.append({"operation": "roster", "params": params_json(p), "tests": rosters})
    groups += [*seal_groups(), stream_group(), accumulate_group()]
    return {
        "spec": f"{SPEC} §4",
        "description": (
            "keys, pair, roster: every value that is derived from the given seeds under the parameters. seal: "
            "input.sealed, made with input.randomness to input.public_key, opens to expected.plaintext with the "
            "private key input.seed and input.info; or opening is refused. public_key: sealing to these bytes is "
            "refused. stream: words of the stream of input.key, from word input.start. accumulate: words plus and "
            "minus streams."
        ),
        "groups": groups,
    }


def words(values: list[int]) -> list[str]:
    return [str(value) for value in values]


def seal_groups() -> Iterator[dict[str, Any]]:
    for suite, (_, public_bytes, encapsulation, _) in prim.SUITES.items():
        tests: list[dict[str, Any]] = []
        seed, coins = expand(32, "seal", suite, "seed"), expand(64 if public_bytes > 32 else 32, "seal", suite, "coins")
        public, info = prim.public_key(suite, seed), prim.info_bytes("securefl/v1/secagg/shares-box", b"fields", b"")
        for name, plaintext in (("shares", expand(66, "seal", "plaintext")), ("pair", expand(32, "seal", "secret"))):
            sealed = prim.seal(suite, public, plaintext, info, coins)
            assert prim.unseal(suite, seed, sealed, info) == plaintext
            given = {
                "seed": seed.hex(),
                "public_key": public.hex(),
                "info": info.hex(),
                "randomness": coins.hex(),
                "sealed": sealed.hex(),
            }
            tests.append(
                {
                    "id": f"{suite}-{name}",
                    "comment": f"a seal of {len(plaintext)} bytes",
                    "input": given,
                    "expected": {"plaintext": plaintext.hex()},
                }
            )
        other_seed = expand(32, "seal", suite, "other seed")

        def flipped(at: int, sealed: bytes = sealed) -> str:
            return (sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]).hex()

        faults = {
            "info-other": ("another info", {"info": (info + b"\0").hex()}),
            "key-other": ("another private key", {"seed": other_seed.hex()}),
            "encapsulation-flipped": ("one bit of the encapsulation", {"sealed": flipped(0)}),
            "ciphertext-flipped": ("one bit of the ciphertext", {"sealed": flipped(encapsulation)}),
            "tag-flipped": ("one bit of the tag", {"sealed": flipped(len(sealed) - 1)}),
            "seal-too-short": ("shorter than encapsulation and tag", {"sealed": sealed[: encapsulation + 15].hex()}),
            "seal-empty": ("no bytes", {"sealed": ""}),
        }
        if suite == "x25519":
            low = bytes(32) + sealed[32:]
            faults["encapsulation-low-order"] = ("the X25519 shared secret is zero", {"sealed": low.hex()})
        for name, (comment, changes) in faults.items():
            given = {
                key: value for key, value in tests[1]["input"].items() if key in ("seed", "info", "sealed")
            } | changes
            try:
                prim.unseal(suite, *(bytes.fromhex(given[key]) for key in ("seed", "sealed", "info")))
            except (ValueError, IndexError):
                base = f"masking.json#{suite}-pair"
                tests.append(refusal(f"{suite}-{name}", comment, base, given, {"type": "AuthenticationError"}))
            else:
                raise AssertionError(name)
        yield {"operation": "seal", "params": {"suite": suite}, "tests": tests}
        bad = {
            "key-too-short": ("a key without its last byte", public[:-1]),
            "key-too-long": ("a key with one byte more", public + b"\0"),
            "key-low-order": ("the X25519 part is the point 0", public[: public_bytes - 32] + bytes(32)),
            "key-order-eight": (
                "the X25519 part has order 8 (RFC 7748 §6.1, low order)",
                public[: public_bytes - 32] + LOW_ORDER_8,
            ),
        }
        if suite == "mlkem768-x25519":
            bad["key-beyond-modulus"] = ("an ML-KEM coefficient of 4095 (FIPS 203 §7.2)", b"\xff\xff" + public[2:])
        refused = []
        for name, (comment, key) in bad.items():
            if len(key) == public_bytes:
                try:
                    prim.seal(suite, key, b"x", b"", coins)
                except ValueError:
                    pass
                else:
                    raise AssertionError(name)
            base, given = f"masking.json#{suite}-pair", {"public_key": key.hex()}
            refused.append(refusal(f"{suite}-{name}", comment, base, given, {"type": "DecodeError"}))
        yield {"operation": "public_key", "params": {"suite": suite}, "tests": refused}


LOW_ORDER_8 = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")


def stream_group() -> dict[str, Any]:
    tests = []
    for name, comment, key, start in (
        ("zero-key", "AES of the counters 0, 1, 2 under the key 0", bytes(16), 0),
        ("some-key", "another key", expand(16, "stream"), 0),
        ("later-words", "entered at word 2^32 + 2", expand(16, "stream"), 2**32 + 2),
    ):
        counters = b"".join(block.to_bytes(16, "big") for block in range(start // 2, start // 2 + 4))
        out = prim.AES.new(key, prim.AES.MODE_ECB).encrypt(counters)
        found = [int.from_bytes(out[at : at + 8], "little") for at in range(0, 64, 8)]
        assert start or found == prim.stream(key, 8)
        given = {"key": key.hex(), "start": start, "count": 8}
        tests.append({"id": name, "comment": comment, "input": given, "expected": {"words": words(found)}})
    return {"operation": "stream", "params": {}, "tests": tests}


def accumulate_group() -> dict[str, Any]:
    keys = [expand(16, "accumulate", at) for at in range(4)]
    tests = []
    for name, comment, start, plus, minus in (
        ("add-one", "one stream added", [0] * 5, keys[:1], []),
        ("subtract-one", "one stream subtracted: words wrap modulo 2^64", [0] * 5, [], keys[:1]),
        ("cancel", "the same stream added and subtracted", [1, 2, 3, 4, 2**64 - 1], keys[:1], keys[:1]),
        ("several", "two added, two subtracted, an odd number of words", [1, 2**63, 2**64 - 1], keys[:2], keys[2:]),
    ):
        found = list(start)
        for sign, group in ((+1, plus), (-1, minus)):
            for key in group:
                found = ref.add(found, prim.stream(key, len(found)), sign)
        given = {"words": words(start), "add": [k.hex() for k in plus], "subtract": [k.hex() for k in minus]}
        tests.append({"id": name, "comment": comment, "input": given, "expected": {"words": words(found)}})
    found = ref.add(prim.stream(keys[0], 40001), prim.stream(keys[1], 40001), -1)
    given = {"zeros": 40001, "add": [keys[0].hex()], "subtract": [keys[1].hex()]}
    digest = hashlib.sha256(b"".join(word.to_bytes(8, "little") for word in found)).hexdigest()
    comment = "40,001 words, over the edges of any blocking; the hash is of little-endian words"
    tests.append({"id": "three-blocks", "comment": comment, "input": given, "expected": {"sha256": digest}})
    return {"operation": "accumulate", "params": {}, "tests": tests}
