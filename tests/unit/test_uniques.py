"""Unique keys and ``expires`` in the policy (gmpd.sched.uniques, expiry, withdrawals)."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.protocol import Outcome
from gmpd.sched.instructions import Revoke
from gmpd.sched.records import PRecord, Session
from gmpd.sched.states import JobState
from tests.desk import Desk, only, payloads

REPLACE = {"unique": "k", "on_held": "replace"}
RAISE = {"unique": "k", "on_held": "raise"}


@pytest.fixture
def one(desk: Desk) -> Session:
    return desk.client("one")


@pytest.fixture
def two(desk: Desk) -> Session:
    return desk.client("two")


def value_of(desk: Desk, session: Session, seq: int) -> tuple[Outcome, bytes]:
    (got,) = desk.outcomes[session.sid, seq]
    return got[:2]


def test_a_second_job_gets_the_outcome_of_the_first(
    desk: Desk, p: PRecord, one: Session, two: Session
) -> None:
    (first,) = desk.submit(one, 1, unique="k")
    (second,) = desk.submit(two, 1, unique="k")
    third, fourth = desk.submit(one, 2, unique="k")
    assert payloads(desk.take()) == [b"0"]
    desk.end(p, payload=b"it")
    desk.take()
    for client, seq in ((one, first), (two, second), (one, third), (one, fourth)):
        assert value_of(desk, client, seq) == (Outcome.OK, b"it")
    desk.submit(two, 1, unique="k")
    assert len(payloads(desk.take())) == 1, "the key is free"
    desk.end(p)
    assert not desk.sched.uniques.by_key


def test_errors_are_shared_and_retries_are_not_ends(
    desk: Desk, p: PRecord, one: Session, two: Session
) -> None:
    (first,) = desk.submit(one, 1, unique="k", retries=1)
    (second,) = desk.submit(two, 1, unique="k")
    desk.take()
    desk.end(p, outcome=Outcome.ERROR)
    assert desk.ended(two, second) is None
    desk.take(200)
    desk.end(p, outcome=Outcome.ERROR, payload=b"why")
    desk.take()
    assert value_of(desk, one, first) == value_of(desk, two, second) == (Outcome.ERROR, b"why")


def test_a_follower_runs_when_the_first_is_cancelled_or_its_client_leaves(
    desk: Desk, p: PRecord, one: Session, two: Session
) -> None:
    seqs = desk.submit(one, 3, unique="k")
    (last,) = desk.submit(two, 1, unique="k", delay=0.05)
    desk.cancel(one, [seqs[0], seqs[1]])
    desk.take()
    assert [desk.ended(one, seq) for seq in seqs] == [Outcome.CANCELLED, Outcome.CANCELLED, None]
    assert list(p.fresh.values()) == [one.jobs[seqs[2]]]
    desk.start(p)
    desk.leave(one)
    desk.take()
    assert two.jobs[last].state is JobState.HELD, "it runs still"
    desk.finish(p, outcome=Outcome.CANCELLED)
    desk.take()
    assert two.jobs[last].state is JobState.DELAYED
    desk.take(100)
    desk.end(p)
    desk.take()
    assert desk.ended(two, last) is Outcome.OK


def test_a_client_that_leaves_takes_all_of_its_jobs_along(desk: Desk, one: Session) -> None:
    desk.submit(one, 3, unique="k")
    desk.submit(one, 2, **REPLACE)
    desk.leave(one)
    desk.take()
    assert not desk.sched.uniques.by_key
    assert desk.sched.unfinished == 0


def test_a_job_that_is_to_raise_is_refused_with_the_name_of_the_other(
    desk: Desk, p: PRecord, one: Session, two: Session
) -> None:
    first, *others = desk.submit(one, 3, **RAISE)
    (second,) = desk.submit(two, 1, **RAISE)
    desk.take()
    assert desk.ended(two, second) is Outcome.REJECTED
    assert [desk.ended(one, seq) for seq in others] == [Outcome.REJECTED] * 2
    job = one.jobs[first]
    assert desk.details(two, second)["holder"] == desk.details(one, others[0])["holder"] == job.id
    assert desk.sched.counters.rejected["unique"] == 3
    desk.end(p)
    (again,) = desk.submit(two, 1, **RAISE)
    desk.take()
    assert again in two.jobs


def test_a_waiting_job_is_replaced_at_once(desk: Desk, one: Session, two: Session) -> None:
    (first,) = desk.submit(one, 1, unique="k", delay=60)
    (follower,) = desk.submit(two, 1, unique="k")
    (newer,) = desk.submit(two, 1, **REPLACE)
    desk.take()
    assert desk.ended(one, first) is Outcome.CANCELLED
    assert f"job {two.jobs[newer].id} with the same" in desk.details(one, first)["text"]
    p = desk.ready(0)
    assert payloads(desk.take()) == [b"%d" % newer]
    desk.end(p, payload=b"new")
    desk.take()
    assert value_of(desk, two, follower) == value_of(desk, two, newer) == (Outcome.OK, b"new")


def test_a_running_job_ends_before_its_replacement_begins(
    desk: Desk, p: PRecord, one: Session, two: Session
) -> None:
    (first,) = desk.submit(one, 1, unique="k")
    desk.take()
    desk.start(p)
    (second,) = desk.submit(two, 1, **REPLACE)
    assert not only(desk.take(), Revoke)
    (third,) = desk.submit(one, 1, **REPLACE)
    (follower,) = desk.submit(two, 1, unique="k")
    desk.take()
    assert desk.ended(two, second) is Outcome.CANCELLED, "the newest counts"
    desk.end(p, payload=b"old")
    assert value_of(desk, one, first) == (Outcome.OK, b"old")
    desk.end(p, payload=b"new")
    desk.take()
    assert value_of(desk, one, third) == value_of(desk, two, follower) == (Outcome.OK, b"new")


@pytest.mark.parametrize("claimed", [False, True])
def test_a_leased_job_is_replaced_unless_it_was_claimed(
    desk: Desk, p: PRecord, one: Session, two: Session, claimed: bool
) -> None:
    (first,) = desk.submit(one, 1, unique="k")
    desk.take()
    (token,) = p.fresh
    (second,) = desk.submit(two, 1, **REPLACE)
    (revoke,) = only(desk.take(), Revoke)
    desk.revoked(revoke, [] if claimed else [token])
    given = payloads(desk.take())
    if claimed:
        assert given == []
        given = payloads(desk.end(p))
        assert desk.ended(one, first) is Outcome.OK
    else:
        assert desk.ended(one, first) is Outcome.CANCELLED
    assert given == [b"%d" % second]
    assert not desk.sched._ledger.withdrawn


def test_clients_of_other_machines_have_keys_of_their_own(
    desk: Desk, p: PRecord, one: Session, two: Session
) -> None:
    two.owner = "key of another machine"
    desk.submit(one, 1, unique="k")
    (seq,) = desk.submit(two, 1, **RAISE)
    desk.take()
    desk.end(p)
    desk.serve(p, 2)
    assert desk.ended(two, seq) is Outcome.OK


def test_a_unique_job_may_have_a_limit(desk: Desk, p: PRecord, one: Session) -> None:
    limit = ("l", 1, 0, 0.0)
    desk.submit(one, 1, limit=limit)
    (first,) = desk.submit(one, 1, unique="k", limit=limit)
    desk.take()
    (second,) = desk.submit(one, 1, **REPLACE, limit=limit)
    desk.take()
    assert desk.ended(one, first) is Outcome.CANCELLED
    assert one.jobs[second].state is JobState.LIMITED
    assert payloads(desk.end(p)) == [b"%d" % second]


# -- expires ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"delay": 60}, {"limit": ("l", 1, 0, 0.0)}, {"unique": "k"}], ids=str
)
def test_a_job_that_waits_too_long_does_not_begin(
    desk: Desk, one: Session, options: dict[str, Any]
) -> None:
    (seq,) = desk.submit(one, 1, expires=0.5, **options)
    desk.take(499)
    assert desk.ended(one, seq) is None
    due = desk.sched.next_deadline()
    assert due is not None
    desk.take(1)
    assert due == desk.now
    assert desk.ended(one, seq) is Outcome.TIMEOUT
    assert desk.details(one, seq)["expired"]
    desk.ready(0)
    assert payloads(desk.take()) == []


def test_a_leased_job_that_was_not_claimed_expires_and_a_running_one_does_not(
    desk: Desk, p: PRecord, one: Session
) -> None:
    desk.teach(p, one, "m:f", 0.01)
    lost, running = desk.submit(one, 2, expires=0.5)
    desk.take()
    first, second = p.fresh
    (revoke,) = only(desk.take(500), Revoke)
    desk.revoked(revoke, [first])
    desk.take()
    assert desk.ended(one, lost) is Outcome.TIMEOUT
    desk.finish(p, [second])
    desk.take()
    assert desk.ended(one, running) is Outcome.OK


def test_no_further_attempt_begins_after_that(desk: Desk, p: PRecord, one: Session) -> None:
    (seq,) = desk.submit(one, 1, expires=0.5, retries=5)
    desk.take()
    desk.start(p)
    desk.take(600)
    desk.end(p, outcome=Outcome.ERROR, payload=b"why")
    desk.take()
    assert value_of(desk, one, seq) == (Outcome.ERROR, b"why")


def test_when_the_first_expires_a_follower_runs(desk: Desk, one: Session, two: Session) -> None:
    (first,) = desk.submit(one, 1, expires=0.5, unique="k")
    (second,) = desk.submit(two, 1, unique="k")
    desk.take(500)
    assert desk.ended(one, first) is Outcome.TIMEOUT
    desk.ready(0)
    assert payloads(desk.take()) == [b"%d" % second]


def test_ended_jobs_do_not_stay_until_they_would_have_expired(
    desk: Desk, p: PRecord, one: Session
) -> None:
    for _ in range(10):
        desk.submit(one, 50, expires=86400.0)
        while one.jobs:
            desk.take()
            desk.finish(p)
    assert len(desk.sched._ledger.expiry) < 200
