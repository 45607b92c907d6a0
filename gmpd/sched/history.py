"""The last events of the policy and its decisions, for bug reports.

A ring that is always on: a race cannot be repeated on request. The copies that it keeps are bounded
and hold no users' values (``events.Event.kept``).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TypeAlias

from gmpd.sched.events import Event, Kept, TurnEnded
from gmpd.sched.instructions import Instruction

#: A busy turn takes some ten events, so these reach back a few tens of turns: about 50 kB.
EVENTS_KEPT = 256
#: When, and an event, or the kinds of instructions that a turn ended with.
Entry: TypeAlias = tuple[int, "Event | Kept | list[type[Instruction]]"]


class History:
    """Times in ns."""

    __slots__ = ("_ring", "add")

    def __init__(self) -> None:
        self._ring: deque[Entry] = deque(maxlen=EVENTS_KEPT)
        #: Append an entry: the deque's own method, as it is called with every event.
        self.add = self._ring.append

    def __len__(self) -> int:
        return len(self._ring)

    def lines(self) -> list[str]:
        """A line each, the newest last; times are those before the newest."""
        newest = self._ring[-1][0] if self._ring else 0
        return [f"{(now - newest) / 1e6:12.3f} ms  {_line(each)}" for now, each in self._ring]


def _line(entry: Event | Kept | list[type[Instruction]]) -> str:
    if isinstance(entry, list):
        counts = Counter(kind.__name__ for kind in entry)
        made = ", ".join(name if n == 1 else f"{name} x{n}" for name, n in counts.items())
        return f"{TurnEnded.__name__} -> {made}"
    return repr(entry)
