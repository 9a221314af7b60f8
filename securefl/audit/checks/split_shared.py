"""Vectors of the mode ``shared``: a batch by the parties' own services, message by message. SPEC split §8."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, expect, refused
from securefl.mpc.channel import PARTIES, MemoryChannel, memory_channels
from securefl.mpc.fixed import FRACTION, encode
from securefl.mpc.gemm import Words
from securefl.mpc.handover import expand
from securefl.mpc.party import Party, as_bytes
from securefl.mpc.service import Service, encode_command
from securefl.wire import Buffer

__all__ = ["shared_batch"]

_CLIENT: Final = 3
#: The order in which a client puts.
_PUT: Final = ("weight", "bias", "activations", "gradient")


def _real(value: Any) -> Any:
    """Hexadecimal text to numbers, in nested lists too."""
    if isinstance(value, list):
        return [_real(each) for each in value]
    return float.fromhex(value) if isinstance(value, str) and "0x" in value else value


class _Run:
    """Three services between links that keep what passes."""

    def __init__(self, draw: Callable[[str, int], bytes]) -> None:
        self.sent: dict[str, list[str]] = {}
        self._channels = memory_channels(deadline=10.0)
        session = draw("session", 16)
        self._services = []
        for channel in self._channels:
            self._watch(channel)
            secrets = {
                other: draw(f"secret {min(channel.party, other)} {max(channel.party, other)}", 32)
                for other in range(PARTIES)
                if other != channel.party
            }
            self._services.append(Service(Party(channel, secrets, session)))

    def _watch(self, channel: MemoryChannel) -> None:
        send = channel.send

        def watched(to: int, *buffers: Buffer) -> None:
            self._note(channel.party, to, b"".join(buffers))
            send(to, *buffers)

        channel.send = watched  # type: ignore[method-assign]

    def _note(self, sender: int, to: int, message: Buffer) -> None:
        self.sent.setdefault(f"{sender}>{to}", []).append(hashlib.sha256(message).hexdigest())

    def tell(self, operation: str, payloads: tuple[Buffer, Buffer, Buffer] = (b"", b"", b""), **fields: Any) -> Words:
        """The sum of the parties' answers, where there are any."""
        text = encode_command(operation, **fields)
        for me in range(PARTIES):
            self._note(_CLIENT, me, b"".join((text, payloads[me])))
        with ThreadPoolExecutor(PARTIES) as pool:
            answers = list(
                pool.map(
                    lambda me: bytes(self._services[me].handle(text, memoryview(bytes(payloads[me])))[1]),
                    range(PARTIES),
                )
            )
        if operation != "get":
            return np.zeros(0, np.uint64)
        for me, answer in enumerate(answers):
            self._note(me, _CLIENT, answer)
        (dimensions,) = struct.unpack_from(">Q", answers[0], 8)
        parts = [np.frombuffer(answer[16 + 8 * dimensions :], np.uint64) for answer in answers]
        return np.asarray(parts[0] + parts[1] + parts[2])

    def put(self, number: int, values: Any, keys: bytes) -> None:
        """``keys``: what a client draws, 32 bytes."""
        words = encode(np.array(values, dtype=np.float64), FRACTION)
        first, second = keys[:16], keys[16:]
        m = bytes(as_bytes(words + expand(first, words.shape) + expand(second, words.shape)))
        payloads = (m + first, m + second, keys)
        self.tell("put", payloads, id=number, shape=list(words.shape), fraction=FRACTION, opened=True)

    def parameter(self, name: str) -> Words:
        """The servers' and the helper's parts of a weight, added: nobody is asked."""
        parts = [service.network(3).parameters[name].part for service in self._services]
        return np.asarray(sum(part for part in parts if part is not None), dtype=np.uint64).reshape(-1)


def _begin(run: _Run, given: Mapping[str, Any], keys: Sequence[bytes]) -> None:
    run.put(1, given["weight"], keys[0])
    run.put(2, given["bias"], keys[1])
    layers = [
        {"kind": "input", "inputs": [], "name": ""},
        {"kind": "linear", "inputs": [0], "name": "body", "parameters": ["weight", "bias"], "gain": 8, "offset": 8},
    ]
    run.tell("model", id=3, graph=layers, tensors={"weight": 1, "bias": 2})
    run.put(4, given["activations"], keys[2])
    run.tell("forward", batch=1, fresh=False, model=3, input=4, output=5)


def _faulty(case: Case, draw: Callable[[str, int], bytes]) -> None:
    """The commands up to the one that must be refused."""
    given, fault, run = {name: _real(value) for name, value in case.input.items()}, case.input["fault"], _Run(draw)
    _begin(run, given, [draw(f"put {at}", 32) for at in range(len(_PUT))])
    run.put(6, given["gradient"][:1] if fault == "shape" else given["gradient"], draw("put 3", 32))
    step: dict[str, Any] = {"fresh": False, "model": 3, "momentum": 0.0, "divisor": 2}
    if fault == "stale":
        run.tell("forward", batch=2, fresh=False, model=3, input=4, output=8)
    if fault != "early":
        run.tell("backward", batch=3, fresh=False, of=5, gradient=6, output=7)
    if fault == "again":
        run.tell("backward", batch=4, fresh=False, of=5, gradient=6, output=7)
    run.tell("step", batch=5, rate=0 if fault == "rate" else 0.05, **step)
    run.tell("backward", batch=6, fresh=False, of=8, gradient=6, output=7)


def shared_batch(case: Case, draw: Callable[[str, int], bytes]) -> None:
    """``draw``: expands a name of this test."""
    if case.error is not None:
        refused(case.error, lambda: _faulty(case, draw))
        return
    given, run = {name: _real(value) for name, value in case.input.items()}, _Run(draw)
    keys = [draw(f"put {at}", 32) for at in range(len(_PUT))]
    _begin(run, given, keys)
    found = {"outputs": run.tell("get", batch=2, tensor=5)}
    run.put(6, given["gradient"], keys[3])
    run.tell("backward", batch=3, fresh=False, of=5, gradient=6, output=7)
    found["input_gradient"] = run.tell("get", batch=4, tensor=7)
    examples = float(given["examples"])
    run.tell("step", batch=5, fresh=False, model=3, rate=given["rate"], momentum=0.0, divisor=examples)
    found |= {name: run.parameter(name) for name in ("bias", "weight")}
    for name, words in found.items():
        expect(name, [str(word) for word in words.tolist()], case.expected[name])
    expect("the messages", dict(sorted(run.sent.items())), dict(sorted(case.expected["messages"].items())))
