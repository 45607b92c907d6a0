"""Failed handlers: exceptions that no message or instruction should cause.

The policy validates a message before it changes anything, and raises ProtocolError to refuse it.
Any other exception is a bug of gmpd. Its peer is disconnected (a worker is killed), because the
half-done change concerns that peer; all others continue. The log gets the traceback, the last
events of the policy, and the result of an audit of the ledger.
"""

from __future__ import annotations

import logging
import time

from gmpd.daemon.logs import RateLimitedLog
from gmpd.errors import InvariantError
from gmpd.sched.schedt import Sched

log = logging.getLogger("gmpd.coordinator")

#: With more unfinished jobs than this no audit is made: it looks at each (about 1 us).
AUDIT_JOBS_MAX = 20_000


class Faults:
    """Counts failed handlers and tells of them."""

    def __init__(self, sched: Sched) -> None:
        self._sched = sched
        self._tell = RateLimitedLog(log.error)

    def failed(self, whose: str, doing: str, error: BaseException) -> None:
        """``whose`` peer loses its connection, for ``doing`` that raised ``error``."""
        self._sched.counters.dropped["failed_handler"] += 1
        if not getattr(error, "__notes__", ()):  # raised outside of the policy, which adds its own
            error.add_note(self._sched.story())
        self._tell(
            time.monotonic_ns(),
            "%s failed with %s: %s. This is a bug in gmpd, please report it with this log."
            " %s is disconnected, all others continue; %s",
            doing,
            type(error).__name__,
            error,
            whose,
            self._audited(),
            exc_info=error,
        )

    def _audited(self) -> str:
        if self._sched.unfinished > AUDIT_JOBS_MAX:
            return "the ledger was not audited, it holds too many jobs for that"
        try:
            self._sched.validate()
        except InvariantError as broken:
            return f"THE LEDGER IS INCONSISTENT, restart the daemon soon: {broken}"
        except Exception as error:  # noqa: BLE001 - a ledger that cannot even be read
            return f"THE LEDGER CANNOT BE AUDITED ({type(error).__name__}: {error}), restart soon"
        return "the ledger was audited and is consistent"
