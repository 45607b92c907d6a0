"""Whether a worker's run loop moves, judged by the coordinator without a message.

The worker's shared memory has the rounds of its loop, whether it sleeps, and how many messages it
has taken and sent; the coordinator knows how many it wrote to the worker and heard of it. A worker
may stop (SIGSTOP, a debugger, C code that holds the GIL) at any instruction; then all of these
stand still, and they tell what it stopped in:

========================================== ======= ====================== ===================
it stopped                                 asleep  messages               judged
========================================== ======= ====================== ===================
before it read a message: in the kernel,   yes     taken < written        deaf
in libzmq's queue, or just woken
while it handled one                       no      taken < written        deaf
before, in or after a job                  no      taken = written        deaf
after it sent outcomes, before libzmq's    yes     sent > heard           deaf: they are read
thread wrote them to the socket                                           from shared memory
with nothing to do, or while all its       yes     taken = written,       asleep, as it may be
coroutines wait                                    sent = heard
========================================== ======= ====================== ===================

It knows no jobs; ``sched.ps`` says when to look, and what follows.
"""

from __future__ import annotations

from typing import Any

from gmpd.daemon.shm import Slot
from gmpd.sched.records import PROBE_AFTER_NS

# Plain ints: they are read with every message, and an enum's member costs as much as the read.
_ROUND, _ASLEEP_NS = int(Slot.ROUND), int(Slot.ASLEEP_NS)
_TAKEN, _SENT = int(Slot.TAKEN), int(Slot.SENT)


class LoopWatch:
    """The coordinator's view of one worker's loop; ``slots`` is the status block of its memory."""

    __slots__ = ("_heard", "_round", "_slots", "_unread_ns", "_written")

    def __init__(self, slots: Any) -> None:
        self._slots = slots
        #: Messages to it, and messages that came.
        self._written = self._heard = 0
        #: Since when it has messages that it has not taken (ns).
        self._unread_ns = 0
        #: Its round when it was heard of or looked at last.
        self._round = 0

    def heard(self) -> None:
        """A message of it came."""
        self._heard += 1
        self._round = self._slots[_ROUND]

    def wrote(self, now: int) -> None:
        """A message was sent to it: if it sleeps, that wakes it."""
        if self._slots[_TAKEN] >= self._written:
            self._unread_ns = now
        self._written += 1

    def look(self, now: int) -> tuple[bool, bool]:
        """Whether its loop moves, and whether it sleeps as it may; neither: it is deaf."""
        slots = self._slots
        # In this order: a loop that wakes in between, sends and sleeps again is not called asleep.
        asleep = bool(slots[_ASLEEP_NS])
        all_heard = slots[_SENT] <= self._heard
        all_read = slots[_TAKEN] >= self._written
        before, self._round = self._round, slots[_ROUND]
        moves = self._round != before or (not all_read and now - self._unread_ns < PROBE_AFTER_NS)
        return moves, asleep and all_heard and all_read
