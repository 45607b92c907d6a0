"""The limit of connections, and the daemon's behaviour at it.

libzmq aborts the process when it accepts a connection and no descriptor is left. So each socket has
a limit far below; at it, its door is shut (``netpoll.monitor.Doorman``), and connections without a
hello are ended. Others are not disturbed.
"""

from __future__ import annotations

import logging
import os
import resource

from gmpd.daemon.deadlines import Deadlines
from gmpd.netpoll import Router

log = logging.getLogger("gmpd.coordinator")

#: Descriptors that connections never take: log, pipes and memory of workers that are started.
RESERVE = 64
#: Connections beside ``limits.sessions``: of commands, and of those that are told of that limit.
SPARE = 64
#: Workers' connections; there are fewer workers.
WORKERS_MAX = 1024
#: Who has not said Hello for so long (ns) leaves while the door is shut.
SILENT_NS = 5_000_000_000
#: While it is shut, they are looked for this often (ns).
LOOK_NS = 1_000_000_000


def most_connections(sessions: int) -> tuple[int, int]:
    """How many connections clients and workers may have, by the limit of descriptors.

    A quarter and an eighth of what is free: a door shuts a moment late, and some come in yet: on a
    busy machine as many as libzmq accepts until the doorman has a core.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sessions + SPARE, WORKERS_MAX
    free = max(8, soft - RESERVE - len(os.listdir("/proc/self/fd")))
    return min(sessions + SPARE, free // 4), min(WORKERS_MAX, free // 8)


class Door:
    """Of one socket; ``whose`` is for the log."""

    def __init__(self, router: Router, whose: str, deadlines: Deadlines) -> None:
        self._router = router
        self._whose = whose
        self._is_shut = False
        self._deadline = deadlines.new(self._due)

    def look(self) -> None:
        """To be called when the doorman rings: it may have been shut, or opened."""
        if self._router.is_shut or self._is_shut:
            self._deadline.now()

    def _due(self, now: int) -> None:
        if not self._router.is_shut:
            if self._is_shut:
                self._is_shut = False
                log.info("%s may connect again", self._whose)
            return
        if not self._is_shut:
            log.warning(
                "%d connections of %s are open, as many as limits.sessions and the limit of"
                " descriptors (ulimit -n) allow: new ones are refused until some end",
                self._router.connections,
                self._whose,
            )
            self._is_shut = True
        self._deadline.set(now + LOOK_NS)
        self._router.turn_out(now - SILENT_NS)
