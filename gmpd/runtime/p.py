"""The records of the scheduler: P, and M, a thread that runs Gs (Go: ``runtime2.go``).

A P is the state that its parts share: queues, flags, counters, which M holds it. It has no
behaviour; each part takes it and changes its own share. So a part uses a P's fields, and none
imports the loop, which imports them all. Parts that are lower call upward through three slots only:
``loop``, ``handoff`` and ``on_wait_done``.

The M that holds P alone writes here, except what is said to be thread-safe; any thread may read.
Slots rather than the loop's attributes: the loop has more than CPython keeps inline, and a slot of
another object costs less than one of them.
"""

from __future__ import annotations

import threading
import time
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from gmpd.runtime.allgs import AllGs
from gmpd.runtime.counts import Stats
from gmpd.runtime.internals import SelectorEventLoop
from gmpd.runtime.sleepers import Sleepers
from gmpd.runtime.unretrieved import UnretrievedErrors
from gmpd.sched.runq import RunQueue
from gmpd.sched.sysmon import Learned, Trait

if TYPE_CHECKING:
    import cython

    from gmpd.runtime.mgc import GcController
    from gmpd.runtime.p_callbacks import PCallbacks
    from gmpd.runtime.ring import Ring
    from gmpd.runtime.trace import Tracer
else:
    from gmpd.runtime import interpreted as cython
if not cython.compiled:
    from gmpd.runtime.interpreted import as_slots


class ThreadGone(Exception):
    """The thread of an M has ended inside a G: by C's ``pthread_exit``, which runs no Python."""

    def __init__(self, m: M) -> None:
        super().__init__(f"the thread of M{m.id} has ended inside {m.g or 'an async G'}")
        self.m = m


class M:
    """One operating-system thread that executes Gs."""

    __slots__ = (
        "context",
        "cpuclock",
        "g",
        "heir",
        "id",
        "ident",
        "lost_ns",
        "outcome",
        "p",
        "park_lock",
        "preempt",
        "start_ns",
        "state",
        "takeover",
        "tick",
        "tid",
        "trait",
        "wait_reason",
    )

    def __init__(self, p: P, number: int):
        self.id = number
        #: The P that it runs for, whether it holds it or not.
        self.p = p
        #: Thread id and CPU clock; set by the thread itself (Go's ``mstart``).
        self.ident = 0
        self.cpuclock = 0
        #: The kernel's own number of the thread.
        self.tid = 0
        #: For ``frames``.
        self.state = 0
        #: Parks the M while locked (Go's note).
        self.park_lock = allocate_lock()
        self.park_lock.acquire()
        #: The sync G that runs here, or None: also None while this M runs the loop itself.
        self.g: Any = None
        #: The result of ``start`` of a G that ended without P.
        self.outcome: Any = None
        self.start_ns = 0
        #: When P left the G here, which runs without it.
        self.lost_ns = 0
        #: +1 at the end of every sync G; see the delicate dance.
        self.tick = 0
        self.preempt = False
        #: Sysmon's verdict on the G here, which runs without P.
        self.trait: Trait | None = None
        #: Where the G waits, when it said so by ``entersyscallblock``.
        self.wait_reason = ""
        #: The M that has P next, woken when this M has left the loop.
        self.heir: M | None = None
        #: (M, tick): take P from that M if its G of that tick still runs.
        self.takeover: tuple[M, int] | None = None
        #: The context of the next sync G; renewed when a G left something in it.
        self.context = Context()

    def cpu_ns(self) -> int:
        """CPU time of this thread so far, from any thread; 0 once it has ended, as it may between
        two looks of sysmon. Raises ThreadGone if it has ended inside a G.
        """
        try:
            return time.clock_gettime_ns(self.cpuclock)
        except OSError:
            if self.g is not None:
                raise ThreadGone(self) from None
            return 0

    def queued(self) -> tuple[int, bool]:
        """How long this thread has stood in the kernel's run queue so far (ns; a wait that is not
        over is not in it), and whether it stands there now or runs. 12 µs each, without the GIL;
        (0, False) where the kernel does not say. Raises ThreadGone.
        """
        task = f"/proc/self/task/{self.tid}"
        try:
            with open(f"{task}/stat", "rb") as stat:
                state = stat.read().rpartition(b") ")[2][:1]
            with open(f"{task}/schedstat", "rb") as schedstat:
                waited = int(schedstat.read().split()[1])
        except (OSError, IndexError, ValueError):
            return 0, False
        if state == b"Z":  # the main thread stays for its parent, with a clock
            raise ThreadGone(self)
        return waited, state == b"R"

    def __repr__(self) -> str:
        return f"<M{self.id} g={self.g!r}>"


class Face(SelectorEventLoop):
    """The event loop of a P, as its parts and asyncio know it."""

    p: P

    def schedule(self, m: M) -> bool:
        """Run the loop on ``m`` until it loses P (False) or the loop stops (True)."""
        raise NotImplementedError

    def interrupt(self, exc: BaseException) -> None:
        """Let ``run_forever`` end with ``exc``, whichever M holds P."""
        raise NotImplementedError

    def hook_asyncgens(self) -> None:
        """The calling M is the home M from now on."""
        raise NotImplementedError

    def wake(self) -> None:
        """Get P out of select, if it is there. Thread-safe."""
        raise NotImplementedError

    def main_returned(self) -> None:
        """The program under ``gmpd.run`` is over."""
        raise NotImplementedError

    def make_task(self, coro: Coroutine[Any, Any, Any], **more: Any) -> Any:
        """A task, whatever factory was set."""
        raise NotImplementedError


class Scopes(Protocol):
    """The settings of jobs that share a loop; see ``job_scopes``."""

    scopes: dict[int, Any]

    def refuse(self, what: str) -> None:
        """A job did ``what`` to the loop, and changed nothing."""


class P:
    """One P: the right to run Gs, with its queues, timers and counters."""

    __slots__ = (
        "aside",
        "checkdead",
        "current",
        "deferred",
        "detached",
        "dropped",
        "forked",
        "gc_controller",
        "gs",
        "handoff",
        "holds_back",
        "home",
        "idle_ms",
        "inbox",
        "is_idle",
        "is_visible",
        "is_worker",
        "job_scopes",
        "last_goid",
        "learned",
        "left",
        "lock",
        "loop",
        "m0",
        "main",
        "max_ms",
        "ms_count",
        "on_attached",
        "on_defer",
        "on_detached",
        "on_gone",
        "on_poll",
        "on_wait_done",
        "owner",
        "p_callbacks",
        "plain_calls",
        "polled_ns",
        "preempt",
        "put_global",
        "ready",
        "ring",
        "rounds",
        "runq",
        "sleepers",
        "stats",
        "status_slots",
        "sysmon_ident",
        "sysmon_mask",
        "to_follow",
        "tracer",
        "turns",
        "unretrieved",
    )

    def __init__(self, loop: Face, p_callbacks: PCallbacks, runq: RunQueue, max_ms: int):
        #: asyncio's face to it.
        self.loop = loop
        self._init_queues(p_callbacks, runq)
        self._init_flags()
        self._init_ms(max_ms)
        self.stats = Stats()
        self.unretrieved = UnretrievedErrors(loop)

    def _init_queues(self, p_callbacks: PCallbacks, runq: RunQueue) -> None:
        self.runq = runq
        #: Called with each G that yields.
        self.put_global = runq.global_.append
        #: asyncio's callbacks and tasks that are ready: asyncio's own deque.
        self.ready: deque[Any] = self.loop._ready
        #: gmpd's own callbacks, which any M with P runs.
        self.p_callbacks = p_callbacks
        #: Gs in ``gmpd.sleep``; asyncio's timers are in a heap of its own.
        self.sleepers = Sleepers()
        #: Gs that ended without P: (G, coroutine or None, its context). From any M.
        self.inbox: deque[tuple[Any, Any, Any]] = deque()
        #: Fresh Gs that may not start yet.
        self.deferred: deque[Any] = deque()
        #: Whether a fresh G may not begin yet, for other reasons than those of ``fresh``: asked
        #: while it is set. Any M may take it away: read it once.
        self.holds_back: Callable[[Any], bool] | None = None
        #: Called with each fresh G that is deferred.
        self.on_defer: Callable[[Any], None] | None = None
        #: Gs of the other kind, in their order, while a batch runs.
        self.aside: list[Any] = []
        #: How many of them the last batch left for another M.
        self.left = 0
        #: Set by sysmon: a chain of ``runnext`` has lasted a slice.
        self.preempt = False
        #: Gs that have not ended: of ``gmpd.go``, and async jobs. A parked one is no garbage.
        self.gs: AllGs = AllGs()
        #: How many Gs were made here; their numbers are unique on this P, main is 1 (Go: goids).
        self.last_goid = 0
        #: Learned traits of the functions of sync Gs.
        self.learned = Learned()

    def _init_flags(self) -> None:
        #: P waits in select, or does not run at all.
        self.is_idle = True
        #: Rounds of the loop: the liveness of this P.
        self.rounds = 0
        #: For readers outside: rounds and falls asleep, since when P sleeps (ns; 0: it
        #: does not), and for how long it has slept before (ns).
        self.status_slots: Any = [0, 0, 0, 0]
        #: When sockets were looked at last: a clock that costs nothing to read.
        self.polled_ns = 0
        #: The callback or G that runs.
        self.current: Any = None
        #: Async code sees the loop as the running one; sync Gs see none, so that asyncio.run works
        #: in them.
        self.is_visible = True
        #: It is a worker's, shared by jobs: none of them can stop it, be it by SystemExit. The
        #: worker does, by ``end``.
        self.is_worker = False
        #: Keeps jobs from each other where they share the loop.
        self.job_scopes: Scopes | None = None
        #: This process is a fork that a job made, to end where the job gives control back.
        self.forked = False
        #: Minds the garbage of the process, where that is gmpd's own.
        self.gc_controller: GcController | None = None
        #: Records what happens to Gs, while a tracer listens.
        self.tracer: Tracer | None = None
        #: Keeps the last events, in a worker that traces.
        self.ring: Ring | None = None
        #: How many of the Gs that are made before the next poll have events in it.
        self.to_follow = 0
        #: Called while Gs are ready, at most every POLL_NS, and before P sleeps: (ns, or 0 then).
        self.on_poll: Callable[[int], None] | None = None
        #: Whether no G can ever become ready, which is reported: under ``gmpd.run``.
        self.checkdead: Callable[[P], bool] | None = None
        #: The coroutine whose end is that of the program: ``gmpd.run`` sets it.
        self.main: Coroutine[Any, Any, Any] | None = None
        #: Gs that outlived it, whose frames end with the loop; None: it has not ended.
        self.dropped: list[Any] | None = None

    def _init_ms(self, max_ms: int) -> None:
        #: Guards the next five. No user code runs under it. Reentrant: a finalizer may run wherever
        #: Python allocates, and may come back here.
        self.lock = threading.RLock()
        #: The M that holds P.
        self.owner: M | None = None
        self.idle_ms: list[M] = []
        #: Ms that run a G without P.
        self.detached: list[M] = []
        #: A ``turns.Turn`` for each of them that computes. Sysmon renews the list.
        self.turns: list[Any] = []
        #: Called under the lock with an M that loses P, and when its G ends or has P again.
        self.on_detached: Callable[[M], None] | None = None
        self.on_attached: Callable[[M], None] | None = None
        #: Called by sysmon for an M whose thread has ended inside a G: its locks stay held.
        self.on_gone: Callable[[M], None] | None = None
        self.ms_count = 0
        #: The M that runs callbacks and Gs of coroutines, all of them: M0, unless the main thread
        #: is lent to a plain G when such work comes up. Never in ``idle_ms``.
        self.home: M | None = None
        #: The thread that called ``run_forever``, which must be the one that returns from it. No
        #: plain G runs on it: it could block the end of the program, and signals are handled there.
        #: Never in ``idle_ms`` either.
        self.m0: M | None = None
        self.max_ms = max_ms
        #: At most this many sync jobs run at once; their children are not counted.
        self.plain_calls = 1 << 30
        #: Sysmon's thread, and the signal mask that it had before: for the threads that it starts.
        self.sysmon_ident = 0
        self.sysmon_mask: set[int] = set()
        #: Take P from an M whose G of that tick still runs: ``Ms.handoff``.
        self.handoff: Callable[[M, int, Trait | None], bool]
        #: The wait is over for which the sync G on an M gave P away: it continues, beside P.
        self.on_wait_done: Callable[[M, Callable[[], None]], None] = _wake


def _wake(_m: M, wake: Callable[[], None]) -> None:
    wake()


as_slots(P, P.__new__(P), RunQueue())  # type: ignore[possibly-undefined]
