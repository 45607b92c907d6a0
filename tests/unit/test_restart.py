"""gmpd.sched.restart: when a dead worker is started again."""

from __future__ import annotations

import pytest

from gmpd.sched.restart import FAULTS_MAX, Death, RestartPolicy, Restarts

S = 1_000_000_000
POLICY = RestartPolicy(storm_deaths=3, storm_ns=60 * S)


def test_a_job_that_ends_its_worker_never_slows_the_next_one() -> None:
    restarts = Restarts(POLICY)
    for now in range(S, 50 * S, S):
        assert restarts.died(0, Death.OF_JOB, "x", now) == now
        assert restarts.degraded(now) == ""


def test_starts_that_fail_are_tried_for_ever_with_growing_pauses() -> None:
    restarts, now, pauses = Restarts(POLICY), S, []
    for _ in range(12):
        at = restarts.died(0, Death.UNBEGUN, "import of m failed", now)
        pauses.append(at - now)
        now = at
    assert pauses[:4] == [0, S // 10, S // 5, 2 * S // 5]
    assert pauses[-1] == POLICY.backoff_max_ns
    assert "P0 has no worker: import of m failed (12 times in a row" in restarts.degraded(now)
    restarts.serves(0)
    assert restarts.degraded(now) == ""
    assert restarts.died(0, Death.UNBEGUN, "again", now) == now


def test_it_is_hopeless_only_when_no_p_can_start() -> None:
    restarts = Restarts(POLICY)
    assert restarts.hopeless(range(2)) == ""
    for _ in range(FAULTS_MAX):
        restarts.died(0, Death.UNBEGUN, "no memory", S)
    assert restarts.hopeless(range(2)) == ""
    for _ in range(FAULTS_MAX):
        restarts.died(1, Death.UNBEGUN, "no memory", S)
    assert "no worker can start: no memory" in restarts.hopeless(range(2))
    restarts.serves(1)
    assert restarts.hopeless(range(2)) == ""


def test_a_storm_is_shown_slows_and_goes_away() -> None:
    restarts, now = Restarts(POLICY), S
    assert restarts.died(0, Death.UNEXPLAINED, "w", now) == now
    for _ in range(POLICY.storm_deaths - 1):
        assert restarts.died(0, Death.UNEXPLAINED, "w", now) > now
        assert restarts.died(1, Death.UNEXPLAINED, "w", now, finished=1) == now
    assert restarts.degraded(now) == ""
    restarts.died(0, Death.UNEXPLAINED, "worker 7 was killed", now)
    assert "worker 7 was killed" in restarts.degraded(now)
    now += POLICY.storm_ns
    assert restarts.degraded(now) == ""
    assert restarts.died(0, Death.UNEXPLAINED, "w", now, finished=1) == now


@pytest.mark.parametrize("death", Death)
def test_every_death_has_a_successor(death: Death) -> None:
    restarts = Restarts(POLICY)
    for now in range(S, 100 * S, S):
        assert now <= restarts.died(0, death, "w", now) <= now + POLICY.backoff_max_ns
