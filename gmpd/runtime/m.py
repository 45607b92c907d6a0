"""Ms: the threads of a worker, and which of them holds P.

One M holds P and runs the loop. When its G blocks or hogs, P goes to another M (``handoff``), and
the old M ends its G without P, puts it into P's inbox and parks (``exitsyscall``).

The delicate dance between an M whose G ends and a sysmon that takes P from it: M counts ``tick``
up, then reads ``preempt``; sysmon sets ``preempt``, then reads ``tick``. In either order, either
sysmon sees that the G is over and leaves P alone, or M sees ``preempt`` and asks, under the lock,
which M holds P. So a G that ends in time costs two attribute accesses and no lock.

This file knows nothing of tasks; of the queues it asks only whether a plain G is next.
Counterparts: ``loop`` (what an M with P does), ``sysmon`` (which takes P away).
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from _thread import allocate_lock, get_ident, get_native_id
from collections import deque
from collections.abc import Callable
from contextvars import Context
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from gmpd.runtime.coro import AWAY, leave_fork
from gmpd.runtime.frames import own_state
from gmpd.runtime.handoffs import requeue_deferred
from gmpd.runtime.p import Face, M, P
from gmpd.runtime.ring import Kind
from gmpd.sched.sysmon import Trait

if TYPE_CHECKING:
    from gmpd.runtime.handoffs import Handoffs

log = logging.getLogger(__name__)

T = TypeVar("T")

#: An M that found nothing to do for this long ends. Long enough to bridge the gaps of a bursty
#: load, short enough that a thousand threads of one burst are not kept for hours.
IDLE_S_MAX = 10.0

#: Threads of a P beside the Ms that are counted: M0 and sysmon.
OWN_THREADS = 2

#: A G without P that is found so has a thread that computes.
COMPUTING = frozenset({Trait.HOG, Trait.NATIVE})


class _Current(threading.local):
    m: M | None = None


_current = _Current()


def minit(m: M) -> None:
    """Called once, on the thread itself."""
    _looked_at_here(m)
    _current.m = m


def _looked_at_here(m: M) -> None:
    """Show the calling thread to observers of ``m``."""
    m.ident = get_ident()
    m.cpuclock = time.pthread_getcpuclockid(m.ident)
    m.tid = get_native_id()
    m.state = own_state()


class M0Call:
    """A call that only the main thread may make."""

    __slots__ = ("done", "error", "fn", "outcome")

    def __init__(self, fn: Callable[[], Any]):
        self.fn = fn
        self.outcome: Any = None
        self.error: Exception | None = None
        self.done = allocate_lock()
        self.done.acquire()

    def run(self) -> None:
        try:
            self.outcome = self.fn()
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            self.error = exc
        self.done.release()


class Ms:
    """Moves one P between its Ms, and starts and ends them."""

    def __init__(self, p: P, handoffs: Handoffs):
        self._p = p
        self._handoffs = handoffs
        self._m0_calls: deque[M0Call] = deque()
        self._number = 0
        self.closed = False
        #: Parts of sync Gs that the main thread runs or is to run: see ``run_on_m0``.
        self.m0_lent = 0
        p.handoff = self.handoff

    def spare(self) -> bool:
        """Whether P could be handed off now: an M is idle, or one more is allowed."""
        return bool(self._p.idle_ms) or self._p.ms_count < self._p.max_ms

    def others(self) -> bool:
        """Whether this process has threads that may want the GIL, beside the M with P and sysmon:
        Ms whose G runs without P, and threads of the user's.
        """
        return bool(self._p.detached) or threading.active_count() > self._p.ms_count + OWN_THREADS

    def attach_m0(self) -> M:
        """The calling thread becomes M0 and takes P."""
        m = self._p.m0 = self._p.home = M(self._p, 0)
        minit(m)
        with self._p.lock:
            self._p.owner = m
        return m

    def detach_m0(self, previous: M | None) -> None:
        """``run_forever`` returns: the thread is no M of this loop any more. Only M0 calls it,
        holding P.
        """
        with self._p.lock:
            if self._p.m0 is not None:
                self._p.m0.state = 0
            self._p.m0 = self._p.home = self._p.owner = None
        _current.m = previous

    def handoff(self, m: M, tick: int, trait: Trait | None) -> bool:
        """Take P from ``m`` if its sync G of that ``tick`` still runs, and give it to another M.

        False when the G is over, or ``max_ms`` leaves no M to give P to (Go: ``retake`` and
        ``handoffp``).
        """
        with self._p.lock:
            if self._p.owner is not m:
                return False
            m.preempt = True
            heir = self._mheir() if m.g is not None and m.tick == tick else None
            if heir is None:
                m.preempt = False
                return False
            self._pass(m, heir, trait)
        self._wake(heir)
        return True

    def _pass(self, m: M, heir: M, trait: Trait | None) -> None:
        """``m`` continues with its G without P. The lock is held."""
        m.trait = trait
        m.lost_ns = time.monotonic_ns()
        self._p.detached.append(m)
        if self._p.on_detached is not None:
            self._p.on_detached(m)
        self._p.owner = heir
        self._handoffs.on_handoffp(m)

    def reserve(self) -> M | None:
        """An M for ``standby``, its thread running; None at ``max_ms``."""
        with self._p.lock:
            heir = self._mget()
        if heir is not None:
            self._start(heir)
        return heir

    def standby(self, m: M, heir: M) -> None:
        """``m`` starts a G that is known to block: ``heir`` takes P as soon as it can run.

        It can run when the G releases the GIL by blocking, so the GIL itself tells that it did. A G
        that does not block ends before ``heir`` comes to look.
        """
        heir.takeover = m, m.tick
        heir.park_lock.release()

    def take_over(self, heir: M) -> bool:
        """A standby M runs: it takes P if the G is still at it, else becomes idle."""
        assert heir.takeover is not None
        m, tick = heir.takeover
        heir.takeover = None
        with self._p.lock:
            if self._p.owner is m:
                m.preempt = True
                g = m.g
                if g is not None and m.tick == tick:
                    native = self._p.learned.get(g.fn_key) is Trait.NATIVE
                    self._pass(m, heir, Trait.NATIVE if native else Trait.BLOCKED)
                    self._handoffs.on_standby_took(m)
                    return True
                m.preempt = False
            self._p.idle_ms.append(heir)
        return False

    def leave_home(self, m: M) -> bool:
        """Plain Gs are to run and the home M holds P: give it to another one. False when all are in
        use.
        """
        with self._p.lock:
            heir = self._mget()
            if heir is None:
                return False
            self._p.owner = m.heir = heir
        return True

    def go_home(self, m: M) -> bool:
        """Callbacks or coroutines are to run and ``m`` holds P: give it to the home M. False when
        ``m`` is that from now on, since the main thread is lent to a plain G.
        """
        with self._p.lock:
            if self._p.home is self._p.m0 and self.m0_lent:
                self._p.home = m
                self._p.loop.hook_asyncgens()
                return False
            self._p.owner = m.heir = self._p.home
            self._p.idle_ms.append(m)
        return True

    def wake_heir(self, m: M) -> None:
        """``m``, about to park, has left the loop: now the one that has P is woken. Earlier, it
        would only wait for the GIL.
        """
        heir, m.heir = m.heir, None
        if heir is not None:
            self._wake(heir)

    def park_m0(self, m: M) -> None:
        """M0 waits until it is given P, at the end. Meanwhile it serves calls that only the main
        thread may make, and interrupts (Ctrl-C), which end the loop on whichever M it runs.
        """
        while True:
            try:
                m.park_lock.acquire()
            except BaseException as exc:  # noqa: BLE001 - run_forever raises it, once M0 has P
                self._p.loop.interrupt(exc)
            while self._m0_calls:
                self._m0_calls.popleft().run()
            if self._p.owner is m:
                return

    def wake_m0(self) -> None:
        """A signal has come: M0 wakes, runs Python's handlers, and parks again."""
        with self._p.lock:
            if self._p.m0 is not None and self._p.owner is not self._p.m0:
                self._wake(self._p.m0)

    def call_on_m0(self, fn: Callable[[], T]) -> T:
        """Run ``fn`` on M0, which is parked, and wait for it. The M that holds P calls this."""
        assert self._p.m0 is not None
        call = M0Call(fn)
        self._m0_calls.append(call)
        self._wake(self._p.m0)
        call.done.acquire()
        if call.error is not None:
            raise call.error
        return call.outcome  # type: ignore[no-any-return]

    def run_on_m0(self, m: M, fn: Callable[[], T]) -> T:
        """Run ``fn``, of the sync G of ``m``, on the main thread, which stands for ``m`` meanwhile;
        ``m`` waits, so P goes to another M as for any G that blocks. Raises what ``fn`` raises.

        The end of the loop has to wait for it: only for a G after which nothing else is to run.
        """
        raised: list[BaseException] = []

        def run() -> Any:
            own, _current.m = _current.m, m
            waiting = m.ident, m.cpuclock, m.tid, m.state
            _looked_at_here(m)  # by sysmon: the G may block here, compute, or end the thread
            try:
                return fn()
            except BaseException as exc:  # noqa: BLE001 - the caller's, on its own thread
                raised.append(exc)
            finally:
                m.ident, m.cpuclock, m.tid, m.state = waiting
                with self._p.lock:
                    self.m0_lent -= 1
                _current.m = own

        with self._p.lock:  # before P can be given to it
            self.m0_lent += 1
        outcome = self.call_on_m0(run)
        if raised:
            raise raised[0]
        return outcome  # type: ignore[no-any-return]

    def _mheir(self) -> M | None:
        """The M that gets P from a plain G: the home M if nothing else is for another one, or all
        others are in use. The lock is held.
        """
        p = self._p
        home = None if self.m0_lent and self._p.home is self._p.m0 else self._p.home
        if home is not None and (p.ready or p.aside or not _next_is_away(p)):
            return home
        return self._mget() or home

    def _mget(self) -> M | None:
        """An idle M, else a new one, else None (Go: ``mget``, ``newm``). The lock is held."""
        if self._p.idle_ms:
            return self._p.idle_ms.pop()
        if self._p.ms_count >= self._p.max_ms:
            return None
        self._p.ms_count += 1
        self._number += 1
        return M(self._p, self._number)

    def _start(self, m: M) -> None:
        if not m.ident:
            m.ident = -1  # the thread fills in its own
            mask = self._mask_for_child()
            threading.Thread(
                target=self._mstart, args=(m, mask), name=f"gmpd-M{m.id}", daemon=True
            ).start()

    def _mask_for_child(self) -> set[int] | None:
        """The signal mask that a thread is to have which the caller starts; None: the caller's."""
        return self._p.sysmon_mask if get_ident() == self._p.sysmon_ident else None

    def _wake(self, m: M) -> None:
        if not m.ident:
            self._start(m)
        if m.park_lock.locked():  # else an interrupted M0 has not consumed the last wake-up yet
            m.park_lock.release()

    def exitsyscall(self, m: M) -> bool:
        """The sync G of ``m`` ended and sysmon was at it: does ``m`` still hold P?

        If not, the G goes into the inbox, where the M that holds P finishes it; ``m`` becomes idle.
        """
        with self._p.lock:
            m.preempt = False
            if self._p.owner is m:
                return True
            self._p.detached.remove(m)
            if self._p.on_attached is not None:
                self._p.on_attached(m)
            m.wait_reason = ""
            self._handoffs.on_exitsyscall(m)
            self._p.inbox.append((m.g, m.outcome, m.context))
            m.context = Context()
            m.g = m.outcome = m.trait = None
            self._p.idle_ms.append(m)
        self._p.loop.wake()
        return False

    def give_back(self, m: M, waiter: M) -> bool:
        """P goes from ``m`` to ``waiter``, whose sync G has waited without it and continues with it
        (Go: ``exitsyscall`` that finds a P). False when it does not wait any more.
        """
        with self._p.lock:
            if waiter not in self._p.detached or not waiter.wait_reason:
                return False
            self._p.detached.remove(waiter)
            if self._p.on_attached is not None:
                self._p.on_attached(waiter)
            waiter.wait_reason = ""
            waiter.trait = None
            self._p.owner = waiter
            self._handoffs.on_given_back(waiter)
            if self._p.ring is not None:
                token = getattr(waiter.g, "token", 0)
                self._p.ring.add((Kind.BACK | waiter.id << 8, time.monotonic_ns(), 0, token))
            if m is not self._p.m0 and m is not self._p.home:
                self._p.idle_ms.append(m)
        return True

    def return_p_to_m0(self, m: M) -> None:
        """The loop stops on ``m``: P goes back to M0, which waits for it."""
        main = self._p.m0
        assert main is not None
        with self._p.lock:
            self._p.owner = main
            if m is not self._p.home:
                self._p.idle_ms.append(m)
        self._wake(main)

    def _mstart(self, m: M, mask: set[int] | None) -> None:
        """The life of an M other than M0: park, run the loop while it holds P, park again. It runs
        users' code, whose children inherit its signal mask.
        """
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        minit(m)
        try:
            while self._park(m):
                if m.takeover is not None:
                    if self.take_over(m):
                        self._p.loop.schedule(m)
                elif self._p.owner is m:  # else a wake-up is left of one that ``_interrupted`` saw
                    self._p.loop.schedule(m)
        except BaseException as exc:  # noqa: BLE001 - run_forever raises it: P may be lost here
            self._p.loop.interrupt(exc)
            self.wake_heir(m)
            if self._p.owner is m:
                self.return_p_to_m0(m)
        finally:
            m.state = 0

    def _park(self, m: M) -> bool:
        """Wait until P is given to ``m``. False: it was idle for long, or the loop is closed; it
        ends.
        """
        woken = None
        while woken is None:
            try:
                woken = m.park_lock.acquire(timeout=IDLE_S_MAX)
            except BaseException as exc:  # noqa: BLE001 - the user's: see ``_interrupted``
                if self._interrupted(m, exc):
                    return not self.closed
        if not woken:
            with self._p.lock:
                if m in self._p.idle_ms:
                    self._p.idle_ms.remove(m)
                    self._p.ms_count -= 1
                    return False
            m.park_lock.acquire()  # P was given away to it in this very moment
        return not self.closed

    def _interrupted(self, m: M, exc: BaseException) -> bool:
        """An exception has come into a parked thread. gmpd sends none there: it was for a G that
        has ended, from a watchdog of the user's that came too late, and must not cost the thread.
        Whether a wake-up was lost with it.
        """
        tell_late(exc)
        m.park_lock.acquire(blocking=False)
        return self.closed or m.takeover is not None or self._p.owner is m

    def close(self) -> None:
        """The loop is closed: idle Ms end. Those inside a G end with it."""
        with self._p.lock:
            self.closed = True
            idle, self._p.idle_ms = self._p.idle_ms, []
            self._p.ms_count -= len(idle)
        for m in idle:
            m.park_lock.release()


def _next_is_away(p: P) -> bool:
    """Whether the next G is one that runs on another M than the home M. Any thread may look."""
    runq = p.runq
    g = runq.runnext or _first(runq.ring) or _first(runq.global_)
    return g is not None and getattr(g, "place", AWAY) is AWAY


def _first(queue: deque[Any]) -> Any:
    try:
        return queue[0]
    except IndexError:
        return None


def tell_late(exc: BaseException) -> None:
    """Say that an exception came into a thread whose G had ended."""
    log.warning(
        "%s was raised in %s by another thread (PyThreadState_SetAsyncExc) after the call there"
        " had ended: ignored. Let a watchdog end before the call that it watches",
        type(exc).__name__,
        threading.current_thread().name,
    )


def current_loop() -> Face | None:
    """The loop whose M runs the caller, or None outside of any worker. For sync Gs."""
    m = _current.m
    return m.p.loop if m is not None else None


def current_m() -> M | None:
    """The M that runs the caller, if its thread is one."""
    return _current.m


class entersyscallblock:  # noqa: N801 - used like a function
    """Around a call that is known to block, inside a sync G: P goes to another M at once (Go's
    name).

    The G continues without P afterwards. Outside of a sync G that holds P it does nothing.
    ``reason`` is the wait reason that ``gmpd.stacks()`` shows meanwhile.
    """

    __slots__ = ("_m", "_reason")

    def __init__(self, reason: str):
        self._reason = reason
        self._m: M | None = None

    def __enter__(self) -> None:
        m = _current.m
        if m is None or m.g is None:
            return
        self._m = m
        m.wait_reason = self._reason
        p = m.p
        if p.forked:  # no thread is there to take P, nor to end the wait
            leave_fork(1)
        if p.owner is m and p.handoff(m, m.tick, None):
            p.stats.handoff_known += 1
        # A hog competes no more: what waited for its end may start, also what begins to wait now.
        if m.trait in COMPUTING and not p.loop.is_closed():
            p.p_callbacks.threadsafe(requeue_deferred, p)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        if self._m is not None:
            self._m.wait_reason = ""
