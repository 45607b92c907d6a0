"""Durable jobs with ``unique`` keys and the policy "replace": what the tables do with them."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmpd.daemon.sqlite_jobs import JobTables, content_digest
from gmpd.daemon.sqlite_schema import SCHEMA
from gmpd.daemon.sqlite_store import SqliteStore
from gmpd.sched.stored import (
    Again,
    Attempt,
    CancelJobs,
    Ended,
    Find,
    Finish,
    Freed,
    GiveBack,
    NewJob,
    Operation,
    PutJobs,
    PutResult,
    Replaced,
    Retry,
    Revive,
    StoredFunction,
    StoredState,
    Story,
    Sweep,
    TakeJobs,
    Taken,
    Verdict,
)

FUNCTION = StoredFunction(b"f" * 16, "name", "tasks:work", b"")
NOW = 1_000_000
A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


def new(id_: bytes, *, replaces: bool = True, key: str | None = "k", **given: Any) -> NewJob:
    digest = content_digest(FUNCTION.digest, b"\x80", id_, ())
    values: dict[str, Any] = {"created_ms": NOW, "run_at_ms": NOW, "unique": key} | given
    return NewJob(
        id_, digest, FUNCTION.digest, "c", 0, b"\x80", id_, (), replaces=replaces, **values
    )


def an_end(n: int = 1, outcome: str = "ok", at_ms: int = NOW) -> Attempt:
    return Attempt(n, at_ms, 1, None, None, outcome, b"", "")


class Tables:
    """The tables, in memory, and what is asked of them."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(SCHEMA)
        self.boot()

    def boot(self) -> None:
        self.db.execute("DROP TABLE IF EXISTS temp.taken")
        self.tables = JobTables(self.db)
        self.tables.boot(NOW)

    def do(self, operation: Operation) -> Any:
        return self.tables.do(operation)

    def put(self, *jobs: NewJob, take: bool = False) -> PutResult:
        result: PutResult = self.do(PutJobs((FUNCTION,), jobs, take))
        return result

    def take(self, now_ms: int = NOW) -> list[bytes]:
        taken: Taken = self.do(TakeJobs(now_ms, 10))
        return [job.id for job in taken.jobs]

    def state(self, id_: bytes) -> StoredState:
        (job,) = self.do(Find((id_,)))
        state: StoredState = job.state
        return state

    def texts(self, id_: bytes) -> list[tuple[str, str]]:
        return [(each.outcome, each.text) for each in self.do(Story(id_))]

    def end(self, number: int) -> Any:
        return self.do(Finish((Ended(number, StoredState.DONE, b"", (), an_end()),)))


@pytest.fixture
def tables() -> Iterator[Tables]:
    it = Tables()
    yield it
    it.db.close()


@pytest.fixture
def alone() -> Iterator[Tables]:
    it = Tables()
    yield it
    it.db.close()


def text(id_: bytes) -> str:
    return f"replaced by job {id_.hex()} with the same unique key"


def test_a_job_that_has_not_left_the_store_is_withdrawn(tables: Tables) -> None:
    tables.put(new(A, replaces=False))
    put = tables.put(new(B))
    assert (put.verdicts, put.ids) == ((Verdict.NEW,), (B,))
    assert put.replaced is not None
    assert (put.replaced.ended, put.replaced.asked) == ((A,), ())
    assert tables.state(A) is StoredState.CANCELLED
    assert tables.texts(A) == [("cancelled", text(B))]
    assert tables.take() == [B]


def test_of_jobs_that_are_stored_together_the_last_is_left(tables: Tables) -> None:
    put = tables.put(new(A), new(B), new(C), new(D, key="other"), take=True)
    assert put.verdicts == (Verdict.NEW,) * 4
    assert put.replaced == Replaced(frozenset({A, B}), (A, B), ())
    tables.boot()
    assert tables.take() == [C, D], "those aside were taken"


def test_the_last_one_waits_for_a_job_that_may_run(tables: Tables) -> None:
    (number,) = tables.put(new(A), take=True).numbers
    put = tables.put(new(B), take=True)
    assert put.replaced == Replaced(frozenset({B}), (), ((A, B),))
    assert tables.take() == []
    put = tables.put(new(C))
    assert put.replaced is not None
    assert (put.replaced.ended, put.replaced.asked) == ((B,), ((A, C),))
    assert tables.texts(B) == [("cancelled", text(C))]
    held = tables.put(new(D, replaces=False))
    assert (held.verdicts, held.ids) == ((Verdict.HELD,), (C,))
    assert tables.put(new(B)).verdicts == (Verdict.SAME,)
    assert tables.end(number) == Freed()
    assert (tables.take(), tables.state(A)) == ([C], StoredState.DONE)


def test_a_job_that_comes_back_ends_if_it_is_replaced(tables: Tables) -> None:
    (number,) = tables.put(new(A), take=True).numbers
    tables.put(new(B))
    assert tables.do(GiveBack((number,), NOW + 3, NOW + 9)) == Freed((A,))
    assert tables.texts(A) == [("cancelled", text(B))]
    assert tables.take() == [B]
    tables.put(new(C))
    again = Again(number + 1, 2, 0, 0, NOW + 9, an_end(outcome="error"))
    assert tables.do(Retry((again,))) == Freed((B,))
    assert tables.texts(B) == [("error", ""), ("cancelled", text(C))]
    assert tables.take() == [C]
    assert tables.do(GiveBack((number + 2,), NOW)) is None


def test_what_was_replaced_does_not_run_again_after_a_restart(tables: Tables) -> None:
    tables.put(new(A), take=True)
    tables.put(new(B))
    tables.put(new(C, key="once", once=True), take=True)
    tables.put(new(D, key="once", limit="l"))
    tables.boot()
    assert (tables.state(A), tables.state(C)) == (StoredState.CANCELLED, StoredState.UNKNOWN)
    assert sorted(tables.take()) == [B, D]


def test_a_job_that_waits_can_be_cancelled_and_expires(tables: Tables) -> None:
    (number,) = tables.put(new(A), take=True).numbers
    tables.put(new(B))
    assert tables.do(CancelJobs((A, B), NOW)) == (B,)
    tables.put(new(C, expires_ms=NOW + 5))
    assert tables.do(Sweep(NOW + 5)).expired == (C,)
    assert not tables.do(Revive((B,), NOW)), "the key is held"
    assert tables.put(new(D)).verdicts == (Verdict.NEW,)
    tables.end(number)
    assert tables.take() == [D]


def test_a_delay_and_a_limit_hold_for_one_that_has_waited(tables: Tables) -> None:
    (number,) = tables.put(new(A, limit="l"), take=True).numbers
    tables.put(new(B, run_at_ms=NOW + 7, limit="l"))
    assert tables.take(NOW + 8) == []
    tables.end(number)
    assert tables.take() == []
    assert tables.take(NOW + 8) == [B]


def test_keys_of_other_machines_are_their_own(tables: Tables) -> None:
    tables.put(new(A, owner="one"))
    assert tables.put(new(B, owner="two")).replaced is None
    assert sorted(tables.take()) == [A, B]


def test_an_undone_transaction_leaves_those_that_wait(tables: Tables) -> None:
    (number,) = tables.put(new(A), take=True).numbers
    tables.put(new(B))
    tables.db.execute("BEGIN")
    tables.put(new(C))
    tables.end(number)
    tables.db.execute("ROLLBACK")
    tables.tables.reload()
    assert tables.end(number) == Freed()
    assert tables.take() == [B]


@pytest.mark.parametrize("seed", range(20))
def test_together_they_get_what_they_get_one_by_one(
    tables: Tables, alone: Tables, seed: int
) -> None:
    dice = random.Random(seed)
    jobs = [
        new(bytes([n]) * 16, key=dice.choice("kl"), replaces=dice.random() < 0.6) for n in range(9)
    ]
    puts: list[Operation] = [PutJobs((FUNCTION,), (job,), False) for job in jobs]
    answers: list[Any] = [*tables.tables.do_all(puts)]
    one_by_one = [alone.do(put) for put in puts]
    assert [(a.verdicts, a.ids) for a in answers] == [(a.verdicts, a.ids) for a in one_by_one]
    assert tables.take() == alone.take()


def test_a_store_of_version_3_is_brought_up_to_date(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.apply([PutJobs((FUNCTION,), (new(A), new(D, key=None)))])
    store.close()
    db = sqlite3.connect(tmp_path / "jobs.sqlite")
    db.executescript(
        "DROP INDEX held; DROP INDEX waiting;"
        "CREATE UNIQUE INDEX held ON jobs (unique_key, owner)"
        " WHERE unique_key IS NOT NULL AND ended_ms IS NULL;"
        "PRAGMA user_version = 3"
    )
    db.close()
    store = SqliteStore(tmp_path)
    (taken, put) = store.apply([TakeJobs(NOW, 1), PutJobs((FUNCTION,), (new(B),))])
    store.close()
    assert isinstance(taken, Taken)
    assert isinstance(put, PutResult)
    assert put.replaced is not None
    assert put.replaced.asked == ((A, B),)
    db = sqlite3.connect(tmp_path / "jobs.sqlite")
    assert db.execute("PRAGMA user_version").fetchone() == (4,)
    db.close()
