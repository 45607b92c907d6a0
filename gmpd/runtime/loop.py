"""The P: an asyncio event loop whose ready queue is the run queue of Gs.

Any asyncio library runs on it. Beside asyncio's callbacks it has a Go run queue; a round
(``_run_once``) polls sockets and timers, runs the callbacks that are ready, then a batch of Gs.
Here are the rounds, how a loop begins and ends, and what asyncio asks of one; the steps of a round
are in the parts that it owns: ``poller``, ``fresh``, ``batch``.

Whichever M holds P runs the loop. Its home M runs callbacks and Gs of coroutines, the others plain
Gs, and P passes between the two when the kind of work changes: once each way in a round at most.
gmpd's own callbacks (``p_callbacks``) are run by either. Everything here is called by the M that
holds P alone, except what is said to be thread-safe.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from heapq import heappush
from typing import Any, TypeVar

from gmpd import pythons
from gmpd.runtime.allgs import AllGs
from gmpd.runtime.batch import Batches
from gmpd.runtime.counts import Stats
from gmpd.runtime.deadlock import Checkdead
from gmpd.runtime.fresh import STARTED, FreshGs, SyncCall
from gmpd.runtime.g import G
from gmpd.runtime.handoffs import Handoffs
from gmpd.runtime.instrument import is_instrumented, run_instrumented
from gmpd.runtime.internals import (
    DEBUG_STACK_DEPTH,
    FIRST_STEP,
    SelectorEventLoop,
    clear_current_task,
    running_loop,
    set_running_loop,
)
from gmpd.runtime.jobg import JobG
from gmpd.runtime.m import M, Ms, _current, current_m
from gmpd.runtime.mgc import Collector
from gmpd.runtime.overrun import Overruns, in_words, innermost, running
from gmpd.runtime.p_callbacks import PCallbacks, PHandle
from gmpd.runtime.patches import Sealed
from gmpd.runtime.poller import Poller
from gmpd.runtime.sleepers import Sleepers
from gmpd.runtime.stacks import p_state
from gmpd.runtime.steps import is_started, leave_fork
from gmpd.runtime.sysmon import Sysmon
from gmpd.runtime.task import Task
from gmpd.runtime.trace import EVENTS_MAX, Tracer
from gmpd.runtime.unheard import UnheardErrors
from gmpd.sched.g import GEvent
from gmpd.sched.runq import RunQueue

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Threads per P; Go allows 10,000 per program. A thousand blocked threads cost about 10 MB of
#: stacks in use.
MAX_MS = 1000
MAX_MS_MIN = 2


def _check(max_ms: int) -> None:
    """Whether a P can be here, with this many threads."""
    pythons.require()
    if max_ms < MAX_MS_MIN:
        raise ValueError(
            f"max_ms is {max_ms}, must be at least {MAX_MS_MIN}: when a G blocks its thread, "
            "another one must hold the P"
        )


class Loop(SelectorEventLoop, metaclass=Sealed):
    """One P. ``max_ms`` bounds its threads."""

    #: Keeps jobs from each other where they share the loop.
    neighbours: Any = None

    def __init__(self, selector: Any = None, *, max_ms: int = MAX_MS):
        super().__init__(selector)
        try:
            _check(max_ms)
        except BaseException:
            super().close()
            raise
        self.stats = Stats()
        # The first tick is main's: at tick 0 its ``gosched`` would come back before all others.
        self.runq: RunQueue[Any] = RunQueue(is_started, schedtick=1)
        #: How many Gs were made here; their numbers are unique on this P, main is 1 (Go: goids).
        self.made = 0
        #: Gs that have not ended: of ``gmpd.go``, and async jobs. A parked one is no garbage.
        self.gs: AllGs[Any] = AllGs()
        #: Gs in ``gmpd.sleep``; asyncio's timers are in a heap of its own.
        self.sleepers = Sleepers()
        #: Gs that ended without P: (G, coroutine or None, its context). From any M.
        self.inbox: deque[tuple[Any, Any, Any]] = deque()
        #: P waits in select, or does not run at all.
        self.is_idle = True
        #: Rounds of the loop: the liveness of this P.
        self.rounds = 0
        #: For who watches from outside: rounds and falls asleep, since when P sleeps (ns; 0: it
        #: does not), and for how long it has slept before (ns).
        self.board: Any = [0, 0, 0]
        #: Minds the garbage of the process, where that is gmpd's own.
        self.collector: Collector | None = None
        self._fatal: BaseException | None = None
        #: Records what happens to Gs, while a tracer listens.
        self.tracer: Tracer | None = None
        #: Called while Gs are ready, at most every POLL_NS, and before P sleeps: (ns, or 0 then).
        self.on_poll: Callable[[int], None] | None = None
        #: Report a deadlock when no G can ever become ready: under ``gmpd.run``.
        self.checkdead: Checkdead | None = None
        #: The coroutine whose end is that of the program: ``gmpd.run`` sets it.
        self.main: Coroutine[Any, Any, Any] | None = None
        #: Gs that outlived it, whose frames end with the loop; None: it has not ended.
        self.dropped: list[G] | None = None
        self.unheard = UnheardErrors(self)
        #: It is a worker's, shared by jobs: none of them can stop it, be it by SystemExit. The
        #: worker does, by ``end``.
        self.shared = False
        #: This process is a fork that a job made, to end where the job gives control back.
        self.forked = False
        #: The callback or G that runs.
        self.current: Any = None
        #: Async code sees this loop as the running one; sync Gs see none, so that asyncio.run works
        #: in them.
        self.shown = True
        #: When sockets were looked at last: a clock that costs nothing to read.
        self.polled_ns = 0
        # Its parts, each with what it alone knows.
        self.p_callbacks = PCallbacks(self)
        self.ms = Ms(self, max_ms)
        self.sysmon = Sysmon(self)
        self.overruns = Overruns(self)
        self.handoffs = Handoffs(self)
        self.fresh = FreshGs(self)
        self.batches = Batches(self)
        self.poller = Poller(self)

    # ---- what the worker and its jobs call ---------------------------------------------------

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
            given = {"name": name, "context": context, **more}  # a factory may know none of them
            return super().create_task(coro, **{k: v for k, v in given.items() if v is not None})
        return self.make_task(coro, name=name, context=context, **more)

    def make_task(
        self, coro: Coroutine[Any, Any, T], *, name: Any = None, context: Any = None, **more: Any
    ) -> asyncio.Task[T]:
        """A task whatever factory was set. One that starts eagerly is asyncio's own."""
        if more and (more.get("eager_start") or set(more) > {"eager_start"}):
            return asyncio.Task(coro, loop=self, name=name, context=context, **more)
        task = Task(coro, loop=self, name=name, context=context)
        if self._debug:
            task.forget_own_frames()
        if self.tracer is not None:
            self.tracer(GEvent.CREATE, task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """A G that waits for a future is its callback: it is queued as it is."""
        if callback.__class__ in STARTED:
            self._ready.append(callback)
            ends = callback.await_ends  # type: ignore[attr-defined]
            if ends is not None and args:
                ends(args[0], callback)
            if self.tracer is not None:
                self.tracer(GEvent.UNBLOCK, callback)
            return callback  # type: ignore[return-value]  # a future does not look at it
        if callback.__class__ is FIRST_STEP and callback.__self__.__class__ in STARTED:  # type: ignore[attr-defined]
            return callback  # type: ignore[return-value]  # one of ours: it queues itself
        if self._debug or self._closed:
            slow = super().call_soon(callback, *args, context=context)
            if slow._source_traceback:  # type: ignore[attr-defined]
                del slow._source_traceback[-1]  # type: ignore[attr-defined]
            return slow
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def _add_callback(self, handle: asyncio.Handle) -> None:
        """A socket is ready: queue its callback; gmpd's own have a queue for themselves."""
        if not handle._cancelled:
            (self.p_callbacks.ready if handle.__class__ is PHandle else self._ready).append(handle)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, but for nan."""
        return self._call_at(self.time() + delay, callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, but for nan."""
        return self._call_at(when, callback, args, context)

    def _call_at(
        self, when: float, callback: Callable[..., Any], args: Any, context: Context | None
    ) -> asyncio.TimerHandle:
        """Refuses nan, which asyncio takes: no timer behind that in the heap would ever fire,
        whoever's it is.
        """
        if when != when:
            raise ValueError("cannot wait until nan: it is not a number")
        if self._debug or self._closed or when is None:
            slow = super().call_at(when, callback, *args, context=context)
            if slow._source_traceback:  # type: ignore[attr-defined]
                del slow._source_traceback[-2:]  # type: ignore[attr-defined]
            return slow
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heappush(self._scheduled, timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        return timer

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
        super()._process_self_data(data)
        if any(data):  # else it was only to wake P
            self.ms.poke_main()

    def _on_main(self, fn: Callable[[], T]) -> T:
        ms = self.ms
        m = current_m()
        if m is None or m is ms.m0 or ms.owner is not m or ms.lent:
            return fn()  # asyncio says what is wrong, when it is not the main thread
        return ms.on_main(fn)

    def main_returned(self) -> None:
        """The program is over (Go: ``main`` returns, and that is the end): children that have not
        started never do, the others are not resumed. Tasks are asyncio's, which cancels them.
        """
        self.dropped = self.gs.some(len(self.gs))
        for g in self.dropped:
            g.drop()
        self.fresh.drop()

    def close(self) -> None:
        """Also ends idle Ms and sysmon. A G that blocks on another M is left to itself, as when
        main returns in Go.
        """
        already = self.is_closed()
        if not already and hasattr(self, "unheard") and not self.is_running():
            self.unheard.tell_all()
            self._unwind()
        super().close()
        if not already and hasattr(self, "ms"):
            self.ms.close()
            self.sysmon.stop()
            if self.collector is not None:
                self.collector.stop()
                self.collector = None
            self.fresh.deferred.clear()

    def _unwind(self) -> None:
        """The frames of Gs that have not ended are closed. They clean up, and may use what is at
        home here while they do: unlock, close, release.
        """
        left = [*(self.dropped or ()), *self.gs.some(len(self.gs))]
        self.dropped = None
        self.gs.clear()
        running = running_loop()
        set_running_loop(self)
        try:
            while left:
                g = left.pop()
                try:
                    if (coro := g.get_coro()) is not None:
                        coro.close()
                except BaseException as error:  # noqa: BLE001 - of the user's cleaning up
                    self.call_exception_handler(
                        {"message": f"{g!r} raised when the loop was closed", "exception": error}
                    )
        finally:
            set_running_loop(running)

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
            self._releasep(m)
            if m.heir is not None:
                self.ms.wake_heir(m)

    def _end_with(self, m: M, exc: BaseException) -> bool:
        """KeyboardInterrupt, SystemExit: leave the loop through M0, as asyncio does."""
        self._fatal = exc
        self.unheard.leaves(exc)
        self._stopping = True
        if self.ms.owner is m or self.ms.exitsyscall(m):
            m.g = None
            if self.shown:
                clear_current_task(self)
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
                "message": f"{in_words(handle)} raised {type(leaving).__name__}:"
                " only that callback ends, the worker continues",
                "exception": leaving,
                "handle": handle,
            }
        )

    def stop(self) -> None:
        """As asyncio's; a loop that jobs share does not listen to them, and says so."""
        if not self.shared:
            super().stop()
            return
        current = running(self)
        log.warning(
            "%s called stop() of its worker's event loop at %s: ignored, other jobs run on it. "
            "Return from the job instead",
            "a sync G" if current is None else in_words(current),
            innermost(sys._getframe(1)),
        )

    @property
    def slow_callback_duration(self) -> float:
        """As asyncio's; of a loop that jobs share, none of them can set it."""
        return self._slow_s

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds: float) -> None:
        if self.neighbours is None:
            self._slow_s = seconds
        else:
            self.neighbours.refuse(f"slow_callback_duration = {seconds}")

    def end(self) -> None:
        """Stop, although jobs share it: for the worker itself."""
        super().stop()

    def interrupt(self, exc: BaseException) -> None:
        """Let ``run_forever`` end with ``exc``, whichever M holds P."""
        self._fatal = exc
        self._stopping = True
        self._write_to_self()

    def _acquirep(self, m: M) -> None:
        self._thread_id = m.ident
        if self.batches.aside:
            self.batches.restore()
        if m is not self.ms.m0:  # asyncio sets it once, for the thread of run_forever
            depth = DEBUG_STACK_DEPTH if self._debug else 0
            sys.set_coroutine_origin_tracking_depth(depth)
        if m is self.ms.home:
            self.mind_generators()
        self.shown = True
        set_running_loop(self)

    def mind_generators(self) -> None:
        """The calling M is the home M: async generators that begin there are this loop's to close.
        Those of plain functions, on the others, are theirs alone.
        """
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )

    def _releasep(self, m: M) -> None:
        # These belong to the thread, not to the loop: whoever has P now has set its own.
        set_running_loop(None)
        if m is self.ms.home:
            sys.set_asyncgen_hooks(None, None)

    def _run_once(self) -> bool:
        """One round: sockets, timers, callbacks, a batch of Gs. False when this M lost P."""
        m = current_m()
        timeout = self.poller.timeout()
        if self.collector is not None and self.collector.due and self._collect(timeout != 0):
            timeout = 0  # the clock has gone on meanwhile
        if timeout == 0:
            self.poller.look()
        else:
            self.poller.idle(timeout, m)
        self.rounds += 1
        self.board[0] = self.rounds << 1
        if self._scheduled or self.sleepers:
            self.poller.wake_due()
        if self.inbox:
            self.fresh.requeue_deferred()
        if self.p_callbacks.ready:
            self.p_callbacks.run()
        if m is None or m is self.ms.home:
            self._run_ready()
            if not self.runq or m is None:
                return True
            return self.batches.run(m) and not (self.batches.left and self.ms.leave_home(m))
        if not self.runq:
            self.batches.left = 0
        elif not self.batches.run(m):
            return False
        return not ((self._ready or self.batches.left) and self.ms.go_home(m))

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

    def _run_ready(self) -> None:
        """asyncio's callbacks and tasks, first in first out: those that are ready now, not those
        they add.
        """
        ready = self._ready
        popleft = ready.popleft
        watched, dirty = is_instrumented(self), False
        for _ in range(len(ready)):
            self.current = handle = popleft()
            kind = handle.__class__
            if kind is Task or kind is G or kind is JobG:
                dirty = True
            else:
                if dirty:
                    clear_current_task(self)
                    dirty = False
                if handle._cancelled:
                    continue
            try:
                if watched:
                    run_instrumented(self, handle)
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
            clear_current_task(self)

    def show(self, shown: bool) -> bool:
        """Set whether this loop is seen as the running one. Returns whether it is hidden."""
        if not shown:
            clear_current_task(self)  # a loop that a sync G runs has a current task of its own
        self.shown = shown
        set_running_loop(self if shown else None)
        return not shown
