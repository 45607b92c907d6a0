"""Which thread ended a process, read from the stacks that faulthandler wrote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from gmpd.daemon.lastwords import crashed_thread
from gmpd.daemon.shm import WorkerShm

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
