"""Which hog of a P runs, and which ones are parked until their turn. No thread, no clock in here.

Python code that has lost its P still needs the GIL, and so does P: beside eight hogs a message
waits for several turns of each of them. So while hogs contend for the GIL all but one are parked,
and they take turns of two slices (Go preempts by the same slices). A hog is parked inside its own
code, so this must cost no core: as soon as the GIL is free at times, or no hog that may run
computes, the next one runs beside.

Sysmon tells how contended the GIL is: it has to wait for the GIL after a pause, or not. The CPU
clock would not tell on a busy machine, where the thread that holds the GIL waits for a core.

Rejected: to park all but one at once (Gs that wait and compute by turns would lose half of their
throughput before the GIL is seen to be free). Counterpart: ``gmpd.runtime.turns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from gmpd.sched.sysmon import SLICE_NS

#: A turn of one hog while others are parked. A parked one may hold a lock of its user's.
TURN_NS: Final = 2 * SLICE_NS
#: The number of sysmon's last pauses that tell how contended the GIL is.
WINDOW: Final = 6
#: Of them, at most this many may have ended without a wait for the GIL while hogs take turns; with
#: more, the GIL has room for another hog.
MISSES_MAX: Final = 1


class Contention:
    """How contended the GIL is."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits = 0

    def add(self, waited: bool) -> None:
        """Sysmon has woken, and had to wait for the GIL, or not."""
        self._waits = (self._waits << 1 | waited) & ((1 << WINDOW) - 1)

    @property
    def misses(self) -> int:
        """How many of the last pauses ended with the GIL free."""
        return WINDOW - self._waits.bit_count()


class Hog(Protocol):
    """A hog, as it was seen last."""

    @property
    def since_ns(self) -> int:
        """When its turn began."""

    @property
    def parked_ns(self) -> int:
        """Since when it is parked; 0: it is not."""

    @property
    def computes(self) -> bool:
        """Whether it computes; a parked thread may wait."""

    @property
    def rest_ns(self) -> int:
        """It is not to be parked before this time."""


H = TypeVar("H", bound=Hog)


class Choice(NamedTuple, Generic[H]):
    """Park one, wake one: in this order, if both are named."""

    park: H | None
    wake: H | None


def choose(hogs: Sequence[H], misses: int, now: int) -> Choice[H]:
    """Which hogs of one P to park and to wake; the GIL was free after ``misses`` of the last
    pauses.
    """
    parked = [hog for hog in hogs if hog.parked_ns]
    first = min(parked, key=lambda hog: hog.parked_ns, default=None)
    computing = [hog for hog in hogs if not hog.parked_ns and hog.computes]
    able = [hog for hog in computing if hog.rest_ns <= now]
    if misses > MISSES_MAX or not able:
        return Choice(None, first)
    oldest = min(able, key=lambda hog: hog.since_ns)
    if len(able) > 1:
        return Choice(oldest if misses == 0 else None, None)
    if first is not None and now - oldest.since_ns >= TURN_NS:
        return Choice(oldest, first)
    return Choice(None, None)
