"""Workers that are replaced to end one job in them: ``kill_after``, and cancels by force."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.protocol import Finished, Outcome
from gmpd.sched.instructions import CancelAt, Kill, RecoverOutcomes, Revoke
from gmpd.sched.limits import LOOK_NS, OUTLIVES_NS
from gmpd.sched.records import PRecord, Session
from gmpd.sched.replacing import FORCE_NS
from gmpd.sched.states import JobState
from tests.desk import MS, Desk, handed, only

KILL_MS = 2000
GRACE_MS = 5000
LOOK_MS = LOOK_NS // MS
FORCE_MS = FORCE_NS // MS


@pytest.fixture
def desk() -> Desk:
    return Desk(grace_ns=GRACE_MS * MS)


def begun(desk: Desk, beside: int = 0, **options: Any) -> tuple[PRecord, Session, int, int]:
    """P0, a client, its job there that is to be killed, and its token; ``beside`` others run."""
    p, client = desk.ready(0), desk.client()
    for fn in ("m:f", "m:beside", "m:queued"):
        desk.teach(p, client, fn, 0.001)
    (seq,) = desk.submit(client, 1, kill_after=KILL_MS / 1000, **options)
    desk.take()
    (token,) = desk.start(p)
    if beside:
        desk.submit(client, beside, "m:beside")
        desk.take()
        desk.start(p)
    desk.take()
    return p, client, seq, token


def kills(desk: Desk, after_ms: float = 0) -> list[str]:
    """Of this turn, and of the next one if that is due at once: shared memory is read between."""
    told = desk.take(after_ms)
    if only(told, RecoverOutcomes) and desk.sched.next_deadline() == desk.now:
        told = [*told, *desk.take()]
    return [kill.why for kill in only(told, Kill)]


def test_a_worker_without_other_jobs_is_killed_at_once(desk: Desk) -> None:
    _, client, seq, token = begun(desk)
    assert not only(desk.take(after_ms=KILL_MS - 1), RecoverOutcomes)
    assert only(desk.take(after_ms=1), RecoverOutcomes)
    assert kills(desk, LOOK_MS - 1) == []
    assert kills(desk, 1) == ["was replaced: m:f ran beyond kill_after=2"]
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    assert "its worker is replaced" in desk.details(client, seq)["text"]
    assert kills(desk, 60_000) == [], "once"
    desk.died(0, [token], token)
    desk.take()
    assert not any(fn.kills for fn in desk.sched.functions.all())
    desk.ready(0, 2)
    desk.submit(client)
    assert handed(desk.take()) == [(0, 1)]


def test_one_that_ends_in_time_costs_nothing(desk: Desk) -> None:
    p, client, seq, token = begun(desk)
    desk.end(p, [token])
    assert desk.ended(client, seq) is Outcome.OK
    assert desk.sched.next_deadline() is None
    assert not desk.take(after_ms=60_000)


def test_another_attempt_waits_for_the_death_of_the_worker(desk: Desk) -> None:
    p, client, seq, token = begun(desk, retries=1, backoff=(0, 0, 1, 0))
    desk.take(KILL_MS)
    assert len(kills(desk, LOOK_MS)) == 1
    assert client.jobs[seq].state is JobState.OVERRUNNING
    desk.take(after_ms=1000)
    desk.died(0, [token], token)
    desk.ready(0, 2)
    assert handed(desk.take()) == [(0, 1)]
    desk.start(p)
    desk.take(KILL_MS)
    desk.take(LOOK_MS)
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    assert (desk.details(client, seq)["attempt"], client.jobs) == (2, {})


def test_one_that_hangs_in_the_kernel_is_not_waited_for(desk: Desk) -> None:
    _, client, seq, _ = begun(desk, retries=1)
    desk.take(KILL_MS)
    assert len(kills(desk, LOOK_MS)) == 1
    desk.take(after_ms=GRACE_MS + OUTLIVES_NS // MS)
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    assert "has not ended" in desk.details(client, seq)["text"]


def test_neighbours_may_end_and_no_other_job_begins_there(desk: Desk) -> None:
    p, client, seq, token = begun(desk, beside=2)
    desk.take(KILL_MS - 10)
    desk.submit(client, 3, "m:queued")
    desk.take()
    fresh = list(p.fresh)
    assert len(fresh) == 3
    desk.take(10)
    told = desk.take(LOOK_MS)
    (revoke,) = only(told, Revoke)
    assert sorted(revoke.tokens) == fresh
    assert not only(told, Kill)
    desk.revoked(revoke, revoke.tokens)
    assert not handed(desk.take())
    assert desk.ended(client, seq) is Outcome.TIMEOUT, "its client does not wait for the others"
    first, second = p.started
    desk.finish(p, [first])
    assert kills(desk) == []
    desk.finish(p, [second])
    assert len(kills(desk)) == 1
    desk.died(0, [], token)
    desk.ready(0, 2)
    assert handed(desk.take()) == [(0, 3)]
    desk.end(p)
    assert [rows[0][0] for rows in desk.outcomes.values()].count(Outcome.LOST) == 0


def test_neighbours_that_do_not_end_are_lost_without_a_strike(desk: Desk) -> None:
    p, client, _, token = begun(desk)
    (plain,) = desk.submit(client, 1, "m:beside")
    (again,) = desk.submit(client, 1, "m:beside", retries=1)
    desk.take()
    desk.start(p)
    desk.take(KILL_MS)
    assert kills(desk, LOOK_MS) == []
    assert kills(desk, GRACE_MS - 1) == []
    assert desk.sched.next_deadline() == desk.now + MS
    assert len(kills(desk, 1)) == 1
    neighbour = next(iter(p.started))
    desk.died(0, list(p.started), neighbour)
    desk.take()
    assert desk.ended(client, plain) is Outcome.LOST
    details = desk.details(client, plain)
    assert details["text"] == "was replaced: m:f ran beyond kill_after=2"
    assert (details["culprit"], details["blamed"]) == ("m:f", False)
    job = client.jobs[again]
    assert (job.attempt, job.spared, job.deaths) == (2, 1, 0)
    assert not any(fn.kills for fn in desk.sched.functions.all())
    assert token not in p.overrunning


def test_a_function_that_ends_meanwhile_keeps_its_worker(desk: Desk) -> None:
    p, client, seq, token = begun(desk, beside=1)
    desk.take(KILL_MS)
    desk.take(LOOK_MS)
    assert p.draining
    desk.submit(client, 1, "m:beside")
    assert not handed(desk.take())
    desk.finish(p, [token])
    assert handed(desk.take()) == [(0, 1)]
    assert kills(desk, 60_000) == []
    assert desk.ended(client, seq) is Outcome.TIMEOUT


def test_one_that_has_ended_and_could_not_say_so_keeps_its_worker(desk: Desk) -> None:
    """As seed 10 of the world of replaced workers found: its outcome lay in shared memory."""
    p, _, _, token = begun(desk, beside=1)
    desk.take(KILL_MS)
    assert kills(desk, LOOK_MS) == []
    assert only(desk.take(GRACE_MS), RecoverOutcomes) == [RecoverOutcomes(p)]
    desk.recovered(p, Finished([token], [b"r"], [10], [10], None, None))
    assert kills(desk) == []
    assert p.ready
    assert not p.draining
    assert desk.sched.is_idle(p)


def test_a_p_that_is_to_leave_anyway_does(desk: Desk) -> None:
    p, _, _, token = begun(desk, beside=1)
    desk.take(KILL_MS)
    desk.take(LOOK_MS)
    desk.drain_p(0)
    desk.finish(p, [token])
    desk.take()
    assert p.draining


def test_a_crash_meanwhile_is_a_crash(desk: Desk) -> None:
    _, _, _, token = begun(desk, beside=1)
    desk.take(KILL_MS)
    desk.take(LOOK_MS)
    desk.died(0, [], token)
    desk.take()
    assert any(fn.kills for fn in desk.sched.functions.all())


def test_with_a_time_limit_before_it_the_job_is_told_at_that(desk: Desk) -> None:
    p, client, seq, token = begun(desk, timeout=1)
    desk.take(1000)
    desk.expired(p, [token])
    desk.take()
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    assert "ends with its worker" in desk.details(client, seq)["text"]
    desk.take(KILL_MS - 1000)
    assert len(kills(desk, LOOK_MS)) == 1


def test_with_both_limits_another_attempt_waits_for_the_second(desk: Desk) -> None:
    p, client, seq, token = begun(desk, timeout=0.1, retries=1, backoff=(0, 0, 1, 0))
    desk.take(100)
    desk.expired(p, [token])
    desk.take(1000)
    assert desk.ended(client, seq) is None, "not at twice its limit: its worker will end"
    desk.take(KILL_MS - 1100)
    assert len(kills(desk, LOOK_MS)) == 1
    desk.died(0, [token], token)
    desk.ready(0, 2)
    assert handed(desk.take()) == [(0, 1)]


def test_an_outcome_that_a_silent_worker_had_stored_counts(desk: Desk) -> None:
    p, client, seq, token = begun(desk)
    assert only(desk.take(KILL_MS), RecoverOutcomes)
    desk.finish(p, [token])
    assert kills(desk, LOOK_MS) == []
    assert desk.ended(client, seq) is Outcome.OK


# ------------------------------------------------------------------------------ cancels by force


def test_a_coroutine_that_ends_when_it_is_cancelled_keeps_its_worker(desk: Desk) -> None:
    p, client, seq = desk.begun()
    desk.cancel(client, [seq], force=True)
    assert only(desk.take(), CancelAt)
    desk.finish(p, outcome=Outcome.CANCELLED)
    desk.take()
    assert desk.ended(client, seq) is Outcome.CANCELLED
    assert not desk.take(after_ms=60_000)


def test_a_function_that_does_not_end_is_cancelled_with_its_worker(desk: Desk) -> None:
    _, client, seq = desk.begun(retries=5)
    desk.cancel(client, [seq], force=True)
    desk.take(FORCE_MS)
    assert kills(desk, LOOK_MS) == ["was replaced: m:f ran beyond its cancel by force"]
    assert desk.ended(client, seq) is Outcome.CANCELLED
    desk.died(0)
    desk.ready(0, 2)
    assert not handed(desk.take(after_ms=60_000))
    assert desk.sched.unfinished == 0


def test_a_function_whose_end_was_told_can_be_cancelled_by_force(desk: Desk) -> None:
    p, client, seq = desk.begun(timeout=1)
    (token,) = p.started
    desk.expired(p, [token])
    desk.take()
    assert desk.ended(client, seq) is Outcome.TIMEOUT
    other = desk.client("other")
    desk.cancel(other, [seq], force=True)
    desk.take(FORCE_MS)
    assert kills(desk, LOOK_MS) == [], "it is not theirs"
    desk.cancel(client, [seq], force=True)
    desk.take(FORCE_MS)
    assert len(kills(desk, LOOK_MS)) == 1


def test_jobs_that_wait_are_just_cancelled(desk: Desk) -> None:
    client = desk.client()
    (seq,) = desk.submit(client)
    desk.cancel(client, [seq], force=True)
    desk.take()
    assert desk.ended(client, seq) is Outcome.CANCELLED
    assert desk.sched.next_deadline() is None
