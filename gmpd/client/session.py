"""A blocking client's session: its core and socket, used by the thread that needs them.

**Threads.** ``submit`` appends to a deque, which takes no lock; the rest is done behind the
``core_lock``. One daemon thread, the IO thread, sleeps on the socket's descriptor, on the monitor's
and on an eventfd by which others wake it. A thread that waits for a result leads for a moment
instead: it reads the socket itself, spinning, since the answer to a short job comes sooner than a
sleeping thread wakes. The reading thread settles futures at once: that runs no user code. Callbacks
run in a thread of their own (``delivery``); the thread that asks for a value unpickles it
(``futures``).

**Signals.** Handlers of any signal may use the client, or raise: none runs under the lock. A job
that an interrupted thread left in the deque is sent by the IO thread.

**Finalizers** run in any thread at any point, also under the lock. There they may submit, cancel
and close, which is noted and done later; a call that would wait raises an error.

**The IO thread** does not keep a client alive: while it sleeps it has only a weak reference. A
client that is dropped unclosed is handed to it, and ends when its jobs have. If the thread itself
ends by an error, all waiting callers get that error.

Each call on the socket may consume the edge of its descriptor (see ``netpoll``): a thread that
leaves before it has read every message wakes the IO thread.
"""

from __future__ import annotations

import logging
import operator
import os
import select
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from gmpd.client import iothread
from gmpd.client.connection import PLAIN, ClientConnection, T
from gmpd.client.defer_signals import DEFER_SIGNALS, CoreLock
from gmpd.client.delivery import Delivery
from gmpd.client.discovery import Target
from gmpd.client.futures import JobFuture, Waiters, has_begun
from gmpd.client.held import HELD_S, HeldFutures
from gmpd.client.liveness import Liveness
from gmpd.client.spin import Spin
from gmpd.client.streams import DropCallback, Stream
from gmpd.codec import Blob, FunctionRef
from gmpd.errors import DaemonUnreachable, QueueFull, another
from gmpd.netpoll import Network
from gmpd.protocol import Outcome
from gmpd.submit.batch import Request
from gmpd.submit.core import SMALL_BYTES
from gmpd.submit.events import JobDone, apply
from gmpd.timeouts import wait_s

#: Gathered jobs that are sent by the submitting thread itself; fewer are left to the IO thread. And
#: while the daemon has the second number to do, for which larger messages delay nothing.
FLUSH_JOBS, BUSY_JOBS = 64, 256
#: How often a client that connects over a network looks whether its key was refused, seconds.
KEY_S = 0.1
#: How long cancel() waits for the daemon's word (s); by force the daemon waits a little, too.
CANCEL_WAIT_S, FORCE_WAIT_S = 0.25, 2.0
#: How long close() waits for the IO thread to end, seconds: more than the last messages
#: (LINGER_MS) and the end of a private daemon take (10 s, then it is killed).
CLOSE_S = 15.0
#: One unit, as an eventfd takes it.
_ONE = (1).to_bytes(8, sys.byteorder)
#: Writes to the eventfd for a stream's weak reference, without a step of Python.
_NOTIFY = operator.methodcaller("write", _ONE)


class Session(ClientConnection):
    """The base of ``Client``: everything but its public methods."""

    #: Whether to be dropped without ``close`` is worth a ResourceWarning.
    _warns = True

    def __init__(self, target: Target, name: str, *, on_full: str, pending_max: int) -> None:
        # Until all is there: close() of a half-made client has nothing to do.
        self._closed = self._ended = True
        self._on_full, self._pending_max = on_full, pending_max
        self._core_lock = CoreLock()
        #: Jobs on their way to the core: appended by any thread, taken out under the lock.
        self._requests: deque[Request] = deque()
        #: The threads that wait for room, and for the end of all jobs.
        self._room, self._idle = self.new_waiters(), self.new_waiters()
        self._delivery = Delivery(self._idle.notify_all)
        self._spin, self._unsettled = Spin(), HeldFutures()
        self._busy_polling = self._stopping = False
        #: The IO thread sleeps, or is about to: it is to be woken.
        self._asleep = True
        #: Turns that it has begun, and the turn in which it was notified last: once a turn is
        #: enough.
        self._turns, self._notified_turn = 0, -1
        #: The function that was submitted last: what is checked of it needs no second look.
        self._checked: FunctionRef | None = None
        #: It does not even wake by itself to see whether the daemon lives.
        self._unarmed = True
        #: Jobs whose results are not wanted any more, noted by any thread. None: all streams.
        self._to_cancel: deque[Iterable[Any] | DropCallback | None] = deque()
        #: When refused jobs are to be sent again (monotonic seconds), 0 when none were.
        self._retry_at = self._tick_at = 0.0
        #: The thread that owns the socket while no other leads.
        self._io = 0
        self._thread: threading.Thread | None = None
        #: Where its thread finds a client without other references.
        self._dropped: list[Session] = []
        self._daemon = target.daemon
        self._key = target.key
        super().__init__(target.endpoint, name, resend=on_full == "wait")
        self._core.explain = self._loss
        self._liveness = Liveness(target.liveness)
        self._reconnect_s = target.reconnect
        try:
            self._connect(target.connect_timeout)
        except BaseException:
            if self._daemon is not None:
                self._daemon.close()
            raise
        self._closed = self._ended = False
        iothread.open_sessions.add(self)

    # -- jobs come in ----------------------------------------------------------------------------

    def _enqueue(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, sink: Any, wait: bool
    ) -> None:
        core, requests = self._core, self._requests
        waiting = core.unsent + len(requests)
        if self._closed or core.lost is not None or (wait and waiting > self._pending_max):
            self._admit(wait)
        if (
            ref is not self._checked
            or options is not None
            or blob.buffers
            or len(blob.data) > SMALL_BYTES
        ):
            if blob.buffers:  # the caller may change its array as soon as submit has returned
                blob = Blob(blob.data, tuple(map(bytes, blob.buffers)))
            core.check(ref, blob, options)
            self._checked = ref
        try:
            requests.append((ref, options, blob, sink))
            least = FLUSH_JOBS if core.in_flight < BUSY_JOBS else BUSY_JOBS
            if len(requests) >= least or not core.in_flight or self._ended:
                self._flush_unless_held()
            elif self._asleep and self._notified_turn != self._turns:
                self._wake_io()
        except BaseException:  # interrupted: the IO thread sends what has been taken
            self._notify()
            raise

    def _flush_unless_held(self) -> None:
        """Send the queued jobs, unless a finalizer interrupted the holder of the lock."""
        if not self._core_lock.is_held:
            self._flush()
        elif self._asleep:
            self._wake_io()

    def _wake_io(self) -> None:
        """Have the IO thread take another turn, unless it has been notified since the last began.

        Each write releases the GIL, so one has to do for all that is submitted until the thread
        runs. The turn is read first: a notification that comes too early for it is only one too
        many.
        """
        turn = self._turns
        if self._notified_turn != turn:
            self._notify()
            self._notified_turn = turn

    def _admit(self, wait: bool) -> None:
        self._check_open()
        if wait and self._pending() > self._pending_max:
            self._await_room()

    def _pending(self) -> int:
        """Jobs that wait here for the daemon's window."""
        return self._core.unsent + len(self._requests)

    def _await_room(self) -> None:
        if self._on_full == "raise":
            raise QueueFull(f"{self._pending()} jobs wait for the daemon already", 0)
        if self._cannot_wait():
            return  # a finalizer: its job is one too many
        self._flush()
        self._room.wait_for(
            lambda: self._pending() <= self._pending_max or self._core.lost or self._closed
        )
        self._admit(False)

    def _flush(self) -> None:
        """Number queued requests, and send those that the window allows."""
        with self._core_lock:
            lane = self._link.lane
            if lane is None or self._core.in_flight or self._busy_polling or self._ended:
                self._send_all()
                return
            # On a busy core the answer comes before this thread runs again.
            with iothread.Unwatched(self._epoll, (lane.fd,)):
                self._send_all()
                if lane.has_message():
                    self._pump(True)
                    self._settle()

    def _send_all(self) -> None:
        """Under the lock. Wakes the IO thread there, too: after it, a handler may raise."""
        self._number()
        if not self._ended and (self._send_out() or self._unarmed or self._core.wants_link):
            self._wake_io()
        self._settle()

    def _number(self) -> None:
        """Give the queued requests to the core."""
        requests, core = self._requests, self._core
        while core.submit_alike(requests):
            ref, options, blob, sink = requests.popleft()
            try:
                sink._seq = core.submit(ref, blob, options, sink)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this job's alone
                core.events.append((sink, JobDone(Outcome.LOST, b"", (), 0, {"error": error})))

    # -- waiting ---------------------------------------------------------------------------------

    def _cannot_wait(self) -> bool:
        """Whether this thread would wait for itself: a finalizer in the middle of the client."""
        return self._core_lock.is_held or self._io == threading.get_ident()

    def refuse_to_wait(self) -> None:
        """Raises RuntimeError where waiting would never end: in a fork, or for itself."""
        self._refuse_fork()
        if self._cannot_wait():
            raise RuntimeError(
                "a finalizer (__del__ or a weak reference's callback) waits for a client in the"
                " middle of that client's own work: it would wait for itself. Let it only submit,"
                " or hand the rest to another thread"
            )

    def busy_poll(self, future: JobFuture, timeout: float | None) -> bool:
        """Read the socket in the calling thread for a moment, until ``future`` is done. False: it
        has not tried, as that was in vain of late."""
        self.refuse_to_wait()
        spin_ns = self._spin.next_ns(timeout)
        if spin_ns < 0:
            return False
        end = time.perf_counter_ns() + spin_ns
        while not (future.done() or self._stopping or self._busy_polling):
            self._poll_until(future, end)
            if time.perf_counter_ns() > end:
                self._spin.ended(spin_ns, found=future.done())
                return True
        if future.done():
            self._spin.ended(spin_ns, found=True)
        return True

    def slept(self, ns: int) -> None:
        """A wait that did not try took this long."""
        self._spin.slept(ns)

    def _poll_until(self, future: JobFuture, end: int) -> None:
        """Read until ``future`` is done or ``end`` has come; the IO thread sleeps meanwhile."""
        link, core, asked = self._link, self._core, False
        with DEFER_SIGNALS:
            with self._core_lock:
                if self._stopping:
                    return
                self._busy_polling = True
                for fd in link.fds:
                    self._epoll.modify(fd, 0)
            try:
                while self._poll_once() and not future.done() and time.perf_counter_ns() < end:
                    os.sched_yield()  # those that it waits for may need this core
                asked = True  # last: a message that comes from now on makes the descriptor readable
            finally:
                with self._core_lock:
                    self._busy_polling = False
                    if not self._stopping:
                        for fd in link.fds:
                            self._epoll.modify(fd, select.EPOLLIN)
                        left = self._requests or core.unsent or core.wants_link
                        if left or (not asked and link.readable):
                            self._wake_io()

    def _poll_once(self) -> bool:
        with self._core_lock:
            if self._stopping:
                return False
            # A look costs a fifth of a pump that finds nothing.
            core = self._core
            if (readable := self._link.readable) or self._requests or core.unsent or core.outgoing:
                self._number()
                self._pump(readable)
                self._settle()
            return True

    # -- futures and streams ask -----------------------------------------------------------------

    def job_id_of(self, future: JobFuture) -> str:
        """The id of a future's job; it is numbered first, if need be."""
        if not future._seq and not self._cannot_wait() and self._pid == os.getpid():
            self._flush()
        return self.job_id(future._seq)

    def cancel_job(self, future: JobFuture, *, force: bool = False) -> bool:
        """See ``JobFuture.cancel``."""
        self._refuse_fork()
        future._kept = False
        if self._cannot_wait():
            self.forget_jobs([future])
            return False
        unsent = self._do(lambda: self._core.cancel([future._seq], force=force))
        most = FORCE_WAIT_S if force else CANCEL_WAIT_S
        future._condition.wait_for(lambda: future.done() or (future._kept and not force), most)
        return unsent > 0 or future.cancelled()

    def cancel_pending(self) -> int:
        """Cancel everything that has not started; how many were cancelled before they were sent."""
        return super().cancel_pending() if self._pid == os.getpid() else 0

    def _do(self, step: Callable[[], T]) -> T:
        with self._core_lock:
            self._number()
            done = step()
            self._send_all()
        return done

    def forget_jobs(self, futures: Iterable[JobFuture]) -> None:
        """Cancel these soon; see ``forget_seqs``."""
        if jobs := list(futures):
            self.forget_seqs(jobs)

    def forget_seqs(self, seqs: list[Any]) -> None:
        """Cancel jobs by number, soon. Takes no lock: finalizers may call it. Once or often."""
        if self._pid == os.getpid():
            self._to_cancel.append(seqs)
            self._notify()

    def _cancel_queued(self) -> None:
        while self._to_cancel:
            what = self._to_cancel.popleft()
            if what is None:
                self._core.cancel_streams()
                continue
            jobs = what.seqs if isinstance(what, DropCallback) else what
            self._core.cancel([job if isinstance(job, int) else job._seq for job in jobs])

    def watch_stream(self, stream: Stream, seq: int) -> tuple[DropCallback, ...]:
        """References that cancel job ``seq`` when ``stream`` is dropped, while they are kept."""
        notify = self._watch_to_notify(stream)
        on_drop = DropCallback(stream, self._to_cancel.append)  # the younger one is called first
        on_drop.seqs = [seq]
        return notify, on_drop

    def _watch_to_notify(self, stream: Stream) -> DropCallback:
        notify = DropCallback(stream, _NOTIFY)
        notify.write = self._eventfd.write
        return notify

    def new_waiters(self) -> Any:
        """Where this face's threads sleep until they are woken."""
        return Waiters()

    # -- outcomes, under the lock ---------------------------------------------------------------

    def _settle(self) -> None:
        """Settle the futures of received outcomes. Runs no user code."""
        core = self._core
        events = core.events
        while events:
            event = events.popleft()
            try:
                apply(event)
            except Exception:
                logging.getLogger("gmpd.client").exception("an outcome could not be delivered")
            del event
        if self._room.any() and (core.lost or self._pending() <= self._pending_max):
            self._room.notify_all()
        if not core.busy and self._idle.any():
            self._idle.notify_all()

    def settle_later(self, future: JobFuture, event: JobDone) -> None:
        """A thread is inside of its condition: it is settled by the IO thread."""
        self._unsettled.add(future, event)
        self._notify()

    def _settle_held(self) -> None:
        if self._unsettled.settle():
            self._idle.notify_all()

    def call_back(self, future: JobFuture) -> None:
        """Its callbacks are due."""
        self._delivery.put(future)
        self._notify()  # for the IO thread to start the other one, if it is the first

    # -- the socket; the caller is under the lock -----------------------------------------------

    def _connect(self, timeout_s: float) -> None:
        self._open_link(self._new_network())
        try:
            deadline = time.monotonic() + timeout_s
            while self._core.welcome is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._no_answer(timeout_s)
                if self._key:
                    left = min(left, KEY_S)
                if not self._link.wait(left):
                    if self._key and not self._link.take_disconnect() and self._link.is_refused:
                        raise self._unknown_key()
                    continue
                self._read()
                if self._core.lost is not None:
                    raise another(self._core.lost)
        except BaseException:
            self._drop_link()
            raise
        self._liveness.pid = self._core.welcome.info.pid
        self._forced = PLAIN if self._core.is_plain else None
        self._start_io()

    @staticmethod
    def _loss(error: Exception) -> Exception:
        return error

    def _new_network(self) -> Network:
        return Network()

    def _notify(self) -> None:
        """Wake the IO thread; needs no lock."""
        # Nothing is caught: it would be what a signal handler raised in here.
        self._eventfd.write(_ONE)

    # -- the IO thread ---------------------------------------------------------------------------

    def _start_io(self) -> None:
        self._eventfd: Any = iothread.EventFd()
        self._epoll = iothread.new_epoll()
        for fd in (self._eventfd.fileno(), self._link.fd, self._link.monitor_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._open_lane()
        # The thread owns objects that close themselves in a finalizer: the client may be revived.
        owned = (self._eventfd, self._link, self._network, self._daemon)
        args = (weakref.ref(self), self._dropped, self._epoll, *owned)
        self._thread = threading.Thread(
            target=iothread.serve, args=args, name="gmpd-io", daemon=True
        )
        self._ended = False
        self._thread.start()
        self._notify()  # what came together with the Welcome has used up its edge

    def _turn(self, ready: list[tuple[int, int]]) -> bool:
        """Do the pending work; False when the client is to end."""
        self._asleep = False
        for fd, _ in ready:
            if fd == self._eventfd.fileno():
                self._eventfd.read(8)
        self._turns += 1  # after it has read: a notification from now on is read by the next turn
        with self._core_lock:
            if self._stopping:
                return False
            if self._retry_at and time.monotonic() >= self._retry_at:
                self._retry_at = 0.0
                self._core.retry()
            self._number()
            self._cancel_queued()
            self._pump()
            self._check_peer()
            self._check_liveness()
            self._look_for_daemon()
            self._settle()
            self._settle_held()
        self._delivery.start()
        return True

    def _check_liveness(self) -> None:
        core, now = self._core, time.monotonic()
        due, self._tick_at = self._tick_at, self._tick_at or now + self._liveness.tick_s
        if not due or now < due:
            return
        self._tick_at = now + self._liveness.tick_s
        self._judge(self._liveness.tick(core.heard, waits=core.waits))
        if self._send_out():
            self._notify()

    def _watch_lane(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN)

    def _relink(self) -> None:
        link, epoll = self._link, self._epoll
        for fd in (*link.fds, link.monitor_fd):
            epoll.unregister(fd)
        link.renew()
        epoll.register(link.fd, select.EPOLLIN)
        epoll.register(link.monitor_fd, select.EPOLLIN)
        self._checked = None  # the next daemon has no parts of it
        self._notify()  # what came meanwhile has used up its edge

    def _unwanted(self) -> bool:
        """It was dropped, and no job of it is left."""
        return bool(self._dropped) and not self._core.busy and not self._requests

    def _next_turn(self) -> float | None:
        """Seconds until there is work without a wake-up; None: never."""
        with self._core_lock:
            self._asleep = True
            core, now = self._core, time.monotonic()
            if self._requests or self._to_cancel:
                return 0.0
            due = [self._tick_at - now]
            self._unarmed = not core.waits and self._liveness.is_quiet(core.heard)
            if self._unarmed:
                self._tick_at = 0.0
                due = []
            if self._unsettled:
                due.append(HELD_S)
            if self._outage is not None:
                due.append(self._outage.next_s(now))
            if core.retry_s:
                self._retry_at = self._retry_at or now + core.retry_s
                due.append(self._retry_at - now)
            else:
                self._retry_at = 0.0
            return wait_s(min(due)) if due else None

    def _finish(self) -> None:
        """The end, in this thread: a closing thread may be interrupted and is not needed."""
        with self._core_lock:
            self._stopping = self._ended = True
            self._say_bye()
            self._number()
            self._settle()
            self._epoll.close()
        while self._unsettled:
            with self._core_lock:
                self._settle_held()
            time.sleep(HELD_S)
        self._delivery.start()
        self._delivery.end()
        for waiters in (self._room, self._idle):
            waiters.notify_all()
        self._eventfd = iothread.ClosedEventFd()
        self._io = 0  # another thread may get the same number

    def lose(self, error: Exception) -> None:
        """Release all jobs: those that have begun end with ``error``, as does every later one;
        the others are cancelled."""
        with self._core_lock:
            self._number()
            self._core.lose(error, has_begun)
            self._settle()

    def _die(self, error: BaseException) -> None:
        """The thread cannot continue: all waiting callers get the reason."""
        told = DaemonUnreachable(
            f"the client's own thread ended by {type(error).__name__}: {error}. Its jobs may run"
            " on, but their results are lost: make a new Client"
        )
        told.__cause__ = error
        with self._core_lock:
            self._core.lose(told)
        self._closed = True
        self._finish()

    def _say_bye(self) -> None:
        if self._core.lost is None:
            self._link.send(self._core.bye("closed"))
        self._core.lose(DaemonUnreachable("the client was closed before this job ended"))

    def _end_io(self) -> None:
        self._stopping = True
        self._notify()
        if self._thread is None or self._cannot_wait():
            return
        end = time.monotonic() + CLOSE_S
        self._thread.join(CLOSE_S)
        if not self._delivery.join(wait_s(end - time.monotonic())) or self._thread.is_alive():
            warnings.warn(
                f"the client did not end within {CLOSE_S:g} s, because a callback of one of its"
                " futures has not returned", RuntimeWarning, stacklevel=3,
            )  # fmt: skip

    def unfinished(self) -> int:
        """Jobs that have no outcome yet."""
        return super().unfinished() + len(self._requests)

    def __del__(self) -> None:
        """No reference is left, but its jobs may still have callbacks: its thread ends it."""
        if getattr(self, "_ended", True) or self._thread is None or self._pid != os.getpid():
            return
        if sys.is_finalizing():
            return
        text = f"unclosed {self!r}"  # as it was, not as its thread may leave it in a moment
        self._to_cancel.append(None)  # readers of its streams are gone, too
        self._dropped.append(self)
        self._notify()
        if self._warns:
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
