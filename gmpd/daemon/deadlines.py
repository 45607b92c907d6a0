"""The deadlines of the coordinator's parts in one heap: a turn asks once when the next one is.

A part sets its own deadline when its state changes; until then it costs a turn nothing. It knows no
clock: times are ns of the monotonic one.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush


class Deadline:
    """One part's: made by ``Deadlines.new``. ``at`` is None while nothing is due."""

    __slots__ = ("_due", "_owner", "at")

    def __init__(self, owner: Deadlines, due: Callable[[int], None]) -> None:
        self._owner = owner
        self._due = due
        self.at: int | None = None

    def set(self, at: int | None) -> None:
        """Call ``due`` at this time, instead of at the time set before; None: not at all."""
        if at != self.at:
            self.at = at
            if at is not None:
                self._owner.push(at, self)

    def now(self) -> None:
        """Call ``due`` in this turn, or, when that has had its deadlines, in the next one."""
        self.set(0)

    def passed(self, now: int) -> None:
        """Its time has come; ``Deadlines.run`` has taken it from the heap."""
        self._due(now)


class Deadlines:
    """The deadlines of all parts. A heap entry is stale once its deadline has another time."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Deadline]] = []
        self._count = 0

    def new(self, due: Callable[[int], None]) -> Deadline:
        """A deadline at which ``due`` is called with the time; not set yet."""
        return Deadline(self, due)

    def push(self, at: int, deadline: Deadline) -> None:
        """A deadline was set."""
        self._count += 1
        heappush(self._heap, (at, self._count, deadline))

    def next(self) -> int | None:
        """The earliest one."""
        heap = self._heap
        while heap and heap[0][2].at != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: int) -> None:
        """Call all that are due. Those that are set meanwhile wait for the next turn, even if they
        are due at once."""
        heap = self._heap
        if not heap or heap[0][0] > now:
            return
        due: list[Deadline] = []
        while (at := self.next()) is not None and at <= now:
            deadline = heappop(heap)[2]
            deadline.at = None
            due.append(deadline)
        for deadline in due:
            deadline.passed(now)
