"""The run queue of one P, with Go's rules: which runnable G is next.

``runnext`` is a slot in front of a ring of 256. A G that wakes or starts a G through ``runnext``
gives it the rest of its own time slice, so a pair that plays ping-pong stays on one P without a
detour through the ring. Behind the ring stands the worker's segment of the global queue: Gs that
overflow the ring go there, and one of 61 ticks takes from it first, so that a busy ring cannot
starve it.

Rejected: one FIFO for all (a producer and its consumer would wait a whole round for each
message); one global queue (its lock, or here its message to the coordinator, would be paid per G).

This file knows of a queued G only ``is_started``: a *started* G has a frame in this process and is
never given away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

#: Slots of the ring (Go: ``p.runq``). Larger hides work from thieves, smaller overflows too often.
RING = 256
#: Every 61st tick looks at the global queue first (Go: ``findRunnable``); prime, so that it does
#: not beat with anything.
GLOBAL_EVERY = 61
#: At most half a ring is taken from the global queue at once (Go: ``globrunqgetbatch``).
BATCH_MAX = RING // 2
#: A search for fresh Gs looks at this many: a million started ones may be queued before them.
SCAN_MAX = 4 * RING


class RunQueue:
    """``runnext``, ring and global segment of one P. Only the holder of P calls this."""

    __slots__ = (
        "global_",
        "global_picks",
        "inherit",
        "inherited",
        "is_started",
        "overflows",
        "procs",
        "ring",
        "ring_max",
        "runnext",
        "schedtick",
    )

    def __init__(
        self,
        is_started: Callable[[Any], bool] = lambda _: False,
        *,
        ring_max: int = RING,
        procs: int = 1,
        schedtick: int = 0,
    ):
        #: Runs before the ring, in the slice of the one that put it here.
        self.runnext: Any = None
        #: Oldest left. Holds at most ``ring_max`` fresh Gs; started ones may exceed it, they cannot
        #: leave.
        self.ring: deque[Any] = deque()
        #: The worker's segment of the global queue, oldest left; unbounded in itself, bounded by
        #: credit.
        self.global_: deque[Any] = deque()
        self.ring_max = ring_max
        #: Number of Ps that share the global queue: a P takes only its share in a batch.
        self.procs = procs
        #: +1 per G that runs in a slice of its own (Go: ``p.schedtick``).
        self.schedtick = schedtick
        #: Whether the G last returned by ``get`` continues the slice of its predecessor.
        self.inherit = False
        #: Picks from ``runnext``, and takes from the global queue; ``schedtick`` has the rest.
        self.inherited = 0
        self.global_picks = 0
        self.overflows = 0
        self.is_started = is_started

    def __len__(self) -> int:
        """All that is runnable here, ``runnext`` included (Go's ``runqsize`` leaves that out)."""
        return len(self.ring) + len(self.global_) + (self.runnext is not None)

    def __bool__(self) -> bool:
        """Whether anything is: asked several times a round."""
        return self.runnext is not None or bool(self.ring) or bool(self.global_)

    def runqput(self, g: Any, next_: bool = False) -> None:
        """Queue ``g`` at the tail of the ring, or in ``runnext``, whose old occupant goes to the
        tail.
        """
        if next_:
            kicked, self.runnext = self.runnext, g
            if kicked is None:
                return
            g = kicked
        ring = self.ring
        if len(ring) < self.ring_max or not self._runqputslow(g):
            ring.append(g)

    def _runqputslow(self, g: Any) -> bool:
        """The ring is full: half of it, and ``g``, to the global tail, in order (Go:
        ``runqputslow``).

        A started G stays: it cannot run elsewhere. False when ``g`` has to go to the ring after
        all. Started Gs that exceed the ring hold no fresh ones back: those go to the global tail.
        """
        if self.is_started(g):
            return False
        if len(self.ring) == self.ring_max:
            self.global_.extend(self._grab(self.ring_max // 2))
        self.global_.append(g)
        self.overflows += 1
        return True

    def get(self) -> Any:
        """The next G to run, or None (the local part of Go's ``findRunnable``). Counts the tick."""
        if self.schedtick % GLOBAL_EVERY == 0 and self.global_:
            self.schedtick += 1
            self.global_picks += 1
            self.inherit = False
            return self.global_.popleft()
        g = self.runnext
        if g is not None:
            self.runnext = None
            self.inherited += 1
            self.inherit = True
            return g
        if not self.ring and not self._globrunqgetbatch():
            return None
        self.schedtick += 1
        self.inherit = False
        return self.ring.popleft()

    def putback(self, g: Any) -> None:
        """The G that was just picked cannot run here and now: it stays the next one, its tick
        counted.
        """
        before, self.runnext = self.runnext, g
        if before is not None:
            self.ring.appendleft(before)

    def unchecked(self) -> int:
        """How many of the next picks need not look at the global queue: a caller that picks many
        may take them from ``runnext`` and ring by itself, and tells with ``picked``.
        """
        return -self.schedtick % GLOBAL_EVERY

    def picked(self, ticks: int, inherited: int) -> None:
        """Count Gs that the caller took from the ring, and from ``runnext``."""
        self.schedtick += ticks
        self.inherited += inherited
        self.inherit = not ticks

    def _globrunqgetbatch(self) -> int:
        """Move this P's share of the global head to the ring (Go: ``globrunqgetbatch``)."""
        size = len(self.global_)
        if not size:
            return 0
        count = min(BATCH_MAX, size, size // self.procs + 1)
        if count == size:
            self.ring.extend(self.global_)
            self.global_.clear()
        else:
            popleft, append = self.global_.popleft, self.ring.append
            for _ in range(count):
                append(popleft())
        self.global_picks += count
        return count

    def kick_runnext(self) -> None:
        """The slice is over: ``runnext`` goes to the global tail, where Go puts a preempted G.
        So all others get their turn: those in the ring, and those that yielded.
        """
        g = self.runnext
        if g is not None:
            self.runnext = None
            self.global_.append(g)

    def _grab(self, count: int) -> list[Any]:
        """Take the ring's ``count`` oldest fresh Gs out; looks at no more than SCAN_MAX others."""
        ring = self.ring
        taken: list[Any] = []
        stay: list[Any] = []
        while ring and len(taken) < count and len(stay) < SCAN_MAX:
            g = ring.popleft()
            (stay if self.is_started(g) else taken).append(g)
        ring.extendleft(reversed(stay))
        return taken

    def grab_if(self, count: int, may_leave: Callable[[Any], bool]) -> list[Any]:
        """Take up to ``count`` Gs that ``may_leave`` for a thief, oldest first: global segment,
        then ring.

        ``runnext`` stays: it is likely to run at once here. Looks no further than ``count`` others,
        so that a queue of Gs that stay is not searched again and again.
        """
        taken: list[Any] = []
        for queue in (self.global_, self.ring):
            stay: list[Any] = []
            while queue and len(taken) < count and len(stay) < count:
                g = queue.popleft()
                (taken if may_leave(g) else stay).append(g)
            queue.extendleft(reversed(stay))
        return taken

    def count_fresh(self, limit: int) -> int:
        """How many may be given away; counts no further than ``limit`` queued Gs, the rest is taken
        for fresh.
        """
        total = len(self)
        if total > limit:
            return total
        queued = [*self.ring, *self.global_]
        if self.runnext is not None:
            queued.append(self.runnext)
        return sum(1 for g in queued if not self.is_started(g))

    def runqremove(self, g: Any) -> bool:
        """Take this one out again; False when it is not queued (any more)."""
        if self.runnext is g:
            self.runnext = None
            return True
        for queue in (self.ring, self.global_):
            for index, queued in enumerate(queue):
                if queued is g:
                    del queue[index]
                    return True
        return False


def half_up(count: int) -> int:
    """How many of ``count`` a thief gets: half, rounded up (Go: ``runqgrab``)."""
    return count - count // 2
