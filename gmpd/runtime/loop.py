"""The P: an asyncio event loop whose ready queue is the run queue of Gs.

Any asyncio library runs on it. Beside asyncio's callbacks it has a Go run queue of fresh Gs; a
round runs the callbacks that are ready, then a batch of Gs, then polls timers and sockets.

Whichever M holds P runs the loop. Everything here is called by that M alone, except what is said to
be thread-safe.
"""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from heapq import heappop
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gmpd.runtime.m import M, Ms, _current, current_m
from gmpd.runtime.stats import Stats
from gmpd.runtime.sysmon import Sysmon
from gmpd.sched.runq import GLOBAL_EVERY, RunQueue
from gmpd.sched.sysmon import Learned, Trait

T = TypeVar("T")

#: Threads per P; Go allows 10,000 per program. A thousand blocked threads cost about 10 MB of
#: stacks in use.
MAX_MS = 1000
#: A batch of Gs ends after so long, so that sockets and timers are polled.
BATCH_NS = 2_000_000
#: asyncio's own limit for one sleep in select: longer ones overflow on some systems.
SELECT_S_MAX = 24 * 3600.0


class FreshG(Protocol):
    """A call that has not started: made by the worker, queued here, may be taken away again until
    started.
    """

    #: Which function: what sysmon learns is learned per key.
    fn_key: Hashable

    def start(self) -> Coroutine[Any, Any, Any] | None:
        """Called once on the M that holds P, with no running loop set. Runs a sync job to its end
        and returns None, or returns a coroutine that the loop then drives. Never raises. P may be
        gone when it returns: it
        may touch only its own G after the user's code."""

    def finished(self) -> None:
        """Called once, on the M that holds P then, after the G ended. Never raises."""


class Loop(asyncio.SelectorEventLoop):
    """One P. ``max_ms`` bounds its threads."""

    if TYPE_CHECKING:  # asyncio's own names that a loop is built from; typeshed leaves them out
        _clock_resolution: float
        _debug: bool
        _ready: deque[Any]
        _scheduled: list[Any]
        _selector: Any
        _stopping: bool
        _thread_id: int | None
        _timer_cancelled_count: int

        def _asyncgen_finalizer_hook(self, agen: Any) -> None: ...
        def _asyncgen_firstiter_hook(self, agen: Any) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _process_events(self, event_list: Any) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _write_to_self(self) -> None: ...

    def __init__(self, selector: Any = None, *, max_ms: int = MAX_MS):
        super().__init__(selector)
        self.stats = Stats()
        self.runq: RunQueue[Any] = RunQueue()
        self.learned = Learned()
        #: Gs that ended without P: (G, coroutine or None, key, trait). Appended by any M.
        self.inbox: deque[tuple[Any, Any, Hashable, Trait | None]] = deque()
        #: P waits in select, or does not run at all.
        self.is_idle = True
        #: Rounds of the loop: the liveness of this P.
        self.rounds = 0
        self.ms = Ms(self, max_ms)
        self.sysmon = Sysmon(self)
        self._fatal: BaseException | None = None

    # ---- fresh Gs: what the worker calls --------------------------------------------------------

    def runqput(self, g: FreshG) -> None:
        """Append a fresh G to the local run queue."""
        self.runq.runqput(g)

    def runqgrab(self, n: int) -> list[FreshG]:
        """Take up to ``n`` of the oldest not yet started fresh Gs back, for a thief."""
        return self.runq.runqgrab(n)

    def runqremove(self, g: FreshG) -> bool:
        """Take one back; False once it has started."""
        return self.runq.runqremove(g)

    @property
    def fresh_len(self) -> int:
        """Fresh Gs queued here, global segment included."""
        return len(self.runq)

    def call_sync(self, fn: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``fn`` as a sync G of this P, which is handed off if ``fn`` blocks."""
        call = SyncCall(self, fn)
        self.runq.runqput(call)
        return call.future

    # ---- the loop as asyncio knows it -----------------------------------------------------------

    def run_forever(self) -> None:
        """Run until ``stop``; the calling thread is M0 and the one that returns, whichever M holds
        P meanwhile.
        """
        self._check_closed()
        self._check_running()
        hooks = sys.get_asyncgen_hooks()
        previous = _current.m
        m0 = self.ms.attach_main()
        try:
            while not self.schedule(m0):
                m0.note.acquire()
        finally:
            self.ms.detach_main(previous)
            self.is_idle = True
            self._stopping = False
            self._thread_id = None
            sys.set_asyncgen_hooks(*hooks)
        fatal, self._fatal = self._fatal, None
        if fatal is not None:
            raise fatal

    def close(self) -> None:
        """Also ends idle Ms and sysmon. A G that blocks on another M is left to itself, as when
        main returns in Go.
        """
        already = self.is_closed()
        super().close()
        if not already and hasattr(self, "ms"):
            self.ms.close()
            self.sysmon.stop()

    def wake(self) -> None:
        """Get P out of select, if it is there. Thread-safe."""
        if self.is_idle:
            self._write_to_self()

    # ---- an M with P ----------------------------------------------------------------------------

    def schedule(self, m: M) -> bool:
        """Run the loop on ``m`` until it loses P (False) or the loop stops (True) (Go:
        ``schedule``).
        """
        self._acquirep(m)
        try:
            while self._run_once(m):
                if self._stopping:
                    if m is not self.ms.m0:
                        self.ms.to_main(m, stopping=True)
                    return True
            return False
        except BaseException as exc:  # noqa: BLE001 - leaves run_forever on M0
            return self._end_with(m, exc)
        finally:
            self._releasep()

    def _end_with(self, m: M, exc: BaseException) -> bool:
        """KeyboardInterrupt, SystemExit: leave the loop through M0, as asyncio does."""
        self._fatal = exc
        self._stopping = True
        if self.ms.owner is m or self.ms.exitsyscall(m):
            m.g = None
            if m is not self.ms.m0:
                self.ms.to_main(m, stopping=True)
            return True
        return False

    def _acquirep(self, m: M) -> None:
        self._thread_id = m.ident
        self._set_coroutine_origin_tracking(self._debug)
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )
        events._set_running_loop(self)

    def _releasep(self) -> None:
        # These belong to the thread, not to the loop: whoever has P now has set its own.
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)

    def _run_once(self, m: M | None = None) -> bool:
        """One round: due timers, sockets, callbacks, a batch of Gs. False when this M lost P."""
        if m is None:
            m = current_m()
        ready = self._ready
        timeout = self._timeout()
        if timeout != 0:
            if m is not None and m is not self.ms.m0 and self.ms.to_main(m, stopping=False):
                return False
            self.is_idle = True
            if self.inbox or ready:  # came in before is_idle was seen
                timeout = 0
        self._process_events(self._selector.select(timeout))
        if self.is_idle:
            self.is_idle = False
            if self.sysmon.asleep and m is not None:
                self.sysmon.wake()
        self.rounds += 1
        self._due_timers()
        if self.inbox:
            self._readmit()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self._run_handle(handle)
        return not self.runq or m is None or self._run_gs(m)

    def _timeout(self) -> float | None:
        """Seconds that P may sleep in select; drops cancelled timers on the way."""
        if self._ready or self._stopping or self.runq or self.inbox:
            return 0
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heappop(scheduled)._scheduled = False
        if scheduled:
            return min(max(0.0, float(scheduled[0]._when - self.time())), SELECT_S_MAX)
        return None

    def _due_timers(self) -> None:
        scheduled = self._scheduled
        if not scheduled:
            return
        end = self.time() + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            handle = heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)

    def _run_handle(self, handle: Any) -> None:
        handle._run()

    # ---- Gs -------------------------------------------------------------------------------------

    def _run_gs(self, m: M) -> bool:
        """Run fresh Gs: at most 61, for at most 2 ms. False when this M lost P in one of them."""
        get = self.runq.get
        events._set_running_loop(None)
        now = time.monotonic_ns()
        end = now + BATCH_NS
        slices = self.stats.slice
        for _ in range(GLOBAL_EVERY):
            if not self.ms.spare():
                self.stats.max_ms_waits += 1
                break
            g = get()
            if g is None:
                break
            m.start_ns = now
            m.key = g.fn_key
            m.g = g
            context = m.context
            m.outcome = coro = context.run(g.start)
            m.tick += 1
            if m.preempt and not self.ms.exitsyscall(m):
                return False
            m.g = None
            if coro is not None:
                m.outcome = None
                self._adopt(g, coro, context)
            else:
                g.finished()
            if coro is not None or len(context):
                m.context = type(context)()
            t = time.monotonic_ns()
            slices[(t - now).bit_length()] += 1
            now = t
            if now > end:
                break
        events._set_running_loop(self)
        return True

    def _adopt(self, g: FreshG, coro: Coroutine[Any, Any, Any], context: Any) -> None:
        """An async job: drive its coroutine as a started G."""
        task = self.create_task(coro, context=context)
        task.add_done_callback(lambda _: g.finished())

    def _readmit(self) -> None:
        """Finish what ended without P."""
        inbox = self.inbox
        while inbox:
            g, coro, _key, _trait = inbox.popleft()
            if coro is not None:
                self._adopt(g, coro, None)
            else:
                g.finished()

    # ---- what sysmon and a G that blocks on purpose call ---------------------------------------

    def handoff_known(self, m: M) -> None:
        """The sync G on ``m`` is about to block: hand P off now (Go: ``entersyscallblock``)."""
        if self.ms.owner is m and self.ms.handoff(m, m.tick, Trait.BLOCKED):
            self.stats.handoff_known += 1

    def handed_off(self, m: M, trait: Trait) -> None:
        """Sysmon took P from ``m``."""
        if trait is Trait.HOG:
            self.stats.handoff_hog += 1
        else:
            self.stats.handoff_blocked += 1
        self.learned.found(m.key, trait)

    def judged_again(self, m: M, tick: int, trait: Trait) -> None:
        """Sysmon looked again at a G that runs without P."""
        if m.tick == tick:
            m.trait = trait
            self.learned.found(m.key, trait)

    def check_overrun(self, now: int) -> None:
        """Sysmon found P running something other than a sync G."""


class SyncCall:
    """``call_sync``: a plain callable as a sync G of this P."""

    __slots__ = ("_error", "_fn", "_result", "fn_key", "future")

    def __init__(self, loop: Loop, fn: Callable[[], Any]):
        self._fn = fn
        self.fn_key: Any = getattr(fn, "__code__", type(fn))
        self.future: asyncio.Future[Any] = loop.create_future()
        self._error: BaseException | None = None
        self._result: Any = None

    def start(self) -> None:
        if self.future.cancelled():
            return
        try:
            self._result = self._fn()
        except BaseException as exc:  # noqa: BLE001 - it is the awaiter's, as with an executor
            self._error = exc

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
