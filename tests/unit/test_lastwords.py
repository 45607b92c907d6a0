"""Which thread ended a worker, read from the stacks that a crash has written."""

from __future__ import annotations

import os

from gmpd.daemon.lastwords import crashed_thread
from gmpd.daemon.shm import SLOTS, Slot, WorkerShm


def test_without_a_crash_there_is_none() -> None:
    assert crashed_thread("SIGSEGV", b"") == (0, "")
    assert crashed_thread("SIGSEGV", b"Fatal Python error: Segm") == (0, "")


def test_threads_beside_p_are_found_by_their_identifiers() -> None:
    shm, fd = WorkerShm.create("test")
    os.close(fd)
    try:
        shm.slots[Slot.BESIDE], shm.slots[Slot.BESIDE + 1] = 0x7F00_1234_5678, 42
        shm.slots[SLOTS - 2], shm.slots[SLOTS - 1] = 7, 43
        beside = shm.beside()
        assert (beside[0x7F00_1234_5678], beside[7]) == (42, 43)
    finally:
        shm.close()
