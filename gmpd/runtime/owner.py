"""How a thread without P uses objects of a P: channels, locks, timers from sync Gs.

Such a thing has an owner, one event loop, and only the M that holds P of it (the thread of a plain
loop) touches its state; so async Gs need no lock. A sync G still holds P until sysmon or
``entersyscallblock`` takes it, which can happen between any two bytecodes. Hence the one rule
here: hold ``p.lock``, under which P changes hands, and see that you hold P; else send the
operation to the owner and wait for it. An operation runs no user code and never blocks, so the lock
is held for microseconds. Proof that the fast path is safe: P cannot leave while the lock is held,
and the M that has P and is inside a sync G is not running the loop.

Counterpart: ``sudog`` (how a G that holds P waits).
"""

from __future__ import annotations

from _thread import allocate_lock
from asyncio import AbstractEventLoop
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from gmpd.runtime.internals import running_loop
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import current_loop, current_m, entersyscallblock
from gmpd.runtime.p import M
from gmpd.runtime.p_callbacks import soon_threadsafe
from gmpd.runtime.spawn import go, is_async
from gmpd.runtime.sudog import Sudog, Wait

R = TypeVar("R")


def owner_loop() -> AbstractEventLoop | None:
    """The loop of the calling G, async or sync; None outside of any."""
    return running_loop() or current_loop()


class Parker:
    """A thread that waits for one Sudog, or for one operation sent to the owner (Go's ``note``)."""

    __slots__ = ("_lock", "m")

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        #: The M that gave P away to wait for this.
        self.m: M | None = None

    def ready(self, _sg: Sudog | None = None, /) -> None:
        m = self.m
        if m is None:
            self._lock.release()
        else:
            m.p.on_wait_done(m, self._lock.release)

    def sleep(self) -> None:
        """Until ``ready``, which may have been called before."""
        self._lock.acquire()


class OwnerCall:
    """An operation that another thread sends to the owner, and its outcome."""

    __slots__ = ("_attempt", "_error", "_outcome", "_parker", "_recalled")

    def __init__(self, attempt: Callable[[Parker], Any], parker: Parker):
        self._attempt = attempt
        self._parker = parker
        self._outcome: Any = None
        self._error: Exception | None = None
        self._recalled = False

    def __call__(self) -> None:
        """On the P holder: do it, or put the caller's Sudog into the queue."""
        if self._recalled:
            return
        try:
            self._outcome = self._attempt(self._parker)
        except Exception as exc:  # noqa: BLE001 - it is the caller's, on the other thread
            self._error = exc
        if not isinstance(self._outcome, Wait):
            self._parker.ready()

    def outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._outcome

    def recall(self) -> None:
        """On the P holder: the caller was interrupted and waits no more."""
        self._recalled = True
        if isinstance(self._outcome, Wait):
            self._outcome.abandon()


def run_on_owner(loop: AbstractEventLoop | None, operation: Callable[..., R], *args: Any) -> R:
    """Run an operation that never waits where ``loop``'s things may be touched, from any thread.

    Raises what it raises; RuntimeError when the loop is closed. With no loop (nothing runs yet) it
    runs here and now.
    """
    if loop is None or running_loop() is loop:
        return operation(*args)
    done, outcome = _with_p(loop, operation, *args)
    if not done:
        parker = Parker()
        call = OwnerCall(lambda _parker: operation(*args), parker)
        soon_threadsafe(loop, call)
        parker.sleep()
        outcome = call.outcome()
    return outcome  # type: ignore[no-any-return]


def wait_on_owner(
    loop: AbstractEventLoop | None, reason: str, attempt: Callable[[Parker], Any]
) -> Any:
    """Run an operation that may have to wait, from a sync G or a foreign thread; P is handed off
    for the wait.

    ``attempt(parker)`` runs on the owner. It does the operation and returns the outcome, or puts a
    Sudog with ``g`` = ``parker`` into a queue and returns that; then this returns it when it was
    served.
    """
    parker = Parker()
    if loop is None or running_loop() is loop:
        return _must_not_wait(loop, attempt(parker))
    done, outcome = _with_p(loop, attempt, parker)
    if not done:
        call = OwnerCall(attempt, parker)
        soon_threadsafe(loop, call)
        _sleep(loop, reason, parker, call.recall)
        return call.outcome()
    if isinstance(outcome, Wait):
        _sleep(loop, reason, parker, outcome.abandon)
    return outcome


def spawn(
    loop: AbstractEventLoop, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """A child that calls ``fn``, from any thread: a G as ``gmpd.go`` makes it, or a future on a
    plain loop.

    Not from within an operation at home: ``go`` takes the same lock. On a plain loop, which has
    one thread and no Ms, a plain function runs in the default executor.
    """
    if isinstance(loop, Loop):
        if owner_loop() is loop:
            return go(fn, *args, **kwargs)
        return run_on_owner(loop, partial(go, fn, *args, **kwargs))
    return run_on_owner(loop, _spawn_plain, loop, partial(fn, *args, **kwargs))


def _spawn_plain(loop: AbstractEventLoop, call: Callable[[], Any]) -> Any:
    return loop.create_task(call()) if is_async(call) else loop.run_in_executor(None, call)


def _with_p(loop: AbstractEventLoop, operation: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
    """(True, outcome) if the caller is a sync G that holds P of ``loop``; else (False, None), and
    nothing was done.
    """
    m = current_m()
    if m is None or m.p.loop is not loop:
        return False, None
    p = m.p
    with p.lock:
        if p.owner is m:
            return True, operation(*args)
    return False, None


def _sleep(
    loop: AbstractEventLoop, reason: str, parker: Parker, recall: Callable[[], object]
) -> None:
    """Wait without P. An interrupt (Ctrl-C on the main thread) takes the operation back."""
    m = current_m()
    if m is not None and m.p.owner is m:
        parker.m = m
    try:
        with entersyscallblock(reason):
            parker.sleep()
    except BaseException:
        soon_threadsafe(loop, recall)
        raise


def _must_not_wait(loop: AbstractEventLoop | None, outcome: Any) -> Any:
    if not isinstance(outcome, Wait):
        return outcome
    outcome.abandon()
    if loop is None:
        raise RuntimeError(
            f"[{outcome.reason}] would wait, but no event loop is running that could end the wait: "
            "use it inside a G, or create it there"
        )
    raise RuntimeError(
        f"[{outcome.reason}] would block the event loop from inside itself: "
        "in async code await the operation instead of using .sync"
    )
