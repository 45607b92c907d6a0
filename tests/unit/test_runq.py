"""The run queue keeps Go's rules (``reference`` rows 1 to 9), on plain integers."""

from __future__ import annotations

import pytest

from gmpd.sched.runq import BATCH_MAX, GLOBAL_EVERY, RING, SCAN_MAX, RunQueue, half_up


def drain(queue: RunQueue) -> list[int]:
    order = []
    while (g := queue.get()) is not None:
        order.append(g)
    return order


def spawned(count: int, *, schedtick: int = 1) -> RunQueue:
    """As after ``for i in range(count): go f(i)`` on one P."""
    queue: RunQueue = RunQueue()
    queue.schedtick = schedtick
    for i in range(count):
        queue.runqput(i, True)
    return queue


def test_the_last_spawned_runs_first_and_the_others_in_order() -> None:
    assert drain(spawned(10)) == [9, *range(9)]


def test_the_ring_is_first_in_first_out() -> None:
    queue: RunQueue = RunQueue()
    for i in range(RING):
        queue.runqput(i)
    assert not queue.global_
    assert drain(queue) == list(range(RING))


def test_a_full_ring_moves_its_oldest_half_and_the_new_one_to_the_global_tail() -> None:
    queue: RunQueue = RunQueue()
    for i in range(RING + 1):
        queue.runqput(i)
    assert list(queue.global_) == [*range(RING // 2), RING]
    assert list(queue.ring) == list(range(RING // 2, RING))
    assert queue.overflows == 1


def test_three_hundred_spawns_leave_129_global_and_170_local() -> None:
    queue = spawned(300)
    assert (len(queue.global_), len(queue.ring), queue.runnext) == (129, 170, 299)


def test_global_gs_surface_61_dispatches_apart_while_the_ring_is_busy() -> None:
    order = drain(spawned(300))
    assert order[0] == 299
    assert order[1:61] == list(range(128, 188))
    assert (order[61], order[122]) == (0, 1)
    assert order[173:] == [*range(2, 128), 256]


def test_runnext_inherits_the_slice_and_does_not_count_a_tick() -> None:
    queue: RunQueue = RunQueue()
    queue.runqput(1)
    queue.runqput(2, True)
    assert (queue.get(), queue.inherit, queue.schedtick) == (2, True, 0)
    assert (queue.get(), queue.inherit, queue.schedtick) == (1, False, 1)


@pytest.mark.parametrize(("size", "procs", "taken"), [(400, 4, 101), (400, 1, 128), (3, 1, 3)])
def test_an_empty_ring_takes_its_share_of_the_global_queue(
    size: int, procs: int, taken: int
) -> None:
    queue: RunQueue = RunQueue(procs=procs)
    queue.schedtick = 1
    for i in range(size):
        queue.global_.append(i)
    assert queue.get() == 0
    assert len(queue.ring) == taken - 1
    assert taken <= BATCH_MAX


def test_the_61st_tick_takes_exactly_one_from_the_global_queue() -> None:
    queue: RunQueue = RunQueue()
    queue.schedtick = GLOBAL_EVERY
    for i in range(5):
        queue.global_.append(i)
        queue.runqput(100 + i)
    assert [queue.get(), queue.get()] == [0, 100]
    assert len(queue.global_) == 4


def test_a_thief_gets_the_oldest_and_runnext_stays() -> None:
    queue = spawned(10)
    assert queue.grab_if(half_up(9), lambda _: True) == [0, 1, 2, 3, 4]
    assert queue.grab_if(99, lambda _: True) == [5, 6, 7, 8]
    assert queue.get() == 9
    assert queue.get() is None


def test_half_is_rounded_up() -> None:
    assert [half_up(n) for n in range(5)] == [0, 1, 1, 2, 2]


def test_started_gs_are_never_given_away_and_keep_their_order() -> None:
    queue: RunQueue = RunQueue(lambda g: g % 2 == 0, ring_max=4)
    for i in range(4):
        queue.runqput(i)
    queue.runqput(5)
    assert list(queue.global_) == [1, 3, 5]
    assert list(queue.ring) == [0, 2]
    assert queue.grab_if(9, lambda g: not queue.is_started(g)) == [1, 3, 5]
    assert drain(queue) == [0, 2]


def test_a_started_g_may_exceed_the_ring() -> None:
    queue: RunQueue = RunQueue(lambda _: True, ring_max=2)
    for i in range(5):
        queue.runqput(i)
    assert drain(queue) == list(range(5))


def test_a_queued_g_can_be_taken_out_once() -> None:
    queue = spawned(3)
    queue.global_.append(7)
    assert [queue.runqremove(g) for g in (2, 0, 7, 7)] == [True, True, True, False]
    assert drain(queue) == [1]


def test_when_its_slice_is_over_runnext_waits_behind_the_ring() -> None:
    queue = spawned(3)
    queue.kick_runnext()
    assert drain(queue) == [0, 1, 2]


def test_a_million_started_gs_do_not_slow_down_who_looks_for_fresh_ones() -> None:
    """Each put and each grab looks at a bounded number, however long the ring has become."""
    looks = 0

    def is_started(g: int) -> bool:
        nonlocal looks
        looks += 1
        return g >= 0

    queue: RunQueue = RunQueue(is_started)
    for i in range(20_000):
        queue.runqput(i)
    looks = 0
    for i in range(1, 301):
        queue.runqput(-i)
    assert looks == 300
    assert list(queue.global_) == [-i for i in range(1, 301)]
    assert queue.grab_if(2, lambda g: not is_started(g)) == [-1, -2]
    assert looks < 300 + SCAN_MAX + 10
    assert drain(queue)[:61].count(-3) == 1, "nor do they wait for the end of the ring"
