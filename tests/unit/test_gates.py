"""Limits by key in the policy: what passes, when a place is free again (gmpd.sched.gates)."""

from __future__ import annotations

from typing import Any

import pytest

from gmpd.protocol import Outcome
from gmpd.sched import gates
from gmpd.sched.gates import PASSES_MAX, Gate
from gmpd.sched.records import PRecord, Session
from gmpd.sched.states import JobState
from tests.desk import MS, Desk, handed, payloads

ONE = ("k", 1, 0, 0.0)
TWO = ("k", 2, 0, 0.0)
#: Two starts in a second.
RATE = ("k", 0, 2, 1.0)


@pytest.fixture
def client(desk: Desk) -> Session:
    return desk.client()


def states(client: Session) -> list[JobState]:
    return [job.state for job in client.jobs.values()]


def run_all(desk: Desk, p: PRecord, rounds: int = 20) -> int:
    """How many rounds it takes until nothing is unfinished."""
    for n in range(rounds):
        if not desk.sched.unfinished:
            return n
        desk.take()
        desk.finish(p)
    return rounds


def test_recalled_starts_count_before_those_that_are_known(desk: Desk) -> None:
    gates, limit = desk.sched.gates, ("k", 0, 3, 1.0)
    gates.set(limit, newest=True)
    gate = gates.by_key["k"]
    gate.count_start(desk.now)
    gates.recall(limit, [desk.now - 900 * MS, desk.now - 400 * MS])
    assert gate.counted(desk.now) == 3
    assert (gate.room(desk.now), gate.opens_ns()) == (0, desk.now + 100 * MS)
    assert [gate.counted(desk.now + ms * MS) for ms in (100, 600, 1000)] == [2, 1, 0]


def test_so_many_run_at_once_and_a_place_is_free_at_the_end(
    desk: Desk, p: PRecord, client: Session
) -> None:
    desk.teach(p, client, "m:f", 0.01)
    seqs = desk.submit(client, 5, limit=TWO)
    assert payloads(desk.take()) == [b"%d" % seq for seq in seqs[:2]]
    assert desk.sched.gates.waiting == 3
    desk.start(p)
    assert handed(desk.take()) == []
    assert payloads(desk.end(p, list(p.started)[:1])) == [b"%d" % seqs[2]]
    assert run_all(desk, p) < 20
    desk.take()
    assert [desk.ended(client, seq) for seq in seqs] == [Outcome.OK] * 5
    assert desk.sched.next_deadline() is None
    assert not desk.sched.gates.by_key, "a key without jobs is forgotten"


def test_jobs_behind_a_held_back_one_do_not_wait(desk: Desk, p: PRecord, client: Session) -> None:
    desk.teach(p, client, "m:f", 0.01)
    desk.submit(client, 3, limit=ONE)
    (free,) = desk.submit(client, 1)
    (other,) = desk.submit(client, 1, limit=("other", 1, 0, 0.0))
    assert {b"%d" % free, b"%d" % other} < set(payloads(desk.take()))
    assert len(p.fresh) == 3


def test_what_has_passed_does_not_queue_behind_what_has_no_limit(
    desk: Desk, client: Session
) -> None:
    """Else a place would be taken by a job that waits behind a million others."""
    desk.submit(client, 500)
    (seq,) = desk.submit(client, 1, limit=ONE)
    p = desk.ready(0)
    for _ in range(3):
        if b"%d" % seq in payloads(desk.take()):
            break
        desk.finish(p)
    else:
        pytest.fail("it waits behind the others")


def test_clients_take_turns_at_a_limit(desk: Desk, p: PRecord, client: Session) -> None:
    other = desk.client("other")
    desk.submit(client, 50, limit=ONE)
    (seq,) = desk.submit(other, 1, limit=ONE)
    for _ in range(3):
        desk.take()
        desk.finish(p)
    desk.take()
    assert desk.ended(other, seq) is Outcome.OK


def test_the_higher_priority_passes_first(desk: Desk, p: PRecord, client: Session) -> None:
    (running,) = desk.submit(client, 1, limit=ONE)
    desk.take()
    desk.submit(client, 2, limit=ONE)
    (urgent,) = desk.submit(client, 1, limit=ONE, priority=5)
    assert payloads(desk.end(p)) == [b"%d" % urgent]
    assert desk.ended(client, running) is Outcome.OK


def test_a_start_counts_for_its_interval(desk: Desk, p: PRecord, client: Session) -> None:
    seqs = desk.submit(client, 5, limit=RATE)
    desk.take()
    desk.finish(p)
    desk.take()
    desk.finish(p)
    desk.take()
    assert [desk.ended(client, seq) for seq in seqs[:3]] == [Outcome.OK, Outcome.OK, None]
    due = desk.sched.next_deadline()
    assert due is not None
    assert due - desk.now <= 1_000_000_000
    desk.take(999)
    assert not p.fresh
    assert len(payloads(desk.take(1))) >= 1


def test_a_start_counts_from_when_it_was_not_from_when_it_passed(
    desk: Desk, p: PRecord, client: Session
) -> None:
    desk.teach(p, client, "m:f", 0.01)
    desk.submit(client, 4, limit=RATE)
    assert len(payloads(desk.take())) == 2
    desk.take(5000)  # its worker does nothing
    desk.start(p)
    assert payloads(desk.take(999)) == []
    assert len(payloads(desk.take(1))) == 2


def test_what_never_began_does_not_count_as_a_start(
    desk: Desk, p: PRecord, client: Session
) -> None:
    desk.teach(p, client, "m:f", 0.01)
    first = desk.submit(client, 2, limit=RATE)
    desk.submit(client, 1, limit=RATE)
    desk.take()
    desk.drain_p(0)
    desk.died(0)
    desk.take()
    desk.cancel(client, first)
    desk.take()
    assert [desk.ended(client, seq) for seq in first] == [Outcome.CANCELLED] * 2
    desk.ready(1)
    assert len(payloads(desk.take())) == 1


@pytest.mark.parametrize("limit", [ONE, RATE])
def test_a_held_back_job_can_be_cancelled(
    desk: Desk, p: PRecord, client: Session, limit: Any
) -> None:
    seqs = desk.submit(client, 4, limit=limit)
    desk.take()
    desk.cancel(client, seqs[1:])
    desk.take()
    assert [desk.ended(client, seq) for seq in seqs[2:]] == [Outcome.CANCELLED] * 2
    desk.finish(p)
    desk.take(2000)
    assert desk.sched.gates.waiting == 0
    run_all(desk, p)
    desk.take(2000)
    assert not desk.sched.gates.by_key


def test_a_client_that_leaves_frees_its_places(desk: Desk, p: PRecord, client: Session) -> None:
    other = desk.client("other")
    desk.submit(client, 9, limit=ONE)
    (seq,) = desk.submit(other, 1, limit=ONE)
    desk.take()
    (token,) = desk.start(p)
    desk.leave(client)
    assert payloads(desk.take()) == [], "its frame has not ended"
    desk.finish(p, [token], Outcome.CANCELLED)
    assert payloads(desk.take()) == [b"%d" % seq]


def test_the_place_of_a_dead_worker_is_free_when_its_death_is_confirmed(
    desk: Desk, p: PRecord, client: Session
) -> None:
    desk.submit(client, 2, limit=ONE, retries=1)
    desk.take()
    (token,) = desk.start(p)
    desk.take()
    desk.died(0, [token], token)
    assert payloads(desk.take()) == []
    desk.ready(1)
    assert payloads(desk.take()) == [b"0"], "its next attempt is before the others"
    assert desk.sched.gates.by_key["k"].inside == 1


def test_the_place_of_a_frame_that_overruns_is_free_when_it_has_ended(
    desk: Desk, p: PRecord, client: Session
) -> None:
    first, second = desk.submit(client, 2, limit=ONE, timeout=1.0)
    desk.take()
    (token,) = desk.start(p)
    desk.take()
    desk.expired(p, [token])
    assert payloads(desk.take()) == []
    assert desk.ended(client, first) is Outcome.TIMEOUT, "the wait has ended"
    assert states(client) == [JobState.LIMITED]
    desk.finish(p, [token])
    assert payloads(desk.take()) == [b"%d" % second]


def test_another_attempt_counts_again(desk: Desk, p: PRecord, client: Session) -> None:
    (seq,) = desk.submit(client, 1, limit=("k", 0, 1, 60.0), retries=1)
    desk.take()
    desk.finish(p, outcome=Outcome.ERROR)
    desk.take()
    assert states(client) == [JobState.DELAYED]
    assert payloads(desk.take(1000)) == []
    assert states(client) == [JobState.LIMITED]
    desk.take(59_000)
    desk.finish(p)
    desk.take()
    assert desk.ended(client, seq) is Outcome.OK


def test_a_client_that_takes_no_results_keeps_no_place(desk: Desk) -> None:
    desk = Desk(results_bytes=100, outbox_bytes=50)
    client, other = desk.client("full"), desk.client("other")
    p = desk.ready(0)
    desk.submit(client, 1)
    desk.take()
    desk.drain_p(0)
    desk.submit(client, 1, limit=ONE)
    (seq,) = desk.submit(other, 1, limit=ONE)
    desk.take()
    assert states(client)[1] is JobState.QUEUED, "it has passed, and no P is free"
    desk.finish(p, payload=b"x" * 200)
    desk.take()
    assert client.full
    assert states(client) == [JobState.LIMITED]
    p = desk.ready(1)
    assert payloads(desk.take()) == [b"%d" % seq]
    desk.finish(p)
    assert payloads(desk.take()) == []
    desk.ack(client, client.delivered)
    assert payloads(desk.take()) == [b"1"]


def test_a_result_that_its_worker_keeps_keeps_no_place(
    desk: Desk, p: PRecord, client: Session
) -> None:
    desk.submit(client, 2, limit=ONE)
    desk.take()
    tokens = desk.start(p)
    desk.withheld(p, tokens)
    assert payloads(desk.take()) == [b"1"]


def test_the_newest_numbers_count(desk: Desk, p: PRecord, client: Session) -> None:
    desk.teach(p, client, "m:f", 0.01)
    desk.submit(client, 6, limit=ONE)
    desk.take()
    assert len(p.fresh) == 1
    desk.submit(client, 1, limit=("k", 4, 0, 0.0))
    desk.take()
    assert len(p.fresh) == 4
    desk.submit(client, 1, limit=TWO)
    desk.end(p, list(p.fresh)[:2])
    assert len(p.fresh) == 2, "more were inside than may be now"


def test_the_numbers_of_a_job_that_was_stored_are_no_news(
    desk: Desk, p: PRecord, client: Session
) -> None:
    stored = desk.client("durable jobs")
    stored.patient = True
    desk.submit(client, 3, limit=TWO)
    desk.submit(stored, 1, limit=("k", 9, 0, 0.0))
    assert desk.sched.gates.by_key["k"].at_once == 2
    desk.submit(stored, 1, limit=("new", 9, 0, 0.0))
    assert desk.sched.gates.by_key["new"].at_once == 9
    other = desk.client("another machine")
    other.owner = "key"
    desk.submit(other, 1, limit=("k", 50, 0, 0.0))
    assert desk.sched.gates.by_key["k"].at_once == 2


def test_no_more_keys_than_there_may_be(
    desk: Desk, client: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "GATES_MAX", 2)
    for key in ("a", "b", "c"):
        desk.submit(client, 1, limit=(key, 1, 0, 0.0))
    (again,) = desk.submit(client, 1, limit=("a", 1, 0, 0.0))
    desk.take()
    assert desk.ended(client, 2) is Outcome.REJECTED
    assert "keys of limit=" in desk.details(client, 2)["text"]
    assert desk.ended(client, again) is None


def test_jobs_that_no_worker_will_run_are_refused(desk: Desk, client: Session) -> None:
    seqs = desk.submit(client, 4, limit=ONE)
    desk.take()
    desk.stall("no workers")
    desk.take()
    assert [desk.ended(client, seq) for seq in seqs] == [Outcome.LOST] * 4
    desk.take()
    assert not desk.sched.gates.by_key


def test_a_million_waiting_jobs_cost_a_turn_no_more_than_a_few(
    desk: Desk, p: PRecord, client: Session
) -> None:
    """Counted in looks at jobs, as time says little on a busy machine."""
    desk.teach(p, client, "m:f", 0.01)
    for _ in range(5):
        desk.submit(client, 4000, limit=TWO)
    desk.take()
    queue = desk.sched.gates.by_key["k"].queue
    popped: list[int] = []
    pop_turn = type(queue).pop_turn

    class Counting(type(queue)):  # type: ignore[misc]
        __slots__ = ()

        def pop_turn(self, turn: Any, limit: int) -> Any:
            jobs = pop_turn(self, turn, limit)
            popped.append(len(jobs))
            return jobs

        def __iter__(self) -> Any:
            pytest.fail("it looks at all of them")

    queue.__class__ = Counting
    desk.finish(p)
    desk.sched.validate = lambda: None  # type: ignore[method-assign]
    desk.take()
    assert popped == [2]


def test_what_passes_in_one_turn_is_bounded(desk: Desk, client: Session) -> None:
    desk.submit(client, 3000, limit=("k", 100_000, 0, 0.0))
    desk.take()
    assert len(desk.sched.queue) == PASSES_MAX
    assert desk.sched.next_deadline() == 0, "the rest passes in the next turn"
    desk.take()
    desk.take()
    assert len(desk.sched.queue) == 3000


def test_isolated_jobs_have_limits_too(desk: Desk) -> None:
    desk = Desk(isolated=4)
    client = desk.client()
    desk.submit(client, 3, limit=TWO, isolate=True)
    desk.take()
    assert states(client) == [JobState.QUEUED, JobState.QUEUED, JobState.LIMITED]
    assert len(desk.sched.isolated.queue) == 2


def test_many_starts_are_remembered_in_little_memory() -> None:
    gate = Gate(("k", 0, 100_000, 1.0))
    for n in range(50_000):
        gate.count_start(n * 10_000)
    assert gate.recent == 50_000
    assert len(gate.starts) <= 2 * gates.STARTS_EXACT
    assert gate.room(1_000_000_000) <= 50_001, "none is forgotten before its time"
    assert gate.room(1_500_000_000) == 100_000 or gate.at_once == 0
