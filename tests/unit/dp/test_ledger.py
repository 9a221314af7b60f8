"""The ledger: never overspent, never silently changed, never shared between runs."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from securefl.dp import Ledger
from securefl.dp.distributed import DistributedSkellam
from securefl.dp.events import Gaussian, NeighboringRelation, PoissonSampled
from securefl.dp.filters import Budget, FilterKind, costs_no_more
from securefl.dp.gaussian import gaussian_mu
from securefl.dp.ledger import RoundState
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    LocalProtocolError,
    PrivacyBudgetExceededError,
    UnsupportedEventError,
)

GAUSSIAN = Budget(3.0, 1e-5, kind=FilterKind.GAUSSIAN)


def spend_all(ledger: Ledger, event: object) -> int:
    rounds = 0
    while True:
        try:
            ledger.charge(rounds, event)  # type: ignore[arg-type]
        except PrivacyBudgetExceededError:
            return rounds
        rounds += 1


def test_gaussian_filter_spends_to_the_limit(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", run="r", budget=GAUSSIAN) as ledger:
        rounds = spend_all(ledger, Gaussian(5.0))
        assert rounds == int(gaussian_mu(3.0, 1e-5 * 0.9) ** 2 * 25)
        assert ledger.spent() <= 3.0
        assert len(ledger.verify()) == rounds + 1
        ledger.charge(rounds, Gaussian(50.0))  # a cheaper round may still fit: the filter is adaptive


def test_plan_filter_counts_rounds_with_the_tight_accountant(tmp_path: Path) -> None:
    declared = PoissonSampled(Gaussian(1.0), 0.05)
    with Ledger(tmp_path / "l", run="r", budget=Budget(3.0, 1e-5, kind=FilterKind.PLAN, plan=declared)) as ledger:
        with pytest.raises(UnsupportedEventError):
            ledger.charge(0, PoissonSampled(Gaussian(0.9), 0.05))
        ledger.charge(0, PoissonSampled(Gaussian(1.2), 0.04))  # dominated
        rounds = 1
        while ledger.allows(declared):
            ledger.charge(rounds, declared)
            rounds += 1
        assert rounds == ledger.budget.limit
        assert 2.5 < ledger.spent() <= 3.0
        with pytest.raises(PrivacyBudgetExceededError):
            ledger.charge(rounds, declared)
    renyi = Budget.renyi_for(declared, epsilon=3.0, delta=1e-5)
    assert 1 <= int(renyi.limit / renyi.cost(declared)[0]) < rounds


def test_realised_survivors_are_charged(tmp_path: Path) -> None:
    plan = DistributedSkellam(1.0, 1000, 3.0, 40, 20, value_bits=20)
    with Ledger(tmp_path / "l", run="r", budget=Budget(4.0, 1e-5, kind=FilterKind.GAUSSIAN)) as ledger:
        few, many = ledger.charge(0, plan.event(20)), ledger.charge(1, plan.event(40))
        assert many.cost == pytest.approx(few.cost / 2, rel=1e-3)
        assert few.distance > 0


def test_sampling_is_refused_by_the_gaussian_filter(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", run="r", budget=GAUSSIAN) as ledger, pytest.raises(UnsupportedEventError):
        ledger.charge(0, PoissonSampled(Gaussian(5.0), 0.1))


def test_a_round_is_charged_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", run="r", budget=GAUSSIAN) as ledger:
        assert ledger.state(3) is RoundState.ABSENT
        assert ledger.next_round == 0
        ledger.charge(3, Gaussian(9.0))
        assert ledger.state(3) is RoundState.CHARGED
        assert ledger.next_round == 4
        with pytest.raises(LocalProtocolError, match="already charged"):
            ledger.charge(3, Gaussian(9.0))
        ledger.released(3, b"digest")
        assert ledger.state(3) is RoundState.RELEASED
        for bad in (3, 4):
            with pytest.raises(LocalProtocolError):
                ledger.released(bad, b"digest")
    with Ledger(tmp_path / "l", run="r") as again:
        assert again.state(3) is RoundState.RELEASED
        assert "released" in again.show()


def test_another_run_or_budget(tmp_path: Path) -> None:
    Ledger(tmp_path / "l", run="r", budget=GAUSSIAN).close()
    with pytest.raises(ConfigurationError, match="run 'r'"):
        Ledger(tmp_path / "l", run="other")
    with pytest.raises(ConfigurationError, match="another budget"):
        Ledger(tmp_path / "l", run="r", budget=Budget(4.0, 1e-5, kind=FilterKind.GAUSSIAN))
    with pytest.raises(ConfigurationError, match="no ledger"):
        Ledger(tmp_path / "absent")


def test_not_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\x00\x01" * 5000)
    with pytest.raises(DecodeError):
        Ledger(tmp_path / "noise", run="r", budget=GAUSSIAN)
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(DecodeError):
        Ledger(tmp_path / "other", run="r", budget=GAUSSIAN)


TAMPERINGS = [
    "UPDATE ledger SET cost = 0 WHERE position = 2",
    "UPDATE ledger SET round = 77 WHERE position = 2",
    "UPDATE ledger SET content = replace(content, '9.0', '99.0') WHERE position = 2",
    "UPDATE ledger SET content = replace(content, 'gaussian', 'renyi') WHERE position = 0",
    "UPDATE ledger SET hash = x'00' WHERE position = 1",
    "DELETE FROM ledger WHERE position = 1",
    "DELETE FROM ledger WHERE position = 0",
    "DELETE FROM ledger",
    "INSERT INTO ledger VALUES (9, 'charge', 9, '{}', 0, 0, x'11')",
]


@pytest.mark.parametrize("statement", TAMPERINGS)
def test_tampering_is_seen(tmp_path: Path, statement: str) -> None:
    with Ledger(tmp_path / "l", run="r", budget=GAUSSIAN) as ledger:
        for i in range(3):
            ledger.charge(i, Gaussian(9.0))
    db = sqlite3.connect(tmp_path / "l", isolation_level=None)
    if not statement.startswith("INSERT"):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(statement)  # the file itself refuses, until someone means it
        db.execute("DROP TRIGGER no_update")
        db.execute("DROP TRIGGER no_delete")
    db.execute(statement)
    db.close()
    with pytest.raises(AuthenticationError):
        Ledger(tmp_path / "l")


def test_rows_cut_off_the_end_are_seen_with_a_pinned_head(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l", run="r", budget=GAUSSIAN) as ledger:
        ledger.charge(0, Gaussian(9.0))
        ledger.charge(1, Gaussian(9.0))
        head = ledger.head
    db = sqlite3.connect(tmp_path / "l", isolation_level=None)
    db.execute("DROP TRIGGER no_delete")
    db.execute("DELETE FROM ledger WHERE position = 2")
    db.close()
    with Ledger(tmp_path / "l") as cut, pytest.raises(AuthenticationError, match="cut off"):
        cut.verify(head)


def _spend(path: Path, worker: int) -> None:
    with Ledger(path, run="r", budget=GAUSSIAN) as ledger:
        for i in range(100):
            try:
                ledger.charge(worker * 1000 + i, Gaussian(14.0))
            except PrivacyBudgetExceededError:
                return


def test_concurrent_processes_never_overspend(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_spend, args=(tmp_path / "l", w)) for w in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with Ledger(tmp_path / "l") as ledger:
        charges = [row for row in ledger.verify() if row.kind == "charge"]
        assert len(charges) == int(ledger.budget.limit / charges[0].cost)


def test_budgets_that_cannot_work() -> None:
    for bad in ({"epsilon": 0.0}, {"delta": 1.0}, {"kind": FilterKind.PLAN}, {"order": 1, "kind": FilterKind.RENYI}):
        with pytest.raises(ConfigurationError):
            Budget(**({"epsilon": 1.0, "delta": 1e-5} | bad))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="one round"):
        Budget(0.1, 1e-9, kind=FilterKind.PLAN, plan=Gaussian(0.5))


def test_domination_is_by_every_parameter() -> None:
    declared = DistributedSkellam(1.0, 100, 2.0, 20, 10).event()
    more = DistributedSkellam(1.0, 100, 2.0, 20, 10).event(20)
    assert costs_no_more(more, declared)
    assert not costs_no_more(declared, more)
    assert not costs_no_more(Gaussian(2.0), PoissonSampled(Gaussian(1.0), 0.5))
    assert NeighboringRelation.of("add-remove") is NeighboringRelation.ADD_REMOVE
