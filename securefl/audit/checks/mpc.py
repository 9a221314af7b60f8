"""Vectors of secret-shared computation. SPEC: protocols/mpc/SPEC.md §3 to §6, §8, §9."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.mpc.channel import HELPER, PARTIES, memory_channels
from securefl.mpc.fixed import decode, encode
from securefl.mpc.gemm import Words
from securefl.mpc.graph import Graph
from securefl.mpc.handover import expand
from securefl.mpc.operations import bilinear, mul, negative, relu_and_sign, reveal_bits, truncate
from securefl.mpc.party import Party
from securefl.mpc.service import decode_command
from securefl.mpc.shared import Masked, Shared, concatenate, stack
from securefl.mpc.tournament import play, route
from securefl.primitives.prg import Keystream
from securefl.wire import Buffer

__all__ = [
    "CHECKS",
    "Links",
    "at_all_parties",
    "check_batches",
    "check_stream",
    "product_of",
    "tournament_of",
    "words_of",
]

T = TypeVar("T")


def words_of(values: Sequence[str]) -> Words:
    return np.array([int(value) for value in values], dtype=np.uint64)


def _encode(case: Case) -> None:
    values = [float.fromhex(value) for value in case.input["values"]]
    fraction = case.params["fraction"]
    if case.error is not None:
        refused(case.error, lambda: encode(values, fraction))
        return
    words = encode(values, fraction)
    expect("the words", [str(word) for word in words.tolist()], case.expected["words"])
    expect("the values back", [value.hex() for value in decode(words, fraction).tolist()], case.expected["decoded"])


def check_stream(kind: type[Party], case: Case) -> None:
    """The stream key that two parties of an engine have for a batch. ``kind``: the engine's party."""
    given = case.input
    me, other = given["pair"]
    party = kind(memory_channels()[me], {other: case.bytes("secret")}, case.bytes("session"))
    key = party.batch_key(other, given["batch"], case.bytes("program"))
    expect("the key", key.hex(), case.expected["key"])
    words = np.empty(8, "<u8")
    Keystream(key).fill(words)
    expect("the stream", words.tobytes().hex(), case.expected["stream"])


def check_batches(kind: type[Party], other: int, case: Case) -> None:
    """Batch numbers rise, or are refused: those of a party that has streams with party ``other``."""
    party = kind(memory_channels()[0], {other: bytes(32)}, b"vectors")

    def begin() -> None:
        for batch in case.input["batches"]:
            party.begin(batch)

    if case.error is not None:
        refused(case.error, begin)
    else:
        begin()


class Links:
    """Channels of three threads, with what was sent on each link, or one message of another length."""

    def __init__(self, spoil: Mapping[str, Any] | None) -> None:
        self.sent: dict[str, list[str]] = {}
        self.channels = memory_channels(deadline=10.0)
        self._spoil = dict(spoil) if spoil else None
        for channel in self.channels:
            self._watch(channel)

    def _watch(self, channel: Any) -> None:
        send = channel.send

        def watched(to: int, *buffers: Buffer) -> None:
            message = b"".join(buffers)
            link = f"{channel.party}>{to}"
            self.sent.setdefault(link, []).append(message.hex())
            if self._spoil is not None and self._spoil["link"] == link and len(self.sent[link]) == 1:
                message = message[:-1] if self._spoil["bytes"] < 0 else message + b"\0"
            send(to, message)

        channel.send = watched


def at_all_parties(work: Callable[[int], T]) -> list[T]:
    """``work(party)`` in three threads; when it fails, the error of whoever found the fault."""
    with ThreadPoolExecutor(PARTIES) as pool:
        futures = [pool.submit(work, me) for me in range(PARTIES)]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise min(errors, key=lambda error: type(error).__name__)  # who found the fault, before whom it left alone
    return [future.result() for future in futures]


def tournament_of(operands: Sequence[Shared]) -> Shared:
    """What the rows get of the last operand by a tournament, then the largest of each column. Flat."""
    best, wins = play(stack(operands[:-1]))
    return concatenate((route(wins, operands[-1]), best[None])).reshape(-1)


def _run(party: Party, operation: str, places: int, operands: list[Shared]) -> tuple[Shared | None, list[int] | None]:
    if operation.removesuffix("-of-given") in {"product", "double-product"}:
        return product_of(operation, operands), None
    if operation in {"square-of-truncated", "product-of-truncated"}:
        cut = [truncate(operand, places) for operand in operands]
        return mul(cut[0], cut[-1]), None
    if operation == "truncate":
        return truncate(operands[0], places), None
    if operation == "tournament":
        return tournament_of(operands), None
    if operation == "negative":
        return None, _revealed(reveal_bits(negative(operands[0])))
    x = product_of(operation.removeprefix("relu-of-"), operands) if len(operands) == 2 else operands[0]
    result, _bits = relu_and_sign(x, places)
    return result, None


def product_of(operation: str, operands: list[Shared]) -> Shared:
    x, y = operands
    return bilinear(x, y, np.multiply) if operation.startswith("double") else mul(x, y)


def _revealed(bits: Any) -> list[int] | None:
    return None if bits is None else [int(bit) for bit in bits]


def _form(me: int, keys: bytes, parts: Sequence[Sequence[str]]) -> Masked:
    """What a client gives of a tensor's opened form, from its two keys."""
    value = words_of(parts[0]) + words_of(parts[1])
    first, second = (expand(key, value.shape) for key in (keys[:16], keys[16:]))
    if me == HELPER:
        return Masked(None, first + second, first - second)
    return Masked(value + first + second, second if me else first)


def _operation(case: Case) -> None:
    given = case.input
    links = Links(given.get("spoil"))
    keys = [bytes.fromhex(key) for key in given["keys"]]

    def work(me: int) -> tuple[Shared | None, list[int] | None]:
        own = dict(enumerate(keys)) if me == HELPER else {HELPER: keys[me]}
        party = Party.with_keys(links.channels[me], own)
        operands = []
        for parts in given["parts"]:
            part = None if me == HELPER else words_of(parts[me])
            operands.append(Shared(party, (len(parts[0]),), 62, part))
        if "given" in given:
            operands[0].opened = _form(me, bytes.fromhex(given["given"]), given["parts"][0])
        try:
            return _run(party, given["operation"], given["places"], operands)
        finally:
            links.channels[me].close()

    if case.error is not None:
        refused(case.error, lambda: at_all_parties(work))
        return
    results = at_all_parties(work)
    sent = {link: list(messages) for link, messages in links.sent.items()}
    expected = case.expected["messages"]
    if given["operation"] == "negative":  # opening the bits afterwards is not part of the operation
        for link in expected:
            sent[link] = sent[link][: len(expected[link])]
    for link, messages in expected.items():
        expect(f"the messages {link}", sent.get(link), messages)
    if given["operation"] == "negative":
        expect("the signs", results[0][1], case.expected["signs"])
        return
    for me, (result, _signs) in enumerate(results):
        part = None if result is None else result.part
        wanted = case.expected["result"][me]
        found = ["0"] * len(wanted) if part is None else [str(word) for word in part.tolist()]
        expect(f"the result of party {me}", found, wanted)


def _command(case: Case) -> None:
    data = case.input["text"].encode()
    if case.error is not None:
        refused(case.error, lambda: decode_command(data))
    else:
        decode_command(data)


def _network(case: Case) -> None:
    layers = case.input["layers"]
    if case.error is not None:
        refused(case.error, lambda: Graph.from_data(layers))
    else:
        expect("the network", Graph.from_data(layers).to_data(), layers)


CHECKS: Final[Mapping[str, Check]] = {
    "encode": _encode,
    "stream": partial(check_stream, Party),
    "batches": partial(check_batches, Party, HELPER),
    "operation": _operation,
    "command": _command,
    "network": _network,
}
