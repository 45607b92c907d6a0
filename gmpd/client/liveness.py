"""Whether the daemon still answers while a client waits for it. Sans-IO.

A client that waits hears something, or asks after a while, and the coordinator's own loop answers.
Time is counted in this client's own ticks, each of which counts once however long it took: so a
client that was itself stopped, or starved, does not blame the daemon.

A daemon that is merely slow is not given up at once: while its process uses processor time, it has
``PATIENCE`` times as long.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum, auto

#: Ticks in ``client.liveness``. The question goes out after the first silent one.
TICKS = 5
#: How much longer a daemon may be silent that works.
PATIENCE = 6


class Verdict(Enum):
    """The action after a tick."""

    NOTHING = auto()
    ASK = auto()
    GIVE_UP = auto()


class Liveness:
    """Counts the ticks of one client in which it waited and heard nothing."""

    def __init__(
        self, liveness_s: float, working: Callable[[int], float | None] | None = None
    ) -> None:
        self.tick_s = liveness_s / TICKS
        #: The daemon's process, once it is known.
        self.pid = 0
        self._working = working or cpu_seconds
        self._heard = 0
        self._silent = 0
        self._cpu_s: float | None = None

    def tick(self, heard: int, *, waits: bool) -> Verdict:
        """A tick has passed; ``heard`` counts all messages that have come so far."""
        if heard != self._heard or not waits:
            self._heard = heard
            self._silent = 0
            return Verdict.NOTHING
        self._silent += 1
        if self._silent == 1:
            self._cpu_s = self._working(self.pid)
            return Verdict.ASK
        if self._silent < TICKS - 1 or (self._is_at_work() and self._silent < TICKS * PATIENCE):
            return Verdict.NOTHING
        return Verdict.GIVE_UP

    def is_quiet(self, heard: int) -> bool:
        """Whether nothing has come since the last tick."""
        return heard == self._heard

    def _is_at_work(self) -> bool:
        """Whether its process used the processor since the last time this was asked."""
        before, self._cpu_s = self._cpu_s, self._working(self.pid)
        return before is not None and self._cpu_s is not None and self._cpu_s > before


_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float | None:
    """The processor time of a process; None when it is unknown, gone, or stopped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in (b"T", b"t", b"Z", b"X"):
        return None
    return (int(fields[11]) + int(fields[12])) * _TICK_S
