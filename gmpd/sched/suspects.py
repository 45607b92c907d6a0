"""Functions whose jobs end their workers, again and again; and how their jobs run from then on.

**The tension.** A job that ends its worker takes its neighbours with it. A function that did so
three times within a minute will do it again; but most of its jobs may be innocent (a library that
crashes on one input in twenty), and their client waits for them.

**Rejected.** To refuse the function's jobs for a while: the innocent ones fail too, and a client
sees failures that depend on other clients' jobs. To stop leasing, or the daemon: then one function
ends the work of all clients. To isolate its jobs: an option that their author chooses, because they
run in another process and lose the state that they share.

**Chosen.** Its jobs wait in a queue of their own, leave it one at a time, and not before a pause
since the last death that a suspect caused. So all suspects together cost a bounded number of
workers per second, all other jobs run meanwhile, and each of theirs still runs. Suspicion
ends a while after the last death.
"""

from __future__ import annotations

from gmpd.sched.globq import GlobalQueue
from gmpd.sched.records import Function

#: Deaths within ``MEMORY_NS`` that make a function suspect.
KILLS = 3
MEMORY_NS = 60_000_000_000
#: Pause after the death that made it suspect; doubles with each further one up to the second value.
PAUSE_MIN_NS = 50_000_000
PAUSE_MAX_NS = 400_000_000


class Suspects:
    """The waiting jobs of suspect functions; which functions are, is written on them."""

    def __init__(self) -> None:
        self.queue = GlobalQueue()
        #: None of them is leased before.
        self.after_ns = 0
        #: When to look at them even if nothing happens until then: as leasing saw it last.
        self.next_due: int | None = None

    def __repr__(self) -> str:
        return f"<Suspects: {self.queue!r}, none before {self.after_ns} ns>"

    def ended_worker(self, fn: Function, now: int) -> None:
        """A worker died while it ran a job of ``fn``."""
        recent = [at for at in fn.kills if at > now - MEMORY_NS]
        fn.kills = (*recent[-KILLS * 4 :], now)
        if len(fn.kills) >= KILLS:
            pause = min(PAUSE_MAX_NS, PAUSE_MIN_NS << (len(fn.kills) - KILLS))
            self.after_ns = max(self.after_ns, now + pause)

    def is_suspect(self, fn: Function, now: int) -> bool:
        """Whether jobs of ``fn`` wait here instead of in the global queue."""
        kills = fn.kills
        return len(kills) >= KILLS and kills[-KILLS] > now - MEMORY_NS

    def may_go(self, now: int) -> bool:
        """Whether the pause since the last death is over."""
        waits = self.queue.length > 0
        self.next_due = self.after_ns if waits and now < self.after_ns else None
        return waits and self.next_due is None
