"""Vectors of the CKKS sum: layouts, wire form, and one role at a time. SPEC: protocols/ckks-sum."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.audit.checks.sessions import Replay, check_params, context_of, play
from securefl.ckks import (
    KEY_HOLDER,
    Client,
    Directory,
    Identity,
    KeyHolder,
    KeyModel,
    KeyRing,
    Params,
    Release,
    Server,
    backend,
    parameter_set,
)
from securefl.ckks.keys import Key
from securefl.ckks.residues import pack_residues, unpack_residues
from securefl.ckks.ring import Multiplier, lift, noise, uniform
from securefl.primitives.prg import Keystream
from securefl.types import SERVER, PartyId

__all__ = ["CHECKS"]


def params_of(given: Mapping[str, Any]) -> Params:
    """The parameters of a vector. Raises :class:`~securefl.errors.ConfigurationError` when they cannot work."""
    model = next(model for model in KeyModel if model.label == given["model"])
    release = next(release for release in Release if release.label == given["release"])
    return Params.of(context_of(given), parameter_set(given["set"]), model, flooded=given["flooded"], release=release)


def _layout(case: Case) -> None:
    params = params_of(case.input)
    found = {
        "noise_bound": str(params.noise_bound),
        "delta": str(params.lattice.scale),
        "digits": [run.digits for run in params.lattice.runs],
        "coefficients": params.lattice.coefficients,
        "ciphertexts": params.ciphertexts,
    }
    expect("the layout", found, dict(case.expected))


def _code(case: Case) -> None:
    lattice = params_of(case.input).lattice
    rows = [np.array(row, dtype=np.uint64) for row in case.input["rows"]]
    points = [lattice.encode(row, 0, lattice.coefficients) for row in rows]
    expect("the first client's coefficients", [str(x) for x in points[0].tolist()], case.expected["first"])
    sums = np.empty(lattice.dimension, dtype=np.uint64)
    lattice.decode(np.sum(points, axis=0) * lattice.scale + lattice.bound, len(rows), 0, sums)
    expect("the sums", [str(x) for x in sums.tolist()], case.expected["sums"])


def _residues(case: Case) -> None:
    prime, data = int(case.input["prime"]), case.bytes("bytes")
    if case.error is not None:
        refused(case.error, lambda: unpack_residues(data, [prime], 8))
        return
    words = unpack_residues(data, [prime], 8)
    expect("the words", [str(word) for word in words[0].tolist()], case.expected["words"])
    out = bytearray(len(data))
    pack_residues(words, [prime], memoryview(out))
    expect("the bytes", bytes(out), data)


def _key_of(params: Params, given: Mapping[str, str]) -> Key:
    """The key pair of the stream keys of a vector."""
    chosen, (prime,) = params.parameters, params.parameters.primes
    secret_key, uniform_key, noise_key = (bytes.fromhex(given[name]) for name in ("secret", "uniform", "noise"))
    words = np.empty(chosen.degree, dtype=np.uint64)
    Keystream(secret_key).fill(words)
    secret = (words % 3).astype(np.int8) - np.int8(1)
    a = uniform(uniform_key, chosen.degree, prime)
    product = Multiplier(secret).times(a, prime)
    b = lift(noise(noise_key, chosen.degree) - product.view(np.int64), prime)
    return Key(chosen, params.key_model, secret, np.stack((b, a))[:, None])


def _role(params: Params, case: Case) -> Client | Server | KeyHolder:
    identities = {PartyId(int(who)): Identity(bytes.fromhex(seed)) for who, seed in case.params["identities"].items()}
    directory = Directory({who: identity.public for who, identity in identities.items()})
    given, key = case.input, _key_of(params, case.params["key"])
    if given["role"] == "client":
        me = PartyId(given["me"])
        return Client(params, me, identities[me], directory, shared=key, entropy=Replay(given.get("tokens", ())))
    if given["role"] == "server":
        return Server(params, identities[SERVER], directory)
    backend.require()  # it decrypts with SEAL: without the extra the test is skipped
    ring = KeyRing(params.parameters, params.key_model, key=key)
    return KeyHolder(params, ring, identities[KEY_HOLDER], directory)


def _play(case: Case) -> None:
    play(_role(params_of(case.params), case), case)


CHECKS: Final[Mapping[str, Check]] = {
    "params": partial(check_params, params_of),
    "layout": _layout,
    "code": _code,
    "residues": _residues,
    "play": _play,
}
