"""The limit of connections, and the daemon's behaviour at it.

libzmq aborts the process when it accepts a connection and no descriptor is left. So each socket has
a limit far below. At the limit the socket refuses new connections
(``netpoll.monitor.ConnectionMonitor``), and connections without a Hello are closed. Others are
unaffected.
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
#: Connections beside ``limits.sessions``: of commands, and of clients that get that refusal.
SPARE = 64
#: Workers' connections; there are fewer workers.
WORKERS_MAX = 1024
#: At the limit, connections without a Hello after this time (ns) are ended.
SILENT_NS = 5_000_000_000
#: The time between two searches for them (ns).
LOOK_NS = 1_000_000_000


def most_connections(sessions: int) -> tuple[int, int]:
    """How many connections clients and workers may have, by the limit of descriptors.

    A quarter and an eighth of the free descriptors, because the limit takes effect late: libzmq
    keeps accepting until the monitor's thread is scheduled.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sessions + SPARE, WORKERS_MAX
    free = max(8, soft - RESERVE - len(os.listdir("/proc/self/fd")))
    return min(sessions + SPARE, free // 4), min(WORKERS_MAX, free // 8)


class ConnectionLimit:
    """The limit of one socket; ``whose`` is for the log."""

    def __init__(self, router: Router, whose: str, deadlines: Deadlines) -> None:
        self._router = router
        self._whose = whose
        self._is_refusing = False
        self._deadline = deadlines.new(self._due)

    def look(self) -> None:
        """The monitor reports a change: the limit may be reached, or left."""
        if self._router.is_refusing or self._is_refusing:
            self._deadline.now()

    def _due(self, now: int) -> None:
        if not self._router.is_refusing:
            if self._is_refusing:
                self._is_refusing = False
                log.info("%s may connect again", self._whose)
            return
        if not self._is_refusing:
            log.warning(
                "%d connections of %s are open, as many as limits.sessions and the limit of"
                " descriptors (ulimit -n) allow: new ones are refused until some end",
                self._router.connections,
                self._whose,
            )
            self._is_refusing = True
        self._deadline.set(now + LOOK_NS)
        self._router.drop_unidentified(now - SILENT_NS)
