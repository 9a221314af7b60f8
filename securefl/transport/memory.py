"""All parties of one session in one process: deterministic, with scripted faults.

It drives roles without knowing which protection they serve, as any engine would: deliver frames, give a client its
input when it asks, close an exchange when nothing is under way. A party that raises is out of the session (its error
is kept); a frame that the server refuses changes nothing there.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from securefl.errors import LocalProtocolError, SecureFLError
from securefl.machine import Aborted, Completed, Event, NeedInput, Protection, RoundContext, Send, SumResult
from securefl.types import SERVER, ClientId, IntegerVector, PartyId
from securefl.wire import Buffer

__all__ = ["Faults", "Observer", "Outcome", "run_session"]

#: Called with (sender, recipient, frame) for every frame put on the way.
Observer = Callable[[PartyId, PartyId, Buffer], None]


@dataclass(frozen=True)
class Faults:
    """What goes wrong. A frame is named by its sender and its place among that sender's frames, from 0.

    ``drop_after``: the client sends that many frames and then falls silent for good. ``lose``: frames that never
    arrive. ``flip``: frame → the bit that arrives flipped. ``repeat``: frames that arrive twice. ``reorder``: a seed
    for the order of delivery; ``None`` delivers in the order of sending.
    """

    drop_after: Mapping[PartyId, int] = field(default_factory=dict)
    lose: frozenset[tuple[PartyId, int]] = frozenset()
    flip: Mapping[tuple[PartyId, int], int] = field(default_factory=dict)
    repeat: frozenset[tuple[PartyId, int]] = frozenset()
    reorder: int | None = None


@dataclass
class Outcome:
    """How a session ended: ``result``, or ``error``. ``failures``: errors that parties raised, in order of time.

    ``uploaded``, ``downloaded``: bytes of frames a client sent or was sent. ``vector_bytes``: of the upload, the
    frame that carries the vector. ``other_bytes``: what the server and key holders or computing parties exchanged.
    ``kept``: sums that stayed with another party than the server, such as a key holder.
    """

    result: SumResult | None = None
    error: Exception | None = None
    blamed: tuple[PartyId, ...] = ()
    failures: list[tuple[PartyId, SecureFLError]] = field(default_factory=list)
    uploaded: Counter[PartyId] = field(default_factory=Counter)
    downloaded: Counter[PartyId] = field(default_factory=Counter)
    vector_bytes: Counter[PartyId] = field(default_factory=Counter)
    other_bytes: int = 0
    kept: dict[PartyId, SumResult] = field(default_factory=dict)

    def unwrap(self) -> SumResult:
        """The result. Raises the session's error when there is none."""
        if self.result is not None:
            return self.result
        if self.error is None and self.kept:
            raise LocalProtocolError(f"the sum stays with party {min(self.kept)}: it is in the outcome's kept")
        raise self.error if self.error is not None else LocalProtocolError("the session did not end")


def run_session(
    protection: Protection,
    context: RoundContext,
    input_of: Callable[[ClientId], IntegerVector],
    *,
    faults: Faults | None = None,
    observe: Observer | None = None,
) -> Outcome:
    """Run one session to its end and say how it ended.

    ``input_of(client)`` gives the client's integers when the client asks for them, so that one input is alive at a
    time. Raises :class:`~securefl.errors.ConfigurationError` when the session cannot be set up; everything after
    that is in the :class:`Outcome`.
    """
    return _Session(protection, context, input_of, faults or Faults(), observe).run()


class _Session:
    def __init__(
        self,
        protection: Protection,
        context: RoundContext,
        input_of: Callable[[ClientId], IntegerVector],
        faults: Faults,
        observe: Observer | None,
    ) -> None:
        self._server = protection.server(context)
        self._clients = frozenset(context.clients)
        self._parties = {client: protection.client(context, client) for client in context.clients}
        self._parties.update(protection.others(context))
        self._vector_frame = protection.vector_frame
        self._input_of = input_of
        self._faults = faults
        self._observe = observe
        self._order = None if faults.reorder is None else random.Random(faults.reorder)  # noqa: S311 - a test schedule
        self._way: deque[tuple[PartyId, PartyId, Buffer]] = deque()
        self._sent: Counter[PartyId] = Counter()
        self._outcome = Outcome()
        self._over = False

    def run(self) -> Outcome:
        self._take(SERVER, self._server.start)
        for party, role in self._parties.items():
            self._take(party, role.start)
            self._deliver()
        while not self._over:
            failed = len(self._outcome.failures)
            self._take(SERVER, self._server.close_round)
            if failed < len(self._outcome.failures):  # the server itself is broken: nothing will end the exchange
                self._outcome.error, self._over = self._outcome.failures[-1][1], True
            self._deliver()
        return self._outcome

    def _deliver(self) -> None:
        while self._way:
            if self._order is not None:
                self._way.rotate(-self._order.randrange(len(self._way)))
            _sender, to, frame = self._way.popleft()
            if to == SERVER:
                self._take(SERVER, lambda frame=frame: self._server.receive(frame))  # type: ignore[misc]
            elif to in self._parties:
                role = self._parties[to]
                self._take(to, lambda role=role, frame=frame: role.receive(frame))  # type: ignore[misc]

    def _take(self, party: PartyId, step: Callable[[], Sequence[Event]]) -> None:
        """Run one step of a party and put what it sends on the way."""
        try:
            events: Sequence[Event] = step()
        except SecureFLError as error:
            self._outcome.failures.append((party, error))
            return
        for event in events:
            self._handle(party, event)

    def _handle(self, party: PartyId, event: Event) -> None:
        if isinstance(event, Send):
            self._send(party, event)
        elif isinstance(event, NeedInput):
            self._take(party, lambda: self._parties[party].provide(self._input_of(party)))
        elif party == SERVER and isinstance(event, Completed):
            self._outcome.result, self._over = event.result, True
        elif isinstance(event, Completed) and event.result is not None:
            self._outcome.kept[party] = event.result
        elif party == SERVER and isinstance(event, Aborted):
            self._outcome.error, self._outcome.blamed, self._over = event.reason, event.blamed, True

    def _send(self, sender: PartyId, event: Send) -> None:
        place = (sender, self._sent[sender])
        self._sent[sender] += 1
        if place[1] >= self._faults.drop_after.get(sender, place[1] + 1):
            return
        self._count(place, event)
        frame = event.frame
        if place in self._faults.flip:
            frame = _flipped(frame, self._faults.flip[place])
        if self._observe is not None:
            self._observe(sender, event.to, frame)
        if place in self._faults.lose:
            return
        item = (sender, event.to, frame)
        # Frames to the server go first, so that one vector is on its way at a time.
        if event.to == SERVER and self._order is None:
            self._way.appendleft(item)
        else:
            self._way.append(item)
        if place in self._faults.repeat:
            self._way.append(item)

    def _count(self, place: tuple[PartyId, int], event: Send) -> None:
        size = memoryview(event.frame).nbytes
        if place[0] in self._clients:
            self._outcome.uploaded[place[0]] += size
            if place[1] == self._vector_frame:
                self._outcome.vector_bytes[place[0]] += size
        elif event.to in self._clients:
            self._outcome.downloaded[event.to] += size
        else:
            self._outcome.other_bytes += size


def _flipped(frame: Buffer, bit: int) -> bytes:
    damaged = bytearray(frame)
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    return bytes(damaged)
