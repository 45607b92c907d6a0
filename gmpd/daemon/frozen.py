"""Workers that stand still for good: deaf, and no thread computes.

C code that holds the GIL and waits, or a thread that ended while it held the GIL, stops every
thread of its worker, so the worker cannot report it. C code that holds the GIL and computes looks
the same in shared memory; the kernel tells them apart.

It knows processes, no jobs.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

#: States of a thread that say that its process does not merely wait: it runs or would run, waits
#: for a disk or a network file system, or is stopped by a debugger or Ctrl-Z.
_NOT_STILL = frozenset({b"R", b"D", b"T", b"t"})
#: The share of a core up to which threads only wake up to ask for the GIL again.
_STILL_SHARE = 0.05


@dataclass(slots=True)
class Stillness:
    """One worker's, over the looks at it: since when it stands still."""

    since_ns: int = 0
    seen_ns: int = 0
    cpu_ns: int = 0

    def look(self, pid: int, now: int) -> int:
        """For how long it has stood still, if it was deaf all the time."""
        cpu_ns = _cpu_ns(pid)
        used_ns, wall_ns = cpu_ns - self.cpu_ns, now - self.seen_ns
        self.cpu_ns, self.seen_ns = cpu_ns, now
        if not self.since_ns or used_ns > wall_ns * _STILL_SHARE or _is_active(pid):
            self.since_ns = now
        return now - self.since_ns

    def moved(self) -> None:
        """It is not deaf."""
        self.since_ns = 0


def _cpu_ns(pid: int) -> int:
    """CPU time of the process so far; 0 when it has ended."""
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)  # the kernel's name of a process's clock
    except OSError:
        return 0


def _is_active(pid: int) -> bool:
    """Whether one of its threads runs, or does not merely wait."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(_state(Path(f"/proc/{pid}/task/{tid}/stat")) in _NOT_STILL for tid in threads)


def _state(stat: Path) -> bytes:
    try:
        return stat.read_bytes().rpartition(b") ")[2][:1]
    except OSError:  # the thread has ended
        return b""
