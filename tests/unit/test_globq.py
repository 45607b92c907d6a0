"""The global run queue: order, fairness, and taking out of the middle (gmpd.sched.globq)."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gmpd.protocol import options as wire_options
from gmpd.sched.globq import GlobalQueue
from gmpd.sched.records import Function, Job, Session
from gmpd.sched.states import JobState

F = Function(1, ("name", "m:f", b""), b"")
G = Function(2, ("name", "m:g", b""), b"")
CLIENTS = [Session(sid, None, f"c{sid}") for sid in range(3)]


def make(
    session: Session, seq: int, fn: Function = F, options: dict[str, Any] | None = None
) -> Job:
    return Job(session, seq, fn, wire_options(options), b"", (), 0, JobState.QUEUED, 0)


def jobs(session: Session, n: int, fn: Function = F, **options: Any) -> list[Job]:
    return [make(session, seq, fn, options or None) for seq in range(n)]


def drain(queue: GlobalQueue, limit: int = 100) -> list[list[tuple[int, int]]]:
    runs = []
    while queue:
        runs.append([(job.session.sid, job.seq) for job in queue.pop_run(limit)])
    assert queue.head() is None
    return runs


def test_one_session_is_served_in_order_and_in_runs() -> None:
    queue = GlobalQueue()
    queue.put(0, jobs(CLIENTS[0], 5))
    assert len(queue) == 5
    assert drain(queue, 2) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def test_a_run_is_alike_in_function_and_options() -> None:
    queue = GlobalQueue()
    a = CLIENTS[0]
    mixed = [make(a, 0), make(a, 1, options={"retries": 1}), make(a, 2, options={"retries": 1})]
    queue.put(0, [*mixed, make(a, 3, G), make(a, 4, G)])
    assert drain(queue) == [[(0, 0)], [(0, 1), (0, 2)], [(0, 3), (0, 4)]]


def test_sessions_take_turns() -> None:
    queue = GlobalQueue()
    for client, n in zip(CLIENTS, (4, 2, 1), strict=True):
        queue.put(0, jobs(client, n))
    served = [sid for run in drain(queue, 3) for sid, _ in run]
    assert served == [0, 1, 2, 0, 1, 0, 0]


def test_sessions_share_what_one_message_takes() -> None:
    """A message for each job would cost the coordinator four times as much."""
    queue = GlobalQueue()
    for client, n in zip(CLIENTS, (10, 6, 1), strict=True):
        queue.put(0, jobs(client, n))
    runs = [(run[0][0], len(run)) for run in drain(queue, 9)]
    assert runs == [(0, 3), (1, 3), (2, 1), (0, 4), (1, 3), (0, 3)]


def test_the_head_is_what_is_given_next() -> None:
    queue = GlobalQueue()
    for client in CLIENTS:
        queue.put(0, jobs(client, 3))
        queue.put(1, jobs(client, 1))
    while queue:
        head = queue.head()
        assert queue.pop_run(1) == [head]


def test_a_higher_priority_goes_first_whoever_asks() -> None:
    queue = GlobalQueue()
    queue.put(0, jobs(CLIENTS[0], 2))
    queue.put(5, jobs(CLIENTS[1], 1, priority=5))
    queue.put(-5, jobs(CLIENTS[2], 1, priority=-5))
    assert drain(queue) == [[(1, 0)], [(0, 0), (0, 1)], [(2, 0)]]


def test_what_is_put_back_comes_first_in_its_order() -> None:
    queue = GlobalQueue()
    waiting = jobs(CLIENTS[0], 4)
    queue.put(0, waiting)
    back = queue.pop_run(2)
    queue.put_back(back)
    assert [job.seq for job in queue] == [0, 1, 2, 3]
    assert len(queue) == 4


def test_what_is_put_back_keeps_its_priority() -> None:
    queue = GlobalQueue()
    queue.put(0, jobs(CLIENTS[0], 1))
    queue.put_back([make(CLIENTS[1], 9, options={"priority": 3})])
    assert drain(queue) == [[(1, 9)], [(0, 0)]]


def test_jobs_are_taken_out_of_the_middle() -> None:
    queue = GlobalQueue()
    low, high = jobs(CLIENTS[0], 5), jobs(CLIENTS[1], 2, priority=2)
    queue.put(0, low)
    queue.put(2, high)
    queue.remove([low[1], low[3], *high])
    queue.remove([])
    assert len(queue) == 3
    assert drain(queue) == [[(0, 0), (0, 2), (0, 4)]]


def test_a_session_that_leaves_takes_its_jobs_of_every_priority() -> None:
    queue = GlobalQueue()
    mine = [*jobs(CLIENTS[0], 2), *jobs(CLIENTS[0], 1, priority=4)]
    queue.put(0, mine[:2])
    queue.put(4, mine[2:])
    queue.put(0, jobs(CLIENTS[1], 1))
    assert {id(job) for job in queue.drop_session(0)} == {id(job) for job in mine}
    assert queue.drop_session(0) == []
    assert drain(queue) == [[(1, 0)]]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "pop", "back", "remove", "drop"]),
        st.integers(0, 2),
        st.integers(-1, 1),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(STEPS)
def test_nothing_is_lost_or_doubled(steps: list[tuple[str, int, int, int]]) -> None:
    """Against a plain model: per session and priority, the same order."""
    queue, seq, popped = GlobalQueue(), 0, list[Job]()
    model: dict[tuple[int, int], deque[Job]] = {}
    for step, sid, priority, n in steps:
        key = sid, priority
        if step == "put":
            new = [make(CLIENTS[sid], seq + i, F, {"priority": priority}) for i in range(n)]
            seq += n
            queue.put(priority, new)
            model.setdefault(key, deque()).extend(new)
        elif step == "pop" and queue:
            popped = queue.pop_run(n)
            first = popped[0]
            own = model[first.session.sid, first.option("priority", 0)]
            assert popped == [own.popleft() for _ in popped]
            assert first.option("priority", 0) == max(
                p for (_, p), left in model.items() if left or p == first.option("priority", 0)
            )
        elif step == "back" and popped:
            queue.put_back(popped)
            first = popped[0]
            model[first.session.sid, first.option("priority", 0)].extendleft(reversed(popped))
            popped = []
        elif step == "remove" and model.get(key):
            gone = list(model[key])[::2]
            queue.remove(gone)
            model[key] = deque(job for job in model[key] if job not in gone)
        elif step == "drop":
            queue.drop_session(sid)
            model = {each: left for each, left in model.items() if each[0] != sid}
            popped = [job for job in popped if job.session.sid != sid]
        assert len(queue) == sum(map(len, model.values())) == len(list(queue))


def test_who_is_held_back_keeps_its_places() -> None:
    queue = GlobalQueue()
    mine, high, other = jobs(CLIENTS[0], 4), jobs(CLIENTS[0], 2, priority=3), jobs(CLIENTS[1], 2)
    queue.put(0, mine)
    queue.put(3, high)
    queue.put(0, other)
    queue.hold(0)
    queue.hold(0)
    assert (queue.length, queue.held_back, len(list(queue))) == (2, 6, 8)
    queue.put(0, [make(CLIENTS[0], 9)])
    queue.remove([mine[2], high[0]])
    assert drain(queue) == [[(1, 0), (1, 1)]]
    assert not queue
    queue.put_back([make(CLIENTS[0], 99)])
    queue.release(0)
    assert drain(queue) == [[(0, 1)], [(0, 99), (0, 0), (0, 1), (0, 3), (0, 9)]]
    assert queue.held_back == 0


def test_a_session_that_is_held_back_may_leave() -> None:
    queue = GlobalQueue()
    queue.hold(0)
    queue.put(0, jobs(CLIENTS[0], 3))
    assert len(queue.drop_session(0)) == 3
    queue.put(0, jobs(CLIENTS[0], 1))
    assert (queue.length, queue.held_back) == (1, 0)
    queue.remove(list(queue))
    queue.hold(0)
    queue.release(0)
    assert (queue.length, list(queue)) == (0, [])
