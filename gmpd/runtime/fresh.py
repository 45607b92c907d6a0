"""Fresh Gs: calls that have not started. How they are queued, given up, started, and ended.

A sync one runs to its end here, on an M with P that is not the home M; an async one becomes a
``JobG`` that the home M drives. Three kinds wait in ``deferred`` beside the run queue until they
may start: known hogs beside a hog, one of which starts after each slice; any sync G while all Ms
are in use; and whatever ``P.holds_back`` names.

Only the M that holds P calls this, except functions that say to be thread-safe. It knows nothing of
sockets and timers. Counterparts: ``batch`` (which G is next), ``m`` (an M that loses P),
``handoffs`` (traits learned of functions).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from gmpd.runtime.callee import fn_key, fn_name
from gmpd.runtime.coro import leave_fork
from gmpd.runtime.followed import FOLLOWED, FollowedSyncG
from gmpd.runtime.g import G
from gmpd.runtime.handoffs import requeue_deferred
from gmpd.runtime.internals import set_running_loop
from gmpd.runtime.jobg import JobG
from gmpd.runtime.syncg import SyncG
from gmpd.runtime.task import Task
from gmpd.sched.g import GEvent
from gmpd.sched.sysmon import Trait, beside_ns

if TYPE_CHECKING:
    from gmpd.runtime.handoffs import Handoffs
    from gmpd.runtime.m import Ms
    from gmpd.runtime.p import M, P

#: The kinds that the run queue holds beside fresh Gs.
STARTED = frozenset({G, JobG, Task, *FOLLOWED})
#: Gs that release the GIL for long have another M stand by for P.
STANDBY = frozenset({Trait.BLOCKED, Trait.NATIVE})
#: ``start`` gives this if its M has lost P meanwhile, and has told so (``Ms.exitsyscall``).
LOST: Any = object()
#: ``len`` looks at this many queued Gs, one by one, for started ones.
COUNT_MAX = 64


class FreshG(Protocol):
    """A call that has not started: made by the worker, queued here, may be taken away again until
    started.
    """

    #: Its number on this P; 0 until the loop has given it one.
    id: int

    @property
    def fn_key(self) -> Hashable:
        """The function's key: sysmon learns per key."""

    @property
    def fn_name(self) -> str:
        """The same in words: for stacks, warnings, traces."""

    # It may have ``token``, by which a ring of events knows it; ``place``, if that is not
    # ``Place.AWAY``; ``driven``: the user's coroutine inside the one that ``start`` gave, for
    # stacks; ``is_unwanted``: whether it was asked to end, for ``gmpd.cancelled``; ``blocked`` and
    # ``was_away``, which tell it when it lost P as it blocked, and how long it waited without P;
    # ``scatter``, if it stands for several calls: each becomes a G of its own, in the run queue.

    def start(self) -> Coroutine[Any, Any, Any] | None:
        """Called once on the M that holds P, with no running loop set. Runs a sync job to its end
        and returns None, or returns a coroutine that the loop then drives. Never raises. P may be
        gone when it returns: it may touch only its own G after the user's code."""

    # Where ``P.plain_calls`` is set, a job has ``runs_beside``: whether any number of its kind may
    # run at once, as it is a coroutine, or a child of a G in another worker.

    def finished(self) -> None:
        """Called once, on the M that holds P then, after the G ended. Never raises."""


class FreshGs:
    """The fresh Gs of one P. Their number is ``len``, the global segment included."""

    __slots__ = (
        "_beside",
        "_beside_timer",
        "_deferred",
        "_handoffs",
        "_ms",
        "_p",
        "_runq",
        "_stats",
    )

    def __init__(self, p: P, ms: Ms, handoffs: Handoffs):
        self._p = p
        self._ms = ms
        self._runq = p.runq
        self._stats = p.stats
        self._handoffs = handoffs
        #: Those that may not start now.
        self._deferred = p.deferred
        #: One of them whose time has come: it starts beside the hogs.
        self._beside: Any = None
        self._beside_timer: asyncio.TimerHandle | None = None

    # ---- queued, and given up -------------------------------------------------------------------

    def put(self, g: FreshG, n: int = 1) -> None:
        """Append one to the local run queue; one that stands for ``n`` gets as many numbers."""
        if not g.id:
            p = self._p
            g.id = p.last_goid + 1
            p.last_goid += n
        self._runq.runqput(g)

    def grab_if(self, n: int, may_leave: Callable[[Any], bool]) -> list[Any]:
        """Take up to ``n`` Gs that ``may_leave`` out, the oldest first: a thief gets them."""
        taken = list(islice(filter(may_leave, self._deferred), n))
        for g in taken:
            self._deferred.remove(g)
        return taken + self._runq.grab_if(n - len(taken), may_leave)

    def remove(self, g: FreshG) -> bool:
        """Take one back; False once it has started."""
        if g in self._deferred:
            self._deferred.remove(g)
            return True
        return self._runq.runqremove(g)

    def drop(self) -> None:
        """The program is over: calls that have not begun never do, and their awaiters are told."""
        runq = self._runq
        for g in [*self._deferred, *runq.ring, *runq.global_, runq.runnext]:
            if g.__class__ is SyncCall:
                g.future.cancel()

    @property
    def stealable(self) -> int:
        """Gs queued here, without ``runnext``: an upper bound of those that could be stolen."""
        runq = self._runq
        return len(self._deferred) + len(runq) - (runq.runnext is not None)

    def __len__(self) -> int:
        return len(self._deferred) + self._runq.count_fresh(COUNT_MAX)

    # ---- started ---------------------------------------------------------------------------------

    def run(self, m: M, g: Any) -> int:  # noqa: C901, PLR0915 - what every sync G runs through
        """Start one on ``m``; a sync one runs to its end here. How long it took, in ns; below 0
        when this M lost P meanwhile."""
        p, ms = self._p, self._ms
        if (holds_back := p.holds_back) is not None and holds_back(g):
            self._defer(g, None)
            return 0
        learned = p.learned
        trait = learned.get(g.fn_key) if learned.traits else None
        crowded = len(p.detached) >= p.plain_calls
        if crowded or trait is not None:
            if (scatter := getattr(g, "scatter", None)) is not None and scatter():
                return 0
            if self._must_wait(g, trait):
                self._defer(g, trait)
                return 0
        heir = ms.reserve() if trait in STANDBY else None
        if p.is_visible:  # no task has run on this thread
            p.is_visible = False
            set_running_loop(None)
        m.start_ns = start_ns = time.monotonic_ns()
        context = m.context
        m.g = g
        if heir is not None:
            ms.standby(m, heir)
        child = (kind := g.__class__) is SyncG or kind is FollowedSyncG
        tracer = p.tracer if child else None
        if tracer is not None:
            tracer(GEvent.START, g)
        m.outcome = coro = g.start() if child else context.run(g.start)  # a child has its own
        if p.forked:
            leave_fork(0)
        if coro is LOST:
            m.outcome = g = None  # as below
            return -1
        m.tick += 1
        if m.preempt and not ms.exitsyscall(m):
            g = None  # the traceback of its error leads here: no cycle
            return -1
        m.g = None
        now = time.monotonic_ns()
        took, stats = now - start_ns, self._stats
        slice_ns = now - m.start_ns  # of one that stands for several: the last one's
        stats.slice[slice_ns.bit_length()] += 1
        stats.slice_sum_ns += slice_ns
        if coro is not None:
            m.outcome = None
            m.context = Context()
            self._adopt(g, coro, g.get_context() if child else context)
            return took
        if context:  # the G left something in it, which is no business of the next one
            m.context = Context()
        if trait is not None:
            learned.ended_in_time(g.fn_key)
        stats.finished += 1
        if tracer is not None:
            tracer(GEvent.END, g)
        g.finished()
        g = None  # as above
        return took

    def begin(self, g: Any) -> int:
        """Start one that gives a coroutine, on the home M; how long that took, in ns. P stays: what
        runs is a coroutine's beginning.
        """
        start_ns = time.monotonic_ns()
        context = Context()
        coro = context.run(g.start)
        if self._p.forked:
            leave_fork(0)
        took = time.monotonic_ns() - start_ns
        stats = self._stats
        stats.slice[took.bit_length()] += 1
        stats.slice_sum_ns += took
        if coro is not None:
            self._adopt(g, coro, context)
        else:
            stats.finished += 1
            g.finished()
        return took

    def _must_wait(self, g: Any, trait: Trait | None) -> bool:
        """A G of a known hog waits while a hog competes for the GIL, but not without bound, and a
        native one while others have all cores; a plain job while as many run as may
        (``P.plain_calls``).
        """
        if g is self._beside:
            self._beside = None
        elif rivals := self._handoffs.rivals(trait):
            if self._beside_timer is None:
                delay_s = beside_ns(rivals) / 1e9
                self._beside_timer = self._p.p_callbacks.later(delay_s, self._start_beside)
            return True
        if len(self._p.detached) < self._p.plain_calls or isinstance(g, SyncG):
            return False
        return not g.runs_beside()

    def _start_beside(self) -> None:
        """The hogs had their slices, and have not ended: the next one starts beside them. It may be
        what they wait for.
        """
        self._beside_timer = None
        if self._deferred:
            self._beside = g = self._deferred.popleft()
            self._runq.ring.appendleft(g)
            if self._deferred:
                delay_s = beside_ns(len(self._p.detached) + 1) / 1e9
                self._beside_timer = self._p.p_callbacks.later(delay_s, self._start_beside)

    def _defer(self, g: Any, trait: Trait | None) -> None:
        """It has to wait. The children behind it that call the same function would have to, too:
        looking at each of thousands by itself took 2 µs apiece, again for every hog among them.
        """
        defer = self._deferred.append
        defer(g)
        if self._p.on_defer is not None:
            self._p.on_defer(g)
        if not isinstance(g, SyncG) or trait is not Trait.HOG:
            return
        fn = g.fn
        for queue in (self._runq.ring, self._runq.global_):
            while queue and isinstance(first := queue[0], SyncG) and first._fn is fn:
                defer(queue.popleft())
            if queue:
                return

    def _adopt(self, job: FreshG, coro: Coroutine[Any, Any, Any], context: Context) -> None:
        """An async job has started: drive its coroutine. It runs next, as it would have without
        this detour.
        """
        p = self._p
        g = JobG(p, job, coro, context)
        if p.tracer is not None:
            p.tracer(GEvent.CREATE, g)
        p.gs.add(g)
        runq = self._runq
        if runq.runnext is None:
            runq.runnext = g
        else:
            runq.runqput(g, True)

    # ---- ended without P, or deferred ------------------------------------------------------------

    def requeue_deferred(self) -> None:
        """Finish Gs that ended without P, and let the deferred Gs of their functions try again."""
        p = self._p
        inbox = p.inbox
        while inbox:
            g, coro, context = inbox.popleft()
            if coro is not None:
                self._adopt(g, coro, context)
            elif g.__class__ in STARTED:
                self._runq.runqput(g)
            else:
                self._stats.finished += 1
                if p.tracer is not None and isinstance(g, SyncG):
                    p.tracer(GEvent.END, g)
                g.finished()
        requeue_deferred(p)


class SyncCall:
    """``call_sync``: a plain callable as a sync G of this P."""

    __slots__ = ("_error", "_fn", "_result", "future", "id")

    def __init__(self, p: P, fn: Callable[[], Any]):
        self._fn = fn
        self.future: asyncio.Future[Any] = p.loop.create_future()
        self._error: BaseException | None = None
        self._result: Any = None
        self.id = p.last_goid = p.last_goid + 1

    @property
    def fn_key(self) -> Hashable:
        return fn_key(self._fn)

    @property
    def is_unwanted(self) -> bool:
        return self.future.cancelled()

    @property
    def fn_name(self) -> str:
        fn = self._fn
        # Of ``blocking``: what it calls.
        inner = [arg for arg in fn.args if callable(arg)] if isinstance(fn, partial) else []
        return fn_name(inner[0] if inner else fn)

    def start(self) -> None:
        if self.future.cancelled():
            return
        try:
            self._result = self._fn()
        except BaseException as exc:  # noqa: BLE001 - it is the awaiter's, as with an executor
            self._error = exc
            self = None  # type: ignore[assignment]  # no cycle through the traceback

    def finished(self) -> None:
        if self.future.cancelled():
            return
        if self._error is None:
            self.future.set_result(self._result)
        elif isinstance(self._error, StopIteration):
            error = RuntimeError("the function raised StopIteration, which a Future cannot carry")
            error.__cause__ = self._error
            self.future.set_exception(error)
        else:
            self.future.set_exception(self._error)
        self._error = None
