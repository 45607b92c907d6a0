"""The allocator of the C library: memory that large values took goes back to the system.

No other module calls it. glibc keeps memory that is freed below a block in use, in an arena for
each thread, and by its own rule even blocks of 32 MB, once it has seen some come and go: after
gigabytes of values of a megabyte, a process that holds none has gigabytes. ``malloc_trim`` gives
back every free page. It costs about 50 us for each megabyte, so it is done when there is nothing
else to do, and only if much went through.

**Rejected.** A fixed threshold from which on each block is mapped by itself (``M_MMAP_THRESHOLD``):
nothing would have to be trimmed, but each temporary array of a job would cost a system call and a
page fault for each 4 kB, in every NumPy expression.
"""

from __future__ import annotations

import ctypes

#: Bytes of values since the last trim that make one worthwhile.
TRIM_BYTES = 32 << 20
#: It waits until less than that passes in this time, at most ``WAITS_MAX`` times.
QUIET_NS = 500_000_000
WAITS_MAX = 20


def give_back() -> None:
    """Return free memory to the system, where the C library can (musl returns it by itself)."""
    # PyDLL would keep the GIL for milliseconds.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Trimming:
    """When a process gives memory back, by the bytes that went through it, in all. Times in ns."""

    def __init__(self) -> None:
        self.next_due: int | None = None
        self._trimmed = self._seen = 0
        self._waits = 0

    def look(self, total: int, now: int) -> bool:
        """``total`` bytes went through so far; whether it is the time to ``give_back``."""
        if self.next_due is None:
            if total - self._trimmed > TRIM_BYTES:
                self._seen, self._waits, self.next_due = total, 0, now + QUIET_NS
            return False
        if now < self.next_due:
            return False
        if total - self._seen > TRIM_BYTES and self._waits < WAITS_MAX:
            self._seen, self.next_due = total, now + QUIET_NS
            self._waits += 1
            return False
        self._trimmed, self.next_due = total, None
        return True
