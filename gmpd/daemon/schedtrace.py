"""`GMPD_SCHEDTRACE=1000 gmpd serve`: Go's scheduler trace of all Ps on stderr.

A line is made of the same status as `gmpd status`. A stderr that takes no more (a full pipe) ends
the trace: the coordinator does not wait for a reader.
"""

from __future__ import annotations

import os
import select
import time

from gmpd.daemon.deadlines import Deadlines
from gmpd.daemon.snapshot import Observed, snapshot
from gmpd.runtime.schedtrace import Counts, line
from gmpd.status import Status

STDERR = 2


def counts_of(status: Status) -> Counts:
    """The numbers of a line. ``queues`` has what each P's worker holds unstarted: Go leaves
    ``runnext`` out, here it counts. Each worker that is up has its sysmon beside its Ms."""
    ps = [p for p in status.ps if p.p < status.procs]
    states = [p.state for p in ps]
    return Counts(
        idleprocs=states.count("idle"),
        threads=sum(p.ms + 1 for p in ps if p.up),
        spinningthreads=states.count("searching"),
        idlethreads=sum(p.idle_ms for p in ps),
        runqueue=status.queue.in_queue,
        queues=[p.runq for p in ps],
        ticks=[p.schedtick for p in ps],
    )


class SchedTrace:
    """Prints a line now and every ``every_ms`` milliseconds."""

    def __init__(self, daemon: Observed, deadlines: Deadlines, every_ms: int) -> None:
        self._daemon = daemon
        self._every_ns = every_ms * 1_000_000
        self._began = time.monotonic_ns()
        self._deadline = deadlines.new(self._due)
        self._deadline.now()

    def _due(self, _now: int) -> None:
        now = time.monotonic_ns()
        text = line((now - self._began) // 1_000_000, counts_of(snapshot(self._daemon)))
        if not select.select([], [STDERR], [], 0)[1]:
            return
        try:
            os.write(STDERR, f"{text}\n".encode())
        except OSError:  # there is no reader any more
            return
        self._deadline.set(now + self._every_ns)
