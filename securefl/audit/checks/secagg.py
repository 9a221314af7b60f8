"""Vectors of the masked sum: parameters, keys, sharing, and whole sessions. SPEC: protocols/secagg/SPEC.md §3 to §7."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import numpy as np

from securefl.audit.checks import Case, Check, Mismatch, expect, refused
from securefl.audit.checks.secagg_sessions import SESSION_CHECKS, params_of
from securefl.primitives import shamir
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kem import Suite, key_pair, public_key, seal, unseal
from securefl.primitives.prg import accumulate, stream_words
from securefl.secagg import masking
from securefl.secagg.signed.messages import Signatures
from securefl.types import PartyId

__all__ = ["CHECKS"]


def _params(case: Case) -> None:
    if case.error is not None:
        refused(case.error, lambda: params_of(case.input))
        return
    expect("the context hash", params_of(case.input).context_hash.hex(), case.expected["context_hash"])


def _matches(found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    expect("the names of the values", sorted(found), sorted(wanted))
    for name, value in found.items():
        expect(name, value, wanted[name])


def _stream(key: bytes, count: int, start: int = 0) -> list[str]:
    words = np.empty(count, dtype=np.uint64)
    stream_words(key, start, words)
    return [str(word) for word in words.tolist()]


# ---- §4 keys and masks -----------------------------------------------------------------------------------------------


def _keys(case: Case) -> None:
    params, client = params_of(case.params), PartyId(case.input["client"])
    mask_private, mask_public = masking.mask_key_pair(params, client, case.bytes("mask_seed"))
    channel_private, channel_public = masking.channel_key_pair(params, client, case.bytes("channel_seed"))
    wanted = case.expected
    for name, private in (("mask_private", mask_private), ("channel_private", channel_private)):
        # private keys do not leave their object: the expected one must open what is sealed to the public one
        _, public = key_pair(params.suite, bytes.fromhex(wanted[name]))
        expect(name, unseal(private, seal(public, b"probe", b""), b""), b"probe")
        expect(f"{name}'s public key", public.raw.hex(), wanted[name.replace("private", "key")])
    stream_key = masking.self_stream_key(params, client, case.bytes("self_seed"))
    found: dict[str, object] = {
        "mask_private": wanted["mask_private"],
        "channel_private": wanted["channel_private"],
        "mask_key": mask_public.raw.hex(),
        "channel_key": channel_public.raw.hex(),
        "commitment": masking.self_commitment(params, client, case.bytes("self_seed")).hex(),
        "self_stream_key": stream_key.hex(),
        "self_stream": _stream(stream_key, 4),
    }
    _matches(found, wanted)


def _pair(case: Case) -> None:
    params, low, high = params_of(case.params), PartyId(case.input["low"]), PartyId(case.input["high"])
    roster = case.bytes("roster_hash")
    secret = masking.pair_secret(params, case.bytes("low_mask_seed"), low, high)
    stream_key = masking.pair_stream_key(params, secret, low, high)
    found: dict[str, object] = {
        "pair_secret": secret.hex(),
        "pair_stream_key": stream_key.hex(),
        "pair_stream": _stream(stream_key, 4),
        "pair_box_info": masking.pair_box_info(params, roster, low, high).hex(),
        "shares_box_info": masking.shares_box_info(params, roster, low, high).hex(),
        "shares_box_info_back": masking.shares_box_info(params, roster, high, low).hex(),
    }
    _matches(found, case.expected)


def _roster(case: Case) -> None:
    found = masking.roster_hash(params_of(case.params), case.bytes("body"))
    expect("the roster hash", found.hex(), case.expected["roster_hash"])


def _suite(name: str) -> Suite:
    return next(suite for suite in Suite if suite.label == name)


def _seal(case: Case) -> None:
    suite = _suite(case.params["suite"])
    private, public = key_pair(suite, case.bytes("seed"))
    if case.error is not None:
        refused(case.error, lambda: unseal(private, case.bytes("sealed"), case.bytes("info")))
        return
    expect("the public key", public.raw, case.bytes("public_key"))
    found = unseal(private, case.bytes("sealed"), case.bytes("info"))
    expect("the plaintext", found.hex(), case.expected["plaintext"])
    expect("the length of a seal", suite.sealed_bytes(len(found)), len(case.bytes("sealed")))


def _public_key(case: Case) -> None:
    raw = case.bytes("public_key")
    refused(case.test["error"], lambda: seal(public_key(_suite(case.params["suite"]), raw), b"x", b""))


def _stream_vector(case: Case) -> None:
    found = _stream(case.bytes("key"), case.input["count"], case.input["start"])
    expect("the words", found, case.expected["words"])


def _accumulate(case: Case) -> None:
    words = case.input["words"] if "words" in case.input else [0] * case.input["zeros"]
    vector = np.array([int(word) for word in words], dtype=np.uint64)
    add, subtract = ([bytes.fromhex(key) for key in case.input[name]] for name in ("add", "subtract"))
    accumulate(vector, add, subtract)
    if "sha256" in case.expected:
        expect(
            "the hash of the words", hashlib.sha256(vector.astype("<u8").tobytes()).hexdigest(), case.expected["sha256"]
        )
    else:
        expect("the words", [str(word) for word in vector.tolist()], case.expected["words"])


# ---- §4.3 sharing ----------------------------------------------------------------------------------------------------


class _Given:
    """Randomness that the vector gives, once."""

    def __init__(self, token: bytes) -> None:
        self._token = token

    def token(self, length: int) -> bytes:
        expect("the amount of randomness drawn", length, len(self._token))
        return self._token

    def seal(self, *_: object) -> bytes:
        raise Mismatch("sharing a secret seals nothing")


def _split(case: Case) -> None:
    given = case.input
    entropy = _Given(case.bytes("randomness"))
    shares = shamir.split(case.bytes("secret"), points=given["points"], threshold=given["threshold"], entropy=entropy)
    expect("the shares", [share.hex() for share in shares], case.expected["shares"])


def _combine(case: Case) -> None:
    def secret() -> bytes:
        shares = {int(x): shamir.share_from_bytes(bytes.fromhex(raw)) for x, raw in case.input["shares"].items()}
        line = shamir.Interpolation(list(shares))
        for x, raw in case.test.get("expected", {}).get("value_at", {}).items():
            expect(f"the share of point {x}", line.value_at(int(x), shares), int(raw, 16))
        return line.secret(shares)

    if case.error is not None:
        refused(case.error, secret)
        return
    expect("the secret", secret().hex(), case.expected["secret"])


# ---- §11 the signed form ---------------------------------------------------------------------------------------------


def _sign(case: Case) -> None:
    given, identity = case.input, Identity(case.bytes("seed"))
    route = given["kind"], PartyId(given["sender"]), PartyId(given["recipient"])
    signature = identity.sign(params_of(case.params).context_hash, *route, case.bytes("body"))
    _matches({"public": identity.public.hex(), "signature": signature.hex()}, case.expected)


def _verify(case: Case) -> None:
    given, sender = case.input, PartyId(case.input["sender"])
    directory, context = Directory({sender: case.bytes("public")}), params_of(case.params).context_hash

    def step() -> None:
        route = given["kind"], sender, PartyId(given["recipient"])
        directory.verify(case.bytes("signature"), context, *route, case.bytes("body"))

    if case.error is not None:
        refused(case.error, step)
        return
    step()


def _signatures(case: Case) -> None:
    params = params_of(case.params)
    if case.error is not None:
        refused(case.error, lambda: Signatures.decode(case.bytes("body"), params))
        return
    listed = Signatures.decode(case.bytes("body"), params)
    expect("the signers", sorted(listed.by_client), case.expected["signers"])
    expect("the list", listed.encode().hex(), case.input["body"])


CHECKS: Final[Mapping[str, Check]] = {
    "params": _params,
    "keys": _keys,
    "pair": _pair,
    "roster": _roster,
    "seal": _seal,
    "public_key": _public_key,
    "stream": _stream_vector,
    "accumulate": _accumulate,
    "split": _split,
    "combine": _combine,
    "sign": _sign,
    "verify": _verify,
    "signatures": _signatures,
    **SESSION_CHECKS,
}
