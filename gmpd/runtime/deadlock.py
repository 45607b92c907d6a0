"""Whether a program can never continue: nothing is left that could make a G ready (Go:
``checkdead``, which counts running Ms).

Asked by the M that holds P, when it has nothing to run and no timer to wait for. A report that is
wrong ends a program that would have gone on, so whatever may still come counts: sockets, Ms in a
call, foreign threads, also those that Python does not know, signals with a handler, interval
timers, and Ctrl-C for a G that waits for an ``asyncio.Event``, as programs do that end by it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from asyncio import AbstractEventLoop
from collections.abc import Iterator
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gmpd.runtime.p import P

#: Threads that wait for Gs are looked at this often, this long apart, before the program is called
#: dead.
QUIET_LOOKS = 3
QUIET_S = 0.01

#: Modules that install handlers that wake no G: asyncio.Runner's own for Ctrl-C, which cancels
#: main, pytest-timeout's, which ends the test, and gmpd's own for SIGQUIT.
_WATCHDOGS = ("asyncio.runners", "pytest_timeout", "gmpd.runtime.sigquit")
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
#: Names of the threads of a P, which do nothing by themselves.
_OWN = ("gmpd-M", "gmpd-sysmon")
#: Where the code of ``asyncio.Event.wait`` is.
_EVENT_WAIT = asyncio.Event.wait.__code__
_TASKS = "/proc/self/task"


class Checkdead:
    """The question, for one program. Made before it begins."""

    __slots__ = ("_before",)

    def __init__(self) -> None:
        #: Threads that there were, and how often each had run.
        self._before = dict(_kernel_threads())

    def is_dead(self, p: P) -> bool:
        """Whether nothing could make a G of ``loop`` ready. Timers are the caller's."""
        return (
            is_quiet(p)
            and not _signal_may_come(p)
            and not self._unknown_thread_runs()
            and not _event_may_be_set(p)
            # A thread may have woken P and ended since the first look.
            and not (p.inbox or p.ready or p.p_callbacks.ready or p.runq)
        )

    def _unknown_thread_runs(self) -> bool:
        """Whether a thread that Python does not know was started, or has run, since the program
        began: a runtime in Rust or C, that may answer. One that has not run since (OpenBLAS keeps
        some from its import on) has nothing to answer.
        """
        known = {thread.native_id for thread in threading.enumerate()}
        return any(
            tid not in known and (self._before.get(tid) != runs or _is_runnable(tid))
            for tid, runs in _kernel_threads()
        )


def is_quiet(p: P, looks: int = QUIET_LOOKS) -> bool:
    """Whether no socket, thread of Python, or M in a call is left that could make a G ready.

    ``looks``: how often threads are looked at again that wait for Gs, and may just be woken.
    """
    if p.inbox or p.ready or p.p_callbacks.ready or len(p.loop._selector.get_map()) > 1:
        return False
    if p.detached and not waits_for_gs(p, looks):
        return False
    m0 = p.m0
    own = threading.main_thread().ident if m0 is None else m0.ident
    return not any(
        thread.ident != own and not thread.name.startswith(_OWN) for thread in threading.enumerate()
    )


def waits_for_gs(p: P, looks: int = 0) -> bool:
    """Whether each M without P waits for a channel, lock or G of this P, and so cannot continue by
    itself.

    One that was just woken still looks as if it waited; it needs the GIL to show, and gets it here.
    """
    for look in range(looks + 1):
        if not all(m.wait_reason and m.wait_reason != "syscall" for m in p.detached[:]):
            return False
        if look < looks and _is_woken(p):
            return False
    return not (p.inbox or p.ready or p.p_callbacks.ready)


def _is_woken(p: P) -> bool:
    """Whether an event arrives within ``QUIET_S``. P counts as idle meanwhile: else other threads
    would not wake it, and each of their operations would wait for the end of the look.
    """
    p.is_idle = True
    try:
        # Work queued before is_idle was set has not woken us.
        came = p.inbox or p.ready or p.p_callbacks.ready
        return bool(came or p.loop._selector.select(QUIET_S))
    finally:
        p.is_idle = False


def _signal_may_come(p: P) -> bool:
    """Whether a signal would run a handler of the program's, or an interval timer is set."""
    if p.loop._signal_handlers:
        return True
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    heard = {number for number, handler in handlers.items() if _is_heard(handler)}
    if heard:
        return True
    watched = signal.SIGALRM in handlers and callable(handlers[signal.SIGALRM])
    return any(
        signal.getitimer(timer)[0] and not (timer == signal.ITIMER_REAL and watched)
        for timer in _TIMERS
    )


def _is_heard(handler: Any) -> bool:
    """Whether it is a handler that may wake a G."""
    if not callable(handler) or handler is signal.default_int_handler:
        return False
    while isinstance(handler, partial):
        handler = handler.func
    return getattr(handler, "__module__", None) not in _WATCHDOGS


def _event_may_be_set(p: P) -> bool:
    """Whether a G waits for an ``asyncio.Event`` of ``loop``: it continues, or ends, by
    Ctrl-C.

    Every such wait is a coroutine of ``Event.wait``, and the collector knows all of them. Rejected:
    to follow each task down to it, as a generator's iterator, a wrapper with ``__await__`` written
    in C or a task of another kind on the way shows nothing of what it awaits.
    """
    return any(_waits(coro, p.loop) for coro in gc.get_referrers(_EVENT_WAIT))


def _waits(coro: object, loop: AbstractEventLoop) -> bool:
    """Whether it is a coroutine of ``Event.wait`` whose future on ``loop`` has no result yet."""
    if not isinstance(coro, CoroutineType) or coro.cr_frame is None:
        return False
    waiter = coro.cr_frame.f_locals.get("fut")
    return isinstance(waiter, asyncio.Future) and not waiter.done() and waiter.get_loop() is loop


def _is_runnable(tid: int) -> bool:
    """Whether a thread waits for a CPU, or for a disk: it was just woken, and has not run yet."""
    try:
        with open(f"{_TASKS}/{tid}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] in b"RD"
    except OSError:  # it has just ended
        return True


def _kernel_threads() -> Iterator[tuple[int, bytes]]:
    """The threads of this process, and how often each has run; empty where the kernel does not
    say.
    """
    try:
        tids = os.listdir(_TASKS)
    except OSError:
        return
    for tid in tids:
        try:
            with open(f"{_TASKS}/{tid}/schedstat", "rb") as schedstat:
                yield int(tid), schedstat.read().split()[-1]
        except FileNotFoundError:
            if os.path.exists(f"{_TASKS}/{tid}"):
                yield int(tid), b""  # a kernel that does not count
        except (OSError, IndexError):  # it has just ended
            continue
