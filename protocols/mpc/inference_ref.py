"""One private inference by all three parties and a client, in plain Python on mpc_ref: SPEC.md §2, §4, §5, §6, §9.

A network of two layers with relu between them; everything is given opened by the client. All randomness is given.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import mpc_ref as ref

CLIENT = 3


def command(**fields: Any) -> bytes:
    """§9: the canonical text."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def message(commands: list[tuple[bytes, bytes]]) -> bytes:
    """§9: what a client sends one party."""
    out = b""
    for text, extra in commands:
        out += len(text).to_bytes(8, "big") + len(extra).to_bytes(8, "big") + extra + text
        out += bytes(-len(text + extra) % 8)
    return out


@dataclass
class Tensor:
    """Row by row. ``form``: the opened one, where there is one already."""

    shape: tuple[int, ...]
    value: ref.Value
    form: ref.Form | None = None


@dataclass
class Inference:
    """``secrets``: of the pairs (0, 1), (0, 2), (1, 2). ``sent``: (from, to, what it is, bytes), in an order that the
    protocol allows.
    """

    session: bytes
    secrets: dict[tuple[int, int], bytes]
    sent: list[tuple[int, int, str, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.told = ref.Told(self.secrets[0, 1], self.session)
        for sender, recipient in ((2, 0), (2, 1), (0, 1)):
            pair = (min(sender, recipient), max(sender, recipient))
            self.sent.append((sender, recipient, "the secret of the pair", self.secrets[pair]))

    def put(self, number: int, shape: tuple[int, ...], values: list[float], keys: bytes) -> tuple[Tensor, list[Any]]:
        """A tensor, and for each party the command with its bytes. ``keys``: 32 bytes."""
        first, second = keys[:16], keys[16:]
        value, form = ref.given([ref.encode(value, 16) for value in values], first, second)
        m = ref.packed(form[0])
        self.told.given(m, first, second)
        text = command(do="put", id=number, shape=list(shape), fraction=16, opened=True)
        return Tensor(shape, value, form), [(text, extra) for extra in (m + first, m + second, keys)]

    def stream(self, pair: tuple[int, int], number: int, text: bytes) -> ref.Stream:
        program = hashlib.sha256(text).digest() + self.told.d[pair]
        return ref.Stream(ref.stream_key(self.secrets[pair], self.session, pair, number, program))

    def batch(self, number: int, text: bytes) -> ref.Session:
        return ref.Session(self.stream((0, 2), number, text), self.stream((1, 2), number, text))

    def apply(self, text: bytes, x: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Linear layers with relu between them; the last is not truncated."""
        work = self.batch(1, text)
        for at, (weight, bias) in enumerate(layers):
            if at:
                value, _ = work.relu(x.value, 17)
                x = Tensor(x.shape, value)
                self.take(work, ["c of the hidden values", "tree 8", "tree 4", "tree, last four", "t"])
            product = linear(work, x, weight, bias)
            self.take(work, ["opened form of the hidden values"])
            x = product
        return x

    def take(self, work: ref.Session, stages: list[str]) -> None:
        """Note what was sent: of the servers one stage after another, of the helper as deals."""
        turn = {0: 0, 1: 0}
        for sender, recipient, data in work.sent:
            if sender == 2:
                what = "deal"
            else:
                what = stages[turn[sender]] if turn[sender] < len(stages) else stages[-1]
                turn[sender] += 1
            self.sent.append((sender, recipient, what, data))
        work.sent.clear()

    def answers(self, text: bytes, x: Tensor) -> list[bytes]:
        """§9: getting a tensor that is not settled, of 33 binary places."""
        work = self.batch(2, text)
        n = len(x.value.zero)
        z, a, b = self.stream((0, 1), 2, text).words(n), work.a.words(n), work.b.words(n)
        v = x.value
        parts = [
            [v.zero[i] + z[i] + a[i] for i in range(n)],
            [v.one[i] - z[i] + b[i] for i in range(n)],
            [v.helper[i] - a[i] - b[i] for i in range(n)],
        ]
        header = b"".join(size.to_bytes(8, "big") for size in (0, 33, len(x.shape), *x.shape))
        return [header + ref.packed(part) for part in parts]


def linear(work: ref.Session, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x·W + b with 33 binary places. §5.1"""
    (m, k), n = x.shape, weight.shape[1]

    def matmul(left: ref.Words, right: ref.Words) -> ref.Words:
        return [sum(left[i * k + t] * right[t * n + j] for t in range(k)) for i in range(m) for j in range(n)]

    forms = [tensor.form or work.open_masked([tensor.value])[0] for tensor in (x, weight)]
    value = ref.double(*forms, matmul)
    for part, b in ((value.zero, bias.value.zero), (value.one, bias.value.one)):
        part[:] = [(v + (b[i % n] << 17)) % ref.RING for i, v in enumerate(part)]
    return Tensor((m, n), value)
