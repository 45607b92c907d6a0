"""The coordinator's policy: events in, instructions out (gmpd.sched.schedt)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gmpd.errors import ProtocolError
from gmpd.protocol import Define, Outcome, Submit
from gmpd.sched.instructions import (
    CancelAt,
    DefineAt,
    GrantRoom,
    Instruction,
    LeaseJobs,
    NotifyNotCancelled,
    NotifyRunning,
    PullAt,
    Retire,
    Revoke,
    SendItems,
    SendOutcomes,
    UndefineAt,
)
from gmpd.sched.per_function import LARGE_BYTES
from gmpd.sched.records import READ_BYTES, Session
from gmpd.sched.states import JobState
from gmpd.submit.core import ACK_BYTES
from tests.desk import MS, Desk, handed, only, payloads


@pytest.fixture
def desks() -> Iterator[Callable[..., Desk]]:
    """Desks whose ledger still holds in the end."""
    made: list[Desk] = []

    def make(**policy: Any) -> Desk:
        made.append(Desk(**policy))
        return made[-1]

    yield make
    for each in made:
        each.take()
        each.sched.validate()


@pytest.fixture
def desk(desks: Callable[..., Desk]) -> Desk:
    return desks()


# ------------------------------------------------------------------------------ there and back


def test_a_job_for_an_idle_p_is_handed_out_at_once(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    (seq,) = desk.submit(client)
    teach, lease = desk.take()
    assert isinstance(teach, DefineAt)
    assert teach.fn.name == "m:f"
    assert isinstance(lease, LeaseJobs)
    assert (lease.p, lease.payloads) == (p, [b"0"])
    desk.finish(p, payload=b"42")
    (sent,) = desk.take()
    assert isinstance(sent, SendOutcomes)
    assert desk.outcomes[client.sid, seq] == [(Outcome.OK, b"42", {})]
    assert desk.sched.unfinished == 0


def test_jobs_wait_for_the_first_p(desk: Desk) -> None:
    client = desk.client()
    desk.submit(client)
    assert desk.take() == []
    desk.ready(0)
    assert handed(desk.take()) == [(0, 1)]


def test_a_worker_is_taught_a_function_once_per_epoch(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    for expected in (1, 0):
        desk.submit(client)
        assert len(only(desk.take(), DefineAt)) == expected
        desk.finish(p)
    desk.died(0)
    desk.ready(0, 2)
    desk.submit(client)
    assert len(only(desk.take(), DefineAt)) == 1


def test_the_p_that_became_idle_last_gets_the_work(desk: Desk) -> None:
    ps = [desk.ready(i) for i in range(3)]
    client = desk.client()
    desk.submit(client, 3)
    desk.take()
    for i in (2, 0, 1):
        desk.finish(ps[i])
    desk.take()
    desk.submit(client)
    assert [p for p, _ in handed(desk.take())] == [1]


def test_a_p_without_started_jobs_comes_before_one_with(desk: Desk) -> None:
    one, two = desk.ready(1), desk.ready(2)
    client = desk.client()
    desk.submit(client, 2)
    desk.take()
    desk.finish(one)
    desk.start(two)  # became idle last
    desk.take()
    desk.submit(client)
    assert [p for p, _ in handed(desk.take())] == [1]


def test_who_is_told_that_a_job_runs(desk: Desk) -> None:
    p, one, two = desk.ready(0), desk.client("one"), desk.client("two")
    desk.teach(p, one, "m:f", 0.01)
    desk.submit(one, 2)
    desk.submit(two, 1)
    desk.take()
    desk.start(p)
    told = {each.session.name: each.seqs for each in only(desk.take(), NotifyRunning)}
    assert told == {"one": [1, 2], "two": [0]}


# -------------------------------------------------------------------------------------- credit


def test_an_unknown_function_goes_out_one_at_a_time(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 100)
    assert handed(desk.take()) == [(0, 1)]
    assert desk.take() == []
    desk.finish(p)
    assert handed(desk.take())[0][1] > 1


@pytest.mark.parametrize(("occupied_ms", "held"), [(0.5, 4), (1, 2), (2, 1), (50, 1), (0.1, 20)])
def test_a_p_holds_two_milliseconds_of_fresh_work(
    desk: Desk, occupied_ms: float, held: int
) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", occupied_ms)
    desk.submit(client, held + 3)
    desk.take()
    assert len(p.fresh) == held


def test_fresh_work_is_bounded_in_number(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 0)
    desk.submit(client, 1000)
    desk.take()
    assert len(p.fresh) == 256


def test_a_p_that_has_work_gets_more_of_it_in_one_message(desk: Desk) -> None:
    """Quick jobs, which end in small messages: not as many leases follow each of them at once."""
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "q", 0.001)
    desk.submit(client, 100, fn="q")
    assert handed(desk.take()) == [(0, 100)]
    desk.submit(client, 50, fn="q")
    for left in (90, 80, 70):
        desk.finish(p, list(p.fresh)[:10], occupied_ms=0.001)
        assert not handed(desk.take())
        assert len(p.fresh) == left
    desk.finish(p, list(p.fresh)[:10], occupied_ms=0.001)
    assert handed(desk.take()) == [(0, 50)]


def test_credit_is_refilled_as_jobs_start(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 1)
    desk.submit(client, 10)
    desk.take()
    desk.start(p)
    assert sum(n for _, n in handed(desk.take())) == 2
    assert (len(p.started), len(p.fresh)) == (2, 2)


def test_what_a_p_has_set_aside_counts_only_against_its_like(desk: Desk) -> None:
    """A hog's like waits in its worker beside the hog, which begins short jobs meanwhile."""
    p, hogs, other = desk.ready(0), desk.client("hogs"), desk.client("other")
    desk.teach(p, hogs, "m:hog", 2_000)
    desk.teach(p, other, "m:short", 0.5)
    desk.submit(hogs, 10, "m:hog")
    desk.take()
    desk.start(p)
    desk.take()
    assert (len(p.started), len(p.fresh)) == (1, 1)
    desk.submit(other, 9, "m:short")
    assert handed(desk.take()) == [], "its worker may be about to begin the second"
    desk.set_aside(p, list(p.fresh), 1)
    assert sum(n for _, n in handed(desk.take())) == 4, "past the head of the other session"
    assert [job.fn.name for job in p.fresh.values()] == ["m:hog", *["m:short"] * 4]
    desk.start(p, list(p.fresh)[1:])
    desk.take()
    assert [job.fn.name for job in p.fresh.values()] == ["m:hog", *["m:short"] * 4]
    desk.start(p, list(p.fresh))
    desk.take()
    assert [job.fn.name for job in p.fresh.values()].count("m:hog") == 1, "the next of its like"


def test_a_thief_without_work_takes_what_is_set_aside_first(desk: Desk) -> None:
    one, client = desk.ready(0), desk.client()
    desk.teach(one, client, "m:f", 0.5)
    desk.submit(client, 4)
    desk.take()
    *_, last = one.fresh
    desk.set_aside(one, [last], 1)
    desk.ready(1)
    (revoke,) = only(desk.take(), Revoke)
    assert revoke.tokens[0] == last


def test_what_is_set_aside_goes_to_no_p_that_runs_something_long(desk: Desk) -> None:
    """It might set it aside, too, and the next thief would carry it back."""
    one, client = desk.ready(0), desk.client()
    desk.teach(one, client, "m:f", 0.5)
    desk.submit(client, 1)
    desk.take()
    desk.start(one)
    two = desk.ready(1)
    desk.submit(client, 1)
    desk.take()
    desk.start(two)
    desk.drain_p(1)
    desk.submit(client, 2)
    desk.take()
    assert len(one.fresh) == 2
    two.draining = False
    desk.set_aside(one, list(one.fresh), 1)
    desk.sched._ps.rest(two)
    assert only(desk.take(), Revoke) == []
    one.aside.clear()
    assert len(only(desk.take(), Revoke)) == 1


def test_started_jobs_are_bounded(desks: Callable[..., Desk]) -> None:
    desk = desks(started_max=3)
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 5)
    for _ in range(5):
        desk.take()
        desk.start(p)
    assert (len(p.started), len(p.fresh), len(desk.sched.queue)) == (3, 0, 2)


@pytest.mark.parametrize("most", [1, 2, 7])
def test_a_p_never_holds_more_jobs_than_may_be_started_on_it(
    desks: Callable[..., Desk], most: int
) -> None:
    """Not even quick ones, of which credit would allow hundreds: each may turn out to be long."""
    desk = desks(started_max=most)
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 0)
    desk.submit(client, 50)
    for _ in range(20):
        desk.take()
        assert len(p.started) + len(p.fresh) == most
        desk.start(p, list(p.fresh)[:1])
        assert len(p.started) + len(p.fresh) <= most
        desk.finish(p, [next(iter(p.started))])


def test_short_work_is_shared_among_all_ps(desk: Desk) -> None:
    one, client = desk.ready(1), desk.client()
    desk.teach(one, client, "m:f", 0)
    two = desk.ready(2)
    desk.submit(client, 10)
    desk.take()
    assert len(one.fresh) + len(two.fresh) == 10
    assert min(len(one.fresh), len(two.fresh)) >= 4


def test_an_average_follows_what_a_function_takes(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 8)
    fn = desk.sched.functions.all()[0]
    assert fn.est_ns == 8 * MS
    desk.teach(p, client, "m:f", 0)
    assert fn.est_ns == 7 * MS


# -------------------------------------------------------------------------- order and fairness


def test_a_client_with_many_jobs_does_not_delay_anothers_one(desk: Desk) -> None:
    p, greedy, modest = desk.ready(0), desk.client("greedy"), desk.client("modest")
    desk.submit(greedy, 1000)
    (seq,) = desk.submit(modest)
    desk.serve(p, 3, occupied_ms=2)
    assert desk.ended(modest, seq) is Outcome.OK


def test_a_higher_priority_goes_first(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 1)
    desk.submit(client, 1, priority=-1)
    desk.submit(client, 1, priority=5)
    order = []
    for _ in range(3):
        order += payloads(desk.take())
        desk.finish(p, occupied_ms=2)
    assert order == [b"2", b"0", b"1"]


def test_a_delayed_job_waits_for_its_time(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 1, delay=0.5)
    assert desk.take() == []
    assert desk.sched.next_deadline() == desk.now + 500 * MS
    assert handed(desk.take(after_ms=499)) == []
    assert handed(desk.take(after_ms=1)) == [(0, 1)]
    desk.end(p)
    assert desk.sched.next_deadline() is None


def test_nothing_is_waited_for_once_no_job_is_left(desk: Desk) -> None:
    """The time of a delayed job that was cancelled wakes the policy no more."""
    desk.ready(0)
    client = desk.client()
    (seq,) = desk.submit(client, 1, delay=5)
    desk.take()
    desk.cancel(client, [seq])
    desk.take()
    assert desk.sched.next_deadline() is None
    desk.submit(client, 1)
    assert handed(desk.take(after_ms=10_000)) == [(0, 1)]


# ------------------------------------------------------------------------------------- refusals


def refused(desk: Desk, session: Session, seqs: list[int], reason: str) -> dict[str, Any]:
    desk.take()
    assert {desk.ended(session, seq) for seq in seqs} == {Outcome.REJECTED}
    details = desk.details(session, seqs[0])
    assert details["reason"] == reason
    assert desk.sched.counters.rejected[reason] == len(seqs)
    assert details["text"]
    return details


def test_a_full_window_refuses_all_of_a_batch(desks: Callable[..., Desk]) -> None:
    desk = desks(window=10)
    client = desk.client()
    desk.submit(client, 8)
    seqs = desk.submit(client, 3)
    assert refused(desk, client, seqs, "window")["room"] == 2
    assert desk.sched.unfinished == 8


def test_the_window_opens_with_acknowledgements_only(desks: Callable[..., Desk]) -> None:
    desk = desks(window=2)
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 2)
    desk.serve(p, 2)
    assert client.owed == 2
    desk.ack(client, 2)
    (seq,) = desk.submit(client)
    desk.take()
    assert desk.ended(client, seq) is None


def test_a_job_that_no_queue_holds_is_refused_for_good(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_bytes=0)
    client = desk.client()
    refused(desk, client, desk.submit(client, 1), "too_large")


def test_a_function_can_be_forgotten_while_its_jobs_go_on(desk: Desk) -> None:
    client = desk.client()
    (seq,) = desk.submit(client, 1, "lambda", kind="pickle")
    desk.undefine(client, [0])
    p = desk.ready(0)
    desk.take()
    desk.finish(p)
    instructions = desk.take()
    assert desk.ended(client, seq) is Outcome.OK
    assert desk.sched.functions.all() == [], "and is then forgotten everywhere"
    assert only(desk.log + instructions, UndefineAt)
    with pytest.raises(ProtocolError, match="never defined"):
        desk.undefine(client, [0])


def test_a_session_that_names_functions_without_end_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmpd.sched.functions.FUNCTIONS_MAX", 3)
    client = desk.client()
    for i in range(3):
        desk.defined(client, Define(i, "pickle", "f", b"%d" % i), b"%d" % i)
    with pytest.raises(ProtocolError, match="3 already, and must Undefine"):
        desk.defined(client, Define(9, "pickle", "f", b"9"), b"9")
    desk.defined(client, Define(2, "pickle", "f", b"new"), b"new")
    desk.undefine(client, [0])
    desk.defined(client, Define(9, "pickle", "f", b"9"), b"9")
    assert len(desk.sched.functions) == 3


def test_a_full_queue_refuses(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_jobs=5)
    one, two = desk.client("one"), desk.client("two")
    desk.submit(one, 4)
    details = refused(desk, two, desk.submit(two, 2), "queue_jobs")
    assert details["room"] == 1
    assert details["retry_after"] > 0


def told(instructions: list[Instruction]) -> list[tuple[str, int]]:
    return [(it.session.name, it.jobs) for it in instructions if isinstance(it, GrantRoom)]


def test_who_waits_is_told_of_room_in_turns(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_jobs=2)
    p = desk.ready(0)
    first, one, two = (
        desk.client("first"),
        desk.client("1", waits=True),
        desk.client("2", waits=True),
    )
    desk.submit(first, 2)
    assert refused(desk, one, desk.submit(one, 3), "queue_jobs")["told"] is True
    desk.submit(two, 1)
    assert told(desk.take()) == []
    order = []
    for _ in range(3):
        desk.finish(p, [next(iter({**p.started, **p.fresh}))])
        rooms = told(desk.take())
        order += rooms
        for name, jobs in rooms:
            desk.submit({"1": one, "2": two}[name], jobs)
    assert order == [("1", 1), ("2", 1), ("1", 1)], "each its turn"
    assert desk.sched.counters.rejected["queue_jobs"] == 4, "none was refused twice"


def test_room_that_somebody_was_told_of_is_kept_for_a_while(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_jobs=1)
    p = desk.ready(0)
    slow, quick = desk.client("slow", waits=True), desk.client("quick", waits=True)
    desk.submit(slow)
    desk.submit(slow, 2)
    desk.take()
    desk.finish(p)
    assert told(desk.take()) == [("slow", 1)]
    desk.submit(quick, 1)
    assert told(desk.take()) == [], "not for a newcomer"
    assert desk.sched.next_deadline() is not None
    assert told(desk.take(after_ms=200)) == [("quick", 1)]
    desk.submit(quick, 1)
    desk.take()
    assert desk.sched.unfinished == 1


def test_who_is_told_and_does_not_come_costs_the_others_one_wait(
    desks: Callable[..., Desk],
) -> None:
    """A client that is stopped, in a line with one that is not, as many jobs as it may want."""
    desk = desks(queue_jobs=2)
    p = desk.ready(0)
    stopped, alive = desk.client("stopped", waits=True), desk.client("alive", waits=True)
    desk.submit(alive, 2)
    desk.submit(stopped, 1000)
    desk.submit(alive, 5)
    desk.take()
    desk.finish(p)
    assert told(desk.take()) == [("stopped", 1)]
    desk.finish(p, [next(iter({**p.started, **p.fresh}))])
    assert told(desk.take(after_ms=90)) == [("alive", 1)]
    desk.submit(alive)
    assert told(desk.take(after_ms=20)) == [("alive", 1)], "what was kept is free again"
    desk.submit(alive)
    for left in (2, 1, 0):
        desk.take()
        desk.finish(p, [next(iter({**p.started, **p.fresh}))])
        assert told(desk.take()) == [("alive", 1)], f"nothing is kept, {left} wait"
        desk.submit(alive)


def test_who_comes_late_is_told_again(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_jobs=1)
    p = desk.ready(0)
    first, late = desk.client("first"), desk.client("late", waits=True)
    desk.submit(first)
    desk.submit(late, 3)
    desk.take()
    desk.finish(p)
    assert told(desk.take()) == [("late", 1)]
    assert told(desk.take(after_ms=200)) == []
    desk.submit(late)  # it was stopped for a moment, and there is still room
    desk.take()
    desk.finish(p)
    assert told(desk.take()) == [("late", 1)]
    assert told(desk.take(after_ms=200)) == []
    desk.leave(late)
    desk.take()
    assert not desk.sched._rooms.is_used, "it left, and is forgotten"


def test_nobody_waits_for_a_client_that_left_or_a_daemon_that_drains(
    desks: Callable[..., Desk],
) -> None:
    desk = desks(queue_jobs=1)
    p = desk.ready(0)
    first, left, last = desk.client("1"), desk.client("2", waits=True), desk.client("3", waits=True)
    desk.submit(first)
    desk.submit(left)
    desk.submit(last, 5)
    desk.take()
    desk.leave(left)
    desk.finish(p)
    assert told(desk.take()) == [("3", 1)]
    desk.drain()
    assert told(desk.take()) == [("3", 4)], "they come, and learn that it takes no more"


def test_who_waits_for_memory_is_told_of_as_many_as_fit(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_bytes=6)
    p = desk.ready(0)
    client = desk.client("c", waits=True)
    desk.submit(client, 3)
    refused(desk, client, desk.submit(client, 3), "queue_bytes")
    desk.finish(p, payload=b"")
    assert told(desk.take()) == [("c", 1)]
    desk.finish(p, payload=b"")
    assert told(desk.take()) == [("c", 2)]


def test_full_memory_refuses(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_bytes=3)
    client = desk.client()
    desk.submit(client, 3)
    refused(desk, client, desk.submit(client, 1), "queue_bytes")
    assert desk.sched.nbytes == 3


def test_a_draining_daemon_refuses(desk: Desk) -> None:
    client = desk.client()
    (before,) = desk.submit(client)
    desk.drain()
    refused(desk, client, desk.submit(client, 2), "draining")
    p = desk.ready(0)
    desk.take()
    desk.end(p)
    assert desk.ended(client, before) is Outcome.OK


def test_what_no_client_may_send_changes_nothing(desk: Desk) -> None:
    client = desk.client()
    desk.submit(client, 2)
    for message in (Submit(99, 5, None, [b""], None), Submit(0, 1, None, [b""], None)):
        with pytest.raises(ProtocolError, match=r"function 99|repeats a seq"):
            desk.submitted(client, message)
    assert desk.sched.unfinished == 2


# ------------------------------------------------------------------------------------- cancels


def test_cancel_of_a_queued_and_of_a_delayed_job_ends_it_at_once(desk: Desk) -> None:
    client = desk.client()
    seqs = [*desk.submit(client, 3), *desk.submit(client, 1, delay=10)]
    desk.cancel(client, [seqs[1], seqs[3]])
    desk.take()
    assert [desk.ended(client, seq) for seq in seqs] == [
        None,
        Outcome.CANCELLED,
        None,
        Outcome.CANCELLED,
    ]
    p = desk.ready(0)
    desk.take(after_ms=20_000)
    desk.finish(p)
    assert payloads(desk.log) == [b"0"]


def test_cancel_of_the_same_job_twice_in_one_message(desk: Desk) -> None:
    client = desk.client()
    (seq,) = desk.submit(client)
    desk.cancel(client, [seq, seq, 12345])
    desk.take()
    assert desk.ended(client, seq) is Outcome.CANCELLED


def test_cancel_of_a_started_job_asks_its_worker(desk: Desk) -> None:
    p, client, seq = desk.begun()
    desk.cancel(client, [seq])
    assert CancelAt(p, [1]) in desk.take()
    assert desk.ended(client, seq) is None
    desk.end(p, [1], Outcome.CANCELLED)
    assert desk.ended(client, seq) is Outcome.CANCELLED


def test_a_cancel_that_came_too_late_is_told_and_the_job_goes_on(desk: Desk) -> None:
    p, client, seq = desk.begun()
    desk.cancel(client, [seq])
    desk.not_cancelled(p, [1, 99])
    assert NotifyNotCancelled(client, [seq]) in desk.take()
    desk.end(p)
    assert desk.ended(client, seq) is Outcome.OK
    desk.cancel(client, [seq])  # it is over: no answer but its outcome
    assert desk.take() == []


def test_a_cancelled_job_that_is_given_back_is_not_handed_out_again(desk: Desk) -> None:
    p, client, seq = desk.leased()
    desk.cancel(client, [seq])
    (revoke,) = only(desk.take(), Revoke)
    assert (revoke.p, revoke.tokens, revoke.thief) == (p, [1], None)
    desk.revoked(revoke, [1])
    assert handed(desk.take()) == []
    assert desk.ended(client, seq) is Outcome.CANCELLED


def test_cancelled_delayed_jobs_leave_nothing_behind(desk: Desk) -> None:
    client = desk.client()
    desk.submit(client, 1, delay=1000)
    for _ in range(2000):
        desk.cancel(client, desk.submit(client, 1, delay=30_000))
    assert len(desk.sched.delays._heap) < 200
    assert desk.sched.unfinished == 1
    assert desk.sched.next_deadline() == desk.now + 1_000_000 * MS


# ------------------------------------------------------------------------------- old messages


def test_messages_of_an_old_epoch_are_dropped_and_counted(desk: Desk) -> None:
    p, client, seq = desk.leased()
    desk.died(0)
    desk.ready(0, 2)
    desk.take()
    (token,) = p.fresh
    desk.finish(p, [token], epoch=1)
    desk.start(p, [token], 1)
    desk.items(p, token, [b"i"], 1)
    desk.not_cancelled(p, [token], 1)
    assert desk.take() == []
    assert desk.sched.counters.dropped == {"stale_epoch": 4}
    assert list(p.fresh) == [token]
    desk.end(p)
    assert desk.ended(client, seq) is Outcome.OK


def test_unknown_tokens_are_dropped_and_counted(desk: Desk) -> None:
    p, client, seq = desk.leased()
    desk.finish(p, [1, 1, 7])
    desk.start(p, [1], 1)
    desk.items(p, 1, [b"i"], 1)
    desk.take()
    assert desk.sched.counters.dropped == {"unknown_token": 4}
    assert desk.ended(client, seq) is Outcome.OK


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_hello_of_a_dead_worker_is_refused(desk: Desk, epoch: int) -> None:
    desk.ready(0)
    desk.died(0)
    with pytest.raises(ProtocolError, match="epoch 1"):
        desk.ready(0, epoch)
    desk.submit(desk.client())
    assert handed(desk.take()) == []


def test_a_p_is_not_ready_anew_before_its_worker_is_confirmed_dead(desk: Desk) -> None:
    p = desk.ready(0)
    with pytest.raises(ProtocolError, match="ready already"):
        desk.ready(0, 2)
    assert p.epoch == 1


# --------------------------------------------------------------------------------------- deaths


def test_what_a_dead_worker_had_not_begun_moves_on(desk: Desk) -> None:
    one, client = desk.ready(1), desk.client()
    desk.teach(one, client, "m:f", 0.5)
    desk.submit(client, 4)
    desk.take()
    begun, claimed, *_ = one.fresh
    desk.start(one, [begun])
    desk.died(1, {claimed}, claimed)
    desk.ready(2)
    assert payloads(desk.take()) == [b"3", b"4"]
    assert desk.ended(client, 1) is Outcome.LOST
    assert desk.ended(client, 2) is Outcome.LOST
    assert not desk.details(client, 1)["blamed"]
    assert desk.details(client, 2)["blamed"]
    assert desk.details(client, 2)["signal"] == "SIGKILL"
    assert desk.details(client, 2)["p"] == 1


def test_who_was_running_is_lost_even_if_the_claims_do_not_say_so(desk: Desk) -> None:
    p, client, seq = desk.leased()
    (token,) = p.fresh
    desk.died(0, (), token)
    desk.take()
    assert desk.ended(client, seq) is Outcome.LOST


def test_lost_jobs_with_retries_run_again_in_their_order(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 0.1)
    desk.submit(client, 4, retries=1)
    desk.take()
    desk.start(p, list(p.fresh)[:2])
    desk.died(0)
    desk.ready(0, 2)
    assert payloads(desk.take()) == [b"1", b"2", b"3", b"4"]
    assert {job.attempt for job in p.fresh.values()} == {1, 2}
    desk.start(p)
    desk.died(0)
    desk.take()
    assert desk.ended(client, 1) is Outcome.LOST
    assert desk.sched.counters.retried["lost"] == 4


def test_a_job_that_kills_its_workers_is_poisoned(desk: Desk) -> None:
    client = desk.client()
    killer, neighbour = desk.submit(client, 2, retries=100)
    epochs = 0
    while desk.ended(client, killer) is None:
        epochs += 1
        p = desk.ready(0, epochs)
        while len(p.started) < 2:
            desk.take()
            desk.start(p)
        culprit = next(t for t, job in p.started.items() if job.seq == killer)
        desk.died(0, set(p.started), culprit)
        desk.take()
    assert epochs == 3
    assert desk.details(client, killer)["poisoned"]
    assert desk.ended(client, neighbour) is None


def test_a_stream_that_has_begun_is_not_repeated(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    first, second = desk.submit(client, 2, retries=5, stream=8)
    desk.take()
    desk.items(p, 1, [b"a", b"b"], 1)
    assert only(desk.take(), SendItems) == [SendItems(client, first, [b"a", b"b"], [(), ()])]
    desk.end(p, [1], Outcome.ERROR)
    assert desk.ended(client, first) is Outcome.ERROR
    desk.items(p, 2, [b"a"], 1)
    desk.start(p)
    desk.died(0)
    desk.take()
    assert desk.ended(client, second) is Outcome.LOST


def test_credit_of_a_stream_finds_the_hand_out(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    waiting = desk.submit(client, 2, stream=8)[1]
    desk.take()
    desk.pull(client, 0, 5)
    desk.pull(client, waiting, 5)
    desk.pull(client, 99, 5)
    assert only(desk.take(), PullAt) == [PullAt(p, 1, 5)]


# -------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.TIMEOUT])
def test_a_failed_job_is_tried_again_later_and_later(desk: Desk, outcome: Outcome) -> None:
    p, client, seq = desk.leased(retries=2, backoff=(0.1, 30, 2, 0))
    for wait_ms in (100, 200):
        desk.finish(p, outcome=outcome)
        assert handed(desk.take(after_ms=wait_ms - 1)) == []
        assert handed(desk.take(after_ms=1)) == [(0, 1)]
    desk.end(p, outcome=outcome, payload=b"why")
    ((ended, payload, details),) = desk.outcomes[client.sid, seq]
    assert (ended, payload, details["attempt"]) == (outcome, b"why", 3)
    assert desk.sched.counters.retried[outcome.name.lower()] == 2


def test_a_job_that_succeeds_at_last_has_one_outcome(desk: Desk) -> None:
    p, client, seq = desk.leased(retries=9)
    desk.finish(p, outcome=Outcome.ERROR)
    desk.take(after_ms=100)
    desk.end(p)
    assert desk.ended(client, seq) is Outcome.OK


def test_a_cancelled_job_is_not_tried_again(desk: Desk) -> None:
    p, client, seq = desk.leased(retries=9)
    desk.cancel(client, [seq])
    desk.end(p, outcome=Outcome.ERROR)
    assert desk.ended(client, seq) is Outcome.ERROR


# ------------------------------------------------------------------------------------- sessions


def test_a_client_that_leaves_takes_its_jobs_along(desk: Desk) -> None:
    p, client, other = desk.ready(0), desk.client("leaves"), desk.client("stays")
    desk.submit(client, 3, retries=5)
    desk.submit(client, 1, delay=5)
    desk.submit(other, 1)
    desk.take()
    desk.start(p)
    (token,) = p.started
    desk.take()
    desk.leave(client)
    desk.leave(client)
    assert CancelAt(p, [token]) in [
        CancelAt(each.p, [t]) for each in only(desk.take(), CancelAt) for t in each.tokens
    ]
    desk.finish(p, [token], Outcome.ERROR)
    assert not only(desk.take(after_ms=10_000), SendOutcomes)
    desk.end(p)
    desk.end(p)
    assert [sid for sid, _ in desk.outcomes] == [other.sid]
    assert (desk.sched.unfinished, desk.sched.nbytes) == (0, 0)


def test_a_function_by_value_is_forgotten_with_its_last_user_and_job(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 2, "m:<lambda>", kind="pickle")
    desk.take()
    desk.leave(client)
    assert not only(desk.take(), UndefineAt)
    desk.finish(p)
    (forget,) = only(desk.take(), UndefineAt)
    assert (forget.p, forget.fids) == (p, [1])
    assert not desk.sched.functions
    assert not p.defined


def test_a_function_that_is_replaced_serves_the_jobs_that_wait_for_it(desk: Desk) -> None:
    client = desk.client()
    desk.submit(client, 3, "m:old", kind="pickle")
    desk.defined(client, Define(0, "pickle", "m:new", b"new"), b"new")
    assert len(desk.sched.functions) == 2
    p = desk.ready(0)
    desk.serve(p, 3)
    assert {each.fn.name for each in only(desk.log, LeaseJobs)} == {"m:old"}
    assert len(only(desk.log, UndefineAt)) == 1
    assert [fn.name for fn in desk.sched.functions.all()] == ["m:new"]


def test_what_was_learned_of_a_named_function_outlives_its_client(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 1)
    desk.leave(client)
    desk.submit(desk.client(), 5)
    assert sum(n for _, n in handed(desk.take())) == 2


def test_named_functions_that_nobody_uses_are_bounded(desk: Desk) -> None:
    used = desk.client()
    desk.define(used, "m:used")
    for i in range(40):
        client = desk.client()
        for j in range(250):
            desk.define(client, f"m:f{i}_{j}")
        desk.leave(client)
    names = {fn.name for fn in desk.sched.functions.all()}
    assert len(names) <= 4100
    assert {"m:used", "m:f39_249"} <= names


def test_the_same_function_of_two_clients_is_one(desk: Desk) -> None:
    desk.define(desk.client(), "m:f")
    desk.define(desk.client(), "m:f")
    assert len(desk.sched.functions) == 1


# --------------------------------------------------------------------------------------- outbox


def test_outcomes_wait_while_too_many_bytes_are_on_their_way(desks: Callable[..., Desk]) -> None:
    desk = desks(outbox_bytes=10)
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 3)
    desk.serve(p, 3, payload=b"x" * 11)
    assert client.delivered == 1
    assert (client.unacked_bytes, desk.sched.nbytes) == (11, 22)
    desk.ack(client, 1)
    desk.take()
    assert client.delivered == 3
    assert (client.unacked_bytes, desk.sched.nbytes) == (22, 0)
    desk.ack(client, 2)  # half of a batch
    assert client.unacked_bytes == 22
    desk.ack(client, 3)
    assert (client.unacked_bytes, client.owed, len(client.batches)) == (0, 0, 0)


def test_a_client_that_leaves_what_it_has_to_confirm_does_not_read(
    desks: Callable[..., Desk],
) -> None:
    """A reader confirms as soon as it has more than a MiB; less may stay unconfirmed for ever."""
    assert READ_BYTES == ACK_BYTES
    desk = desks(outbox_bytes=10 * READ_BYTES)
    p, client = desk.ready(0), desk.client()
    desk.submit(client)
    desk.serve(p, 1, payload=b"x" * READ_BYTES)
    seen = [client.unread_since_ns]
    desk.now += 60_000 * MS
    desk.submit(client)
    desk.serve(p, 1, payload=b"x")
    seen.append(client.unread_since_ns)
    desk.ack(client, client.delivered)
    seen.append(client.unread_since_ns)
    assert seen[::2] == [None, None]
    assert (seen[1] or 0) > 60_000 * MS


def test_large_results_are_counted_of_jobs_alone(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    for nbytes in (LARGE_BYTES, LARGE_BYTES - 1):
        desk.submit(client)
        desk.serve(p, 1, payload=b"x" * nbytes)
    (row,) = desk.sched.counters.functions.shown()
    assert (row.large, row.large_bytes, row.largest) == (1, LARGE_BYTES, LARGE_BYTES)


def test_of_who_takes_no_results_no_job_is_begun(desks: Callable[..., Desk]) -> None:
    """Nor do its results, waiting, keep others out."""
    desk = desks(outbox_bytes=10, results_bytes=30, credit_max=1)
    p, client, other = desk.ready(0), desk.client(), desk.client()
    desk.submit(client, 9)
    desk.serve(p, 9, payload=b"x" * 11)
    assert desk.sched.full == [client]
    assert (client.delivered, len(client.outcomes.seqs), desk.sched.held_back) == (1, 2, 6)
    assert desk.sched.untaken == 33
    assert desk.sched.arguments == 6
    seqs = desk.submit(other, 50)
    desk.serve(p, 50, payload=b"")
    assert all(desk.ended(other, seq) is Outcome.OK for seq in seqs)
    desk.ack(client, 1)
    assert desk.sched.full, "22 of 30 bytes are too many yet"
    desk.take()
    desk.ack(client, client.delivered)
    assert desk.sched.full == []
    for _ in range(9):
        desk.serve(p, 1, payload=b"x" * 11)
        desk.ack(client, client.delivered)
    assert client.delivered == 9


def test_outcomes_of_megabytes_go_in_messages_of_megabytes(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client()
    desk.teach(p, client, "m:f", 0.01)
    seqs = desk.submit(client, 8)
    desk.take()
    for seq, token in zip(seqs, list(p.fresh), strict=True):
        outcome = Outcome.ERROR if seq == seqs[5] else Outcome.OK
        desk.finish(p, [token], outcome, payload=bytes(400_000))
    sizes = [len(each.outcomes.seqs) for each in only(desk.take(), SendOutcomes)]
    assert sizes == [2, 2, 2, 2]
    ok, error = Outcome.OK, Outcome.ERROR
    assert [desk.ended(client, seq) for seq in seqs] == [ok, ok, ok, ok, ok, error, ok, ok]


def test_a_turn_delivers_four_megabytes_and_begins_with_those_who_wait(desk: Desk) -> None:
    """However much one client gets, another's outcome waits for no more than that."""
    p, large, small = desk.ready(0), desk.client(), desk.client()
    desk.submit(large, 8, "m:large")
    while len(p.started) < 8:
        desk.take()
        desk.start(p)
    desk.finish(p, payload=bytes(900_000))
    assert [each.session for each in only(desk.take(), SendOutcomes)] == [large] * 5
    assert desk.sched.next_deadline() == 0
    (seq,) = desk.submit(small)
    desk.take()
    assert desk.sched.next_deadline() != 0
    assert large.delivered == 8
    desk.end(p, payload=b"r")
    assert desk.ended(small, seq) is Outcome.OK


def test_sessions_take_turns_when_much_is_delivered(desk: Desk) -> None:
    p, one, two = desk.ready(0), desk.client(), desk.client()
    for client in (one, two):
        desk.submit(client, 6, "m:large")
    while len(p.started) < 12:
        desk.take()
        desk.start(p)
    desk.finish(p, payload=bytes(900_000))
    first = [each.session for each in only(desk.take(), SendOutcomes)]
    assert first == [one, two, one, two, one]
    assert [each.session for each in only(desk.take(), SendOutcomes)] == [two, one, two, one, two]


def test_large_results_count_as_time(desk: Desk) -> None:
    """A P holds half a megabyte of them, which costs all processes two milliseconds together."""
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 1, "m:bytes")
    desk.take()
    desk.end(p, occupied_ms=0.01, payload=bytes(97_500))
    desk.submit(client, 100, "m:bytes")
    assert handed(desk.take()) == [(0, 5)]


def test_a_client_holds_as_many_bytes_of_arguments_as_it_leaves_free(
    desks: Callable[..., Desk],
) -> None:
    """So there is room for another, whatever the first ones do."""
    desk = desks(queue_bytes=90)
    held = []
    for name in "abcd":
        client = desk.client(name)
        while not client.outcomes.seqs:
            desk.submit(client, 1)
        held.append(client.nbytes)
    assert held[0] in (44, 45, 46)
    assert held[1] in (21, 22, 23)
    assert held[3] >= 5


def test_who_waits_for_its_own_bytes_keeps_nobody_waiting(desks: Callable[..., Desk]) -> None:
    desk = desks(queue_bytes=40)
    p = desk.ready(0)
    large, small = desk.client("large", waits=True), desk.client("small", waits=True)
    while not large.outcomes.seqs:
        desk.submit(large, 1)
    desk.submit(small, 6)
    desk.submit(small, 9)
    assert small.outcomes.seqs
    of_small = []
    for _ in range(40):
        for token, job in [*p.started.items(), *p.fresh.items()]:
            if job.session is small:
                desk.finish(p, [token], payload=b"")
            elif token in p.fresh:
                desk.start(p, [token])
        of_small += [name for name, _ in told(desk.take()) if name == "small"]
    assert of_small, "although the first in line has to wait"


@pytest.mark.parametrize("outcomes", [0, 3])
def test_an_impossible_ack_changes_nothing(desk: Desk, outcomes: int) -> None:
    p, client = desk.ready(0), desk.client()
    desk.submit(client, 2)
    desk.serve(p, 2)
    desk.ack(client, 1)
    with pytest.raises(ProtocolError, match="2 were sent"):
        desk.ack(client, outcomes)
    assert client.acked == 1


# --------------------------------------------------------------------------------- fewer Ps


def test_a_p_that_is_shrunk_away_gets_nothing_more_and_gives_back(desk: Desk) -> None:
    one, client = desk.ready(1), desk.client()
    desk.teach(one, client, "m:f", 1)
    desk.submit(client, 3)
    desk.take()
    begun, fresh = one.fresh
    desk.start(one, [begun])
    desk.take()
    desk.drain_p(1)
    asked = desk.take()
    assert only(asked, Retire) == [Retire(one)]
    (revoke,) = only(asked, Revoke)
    assert asked.index(revoke) < asked.index(Retire(one)), "or it would wait for what it lost"
    two = desk.ready(2)
    desk.revoked(revoke, revoke.tokens)
    assert {p for p, _ in handed(desk.take())} == {2}
    desk.remove_p(1)
    assert 1 in desk.sched.ps  # what it had started is not lost
    desk.end(one, [begun])
    assert not one.fresh
    desk.died(1)
    desk.remove_p(1)
    assert list(desk.sched.ps) == [2]
    assert fresh not in two.fresh or two.next_token > 1
    desk.end(two)
    assert [desk.ended(client, seq) for seq in (1, 2, 3)] == [Outcome.OK] * 3


def test_retiring_twice_is_asked_once(desk: Desk) -> None:
    desk.ready(1)
    desk.drain_p(1)
    desk.drain_p(1)
    assert len(only(desk.take(), Retire)) == 1


def test_the_state_of_a_job_says_where_it_is(desk: Desk) -> None:
    client = desk.client()
    desk.submit(client)
    job = client.jobs[0]
    assert job.state is JobState.QUEUED
    p = desk.ready(0, 3)
    desk.take()
    assert job.story() == "job c/0 m:f is LEASED, attempt 1, P0 epoch 3 token 1"
    desk.start(p)
    assert job.state.name == "STARTED"


def test_a_value_that_its_client_has_is_counted_and_not_sent(desk: Desk) -> None:
    p, client = desk.ready(0), desk.client(answers=True)
    (seq,) = desk.submit(client)
    (lease,) = only(desk.take(), LeaseJobs)
    assert lease.answers
    desk.finish(p, told=True)
    assert not only(desk.take(), SendOutcomes)
    assert desk.ended(client, seq) is None
    assert (client.owed, desk.sched.unfinished) == (0, 0)
    assert desk.sched.counters.finished == {"ok": 1}


@pytest.mark.parametrize("case", ["other client", "options", "many", "host"])
def test_a_value_comes_from_its_worker_only_where_that_is_simple(desk: Desk, case: str) -> None:
    desk.ready(0, host="h" if case == "host" else "")
    client = desk.client(answers=case != "other client")
    options: dict[str, Any] = {"retries": 1} if case == "options" else {}
    desk.submit(client, 5 if case == "many" else 1, **options)
    assert not any(lease.answers for lease in only(desk.take(), LeaseJobs))


def test_values_that_the_ledger_has_not_heard_of_leave_the_window_as_wide() -> None:
    desk = Desk(window=8)
    desk.ready(0)
    client = desk.client(answers=True)
    desk.submit(client, 4)
    desk.take()  # their worker has told them: the client counts none of them
    seqs = desk.submit(client, 8)
    desk.take()
    assert all(desk.ended(client, seq) is None for seq in seqs)
    (one,) = desk.submit(client)
    desk.take()
    assert desk.ended(client, one) is Outcome.REJECTED
