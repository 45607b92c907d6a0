"""Programs of test_gc_passes.py: what gmpd makes of CPython's collector, each in its own process.

    python tests/conformance/gc_passes.py NAME

A pass goes through all objects of its process: those of a test run would be a million beside the
few that each program is about.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from gmpd.runtime import mgc
from gmpd.runtime.mgc import GcController, Heap


class Woken:
    """Counts how often P was asked to look."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


class Knot:
    """A cycle: only the collector can free it."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        Knot.alive += 1

    def __del__(self) -> None:
        Knot.alive -= 1


def _is_due(controller: GcController) -> bool:
    return controller.due  # a call: it changes between two looks


def a_long_pass_tenures_what_lives(controller: GcController, woken: Woken) -> None:
    kept = [Knot() for _ in range(1000)]
    gc.collect()
    assert (controller.tenures, controller.passes[2]) == (0, 1)
    mgc.TENURE_NS = 0
    gc.collect()
    assert controller.tenures == 1
    assert not any(isinstance(each, Knot) for each in gc.get_objects()), "later passes do not look"
    kept.clear()
    gc.collect()
    assert Knot.alive == 1000, "tenured garbage stays"
    controller.major()
    assert Knot.alive == 0, "until a major pass"
    assert woken.times == 0, "1000 cycles are no reason for one"


def growth_is_looked_at_in_small_parts(controller: GcController, _woken: Woken) -> None:
    """CPython waits for 85,000 objects, or for a quarter of what a major pass saw."""
    old = [[each] for each in range(300_000)]
    controller.major()
    seen: list[int] = []

    def tenure() -> None:
        seen.append(len(gc.get_objects()))  # those that are not tenured yet
        gc.freeze()

    mgc.TENURE_NS = 0
    mgc.GcController._tenure = lambda _self: tenure()  # type: ignore[assignment]
    kept = [[each] for each in range(100_000)]
    assert len(seen) > 100_000 / 25_000
    assert max(seen) < 25_000
    assert (len(old), len(kept)) == (300_000, 100_000)


def a_pass_is_long_by_the_work_in_it(controller: GcController, _woken: Woken) -> None:
    """A thread that was not let run during its pass has no more to tenure."""

    class Clock:
        perf_counter_ns = staticmethod(iter(range(0, 10**15, 10**10)).__next__)
        thread_time_ns = staticmethod(lambda: 0)

    vars(mgc)["time"] = Clock
    gc.collect()
    assert (controller.passes[2], controller.tenures) == (1, 0)
    assert controller.pause_sum_ns == 10**10


def growth_asks_for_a_major_pass(controller: GcController, woken: Woken) -> None:
    mgc.TENURE_NS = 0
    mgc.BLOCKS_SLACK = 10_000
    controller._heap = Heap(0, 0)
    kept = [Knot() for _ in range(20_000)]
    gc.collect()
    assert _is_due(controller)
    assert woken.times >= 1
    kept.clear()
    controller.major()
    assert not _is_due(controller)
    assert Knot.alive == 0


def every_pass_is_counted_and_timed(controller: GcController, _woken: Woken) -> None:
    for generation in (0, 1, 2, 2):
        gc.collect(generation)
    controller.major()
    seen = controller.snapshot()
    assert seen["young"] >= 2
    assert (seen["full"], seen["major"]) == (2, 1)
    assert sum(controller.pause) == sum(seen.values())
    assert controller.pause_sum_ns > 0


def a_major_pass_that_cannot_begin_stays_due(controller: GcController, _woken: Woken) -> None:
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
    assert _is_due(controller)
    controller.major()
    assert controller.majors == 1
    assert not _is_due(controller)


PROGRAMS: tuple[Callable[[GcController, Woken], None], ...] = (
    a_long_pass_tenures_what_lives,
    growth_is_looked_at_in_small_parts,
    a_pass_is_long_by_the_work_in_it,
    growth_asks_for_a_major_pass,
    every_pass_is_counted_and_timed,
    a_major_pass_that_cannot_begin_stays_due,
)


def main(name: str) -> None:
    """Run one; the collector must be Python's own before and after it."""
    program = next(each for each in PROGRAMS if each.__name__ == name)
    before = list(gc.callbacks), gc.get_threshold()
    woken = Woken()
    controller = GcController(lambda: 0, woken)
    controller.start()
    assert gc.get_freeze_count() > 0
    program(controller, woken)
    controller.stop()
    assert gc.get_freeze_count() == 0
    assert (gc.callbacks, gc.get_threshold()) == before


if __name__ == "__main__":
    main(*sys.argv[1:])
