"""Credit that grows with what waits, and returns to the usual one (gmpd.sched.backlog)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gmpd.protocol import Outcome, Submit
from gmpd.sched.backlog import CALM_NS, DEAF_NS, GROWTH_MAX, LARGE_BYTES, PART
from gmpd.sched.instructions import LeaseJobs, Revoke
from gmpd.sched.records import PRecord
from tests.desk import MS, Desk, handed, only

MILLI = "m:milli"
#: The usual credit of a desk, in ms, and the most that it grows to.
USUAL, MOST = 2, 2 * GROWTH_MAX


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.take()
    made.sched.validate()


def backlog(desk: Desk, n: int, ps: int = 1, ms: float = 1) -> list[PRecord]:
    """``n`` jobs of ``ms`` of one client, and as many as these Ps hold of them are leased."""
    first = desk.ready(0)
    client = desk.client("backlog")
    desk.teach(first, client, MILLI, ms)
    found = [first, *(desk.ready(p) for p in range(1, ps))]
    desk.submit(client, n, MILLI)
    desk.take()
    return found


def settled(desk: Desk) -> None:
    """The shell revokes, and the policy decides again, until nothing more is to be revoked."""
    while revokes := only(desk.take(), Revoke):
        for each in revokes:
            desk.revoked(each, each.tokens)


def function(job_of: PRecord) -> set[str]:
    return {job.fn.name for job in job_of.fresh.values()}


@pytest.mark.parametrize("ms", [0.1, 0.3, 1, 2, 3, 4])
def test_a_p_holds_more_of_a_long_backlog(desk: Desk, ms: float) -> None:
    (p,) = backlog(desk, 10_000, ms=ms)
    assert MOST - ms < len(p.fresh) * ms <= MOST
    assert p.used_ns == len(p.fresh) * round(ms * MS)


@pytest.mark.parametrize("ms", [4.1, 50])
def test_not_of_long_jobs(desk: Desk, ms: float) -> None:
    (p,) = backlog(desk, 10_000, ms=ms)
    assert len(p.fresh) == 1


def test_all_ps_together_hold_a_part_of_what_waits(desk: Desk) -> None:
    for n in range(1, 300):
        desk = Desk()
        ps = backlog(desk, n, ps=3)
        held = [len(p.fresh) for p in ps]
        assert max(held) <= max(USUAL, n / (PART * 3)) + 1
        assert max(held) - min(held) <= max(USUAL, max(held) // 3)


def test_what_a_p_holds_shrinks_with_the_backlog(desk: Desk) -> None:
    one, two = backlog(desk, 400, ps=2)
    assert len(one.fresh) == MOST
    while desk.sched.queue:
        waited = len(desk.sched.queue)
        for p in (one, two):
            desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
        held = [len(one.fresh), len(two.fresh)]
        desk.take()
        for before, p in zip(held, (one, two), strict=True):
            assert len(p.fresh) <= max(before, USUAL, waited // (PART * 2))
    assert max(len(one.fresh), len(two.fresh)) <= USUAL


def test_it_is_refilled_when_half_of_it_is_used(desk: Desk) -> None:
    """In messages of several jobs: that is what it is for."""
    (p,) = backlog(desk, 10_000)
    for _ in range(MOST // 2 - 1):
        desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
        assert handed(desk.take()) == []
    desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
    assert handed(desk.take()) == [(0, MOST // 2)]


def test_the_job_of_another_client_waits_for_the_usual_credit_at_most(desk: Desk) -> None:
    ps = backlog(desk, 10_000, ps=2)
    before = [list(p.fresh) for p in ps]
    other = desk.client("other")
    (seq,) = desk.submit(other, 1, "m:short")
    revokes = only(desk.take(), Revoke)
    assert {each.p.p for each in revokes} == {0, 1}
    for each in revokes:
        assert each.thief is None
        assert each.tokens == before[each.p.p][1:], "the last ones: it is unknown, and takes all"
        desk.revoked(each, each.tokens)
    desk.take()
    rounds = 0
    while "m:short" not in function(ps[0]) | function(ps[1]):
        rounds += 1
        assert all(p.used_ns <= USUAL * MS for p in ps)
        for p in ps:
            desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
        desk.take()
    assert rounds <= USUAL
    for p in ps:
        desk.finish(p)
    desk.take()
    assert desk.ended(other, seq) is Outcome.OK


def test_one_of_a_known_function_has_the_next_turn(desk: Desk) -> None:
    (p,) = backlog(desk, 10_000)
    other = desk.client("other")
    desk.define(other, MILLI)
    desk.submit(other, 1, MILLI)
    settled(desk)
    assert len(p.fresh) == USUAL
    desk.end(p, list(p.fresh)[:1], occupied_ms=1)
    assert [job.session.name for job in p.fresh.values()] == ["backlog", "other"]


def test_one_of_a_higher_priority_is_leased_at_once(desk: Desk) -> None:
    (p,) = backlog(desk, 10_000)
    client = next(iter(p.fresh.values())).session
    desk.submit(client, 1, MILLI, priority=1)
    settled(desk)
    assert [job.option("priority", 0) for job in p.fresh.values()] == [0, 1]


@pytest.mark.parametrize("name", ["backlog", "other"])
def test_one_of_a_lower_priority_waits(desk: Desk, name: str) -> None:
    (p,) = backlog(desk, 10_000)
    client = next(iter(p.fresh.values())).session if name == "backlog" else desk.client(name)
    desk.submit(client, 1, "m:later", priority=-1)
    assert desk.take() == []
    assert len(p.fresh) == MOST


def test_what_was_taken_back_keeps_its_order(desk: Desk) -> None:
    (p,) = backlog(desk, 100)
    desk.submit(desk.client("other"), 1, "m:short")
    settled(desk)
    order = []
    while p.fresh:
        order += [job.seq for job in p.fresh.values() if job.session.name == "backlog"]
        desk.end(p, occupied_ms=1)
    assert order == sorted(order)
    assert len(order) == 100


def test_credit_does_not_grow_again_for_a_moment(desk: Desk) -> None:
    """A client that submits a job every few milliseconds costs no revocation each time."""
    (p,) = backlog(desk, 10_000)
    other = desk.client("other")
    desk.define(other, MILLI)
    revoked = 0
    for _ in range(10):
        desk.submit(other, 1, MILLI)
        for _ in range(5):
            desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
            for each in only(desk.take(), Revoke):
                revoked += 1
                desk.revoked(each, each.tokens)
        assert len(p.fresh) <= USUAL
        desk.now += 5 * MS
    assert revoked == 1
    desk.now += CALM_NS
    desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
    desk.take()
    assert len(p.fresh) > USUAL


def test_two_clients_with_backlogs_have_the_usual_credit(desk: Desk) -> None:
    (p,) = backlog(desk, 1000)
    other = desk.client("other")
    desk.define(other, MILLI)
    desk.submit(other, 1000, MILLI)
    settled(desk)
    for _ in range(20):
        desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
        settled(desk)
        assert len(p.fresh) <= USUAL


def test_what_was_claimed_meanwhile_has_begun(desk: Desk) -> None:
    """The shell revokes what the worker has not claimed; the rest runs, and ends once."""
    (p,) = backlog(desk, 10_000)
    tokens = list(p.fresh)
    desk.submit(desk.client("other"), 1, "m:short")
    (revoke,) = only(desk.take(), Revoke)
    desk.revoked(revoke, revoke.tokens[4:])
    desk.take()
    assert list(p.started) == tokens[1:5]
    assert p.used_ns == USUAL * MS


def test_not_for_an_unknown_function(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 10_000, MILLI)
    desk.take()
    assert len(p.fresh) == 1


def test_not_beside_another_function(desk: Desk) -> None:
    """Which of them will be long?"""
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, MILLI, 1)
    desk.teach(p, client, "m:other", 1)
    for _ in range(1000):
        desk.submit(client, 1, MILLI)
        desk.submit(client, 1, "m:other")
    desk.take()
    assert p.used_ns == USUAL * MS


def test_not_at_a_p_that_has_begun_something_long(desk: Desk) -> None:
    (p,) = backlog(desk, 10_000)
    desk.start(p, list(p.fresh)[:1])
    while len(p.fresh) > USUAL:
        desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
        assert handed(desk.take()) == []
    for _ in range(10):
        desk.finish(p, list(p.fresh)[:1], occupied_ms=1)
        desk.take()
        assert len(p.fresh) == USUAL


def test_not_for_large_arguments_or_results(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 1, "m:bulky")
    desk.take()
    desk.end(p, occupied_ms=0.5, payload=bytes(LARGE_BYTES))
    desk.submit(client, 1000, "m:bulky")
    desk.take()
    assert p.used_ns <= USUAL * MS
    desk.finish(p)
    desk.take()
    desk = Desk()
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, MILLI, 1)
    large = Submit(desk.fids[client.sid, MILLI], 1, None, [bytes(LARGE_BYTES + 1)] * 1000, None)
    desk.submitted(client, large)
    desk.take()
    assert len(p.fresh) == USUAL


def test_not_for_jobs_that_hold_a_place_of_a_limit(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, MILLI, 1)
    desk.submit(client, 1000, MILLI, limit=("k", 1000, 0, 0.0))
    desk.take()
    assert len(p.fresh) == USUAL


@pytest.mark.parametrize("trouble", ["deaf", "set aside"])
def test_a_p_whose_averages_were_wrong_loses_what_it_holds_beyond_the_usual_credit(
    desk: Desk, trouble: str
) -> None:
    """One of its jobs turns out a hundred times as long; the queue is not empty: none steals."""
    one, two = backlog(desk, 10_000, ps=2)
    if trouble == "deaf":
        desk.probed(one, moves=False, asleep=False)
        assert not only(desk.take(), Revoke), "it may only have waited for its core"
        desk.now += DEAF_NS
    else:
        desk.start(one, list(one.fresh)[:1])
        desk.set_aside(one, list(one.fresh)[:1])
    settled(desk)
    assert one.used_ns <= USUAL * MS
    desk.finish(two, list(two.fresh)[: MOST // 2 + 1], occupied_ms=1)
    instructions = desk.take()
    (lease,) = [each for each in only(instructions, LeaseJobs) if each.p is two]
    assert lease.seqs[0] < 1 + 2 * MOST, "the first of those that were taken back"
    assert len(two.fresh) > USUAL, "the other P is as before"


def test_a_worker_that_dies_or_leaves_with_more_than_usual_loses_none(desk: Desk) -> None:
    one, two = backlog(desk, 100, ps=2)
    desk.drain_p(0)
    desk.submit(desk.client("other"), 1, "m:short")
    settled(desk)
    assert not one.fresh
    desk.died(1)
    settled(desk)
    two = desk.ready(1, 2)
    for _ in range(200):
        settled(desk)
        desk.finish(two, occupied_ms=1)
    desk.take()
    assert desk.sched.unfinished == 0
    assert all(len(each) == 1 for each in desk.outcomes.values())
    assert len(desk.outcomes) == 102


def test_an_idle_p_steals_from_what_was_leased_last(desk: Desk) -> None:
    """At the end of a backlog."""
    one, two = backlog(desk, 40, ps=2)
    while desk.sched.queue:
        desk.finish(two, list(two.fresh)[:1], occupied_ms=1)
        desk.take()
    desk.finish(two, occupied_ms=1)
    (revoke,) = only(desk.take(), Revoke)
    assert revoke.p is one
    desk.revoked(revoke, revoke.tokens)
    desk.take()
    assert two.fresh
