"""Vectors of the shared sum: parameters, and one role at a time from recorded randomness. SPEC: protocols/shared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, Mismatch, expect, refused
from securefl.machine import Aborted, Completed, Event, RoundContext, Send, SumResult
from securefl.mpc.summation import FirstServer, Params, SecondServer, SharedClient
from securefl.primitives.kem import PublicKey, Suite
from securefl.types import PartyId

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
    )
    return Params(context, next(suite for suite in Suite if suite.label == given["suite"]))


class _Replay:
    """Recorded tokens and seals, in the order in which they were drawn."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._tokens = [bytes.fromhex(token) for token in given["tokens"]]
        self._seals = [bytes.fromhex(seal) for seal in given["seals"]]

    def token(self, length: int) -> bytes:
        if not self._tokens or len(self._tokens[0]) != length:
            raise Mismatch(f"{length} random bytes are drawn where none, or another number, were recorded")
        return self._tokens.pop(0)

    def seal(self, recipient: PublicKey, plaintext: bytes, info: bytes) -> bytes:
        if not self._seals:
            raise Mismatch("more is sealed than was recorded")
        return self._seals.pop(0)


def _params(case: Case) -> None:
    if case.error is not None:
        refused(case.error, lambda: params_of(case.input))
        return
    expect("the context hash", params_of(case.input).context_hash.hex(), case.expected["context"])


def _play(case: Case) -> None:
    params, given = params_of(case.params), case.input
    replay = _Replay(given)
    role: SharedClient | FirstServer | SecondServer
    if given["role"] == "client":
        role = SharedClient(params, PartyId(given["me"]), entropy=replay)
    elif given["role"] == "second":
        role = SecondServer(params, entropy=replay)
    else:
        role = FirstServer(params)
    steps = [partial(_step, role, step) for step in given["steps"]]
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


def _step(role: SharedClient | FirstServer | SecondServer, step: Mapping[str, Any]) -> Sequence[Event]:
    if step["do"] == "start":
        return role.start()
    if step["do"] == "receive":
        return role.receive(bytes.fromhex(step["frame"]))
    if step["do"] == "close" and isinstance(role, FirstServer):
        return role.close_round()
    if step["do"] == "provide" and isinstance(role, SharedClient):
        return role.provide(np.array(step["values"], dtype=np.uint64))
    raise Mismatch(f"this role does not {step['do']}")


def _raised(events: Sequence[Event]) -> None:
    for event in events:
        if isinstance(event, Aborted):
            raise event.reason


CHECKS: Final[Mapping[str, Check]] = {"params": _params, "play": _play}
