"""The rules of sysmon: hand P off, wait, or look again. No thread, no clock in
here.

A sync G keeps its P for one slice. After that P goes to another M in any case; *why* the G held it
decides about the next steps: a blocked one costs its worker nothing any more, a hog competes for
the GIL, a native one computes in C code that has released it and competes for a core alone. Blocked
is told by the CPU clock of the G's thread between two looks; hogs and native ones by whether sysmon
has to sleep for the GIL when it wakes.

A step of async code keeps its P. It is reported when it computed for a slice, or blocks; a thread
that was merely preempted, on a machine with more to run than cores, has done nothing wrong.

Rejected: how often the G's thread sleeps (one that is preempted by a waiter for its GIL does not);
counting a G as blocked by its wait channel in /proc (a thread that waits for the GIL
looks the same); an own timer per G (most end within microseconds). Counterpart:
``gmpd.runtime.sysmon``, which looks and acts.
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Final

#: A slice: one G may hold its P this long (Go: ``forcePreemptNS``).
SLICE_NS: Final = 10_000_000
#: Two looks at a CPU clock must lie this far apart, or scheduling noise decides.
LOOK_NS: Final = 2_000_000
#: A thread that used less than a fiftieth of the time between two looks was not computing. A hog
#: gets its share even beside others, on a machine that is busy too; a blocked thread gets exactly
#: nothing.
BUSY_SHARE: Final = 50
#: A step of async code has used its slice by computing when its thread had this much CPU: three
#: quarters, since sysmon itself and interrupts take some.
BURNT_NS: Final = SLICE_NS * 3 // 4
#: A G without P is looked at again after 10, 20, 40 ... ms, at most every minute (Go doubles its
#: sleep too).
RELOOK_NS_MAX: Final = 60_000_000_000
#: Evidence needed to forget: this many ends in a row without the trait.
TRUST: Final = 3
#: At most this many functions are remembered; the oldest goes first. Only functions with a trait
#: are.
LEARNED_MAX: Final = 4096


#: While this many hogs or fewer run without P, a further call waits one slice of each before the
#: next one starts. Beyond, ever longer: every thread that competes for the GIL delays P by 5 ms a
#: turn.
CROWD: Final = 8
#: Sysmon must have woken this often before it concludes anything about the GIL.
PASSES_MIN: Final = 3
#: Native code takes the GIL back between two calls, and P has it at times: sysmon waits less often
#: than at every fourth wake-up.
NATIVE_SHARE: Final = 4


class Trait(Enum):
    """Why a G kept its P too long."""

    BLOCKED = "blocked"
    HOG = "hog"
    NATIVE = "native"


def judge(cpu_ns: int, wall_ns: int) -> Trait | None:
    """Blocked or hog, by CPU time used in ``wall_ns``; None: too early to tell."""
    if wall_ns < LOOK_NS:
        return None
    return Trait.HOG if cpu_ns * BUSY_SHARE >= wall_ns else Trait.BLOCKED


def is_blocked(cpu_ns: int, waited_ns: int, wall_ns: int, *, runnable: bool) -> bool:
    """Whether a thread with so little CPU time waits for anything but a CPU.

    ``waited_ns``: how long in ``wall_ns`` it stood in the kernel's run queue. ``runnable``: it
    stands there now, or runs; such a wait is in no counter before it is over.
    """
    return not runnable and max(cpu_ns, waited_ns) * BUSY_SHARE < wall_ns


def is_native(waits: int, passes: int) -> bool | None:
    """Whether a thread computed without the GIL, while sysmon woke ``passes`` times and slept for
    the GIL at ``waits`` of them; None: too few to tell.
    """
    return None if passes < PASSES_MIN else waits * NATIVE_SHARE < passes


def beside_ns(hogs: int) -> int:
    """How long one more call of a hog's function waits while ``hogs`` compete for the GIL.

    Not for ever: they may spin until it has started. (Go preempts each after a slice, and all get
    their turn.)
    """
    return SLICE_NS * hogs * max(1, hogs - CROWD + 2)


def relook_ns(interval_ns: int) -> int:
    """The pause before the next look at a G that runs without P."""
    return min(interval_ns * 2, RELOOK_NS_MAX)


class Learned:
    """Functions that blocked or hogged, by key: the next G of such a function is treated so at
    once.
    """

    __slots__ = ("traits",)

    def __init__(self) -> None:
        #: Key to (trait, trust); callers that only need to know whether there is any look here.
        self.traits: dict[Hashable, tuple[Trait, int]] = {}

    def __len__(self) -> int:
        return len(self.traits)

    def get(self, key: Hashable) -> Trait | None:
        known = self.traits.get(key)
        return known[0] if known else None

    def found(self, key: Hashable, trait: Trait) -> None:
        """A G of this function was seen so: remember it anew, whatever was thought before."""
        self.traits.pop(key, None)
        if len(self.traits) >= LEARNED_MAX:
            del self.traits[next(iter(self.traits))]
        self.traits[key] = (trait, TRUST)

    def ended_in_time(self, key: Hashable) -> None:
        """A G of this function ended within its slice, still holding P: one step to forgetting."""
        known = self.traits.get(key)
        if known is None:
            return
        trait, trust = known
        if trust > 1:
            self.traits[key] = (trait, trust - 1)
        else:
            del self.traits[key]
