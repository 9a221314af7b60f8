"""The vectors of split learning, made by split_ref."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from typing import Any

from split_naming import draw
from split_ref import BITS, RINGS, Layer, Refused, answer, body, context_hash, decrypt, encrypt, noise, times, uniform
from split_shared_batch import shared, shared_story
from wire_ref import seal_frame

RING = "n4096-q60"


def files() -> dict[str, dict[str, Any]]:
    return {
        "vectors/messages.json": messages(),
        "vectors/session.json": sessions(),
        "vectors/sizes.json": sizes(),
        "vectors/layer.json": layers(),
        "vectors/shared.json": shared(),
        "transcript.jsonl": transcript(),
        "transcript.md": story(),
        "transcript-shared.md": shared_story(),
    }


def blocks() -> dict[str, str]:
    return {}


# ---- messages

CONTEXT = {"session": b"session".hex(), "client": 3, "mode": "plain", "activations": 2, "outputs": 2, "max_batch": 4}


def messages() -> dict[str, Any]:
    cases = {
        "unlabelled": (0, "activations of two examples", 1, 2, bytes(range(16)), None, None),
        "labelled": (5, "labels stand before the payload", 9, 2, bytes(range(16)), [4, 0], None),
        "answer-with-loss": (5, "the sum of the losses, then the gradient", 9, 2, bytes(16), None, 1.25),
        "largest": (0, "the largest batch and step", 2**64 - 1, 4, bytes(32), None, None),
    }
    tests: list[dict[str, Any]] = []
    for name, (classes, comment, step, batch, payload, labels, loss) in cases.items():
        whole = body(step, batch, payload, labels, loss)
        given = {"classes": classes, "step": str(step), "batch": batch, "payload": payload.hex()}
        given |= {"labels": labels} if labels else {}
        given |= {"loss": loss.hex()} if loss is not None else {}
        digest = context_hash(b"session", 3, "plain", 2, 2, 4, classes).hex()
        tests.append(
            {"id": name, "comment": comment, "input": given, "expected": {"context": digest, "body": whole.hex()}}
        )
    bad = {
        "other-step": ("unlabelled", "a step that is not under way", 0, body(2, 2, bytes(16)), {}),
        "no-examples": ("unlabelled", "a batch of 0", 0, body(1, 0, bytes(16)), {}),
        "too-many": ("unlabelled", "a batch above the largest", 0, body(1, 5, bytes(16)), {}),
        "cut-off": ("unlabelled", "ends within the batch size", 0, body(1, 2, b"")[:10], {}),
        "label-out-of-range": ("labelled", "a label of 5 among 5 classes", 5, body(1, 2, b"", [1, 5]), {"labels": []}),
        "loss-not-finite": ("answer-with-loss", "a loss of NaN", 5, body(1, 2, b"", None, float("nan")), {"loss": ""}),
    }
    for name, (base, comment, classes, whole, more) in bad.items():
        given = {"classes": classes, "step": "1", "body": whole.hex(), **more}
        error = {"type": "DecodeError"}
        tests.append(
            {"id": name, "comment": comment, "derived_from": f"messages.json#{base}", "input": given, "error": error}
        )
    return {
        "spec": "protocols/split/SPEC.md §3",
        "description": (
            "params and input.classes are a context, whose hash is expected.context; input is a message, whose body is "
            "expected.body, and back. With error: decoding input.body in step input.step is refused; where labels or "
            "loss are named, the message is expected to have them."
        ),
        "groups": [{"operation": "message", "params": CONTEXT, "tests": tests}],
    }


# ---- a session in mode plain, frame by frame

WEIGHTS = [[0.5, -1.0], [2.0, 0.25]]
BIAS = [0.125, -0.5]
KINDS = {1: "SETUP", 2: "ACTIVATIONS", 5: "GRADIENT", 6: "WEIGHT_GRADIENT", 7: "OUTPUTS", 8: "INPUT_GRADIENT"}


def rows(values: list[list[float]]) -> bytes:
    return b"".join(struct.pack("<f", value) for row in values for value in row)


def session() -> list[dict[str, Any]]:
    """Two examples through z = W a + b, F = O = 2, and back; every number is exact in float32."""
    context = context_hash(b"session", 3, "plain", 2, 2, 4, 0)
    a, dz, released = [[1.0, 2.0], [-0.5, 4.0]], [[0.25, -0.25], [-1.0, 0.5]], [[0.75, 1.5, -0.75], [0.0, 1.5, 0.25]]
    z = [
        [sum(w * x for w, x in zip(ws, row, strict=True)) + b for ws, b in zip(WEIGHTS, BIAS, strict=True)] for row in a
    ]
    da = [[sum(WEIGHTS[o][f] * row[o] for o in range(2)) for f in range(2)] for row in dz]
    bodies = [
        (1, b""),
        (2, body(1, 2, rows(a))),
        (7, body(1, 2, rows(z))),
        (5, body(1, 2, rows(dz))),
        (8, body(1, 2, rows(da))),
        (6, body(1, 2, rows(released))),
    ]
    frames = []
    for kind, content in bodies:
        sender, recipient = (0, 3) if kind in (7, 8) else (3, 0)
        frame = seal_frame(6, kind, context, sender, recipient, content)
        frames.append({"from": sender, "to": recipient, "kind": kind, "frame": frame.hex()})
    return frames


def transcript() -> str:
    return "".join(json.dumps(entry) + "\n" for entry in session())


def story() -> str:
    what = {
        1: "empty: the mode needs no key",
        2: "activations of two examples, float32",
        7: "outputs of the body: W a + b",
        5: "gradient of the sum of the losses at the outputs",
        8: "gradient at the activations: Wᵀ dz",
        6: "a weight gradient that was clipped and noised, the bias last",
    }
    lines = [
        "# One session of split learning, frame by frame",
        "",
        "<!-- made by protocols/generate.py: do not edit -->",
        "",
        f"Mode plain in the U shape, client 3, F = O = 2, W = {WEIGHTS}, b = {BIAS}; the weights do not move.",
        "`transcript.jsonl` has the same frames in the same order, one to a line.",
        "",
        "| # | from | to | message | bytes | what is in it |",
        "|---|---|---|---|---|---|",
    ]
    for at, entry in enumerate(session()):
        names = ["server" if party == 0 else f"client {party}" for party in (entry["from"], entry["to"])]
        size = len(entry["frame"]) // 2
        lines.append(f"| {at} | {names[0]} | {names[1]} | {KINDS[entry['kind']]} | {size} | {what[entry['kind']]} |")
    return "\n".join(lines) + "\n"


def sessions() -> dict[str, Any]:
    test = {
        "id": "two-examples",
        "comment": "forward, backward, and a released weight gradient",
        "input": {"weights": WEIGHTS, "bias": BIAS},
        "expected": {"frames": session()},
    }
    return {
        "spec": "protocols/split/SPEC.md §4",
        "description": (
            "One session of params, mode plain: each role, given the frames that it receives, sends the others. The "
            "body is z = W a + b; what the client provides stands in its frames."
        ),
        "groups": [{"operation": "session", "params": CONTEXT, "tests": [test]}],
    }


# ---- sizes


def sizes() -> dict[str, Any]:
    tests = []
    for ring in RINGS:
        for features, outputs, batch in ((3, 2, 5), (64, 10, 32), (256, 10, 32), (256, 10, 512), (256, 5, 1024)):
            layer = Layer(ring, features, outputs, batch)
            expected = {
                "group": layer.group,
                "gradient_group": layer.gradient_group,
                "scale": str(layer.scale),
                "flooding": str(layer.flooding),
                "limit": str(layer.limit),
            }
            given = {"ring": ring, "bits": BITS[ring], "features": features, "outputs": outputs, "max_batch": batch}
            name = f"{ring}-{features}-{outputs}-{batch}"
            tests.append({"id": name, "comment": "", "input": given, "expected": expected})
    return {
        "spec": "protocols/split/SPEC.md §5.4",
        "description": "g, g', Δ, K and L of a layer.",
        "groups": [{"operation": "sizes", "params": {}, "tests": tests}],
    }


# ---- ciphertexts and answers


def tokens_of(name: str) -> Iterator[bytes]:
    at = 0
    while True:
        yield draw(f"{name} token {at}", 16)
        at += 1


def zeros_of(layer: Layer, secret: list[int], name: str) -> Iterator[list[tuple[list[int], list[int]]]]:
    """Encryptions of zero, symmetric ones: whoever answers is given them."""
    at = 0
    while True:
        seed, errors = draw(f"{name} zero {at}", 16), noise(draw(f"{name} zero noise {at}", 16), layer.degree)
        pairs = []
        for index, q in enumerate(layer.primes):
            c1 = uniform(seed[:-1] + bytes([seed[-1] ^ index]), layer.degree, q)
            c0 = [(e - p) % q for e, p in zip(errors, times(c1, secret), strict=True)]
            pairs.append((c0, c1))
        yield pairs
        at += 1


def secret_of(name: str, degree: int) -> list[int]:
    return [byte % 3 - 1 for byte in draw(f"{name} secret", degree)]


def integers(name: str, rows: int, columns: int, limit: int, *, extreme: bool = False) -> list[list[int]]:
    values = [int.from_bytes(draw(f"{name} {at}", 8), "big") for at in range(rows * columns)]
    flat = [limit * (1 - value % 2 * 2) if extreme else value % (2 * limit + 1) - limit for value in values]
    return [flat[at * columns : (at + 1) * columns] for at in range(rows)]


def layers() -> dict[str, Any]:
    cases = {
        "small": (RING, 3, 2, 2, False, "three features, two outputs, two examples"),
        "extreme": (RING, 4, 3, 3, True, "every integer as large as it may be"),
        "two-primes": ("n8192-q112", 2, 2, 2, False, "the wide set: the second prime is divided out"),
    }
    tests: list[dict[str, Any]] = []
    for name, (ring, features, outputs, batch, extreme, comment) in cases.items():
        layer = Layer(ring, features, outputs, batch)
        secret = secret_of(name, layer.degree)
        rows = integers(f"{name} a", batch, features, layer.a, extreme=extreme)
        gradient = integers(f"{name} dz", batch, outputs, layer.g_limit, extreme=extreme)
        weights = integers(f"{name} w", outputs, features, layer.m, extreme=extreme)
        bias = integers(f"{name} b", 1, outputs, 1000)[0]
        up = encrypt(layer, secret, rows, layer.feature_blocks(layer.group), tokens_of(f"{name} client"))
        zeros, flood = zeros_of(layer, secret, name), tokens_of(f"{name} server")
        down = answer(layer, up, weights, bias, batch, flood, zeros, forward=True)
        z = [
            [sum(w * x for w, x in zip(ws, row, strict=True)) + b for ws, b in zip(weights, bias, strict=True)]
            for row in rows
        ]
        if decrypt(layer, secret, down, batch, forward=True) != z:
            raise AssertionError(name)
        slots = layer.slot_blocks(layer.gradient_group)
        back_up = encrypt(layer, secret, gradient, slots, tokens_of(f"{name} client back"))
        zeros, flood = zeros_of(layer, secret, f"{name} back"), tokens_of(f"{name} server back")
        back = answer(layer, back_up, weights, [0] * outputs, batch, flood, zeros, forward=False)
        da = [[sum(weights[o][f] * row[o] for o in range(outputs)) for f in range(features)] for row in gradient]
        if decrypt(layer, secret, back, batch, forward=False) != da:
            raise AssertionError(name)
        tests.append(
            {
                "id": name,
                "comment": comment,
                "input": {
                    "ring": ring,
                    "bits": BITS[ring],
                    "max_batch": batch,
                    "activations": rows,
                    "gradient": gradient,
                    "weights": weights,
                    "bias": bias,
                },
                "expected": {
                    "ciphertext": hashlib.sha256(up).hexdigest(),
                    "answer": hashlib.sha256(down).hexdigest(),
                    "outputs": z,
                    "gradient_ciphertext": hashlib.sha256(back_up).hexdigest(),
                    "gradient_answer": hashlib.sha256(back).hexdigest(),
                    "input_gradient": da,
                },
            }
        )
    base = tests[0]["input"]
    for name, comment, fault, error in (
        ("other-key", "the answer is opened with another key", "key", "AuthenticationError"),
        ("damaged-seed", "one bit of the ciphertext's seed flipped on the way", "seed", "AuthenticationError"),
        (
            "damaged-answer",
            "the bit of half the lattice distance flipped in the first coefficient of c0",
            "answer",
            "AuthenticationError",
        ),
        ("too-short", "the last byte of the ciphertext is missing", "short", "DecodeError"),
        ("not-a-residue", "the first coefficient of c0 is 2^60 − 1", "residue", "DecodeError"),
        ("beyond-the-range", "an activation one above its limit", "range", "InvalidInputError"),
    ):
        check_fault(base, fault, error)
        given = {**base, "fault": fault}
        tests.append(
            {
                "id": name,
                "comment": comment,
                "derived_from": "layer.json#small",
                "input": given,
                "error": {"type": error},
            }
        )
    return {
        "spec": "protocols/split/SPEC.md §5.5",
        "description": (
            "The secret key, every 16-byte token and every encryption of zero are expanded from the test's id by "
            "SHAKE256, as split_vectors.py writes: client tokens are seed and noise key of each ciphertext in turn; "
            "server tokens are those of the flooding of each answer in turn. Ciphertexts and answers are given as "
            "SHA-256 of their bytes. With error: the forward pass of the test that it is derived from, with one fault."
        ),
        "groups": [{"operation": "layer", "params": {}, "tests": tests}],
    }


def check_fault(given: dict[str, Any], fault: str, error: str) -> None:
    """The reference refuses what is said to be refused (ranges are checked before anything is encrypted)."""
    if fault == "range":
        return
    layer = Layer(RING, 3, 2, 2)
    secret = secret_of("small", layer.degree)
    up = encrypt(layer, secret, given["activations"], layer.feature_blocks(layer.group), tokens_of("small client"))
    if fault == "seed":
        up = bytes([up[0] ^ 1]) + up[1:]
    if fault == "residue":
        up = up[:16] + b"\xff" * 8 + up[24:]
    try:
        data = up[:-1] if fault == "short" else up
        zeros = zeros_of(layer, secret, "small")
        down = answer(layer, data, given["weights"], given["bias"], 2, tokens_of("small server"), zeros, forward=True)
        if fault == "answer":
            at = layer.degree * 60 // 8 + 4  # bit 38: half of the lattice distance
            down = down[:at] + bytes([down[at] ^ 64]) + down[at + 1 :]
        key = secret_of("another", layer.degree) if fault == "key" else secret
        decrypt(layer, key, down, 2, forward=True)
    except Refused as refused:
        if str(refused) == error:
            return
    raise AssertionError(fault)
