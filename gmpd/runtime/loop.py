"""The P: an asyncio event loop whose ready queue is the run queue of Gs.

Any asyncio library runs on it. Beside asyncio's callbacks it has a Go run queue of fresh Gs; a
round runs the callbacks that are ready, then a batch of Gs, then polls timers and sockets.

Whichever M holds P runs the loop. Everything here is called by that M alone, except what is said to
be thread-safe.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from asyncio import base_events, constants, events
from asyncio.tasks import _current_tasks  # type: ignore[attr-defined]
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from contextvars import Context, copy_context
from functools import partial
from heapq import heapify, heappop
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from gmpd.errors import Deadlock
from gmpd.runtime.g import G, JobG, Steps, SyncG, Task, is_started, leave_fork
from gmpd.runtime.m import M, Ms, _current, current_m
from gmpd.runtime.mgc import Collector
from gmpd.runtime.sleepers import Sleepers
from gmpd.runtime.stacks import deadlock_text, p_state, wait_reason
from gmpd.runtime.stats import BUCKETS, Stats, unfold
from gmpd.runtime.sysmon import Sysmon
from gmpd.runtime.trace import EVENTS_MAX, Tracer
from gmpd.sched.g import GEvent
from gmpd.sched.runq import RunQueue
from gmpd.sched.sysmon import LEARNED_MAX, SLICE_NS, Learned, Trait

T = TypeVar("T")

log = logging.getLogger(__name__)

#: What the run queue holds beside fresh Gs.
STARTED = frozenset({G, JobG, Task})
#: Frames of these say nothing about where a G is.
_NOT_USERS = (os.path.dirname(__file__), os.path.dirname(os.__file__), "<frozen")

#: Threads per P; Go allows 10,000 per program. A thousand blocked threads cost about 10 MB of
#: stacks in use.
MAX_MS = 1000
MAX_MS_MIN = 2
#: A batch of Gs ends after so long, so that sockets and timers are polled.
BATCH_NS = 2_000_000
#: The clock is read after so many Gs: one read is a fifth of a G switch. As many run in a round
#: even if callbacks of asyncio are always ready.
CLOCK_EVERY = 16
#: Sockets are polled at most so often while Gs are ready. A poll lets go of the GIL, and wakes
#: sysmon if that waits for it: 16 us each, 8 % of all time when it was done every 200 us. (Go polls
#: every 10 ms while every P is busy.)
POLL_NS = 1_000_000
#: A probe that did not come up again for so long was stolen: another is chosen.
PROBE_NS_MAX = 1_000_000_000
#: Fewer cancelled timers than this are left to come up by themselves (asyncio's own limit).
SWEEP_MIN = 100
#: Threads that wait for Gs are looked at so often, this long apart, before the program is called
#: dead.
QUIET_LOOKS = 3
QUIET_S = 0.01
#: ``fresh_len`` looks at so many queued Gs, one by one, for started ones.
COUNT_MAX = 64
#: asyncio's own limit for one sleep in select: longer ones overflow on some systems.
SELECT_S_MAX = 24 * 3600.0


class FreshG(Protocol):
    """A call that has not started: made by the worker, queued here, may be taken away again until
    started.
    """

    #: Its number on this P; 0 until the loop has given it one.
    id: int

    @property
    def fn_key(self) -> Hashable:
        """Which function: what sysmon learns is learned per key."""

    @property
    def fn_name(self) -> str:
        """The same in words: for stacks, warnings, traces."""

    # It may have ``driven``: the user's coroutine inside the one that ``start`` gave, for stacks.

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
        _csock: Any
        _clock_resolution: float
        _current_handle: Any
        _closed: bool
        _debug: bool
        _ready: deque[Any]
        _scheduled: list[Any]
        _selector: Any
        _stopping: bool
        _task_factory: Any
        _thread_id: int | None
        _timer_cancelled_count: int
        slow_callback_duration: float

        def _asyncgen_finalizer_hook(self, agen: Any) -> None: ...
        def _asyncgen_firstiter_hook(self, agen: Any) -> None: ...
        def _check_closed(self) -> None: ...
        def _check_running(self) -> None: ...
        def _process_events(self, event_list: Any) -> None: ...
        def _set_coroutine_origin_tracking(self, enabled: bool) -> None: ...
        def _write_to_self(self) -> None: ...

    def __init__(self, selector: Any = None, *, max_ms: int = MAX_MS):
        super().__init__(selector)
        if max_ms < MAX_MS_MIN:
            super().close()
            raise ValueError(
                f"max_ms is {max_ms}, must be at least {MAX_MS_MIN}: when a G blocks its thread, "
                "another one must hold the P"
            )
        self.stats = Stats()
        self.runq: RunQueue[Any] = RunQueue(is_started)
        #: Fresh Gs that may not start now: known hogs beside a hog, any while all Ms are in use.
        self.held: deque[Any] = deque()
        #: How many Gs were made here; their numbers are unique on this P, main is 1 (Go: goids).
        self.made = 0
        #: Gs of ``gmpd.go`` and async jobs that have not ended. Strong: a parked G is never
        #: collected.
        self.gs: set[G] = set()
        #: Gs in ``gmpd.sleep``; asyncio's timers are in a heap of its own.
        self.sleepers = Sleepers()
        self.learned = Learned()
        #: Gs that ended without P: (G, coroutine or None, its context). Appended by any M.
        self.inbox: deque[tuple[Any, Any, Any]] = deque()
        #: P waits in select, or does not run at all.
        self.is_idle = True
        #: Rounds of the loop: the liveness of this P.
        self.rounds = 0
        #: For who watches from outside: rounds and falls asleep, since when P sleeps (ns; 0: it
        #: does not), and for how long it has slept before (ns).
        self.board: Any = [0, 0, 0]
        self.ms = Ms(self, max_ms)
        self.sysmon = Sysmon(self)
        #: Minds the garbage of the process, where that is gmpd's own.
        self.collector: Collector | None = None
        self._fatal: BaseException | None = None
        #: Records what happens to Gs, while somebody listens.
        self.tracer: Tracer | None = None
        #: Called while Gs are ready, at most every POLL_NS, and before P sleeps: (ns, or 0 then).
        self.on_poll: Callable[[int], None] | None = None
        #: The clock that ends batches, in ns.
        self.batch_clock: Callable[[], int] = time.monotonic_ns
        #: Report a deadlock when no G can ever become ready (``gmpd.run`` sets it; a worker's P
        #: waits for jobs).
        self.checkdead = False
        #: It is a worker's, shared by jobs: none of them can stop it, be it by SystemExit. The
        #: worker does, by ``end``.
        self.shared = False
        #: This process is a fork that a job made, to end where the job gives control back.
        self.forked = False
        #: The callback or G that runs.
        self.current: Any = None
        #: Set by sysmon: a chain of ``runnext`` has lasted a slice.
        self.preempt = False
        self._shown = True
        self._async_keys: set[Hashable] = set()
        self._named: set[str] = set()
        #: When sockets were looked at last: a clock that costs nothing to read.
        self.polled_ns = 0
        #: The G whose wait in the ring is being measured, and since when.
        self._probe: Any = None
        self._probe_ns = 0

    # ---- fresh Gs: what the worker calls --------------------------------------------------------

    def runqput(self, g: FreshG) -> None:
        """Append a fresh G to the local run queue."""
        if not g.id:
            g.id = self.made = self.made + 1
        self.runq.runqput(g)

    def runqgrab(self, n: int) -> list[FreshG]:
        """Take up to ``n`` of the oldest not yet started fresh Gs back, for a thief."""
        taken: list[FreshG] = []
        while self.held and len(taken) < n:
            taken.append(self.held.popleft())
        return taken + self.runq.runqgrab(n - len(taken))

    def grab_if(self, n: int, may_leave: Callable[[Any], bool]) -> list[Any]:
        """Take up to ``n`` Gs that ``may_leave`` out, the oldest first, for a thief."""
        taken = [g for g in self.held if may_leave(g)][:n]
        for g in taken:
            self.held.remove(g)
        return taken + self.runq.grab_if(n - len(taken), may_leave)

    @property
    def stealable_len(self) -> int:
        """Gs queued here, without ``runnext``: an upper bound of what could be given away."""
        return len(self.held) + len(self.runq) - (self.runq.runnext is not None)

    def runqremove(self, g: FreshG) -> bool:
        """Take one back; False once it has started."""
        if g in self.held:
            self.held.remove(g)
            return True
        return self.runq.runqremove(g)

    @property
    def fresh_len(self) -> int:
        """Fresh Gs queued here, global segment included."""
        return len(self.held) + self.runq.count_fresh(COUNT_MAX)

    def call_sync(self, fn: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``fn`` as a sync G of this P, which is handed off if ``fn`` blocks."""
        call = SyncCall(self, fn)
        self.runq.runqput(call)
        return call.future

    def on_main_thread(self, fn: Callable[[], T]) -> T:
        """Run ``fn``, a part of the sync G that calls this, on the main thread: see ``lend_main``.
        A G that is there already, or none, just runs it.
        """
        m = current_m()
        if m is None or m is self.ms.m0:
            return fn()
        return self.ms.lend_main(m, partial(copy_context().run, fn))

    def start_trace(self, limit: int = EVENTS_MAX, *, queues: bool = False) -> Tracer:
        """Record what happens to Gs from the next round on, with ``queues`` also where all others
        stand then; set ``tracer`` to None to end it.
        """
        self.tracer = Tracer(self.time, limit, partial(p_state, self) if queues else None)
        return self.tracer

    # ---- the loop as asyncio knows it -----------------------------------------------------------

    def run_forever(self) -> None:
        """Run until ``stop``; the calling thread is M0 and the one that returns, whichever M holds
        P meanwhile.
        """
        self._check_closed()
        self._check_running()
        self._set_coroutine_origin_tracking(self._debug)
        hooks = sys.get_asyncgen_hooks()
        previous = _current.m
        m0 = self.ms.attach_main()
        before = self._hear_signals()
        self.is_idle = False
        if self.sysmon.asleep:
            self.sysmon.wake()
        try:
            while not self.schedule(m0):
                self.ms.park_main(m0)
        finally:
            if before is not None:
                signal.set_wakeup_fd(before)
            self.ms.detach_main(previous)
            self.is_idle = True
            self._stopping = False
            self._thread_id = None
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*hooks)
        fatal, self._fatal = self._fatal, None
        if fatal is not None:
            raise fatal

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, T], *, name: Any = None, context: Any = None, **more: Any
    ) -> asyncio.Task[T]:
        """A task is a G. A task factory that was set is asked instead, as asyncio does."""
        self._check_closed()
        if self._task_factory is not None:
            return super().create_task(coro, name=name, context=context, **more)
        if more.get("eager_start"):
            return asyncio.Task(coro, loop=self, name=name, context=context, **more)
        task = Task(coro, loop=self, name=name, context=context)
        if self._debug:
            task.forget_frame()
        if self.tracer is not None:
            self.tracer(GEvent.CREATE, task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """A G that waits for a future is its callback: it is queued as it is."""
        if callback.__class__ in STARTED:
            self._ready.append(callback)
            if self.tracer is not None:
                self.tracer(GEvent.UNBLOCK, callback)
            return callback  # type: ignore[return-value]  # a future does not look at it
        if self._debug or self._closed:
            slow = super().call_soon(callback, *args, context=context)
            if slow._source_traceback:  # type: ignore[attr-defined]
                del slow._source_traceback[-1]  # type: ignore[attr-defined]
            return slow
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def add_signal_handler(self, sig: int, callback: Callable[..., Any], *args: Any) -> None:  # type: ignore[override]
        """As asyncio's, from whichever thread holds P: the main thread does it."""
        self._on_main(partial(super().add_signal_handler, sig, callback, *args))

    def remove_signal_handler(self, sig: int) -> bool:
        """As asyncio's, from whichever thread holds P."""
        ask_asyncio = super().remove_signal_handler

        def remove() -> bool:
            removed = ask_asyncio(sig)
            if self.is_running():
                self._hear_signals()  # asyncio stops to listen with its last handler
            return removed

        return self._on_main(remove)

    def _hear_signals(self) -> int | None:
        """Have every signal wake P, which wakes M0 for it: Python runs handlers on the main thread
        only, and one that has just gone to sleep in a lock does not notice. The descriptor that was
        told before; None on any other thread, which can hear none.
        """
        if threading.current_thread() is not threading.main_thread():
            return None
        try:
            return signal.set_wakeup_fd(self._csock.fileno(), warn_on_full_buffer=False)
        except ValueError:  # the main thread of an interpreter that is not the main one
            return None

    def _process_self_data(self, data: bytes) -> None:
        super()._process_self_data(data)  # type: ignore[misc]
        if any(data):  # else it was only to wake P
            self.ms.poke_main()

    def _on_main(self, fn: Callable[[], T]) -> T:
        ms = self.ms
        m = current_m()
        if m is None or m is ms.m0 or ms.owner is not m or ms.lent:
            return fn()  # asyncio says what is wrong, when it is not the main thread
        return ms.on_main(fn)

    def close(self) -> None:
        """Also ends idle Ms and sysmon. A G that blocks on another M is left to itself, as when
        main returns in Go.
        """
        already = self.is_closed()
        super().close()
        if not already and hasattr(self, "ms"):
            self.ms.close()
            self.sysmon.stop()
            if self.collector is not None:
                self.collector.stop()
                self.collector = None
            self.gs.clear()
            self.held.clear()

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
            while self._run_once() is not False:  # a test may put its own in its place
                if self._stopping:
                    if m is not self.ms.m0:
                        self.ms.to_main(m)
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
            _current_tasks.pop(self, None)
            if m is not self.ms.m0:
                self.ms.to_main(m)
            return True
        return False

    def _stay(self, handle: asyncio.Handle, leaving: BaseException) -> None:
        """A callback of a job wanted to end the process, which is not its own."""
        if self.forked:
            leave_fork(1)
        self.default_exception_handler(
            {
                "message": f"{_named(handle)} raised {type(leaving).__name__}:"
                " it ends that callback alone, the worker goes on",
                "exception": leaving,
                "handle": handle,
            }
        )

    def stop(self) -> None:
        """As asyncio's; a loop that jobs share does not listen to them, and says so."""
        if not self.shared:
            super().stop()
            return
        current = _current_tasks.get(self) or self.current
        log.warning(
            "%s called stop() of its worker's event loop at %s: ignored, other jobs run on it. "
            "Return from the job instead",
            "a sync G" if current is None else _named(current),
            innermost(sys._getframe(1)),
        )

    def end(self) -> None:
        """Stop, whoever shares it: the worker's own word."""
        super().stop()

    def interrupt(self, exc: BaseException) -> None:
        """Let ``run_forever`` end with ``exc``, whichever M holds P."""
        self._fatal = exc
        self._stopping = True
        self._write_to_self()

    def _acquirep(self, m: M) -> None:
        self._thread_id = m.ident
        if m is not self.ms.m0:  # asyncio sets it once, for the thread of run_forever
            depth = constants.DEBUG_STACK_DEPTH if self._debug else 0
            sys.set_coroutine_origin_tracking_depth(depth)
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )
        self._show(True)

    def _releasep(self) -> None:
        # These belong to the thread, not to the loop: whoever has P now has set its own.
        events._set_running_loop(None)
        sys.set_asyncgen_hooks(None, None)

    def _run_once(self) -> bool:
        """One round: sockets, timers, callbacks, a batch of Gs. False when this M lost P."""
        m = current_m()
        timeout = self._timeout()
        if self.collector is not None and self.collector.due and self._collect(timeout != 0):
            timeout = 0  # the clock has gone on meanwhile
        if timeout == 0:
            now = time.monotonic_ns()
            if not self.runq or now - self.polled_ns > POLL_NS:
                self.polled_ns = now
                self._netpoll(0)
                if self.on_poll is not None:
                    self.on_poll(now)
        else:
            self._idle(timeout, m)
        self.rounds += 1
        self.board[0] = self.rounds << 1
        if self._scheduled:
            self._due_timers()
        if self.sleepers:
            self.stats.timer += self.sleepers.wake(self.time() + self._clock_resolution)
        if self.inbox:
            self._readmit()
        self._run_ready()
        return not self.runq or m is None or self._run_gs(m)

    def mind_garbage(self) -> None:
        """Bound the pauses of Python's garbage collector; for a process that is gmpd's own."""
        self.collector = Collector(partial(len, self.gs), self.wake)
        self.collector.start()

    def _collect(self, idle: bool) -> bool:
        """A major pass over all garbage, if it is the time for it."""
        collector = self.collector
        if collector is None or not (idle or collector.overdue):
            return False
        collector.major()
        return True

    def _netpoll(self, timeout: float | None) -> None:
        found = self._selector.select(timeout)
        if found:
            self.stats.poller += len(found)
            self._process_events(found)

    def _idle(self, timeout: float | None, m: M | None) -> None:
        """Nothing is ready: wait for a socket, the next timer, or a wake-up from another thread."""
        if timeout is None and self.checkdead and self._is_dead():
            self.checkdead = False  # once: the end of the program may wait again
            raise Deadlock(deadlock_text(self))
        self.is_idle = True
        if self.on_poll is not None:
            self.on_poll(0)
        self.board[0] = self.rounds << 1 | 1
        self.board[1] = start = time.monotonic_ns()
        # What came in before is_idle could be seen did not wake us.
        self._netpoll(0 if self.inbox or self._ready else timeout)
        self.polled_ns = now = time.monotonic_ns()
        self.stats.idle_ns += now - start
        self.board[2] = self.stats.idle_ns
        self.board[1] = 0
        self.is_idle = False
        if self.sysmon.asleep and m is not None:
            self.sysmon.wake()

    def _is_dead(self) -> bool:
        """Whether nothing is left that could make a G ready: no timer, socket, M in a call, foreign
        thread.

        Go decides by the number of running Ms (``checkdead``).
        """
        if self.inbox or self._ready or len(self._selector.get_map()) > 1:
            return False
        if self.ms.detached and not self._all_wait_for_gs():
            return False
        main = threading.main_thread()
        return not any(
            thread is not main and not thread.name.startswith("gmpd-")
            for thread in threading.enumerate()
        )

    def _all_wait_for_gs(self) -> bool:
        """Whether each M without P waits for a channel, lock or G of this P, and so cannot go on by
        itself.

        One that was just woken still looks as if it waited; it needs the GIL to show, and gets it
        here.
        """
        for _ in range(QUIET_LOOKS):
            if not all(m.wait_reason and m.wait_reason != "syscall" for m in self.ms.detached[:]):
                return False
            if self.inbox or self._ready or self._selector.select(QUIET_S):
                return False
        return True

    def _run_ready(self) -> None:
        """asyncio's callbacks and tasks, first in first out: those that are ready now, not those
        they add.
        """
        ready = self._ready
        popleft = ready.popleft
        watched, dirty = self._watched, False
        for _ in range(len(ready)):
            self.current = handle = popleft()
            kind = handle.__class__
            if kind is Task or kind is G or kind is JobG:
                dirty = True
            else:
                if dirty:
                    _current_tasks.pop(self, None)
                    dirty = False
                if handle._cancelled:
                    continue
            try:
                if watched:
                    self._run_watched(handle)
                else:
                    handle._run()
            except (KeyboardInterrupt, SystemExit) as leaving:
                if not self.shared:
                    raise
                self._stay(handle, leaving)
            if self.forked:
                leave_fork(0)
        self.current = handle = None  # a traceback may lead here: no cycle
        if dirty:
            _current_tasks.pop(self, None)

    def _timeout(self) -> float | None:
        """Seconds that P may sleep in select; drops cancelled timers on the way."""
        if self._timer_cancelled_count > SWEEP_MIN:
            self._sweep_timers()
        if self._ready or self._stopping or self.runq or self.inbox:
            return 0
        when = self._next_timer()
        return None if when is None else min(max(0.0, when - self.time()), SELECT_S_MAX)

    def _next_timer(self) -> float | None:
        """When the next timer or sleeper is due, on the loop's clock; drops cancelled ones."""
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heappop(scheduled)._scheduled = False
        sleeper = self.sleepers.next() if self.sleepers else None
        if not scheduled:
            return sleeper
        when = float(scheduled[0]._when)
        return when if sleeper is None else min(when, sleeper)

    def _sweep_timers(self) -> None:
        """Forget cancelled timers when they are more than a quarter (Go: ``timers.adjust``)."""
        scheduled = self._scheduled
        if self._timer_cancelled_count * 4 <= len(scheduled):
            return
        alive = []
        for handle in scheduled:
            if handle._cancelled:
                handle._scheduled = False
            else:
                alive.append(handle)
        heapify(alive)
        scheduled[:] = alive
        self._timer_cancelled_count = 0

    def _due_timers(self) -> None:
        scheduled = self._scheduled
        if not scheduled:
            return
        end = self.time() + self._clock_resolution
        while scheduled and scheduled[0]._when < end:
            handle = heappop(scheduled)
            handle._scheduled = False
            self._ready.append(handle)
            self.stats.timer += 1

    def _run_watched(self, handle: Any) -> None:
        """A step in debug mode (slow ones are named, as asyncio does) or under a tracer."""
        tracer = self.tracer
        if tracer is not None and isinstance(handle, Steps):
            tracer(GEvent.START, handle)
            handle._run()
            self._trace_end_of_step(tracer, handle)
            return
        if not self._debug:
            handle._run()
            return
        self._current_handle = handle
        try:
            start = self.time()
            handle._run()
            took = self.time() - start
            if took >= self.slow_callback_duration:
                base_events.logger.warning(  # type: ignore[attr-defined]
                    "Executing %s took %.3f seconds", _shown(handle), took
                )
        finally:
            self._current_handle = handle = None  # a traceback may lead here: no cycle

    def _trace_end_of_step(self, tracer: Tracer, g: Any) -> None:
        if g.done():
            tracer(GEvent.END, g)
        elif g._fut_waiter is not None:
            tracer(GEvent.BLOCK, g, wait_reason(g._fut_waiter))
        else:
            tracer(GEvent.STOP, g)

    @property
    def _watched(self) -> bool:
        return self._debug or self.tracer is not None

    # ---- Gs -------------------------------------------------------------------------------------

    def _run_gs(self, m: M) -> bool:  # noqa: C901, PLR0915 - what everything runs through
        """Run Gs until none is left or it is time to poll. False when this M lost P in one of them.

        The first of a handful is picked by all of Go's rules; the others from ``runnext`` and ring
        alone, up to the next look at the global queue.
        """
        runq = self.runq
        get, popleft, ring = runq.get, runq.ring.popleft, runq.ring
        clock = self.batch_clock
        end = clock() + BATCH_NS
        watched, probe, hidden = self._watched, self._probe, False
        main, handful = m is self.ms.m0, 0
        ran = 0
        while (g := get()) is not None:
            # Small at first: the Gs of this batch may be long, and each is given its own look.
            left = total = min(runq.unchecked(), handful)
            handful = min(2 * handful + 1, CLOCK_EVERY)
            inherited = 0
            while True:
                if g is probe:
                    probe = self._latency()
                kind = g.__class__
                if kind is G or kind is JobG or kind is Task:
                    if hidden:
                        hidden = self._show(True)
                    g._run() if not watched else self._run_watched(g)
                elif main and self.ms.leave_main(partial(runq.putback, g)):
                    runq.picked(total - left - inherited, inherited)
                    return False
                else:
                    hidden = True
                    took = self._run_fresh(m, g)
                    if took < 0:
                        runq.picked(total - left - inherited, inherited)
                        return False
                    if took > POLL_NS:  # or a handful of them would keep P from its sockets
                        break
                if left == 0:
                    break
                g = runq.runnext
                if g is not None:
                    runq.runnext = None
                    inherited += 1
                elif ring:
                    g = popleft()
                else:
                    break
                left -= 1
            runq.picked(total - left - inherited, inherited)
            ran += total - left + 1
            # At the tick that looks at the global queue a handful is one G: not all of a round.
            waiting = self._ready or self.inbox
            if (waiting and ran >= CLOCK_EVERY) or self._stopping or clock() > end:
                break
        self._end_batch()
        return True

    def _end_batch(self) -> None:
        self.current = None
        _current_tasks.pop(self, None)
        if not self._shown:
            self._show(True)
        runq = self.runq
        if self.preempt:  # sysmon: a chain of runnext has used up its slice
            self.preempt = False
            runq.kick_runnext()
        if runq.ring and (self._probe is None or self._probe_ns + PROBE_NS_MAX < self.polled_ns):
            self._probe = runq.ring[-1]
            self._probe_ns = time.monotonic_ns()

    def _latency(self) -> Any:
        """The probe, once the last in the ring, is about to run."""
        waited = time.monotonic_ns() - self._probe_ns
        self._probe = None
        self.stats.sched_latency[waited.bit_length()] += 1
        self.stats.sched_latency_sum_ns += waited
        return None

    def _show(self, shown: bool) -> bool:
        """Sync Gs see no running loop, so that asyncio.run works in them. Returns whether it is
        hidden.
        """
        self._shown = shown
        events._set_running_loop(self if shown else None)
        return not shown

    def _run_fresh(self, m: M, g: Any) -> int:  # noqa: C901 - what every sync G runs through
        """Start a fresh G; a sync one runs to its end here. How long it took, in ns; below 0 when
        this M lost P meanwhile."""
        trait = self.learned.get(g.fn_key) if self.learned.traits else None
        ms = self.ms
        full = ms.count >= ms.max_ms and not ms.idle
        if (full or trait is not None) and self._must_wait(g.fn_key, trait):
            self.held.append(g)
            return 0
        heir = ms.reserve() if trait is Trait.BLOCKED else None
        if self._shown:
            self._show(False)
        m.start_ns = start_ns = time.monotonic_ns()
        context = m.context
        m.g = g
        if heir is not None:
            ms.standby(m, heir)
        child = g.__class__ is SyncG
        tracer = self.tracer if child else None
        if tracer is not None:
            tracer(GEvent.START, g)
        m.outcome = coro = g.start() if child else context.run(g.start)  # a child has its own
        if self.forked:
            leave_fork(0)
        m.tick += 1
        if m.preempt and not ms.exitsyscall(m):
            return -1
        m.g = None
        took = time.monotonic_ns() - start_ns
        stats = self.stats
        stats.slice[took.bit_length()] += 1
        stats.slice_sum_ns += took
        if coro is not None:
            m.outcome = None
            m.context = Context()
            self._adopt(g, coro, g.get_context() if child else context)
            return took
        if context:  # the G left something in it, which is no business of the next one
            m.context = Context()
        if trait is not None:
            self.learned.ended_in_time(g.fn_key)
        stats.finished += 1
        if tracer is not None:
            tracer(GEvent.END, g)
        g.finished()
        return took

    def _must_wait(self, key: Hashable, trait: Trait | None) -> bool:
        """A G of a known hog waits while a hog competes for the GIL; any sync G while no M is left
        to take P.
        """
        if trait is Trait.HOG and self.hogs():
            return True
        if self.ms.spare() or key in self._async_keys:
            return False
        self.stats.max_ms_waits += 1
        return True

    def _adopt(self, job: FreshG, coro: Coroutine[Any, Any, Any], context: Context) -> None:
        """An async job has started: drive its coroutine. It runs next, as it would have without
        this detour.
        """
        key = job.fn_key
        if key not in self._async_keys and len(self._async_keys) < LEARNED_MAX:
            self._async_keys.add(key)
        g = JobG(self, job, coro, context)
        if self.tracer is not None:
            self.tracer(GEvent.CREATE, g)
        self.gs.add(g)
        runq = self.runq
        if runq.runnext is None:
            runq.runnext = g
        else:
            runq.runqput(g, True)

    def _readmit(self) -> None:
        """Finish what ended without P, and let those try again that had to wait for it."""
        inbox = self.inbox
        while inbox:
            g, coro, context = inbox.popleft()
            if coro is not None:
                self._adopt(g, coro, context)
            elif g.__class__ in STARTED:
                self.runq.runqput(g)
            else:
                self.stats.finished += 1
                if self.tracer is not None and g.__class__ is SyncG:
                    self.tracer(GEvent.END, g)
                g.finished()
        held = self.held
        if held:
            self.runq.ring.extendleft(reversed(held))
            held.clear()

    # ---- what it counts
    # ---------------------------------------------------------------------------

    def counters(self) -> tuple[int, ...]:
        """``stats.COUNTERS``, about 2 µs: since the loop was made, and what is here now. Any thread
        may ask; the values of one answer may be a few Gs apart.
        """
        runq, ms, stats, collector = self.runq, self.ms, self.stats, self.collector
        ticks, held = runq.schedtick, len(self.held)
        blocked, known, learned = stats.handoff_blocked, stats.handoff_known, stats.handoff_learned
        passes = (0, 0, 0) if collector is None else collector.snapshot().values()
        return (
            ticks, blocked + known + learned, len(runq) + held, held, ms.count, len(ms.idle),
            stats.max_ms_waits, stats.overruns, runq.overflows, self.made, stats.finished,
            runq.inherited, ticks - runq.global_picks, runq.global_picks, stats.poller, stats.timer,
            blocked, stats.handoff_hog, known, learned,
            len(self.gs), len(ms.detached), *passes,
            stats.born_ns, stats.blocked_ns,
        )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        """The same with names, and as the daemon's snapshot has it."""
        return unfold(self.counters(), time.monotonic_ns(), *self.board[1:])

    def histograms(self) -> list[tuple[list[int], int]]:
        """Buckets and sum (ns) of each of ``stats.HISTOGRAMS``."""
        stats, collector = self.stats, self.collector
        none: tuple[list[int], int] = [0] * BUCKETS, 0
        return [
            (stats.slice, stats.slice_sum_ns),
            (stats.sched_latency, stats.sched_latency_sum_ns),
            none if collector is None else (collector.pause, collector.pause_sum_ns),
        ]

    # ---- what sysmon and a G that blocks on purpose call ---------------------------------------

    def handoff_known(self, m: M) -> None:
        """The sync G on ``m`` is about to block: hand P off now (Go: ``entersyscallblock``)."""
        if self.forked:  # nobody is there to give P to, nor to end the wait
            leave_fork(1)
        if self.ms.owner is m and self.ms.handoff(m, m.tick, None):
            self.stats.handoff_known += 1
            self._trace_syscall(m)

    def handed_off(self, m: M, tick: int, trait: Trait) -> None:
        """Sysmon took P from ``m``."""
        if trait is Trait.HOG:
            self.stats.handoff_hog += 1
        else:
            self.stats.handoff_blocked += 1
            self.stats.blocked_ns += time.monotonic_ns() - m.start_ns
        g = m.g
        if g is not None and m.tick == tick:  # in this order: it ends by counting up, then goes
            self.learned.found(g.fn_key, trait)
        self._trace_syscall(m)

    def _trace_syscall(self, m: M) -> None:
        tracer, g = self.tracer, m.g
        if tracer is not None and g.__class__ is SyncG:
            tracer(GEvent.SYSCALL_BEGIN, g, f"M{m.id}")

    def taken_over(self, m: M) -> None:
        """A standby M took P from ``m``: its G is known to block. ``ms.lock`` is held."""
        self.stats.handoff_learned += 1
        self._trace_syscall(m)

    def ended_without_p(self, m: M) -> None:
        """The G on ``m`` ended after it had lost P; was it worth it? ``ms.lock`` is held.

        A standby M takes P whenever the G lets go of the GIL, be it for a microsecond: so time
        decides.
        """
        if m.trait is Trait.BLOCKED:
            if time.monotonic_ns() - m.start_ns < SLICE_NS:
                self.learned.ended_in_time(m.g.fn_key)
            else:
                self.learned.found(m.g.fn_key, Trait.BLOCKED)

    def judged_again(self, m: M, tick: int, trait: Trait) -> None:
        """Sysmon looked again at a G that runs without P."""
        g = m.g
        if g is None or m.tick != tick or m.wait_reason:
            return
        if m.trait is not trait:
            m.trait = trait
            self.learned.found(g.fn_key, trait)
            if trait is Trait.BLOCKED:
                self._readmit_soon()

    def _readmit_soon(self) -> None:
        """Those that wait for a hog to end may try again. Thread-safe."""
        if self.held:
            self.call_soon_threadsafe(self._readmit)

    def hogs(self) -> int:
        """How many Gs without P compete with it for the GIL."""
        return sum(m.trait is Trait.HOG for m in self.ms.detached[:])

    def step(self) -> object:
        """What P is at, to compare: while it stays equal, no other callback or G has begun."""
        return self.rounds, self.current, _current_tasks.get(self)

    def overran(self, m: M) -> None:
        """Sysmon found one step of async code that lasts longer than a slice. Counted always, named
        once per place.
        """
        current = _current_tasks.get(self) or self.current
        if current is None:  # between two steps
            return
        self.stats.overruns += 1
        if _is_own(current):  # counted; but nobody who reads it could mend gmpd
            return
        frame = sys._current_frames().get(m.ident)
        place = innermost(frame)
        if place in self._named:
            return
        if len(self._named) < LEARNED_MAX:
            self._named.add(place)
        log.warning(
            "%s holds P for more than 10 ms at %s: nothing else runs on it meanwhile. "
            "Await more often, or make it a plain function",
            _named(current),
            place,
        )


def _shown(handle: Any) -> str:
    """A callback as asyncio shows it: one that runs a Task is shown as that Task."""
    if isinstance(handle, Steps):
        return repr(handle)
    task = getattr(handle._callback, "__self__", None)
    return repr(task) if isinstance(task, asyncio.Task) else str(handle)


def _named(current: Any) -> str:
    """A G or a callback, shortly."""
    if isinstance(current, Steps):
        return f"{current.get_name()} ({current.fn_name})"
    callback = getattr(current, "_callback", current)
    return f"callback {getattr(callback, '__qualname__', callback)}"


def _is_own(current: Any) -> bool:
    """Whether it is a callback of gmpd itself."""
    if isinstance(current, Steps):
        return False
    callback = getattr(current, "_callback", current)
    while isinstance(callback, partial):
        callback = callback.func
    return str(getattr(callback, "__module__", "")).partition(".")[0] == "gmpd"


def innermost(frame: FrameType | None) -> str:
    """``file:line in function`` of the frame that runs, past the frames of this runtime and the
    standard library.
    """
    chosen = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if "site-packages" in file or not file.startswith(_NOT_USERS):
            chosen = frame
            break
        frame = frame.f_back
    if chosen is None:
        return "an unknown place"
    code = chosen.f_code
    return f"{code.co_filename}:{chosen.f_lineno} in {code.co_qualname}"


class SyncCall:
    """``call_sync``: a plain callable as a sync G of this P."""

    __slots__ = ("_error", "_fn", "_result", "fn_key", "future", "id")

    def __init__(self, loop: Loop, fn: Callable[[], Any]):
        self._fn = fn
        self.fn_key: Any = getattr(fn, "__code__", type(fn))
        self.future: asyncio.Future[Any] = loop.create_future()
        self._error: BaseException | None = None
        self._result: Any = None
        self.id = loop.made = loop.made + 1

    @property
    def fn_name(self) -> str:
        fn = self._fn.args[0] if isinstance(self._fn, partial) and self._fn.args else self._fn
        return str(getattr(fn, "__qualname__", type(fn).__name__))

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
