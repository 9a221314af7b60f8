"""Vectors of split learning: messages, sizes, the encrypted layer. SPEC: protocols/split/SPEC.md §2, §3, §5."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.audit.checks.split_shared import shared_batch
from securefl.ckks.backend import KeyPair
from securefl.ckks.linear import LinearClient, LinearLayer, LinearServer
from securefl.ckks.params import parameter_set
from securefl.ckks.ring import Multiplier, Residues, add_into, lift, noise, uniform
from securefl.machine import Send
from securefl.primitives.kem import PublicKey
from securefl.split.client import SplitClient
from securefl.split.engine import PayloadLimits, Rows, float32_bytes, float32_rows
from securefl.split.messages import Batch, SplitContext, decode_batch, encode_batch
from securefl.split.server import SplitServer
from securefl.types import PartyId
from securefl.wire import HEADER_BYTES, Buffer

__all__ = ["CHECKS"]


class _Tokens:
    """An Entropy that gives the tokens of a vector, in turn."""

    def __init__(self, name: str) -> None:
        self._name, self._at = name, 0

    def token(self, length: int) -> bytes:
        self._at += 1
        return _draw(f"{self._name} token {self._at - 1}", length)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        raise LookupError("nothing is sealed here")


def _draw(name: str, length: int) -> bytes:
    return hashlib.shake_256(b"protocols/split " + name.encode()).digest(length)


def _context(params: Mapping[str, Any], classes: int) -> SplitContext:
    return SplitContext(
        bytes.fromhex(params["session"]),
        PartyId(params["client"]),
        params["mode"],
        params["activations"],
        params["outputs"],
        params["max_batch"],
        classes,
    )


def _message(case: Case) -> None:
    params, given = case.params, case.input
    context = _context(params, given["classes"])
    labelled, with_loss = "labels" in given, "loss" in given
    step = int(given["step"])
    if case.error is not None:
        body = bytes.fromhex(given["body"])
        refused(case.error, lambda: decode_batch(body, context, step=step, labelled=labelled, with_loss=with_loss))
        return
    expect("the context's hash", context.hash.hex(), case.expected["context"])
    labels = np.array(given["labels"], dtype=np.int64) if labelled else None
    loss = float.fromhex(given["loss"]) if with_loss else None
    whole = encode_batch(Batch(step, given["batch"], bytes.fromhex(given["payload"]), labels, loss))
    expect("the body", whole.hex(), case.expected["body"])
    found = decode_batch(whole, context, step=step, labelled=labelled, with_loss=with_loss)
    expect("the payload", bytes(found.payload).hex(), given["payload"])
    expect("the loss", found.loss, loss)
    expect("the labels", None if found.labels is None else found.labels.tolist(), given.get("labels"))


class _Affine:
    """Both sides of mode plain around z = W a + b, in numpy."""

    limits = PayloadLimits(0, 4 * 4 * 2, 4 * 4 * 2, 4 * 4 * 2, 4 * 4 * 2)

    def __init__(self, weights: Rows, bias: Rows) -> None:
        self._weights, self._bias = weights, bias

    def setup(self, payload: Buffer = b"") -> bytes:
        return b""

    def activations(self, rows: Rows) -> bytes:
        return float32_bytes(rows)

    gradient = activations

    def outputs(self, payload: Buffer, batch: int) -> Rows:
        return float32_rows(payload, batch, 2, "rows")

    input_gradient = outputs

    def forward(self, payload: Buffer, batch: int, *, train: bool) -> bytes:
        return float32_bytes(self.outputs(payload, batch) @ self._weights.T + self._bias)

    def backward(self, payload: Buffer, batch: int) -> bytes:
        return float32_bytes(self.outputs(payload, batch) @ self._weights)


def _session(case: Case) -> None:
    given, frames = case.input, [bytes.fromhex(entry["frame"]) for entry in case.expected["frames"]]
    engine: Any = _Affine(np.array(given["weights"], np.float32), np.array(given["bias"], np.float32))
    context = _context(case.params, 0)
    client, server = SplitClient(context, engine), SplitServer(context, engine)

    def rows(at: int, width: int) -> Rows:
        return np.frombuffer(frames[at][HEADER_BYTES + 12 : -16], "<f4").reshape(-1, width).astype(np.float32)

    def sent(events: Sequence[Any]) -> str:
        return next(bytes(event.frame).hex() for event in events if isinstance(event, Send))

    expect("SETUP", sent(client.start()), frames[0].hex())
    server.receive(frames[0])
    expect("ACTIVATIONS", sent(client.forward(rows(1, 2))), frames[1].hex())
    expect("OUTPUTS", sent(server.receive(frames[1])), frames[2].hex())
    client.receive(frames[2])
    expect("GRADIENT", sent(client.backward(rows(3, 2))), frames[3].hex())
    expect("INPUT_GRADIENT", sent(server.receive(frames[3])), frames[4].hex())
    client.receive(frames[4])
    expect("WEIGHT_GRADIENT", sent(client.release(rows(5, 3), 2)), frames[5].hex())
    server.receive(frames[5])


def _layer_of(given: Any, features: int, outputs: int) -> LinearLayer:
    return LinearLayer(parameter_set(given["ring"]), features, outputs, given["max_batch"], *given["bits"])


def _sizes(case: Case) -> None:
    given = case.input
    layer = _layer_of(given, given["features"], given["outputs"])
    expect("g", layer.group, case.expected["group"])
    expect("g'", layer.gradient_group, case.expected["gradient_group"])
    expect("Δ", str(layer.scale), case.expected["scale"])
    expect("K", str(layer.flooding), case.expected["flooding"])
    expect("L", str(layer.result_limit), case.expected["limit"])


def _zeros(layer: LinearLayer, secret: Multiplier, name: str) -> Callable[[], Residues]:
    def make() -> Iterator[Residues]:
        at, degree, primes = 0, layer.parameters.degree, layer.parameters.primes
        while True:
            seed = _draw(f"{name} zero {at}", 16)
            errors = noise(_draw(f"{name} zero noise {at}", 16), degree)
            pair = np.empty((2, len(primes), degree), dtype=np.uint64)
            for index, q in enumerate(primes):
                pair[1, index] = uniform(seed[:-1] + bytes([seed[-1] ^ index]), degree, q)
                c0 = lift(errors, q)
                add_into(c0, (np.uint64(q) - secret.times(pair[1, index], q)) % np.uint64(q), q)
                pair[0, index] = c0
            yield pair
            at += 1

    source = make()
    return lambda: next(source)


def _secret(name: str, degree: int) -> KeyPair:
    values = np.frombuffer(_draw(f"{name} secret", degree), np.uint8) % 3
    return KeyPair(values.astype(np.int8) - np.int8(1), np.zeros((2, 0, degree), dtype=np.uint64))


def _forward(case: Case, name: str, fault: str) -> tuple[bytes, bytes, list[list[int]]]:
    """(ciphertext, answer, outputs) of the forward pass, with one fault."""
    given = case.input
    rows = np.array(given["activations"], dtype=np.int64)
    weights, bias = np.array(given["weights"], dtype=np.int64), np.array(given["bias"], dtype=np.int64)
    layer = _layer_of(given, rows.shape[1], len(weights))
    keys = _secret(name, layer.parameters.degree)
    zeros = _zeros(layer, Multiplier(keys.secret), name)
    client = LinearClient(layer, keys=keys, entropy=_Tokens(f"{name} client"))
    server = LinearServer(layer, b"", entropy=_Tokens(f"{name} server"), zeros=zeros)
    if fault == "range":
        rows[0, 0] = layer.activation_limit + 1
    up = bytearray(client.encrypt_activations(rows))
    if fault == "seed":
        up[0] ^= 1
    if fault == "residue":
        up[16:24] = b"\xff" * 8
    sent = bytes(up[:-1] if fault == "short" else up)
    down = bytearray(server.forward(sent, weights, bias, len(rows)))
    if fault == "answer":
        down[layer.parameters.degree * 60 // 8 + 4] ^= 64
    if fault == "key":
        client = LinearClient(layer, keys=_secret("another", layer.parameters.degree))
    return sent, bytes(down), client.decrypt_outputs(bytes(down), len(rows)).tolist()


def _layer(case: Case) -> None:
    if case.error is not None:
        refused(case.error, lambda: _forward(case, "small", case.input["fault"]))
        return
    name, given, expected = case.test["id"], case.input, case.expected
    up, down, outputs = _forward(case, name, "")
    expect("the ciphertext", hashlib.sha256(up).hexdigest(), expected["ciphertext"])
    expect("the answer", hashlib.sha256(down).hexdigest(), expected["answer"])
    expect("the outputs", outputs, expected["outputs"])
    gradient = np.array(given["gradient"], dtype=np.int64)
    weights = np.array(given["weights"], dtype=np.int64)
    layer = _layer_of(given, weights.shape[1], len(weights))
    keys = _secret(name, layer.parameters.degree)
    zeros = _zeros(layer, Multiplier(keys.secret), f"{name} back")
    client = LinearClient(layer, keys=keys, entropy=_Tokens(f"{name} client back"))
    server = LinearServer(layer, b"", entropy=_Tokens(f"{name} server back"), zeros=zeros)
    up = client.encrypt_gradient(gradient)
    expect("the gradient's ciphertext", hashlib.sha256(up).hexdigest(), expected["gradient_ciphertext"])
    back = server.backward(up, weights, len(gradient))
    expect("the gradient's answer", hashlib.sha256(back).hexdigest(), expected["gradient_answer"])
    found = client.decrypt_input_gradient(back, len(gradient)).tolist()
    expect("the input's gradient", found, expected["input_gradient"])


def _shared(case: Case) -> None:
    name = case.test["id"]
    shared_batch(case, lambda what, length: _draw(f"{name} {what}", length))


CHECKS: Final[dict[str, Check]] = {
    "message": _message,
    "session": _session,
    "sizes": _sizes,
    "layer": _layer,
    "shared": _shared,
}
