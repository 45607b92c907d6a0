"""When a worker that gets no more jobs may end: all that it had have ended, and nothing that they
have left behind is needed any more, or has had ``recycle.grace``.

And the last thing that a worker waits for which cannot serve. Jobs are never cut short here. It
sends nothing; ``worker`` does.
"""

from __future__ import annotations

import time
from collections.abc import Sized
from typing import Protocol

from gmpd import protocol
from gmpd.daemon.migration import ChildMigration
from gmpd.netpoll import Dealer
from gmpd.runtime.loop import Loop
from gmpd.runtime.remote import ChanRouter
from gmpd.runtime.stacks import count_gs

#: How often a worker without jobs looks whether it is still needed (s).
LOOK_S = 0.05


class Parting(Protocol):
    """A worker, as far as it matters here."""

    loop: Loop
    migration: ChildMigration
    router: ChanRouter
    isolated: bool

    @property
    def attempts(self) -> Sized: ...
    @property
    def overrunning(self) -> Sized: ...
    def stop(self) -> None: ...


class Farewell:
    """``worker`` is to end."""

    def __init__(self, worker: Parting, grace_s: float) -> None:
        self._worker = worker
        self._grace_ns = int(grace_s * 1e9)
        self._until_ns = 0
        self._ended = False

    def look(self) -> None:
        """End if it is time; else look again later, at the latest when a job has ended."""
        if self._worker.attempts or self._ended:
            return
        now = time.monotonic_ns()
        if not self._until_ns:
            self._until_ns = now + self._grace_ns
        if now >= self._until_ns or not self._is_needed():
            self._ended = True
            self._worker.stop()
        else:
            self._worker.loop.p_callbacks.later(LOOK_S, self.look)

    def _is_needed(self) -> bool:
        """Whether tasks or children run on, here or elsewhere, other workers use channels of this
        one, or functions run past their time limit."""
        worker = self._worker
        if worker.isolated:  # all that its job leaves behind ends with it
            return False
        away, held = worker.migration.away, worker.router.is_held
        return bool(worker.overrunning or count_gs(worker.loop.p) or away or held)


def await_stop(link: Dealer, seconds: float) -> None:
    """A message sent shortly before a process ends may be lost: the answer says it came."""
    until = time.monotonic() + seconds
    while link.wait(until - time.monotonic()):
        frames = link.recv()
        message = frames and protocol.unpack(frames[0], protocol.TO_WORKER)
        if isinstance(message, protocol.Stop):
            return
