"""When the collector tenures, and when it goes through everything."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gmpd.runtime import mgc
from gmpd.runtime.mgc import BLOCKS_PER_G, BLOCKS_SLACK, GcController, Heap


class Woken:
    """Counts how often P was asked to look."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def woken() -> Woken:
    return Woken()


@pytest.fixture
def controller(woken: Woken) -> Iterator[GcController]:
    controller = GcController(lambda: 0, woken)
    controller.start()
    yield controller
    controller.stop()


class Knot:
    """A cycle: only the collector can free it."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Knot.alive += 1

    def __del__(self) -> None:
        Knot.alive -= 1


def test_a_heap_that_has_doubled_is_due() -> None:
    heap = Heap(1_000_000, 0)
    assert heap.growth(1_000_000, 0) == 0
    assert heap.growth(2_000_000, 0) < 1
    assert heap.growth(2_000_000 + BLOCKS_SLACK, 0) == 1
    heap.collected(2_000_000, 0)
    assert heap.growth(3_000_000, 0) < 1


def test_a_small_heap_may_grow_by_the_slack() -> None:
    heap = Heap(1000, 0)
    assert heap.growth(BLOCKS_SLACK, 0) < 1 <= heap.growth(BLOCKS_SLACK + 2000, 0)


def test_a_million_parked_gs_are_no_garbage() -> None:
    heap = Heap(1000, 0)
    assert heap.growth(1000 + 1_000_000 * BLOCKS_PER_G, 1_000_000) == 0


def test_what_was_freed_leaves_no_room_for_garbage() -> None:
    heap = Heap(20_000_000, 0)
    assert heap.growth(100_000, 0) == 0
    assert heap.growth(100_000 + 100_000 + BLOCKS_SLACK, 0) == 1


def test_a_long_pass_tenures_what_lives(
    controller: GcController, woken: Woken, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [Knot() for _ in range(1000)]
    gc.collect()
    assert (controller.tenures, controller.passes[2]) == (0, 1)
    monkeypatch.setattr(mgc, "TENURE_NS", 0)
    gc.collect()
    assert controller.tenures == 1
    assert not any(isinstance(each, Knot) for each in gc.get_objects()), "later passes do not look"
    kept.clear()
    gc.collect()
    assert Knot.alive == 1000, "tenured garbage stays"
    controller.major()
    assert Knot.alive == 0, "until a major pass"
    assert woken.times == 0, "1000 cycles are no reason for one"


def test_what_grows_is_looked_at_in_small_parts(
    controller: GcController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython waits for 85,000 objects, or for a quarter of what a major pass saw."""
    controller.major()
    seen: list[int] = []
    tenure = controller._tenure

    def tenured() -> None:
        seen.append(len(gc.get_objects()))  # those that are not tenured yet
        tenure()

    monkeypatch.setattr(mgc, "TENURE_NS", 0)
    monkeypatch.setattr(GcController, "_tenure", lambda _self: tenured())
    kept = [[each] for each in range(100_000)]
    assert len(seen) > 100_000 / 25_000
    assert max(seen) < 25_000
    assert len(kept) == 100_000


def test_a_pass_is_long_by_the_work_in_it(
    controller: GcController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that was not let run during its pass has no more to tenure."""

    class Clock:
        perf_counter_ns = staticmethod(iter(range(0, 10**15, 10**10)).__next__)
        thread_time_ns = staticmethod(lambda: 0)

    monkeypatch.setattr(mgc, "time", Clock)
    gc.collect()
    assert (controller.passes[2], controller.tenures) == (1, 0)
    assert controller.pause_sum_ns == 10**10


def _is_due(controller: GcController) -> bool:
    return controller.due  # a call: it changes between two looks


def test_growth_asks_for_a_major_pass(
    controller: GcController, woken: Woken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mgc, "TENURE_NS", 0)
    monkeypatch.setattr(mgc, "BLOCKS_SLACK", 10_000)
    controller._heap = Heap(0, 0)
    kept = [Knot() for _ in range(20_000)]
    gc.collect()
    assert _is_due(controller)
    assert woken.times >= 1
    kept.clear()
    controller.major()
    assert not _is_due(controller)
    assert Knot.alive == 0


def test_every_pass_is_counted_and_timed(controller: GcController) -> None:
    for generation in (0, 1, 2, 2):
        gc.collect(generation)
    controller.major()
    seen = controller.snapshot()
    assert seen["young"] >= 2
    assert (seen["full"], seen["major"]) == (2, 1)
    assert sum(controller.pause) == sum(seen.values())
    assert controller.pause_sum_ns > 0


def test_it_leaves_pythons_collector_as_it_was() -> None:
    gc.unfreeze()  # objects that the test run keeps out of its way
    before = list(gc.callbacks), gc.get_threshold()
    controller = GcController(lambda: 0, Woken())
    controller.start()
    assert gc.get_freeze_count() > 0
    controller.stop()
    assert gc.get_freeze_count() == 0
    assert (gc.callbacks, gc.get_threshold()) == before


def test_a_major_pass_that_cannot_begin_stays_due(controller: GcController) -> None:
    """While a pass is under way, here in a callback, CPython begins no other."""
    majors: list[int] = []

    def busy(phase: str, _info: object) -> None:
        if phase == "stop":
            controller.growth = 1.0
            controller.major()
            majors.append(controller.majors)

    gc.callbacks.append(busy)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(busy)
    assert majors == [0]
    assert controller.due
    controller.major()
    assert controller.majors == 1
    assert not controller.due
