"""A host is one P with many cores: what it is given, and what stays here (gmpd.sched.leasing)."""

from __future__ import annotations

from gmpd.protocol import BATCH_JOBS_MAX, Outcome
from gmpd.sched.instructions import AskChildren, Kill, Revoke
from gmpd.sched.records import PRecord
from tests.desk import MS, Desk, handed, only

HOST = 9


def host(desk: Desk, cores: int = 4) -> PRecord:
    return desk.ready(HOST, cores=cores, host="there:1")


def test_credit_is_time_for_each_core() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    desk.teach(there, client, "m:f", 1.0)
    desk.submit(client, 1000, "m:f")
    desk.take()
    assert len(there.fresh) == 4 * desk.policy.host_credit_ns // MS


def test_a_long_job_for_each_core() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    desk.teach(there, client, "m:f", 700.0)
    desk.submit(client, 100, "m:f")
    desk.take()
    assert len(there.fresh) == 4
    desk.start(there)
    desk.take()
    assert len(there.fresh) == 4, "those that have begun use no credit"


def test_an_unknown_function_gets_a_job_for_each_core() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    desk.submit(client, 100, "m:new")
    desk.take()
    assert len(there.fresh) == 4


def test_one_message_takes_all_that_a_host_may_hold() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk, cores=1000)
    desk.teach(there, client, "m:f", 0.001)
    desk.submit(client, 20_000, "m:f")
    desk.take()
    assert len(there.fresh) <= BATCH_JOBS_MAX


def test_what_can_begin_here_is_not_sent_away() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    here = desk.ready(0)
    desk.submit(client, 1)
    assert handed(desk.take()) == [(0, 1)]
    assert (len(here.fresh), len(there.fresh)) == (1, 0)
    desk.start(here)
    desk.submit(client, 1, "m:g")
    assert handed(desk.take()) == [(HOST, 1)], "a free core there is better than a busy P here"


def test_each_core_gets_its_share() -> None:
    desk = Desk()
    client = desk.client()
    here, there = desk.ready(0), host(desk, cores=3)
    desk.teach(here, client, "m:f", 0.1)
    desk.submit(client, 16, "m:f")
    desk.take()
    assert (len(here.fresh), len(there.fresh)) == (7, 9), "the rest of the queue is shared again"
    desk.sched.validate()


def test_children_stay_on_the_machine_of_their_parent() -> None:
    desk = Desk()
    parent = desk.ready(0)
    there = host(desk)
    desk.children(parent, 10)
    assert not only(desk.take(), AskChildren), "no P of this machine is idle"
    session = desk.parent(parent)
    desk.submit(session, 3)
    desk.children(parent, 4)
    assert not handed(desk.take())
    assert not there.fresh


def test_jobs_behind_children_reach_the_host() -> None:
    desk = Desk()
    parent = desk.ready(0)
    there, client = host(desk), desk.client()
    desk.children(parent, 4)
    desk.submit(desk.parent(parent), 3)
    desk.start(parent)
    desk.submit(client, 2, "m:g")
    desk.take()
    jobs = [*there.fresh.values(), *parent.fresh.values()]
    assert {job.fn.name for job in there.fresh.values()} <= {"m:g"}
    assert len([job for job in jobs if job.fn.name == "m:g"]) == 2


def test_a_host_steals_only_what_is_worth_a_batch() -> None:
    desk = Desk()
    client, victim = desk.client(), desk.ready(1)
    desk.teach(victim, client, "m:f", 0.5)
    desk.submit(client, 4, "m:f")
    desk.take()
    host(desk)
    assert not only(desk.take(), Revoke)


def test_a_host_steals_no_children() -> None:
    desk = Desk()
    parent, other, client = desk.ready(0), desk.ready(1), desk.client()
    desk.teach(other, client, "m:f", 8.0)
    desk.children(parent, 4)
    desk.submit(desk.parent(parent), 5, "m:f")
    desk.start(parent)
    desk.take()
    held = len(parent.fresh) + len(other.fresh)
    host(desk)
    assert held > 1
    assert not only(desk.take(), Revoke)


def test_a_p_of_this_machine_takes_from_a_host_what_was_not_sent() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    desk.teach(there, client, "m:f", 5.0)
    desk.submit(client, 16, "m:f")
    desk.take()
    assert len(there.fresh) == 16
    here = desk.ready(0)
    (revoke,) = only(desk.take(), Revoke)
    assert (revoke.p, revoke.thief, len(revoke.tokens)) == (there, here, 8)


def test_a_host_that_is_gone_leaves_no_cores() -> None:
    desk = Desk()
    client, here, there = desk.client(), desk.ready(0), host(desk, cores=3)
    desk.teach(here, client, "m:f", 0.1)
    desk.drain_p(HOST)
    desk.take()
    desk.remove_p(HOST)
    desk.submit(client, 8, "m:f")
    desk.take()
    assert (len(here.fresh), len(there.fresh)) == (8, 0)


def test_the_bridge_to_a_host_is_never_killed_for_one_job() -> None:
    desk = Desk(grace_ns=0)
    client, there = desk.client(), host(desk)
    (seq, _) = desk.submit(client, 2, kill_after=0.01)
    desk.take()
    desk.start(there)
    desk.cancel(client, [seq], force=True)
    for _ in range(20):
        assert not only(desk.take(after_ms=20), Kill)


def test_a_job_that_comes_back_from_a_host_is_no_attempt() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    desk.submit(client, 4, timeout=5)
    desk.take()
    claimed = list(there.fresh)
    desk.start(there, claimed[1:])
    desk.take()
    desk.drain_p(HOST)
    desk.take()
    desk.returned(there, [*claimed[:3], 777])
    desk.returned(there, claimed[:1])
    desk.finish(there, claimed[3:])
    here = desk.ready(0)
    desk.take()
    assert list(here.fresh.values()), "they run on this machine now"
    desk.serve(here, 4)
    outcomes = [each for ended in desk.outcomes.values() for each in ended]
    assert [outcome for outcome, _, _ in outcomes] == [Outcome.OK] * 4
    assert desk.sched.counters.dropped["unknown_token"] == 2, "nothing else changes by a token"
    assert not sum(desk.sched.counters.retried.values())
    desk.sched.validate()


def test_a_job_that_comes_back_cancelled_has_ended() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk)
    (seq,) = desk.submit(client, 1)
    desk.take()
    desk.start(there)
    desk.cancel(client, [seq])
    desk.take()
    desk.returned(there, [*there.started])
    desk.take()
    assert [how for how, _, _ in desk.outcomes[client.sid, seq]] == [Outcome.CANCELLED]


def test_a_client_has_back_what_has_not_begun() -> None:
    desk = Desk()
    client, p = desk.client(), host(desk)
    seqs = desk.submit(client, 3)
    desk.take()
    (began, *waits) = list(p.fresh)
    desk.start(p, [began])
    desk.recall(client, [*seqs, *seqs, 99])
    (revoke,) = only(desk.take(), Revoke)
    assert revoke.tokens == waits
    desk.revoked(revoke, waits)
    desk.take()
    for seq in seqs[1:]:
        ((how, _, details),) = desk.outcomes[client.sid, seq]
        assert (how, details["recalled"]) == (Outcome.CANCELLED, True)
    desk.end(p)
    assert [how for how, _, _ in desk.outcomes[client.sid, seqs[0]]] == [Outcome.OK]


def test_nothing_of_a_severed_host_begins_again_before_it_is_lost() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk, cores=3)
    desk.submit(client, 3, retries=1)
    desk.take()
    unsent, claimed, begun = list(there.fresh)
    desk.start(there, [begun])
    desk.severed(HOST, [claimed])
    here = desk.ready(0)
    assert handed(desk.take()) == [(0, 1)], "the one that was not sent moves"
    desk.serve(here, 1)
    desk.now += 20_000 * MS
    assert not handed(desk.take())
    assert list(there.started) == [begun, claimed]
    desk.died(HOST)
    desk.take()
    desk.serve(here, 2)
    assert len(desk.outcomes) == 3
    assert desk.sched.counters.retried["lost"] == 2
    assert unsent not in there.fresh
    desk.remove_p(HOST)
    assert HOST not in desk.sched.ps


def test_what_runs_at_a_severed_host_can_be_cancelled_and_time_out() -> None:
    desk = Desk()
    client, there = desk.client(), host(desk, cores=2)
    (one,) = desk.submit(client, 1, retries=1)
    (two,) = desk.submit(client, 1, timeout=1.0)
    desk.take()
    desk.start(there)
    desk.severed(HOST)
    desk.cancel(client, [one])
    desk.now += 3_000 * MS
    desk.take()
    desk.now += 3_000 * MS
    desk.take()
    assert [how for how, _, _ in desk.outcomes[client.sid, two]] == [Outcome.TIMEOUT]
    desk.died(HOST)
    desk.take()
    assert [how for how, _, _ in desk.outcomes[client.sid, one]] == [Outcome.LOST]
    desk.sched.validate()
