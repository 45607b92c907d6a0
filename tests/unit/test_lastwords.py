"""Which thread ended a worker, read from the stacks that a crash has written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gmpd.daemon.lastwords import crashed_thread
from gmpd.daemon.shm import SLOTS, Slot, WorkerShm

CRASH = """
import ctypes, os, sys, threading
from gmpd.daemon.lastwords import leave_stacks
from gmpd.daemon.shm import WorkerShm
leave_stacks(WorkerShm(int(sys.argv[1])))
if sys.argv[2] == "fork":
    if (pid := os.fork()):
        os.waitpid(pid, 0)
        os.kill(os.getpid(), 9)
def crash():
    print(threading.get_ident(), flush=True)
    ctypes.string_at(0)
thread = threading.Thread(target=crash)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("who", ["itself", "fork"])
def test_a_crash_names_its_thread(who: str) -> None:
    """That of a fork is no word about the process that was killed later."""
    shm, fd = WorkerShm.create("test")
    try:
        done = subprocess.run(
            [sys.executable, "-c", CRASH, str(fd), who],
            pass_fds=[fd], stdout=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
        ended_by = signal.Signals(-done.returncode).name
        thread, stack = crashed_thread(ended_by, shm.stacks())
        if who == "fork":
            assert (ended_by, thread, stack) == ("SIGKILL", 0, "")
            assert shm.stacks()
        else:
            assert (ended_by, thread) == ("SIGSEGV", int(done.stdout))
            assert "in crash" in stack
    finally:
        shm.close()
        os.close(fd)


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
