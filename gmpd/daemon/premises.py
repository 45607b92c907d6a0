"""The place in the file system where a daemon lives, and whether it still is that.

Directories below /tmp and /run are removed under live daemons: by cleaners, at a logout, by hand.
Connected clients notice nothing, but new clients and the daemon's own new workers do not find it,
and another daemon may start in the same directory. So the coordinator checks every few seconds.

Missing files are restored. When another daemon has the directory, this one gives way: it starts no
more workers, which would connect to the other daemon, finishes its running jobs, and ends. It
removes no file there, because none is its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress

from gmpd import rundir
from gmpd.daemon.deadlines import Deadlines
from gmpd.errors import ConfigError
from gmpd.netpoll import Router

log = logging.getLogger("gmpd.serve")

#: Between two looks: a handful of system calls.
LOOK_NS = 2_000_000_000


class Premises:
    """``publish`` writes the discovery file, and says whether it is time for one; ``displaced`` is
    called once, with the reason."""

    def __init__(
        self,
        lock: rundir.Lock,
        routers: tuple[Router, ...],
        publish: Callable[[], bool],
        displaced: Callable[[str], None],
        deadlines: Deadlines,
    ) -> None:
        self._lock = lock
        self._routers = routers
        self._publish = publish
        self._displaced = displaced
        self._deadline = deadlines.new(self._look_again)
        self._deadline.now()
        #: Another daemon lives there.
        self.is_lost = False
        #: Why a worker would not find the daemon now; empty when it would.
        self.problem = ""

    def _look_again(self, now: int) -> None:
        self.look()
        self._deadline.set(None if self.is_lost else now + LOOK_NS)

    def look(self) -> str:
        """Make missing files again. Gives the reason why a worker would not find the daemon now."""
        if self.is_lost:
            return self.problem
        before = self.problem
        try:
            self._mend()
            self.problem = ""
        except rundir.Taken as taken:
            self.is_lost = True
            self.problem = f"another daemon has taken the runtime directory: {taken}"
            self._displaced(self.problem)
        except (ConfigError, OSError) as error:
            self.problem = f"the runtime directory was removed and cannot be restored: {error}"
            if self.problem != before:
                log.error("%s", self.problem)
        if before and not self.problem:
            log.warning("the runtime directory is restored")
        return self.problem

    def _mend(self) -> None:
        again = not self._lock.is_held
        if again:
            self._lock.take_again()
        for router in self._routers:
            if not router.is_there:
                router.bind_again()
                again = True
        if again or not rundir.is_published(self._lock.directory):
            with suppress(FileNotFoundError):
                again = self._publish() or again
            if again:
                log.warning("restored files that were removed from %s", self._lock.directory)
