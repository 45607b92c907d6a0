"""A client without a daemon: when it opens a new link, and when it gives up. Sans-IO.

A client looks for a daemon only while it has questions about durable jobs: other jobs ended with
the daemon that held them. One new link serves for any number of attempts to connect; there is
another one when a daemon took that link and did not welcome the client.
"""

from __future__ import annotations

import math
from enum import Enum, auto

#: Seconds between two links, each of which a daemon took without a welcome.
RELINK_S = 0.2
#: Seconds to wait when the daemon has no room for another client.
FULL_S = 1.0


class Step(Enum):
    """The action that is due."""

    NOTHING = auto()
    LINK = auto()
    GIVE_UP = auto()


class Outage:
    """From the loss of a link to the next welcome, for ``bound_s`` seconds at most."""

    def __init__(self, now: float, bound_s: float) -> None:
        self._until = now + bound_s
        self._link_at = now

    def step(self, now: float) -> Step:
        """The action that is due. LINK: the caller opens a new link."""
        if now >= self._until:
            return Step.GIVE_UP
        if now >= self._link_at:
            self._link_at = math.inf
            return Step.LINK
        return Step.NOTHING

    def link_failed(self, now: float, pause_s: float = RELINK_S) -> None:
        """The new link was taken, and ended before a welcome."""
        self._link_at = min(self._link_at, now + pause_s)

    def next_s(self, now: float) -> float:
        """Seconds until ``step`` has something to do; infinite without a bound."""
        return max(0.0, min(self._until, self._link_at) - now)
