"""The wait and the run time of jobs: which attempts count, and from when on they wait."""

from __future__ import annotations

import pytest

from gmpd.gateway.metrics import BY_NAME
from gmpd.protocol import Outcome
from gmpd.sched.histogram import Histogram
from tests.desk import KILLED, MS, Desk


def times(desk: Desk) -> tuple[Histogram, Histogram]:
    total = desk.sched.counters.functions.total()
    return total.wait, total.run


def waited_ms(desk: Desk) -> list[int]:
    """The mean wait, and how many there are."""
    wait, _ = times(desk)
    return [round(wait.sum_ns / MS), wait.count]


def test_a_delay_is_no_wait() -> None:
    desk = Desk()
    p, one = desk.ready(0), desk.client()
    desk.submit(one, 1, delay=10.0)
    desk.take(9_000)
    assert not p.fresh
    desk.take(1_500)  # the timer is half a second late
    desk.end(p)
    assert waited_ms(desk) == [500, 1]


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.TIMEOUT])
def test_each_attempt_counts_and_the_time_between_two_is_no_wait(outcome: Outcome) -> None:
    desk = Desk()
    p, one = desk.ready(0), desk.client()
    desk.submit(one, 1, retries=1, backoff=(4.0, 4.0, 1.0, 0.0))
    desk.take()
    desk.now += 300 * MS
    desk.end(p, outcome=outcome, occupied_ms=100)
    assert waited_ms(desk) == [200, 1]
    desk.take(4_050)
    desk.now += 100 * MS
    desk.end(p, occupied_ms=100)
    assert waited_ms(desk) == [250, 2]
    _, run = times(desk)
    assert (run.sum_ns, run.count) == (200 * MS, 2)


def test_an_attempt_after_a_death_waits_from_the_death_on() -> None:
    desk = Desk()
    p, _, _ = desk.begun(retries=1)
    desk.now += 60_000 * MS
    desk.died(0, list(p.started), next(iter(p.started)))
    p = desk.ready(0, 2)
    desk.take()
    desk.now += 30 * MS
    desk.end(p, occupied_ms=10)
    assert waited_ms(desk) == [20, 1], "how long the first one ran is not known"


def test_what_never_ran_or_was_lost_has_neither() -> None:
    desk = Desk(credit_ns=1)
    p, one = desk.ready(0), desk.client()
    seqs = desk.submit(one, 3, "m:f")
    desk.take(5_000)
    desk.start(p)
    desk.cancel(one, seqs[1:2])
    desk.take(5_000)
    assert desk.ended(one, seqs[1]) is Outcome.CANCELLED
    desk.died(0, list(p.started), next(iter(p.started)), KILLED)
    desk.take(5_000)
    assert desk.ended(one, seqs[0]) is Outcome.LOST
    assert "waited_us" not in desk.details(one, seqs[0])
    desk.submit(one, 1, "m:g", expires=1.0)
    desk.take(2_000)
    assert waited_ms(desk) == [0, 0]
    assert desk.sched.counters.finished == {"cancelled": 1, "lost": 1, "timeout": 1}


def test_an_attempt_that_overran_counts_with_all_of_its_time() -> None:
    desk = Desk()
    p, _, _ = desk.begun(timeout=1.0, retries=1)
    desk.now += 1_000 * MS
    (token,) = p.started
    desk.expired(p, [token])
    desk.take(500)
    _, run = times(desk)
    assert run.count == 0
    desk.finish(p, [token], Outcome.TIMEOUT)
    desk.take()
    _, run = times(desk)
    assert (run.sum_ns, run.count) == (1_500 * MS, 1)


def test_the_metrics_say_so() -> None:
    assert "attempt" in BY_NAME["gmpd_job_wait_seconds"].help
    assert "attempt" in BY_NAME["gmpd_job_run_seconds"].help
