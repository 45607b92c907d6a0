"""The last snapshot: requested on demand, shared by all requests, shown with its age.

A request to the gateway waits for the coordinator for a bounded moment and no longer; then it gets
the last snapshot. Ten scrapers cost the coordinator no more than one: requests during a question
wait for the same answer, and an answer serves all requests for a while. Without requests there are
no questions, so an idle daemon stays idle.

It must never know how a question travels (``link.py``) or what a snapshot means (``metrics.py``).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from gmpd import timeouts
from gmpd.errors import GmpdError
from gmpd.gateway.collector import Reading

log = logging.getLogger(__name__)

Fetch: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

#: Longest that a request waits for the coordinator: ten turns of a loop that is busy but well.
WAIT_S: Final = 0.05

#: An answer serves all readers for this long. So at most ten questions a second reach the
#: coordinator, whatever scrapes; and numbers are at most a tenth of a second old.
REUSE_S: Final = 0.1


class Latest:
    """The newest snapshot of the coordinator, refreshed by the requests for it."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        wait_s: float = WAIT_S,
        reuse_s: float = REUSE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._wait_s = wait_s
        self._reuse_s = reuse_s
        self._clock = clock
        self._asking: asyncio.Task[bool] | None = None
        self._snapshot: dict[str, Any] = {}
        self._taken_at = -math.inf
        self._up = False
        self._fetches = {"ok": 0, "late": 0, "error": 0}
        #: Requests that the rules refused, by reason.
        self.refused: Counter[str] = Counter()
        #: Why there is no fresh snapshot, "" while there is one.
        self.trouble = "the coordinator has not been asked yet"

    async def refresh(self, wait_s: float | None = None) -> bool:
        """Make the snapshot fresh if the coordinator answers in time, ``wait_s`` if that is given;
        whether it has. Never raises: see ``trouble``."""
        longest_s = timeouts.wait_s(self._wait_s if wait_s is None else wait_s)
        if self._clock() - self._taken_at < self._reuse_s:
            return True
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        asking = self._asking
        # A late answer is not cancelled: it is the next one's fresh snapshot.
        done, _ = await asyncio.wait({asking}, timeout=longest_s)
        if not done:
            self._up = False
            self.trouble = f"the coordinator did not answer within {longest_s * 1000:.0f} ms"
            return False
        return asking.result()

    def reading(self) -> Reading:
        """The present snapshot, without waiting."""
        age_s = max(0.0, self._clock() - self._taken_at)
        return Reading(self._snapshot, age_s, self._up, dict(self._fetches), dict(self.refused))

    async def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> bool:
        """Whether there was an answer, late or not."""
        asked_at = self._clock()
        try:
            self._snapshot = await self._fetch()
        except Exception as error:  # noqa: BLE001 - whatever an answer was: it says nothing
            self._fetches["error"] += 1
            self._up = False
            known = isinstance(error, GmpdError)
            self.trouble = str(error) if known else f"{type(error).__name__}: {error}"
            return False
        else:
            # Its age counts from the question: the coordinator may have made it at any time since.
            self._taken_at = asked_at
            late = self._clock() - asked_at > self._wait_s
            self._fetches["late" if late else "ok"] += 1
            self._up = not late
            self.trouble = "the coordinator answers late" if late else ""
            return True
        finally:
            self._asking = None
