"""Garbage collection in a process of a million Gs: bounded pauses, and a histogram of them.

CPython frees by reference counts; its collector only looks for cycles, in three generations, and
now and then through everything. A million parked Gs are five million objects, which a pass
traverses in vain for about a second. So a worker has one generation more:

- A full pass that took longer than ``TENURE_NS`` *tenures* the objects it found alive
  (``gc.freeze``): no later pass looks at them. Reference counts continue, so a tenured G that ends
  is freed as ever. CPython begins a full pass when new objects are a quarter of those that the last
  one saw; so every pass is about as long as the one that tenured, however many Gs are parked.
- A full pass may begin after two middle ones (``THRESHOLDS``), not after eleven as CPython has it:
  in these, 85,000 objects come together, 13 to 20 ms. The passes take no longer in all, as each
  object is tenured once.
- Tenured objects that became a cycle of garbage are found by a *major* pass, through all objects.
  It is due when the heap, without new Gs, has doubled since the last one (Go: GOGC=100). P does it
  when it has nothing to run; or at once, when the heap has doubled again.

Rejected: higher thresholds alone (fewer passes, as long as before); no full passes while many Gs
are parked (users make cycles beside them); passes by the clock (an idle worker has none).

For processes that are gmpd's own: the collector belongs to the whole process, so ``gmpd.run``
leaves it alone. It must know nothing of queues and Ms, only how to wake P and how many Gs live.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from gmpd.runtime.counts import BUCKETS

#: A full pass that takes longer, in CPU time, tenures what it found alive: a third of a slice of a
#: G. Not by the wall: on a busy machine one of 1 ms lasted 79.
TENURE_NS = 3_000_000
#: CPython's thresholds, for 3.11 (3.13 has 2,000 for the first), except the last: there may be a
#: full pass after more than this many middle ones. Two of them leave objects for 3 ms.
THRESHOLDS = (700, 10, 1)
#: Memory blocks that a parked G accounts for: itself, number, context, coroutine, what it waits
#: with (6 for one that receives from a channel), and a few of the user's.
BLOCKS_PER_G = 9
#: Growth that is never worth a major pass: some 25 MB.
BLOCKS_SLACK = 250_000

FULL = 2


class Heap:
    """When a major pass is due: plain numbers in, a verdict out."""

    __slots__ = ("_low",)

    def __init__(self, blocks: int, gs: int):
        self._low = blocks - gs * BLOCKS_PER_G

    def growth(self, blocks: int, gs: int) -> float:
        """How far the heap has gone towards doubling: 1.0 is where a major pass is due.

        Measured from the smallest heap since the last major pass: what was freed by reference
        counts must not leave room for garbage.
        """
        weight = blocks - gs * BLOCKS_PER_G
        self._low = min(self._low, weight)
        return (weight - self._low) / (max(0, self._low) + BLOCKS_SLACK)

    def collected(self, blocks: int, gs: int) -> None:
        """A major pass has ended: all objects that remain are alive."""
        self._low = blocks - gs * BLOCKS_PER_G


class GcController:
    """Sees every pass of CPython's collector in this process, from ``start`` to ``stop``."""

    __slots__ = ("_began_cpu_ns", "_began_ns", "_freezing", "_gs", "_heap", "_in_major",
                 "_thresholds", "_wake", "growth", "majors", "passes", "pause", "pause_sum_ns",
                 "tenures")  # fmt: skip

    def __init__(self, gs: Callable[[], int], wake: Callable[[], None]):
        """``gs`` tells how many Gs live; ``wake``, thread-safe, lets P look at ``due``."""
        self._gs = gs
        self._wake = wake
        self._heap = Heap(0, 0)
        self._began_ns = self._began_cpu_ns = 0
        self._thresholds = gc.get_threshold()
        self._in_major = self._freezing = False
        #: How far the heap has grown; see Heap.
        self.growth = 0.0
        #: Pauses by bit length in ns, as the histograms of ``Stats``.
        self.pause = [0] * BUCKETS
        self.pause_sum_ns = 0
        #: Passes by generation, CPython's; how often what lived was tenured; major passes.
        self.passes = [0, 0, 0]
        self.tenures = self.majors = 0

    def start(self) -> None:
        """The objects that exist now, mostly modules, live as long as the process."""
        self._freeze_all()
        self._heap.collected(sys.getallocatedblocks(), self._gs())
        gc.callbacks.append(self._note)
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)

    def stop(self) -> None:
        """Leave CPython's collector as it was."""
        gc.set_threshold(*self._thresholds)
        gc.callbacks.remove(self._note)
        gc.unfreeze()

    @property
    def due(self) -> bool:
        """Whether P should do a major pass as soon as it has nothing to run."""
        return self.growth >= 1

    @property
    def overdue(self) -> bool:
        """Whether it cannot wait for that any more."""
        return self.growth >= 3  # of twice the low mark, twice

    def major(self) -> None:
        """Look through everything: the pause is that of all objects, 0.17 µs each.

        Nothing happens, and it stays due, while another thread is on its way out of a pass: it may
        release the GIL there, and CPython begins no second one.
        """
        before = self.passes[FULL]
        self._in_major = True
        gc.unfreeze()
        try:
            gc.collect()
        finally:
            self._in_major = False
        if self.passes[FULL] != before:
            self.majors += 1
            self._freeze_all()
            self._heap.collected(sys.getallocatedblocks(), self._gs())
            self.growth = 0.0

    def _freeze_all(self) -> None:
        """No pass looks at what is there now; and the next full one does not wait until a quarter
        as much has come, as it would after one that saw it all: 200 ms with a million Gs.
        """
        gc.freeze()
        self._freezing = True
        gc.collect()  # through nothing
        self._freezing = False

    def _note(self, phase: str, info: Mapping[str, Any]) -> None:
        """Called by CPython before and after each pass, on its thread. Never raises."""
        if phase == "start":
            self._began_ns = time.perf_counter_ns()
            self._began_cpu_ns = time.thread_time_ns()
            return
        if self._freezing:
            return
        cpu = time.thread_time_ns() - self._began_cpu_ns
        took = time.perf_counter_ns() - self._began_ns
        generation = info["generation"]
        self.pause[took.bit_length()] += 1
        self.pause_sum_ns += took
        self.passes[generation] += 1
        if generation == FULL and cpu > TENURE_NS and not self._in_major:
            self._tenure()

    def _tenure(self) -> None:
        gc.freeze()
        self.tenures += 1
        self.growth = self._heap.growth(sys.getallocatedblocks(), self._gs())
        if self.due:
            self._wake()

    def snapshot(self) -> dict[str, int]:
        """The numbers of passes so far, by kind."""
        young, middle, full = self.passes
        return {"young": young + middle, "full": full - self.majors, "major": self.majors}
