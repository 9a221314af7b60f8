"""What a party does for those who ask it: keep tensors and networks, run programs on them, give results. SPEC mpc §9.

A *client* (who owns data or a model, or gets results) sends every party the same commands in the same order; parties
differ only in the bytes that come with them. A command is a JSON object of known fields; nothing in it names code. A
command that computes carries a batch number, larger than every earlier one, and the streams of the batch are bound to
the whole command: parties that were asked different things compute nothing that fits together, under masks of its own.

A *fresh* batch keeps no masks for later ones: forms opened in it are forgotten and nothing is left at the helper, so
that everything the helper sends is a function of the batch's two keys. Such a batch can be audited instead of used.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from securefl.errors import DecodeError
from securefl.mpc.audit import audit
from securefl.mpc.bits import Bits, plane_bytes
from securefl.mpc.fixed import HEADROOM_BITS
from securefl.mpc.graph import Graph
from securefl.mpc.handover import take
from securefl.mpc.network import Network, Pass
from securefl.mpc.operations import matmul, mul, randomized_part, settle, truncate
from securefl.mpc.party import Party, as_bytes
from securefl.mpc.shared import Shared
from securefl.wire import Buffer

__all__ = ["MAX_COMMAND_BYTES", "MAX_PAYLOAD_BYTES", "MAX_RATE", "Service", "encode_command"]

MAX_COMMAND_BYTES: Final = 1 << 22
MAX_PAYLOAD_BYTES: Final = 1 << 33
MAX_RATE: Final = 2.0**10
_MAX_TENSORS: Final = 1 << 16

#: Operation → its fields and their kinds. "id" a tensor or model, "shape" a list, "n" a natural number, "x" a number.
FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "put": {"id": "id", "shape": "shape", "fraction": "n", "opened": "flag"},
    "model": {"id": "id", "graph": "graph", "tensors": "names"},
    "apply": {"batch": "n", "fresh": "flag", "model": "id", "input": "id", "output": "id"},
    "train": {
        "batch": "n",
        "fresh": "flag",
        "model": "id",
        "input": "id",
        "targets": "id",
        "loss": "text",
        "rate": "x",
        "momentum": "x",
    },
    "forward": {"batch": "n", "fresh": "flag", "model": "id", "input": "id", "output": "id"},
    "backward": {"batch": "n", "fresh": "flag", "of": "id", "gradient": "id", "output": "id"},
    "step": {"batch": "n", "fresh": "flag", "model": "id", "rate": "x", "momentum": "x", "divisor": "x"},
    "combine": {"batch": "n", "fresh": "flag", "how": "text", "left": "id", "right": "id", "output": "id"},
    "audit": {"command": "text"},
    "parameter": {"model": "id", "name": "text", "output": "id"},
    "get": {"batch": "n", "tensor": "id"},
    "drop": {"ids": "ids"},
    "cost": {},
    "bye": {},
}


_COMBINATIONS: Final[Mapping[str, Callable[[Shared, Shared], Shared]]] = {
    "matmul": matmul,
    "multiply": mul,
    "add": lambda left, right: left + right,
    "subtract": lambda left, right: left - right,
}


def encode_command(operation: str, **fields: Any) -> bytes:
    """The canonical bytes of a command."""
    return json.dumps({"do": operation, **fields}, sort_keys=True, separators=(",", ":")).encode()


def _kind_ok(kind: str, value: object) -> bool:
    if kind in {"id", "n"}:
        return type(value) is int and 0 <= value < 2**63
    if kind == "x":
        return type(value) in {int, float} and math.isfinite(value)  # type: ignore[arg-type]
    if kind in {"text", "flag"}:
        return isinstance(value, str if kind == "text" else bool)
    if kind == "graph":
        return isinstance(value, list)
    if kind == "names":
        return isinstance(value, dict) and all(_kind_ok("id", number) for number in value.values())
    return isinstance(value, list) and len(value) <= _MAX_TENSORS and all(_kind_ok("n", item) for item in value)


def decode_command(data: Buffer) -> dict[str, Any]:
    """Raises :class:`DecodeError` for anything but one command with exactly its fields."""
    try:
        command: Any = json.loads(str(data, "utf-8"))
    except (ValueError, RecursionError):
        raise DecodeError("a command is a JSON object") from None
    operation = command.get("do") if isinstance(command, dict) else None
    if not isinstance(operation, str) or operation not in FIELDS:
        raise DecodeError("a command names one of the operations of SPEC §9")
    fields = FIELDS[operation]
    if command.keys() != {"do", *fields} or not all(_kind_ok(kind, command[name]) for name, kind in fields.items()):
        raise DecodeError(f"the command {operation!r} has the fields {sorted(fields)}")
    return dict(command)


def _shape_of_bits(helper: Party, bits: Bits) -> Bits:
    return Bits(helper, bits.shape, np.zeros(plane_bytes(bits.size), np.uint8))


class Service:
    """One party at work for one client."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self._tensors: dict[int, Shared] = {}
        self._models: dict[int, Network] = {}
        #: Forward passes that wait for their backward one, by the number of their output; with the model's number.
        self._passes: dict[int, tuple[int, Pass]] = {}
        self._work: Mapping[str, Callable[[dict[str, Any], memoryview], bytes | memoryview]] = {
            "put": self._put,
            "model": self._model,
            "apply": self._apply,
            "train": self._train,
            "forward": self._forward,
            "backward": self._backward,
            "step": self._step,
            "combine": self._combine,
            "audit": self._audit,
            "parameter": self._parameter,
            "get": self._get,
            "drop": self._drop,
            "cost": self._cost,
            "bye": lambda command, payload: b"",
        }

    def handle(self, data: Buffer, payload: memoryview) -> tuple[bool, bytes | memoryview]:
        """Do one command. Gives whether the client waits for an answer, and the answer.

        Raises :class:`DecodeError`, or what the program raises; the party must end then, since the others may have
        gone on differently.
        """
        command = decode_command(data)
        operation = command["do"]
        if "batch" in command:
            self.party.begin(command["batch"], hashlib.sha256(data).digest())
        if command.get("fresh"):
            self._forget_forms()
        result = self._work[operation](command, payload)
        if command.get("fresh"):
            self._settle()
        return operation in {"get", "cost", "bye"}, result

    def run_as_helper(self, data: Buffer, helper: Party) -> None:
        """Run the computing command ``data`` as the helper would: with this party's shapes, and no values."""
        command = decode_command(data)

        shapes: dict[int, Shared] = {}

        def shape_of(tensor: Shared) -> Shared:
            return shapes.setdefault(id(tensor), Shared(helper, tensor.shape, tensor.fraction))

        shadow = Service(helper)
        shadow._tensors = {number: shape_of(tensor) for number, tensor in self._tensors.items()}
        shadow._models = {number: network.map(shape_of) for number, network in self._models.items()}
        shadow._passes = {
            number: (model, kept.map(shape_of, lambda bits: _shape_of_bits(helper, bits)))
            for number, (model, kept) in self._passes.items()
        }
        shadow._work[command["do"]](command, memoryview(b""))
        shadow._settle()

    def _held(self) -> list[Shared]:
        """All tensors, those of models and passes too, each once, in an order that all parties have."""
        tensors = [self._tensors[number] for number in sorted(self._tensors)]
        for number in sorted(self._models):
            tensors += self._models[number].tensors()
        for number in sorted(self._passes):
            tensors += self._passes[number][1].tensors()
        return list({id(tensor): tensor for tensor in tensors}.values())

    def _settle(self) -> None:
        """End a fresh batch: nothing of its masks is used again, and nothing is left at the helper."""
        settle(*self._held())
        self._forget_forms()
        for _, kept in self._passes.values():
            for bits in kept.bits():
                bits.forget()

    def _forget_forms(self) -> None:
        """No mask from before is used from here on, nor one that a client chose."""
        for tensor in self._held():
            tensor.opened, tensor.cut = None, None

    def _audit(self, command: dict[str, Any], _: memoryview) -> bytes:
        data = command["command"].encode()
        inner = decode_command(data)
        party = self.party
        if party.is_helper or party.replicated or not inner.get("fresh"):  # before any key is opened
            raise DecodeError("servers audit fresh batches: others use masks of earlier batches, which stay secret")
        audit(self, inner["batch"], data)
        return b""

    def _tensor(self, number: int) -> Shared:
        try:
            return self._tensors[number]
        except KeyError:
            raise DecodeError(f"there is no tensor {number}: it was dropped, or shared with other servers") from None

    def network(self, number: int) -> Network:
        """A model that is kept here. Raises :class:`DecodeError` for a number that is none."""
        try:
            return self._models[number]
        except KeyError:
            raise DecodeError(f"there is no model {number}: it was dropped, or shared with other servers") from None

    def _keep(self, number: int, tensor: Shared) -> None:
        if len(self._tensors) >= _MAX_TENSORS:
            raise DecodeError(f"a party keeps at most {_MAX_TENSORS} tensors: drop some")
        self._tensors[number] = tensor

    def _put(self, command: dict[str, Any], payload: memoryview) -> bytes:
        shape = tuple(command["shape"])
        if len(shape) > 8 or math.prod(shape) * 8 > MAX_PAYLOAD_BYTES or command["fraction"] >= HEADROOM_BITS:
            raise DecodeError(f"a tensor has at most 8 dimensions, 8 GiB and {HEADROOM_BITS - 1} binary places")
        self._keep(command["id"], take(self.party, shape, command["fraction"], payload, command["opened"]))
        return b""

    def _model(self, command: dict[str, Any], _: memoryview) -> bytes:
        parameters = {name: self._tensor(number) for name, number in command["tensors"].items()}
        self._models[command["id"]] = Network(Graph.from_data(command["graph"]), parameters)
        return b""

    def _apply(self, command: dict[str, Any], _: memoryview) -> bytes:
        self._keep(command["output"], self.network(command["model"]).forward(self._tensor(command["input"])))
        return b""

    def _train(self, command: dict[str, Any], _: memoryview) -> bytes:
        self.network(command["model"]).train(
            self._tensor(command["input"]),
            self._tensor(command["targets"]),
            command["loss"],
            command["rate"],
            command["momentum"],
        )
        return b""

    def _forward(self, command: dict[str, Any], _: memoryview) -> bytes:
        network, x = self.network(command["model"]), self._tensor(command["input"])
        output, kept = network.begin(x)
        self._keep(command["output"], output)
        self._passes[command["output"]] = (command["model"], kept)
        return b""

    def _backward(self, command: dict[str, Any], _: memoryview) -> bytes:
        gradient = self._tensor(command["gradient"])
        if command["of"] not in self._passes:
            raise DecodeError(f"there is no forward pass {command['of']}: it was dropped, or gone back through already")
        model, kept = self._passes.pop(command["of"])
        if self.party.is_helper and command["fresh"]:  # it cannot tell an audited command from the one that follows
            self._passes[command["of"]] = (model, kept)
        self._keep(command["output"], self.network(model).backward(kept, gradient))
        return b""

    def _step(self, command: dict[str, Any], _: memoryview) -> bytes:
        if not (0 < command["rate"] < MAX_RATE and 0 <= command["momentum"] < 1 and command["divisor"] >= 1):
            raise DecodeError("a rate is above 0, a momentum from 0 to below 1, a divisor at least 1")
        self.network(command["model"]).step(command["rate"], command["divisor"], command["momentum"], narrow=True)
        return b""

    def _combine(self, command: dict[str, Any], _: memoryview) -> bytes:
        left, right = self._tensor(command["left"]), self._tensor(command["right"])
        if command["how"] not in _COMBINATIONS:
            raise DecodeError(f"tensors are combined by one of {', '.join(_COMBINATIONS)}")
        result = _COMBINATIONS[command["how"]](left, right)
        places = max(left.fraction, right.fraction)
        self._keep(
            command["output"], truncate(result, result.fraction - places) if result.fraction > places else result
        )
        return b""

    def _parameter(self, command: dict[str, Any], _: memoryview) -> bytes:
        parameters = self.network(command["model"]).parameters
        if command["name"] not in parameters:
            raise DecodeError(f"the model has no parameter {command['name']!r}")
        self._keep(command["output"], parameters[command["name"]])
        return b""

    def _get(self, command: dict[str, Any], _: memoryview) -> bytes | memoryview:
        tensor = self._tensor(command["tensor"])
        part = randomized_part(tensor)
        header = struct.pack(f">QQ{len(tensor.shape)}Q", tensor.fraction, len(tensor.shape), *tensor.shape)
        return header if part is None else b"".join((header, as_bytes(np.ascontiguousarray(part))))

    def _drop(self, command: dict[str, Any], _: memoryview) -> bytes:
        for number in command["ids"]:
            self._tensors.pop(number, None)
            self._models.pop(number, None)
            self._passes.pop(number, None)
        return b""

    def _cost(self, command: dict[str, Any], _: memoryview) -> bytes:
        sent = {str(other): link.bytes_sent for other, link in sorted(self.party.channel.traffic.items())}
        return json.dumps({"rounds": self.party.rounds, "sent": sent}, separators=(",", ":")).encode()
