"""Time limits of attempts in the policy: what is told when, and when another attempt may begin."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.protocol import Outcome
from gmpd.sched.instructions import LeaseJobs, RecoverOutcomes
from gmpd.sched.limits import LOOK_NS, TELL_NS
from gmpd.sched.records import PRecord, Session
from gmpd.sched.states import JobState
from tests.desk import MS, Desk, handed, only

LIMIT_MS = 1000
#: When the policy's own clock says that a limit has passed.
OWN_MS = LIMIT_MS + (TELL_NS + LOOK_NS) // MS


def begun(desk: Desk, **options: Any) -> tuple[PRecord, Session, int, int]:
    """P0, a client, its job there that has begun, and the token of that."""
    p, client, seq = desk.begun(timeout=LIMIT_MS / 1000, **options)
    (token,) = p.started
    desk.take()
    return p, client, seq, token


def expire(desk: Desk, p: PRecord, token: int) -> None:
    """Its worker says that the limit has passed."""
    desk.expired(p, [token])


def test_without_another_attempt_it_is_told_at_the_limit(desk: Desk) -> None:
    p, client, seq, token = begun(desk)
    expire(desk, p, token)
    desk.take()
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    assert "does not stop" in desk.details(client, seq)["text"]
    assert (desk.sched.unfinished, list(p.overrunning), p.started) == (0, [token], {})
    desk.finish(p, [token])
    desk.take()
    assert not p.overrunning
    assert not desk.sched.counters.dropped
    assert desk.sched.counters.overran == 1


def test_another_attempt_begins_when_the_frame_has_ended(desk: Desk) -> None:
    p, client, seq, token = begun(desk, retries=1, backoff=(0.1, 30, 2, 0))
    expire(desk, p, token)
    assert not handed(desk.take(after_ms=LIMIT_MS - 1))
    assert client.jobs[seq].state is JobState.OVERRUNNING
    desk.finish(p, [token])
    assert not handed(desk.take(after_ms=99))
    assert handed(desk.take(after_ms=1)) == [(0, 1)]
    desk.end(p)
    assert desk.ended(client, seq) is Outcome.OK
    assert desk.details(client, seq) == {}


def test_it_is_told_when_the_frame_takes_as_long_again(desk: Desk) -> None:
    p, client, seq, token = begun(desk, retries=9)
    expire(desk, p, token)
    desk.take(after_ms=LIMIT_MS - 1)
    assert desk.ended(client, seq) is None
    assert desk.sched.next_deadline() == desk.now + MS
    desk.take(after_ms=1)
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    assert "isolate=True" in desk.details(client, seq)["text"]
    assert desk.sched.next_deadline() is None
    desk.end(p, [token])
    assert not handed(desk.take(after_ms=60_000))


@pytest.mark.parametrize("retries", [0, 1])
def test_a_worker_that_reports_nothing_is_not_waited_for(desk: Desk, retries: int) -> None:
    p, client, seq, token = begun(desk, retries=retries)
    assert not only(desk.take(after_ms=LIMIT_MS + TELL_NS // MS - 1), RecoverOutcomes)
    assert only(desk.take(after_ms=1), RecoverOutcomes) == [RecoverOutcomes(p)]
    assert not p.overrunning
    desk.take(after_ms=LOOK_NS / MS)
    assert list(p.overrunning) == [token]
    desk.take(after_ms=LIMIT_MS)
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    expire(desk, p, token)  # it comes to it at last
    desk.end(p, [token])
    assert not desk.sched.counters.dropped
    assert desk.sched.counters.overran == 1


def test_what_ended_in_time_and_lies_in_the_page_counts(desk: Desk) -> None:
    p, client, seq, token = begun(desk)
    desk.take(after_ms=LIMIT_MS + TELL_NS // MS)
    desk.end(p, [token])
    desk.take(after_ms=LIMIT_MS)
    assert desk.ended(client, seq) is Outcome.OK


def test_what_a_deaf_worker_has_begun_has_a_limit_too(desk: Desk) -> None:
    p, client, seq = desk.leased(timeout=LIMIT_MS / 1000)
    desk.claimed(p, list(p.fresh))
    desk.take(after_ms=LIMIT_MS + TELL_NS // MS)
    desk.take(after_ms=LOOK_NS / MS)
    assert desk.ended(client, seq) is Outcome.TIMEOUT


def test_the_limit_may_be_reported_before_the_beginning(desk: Desk) -> None:
    p, client, seq = desk.leased(timeout=LIMIT_MS / 1000, retries=1)
    (token,) = p.fresh
    expire(desk, p, token)
    desk.take()
    desk.start(p, [token])
    assert client.jobs[seq].state is JobState.OVERRUNNING
    assert not desk.sched.counters.dropped


def test_a_cancel_ends_the_wait_for_the_frame(desk: Desk) -> None:
    p, client, seq, token = begun(desk, retries=3)
    expire(desk, p, token)
    desk.cancel(client, [seq])
    desk.take()
    assert desk.ended(client, seq) is Outcome.CANCELLED
    assert list(p.overrunning) == [token]
    desk.end(p, [token])
    assert not handed(desk.take(after_ms=60_000))


def test_a_client_that_leaves_ends_it_too(desk: Desk) -> None:
    p, client, _, token = begun(desk, retries=3)
    expire(desk, p, token)
    desk.leave(client)
    desk.take()
    assert (desk.sched.unfinished, list(p.overrunning)) == (0, [token])
    desk.end(p, [token])
    assert not handed(desk.take(after_ms=60_000))


@pytest.mark.parametrize("blamed", [False, True])
def test_a_confirmed_death_ends_every_frame(desk: Desk, blamed: bool) -> None:
    p, client, seq, token = begun(desk, retries=2)
    expire(desk, p, token)
    desk.take()
    desk.died(0, (), token if blamed else None)
    desk.take()
    assert not p.overrunning
    job = client.jobs[seq]
    assert (job.attempt, job.deaths) == (2, int(blamed))
    desk.ready(0, 2)
    assert handed(desk.take(after_ms=100)) == [(0, 1)]


def test_an_overrun_counts_as_started_on_its_p() -> None:
    desk = Desk(started_max=1)
    p, client, _, token = begun(desk)
    expire(desk, p, token)
    desk.submit(client, 1)
    assert not only(desk.take(), LeaseJobs)
    desk.finish(p, [token])
    assert only(desk.take(), LeaseJobs)


def test_limits_of_what_has_ended_are_forgotten(desk: Desk) -> None:
    """Hundreds of jobs that may take a year each, and end at once."""
    p, client = desk.ready(0), desk.client()
    for _ in range(400):
        desk.submit(client, 1, timeout=366 * 86400)
        desk.take()
        desk.start(p)
        desk.finish(p)
    desk.take()
    assert len(desk.sched._limits._heap) < 200
    assert desk.sched.next_deadline() is None
