# cython: annotation_typing=True
"""``go`` makes and queues children; ``gosched`` lets others run."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from inspect import CO_COROUTINE
from os import register_at_fork
from sys import _getframe
from typing import TYPE_CHECKING, Any, Final

from gmpd.runtime.allgs import FULL, AllGs
from gmpd.runtime.coro import PENDING, YIELD
from gmpd.runtime.followed import follow
from gmpd.runtime.g import G
from gmpd.runtime.internals import RUNNING_LOOP, running_loop  # noqa: F401 - the .pxd uses it
from gmpd.runtime.loop import AFTER_CLOSE, Loop
from gmpd.runtime.m import current_loop, current_m
from gmpd.runtime.p import P
from gmpd.runtime.roots import is_job, root
from gmpd.runtime.syncg import SyncG
from gmpd.sched.g import GEvent
from gmpd.sched.runq import RunQueue

if TYPE_CHECKING:
    import cython
else:
    from gmpd.runtime import interpreted as cython
if not cython.compiled:
    from contextvars import copy_context as current_context

    from gmpd.runtime.interpreted import (
        flags_of,
        forget,
        is_function,
        is_known,
        know,
        known_p,
        note_maker,
    )

    new: Callable[[type[G]], G] = object.__new__

COMPILED: Final = cython.compiled
if COMPILED:
    register_at_fork(after_in_child=lambda: forget())
    AFTER_CLOSE.append(lambda: forget())

#: CPython has one object for each number up to this; of larger ones each use is 32 bytes.
SMALL_MAX = 256
#: So has gmpd, for offsets in code: of functions that are not very large.
OFFSETS = tuple(range(4096))


def offset(at: int) -> int:
    """The same number, if it can be as an object that all Gs made there share."""
    return OFFSETS[at] if at < len(OFFSETS) else at


def this_loop(what: str) -> Loop:
    """The P that the caller runs on. RuntimeError, naming ``what``, if it is on none."""
    loop = running_loop() or current_loop()
    if not isinstance(loop, Loop):
        raise RuntimeError(  # noqa: TRY004 - nothing was passed that has a type
            f"{what} needs a P of gmpd, and none runs here: call it inside a job, "
            "or in a program under gmpd.run(main())"
        )
    return loop


def go(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> G:  # noqa: C901, PLR0915 - one frame
    """Start ``fn(*args, **kwargs)`` as a child G of this P; it runs next, after the caller waits or
    ends.

    ``await`` the G that is returned, or call its ``result()`` in a sync G. It runs
    anyway. TypeError if ``fn`` cannot be called (a coroutine object cannot either: pass function
    and arguments).

    In a job it may run in another worker. Then it ends with Unserializable if it returns what
    cannot be sent, such as a lock, a file or a generator. A method of an object stays home.
    """
    if COMPILED and is_known():
        p: P = known_p()
    else:
        loop = running_loop()
        if type(loop) is not Loop:
            return _go(fn, args, kwargs)
        p = loop.p
        if COMPILED:
            know(p)
    if p.tracer is not None:
        return _go(fn, args, kwargs)
    # The same as below, written out: a child costs little more than its object.
    try:
        flags = flags_of(fn) if COMPILED and is_function(fn) else fn.__code__.co_flags
    except AttributeError:
        return _go(fn, args, kwargs)
    g: G = new(G if flags & CO_COROUTINE else SyncG)
    g._p = p
    g._fn = fn
    g._coro_or_args = args
    g._value = kwargs or None
    g._send = g._fut_waiter = g._callbacks = None
    g._must_cancel = g._asyncio_future_blocking = False
    g._state = PENDING
    g._context = current_context()
    p.last_goid = g.id = p.last_goid + 1
    if p.to_follow > 0:
        follow(p, g)
    if COMPILED:
        note_maker(g)
    else:
        maker = _getframe(1)
        g.made_by = maker.f_code
        at = maker.f_lasti
        g.made_at = at if at <= SMALL_MAX else offset(at)
    gs: AllGs = p.gs
    g._among = among = gs.young
    among.add(g)
    if len(among) >= FULL:
        gs.grow()
    runq: RunQueue = p.runq
    kicked, runq.runnext = runq.runnext, g
    if kicked is not None:
        ring = runq.ring
        if len(ring) < runq.ring_max:
            ring.append(kicked)
        else:
            runq.runqput(kicked)
    return g


def gosched() -> Awaitable[None]:
    """``await gosched()``: let other runnable Gs run; this one goes to the global tail."""
    return YIELD  # type: ignore[return-value]  # no Generator, but it can be awaited


def _go(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> G:
    """``go`` from anywhere, for any callable."""
    if not callable(fn):
        raise TypeError(_not_callable(fn))
    p = this_loop("gmpd.go").p
    m = current_m()
    if m is not None and is_job(m.g) and root.get() is None:
        root.set(m.g)  # its children inherit it
    g = (G if is_async(fn) else SyncG)(p, fn, args, kwargs or None)
    maker = _getframe(0 if COMPILED else 2)  # compiled functions have no frames
    g.made_by, at = maker.f_code, maker.f_lasti
    g.made_at = offset(at)
    if p.tracer is not None:
        p.tracer(GEvent.CREATE, g)
    if p.to_follow > 0:
        follow(p, g)
    if m is None or m.g is None:
        p.gs.add(g)
        p.runq.runqput(g, True)
        return g
    # A sync G may lose its P between any two bytecodes, but not while it holds this lock.
    with p.lock:
        if p.owner is m:
            p.gs.add(g)
            p.runq.runqput(g, True)
            return g
    p.p_callbacks.threadsafe(_admit, p, g)
    return g


def _admit(p: P, g: G) -> None:
    """One that was made on a thread without P."""
    if not g.done():
        p.gs.add(g)
        p.runq.runqput(g)


def _not_callable(fn: object) -> str:
    if fn is None:
        return "go of nil func value"
    if inspect.iscoroutine(fn):
        fn.close()
        called = f"gmpd.go({fn.__name__}, ...)"
        return f"gmpd.go takes a function and its arguments, not a coroutine: {called}"
    return f"gmpd.go takes a function and its arguments; {fn!r} cannot be called"


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine, as far as can be told without calling."""
    try:
        return bool(fn.__code__.co_flags & CO_COROUTINE)
    except AttributeError:
        while isinstance(fn, partial):
            fn = fn.func
        return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
            getattr(fn, "__call__", None)  # noqa: B004 - the method itself is asked, not whether
        )
