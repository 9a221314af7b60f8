"""Vectors of the n-of-n CKKS sum: layouts, streams, products, whole sessions. SPEC: protocols/ckks-threshold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from securefl.audit.checks import Case, Check, expect, refused
from securefl.audit.checks.sessions import Replay, context_of
from securefl.ckks.ring import noise
from securefl.ckks.threshold import (
    ThresholdClient,
    ThresholdParams,
    ThresholdServer,
    ThresholdSum,
    sampling,
    wide,
)
from securefl.ckks.threshold.messages import write_polynomial
from securefl.machine import Event, RoundContext, Send
from securefl.primitives.identity import Identity
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.types import ClientId, IntegerVector, PartyId
from securefl.wire import CHECKSUM_BYTES, HEADER_BYTES, Buffer, seal_frame

__all__ = ["CHECKS"]


def _sha(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()


def _params(case: Case) -> None:
    given = case.input
    if case.error is not None:
        refused(case.error, lambda: ThresholdParams.of(context_of(given), given["statistical_bits"]))
        return
    params = ThresholdParams.of(context_of(given), given["statistical_bits"])
    found = {
        "context": params.context_hash.hex(),
        "attempt": params.attempt_hash(1, params.clients[1:]).hex(),
        "digits": [run.digits for run in params.runs],
        "coefficients": params.coefficients,
        "shift": params.shift,
        "flood_bits": params.flood_bits,
        "residue_bound": str(params.residue_bound),
    }
    for name, value in found.items():
        expect(name, value, case.expected[name])


def _stream_key(case: Case) -> None:
    purpose = sampling.Purpose(case.input["purpose"])
    key = sampling.stream_key(case.bytes("seed"), case.bytes("attempt"), purpose, case.input["index"])
    expect("the key", key.hex(), case.expected["key"])


def _small(case: Case) -> None:
    key = case.bytes("key")
    drawn = noise(key, wide.DEGREE) if case.test["id"] == "noise" else sampling.ternary(key).astype(np.int64)
    expect("the first integers", drawn[:12].tolist(), case.expected["first"])
    expect("all of them", _sha((drawn + 64).astype(np.uint8).tobytes()), case.expected["sha256"])


def _wide(case: Case) -> None:
    if "attempt" in case.input:
        limbs = sampling.reference(case.bytes("attempt"))
    else:
        limbs = np.zeros((wide.LIMBS, wide.DEGREE), dtype=np.int64)
        sampling.add_flood(limbs, case.bytes("key"), case.input["flood_bits"])
    expect("the polynomial", _sha(write_polynomial(wide.words_of(wide.carry(limbs)))), case.expected["sha256"])


def _product(case: Case) -> None:
    a = sampling.reference(case.bytes("attempt"))
    product = wide.product(wide.image(a), wide.ternary_image(sampling.ternary(case.bytes("key"))))
    limbs = wide.carry(product)
    expect("the product", _sha(write_polynomial(wide.words_of(limbs))), case.expected["product"])
    expect("its high bits", _sha(wide.top(limbs).astype("<u8").tobytes()), case.expected["high"])


class _Altered:
    """A role, one of whose frames may leave with another byte in it. ``fault``: [frames to go, byte of the body]."""

    def __init__(self, role: Any, fault: list[int] | None) -> None:
        self._role, self._fault = role, fault

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._role, name)
        if self._fault is None or name not in {"start", "receive", "provide", "close_round"}:
            return found
        return lambda *given: [self._event(event) for event in found(*given)]

    def _event(self, event: Event) -> Event:
        if self._fault is None or not isinstance(event, Send):
            return event
        self._fault[0] -= 1
        if self._fault[0] != -1:
            return event
        frame = bytes(event.frame)
        body = bytearray(frame[HEADER_BYTES:-CHECKSUM_BYTES])
        body[self._fault[1]] ^= 1
        sender = PartyId(int.from_bytes(frame[4:8], "big"))
        return Send(event.to, seal_frame(frame[0], frame[2], frame[24:56], sender, event.to, body))


class _Recorded(ThresholdSum):
    """The protection with the identities and the randomness of a vector."""

    def __init__(self, clients: Mapping[str, Any], statistical_bits: int, fault: list[int] | None = None) -> None:
        super().__init__(statistical_bits=statistical_bits)
        self._clients, self._fault = clients, fault
        for client, given in clients.items():
            self._identities[PartyId(int(client))] = Identity(bytes.fromhex(given["identity"]))

    def client(self, context: RoundContext, me: ClientId) -> ThresholdClient:
        entropy = Replay(self._clients[str(me)]["tokens"])
        identity = self._identity(me)
        role = ThresholdClient(self.params(context), me, identity, self.directory(context), entropy=entropy)
        return _Altered(role, self._fault)  # type: ignore[return-value]

    def server(self, context: RoundContext) -> ThresholdServer:
        return _Altered(super().server(context), self._fault)  # type: ignore[return-value]


def _play(case: Case, faults: Faults, frames: list[list[Any]], fault: list[int] | None = None) -> Outcome:
    clients: Mapping[str, Any] = case.input["clients"]

    def values(client: ClientId) -> IntegerVector:
        return np.array(clients[str(client)]["values"], dtype=np.uint64)

    def observe(sender: PartyId, to: PartyId, frame: Buffer) -> None:
        frames.append([sender, to, memoryview(frame).nbytes, _sha(frame)])

    protection = _Recorded(clients, case.params["statistical_bits"], fault)
    return run_session(protection, context_of(case.params), values, faults=faults, observe=observe)


def _session(case: Case) -> None:
    frames: list[list[Any]] = []
    leaves = {PartyId(int(client)): count for client, count in case.input["leaves"].items()}
    outcome = _play(case, Faults(drop_after=leaves), frames)
    for at, (found, wanted) in enumerate(zip(frames, case.expected["frames"], strict=False)):
        expect(f"frame {at}", found, wanted)
    expect("the number of frames", len(frames), len(case.expected["frames"]))
    if "error" in case.expected:
        expect("the error", type(outcome.error).__name__, case.expected["error"])
        return
    result = outcome.unwrap()
    expect("the sum", result.values.tolist(), case.expected["sum"])
    expect("the survivors", list(result.survivors), case.expected["survivors"])


def _fault(case: Case) -> None:
    base = case.find(case.test["derived_from"])
    outcome = _play(base, Faults(), [], [case.input["frame"], case.input["at"]])

    def first() -> None:
        if outcome.failures:
            raise outcome.failures[0][1]
        outcome.unwrap()

    refused(case.error or {}, first)


CHECKS: Final[Mapping[str, Check]] = {
    "params": _params,
    "stream_key": _stream_key,
    "small": _small,
    "wide": _wide,
    "product": _product,
    "session": _session,
    "fault": _fault,
}
