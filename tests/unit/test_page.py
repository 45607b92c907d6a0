"""The shared page's outbox: what a dead worker leaves behind is complete, in order, and no more."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from gmpd.daemon.page import OUTBOX_BYTES, Left, Page, Slot


@pytest.fixture
def pages() -> Iterator[tuple[Page, Page]]:
    """The worker's and the coordinator's view of one page."""
    worker, fd = Page.create("gmpd-test")
    coordinator = Page(fd)
    os.close(fd)
    yield worker, coordinator
    worker.close()
    coordinator.close()


def test_stored_outcomes_are_found_in_order(pages: tuple[Page, Page]) -> None:
    worker, coordinator = pages
    worker.store(7, 0, b"seven", 10, 11)
    worker.store(9, 1, b"", 20, 21)
    assert coordinator.left() == [Left(7, 0, b"seven", 10, 11), Left(9, 1, b"", 20, 21)]


def test_an_outcome_is_found_until_its_message_is_acknowledged(pages: tuple[Page, Page]) -> None:
    worker, coordinator = pages
    payload = bytes(OUTBOX_BYTES // 3)
    for token in (1, 2):
        worker.store(token, 0, payload, 0, 0)
    worker.sent(2)
    worker.store(3, 0, payload, 0, 0)  # no room: 1 and 2 may still be on their way
    assert [each.token for each in coordinator.left()] == [1, 2]
    coordinator.acknowledge(1)
    worker.store(4, 0, payload, 0, 0)  # half a message cannot be acknowledged
    assert [each.token for each in coordinator.left()] == [1, 2]
    coordinator.acknowledge(2)
    worker.store(5, 0, payload, 0, 0)
    assert [each.token for each in coordinator.left()] == [5]


def test_outcomes_that_were_not_stored_count_for_acknowledgements(
    pages: tuple[Page, Page],
) -> None:
    worker, coordinator = pages
    payload = bytes(OUTBOX_BYTES // 2 - 100)
    worker.store(1, 0, payload, 0, 0)
    worker.sent(3)  # two more went out of band
    worker.store(4, 0, payload, 0, 0)
    worker.sent(4)
    coordinator.acknowledge(3)
    worker.store(5, 0, payload, 0, 0)
    assert [each.token for each in coordinator.left()] == [4, 5]


def test_times_beyond_an_hour_are_kept_within_the_field(pages: tuple[Page, Page]) -> None:
    worker, coordinator = pages
    worker.store(1, 0, b"x", 1 << 40, 1 << 50)
    assert coordinator.left() == [Left(1, 0, b"x", 0xFFFFFFFF, 0xFFFFFFFF)]


@pytest.mark.parametrize("seed", range(20))
def test_the_ring_keeps_what_is_not_acknowledged(pages: tuple[Page, Page], seed: int) -> None:
    """Many turns around the ring with records of all sizes, against a plain list."""
    worker, coordinator = pages
    dice = random.Random(seed)
    unsent: list[Left] = []
    flying: list[tuple[int, list[Left]]] = []
    for token in range(1, 400):
        payload = dice.randbytes(dice.choice((0, 1, 100, 5_000, 40_000)))
        before = worker.slots[Slot.OUT_HEAD]
        worker.store(token, 0, payload, token, token)
        if worker.slots[Slot.OUT_HEAD] != before:
            unsent.append(Left(token, 0, payload, token, token))
        if dice.random() < 0.4:
            worker.sent(token)
            flying.append((token, unsent))
            unsent = []
        if flying and dice.random() < 0.3:
            acked, _ = flying.pop(0)
            coordinator.acknowledge(acked)
        kept = [each for _, batch in flying for each in batch] + unsent
        found = coordinator.left()
        # Freed lazily: older ones may still be there, what is owed always is.
        assert found[len(found) - len(kept) :] == kept
    assert worker.slots[Slot.OUT_HEAD] > 2 * OUTBOX_BYTES
