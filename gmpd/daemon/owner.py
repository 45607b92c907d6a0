"""The process at the other end of a private daemon's standard input.

The end of that input ends the daemon. An owner that another machine relies on also renews a lease
there (``PrivateDaemon.renew``): the daemon ends its workers when the lease does. So an owner that
stands still, and cannot end them, has none that run on.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from gmpd.daemon.deadlines import Deadlines

#: A renewal: when the lease ends, in ns of the machine's monotonic clock, unsigned, big-endian.
RENEWAL_BYTES = 8
_READ_BYTES = 512 * RENEWAL_BYTES


class Owner:
    """``left``: called when it has ended; ``over``: when its lease has."""

    def __init__(
        self, deadlines: Deadlines, left: Callable[[], object], over: Callable[[], None]
    ) -> None:
        self._lease = deadlines.new(lambda _: over())
        self._left = left

    def read(self) -> None:
        """Standard input is readable."""
        data = os.read(0, _READ_BYTES)  # of whole renewals: each is written at once
        if not data:
            self._lease.set(None)
            self._left()
        elif len(data) >= RENEWAL_BYTES:
            self._lease.set(int.from_bytes(data[-RENEWAL_BYTES:], "big"))
