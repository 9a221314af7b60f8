"""Vectors of the CKKS sum: layouts, wire form, and one role at a time. SPEC: protocols/ckks-sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, Mismatch, expect, refused
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
from securefl.machine import Aborted, Completed, Event, RoundContext, Segment, Send, SumResult
from securefl.primitives.kem import PublicKey
from securefl.primitives.prg import Keystream
from securefl.types import SERVER, PartyId

__all__ = ["CHECKS"]


def params_of(given: Mapping[str, Any]) -> Params:
    """The parameters of a vector. Raises :class:`~securefl.errors.ConfigurationError` when they cannot work."""
    context = RoundContext(
        session=bytes.fromhex(given["session"]),
        round=given["round"],
        clients=tuple(PartyId(client) for client in given["clients"]),
        dimension=given["dimension"],
        max_value=int(given["max_value"]),
        threshold=given["threshold"],
        model_hash=bytes.fromhex(given["model_hash"]),
        encoding=bytes.fromhex(given["encoding"]),
        segments=tuple(Segment(*part) for part in given["segments"]),
    )
    model = next(model for model in KeyModel if model.label == given["model"])
    release = next(release for release in Release if release.label == given["release"])
    return Params.of(context, parameter_set(given["set"]), model, flooded=given["flooded"], release=release)


class _Tokens:
    """Recorded tokens, in the order in which they were drawn."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._tokens = [bytes.fromhex(token) for token in given.get("tokens", ())]

    def token(self, length: int) -> bytes:
        if not self._tokens or len(self._tokens[0]) != length:
            raise Mismatch(f"{length} random bytes are drawn where none, or another number, were recorded")
        return self._tokens.pop(0)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        raise Mismatch("nothing is sealed in this protocol")


def _params(case: Case) -> None:
    if case.error is not None:
        refused(case.error, lambda: params_of(case.input))
        return
    expect("the context hash", params_of(case.input).context_hash.hex(), case.expected["context"])


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
        return Client(params, me, identities[me], directory, shared=key, entropy=_Tokens(given))
    if given["role"] == "server":
        return Server(params, identities[SERVER], directory)
    backend.require()  # it decrypts with SEAL: without the extra the test is skipped
    ring = KeyRing(params.parameters, params.key_model, key=key)
    return KeyHolder(params, ring, identities[KEY_HOLDER], directory)


def _play(case: Case) -> None:
    params = params_of(case.params)
    role = _role(params, case)
    steps = [partial(_step, role, step) for step in case.input["steps"]]
    if case.error is not None:
        for step in steps[:-1]:
            step()
        refused(case.error, lambda: _raised(steps[-1]()))
        return
    events = [event for step in steps for event in step()]
    expect("the frames sent", [bytes(e.frame).hex() for e in events if isinstance(e, Send)], case.expected["sent"])
    ends = [event for event in events if isinstance(event, Completed)]
    expect("the end", len(ends), 1)
    if "sum" in case.expected:
        result = ends[0].result or SumResult(np.zeros(0, dtype=np.uint64), ())
        expect("the sum", [str(value) for value in result.values.tolist()], case.expected["sum"])
        expect("the survivors", list(result.survivors), case.expected["survivors"])


def _step(role: Client | Server | KeyHolder, step: Mapping[str, Any]) -> Sequence[Event]:
    if step["do"] == "start":
        return role.start()
    if step["do"] == "receive":
        return role.receive(bytes.fromhex(step["frame"]))
    if step["do"] == "close" and isinstance(role, Server):
        return role.close_round()
    if step["do"] == "provide" and isinstance(role, Client):
        return role.provide(np.array(step["values"], dtype=np.uint64))
    raise Mismatch(f"this role does not {step['do']}")


def _raised(events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, Aborted):
            raise event.reason


CHECKS: Final[Mapping[str, Check]] = {
    "params": _params,
    "layout": _layout,
    "code": _code,
    "residues": _residues,
    "play": _play,
}
