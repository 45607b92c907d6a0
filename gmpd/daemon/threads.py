"""Which thread of a worker runs which job: names the job that ends the process.

Shared memory names the job that P runs, and lists those that have lost P by their threads:
after a crash the coordinator knows the thread that crashed (``lastwords``), and finds its job.
"""

from __future__ import annotations

import os
import sys

from gmpd.daemon.attempt import Attempt
from gmpd.daemon.lastwords import NO_JOB
from gmpd.daemon.lease_run import LeaseRun
from gmpd.daemon.shm import SLOTS, Slot, WorkerShm
from gmpd.runtime.m import current_m
from gmpd.runtime.p import M, P

#: The exit code after a job has ended a thread; as all of a worker's, it is for people.
EXIT_THREAD = 5


class Threads:
    """The list in ``shm``. One M at a time changes it, under the lock of ``p``."""

    def __init__(self, shm: WorkerShm, p: P) -> None:
        self._slots = shm.slots
        self._free = list(range(SLOTS - 2, Slot.BESIDE - 2, -2))
        self._places: dict[M, int] = {}
        #: The M whose thread has ended.
        self._gone: M | None = None
        p.on_detached, p.on_attached, p.on_gone = self._add, self._discard, self._end

    def _add(self, m: M) -> None:
        """Its job continues without P, and alone. Beyond the table's size it is not listed."""
        if isinstance(m.g, LeaseRun):
            m.g.parted()
        if self._free and isinstance(m.g, Attempt):
            at = self._places[m] = self._free.pop()
            self._slots[at + 1] = m.g.token
            self._slots[at] = m.ident

    def _discard(self, m: M) -> None:
        """Its job has ended, or has P again."""
        at = self._places.pop(m, None)
        if at is not None:
            self._slots[at] = 0
            self._free.append(at)

    def note_dying(self) -> None:
        """The process is about to end: write the lease of the job that is the reason."""
        m = self._gone or current_m()
        slots = self._slots
        if m is None:
            slots[Slot.DYING] = NO_JOB
        elif isinstance(m.g, Attempt):
            slots[Slot.DYING] = m.g.token
        else:
            slots[Slot.DYING] = slots[Slot.CURRENT] or NO_JOB

    def _end(self, m: M) -> None:
        """A job has ended its thread, and with it P or a lock that it held, so nothing can continue
        here. The coordinator tells the jobs and starts another worker."""
        self._gone = m
        name = m.g.fn_name if isinstance(m.g, Attempt) else "an async job"
        print(f"gmpd worker: {name} has ended its thread (C's pthread_exit?)", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        os._exit(EXIT_THREAD)
