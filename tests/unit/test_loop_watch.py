"""Whether a worker's loop moves, sleeps or is deaf, by the numbers that both sides write."""

from __future__ import annotations

from array import array

import pytest

from gmpd.daemon.loop_watch import LoopWatch
from gmpd.daemon.shm import SLOTS, Slot
from gmpd.sched.records import PROBE_AFTER_NS

MOVES, ASLEEP, DEAF = (True, False), (False, True), (False, False)


class Loop:
    """A worker's numbers, and what the coordinator makes of them."""

    def __init__(self) -> None:
        self.slots = array("q", [0] * SLOTS)
        self.watch = LoopWatch(self.slots)
        self.now = 1_000_000_000

    def sleep(self) -> None:
        self.slots[Slot.ROUND] |= 1
        self.slots[Slot.ASLEEP_NS] = self.now

    def round(self) -> None:
        """It wakes, or goes on."""
        self.slots[Slot.ASLEEP_NS] = 0
        self.slots[Slot.ROUND] = (self.slots[Slot.ROUND] | 1) + 1

    def look(self, after_ns: int = PROBE_AFTER_NS) -> tuple[bool, bool]:
        self.now += after_ns
        return self.watch.look(self.now)

    def settle(self) -> None:
        """All that happened so far was seen."""
        self.look()


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_rounds_are_a_sign_of_life_and_so_is_sleep_with_nothing_to_do(loop: Loop) -> None:
    loop.round()
    assert loop.look() == MOVES
    assert loop.look() == DEAF
    loop.round()
    loop.sleep()
    assert loop.look()[0]
    assert loop.look() == ASLEEP


def test_who_sleeps_on_a_message_is_deaf_whatever_its_round_was_when_it_was_written(
    loop: Loop,
) -> None:
    """In its last round, or while it slept: it has not taken it."""
    loop.round()
    loop.watch.wrote(loop.now)
    loop.sleep()
    loop.settle()
    assert loop.look() == DEAF
    loop.slots[Slot.TAKEN] += 1
    assert loop.look() == ASLEEP
    loop.watch.wrote(loop.now)
    assert loop.look(PROBE_AFTER_NS - 1)[0], "it has a moment to wake"
    assert loop.look(1) == DEAF


def test_messages_that_keep_coming_do_not_make_a_stopped_worker_alive(loop: Loop) -> None:
    loop.sleep()
    loop.settle()
    seen = []
    for _ in range(8):
        loop.watch.wrote(loop.now)
        seen.append(loop.look(PROBE_AFTER_NS // 4)[0])
    assert seen == [True] * 3 + [False] * 5
    loop.slots[Slot.TAKEN] = 8
    loop.watch.wrote(loop.now)
    assert loop.look(1)[0], "it has read all of those: this one is new"


def test_who_sleeps_while_its_own_message_has_not_come_is_deaf(loop: Loop) -> None:
    loop.round()
    loop.slots[Slot.SENT] += 1
    loop.sleep()
    loop.settle()
    assert loop.look() == DEAF
    loop.watch.heard()
    assert loop.look() == ASLEEP
