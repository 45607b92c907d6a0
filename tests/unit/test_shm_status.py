"""The shared memory's status block, and its outbox as a coordinator sees it of one that lives."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from gmpd.daemon.shm import Slot, WorkerShm
from gmpd.protocol import Outcome
from gmpd.runtime.loop import Loop
from gmpd.runtime.stats import BUCKETS, COUNTERS, HISTOGRAMS, counters, histograms

#: Where the status block holds more than one integer.
AREAS = (Slot.COUNTERS, Slot.HISTOGRAMS, Slot.BESIDE)


class Sides:
    """A worker's shared memory, seen by it and by the coordinator."""

    def __init__(self) -> None:
        self.coordinator, fd = WorkerShm.create("gmpd-test")
        self.worker = WorkerShm(fd)
        os.close(fd)

    def store(self, token: int, payload: bytes = b"r", outcome: Outcome = Outcome.OK) -> None:
        self.worker.store(token, outcome, payload, token % 1000, 7)

    def close(self) -> None:
        self.coordinator.close()
        self.worker.close()


@pytest.fixture
def sides() -> Iterator[Sides]:
    made = Sides()
    yield made
    made.close()


# ------------------------------------------------------------------------------ the status block


def test_what_runs_is_named_until_it_does_not(sides: Sides) -> None:
    sides.coordinator.claims.offer(5, 2)
    assert sides.worker.begin(5, 123)
    slots = sides.coordinator.slots
    assert (slots[Slot.CURRENT], slots[Slot.CURRENT_NS]) == (5, 123)
    sides.worker.pause()
    assert slots[Slot.CURRENT] == 0
    sides.worker.resume(5, 456)
    assert (slots[Slot.CURRENT], slots[Slot.CURRENT_NS]) == (5, 456)


def test_what_was_revoked_does_not_begin_and_is_not_named(sides: Sides) -> None:
    sides.coordinator.claims.offer(5, 1)
    sides.coordinator.claims.revoke([5])
    assert not sides.worker.begin(5, 123)
    assert sides.coordinator.slots[Slot.CURRENT] == 0


def test_the_block_has_room_for_all_that_is_counted() -> None:
    assert Slot.COUNTERS + len(COUNTERS) <= Slot.HISTOGRAMS
    assert Slot.HISTOGRAMS + len(HISTOGRAMS) * (BUCKETS + 1) <= Slot.BESIDE
    assert max(slot for slot in Slot if slot not in AREAS) < 64


def test_counters_arrive_under_their_names(sides: Sides) -> None:
    assert sides.coordinator.stats(1) == {}, "nothing is counted before the first word"
    loop = Loop()
    try:
        loop.p.stats.slice[5] = 3
        loop.p.stats.slice_sum_ns = 90
        loop.run_until_complete(loop.call_sync(lambda: None))
        counted = counters(loop.p)
        assert len(counted) == len(COUNTERS)
        sides.worker.publish(counted, 77)
        sides.worker.publish_histograms(histograms(loop.p))
        now = time.monotonic_ns()
        sides.coordinator.slots[Slot.ASLEEP_NS] = now - 10**9
        seen = sides.coordinator.stats(now)
    finally:
        loop.close()
    assert seen["finished"] == 1
    assert seen["picks"].keys() == {"runnext", "local", "global", "steal", "poller", "timer"}
    assert seen["children"] == {"out": 0, "in": 0}
    assert seen["gs"] == {"runnable": 0, "running": 0, "waiting": 0, "syscall": 0}
    assert seen["hist"]["slice"]["count"] == 4
    assert seen["state_s"]["idle"] >= 1, "it sleeps since a second"
    assert sides.coordinator.slots[Slot.BEAT_NS] == 77


def test_the_time_in_each_state_never_goes_back(sides: Sides) -> None:
    """Also when P wakes after an hour into something that lets it count nothing."""
    loop = Loop()
    try:
        sides.worker.publish(counters(loop.p), 1)
        born = loop.p.stats.born_ns
    finally:
        loop.close()
    slots, hour, seen = sides.worker.slots, 3600 * 10**9, []
    slots[Slot.ASLEEP_NS] = born
    seen.append(sides.coordinator.stats(born + hour)["state_s"])
    slots[Slot.SLEPT_NS], slots[Slot.ASLEEP_NS] = hour, 0
    seen.append(sides.coordinator.stats(born + hour)["state_s"])
    seen.append(sides.coordinator.stats(born + hour + 10**9)["state_s"])
    assert [round(each["idle"]) for each in seen] == [3600] * 3
    assert [round(each["running"]) for each in seen] == [0, 0, 1]


def test_the_board_of_a_loop_moves_with_its_rounds_and_its_sleep(sides: Sides) -> None:
    """Liveness: what the coordinator sees of a P, whatever its G does."""
    loop = Loop()
    loop.p.status_slots = sides.worker.slots[Slot.ROUND : Slot.LOOKS + 1]
    slots = sides.coordinator.slots
    seen: list[tuple[int, int]] = []

    def look() -> None:
        seen.append((slots[Slot.ROUND], slots[Slot.ASLEEP_NS]))
        if len(seen) < 3:
            loop.call_later(0.001, look)
        else:
            loop.stop()

    try:
        loop.call_soon(look)
        loop.run_forever()
    finally:
        loop.p.status_slots.release()
        loop.p.status_slots = [0, 0, 0, 0]
        loop.close()
    rounds = [round_ for round_, _ in seen]
    assert rounds == sorted(set(rounds))
    assert {asleep for _, asleep in seen} == {0}, "it runs: this very callback"


# ------------------------------------------------------------------------------------ the outbox


def test_what_was_stored_is_left_in_order_with_all_that_belongs_to_it(sides: Sides) -> None:
    sides.store(1, b"one")
    sides.store(2, b"", Outcome.ERROR)
    assert [tuple(each) for each in sides.coordinator.recover()] == [
        (1, 0, b"one", 1, 7, ()),
        (2, 1, b"", 2, 7, ()),
    ]
    assert sides.coordinator.recover_from_living() == sides.coordinator.recover()


def test_what_is_acknowledged_is_not_left(sides: Sides) -> None:
    for token in range(1, 6):
        sides.store(token)
    sides.worker.sent(5)
    sides.store(6)
    sides.coordinator.acknowledge(5)
    sides.worker.sent(6)
    assert [each.token for each in sides.coordinator.recover()] == [6]


def test_a_page_is_memory_from_the_beginning(sides: Sides) -> None:
    """Nothing of it is allocated on first use, when it could fail."""
    assert not any(sides.coordinator.slots)
    assert sides.coordinator.recover() == []
    assert not sides.coordinator.claims.claim(0)
