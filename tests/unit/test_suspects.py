"""gmpd.sched.suspects: jobs of functions that end their workers again and again."""

from __future__ import annotations

from gmpd.protocol import Outcome
from gmpd.sched.records import PRecord, Session
from gmpd.sched.suspects import KILLS, MEMORY_NS, PAUSE_MAX_NS
from tests.desk import MS, Desk, payloads


def kill(desk: Desk, p: PRecord, token: int) -> None:
    """The worker of ``p`` dies while it runs that lease, and has a successor at once."""
    guilty = desk.died(p.p, {token}, token)
    assert guilty is not None
    desk.ready(p.p, p.epoch + 1)


def make_suspect(desk: Desk, p: PRecord, client: Session, fn: str) -> None:
    for _ in range(KILLS):
        desk.submit(client, 1, fn)
        desk.take(PAUSE_MAX_NS / MS)
        kill(desk, p, next(iter(p.fresh)))


def test_its_jobs_go_one_by_one_after_a_pause_and_nobody_waits_behind_them() -> None:
    desk = Desk()
    p, client = desk.ready(0), desk.client()
    make_suspect(desk, p, client, "m:killer")
    seqs = desk.submit(client, 3, "m:killer")
    other = desk.submit(client, 1, "m:innocent")
    assert payloads(desk.take()) == [b"%d" % other[0]]
    assert len(desk.sched.suspects.queue) == 3
    desk.finish(p)
    due, deadline = desk.sched.suspects.next_due, desk.sched.next_deadline()
    assert due is not None
    assert deadline is not None
    assert desk.now < deadline <= due <= desk.now + PAUSE_MAX_NS
    assert payloads(desk.take((due - desk.now) / MS)) == [b"%d" % seqs[0]]
    for _ in seqs:
        desk.finish(p)
        desk.take()
    assert [desk.ended(client, seq) for seq in seqs] == [Outcome.OK] * 3


def test_suspicion_ends() -> None:
    desk = Desk()
    p, client = desk.ready(0), desk.client()
    make_suspect(desk, p, client, "m:killer")
    desk.take(MEMORY_NS / MS)
    desk.teach(p, client, "m:killer", 0.01)
    seqs = desk.submit(client, 3, "m:killer")
    assert payloads(desk.take()) == [b"%d" % seq for seq in seqs]


def test_what_waits_there_is_cancelled_and_goes_with_its_client() -> None:
    desk = Desk()
    p, client, other = desk.ready(0), desk.client(), desk.client("d")
    make_suspect(desk, p, client, "m:killer")
    (mine,) = desk.submit(client, 1, "m:killer")
    desk.submit(other, 2, "m:killer")
    desk.take()
    assert len(desk.sched.suspects.queue) == 3
    desk.cancel(client, [mine])
    desk.take()
    assert desk.ended(client, mine) is Outcome.CANCELLED
    desk.leave(other)
    desk.take()
    assert not desk.sched.suspects.queue
    assert desk.sched.next_deadline() is None


def test_a_neighbour_is_told_the_culprit_and_its_rerun_costs_no_retry() -> None:
    desk = Desk()
    p, client = desk.ready(0), desk.client()
    (plain,) = desk.submit(client, 1, "m:plain")
    desk.take()
    desk.start(p)
    (patient,) = desk.submit(client, 1, "m:patient", retries=1)
    desk.take()
    desk.start(p)
    for round_ in range(3):
        desk.submit(client, 1, f"m:killer{round_}")
        desk.take()
        (token,) = p.fresh
        kill(desk, p, token)
        desk.take()
        assert desk.ended(client, patient) is None
        desk.start(p)
    details = desk.details(client, plain)
    assert details["culprit"] == "m:killer0"
    assert details["blamed"] is False
    desk.submit(client, 1, "m:killer3")
    desk.take()
    kill(desk, p, next(iter(p.fresh)))  # the fourth time it uses up its one retry
    desk.take()
    assert desk.ended(client, patient) is None
    desk.start(p)
    desk.submit(client, 1, "m:killer4")
    desk.take()
    kill(desk, p, next(iter(p.fresh)))
    desk.take()
    assert desk.ended(client, patient) is Outcome.LOST


def test_a_daemon_without_any_worker_tells_who_waits_why() -> None:
    desk = Desk()
    client = desk.client()
    (early,) = desk.submit(client, 1, "m:f")
    desk.take()
    desk.stall("no worker can start: no memory")
    (late,) = desk.submit(client, 1, "m:f")
    desk.take()
    for seq in (early, late):
        assert desk.ended(client, seq) is Outcome.LOST
        assert desk.details(client, seq)["text"] == "no worker can start: no memory"
    desk.stall("")
    p = desk.ready(0)
    (fine,) = desk.submit(client, 1, "m:f")
    desk.take()
    desk.finish(p)
    desk.take()
    assert desk.ended(client, fine) is Outcome.OK
