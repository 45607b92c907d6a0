"""Children of Gs in the coordinator's policy: which worker is asked, which gets them, whose they
are."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.errors import ProtocolError
from gmpd.protocol import Outcome
from gmpd.sched.children import CHILDREN_LOW_NS
from gmpd.sched.instructions import AskChildren, CancelAt, LeaseJobs, NotifyRunning, SendOutcomes
from gmpd.sched.records import PRecord
from tests.desk import MS, Desk, handed, only, payloads


def two(desk: Desk) -> tuple[PRecord, PRecord]:
    """A P that runs a root job and told of 100 children, and an idle one."""
    home, thief = desk.ready(0), desk.ready(1)
    desk.children(home, 100)
    return home, thief


def give(desk: Desk, home: PRecord, n: int, left: int = 50) -> list[int]:
    """The home answers: ``n`` children leave."""
    seqs = desk.submit(desk.parent(home), n, "m:child")
    desk.children(home, left, asked=True)
    return seqs


def _is_stealing(desk: Desk) -> bool:
    return bool(desk.sched.stealing)  # a call: it changes between two looks


def test_an_idle_p_has_the_other_asked_once() -> None:
    desk = Desk()
    home, _ = two(desk)
    assert not _is_stealing(desk)
    (ask,) = only(desk.take(), AskChildren)
    assert _is_stealing(desk)
    assert ask.p is home
    assert only(desk.take(), AskChildren) == []
    desk.children(home, 0, asked=True)
    assert not _is_stealing(desk)
    assert only(desk.take(), AskChildren) == [], "it has none"
    desk.children(home, 5)
    assert len(only(desk.take(), AskChildren)) == 1


@pytest.mark.parametrize("trouble", ["alone", "all have children", "draining", "jobs wait"])
def test_nobody_is_asked_for_nothing(trouble: str) -> None:
    desk = Desk()
    home = desk.ready(0)
    desk.children(home, 100)
    other = None if trouble == "alone" else desk.ready(1)
    if trouble == "all have children":
        assert other is not None
        desk.children(other, 1)
    if trouble == "draining":
        desk.drain()
    if trouble == "jobs wait":
        desk.submit(desk.client(), 100)
    assert only(desk.take(), AskChildren) == []


def test_children_go_to_the_thief_and_their_outcomes_home() -> None:
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    (seq,) = give(desk, home, 1)
    taken = desk.take()
    (lease,) = only(taken, LeaseJobs)
    assert lease.p is thief
    assert (thief.stolen_to, home.stolen_from) == (1, 1)
    desk.finish(thief, payload=b"42")
    taken = desk.take()
    (sent,) = only(taken, SendOutcomes)
    assert sent.session.parent is home
    assert desk.outcomes[sent.session.sid, seq] == [(Outcome.OK, b"42", {})]
    assert sent.session.owed == 0, "a worker acknowledges nothing"


def test_children_are_not_counted_as_jobs() -> None:
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    give(desk, home, 3)
    desk.take()
    desk.start(thief, list(thief.fresh)[:1])
    assert only(desk.take(), NotifyRunning) == []
    desk.end(thief)
    counters = desk.sched.counters
    assert (counters.children, counters.submitted, sum(counters.finished.values())) == (3, 0, 0)
    assert (counters.functions.total().wait.count, thief.finished) == (0, 0)


def test_they_return_to_their_home_only_when_it_has_no_others() -> None:
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    desk.teach(thief, desk.client(), "m:child", 1)
    give(desk, home, 60)
    assert {p for p, _ in handed(desk.take())} == {1}
    assert not home.fresh
    desk.children(home, 0)
    assert {p for p, _ in handed(desk.take())} == {0}


def test_a_clients_jobs_pass_by_children_that_wait() -> None:
    """The home of the waiting children takes other jobs all the same."""
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    client = desk.client()
    desk.teach(thief, client, "m:child", 1)
    give(desk, home, 60)
    desk.take()
    desk.submit(client, 1, "m:f")
    taken = desk.take()
    assert handed(taken) == [(0, 1)]
    assert payloads(taken) == [b"1"]


def test_more_are_asked_for_before_they_run_out() -> None:
    """While there is still more than a slice of work, the home is left in peace."""
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    desk.teach(thief, desk.client(), "m:child", 1)
    give(desk, home, 90)
    assert only(desk.take(), AskChildren) == []
    while len(desk.sched.queue) * MS >= CHILDREN_LOW_NS:
        assert not home.asked
        desk.end(thief, occupied_ms=1)
    assert home.asked


def test_children_of_a_dead_worker_end_with_it() -> None:
    """Queued ones are dropped, running ones asked to end; a new worker begins with none."""
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    give(desk, home, 5)
    desk.take()
    running = desk.start(thief)
    desk.died(0)
    taken = desk.take()
    assert [(each.p, each.tokens) for each in only(taken, CancelAt)] == [(thief, running)]
    assert len(desk.sched.queue) == 0
    desk.finish(thief, outcome=Outcome.CANCELLED)
    assert only(desk.take(), SendOutcomes) == []
    assert desk.sched.unfinished == 0
    assert desk.ready(0, 2).session is None


def test_a_dead_thief_loses_what_it_had_begun_and_nothing_else() -> None:
    desk = Desk()
    home, thief = two(desk)
    desk.take()
    desk.teach(thief, desk.client(), "m:child", 1)
    seqs = give(desk, home, 2)
    desk.take()
    begun, _ = list(thief.fresh)
    desk.died(1, [begun], begun)
    desk.take()
    assert home.session is not None
    assert desk.ended(home.session, seqs[0]) is Outcome.LOST
    assert desk.details(home.session, seqs[0])["signal"] == "SIGKILL"
    third = desk.ready(1, 2)
    desk.take()
    desk.end(third)
    assert desk.ended(home.session, seqs[1]) is Outcome.OK


@pytest.mark.parametrize("policy", [{"queue_jobs": 3}, {"window": 3}, {"queue_bytes": 3}])
def test_what_a_limit_refuses_goes_home(policy: dict[str, Any]) -> None:
    """REJECTED tells the worker to run them itself; no counter of refused jobs moves."""
    desk = Desk(**policy)
    home, _ = two(desk)
    desk.take()
    seqs = give(desk, home, 5)
    desk.take()
    assert home.session is not None
    assert {desk.ended(home.session, seq) for seq in seqs} == {Outcome.REJECTED}
    assert not desk.sched.counters.rejected


def test_nothing_is_believed_of_a_worker_that_is_gone() -> None:
    desk = Desk()
    home, _ = two(desk)
    with pytest.raises(ProtocolError, match="is no more"):
        desk.parent(home, 0)
    desk.children(home, 7, epoch=0)
    assert home.children == 100
    assert desk.sched.counters.dropped["stale_epoch"] == 1
