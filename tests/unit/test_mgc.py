"""When a pass of the collector through everything is due; tests/conformance has the passes."""

from __future__ import annotations

from gmpd.runtime.mgc import BLOCKS_PER_G, BLOCKS_SLACK, Heap


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
