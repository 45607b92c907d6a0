"""gmpd.sched.recycle: which worker is replaced next."""

from __future__ import annotations

from gmpd.sched.leavers import number_beside, p_of
from gmpd.sched.recycle import PAUSE_MAX_NS, PAUSE_MIN_NS, Reason, Recycles

S = 1_000_000_000


def recycles() -> Recycles:
    return Recycles(grace_ns=5 * S, leaving_max=4)


def test_one_is_replaced_at_a_time_in_the_order_of_asking() -> None:
    them = recycles()
    for p in (2, 0, 1):
        them.want(p, Reason.JOBS)
        them.want(p, Reason.MEMORY)  # it is waiting already
    assert them.next(S, 0) == (2, Reason.JOBS)
    assert (them.next(S, 0), them.next_due()) == (None, None)
    them.succeeded(2, 2 * S)
    assert them.next(3 * S, 1) is None
    them.left(2)
    assert them.next(3 * S, 0) == (0, Reason.JOBS)


def test_jobs_that_last_hold_the_next_one_back_for_the_grace_only() -> None:
    them = recycles()
    for p in range(3):
        them.want(p, Reason.AGE)
    assert them.next(S, 0) == (0, Reason.AGE)
    them.succeeded(0, S)
    assert them.next_due() == 6 * S
    assert them.next(6 * S - 1, 1) is None
    assert them.next(6 * S, 1) == (1, Reason.AGE)
    them.left(0)  # the one before: that does not end the wait for P1's successor
    assert them.next(7 * S, 0) is None


def test_leaving_workers_have_a_limit() -> None:
    them = recycles()
    them.want(0, Reason.RELOAD)
    assert them.next(S, 4) is None
    assert (them.is_full, them.next_due()) == (True, None)
    assert them.next(S, 3) == (0, Reason.RELOAD)
    assert not them.is_full


def test_a_successor_that_cannot_start_is_tried_again_ever_later() -> None:
    them, now, pauses = recycles(), S, []
    them.want(0, Reason.MEMORY)
    for _ in range(12):
        assert them.next(now, 0) == (0, Reason.MEMORY)
        them.failed(0, "import of m failed", now)
        assert them.next(now, 0) is None
        due = them.next_due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses[:3] == [PAUSE_MIN_NS, 2 * PAUSE_MIN_NS, 4 * PAUSE_MIN_NS]
    assert pauses[-1] == PAUSE_MAX_NS
    assert them.problem == "import of m failed"
    assert them.next(now, 0) == (0, Reason.MEMORY)
    them.succeeded(0, now)
    assert them.problem == ""


def test_a_reload_goes_first_ends_at_its_first_failure_and_waits_for_no_pause() -> None:
    them = recycles()
    them.want(0, Reason.JOBS)
    assert them.next(S, 0) == (0, Reason.JOBS)
    them.failed(0, "no memory", S)
    for p in (1, 2):
        them.want(p, Reason.RELOAD)
    assert them.reloading == 2
    assert them.next(S, 0) == (1, Reason.RELOAD)
    assert them.reloading == 2
    them.failed(1, "a syntax error", S)
    assert (them.reloading, them.wanted) == (0, {0: Reason.JOBS})
    assert them.next(S, 0) == (0, Reason.JOBS)


def test_a_reload_is_over_when_the_last_successor_serves() -> None:
    them = recycles()
    them.want(0, Reason.JOBS)
    them.want(0, Reason.RELOAD)
    assert them.next(S, 0) == (0, Reason.RELOAD)
    assert them.reloading == 1
    them.succeeded(0, S)
    assert them.reloading == 0


def test_a_worker_that_dies_by_itself_needs_no_replacement() -> None:
    them = recycles()
    them.want(0, Reason.JOBS)
    them.want(1, Reason.JOBS)
    assert them.next(S, 0) == (0, Reason.JOBS)
    them.forget(0)
    them.forget(1)
    assert them.next(S, 0) is None
    assert them.current is None


def test_numbers_beside_a_p_tell_p_and_epoch_apart() -> None:
    numbers = {number_beside(p, epoch) for p in (0, 1, 4095) for epoch in (1, 2, 70_000)}
    assert len(numbers) == 9
    assert max(numbers) < 0
    assert [p_of(number_beside(p, 3)) for p in (0, 1, 4095)] == [0, 1, 4095]
    assert [p_of(p) for p in (0, 7, 1 << 16)] == [0, 7, 1 << 16]
