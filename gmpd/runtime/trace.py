"""The events of Gs, in order: a bounded list, kept while a tracer listens.

Off by default: a G switch costs a few hundred nanoseconds, an event about as much. Every event
moves its G through the table of ``gmpd.sched.g``, so a trace is also a check of the runtime. The
text of an event names no address and no wall time, so that two runs under one seed can be compared
line by line.

Asked for with ``queues``, each event also carries a photograph of P: its holder and its queues once
the event has happened (a child of ``gmpd.go`` is queued right after its creation). That costs as
much as the queues are long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from gmpd.sched.g import GEvent, GStatus, transition

#: Events kept: the newest. Go's flight recorder keeps 10 MiB; this is about as much.
EVENTS_MAX = 100_000


class PState(NamedTuple):
    """A P right after an event: the M that holds it, and its queues as ids of Gs, next one first.

    ``local``: handles that asyncio woke, then the ring.
    """

    m: int | None
    runnext: int | None
    local: tuple[int, ...]
    global_: tuple[int, ...]


class TraceEvent(NamedTuple):
    """One event: ``time_s`` on the loop's clock, the G's id and function, and the wait reason,
    thread or text. ``p`` when queues were asked for.
    """

    time_s: float
    event: GEvent
    g: int
    name: str
    detail: str
    p: PState | None = None

    def __str__(self) -> str:
        detail = f" [{self.detail}]" if self.detail else ""
        return f"{self.time_s:.6f} G{self.g} {self.name} {self.event.name.lower()}{detail}"


class Tracer:
    """Records events, the newest ``limit`` of them; with what ``look`` sees of P, if it is
    given.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        limit: int = EVENTS_MAX,
        look: Callable[[], PState] | None = None,
    ):
        self._clock = clock
        self._look = look
        self.events: deque[TraceEvent] = deque(maxlen=limit)
        #: Events so far, those included that are no longer kept.
        self.total = 0
        self._status: dict[int, GStatus] = {}
        #: Woken in the very step in which they park (a cancel was pending): told after its end.
        self._woken: set[int] = set()

    def __call__(self, event: GEvent, g: Any, detail: str = "") -> None:
        """``g`` has an ``id`` and a ``fn_name``. InvariantError when the event contradicts what was
        seen of it before.
        """
        number = g.id
        if event is GEvent.UNBLOCK and self._status.get(number) is GStatus.RUNNING:
            self._woken.add(number)
            return
        p = None if self._look is None else self._look()
        seen = TraceEvent(self._clock(), event, number, g.fn_name, detail, p)
        self.events.append(seen)
        self.total += 1
        before = self._status.get(number)
        if before is None:  # it began before the trace did
            before = BEFORE[event]
        if event is GEvent.UNBLOCK and before is not GStatus.WAITING:
            return  # cancelled and woken at once: it is runnable already
        after = transition(before, event, lambda: self.story(number))
        if after is GStatus.DEAD:
            self._status.pop(number, None)
        else:
            self._status[number] = after
        if after is not GStatus.RUNNING and number in self._woken:
            self._woken.remove(number)
            if after is GStatus.WAITING:
                self(GEvent.UNBLOCK, g)

    def story(self, number: int) -> list[TraceEvent]:
        """The recorded events of one G, oldest first."""
        return [event for event in self.events if event.g == number]

    def lines(self) -> list[str]:
        return [str(event) for event in self.events]


#: Where a G must have been that is seen for the first time with this event.
BEFORE = {
    GEvent.CREATE: GStatus.IDLE,
    GEvent.START: GStatus.RUNNABLE,
    GEvent.STOP: GStatus.RUNNING,
    GEvent.BLOCK: GStatus.RUNNING,
    GEvent.UNBLOCK: GStatus.WAITING,
    GEvent.SYSCALL_BEGIN: GStatus.RUNNING,
    GEvent.SYSCALL_END: GStatus.SYSCALL,
    GEvent.LOG: GStatus.RUNNING,
    GEvent.END: GStatus.RUNNING,
}
