"""Reference for protocols/split/SPEC.md §8: one batch of the mode shared with a linear body, in plain integers.

All parties in one place, one integer at a time, on the reference of secret-shared computation (mpc_ref). Every command,
every message between the parties and every answer is kept in ``log``, in the order in which a client causes them.
"""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from typing import Any

from mpc_ref import RING, Session, Stream, Told, Value, Words, encode, given, packed, stream_key
from split_ref import Refused

PLACES = 16
OF_PRODUCTS = 33
Matrix = list[list[int]]
Reals = list[list[float]]


def command(operation: str, **fields: Any) -> bytes:
    return json.dumps({"do": operation, **fields}, sort_keys=True, separators=(",", ":")).encode()


def times(x: Matrix, y: Matrix) -> Matrix:
    columns = turned(y)
    return [[sum(p * q for p, q in zip(row, column, strict=True)) % RING for column in columns] for row in x]


def matrix(words: Words, columns: int) -> Matrix:
    return [words[at : at + columns] for at in range(0, len(words), columns)]


def flat(rows: Matrix) -> Words:
    return [word for row in rows for word in row]


def turned(rows: Matrix) -> Matrix:
    return [list(column) for column in zip(*rows, strict=True)]


def plus(*terms: Words) -> Words:
    return [sum(words) % RING for words in zip(*terms, strict=True)]


class Form:
    """An opened form: m public to the servers, λ in two shares, as matrices."""

    def __init__(self, form: tuple[Words, Words, Words], columns: int) -> None:
        self.m, self.zero, self.one = (matrix(words, columns) for words in form)

    def turn(self) -> Form:
        other = object.__new__(Form)
        other.m, other.zero, other.one = turned(self.m), turned(self.zero), turned(self.one)
        return other


def double(x: Form, y: Form) -> Value:
    """SPEC mpc §5.1: twice the product, one binary place more."""

    def less(a: Matrix, b: Matrix, times: int = 1) -> Matrix:
        return [[(p - times * q) % RING for p, q in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]

    zero = times(less(x.m, x.zero, 2), less(y.m, y.zero, 2))
    one = times(less(x.m, x.one, 2), less(y.m, y.one, 2))
    helper = times(less(x.zero, x.one), less(y.zero, y.one))
    return Value(flat(zero), flat(one), [-2 * word % RING for word in flat(helper)])


class Rules:
    """Which commands of §8 a party takes when, for a model whose passes have ``rows`` examples."""

    def __init__(self, rows: int) -> None:
        self.rows, self.version, self.gradients = rows, 0, False
        self.passes: dict[int, int] = {}

    def forward(self, output: int) -> None:
        self.passes[output] = self.version

    def backward(self, of: int, rows: int) -> None:
        if of not in self.passes:
            raise Refused("DecodeError")
        version = self.passes.pop(of)
        if rows != self.rows:
            raise Refused("InvalidInputError")
        if version != self.version:
            raise Refused("LocalProtocolError")
        self.gradients = True

    def step(self, rate: float) -> None:
        if not 0 < rate < 1024:
            raise Refused("DecodeError")
        if not self.gradients:
            raise Refused("LocalProtocolError")
        self.gradients, self.version = False, self.version + 1


class Batch:
    """z = a W + b for W [F, O]. ``secrets``: of the pairs (0, 2), (1, 2), (0, 1). ``keys``: of what is put, in turn."""

    def __init__(self, secrets: dict[tuple[int, int], bytes], session: bytes, keys: list[bytes]) -> None:
        self.secrets, self.session, self.keys = secrets, session, list(keys)
        self.log: list[tuple[str, int, int, bytes]] = []
        self.told = Told(secrets[0, 1], session)
        self.number = 0

    # ---- SPEC mpc §9

    def tell(self, name: str, text: bytes, payloads: tuple[bytes, bytes, bytes] = (b"", b"", b"")) -> None:
        for party in range(3):
            self.log.append((name, 3, party, text + payloads[party]))

    def put(self, name: str, identity: int, values: Reals | list[float]) -> tuple[Value, Form]:
        rows: Any = values
        shape = [len(rows), len(rows[0])] if isinstance(rows[0], list) else [len(rows)]
        words = [encode(v, PLACES) for v in (flat(rows) if len(shape) == 2 else rows)]
        keys = self.keys.pop(0)
        first, second = keys[:16], keys[16:]
        value, form = given(words, first, second)
        m = packed(form[0])
        text = command("put", id=identity, shape=shape, fraction=PLACES, opened=True)
        self.tell(name, text, (m + first, m + second, keys))
        self.told.given(m, first, second)
        return value, Form(form, shape[-1])

    def begin(self, name: str, operation: str, **fields: Any) -> tuple[Session, Stream]:
        """A command that computes: the helper's streams with both servers, and the servers' own."""
        self.number += 1
        text = command(operation, batch=self.number, **fields)
        self.tell(name, text)
        program = sha256(text).digest()
        a, b, z = (
            Stream(stream_key(self.secrets[pair], self.session, pair, self.number, program + self.told.d[pair]))
            for pair in ((0, 2), (1, 2), (0, 1))
        )
        return Session(a, b), z

    def sent(self, name: str, session: Session) -> None:
        self.log += [(name, sender, to, message) for sender, to, message in session.sent]

    def get(self, name: str, identity: int, value: Value, shape: list[int], places: int) -> Words:
        """SPEC mpc §9, *Getting*, of a tensor that is not settled."""
        session, z = self.begin(name, "get", tensor=identity)
        count = len(value.zero)
        mask, first, second = z.words(count), session.a.words(count), session.b.words(count)
        zero = plus(value.zero, mask, first)
        one = plus(value.one, [-m for m in mask], second)
        rest = plus(value.helper, [-m for m in first], [-m for m in second])
        self.sent(name, session)
        header = struct.pack(f">QQ{len(shape)}Q", places, len(shape), *shape)
        for party, words in enumerate((zero, one, rest)):
            self.log.append((name, party, 3, header + packed(words)))
        return plus(zero, one, rest)

    # ---- SPEC split §8

    def run(self, w: Reals, b: list[float], a: Reals, dz: Reals, rate: float, examples: int) -> dict[str, Words]:
        """Gives the ring elements of z (33 places), da (16) and the weights after the step (16)."""
        features, outputs, batch = len(w), len(b), len(a)
        (weight, w_form), (bias, _) = self.put("weight", 1, w), self.put("bias", 2, b)
        layers = [
            {"kind": "input", "inputs": [], "name": ""},
            {"kind": "linear", "inputs": [0], "name": "body", "parameters": ["weight", "bias"], "gain": 8, "offset": 8},
        ]
        self.tell("model", command("model", id=3, graph=layers, tensors={"bias": 2, "weight": 1}))
        _, x_form = self.put("activations", 4, a)
        self.begin("forward", "forward", fresh=False, model=3, input=4, output=5)  # nobody needs to say anything
        z = double(x_form, w_form)
        for part, words in ((z.zero, bias.zero), (z.one, bias.one)):
            part[:] = plus(part, [word << OF_PRODUCTS - PLACES for word in words] * batch)
        result = {"outputs": self.get("outputs", 5, z, [batch, outputs], OF_PRODUCTS)}
        delta, d_form = self.put("gradient", 6, dz)
        session, _ = self.begin("backward", "backward", fresh=False, of=5, gradient=6, output=7)
        weights = double(x_form.turn(), d_form)
        below = session.truncate(double(d_form, w_form.turn()), OF_PRODUCTS - PLACES)
        self.sent("backward", session)
        result["input_gradient"] = self.get("input gradient", 7, below, [batch, features], PLACES)
        sums = [
            [sum(column) << OF_PRODUCTS - PLACES for column in zip(*matrix(words, outputs), strict=True)]
            for words in (delta.zero, delta.one, [0] * len(delta.zero))
        ]
        joint = Value(sums[0] + weights.zero, sums[1] + weights.one, sums[2] + weights.helper)
        self.step(joint, bias, weight, rate, examples)
        at = [0, outputs, outputs + features * outputs]
        for name, start, stop, value in (("bias", at[0], at[1], bias), ("weight", at[1], at[2], weight)):
            result[name] = plus(value.zero, value.one, value.helper)
            assert stop - start == len(result[name])
        return result

    def step(self, gradients: Value, bias: Value, weight: Value, rate: float, examples: int) -> None:
        """Names in order: bias, weight. The factor has 12 significant bits; SPEC mpc §8."""
        fields = {"model": 3, "rate": rate, "momentum": 0.0, "divisor": float(examples)}
        session, _ = self.begin("step", "step", fresh=False, **fields)
        value, places = session.truncate(gradients, 12), OF_PRODUCTS - 12
        whole, shift = rounded(rate / examples)
        scale = whole << max(0, -shift)
        places += max(0, shift)
        value = Value(*([word * scale % RING for word in part] for part in (value.zero, value.one, value.helper)))
        moved = session.truncate(value, places - PLACES)
        self.sent("step", session)
        cut = len(bias.zero)
        for target, piece in ((bias, slice(0, cut)), (weight, slice(cut, None))):
            for name in ("zero", "one", "helper"):
                before, change = getattr(target, name), getattr(moved, name)[piece]
                setattr(target, name, [(p - q) % RING for p, q in zip(before, change, strict=True)])


def rounded(factor: float) -> tuple[int, int]:
    """(whole, places): about factor = whole / 2^places, of 12 significant bits, whole odd."""
    places = 0
    while factor < 2**11:
        factor, places = factor * 2, places + 1
    while factor >= 2**12:
        factor, places = factor / 2, places - 1
    whole = round(factor)
    while whole % 2 == 0:
        whole, places = whole // 2, places - 1
    return whole, places
