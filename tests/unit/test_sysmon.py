"""sysmon's decisions, and what it learns of functions."""

from __future__ import annotations

import os
import threading
import time

import pytest

from gmpd.runtime.m import minit
from gmpd.runtime.p import M, ThreadGone
from gmpd.sched.sysmon import (
    CROWD,
    LEARNED_MAX,
    LOOK_NS,
    RELOOK_NS_MAX,
    SLICE_NS,
    TRUST,
    Learned,
    Trait,
    beside_ns,
    is_blocked,
    is_native,
    judge,
    relook_ns,
)

MS = 1_000_000


@pytest.mark.parametrize(
    ("cpu_ns", "wall_ns", "trait"),
    [
        (0, LOOK_NS - 1, None),
        (LOOK_NS, LOOK_NS - 1, None),
        (0, 10 * MS, Trait.BLOCKED),
        (MS // 5 - 1, 10 * MS, Trait.BLOCKED),
        (MS // 5, 10 * MS, Trait.HOG),
        (10 * MS, 10 * MS, Trait.HOG),
    ],
)
def test_a_g_is_judged_by_its_cpu_time(cpu_ns: int, wall_ns: int, trait: Trait | None) -> None:
    assert judge(cpu_ns, wall_ns) is trait


@pytest.mark.parametrize(
    ("cpu_ns", "waited_ns", "runnable", "blocked"),
    [
        (0, 0, False, True),
        (MS // 50, 0, False, True),
        (MS // 5, 0, False, False),
        (0, MS, False, False),
        (0, 0, True, False),
    ],
)
def test_a_thread_that_waits_for_a_cpu_is_not_blocked(
    cpu_ns: int, waited_ns: int, runnable: bool, blocked: bool
) -> None:
    assert is_blocked(cpu_ns, waited_ns, 2 * MS, runnable=runnable) is blocked


def test_looks_get_rarer_up_to_a_minute() -> None:
    intervals = [SLICE_NS]
    while intervals[-1] < RELOOK_NS_MAX:
        intervals.append(relook_ns(intervals[-1]))
    assert intervals[:3] == [SLICE_NS, 2 * SLICE_NS, 4 * SLICE_NS]
    assert relook_ns(intervals[-1]) == RELOOK_NS_MAX


def test_a_trait_is_forgotten_after_as_many_good_ends_as_it_takes_trust() -> None:
    learned = Learned()
    learned.found("f", Trait.BLOCKED)
    for _ in range(TRUST - 1):
        learned.ended_in_time("f")
        assert learned.get("f") is Trait.BLOCKED
    learned.ended_in_time("f")
    assert learned.get("f") is None
    assert not learned


def test_new_evidence_renews_trust_and_replaces_the_trait() -> None:
    learned = Learned()
    learned.found("f", Trait.BLOCKED)
    learned.ended_in_time("f")
    learned.found("f", Trait.HOG)
    for _ in range(TRUST - 1):
        learned.ended_in_time("f")
    assert learned.get("f") is Trait.HOG


def test_a_function_without_a_trait_may_end_in_time() -> None:
    learned = Learned()
    learned.ended_in_time("f")
    assert learned.get("f") is None


def test_what_is_learned_is_bounded_and_the_oldest_goes() -> None:
    learned = Learned()
    for number in range(LEARNED_MAX + 5):
        learned.found(number, Trait.HOG)
    assert len(learned) == LEARNED_MAX
    assert learned.get(4) is None
    assert learned.get(5) is Trait.HOG


def test_the_like_of_hogs_start_beside_them_after_a_slice_of_each_and_more_slowly_in_a_crowd() -> (
    None
):
    assert [beside_ns(hogs) // SLICE_NS for hogs in (1, 2, CROWD - 1)] == [1, 2, CROWD - 1]
    assert beside_ns(CROWD) == SLICE_NS * CROWD * 2
    assert beside_ns(4 * CROWD) > 5_000_000_000
    assert all(beside_ns(hogs) <= beside_ns(hogs + 1) for hogs in range(1, 50))


@pytest.mark.parametrize(
    ("waits", "passes", "native"),
    [(0, 2, None), (2, 2, None), (0, 3, True), (1, 3, False), (1, 8, True), (2, 8, False)],
)
def test_who_computes_while_the_gil_is_there_to_be_had_has_let_go_of_it(
    waits: int, passes: int, native: bool | None
) -> None:
    assert is_native(waits, passes) is native


def test_an_m_whose_thread_has_ended_used_no_cpu_that_can_be_told() -> None:
    """It may end between two looks of sysmon, whose thread must go on."""
    made: list[M] = []

    def run() -> None:
        m = M.__new__(M)
        m.g, m.id = None, 7
        minit(m)
        assert m.cpu_ns() > 0
        made.append(m)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/self/task/{made[0].tid}"):  # the kernel's end of it comes later
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert made[0].cpu_ns() == 0
    made[0].g = object()
    with pytest.raises(ThreadGone, match="M7 has ended inside"):
        made[0].cpu_ns()
