"""The processes of one peer: found by a mark in their environment, which they inherit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

#: The variable that a peer's processes have, with a value of their own.
MARK = "GMPD_PEERS_RUN"


def marked(value: str) -> list[int]:
    """Live processes with this mark."""
    wanted = f"{MARK}={value}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # ended, or not ours
            continue
    return found


def resident(pids: list[int]) -> int:
    """Bytes of memory, each shared page counted once among those that share it."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (OSError, IndexError):
            continue
    return total


def cpu_s(pids: list[int]) -> dict[int, float]:
    """CPU seconds of each so far, with all its threads, those that have ended among them."""
    found = {}
    for pid in pids:
        try:
            # What clock_getcpuclockid() of the C library makes of a process.
            found[pid] = time.clock_gettime(~pid << 3 | 2)
        except OSError:  # it has ended
            continue
    return found


def end_marked(value: str, grace_s: float) -> int:
    """Wait for processes to end by themselves; end those that do not, and return their number."""
    ends = time.monotonic() + grace_s
    while (left := marked(value)) and time.monotonic() < ends:
        time.sleep(0.05)
    count, ends, sign = len(left), time.monotonic() + 2.0, signal.SIGTERM
    while left:
        for pid in left:
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        time.sleep(0.1)
        left = marked(value)
        if time.monotonic() > ends:
            sign = signal.SIGKILL
    return count
