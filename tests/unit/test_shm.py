"""The outbox in shared memory: outcomes of a dead worker are found complete and in order."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator

import pytest

from gmpd.daemon import outbox_overflow
from gmpd.daemon.outbox_overflow import TURN_BYTES, StoredOutcome
from gmpd.daemon.shm import OUTBOX_BYTES, Slot, WorkerShm


@pytest.fixture
def views() -> Iterator[tuple[WorkerShm, WorkerShm]]:
    """The worker's and the coordinator's view of one worker's shared memory."""
    worker, fd = WorkerShm.create("gmpd-test")
    coordinator = WorkerShm(fd)
    os.close(fd)
    yield worker, coordinator
    worker.close()
    coordinator.close()


def test_stored_outcomes_are_found_in_order(views: tuple[WorkerShm, WorkerShm]) -> None:
    worker, coordinator = views
    worker.store(7, 0, b"seven", 10, 11)
    worker.store(9, 1, b"", 20, 21)
    assert coordinator.recover() == [
        StoredOutcome(7, 0, b"seven", 10, 11),
        StoredOutcome(9, 1, b"", 20, 21),
    ]


def test_an_outcome_is_found_until_its_message_is_acknowledged(
    views: tuple[WorkerShm, WorkerShm],
) -> None:
    worker, coordinator = views
    payload = bytes(OUTBOX_BYTES // 3)
    for token in (1, 2):
        worker.store(token, 0, payload, 0, 0)
    worker.sent(2)
    worker.store(3, 0, payload, 0, 0)  # no room: 1 and 2 may still be on their way
    assert [each.token for each in coordinator.recover()] == [1, 2, 3]
    coordinator.acknowledge(1)
    worker.store(4, 0, payload, 0, 0)  # half a message cannot be acknowledged
    assert [each.token for each in coordinator.recover()] == [1, 2, 3, 4]
    coordinator.acknowledge(2)
    worker.store(5, 0, payload, 0, 0)
    assert [each.token for each in coordinator.recover()] == [5, 3, 4]
    assert [each.token for each in coordinator.recover_from_living({4, 5})] == [5, 4]


def test_outcomes_that_were_not_stored_count_for_acknowledgements(
    views: tuple[WorkerShm, WorkerShm],
) -> None:
    worker, coordinator = views
    payload = bytes(OUTBOX_BYTES // 2 - 100)
    worker.store(1, 0, payload, 0, 0)
    worker.sent(3)  # two more were streams
    worker.store(4, 0, payload, 0, 0)
    worker.sent(4)
    coordinator.acknowledge(3)
    worker.store(5, 0, payload, 0, 0)
    assert [each.token for each in coordinator.recover()] == [4, 5]


def test_times_beyond_an_hour_are_kept_within_the_field(views: tuple[WorkerShm, WorkerShm]) -> None:
    worker, coordinator = views
    worker.store(1, 0, b"x", 1 << 40, 1 << 50)
    assert coordinator.recover() == [StoredOutcome(1, 0, b"x", 0xFFFFFFFF, 0xFFFFFFFF)]


@pytest.mark.parametrize("seed", range(10))
def test_what_is_not_acknowledged_is_kept(views: tuple[WorkerShm, WorkerShm], seed: int) -> None:
    """Many turns around the ring and between the logs, with outcomes of all sizes."""
    worker, coordinator = views
    dice = random.Random(seed)
    unsent: list[StoredOutcome] = []
    flying: list[tuple[int, list[StoredOutcome]]] = []
    for token in range(1, 400):
        payload = dice.randbytes(dice.choice((0, 1, 100, 5_000, 40_000)))
        buffers = tuple(dice.randbytes(1 << dice.randrange(16)) for _ in range(token % 7 // 5))
        worker.store(token, 0, payload, token, token, buffers)
        unsent.append(StoredOutcome(token, 0, payload, token, token, buffers))
        if dice.random() < 0.4:
            worker.sent(token)
            flying.append((token, unsent))
            unsent = []
        if flying and dice.random() < 0.4:
            acked, _ = flying.pop(0)
            coordinator.acknowledge(acked)
        if dice.random() < 0.1:
            worker.rest()
        kept = {each.token: each for _, batch in flying for each in batch}
        kept |= {each.token: each for each in unsent}
        if token % 10 == 0:
            # Freed lazily: older ones may still be there, what is owed always is.
            assert {each.token: each for each in coordinator.recover(kept)} == kept
    assert worker.slots[Slot.OUT_HEAD] > 2 * OUTBOX_BYTES


# ------------------------------------------------------- outcomes that the ring has no room for


def used(shm: WorkerShm) -> int:
    """Bytes of shared memory beyond what is mapped, all of it allocated."""
    return os.fstat(shm.overflow._fd).st_blocks * 512


def test_a_large_outcome_is_kept_with_its_buffers(views: tuple[WorkerShm, WorkerShm]) -> None:
    worker, coordinator = views
    large = StoredOutcome(3, 0, bytes(3 << 20), 1, 2, (b"a" * 70_000, b"", b"c"))
    many = StoredOutcome(4, 1, b"", 1, 2, tuple(b"%d" % i for i in range(2_000)))
    worker.store(*large)
    worker.store(*many)
    assert coordinator.recover() == [large, many]
    assert coordinator.recover({4}) == [many]


def test_a_large_outcome_is_not_collected_of_a_living_worker(
    views: tuple[WorkerShm, WorkerShm],
) -> None:
    """It was sent at once, and its message may still come."""
    worker, coordinator = views
    worker.store(3, 0, bytes(3 << 20), 1, 2)
    worker.store(4, 0, b"x", 1, 2, (b"small",))
    assert [each.token for each in coordinator.recover_from_living()] == [4]
    assert [each.token for each in coordinator.recover()] == [3, 4]


def test_memory_does_not_grow_with_results_that_arrive(views: tuple[WorkerShm, WorkerShm]) -> None:
    """A coordinator that lags two results behind, as in a pipeline that never runs dry."""
    worker, coordinator = views
    before = used(worker)
    payload = bytes(2 << 20)
    for token in range(1, 60):
        worker.store(token, 0, payload, 0, 0)
        worker.sent(token)
        if token > 2:
            coordinator.acknowledge(token - 2)
    assert [each.token for each in coordinator.recover({58, 59})] == [58, 59]
    assert used(worker) - before < 4 * TURN_BYTES
    worker.rest()
    assert used(worker) > before, "two are still owed"
    coordinator.acknowledge(59)
    worker.rest()
    assert used(worker) == before
    assert coordinator.recover() == []


def test_an_outcome_that_waits_to_be_asked_for_is_kept_whatever_is_acknowledged(
    views: tuple[WorkerShm, WorkerShm],
) -> None:
    worker, coordinator = views
    before = used(worker)
    late = StoredOutcome(1, 0, bytes(3 << 20), 7, 8)
    worker.keep(late)
    for token in range(2, 30):
        worker.store(token, 0, bytes(2 << 20), 0, 0)
        worker.sent(token - 1)
        coordinator.acknowledge(token - 1)
    worker.rest()
    assert coordinator.recover({1}) == [late]
    assert used(worker) - before < 4 * TURN_BYTES
    assert worker.release(1)
    assert not worker.release(1)
    worker.rest()
    assert coordinator.recover({1}) == [late], "it was not acknowledged"
    worker.sent(29)
    coordinator.acknowledge(29)
    worker.rest()
    assert used(worker) == before


def test_what_goes_beyond_the_limit_is_left_out(
    views: tuple[WorkerShm, WorkerShm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded, also without acknowledgements; but one alone always has room."""
    worker, coordinator = views
    monkeypatch.setattr(outbox_overflow, "OVERFLOW_BYTES", 5 << 20)
    for token in range(1, 9):
        worker.store(token, 0, bytes(2 << 20), 0, 0)
    assert [each.token for each in coordinator.recover()] == [1, 2, 3]
    worker.sent(8)
    coordinator.acknowledge(8)
    worker.store(9, 0, bytes(6 << 20), 0, 0)
    assert [each.token for each in coordinator.recover({9})] == [9]


def test_without_memory_an_outcome_is_left_out(
    views: tuple[WorkerShm, WorkerShm], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, coordinator = views

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", full)
        worker.store(1, 0, bytes(2 << 20), 0, 0)
    worker.store(2, 0, bytes(2 << 20), 0, 0)
    assert [each.token for each in coordinator.recover()] == [2]


def test_what_is_written_over_while_it_is_read_is_not_collected(
    views: tuple[WorkerShm, WorkerShm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker was thought deaf, and goes on in the middle of it."""
    worker, coordinator = views
    worker.store(1, 0, bytes(2 << 20), 0, 0)
    worker.sent(1)
    pread, reads = os.pread, 0

    def meanwhile(fd: int, size: int, at: int) -> bytes:
        nonlocal reads
        reads += 1
        coordinator.acknowledge(1)
        worker.rest()
        return pread(fd, size, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", meanwhile)
        assert coordinator.recover_from_living() == []
    assert reads < 10, "megabytes of zeros are read as empty records"


def test_an_outcome_that_is_read_of_a_living_worker_is_told_by_the_coordinator_alone(
    views: tuple[WorkerShm, WorkerShm],
) -> None:
    worker, coordinator = views
    coordinator.claims.offer(1, 3)
    coordinator.claims.may_answer(1, 3)
    assert worker.store(1, 0, b"x", 1, 1)
    assert worker.claims.take_right(1)
    assert [each.token for each in coordinator.recover_from_living({1, 2})] == [1]
    assert [worker.claims.take_right(token) for token in (2, 3)] == [False, True]
