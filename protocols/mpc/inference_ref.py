"""One private inference by all three parties and a client, in plain Python on mpc_ref: SPEC.md §2, §4, §5, §6, §9.

A network of two layers with relu between them; everything is shared by the client and sown. All randomness is given.
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
    """Row by row. ``sown``: server 0's part is a mask already (§4.2)."""

    shape: tuple[int, ...]
    value: ref.Value
    sown: bool = False


@dataclass
class Inference:
    """``secrets``: of the pairs (0, 1), (0, 2), (1, 2). ``sent``: (from, to, what it is, bytes), in an order that the
    protocol allows.
    """

    session: bytes
    secrets: dict[tuple[int, int], bytes]
    sent: list[tuple[int, int, str, bytes]] = field(default_factory=list)
    told: bytes = b""  # d of §4.1

    def __post_init__(self) -> None:
        for sender, recipient in ((2, 0), (2, 1), (0, 1)):
            pair = (min(sender, recipient), max(sender, recipient))
            self.sent.append((sender, recipient, "the secret of the pair", self.secrets[pair]))

    def put(self, number: int, shape: tuple[int, ...], values: list[float], key: bytes) -> tuple[Tensor, list[Any]]:
        """A tensor, and for each party the command with its bytes."""
        encoded = [ref.encode(value, 16) for value in values]
        zero = ref.Stream(key).words(len(values))
        one = [(v - z) % ref.RING for v, z in zip(encoded, zero, strict=True)]
        self.told = hashlib.sha256(self.told + key).digest()
        text = command(do="put", id=number, shape=list(shape), fraction=16, sown=True)
        tensor = Tensor(shape, ref.Value(zero, one, [0] * len(values)), sown=True)
        return tensor, [(text, extra) for extra in (key, ref.packed(one), key)]

    def batch(self, number: int, text: bytes) -> ref.Session:
        program = hashlib.sha256(text).digest()
        keys = [
            ref.stream_key(self.secrets[server, 2], self.session, (server, 2), number, program + told)
            for server, told in ((0, self.told), (1, b""))
        ]
        return ref.Session(ref.Stream(keys[0]), ref.Stream(keys[1]))

    def apply(self, text: bytes, x: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Linear layers with relu between them; the last is not truncated."""
        work = self.batch(1, text)
        for at, (weight, bias) in enumerate(layers):
            if at:
                value, _ = work.relu(x.value, 17)
                x = Tensor(x.shape, value)
                self.take(work, ["c of the hidden values", "tree 8", "tree 4", "tree 2", "tree 1", "t"])
            product = linear(work, x, weight, bias)
            what = "hidden values and weights" if at else "input and weights"
            self.take(work, [f"opened forms: {what}"])
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
        key = ref.stream_key(self.secrets[0, 1], self.session, (0, 1), 2, hashlib.sha256(text).digest())
        z, a, b = ref.Stream(key).words(n), work.a.words(n), work.b.words(n)
        v = x.value
        parts = [
            [v.zero[i] + z[i] + a[i] for i in range(n)],
            [v.one[i] - z[i] + b[i] for i in range(n)],
            [v.helper[i] - a[i] - b[i] for i in range(n)],
        ]
        header = b"".join(size.to_bytes(8, "big") for size in (0, 33, len(x.shape), *x.shape))
        return [header + ref.packed(part) for part in parts]


def open_forms(work: ref.Session, tensors: list[Tensor]) -> list[ref.Form]:
    """§5.1: plain ones first; of sown ones server 1 speaks alone."""
    order = sorted(range(len(tensors)), key=lambda at: tensors[at].sown)
    plain = sum(len(t.value.zero) for t in tensors if not t.sown)
    sown = sum(len(t.value.zero) for t in tensors) - plain
    l0, l1 = work.a.words(plain), work.b.words(plain)
    l1 += work.b.words(sown)
    zero = [w for at in order if not tensors[at].sown for w in tensors[at].value.zero]
    one = [w for at in order for w in tensors[at].value.one]
    first = [(w + m) % ref.RING for w, m in zip(zero, l0, strict=True)]
    second = [(w + m) % ref.RING for w, m in zip(one, l1, strict=True)]
    if first:
        work.sent.append((0, 1, ref.packed(first)))
    work.sent.append((1, 0, ref.packed(second)))
    opened = [(w + v) % ref.RING for w, v in zip(second, first + [0] * sown, strict=True)]
    forms: dict[int, ref.Form] = {}
    start = 0
    for at in order:
        value = tensors[at].value
        piece = slice(start, start + len(value.zero))
        mask = [-w % ref.RING for w in value.zero] if tensors[at].sown else l0[piece]
        forms[at] = (opened[piece], mask, l1[piece])
        start = piece.stop
    return [forms[at] for at in range(len(tensors))]


def linear(work: ref.Session, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x·W + b with 33 binary places. §5.1"""
    (m, k), n = x.shape, weight.shape[1]

    def matmul(left: ref.Words, right: ref.Words) -> ref.Words:
        return [sum(left[i * k + t] * right[t * n + j] for t in range(k)) for i in range(m) for j in range(n)]

    value = ref.double(*open_forms(work, [x, weight]), matmul)
    for part, b in ((value.zero, bias.value.zero), (value.one, bias.value.one)):
        part[:] = [(v + (b[i % n] << 17)) % ref.RING for i, v in enumerate(part)]
    return Tensor((m, n), value)
