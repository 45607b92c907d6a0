"""asyncio's face to a P: an event loop whose ready queue is the run queue of Gs.

Any asyncio library runs on it. Beside asyncio's callbacks it has a Go run queue; a round
(``_run_once``) polls sockets and timers, runs the callbacks that are ready, then a batch of Gs.
This file has the rounds, a loop's beginning and end, and asyncio's interface; the steps of a round
are in the parts that it owns (``poller``, ``fresh``, ``batch``), which share the record ``p``.

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
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from functools import partial
from heapq import heappush
from typing import Any, Final, TypeVar

from gmpd import pythons
from gmpd.runtime.batch import Batches
from gmpd.runtime.coro import leave_fork
from gmpd.runtime.followed import follow
from gmpd.runtime.fresh import STARTED, FreshGs, SyncCall
from gmpd.runtime.g import G
from gmpd.runtime.handoffs import Handoffs
from gmpd.runtime.instrument import is_instrumented, run_instrumented
from gmpd.runtime.internals import (
    DEBUG_STACK_DEPTH,
    FIRST_STEP,
    clear_current_task,
    running_loop,
    set_running_loop,
)
from gmpd.runtime.jobg import JobG
from gmpd.runtime.m import Ms, _current, current_m
from gmpd.runtime.mgc import GcController
from gmpd.runtime.overrun import Overruns, in_words, innermost, running
from gmpd.runtime.p import Face, M, P
from gmpd.runtime.p_callbacks import PCallbacks, PHandle
from gmpd.runtime.patches import Sealed
from gmpd.runtime.poller import Poller
from gmpd.runtime.stacks import p_state
from gmpd.runtime.step import is_started
from gmpd.runtime.sysmon import Sysmon
from gmpd.runtime.task import Task
from gmpd.runtime.trace import EVENTS_MAX, Tracer
from gmpd.sched.g import GEvent
from gmpd.sched.runq import RunQueue

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Threads per P; Go allows 10,000 per program. A thousand blocked threads cost about 10 MB of
#: stacks in use.
MAX_MS = 1000
MAX_MS_MIN = 2
#: Called when a loop was closed.
AFTER_CLOSE: Final[list[Callable[[], None]]] = []


def _check(max_ms: int) -> None:
    """Whether a P can be here, with this many threads."""
    pythons.require()
    if max_ms < MAX_MS_MIN:
        raise ValueError(
            f"max_ms is {max_ms}, must be at least {MAX_MS_MIN}: when a G blocks its thread, "
            "another one must hold the P"
        )


class Loop(Face, metaclass=Sealed):
    """asyncio's face to one P, and its rounds. ``max_ms`` bounds its threads."""

    def __init__(self, selector: Any = None, *, max_ms: int = MAX_MS):
        super().__init__(selector)
        try:
            _check(max_ms)
        except BaseException:
            super().close()
            raise
        #: gmpd's own callbacks.
        self.p_callbacks = PCallbacks(self, self.wake)
        #: The record that the parts take.
        # The first tick is main's: at tick 0 its ``gosched`` would come back before all others.
        self.p = p = P(self, self.p_callbacks, RunQueue(is_started, schedtick=1), max_ms)
        self._fatal: BaseException | None = None
        # The parts, lower ones first.
        self.handoffs = Handoffs(p)
        self.ms = Ms(p, self.handoffs)
        self.overruns = Overruns(p)
        self.sysmon = Sysmon(p, self.ms, self.handoffs, self.overruns)
        self.fresh = FreshGs(p, self.ms, self.handoffs)
        self.batches = Batches(p, self.ms, self.fresh)
        self.poller = Poller(p, self.ms, self.sysmon)

    # ---- what the worker and its jobs call ---------------------------------------------------

    def call_sync(self, fn: Callable[[], T]) -> asyncio.Future[T]:
        """Run ``fn`` as a sync G of this P, which is handed off if ``fn`` blocks."""
        call = SyncCall(self.p, fn)
        self.p.runq.runqput(call)
        return call.future

    def on_main_thread(self, fn: Callable[[], T]) -> T:
        """Run ``fn``, a part of the sync G that calls this, on the main thread: see ``run_on_m0``.
        A G that is there already, or none, just runs it.
        """
        m = current_m()
        if m is None or m is self.p.m0:
            return fn()
        return self.ms.run_on_m0(m, partial(copy_context().run, fn))

    def start_trace(self, limit: int = EVENTS_MAX, *, queues: bool = False) -> Tracer:
        """Record the events of Gs from the next round on, with ``queues`` also where all others
        stand then; set ``tracer`` to None to end it.
        """
        self.p.tracer = Tracer(self.time, limit, partial(p_state, self.p) if queues else None)
        return self.p.tracer

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
        m0 = self.ms.attach_m0()
        before = self._hear_signals()
        self.p.is_idle = False
        if self.sysmon.asleep:
            self.sysmon.wake()
        try:
            while not self.schedule(m0):
                self.ms.park_m0(m0)
        finally:
            if before is not None:
                signal.set_wakeup_fd(before)
            self.ms.detach_m0(previous)
            self.p.is_idle = True
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
        if self.p.tracer is not None:
            self.p.tracer(GEvent.CREATE, task)
        if self.p.to_follow > 0:
            follow(self.p, task)
        return task

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """A G that waits for a future is its callback: it is queued as it is."""
        # ``_ready`` is ``p.ready``: by the hop over P a task costs 2 to 4 % more.
        if callback.__class__ in STARTED:
            self._ready.append(callback)
            ends = callback.await_ends  # type: ignore[attr-defined]
            if ends is not None and args:
                ends(args[0], callback)
            if callback.__class__ is JobG and self.p.ring is not None:
                callback.woken(self.p.ring)
            if self.p.tracer is not None:
                self.p.tracer(GEvent.UNBLOCK, callback)
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
            (self.p_callbacks.ready if handle.__class__ is PHandle else self.p.ready).append(handle)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; nan is a ValueError."""
        return self._call_at(self.time() + delay, callback, args, context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's; nan is a ValueError."""
        return self._call_at(when, callback, args, context)

    def _call_at(
        self, when: float, callback: Callable[..., Any], args: Any, context: Context | None
    ) -> asyncio.TimerHandle:
        """Refuses nan, which asyncio takes: no timer behind it in the heap would ever fire."""
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
            self.ms.wake_m0()

    def _on_main(self, fn: Callable[[], T]) -> T:
        ms = self.ms
        m = current_m()
        if m is None or m is self.p.m0 or self.p.owner is not m or ms.m0_lent:
            return fn()  # asyncio says what is wrong, when it is not the main thread
        return ms.call_on_m0(fn)

    def main_returned(self) -> None:
        """The program is over (Go: ``main`` returns, and that is the end): children that have not
        started never do, the others are not resumed. Tasks are asyncio's, which cancels them.

        Waiters are woken when the loop runs again: a task that awaits a child is cancelled by then,
        and not a second time while it cleans up.
        """
        self.p.dropped = gs = self.p.gs.some(len(self.p.gs))
        for g in gs:
            g.drop()
        self.fresh.drop()
        # The loop stops in the round that runs the first of these.
        self.call_soon(self.call_soon, self._tell_dropped, gs)

    @staticmethod
    def _tell_dropped(gs: list[Any]) -> None:
        for g in gs:
            g.tell_dropped()

    def close(self) -> None:
        """Also ends idle Ms and sysmon. A G that blocks on another M is left to itself, as when
        main returns in Go.
        """
        already = self.is_closed()
        if not already and hasattr(self, "p") and not self.is_running():
            self.p.unretrieved.report_all()
            self._unwind()
        super().close()
        if not already and hasattr(self, "ms"):
            self.ms.close()
            self.sysmon.stop()
            if self.p.gc_controller is not None:
                self.p.gc_controller.stop()
                self.p.gc_controller = None
            self.p.deferred.clear()
            for forget in AFTER_CLOSE:
                forget()

    def _unwind(self) -> None:
        """The frames of Gs that have not ended are closed. They clean up, and may use what is at
        home here while they do: unlock, close, release.
        """
        left = [*(self.p.dropped or ()), *self.p.gs.some(len(self.p.gs))]
        self.p.dropped = None
        self.p.gs.clear()
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
        if self.p.is_idle:
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
                    if m is not self.p.m0:
                        self.ms.return_p_to_m0(m)
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
        self.p.unretrieved.reraised(exc)
        self._stopping = True
        if self.p.owner is m or self.ms.exitsyscall(m):
            m.g = None
            if self.p.is_visible:
                clear_current_task(self)
            if m is not self.p.m0:
                self.ms.return_p_to_m0(m)
            return True
        return False

    def _contain_exit(self, handle: asyncio.Handle, leaving: BaseException) -> None:
        """A callback of a job wanted to end the process, which is not its own."""
        if self.p.forked:
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
        if not self.p.is_worker:
            super().stop()
            return
        current = running(self.p)
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
        if not hasattr(self, "p") or self.p.job_scopes is None:
            self._slow_s = seconds
        else:
            self.p.job_scopes.refuse(f"slow_callback_duration = {seconds}")

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
        if self.p.aside:
            self.batches.restore()
        if m is not self.p.m0:  # asyncio sets it only in the thread of run_forever
            depth = DEBUG_STACK_DEPTH if self._debug else 0
            sys.set_coroutine_origin_tracking_depth(depth)
        if m is self.p.home:
            self.hook_asyncgens()
        self.p.is_visible = True
        set_running_loop(self)

    def hook_asyncgens(self) -> None:
        """The calling M is the home M: async generators that begin there are this loop's to close.
        Those of plain functions, on the others, are theirs alone.
        """
        sys.set_asyncgen_hooks(
            firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook
        )

    def _releasep(self, m: M) -> None:
        # These belong to the thread, not to the loop: the M that has P now has set its own.
        set_running_loop(None)
        if m is self.p.home:
            sys.set_asyncgen_hooks(None, None)

    def _run_once(self) -> bool:
        """One round: sockets, timers, callbacks, a batch of Gs. False when this M lost P."""
        m = current_m()
        timeout = self.poller.timeout()
        if (
            self.p.gc_controller is not None
            and self.p.gc_controller.due
            and self._collect(timeout != 0)
        ):
            timeout = 0  # the clock has gone on meanwhile
        if timeout == 0:
            self.poller.look()
        else:
            self.poller.idle(timeout, m)
        self.p.rounds += 1
        self.p.status_slots[0] = self.p.rounds << 1
        if self._scheduled or self.p.sleepers:
            self.poller.wake_due()
        if self.p.inbox:
            self.fresh.requeue_deferred()
        if self.p_callbacks.ready:
            self._run_own()
        if m is None or m is self.p.home:
            self._run_ready()
            if not self.p.runq or m is None:
                return True
            return self.batches.run(m) and not (self.p.left and self.ms.leave_home(m))
        if not self.p.runq:
            self.p.left = 0
        elif not self.batches.run(m):
            return False
        return not ((self.p.ready or self.p.left) and self.ms.go_home(m))

    def manage_gc(self) -> None:
        """Bound the pauses of Python's garbage collector; for a process that is gmpd's own."""
        self.p.gc_controller = GcController(partial(len, self.p.gs), self.wake)
        self.p.gc_controller.start()

    def _collect(self, idle: bool) -> bool:
        """A major pass over all garbage, if it is the time for it."""
        controller = self.p.gc_controller
        if controller is None or not (idle or controller.overdue):
            return False
        controller.major()
        return True

    def _run_own(self) -> None:
        """gmpd's own callbacks: those that are ready now, not those that they add."""
        p, ready = self.p, self.p_callbacks.ready
        watched = is_instrumented(p)
        for _ in range(len(ready)):
            p.current = handle = ready.popleft()
            if handle._cancelled:
                continue
            if watched:
                run_instrumented(p, handle)
            else:
                handle._run()
            if p.forked:
                leave_fork(0)
        p.current = handle = None  # type: ignore[assignment]  # a traceback may lead here

    def _run_ready(self) -> None:
        """asyncio's callbacks and tasks, first in first out: those that are ready now, not those
        they add.
        """
        ready = self.p.ready
        popleft = ready.popleft
        watched, dirty = is_instrumented(self.p), False
        for _ in range(len(ready)):
            self.p.current = handle = popleft()
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
                    run_instrumented(self.p, handle)
                else:
                    handle._run()
            except (KeyboardInterrupt, SystemExit) as leaving:
                if not self.p.is_worker:
                    raise
                self._contain_exit(handle, leaving)
            if self.p.forked:
                leave_fork(0)
        self.p.current = handle = None  # a traceback may lead here: no cycle
        if dirty:
            clear_current_task(self)
