"""The privacy ledger: what was spent, on disk, before what it paid for is released.

One SQLite file per run (WAL, ``synchronous=FULL``). Rows are chained: each carries a hash of its content and of the
row before it (TupleHash256), so a row that was changed, removed from the middle or put in makes :meth:`Ledger.verify`
raise. Cutting rows off the end needs :attr:`Ledger.head` pinned elsewhere (a report does that) to be seen.

The order is: ``charge`` (committed to disk when it returns) → release the aggregate → ``released``. A crash can lose a
result, never a charge. A round that is charged and not marked released *may* have been seen: its charge stands, and the
run goes on with the next round; it is never charged again and its noise, fresh for every draw, is never replayed.
Processes may share the file: a charge reads the sums and appends within one immediate transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Final

from securefl.dp.events import Composed, Event, NeighboringRelation, event_from_json, event_to_json
from securefl.dp.filters import Budget, FilterKind
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    LocalProtocolError,
    PrivacyBudgetExceededError,
)
from securefl.primitives.kdf import Label, tuple_hash

__all__ = ["Ledger", "LedgerRow", "RoundState"]

_FORMAT: Final = "securefl-ledger/1"
_SCHEMA: Final = (
    """CREATE TABLE ledger (
    position INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('open', 'charge', 'released')),
    round INTEGER NOT NULL,
    content TEXT NOT NULL,
    cost REAL NOT NULL,
    distance REAL NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    UNIQUE (kind, round))""",
    "CREATE TRIGGER no_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END",
)


class RoundState(Enum):
    """What a resumed run does with a round: run it, skip it (its charge stands), or load its result."""

    ABSENT = "absent"
    CHARGED = "charged"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One row. ``content``: canonical JSON of the event (charge), a digest (released) or the header (open)."""

    position: int
    kind: str
    round: int
    content: str
    cost: float
    distance: float
    hash: bytes

    def expected_hash(self, before: bytes) -> bytes:
        fields = (str(self.position), self.kind, str(self.round), self.content, self.cost.hex(), self.distance.hex())
        return tuple_hash(Label.LEDGER_ROW, before, *(field.encode() for field in fields))


class Ledger:
    """Open (or make) the ledger of one run.

    ``path``: the file. ``run``: the run's name; a ledger of another run is refused. ``budget``: required to make a
    ledger; when given for an existing one it must be the same. Use as a context manager or call :meth:`close`.

    Raises :class:`ConfigurationError` (another run, another budget, no such ledger), :class:`AuthenticationError`
    (tampered), :class:`DecodeError` (not a ledger).
    """

    def __init__(self, path: str | Path, *, run: str | None = None, budget: Budget | None = None) -> None:
        self.path = Path(path)
        new = not self.path.exists() or self.path.stat().st_size == 0
        if new and (run is None or budget is None):
            raise ConfigurationError(f"there is no ledger at {self.path}: making one needs run and budget")
        if run is not None and not 1 <= len(run.encode()) <= 200:
            raise ConfigurationError("a run's name has 1 to 200 bytes")
        try:
            self._db = sqlite3.connect(self.path, timeout=60.0, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            if run is not None and budget is not None:
                self._create(run, budget)
            rows = self.verify()
        except sqlite3.DatabaseError as error:
            raise DecodeError(f"{self.path} is not a privacy ledger: {error}") from error
        self.run, self.budget = _parse_header(rows[0].content)
        if run is not None and run != self.run:
            self.close()
            raise ConfigurationError(f"{self.path} is the ledger of the run {self.run!r}, not of {run!r}")
        if budget is not None and budget != self.budget:
            self.close()
            raise ConfigurationError(f"{self.path} was made for another budget: a budget is fixed when a run starts")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _create(self, run: str, budget: Budget) -> None:
        with self._transaction():
            if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger'").fetchone():
                return
            if self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise DecodeError(f"{self.path} is another database, not a privacy ledger")
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._append("open", 0, _header(run, budget), 0.0, 0.0)

    def _append(self, kind: str, round_number: int, content: str, cost: float, distance: float) -> LedgerRow:
        last = self._db.execute("SELECT position, hash FROM ledger ORDER BY position DESC LIMIT 1").fetchone()
        position, before = (last[0] + 1, bytes(last[1])) if last else (0, b"")
        bare = LedgerRow(position, kind, round_number, content, cost, distance, b"")
        row = replace(bare, hash=bare.expected_hash(before))
        self._db.execute("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", astuple(row))
        return row

    # -- spending

    def charge(self, round_number: int, event: Event) -> LedgerRow:
        """Charge ``event`` to ``round_number``; on disk when this returns. Only then may the aggregate be released.

        Raises :class:`PrivacyBudgetExceededError` (nothing is charged), :class:`LocalProtocolError` when the round is
        already charged, :class:`UnsupportedEventError` when the ledger's filter has no proof for the event.
        """
        _check_round(round_number)
        content = event_to_json(event)
        cost, distance = self.budget.cost(event)
        with self._transaction():
            if self._state(round_number) is not RoundState.ABSENT:
                raise LocalProtocolError(
                    f"round {round_number} is already charged: load its result, or go on with round {self._next()}"
                )
            spent, apart = self._sums()
            if spent + cost > self.budget.limit or apart + distance > self.budget.distance_limit():
                raise PrivacyBudgetExceededError(
                    f"round {round_number} would exceed epsilon = {self.budget.epsilon:g} at delta = "
                    f"{self.budget.delta:g}: nothing was charged, nothing may be released"
                )
            return self._append("charge", round_number, content, cost, distance)

    def released(self, round_number: int, digest: bytes) -> None:
        """Note that the result of a charged round is out; ``digest`` (1 to 64 bytes) names it. Once per round."""
        _check_round(round_number)
        if not 1 <= len(digest) <= 64:
            raise ConfigurationError("a digest has 1 to 64 bytes")
        with self._transaction():
            if self._state(round_number) is not RoundState.CHARGED:
                raise LocalProtocolError(f"round {round_number} is not charged, or already released")
            self._append("released", round_number, digest.hex(), 0.0, 0.0)

    # -- reading

    def _sums(self) -> tuple[float, float]:
        row = self._db.execute("SELECT TOTAL(cost), TOTAL(distance) FROM ledger").fetchone()
        return float(row[0]), float(row[1])  # costs are rounded up by 1e-9: more than these sums can lose

    def _state(self, round_number: int) -> RoundState:
        found = self._db.execute("SELECT kind FROM ledger WHERE round = ? AND kind != 'open'", (round_number,))
        kinds = {row[0] for row in found}
        if "released" in kinds:
            return RoundState.RELEASED
        return RoundState.CHARGED if "charge" in kinds else RoundState.ABSENT

    def state(self, round_number: int) -> RoundState:
        """Whether ``round_number`` is absent, charged, or released."""
        _check_round(round_number)
        return self._state(round_number)

    def _next(self) -> int:
        row = self._db.execute("SELECT MAX(round) FROM ledger WHERE kind = 'charge'").fetchone()
        return 0 if row[0] is None else int(row[0]) + 1

    @property
    def next_round(self) -> int:
        """The first round number after every charged one: where a resumed run goes on."""
        return self._next()

    def allows(self, event: Event) -> bool:
        """Whether ``event`` would fit now; another process may be faster. :meth:`charge` is what decides."""
        cost, distance = self.budget.cost(event)
        spent, apart = self._sums()
        return spent + cost <= self.budget.limit and apart + distance <= self.budget.distance_limit()

    def rows(self) -> tuple[LedgerRow, ...]:
        """Every row, as stored (not verified)."""
        found = self._db.execute(
            "SELECT position, kind, round, content, cost, distance, hash FROM ledger ORDER BY position"
        )
        return tuple(LedgerRow(a, b, c, d, e, f, bytes(g)) for a, b, c, d, e, f, g in found)

    def event(self) -> Composed:
        """Everything charged, as one event."""
        return Composed(tuple(event_from_json(row.content) for row in self.rows() if row.kind == "charge"))

    def spent(self) -> float:
        """ε at the budget's δ of everything charged: what composition knows of it, never above the budget's claim."""
        return min(self.budget.epsilon, self.budget.spent_epsilon(self.event()))

    @property
    def head(self) -> bytes:
        """The last row's hash: pin it elsewhere and rows cut off the end are seen, too."""
        return self.rows()[-1].hash

    def verify(self, head: bytes | None = None) -> tuple[LedgerRow, ...]:
        """Every row, after checking the chain, the costs and (when given) the ``head``.

        Raises :class:`AuthenticationError` for a ledger that was tampered with.
        """
        try:
            rows = self.rows()
        except (TypeError, sqlite3.DatabaseError) as error:
            raise AuthenticationError("the ledger's table is damaged") from error
        if not rows or rows[0].kind != "open":
            raise AuthenticationError("the ledger's first row is missing")
        before = b""
        for position, row in enumerate(rows):
            try:
                genuine = row.position == position and row.expected_hash(before) == row.hash
            except (AttributeError, TypeError):
                genuine = False
            if not genuine:
                raise AuthenticationError(f"row {position} of the ledger was changed, removed or put in")
            before = row.hash
        budget = _parse_header(rows[0].content)[1]
        costs = {
            text: budget.cost(event_from_json(text)) for text in {row.content for row in rows if row.kind == "charge"}
        }
        for row in rows[1:]:
            if row.kind == "charge" and (row.cost, row.distance) != costs[row.content]:
                raise AuthenticationError(f"row {row.position} of the ledger states a cost that is not its event's")
        if head is not None and all(row.hash != head for row in rows):
            raise AuthenticationError("the ledger does not contain the pinned head: rows were cut off")
        return rows

    def show(self) -> str:
        """A table for people: rounds, events, what is spent and what is left."""
        spent, _ = self._sums()
        lines = [f"run {self.run}  budget epsilon {self.budget.epsilon:g} at delta {self.budget.delta:g}"]
        lines.append(f"neighboring {self.budget.neighboring.value}  filter {self.budget.kind.value}")
        released = {row.round for row in self.rows() if row.kind == "released"}
        for row in self.rows():
            if row.kind == "charge":
                state = "released" if row.round in released else "charged"
                lines.append(f"round {row.round:6d}  {state:8s}  cost {row.cost:.6g}  {row.content}")
        lines.append(f"spent {spent:.6g} of {self.budget.limit:.6g} (filter); epsilon spent {self.spent():.4f}")
        return "\n".join(lines)


def _check_round(round_number: int) -> None:
    if isinstance(round_number, bool) or not isinstance(round_number, int) or not 0 <= round_number < 2**32:
        raise ConfigurationError(f"a round number is an integer from 0 to 2^32 - 1, got {round_number!r}")


def _header(run: str, budget: Budget) -> str:
    plan = "" if budget.plan is None else event_to_json(budget.plan)
    order = "" if budget.order is None else str(budget.order)
    target = (float(budget.epsilon).hex(), float(budget.delta).hex(), budget.neighboring.value)
    return "\n".join((_FORMAT, *target, budget.kind.value, order, plan, run))


def _parse_header(content: str) -> tuple[str, Budget]:
    try:
        magic, epsilon, delta, neighboring, kind, order, plan, run = content.split("\n", 7)
        if magic != _FORMAT:
            raise DecodeError("this ledger has an unknown format")
        return run, Budget(
            float.fromhex(epsilon),
            float.fromhex(delta),
            NeighboringRelation(neighboring),
            FilterKind(kind),
            event_from_json(plan) if plan else None,
            int(order) if order else None,
        )
    except ValueError as error:
        raise DecodeError("the ledger's header does not decode") from error
