"""What the vectors of several protocols share: contexts, recorded randomness, and one role played by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from securefl.audit.checks import Case, Mismatch, expect, refused
from securefl.machine import (
    Aborted,
    ClientRole,
    Completed,
    Event,
    RoundContext,
    Segment,
    Send,
    ServerRole,
    Shells,
    SumResult,
)
from securefl.primitives.kem import PublicKey
from securefl.types import PartyId

__all__ = ["Replay", "check_params", "context_of", "play"]


def context_of(given: Mapping[str, Any]) -> RoundContext:
    """The round of a vector. Raises :class:`~securefl.errors.ConfigurationError` when it cannot work."""
    shells = given.get("shells")
    return RoundContext(
        session=bytes.fromhex(given["session"]),
        round=given["round"],
        clients=tuple(PartyId(client) for client in given["clients"]),
        dimension=given["dimension"],
        max_value=int(given["max_value"]),
        threshold=given["threshold"],
        model_hash=bytes.fromhex(given["model_hash"]),
        encoding=bytes.fromhex(given["encoding"]),
        segments=tuple(Segment(size, int(top), *window) for size, top, *window in given.get("segments", ())),
        shells=shells and Shells(tuple(shells["sizes"]), tuple(shells["tiers"]), shells["minimum_holders"]),
    )


class _Hashed(Protocol):
    @property
    def context_hash(self) -> bytes: ...


def check_params(params_of: Callable[[Mapping[str, Any]], _Hashed], case: Case) -> None:
    """The parameters of a vector: their context hash, or the error that refuses them."""
    if case.error is not None:
        refused(case.error, lambda: params_of(case.input))
        return
    expect("the context hash", params_of(case.input).context_hash.hex(), case.expected["context"])


class Replay:
    """Recorded tokens and seals (hexadecimal) in the order in which they were drawn, in place of an entropy source."""

    def __init__(self, tokens: Iterable[str] = (), seals: Iterable[str] = ()) -> None:
        self._tokens = [bytes.fromhex(token) for token in tokens]
        self._seals = [bytes.fromhex(seal) for seal in seals]

    def token(self, length: int) -> bytes:
        if not self._tokens or len(self._tokens[0]) != length:
            raise Mismatch(f"{length} random bytes are drawn where none, or another number, were recorded")
        return self._tokens.pop(0)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        if not self._seals:
            raise Mismatch("more is sealed than was recorded")
        return self._seals.pop(0)


def play(role: ClientRole | ServerRole, case: Case) -> None:
    """Take ``role`` through the steps of the vector: its frames and its end, or the error of the last step.

    A step with ``refused`` must raise that error, and the role goes on.
    """
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


def _step(role: Any, step: Mapping[str, Any]) -> Sequence[Event]:
    """One step; ``role`` may be a client or a server, and lacks the calls of the other."""
    if "refused" in step:
        refused(step["refused"], partial(_step, role, {name: step[name] for name in step if name != "refused"}))
        return ()
    events: Sequence[Event]
    match step["do"]:
        case "start":
            events = role.start()
        case "receive":
            events = role.receive(bytes.fromhex(step["frame"]))
        case "close" if hasattr(role, "close_round"):
            events = role.close_round()
        case "provide" if hasattr(role, "provide"):
            events = role.provide(np.array(step["values"], dtype=np.uint64))
        case other:
            raise Mismatch(f"this role does not {other}")
    return events


def _raised(events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, Aborted):
            raise event.reason
