"""``Client``: the blocking face. Any thread may use it.

All use of the socket and the core is under one lock. One daemon thread sleeps on the socket's
descriptor, on the monitor's and on an eventfd by which others wake it. A thread that waits for a
result leads for a moment instead: it reads the socket itself, spinning, since the answer to a short
job comes sooner than a sleeping thread wakes. Outcomes are applied outside the lock, by one thread
at a time, so callbacks may use the client.

Any thread but that one may be interrupted by Ctrl-C at any point. So they use the socket behind a
``shield``, settle only futures that nobody else watches, and whatever they leave half done is in a
place where the thread finds it and does it again.

That thread does not keep a client alive: while it sleeps it has only a weak reference. One that is
dropped unclosed is handed to it, and ends when its jobs have.

A finalizer may run in any thread at any point, also in one that holds the lock: it only notes what
is to be cancelled (``forget_seqs``, ``watch_stream``), and the thread does it.

Each call on the socket may swallow the edge of its descriptor (see ``netpoll``): whoever gives the
lock away without having read to the end wakes the thread.
"""

from __future__ import annotations

import atexit
import io
import operator
import os
import queue
import select
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeAlias

from gmpd import pythons
from gmpd.client.core import INSTEAD, Ended, Event, answer_error, apply, prepare
from gmpd.client.discovery import Target, find
from gmpd.client.futures import JobFuture
from gmpd.client.mapping import Mapping
from gmpd.client.private import PrivateDaemon
from gmpd.client.progress import Report
from gmpd.client.shield import SHIELD
from gmpd.client.streams import Gone, Stream
from gmpd.client.unclosed import LINGER_MS
from gmpd.client.views import OptionsView
from gmpd.client.wire import Wire
from gmpd.codec import Blob, FunctionRef
from gmpd.errors import DaemonUnreachable, QueueFull
from gmpd.netpoll import Dealer, Network
from gmpd.timeouts import checked, wait_s

#: Gathered jobs that are sent by the submitting thread itself; fewer are left to the IO thread.
FLUSH_JOBS = 64
#: How long a waiting thread spins before it sleeps: a little over a round trip through coordinator
#: and worker (0.38 ms; 0.7 ms when it spins for less than that and then sleeps).
SPIN_NS = 500_000
#: How long cancel() waits for the daemon's word, seconds.
CANCEL_WAIT_S = 0.25
#: Jobs that may wait in the client for the daemon's window before submit waits.
PENDING_MAX = 100_000
#: How long close() waits for the IO thread to end, seconds: more than the last messages
#: (LINGER_MS) and the end of a private daemon take (10 s, then it is killed).
CLOSE_S = 15.0
#: How long its thread waits for a client that is being dropped, seconds: the other thread has some
#: lines of Python to run, and may wait for the GIL.
DROP_S = 5.0
#: What an eventfd takes.
_ONE = (1).to_bytes(8, sys.byteorder)


#: Rings the bell of a stream's weak reference, without a step of Python.
_RING = operator.methodcaller("write", _ONE)
#: What futures, maps, streams and the command line call, and ``dir`` leaves out.
_FOR_GMPD = frozenset(
    {
        "cancel_job", "cancel_pending", "cancel_seqs", "forget_jobs", "forget_seqs", "lead",
        "map_with", "new_queue", "pull_items", "stream_with", "submit_ref", "submit_with",
        "watch_stream",
    }
)  # fmt: skip


#: A client seen through job options.
View: TypeAlias = OptionsView[JobFuture, Iterator[Any], Stream]


class Client(Wire):
    """A connection to a daemon: ``submit``, ``map``, ``stream``, ``call``.

    ``endpoint`` is an address or a runtime directory; without one the running daemon is found, and
    when none runs a private one starts and ends with this client. ``on_full`` says what is done
    when the daemon has no room, and when more than ``pending_max`` jobs wait here for it: "wait"
    holds submit back, and sends again what was refused; "raise" raises QueueFull, from submit or
    as a job's outcome, with the room and a fair wait.

    Raises DaemonUnreachable when nobody answers, ProtocolError for a daemon of another version.
    """

    #: Whether to be dropped without ``close`` is worth a ResourceWarning.
    _warns = True

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        name: str = "",
        on_full: str = "wait",
        pending_max: int = PENDING_MAX,
        target: Target | None = None,
        key: object = None,
    ) -> None:
        pythons.welcome()
        if on_full not in ("wait", "raise"):
            raise ValueError(f"on_full={on_full!r}: must be 'wait' or 'raise'")
        if key is not None:
            raise NotImplementedError(f"key=...: {INSTEAD['key']}")
        # Until all is there: close() of a half-made client has nothing to do.
        self._closed = self._ended = True
        self._on_full, self._pending_max = on_full, pending_max
        self._lock = self._new_lock()
        self._room = self._new_room()
        self._leading = False
        self._delivery = threading.Lock()
        #: Who holds it. Stale when nobody does.
        self._deliverer = 0
        #: What the one who delivers has in hand.
        self._in_hand: Event | None = None
        self._woken = False
        #: Jobs that nobody wants any more, by number: noted without the lock. None: all streams.
        self._forgotten: deque[list[int] | Gone | None] = deque()
        #: When refused jobs are to be sent again (monotonic seconds), 0 when none were.
        self._retry_at = 0.0
        self._stopping = False
        #: The thread that owns the socket when nobody else does.
        self._io = 0
        self._thread: threading.Thread | None = None
        #: Where its thread finds a client that everybody else has dropped.
        self._dropped: list[Client] = []
        target = target or find(endpoint)
        self._daemon: PrivateDaemon | None = target.daemon
        super().__init__(target.endpoint, name, resend=on_full == "wait")
        self._core.explain = self._loss
        try:
            self._connect(target.connect_timeout)
        except BaseException:
            if self._daemon is not None:
                self._daemon.close()
            raise
        self._closed = self._ended = False
        _open_clients.add(self)

    # -- jobs ------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture:
        """Run ``fn(*args, **kwargs)`` on the daemon; its future.

        Raises Unserializable naming what cannot be sent, QueueFull (``on_full="raise"``),
        DaemonUnreachable, RuntimeError when closed.
        """
        return self.submit_with(None, fn, args, kwargs)

    def submit_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        wait: bool = True,
    ) -> JobFuture:
        """``submit`` with job options that override the function's; ``wait=False`` never blocks."""
        return self.submit_ref(*prepare(fn, overrides, args, kwargs), wait=wait)

    def submit_ref(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, *, wait: bool
    ) -> JobFuture:
        """Submit what is ready for the wire."""
        future = self._new_future()
        future._owner = self
        future._fn_name = ref.name
        self._take_in(ref, options, blob, future, wait)
        return future

    def _take_in(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, sink: Any, wait: bool
    ) -> None:
        core = self._core
        with self._lock:
            self._admit(wait)
            try:
                sink._seq = core.submit(ref, blob, options, sink)
                if core.unsent >= FLUSH_JOBS or core.in_flight == 0:
                    self._flush()
                elif not self._woken:
                    self._wake()
            except BaseException:  # interrupted: the IO thread sends what has been taken
                self._wake()
                raise

    def _admit(self, wait: bool) -> None:
        if self._closed or self._pid != os.getpid():
            self._refuse()
        if self._core.unsent > self._pending_max and wait:
            self._await_room()

    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        ordered: bool = True,
        chunksize: int | str = "auto",
        timeout: float | None = None,
        progress: bool | Report = False,
    ) -> Iterator[Any]:
        """``fn`` over the items, lazily: a window of them is out at a time, so any length works.

        ``ordered=False`` gives results as they come. ``chunksize="auto"`` puts so many into one
        job that it takes some milliseconds. ``timeout``: seconds from now to the last result.
        ``progress``: True for a bar or lines on stderr, or a function of (done, total or None).
        Closing the iterator cancels what has not started.
        """
        return self.map_with(
            None,
            fn,
            iterables,
            ordered=ordered,
            chunksize=chunksize,
            timeout=timeout,
            progress=progress,
        )

    def map_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        **how: Any,
    ) -> Iterator[Any]:
        """``map`` with job options that override the function's."""
        return Mapping(self, overrides, fn, iterables, **how).run()

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Stream:
        """The values that the generator function ``fn`` yields, as they come."""
        return self.stream_with(None, fn, args, kwargs)

    def stream_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Stream:
        """``stream`` with job options that override the function's."""
        ref, options, blob = prepare(fn, overrides, args, kwargs)
        stream = self._new_stream(ref.name)
        sink = stream.sink()
        with self._lock:
            self._admit(True)
            # Who is interrupted either began no job or has a stream that ends it: nothing else
            # would, for a generator that nobody reads waits for ever.
            with SHIELD:
                stream.begun(self._core.begin_stream(ref, blob, options, sink), sink)
                self._flush()
        return stream

    def pull_items(self, seq: int, n: int) -> None:
        """Room for ``n`` more items of a stream."""
        with SHIELD, self._lock:
            if not self._closed:
                self._core.pull(seq, n)
                self._flush()

    def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> str:
        """Not in this version: raises NotImplementedError that says what to do instead."""
        raise NotImplementedError(f"enqueue: {INSTEAD['enqueue']}")

    def job(self, job_id: str) -> Any:
        """Not in this version: raises NotImplementedError that says what to do instead."""
        raise NotImplementedError(f"job({job_id!r}): {INSTEAD['job']}")

    def new_queue(self) -> Any:
        """A queue on which this face's threads may wait."""
        return queue.SimpleQueue()

    def options(self, **options: Any) -> View:
        """A view of this client that submits with job options (see ``gmpd.job``)."""
        return OptionsView(self, options)

    def call(self, method: str, /, *, timeout: float | None = 30.0, **params: Any) -> Any:
        """Ask the daemon an administrative question; its answer. GmpdError with what it says."""
        timeout = checked(timeout)
        sink = _CallSink(self._new_event())
        with SHIELD, self._lock:
            if self._closed or self._pid != os.getpid():
                self._refuse()
            self._core.call(method, params, sink)
            self._flush()
        if not sink.over.wait(timeout):
            raise DaemonUnreachable(
                f"the daemon at {self.endpoint} did not answer {method!r} within {timeout:g} s"
            )
        if not sink.ok:
            raise answer_error(sink.value)
        return sink.value

    def _new_future(self) -> JobFuture:
        return JobFuture()

    def _new_stream(self, name: str) -> Stream:
        return Stream(self, name)

    def _refuse(self) -> None:
        self._refuse_fork()
        raise RuntimeError("the client is closed: cannot submit to it")

    def _await_room(self) -> None:
        core = self._core
        if self._on_full == "raise":
            raise QueueFull(f"{core.unsent} jobs wait for the daemon already", 0)
        self._flush()
        self._room.wait_for(lambda: core.unsent <= self._pending_max or core.lost or self._closed)
        if self._closed:
            self._refuse()

    # -- futures ask -----------------------------------------------------------------------------

    def cancel_job(self, future: JobFuture) -> bool:
        """See ``JobFuture.cancel``."""
        future._kept = False
        unsent = self.cancel_seqs([future._seq])
        if future.done() or self._delivers():
            return unsent > 0 or future.cancelled()  # who brings outcomes cannot wait for one
        future._condition.wait_for(lambda: future.done() or future._kept, CANCEL_WAIT_S)
        return unsent > 0 or future.cancelled()

    def cancel_pending(self) -> int:
        """Cancel everything that has not started; how many were cancelled before they were sent."""
        return self.cancel_seqs(None)

    def forget_jobs(self, futures: Iterable[JobFuture]) -> None:
        """Cancel these soon; see ``forget_seqs``."""
        if seqs := [future._seq for future in futures]:
            self.forget_seqs(seqs)

    def forget_seqs(self, seqs: list[int]) -> None:
        """Cancel jobs by number, soon. Takes no lock: finalizers may call it. Once or often."""
        if self._pid == os.getpid():
            self._forgotten.append(seqs)
            self._ring()

    def _cancel_forgotten(self) -> None:
        while self._forgotten:
            what = self._forgotten.popleft()
            if what is None:
                self._core.cancel_streams()
            else:
                self._core.cancel(what.seqs if isinstance(what, Gone) else what)

    def watch_stream(self, stream: Stream, seq: int) -> tuple[Gone, ...]:
        """What has job ``seq`` cancelled when ``stream`` is dropped, as long as it is kept."""
        bell = self._watch_bell(stream)
        gone = Gone(stream, self._forgotten.append)  # the younger one is called first
        gone.seqs = [seq]
        return bell, gone

    def _watch_bell(self, stream: Stream) -> Gone:
        bell = Gone(stream, _RING)
        bell.write = self._bell.write
        return bell

    def cancel_seqs(self, seqs: list[int] | None) -> int:
        """Cancel jobs by number, or all; how many had not been sent."""
        core = self._core
        return self._cancel(core.cancel_all if seqs is None else lambda: core.cancel(seqs))

    def _cancel(self, how: Callable[[], int]) -> int:
        with SHIELD, self._lock:
            unsent = how()
            if not self._stopping:
                self._flush()
                if unsent:
                    self._wake()  # the IO thread ends what is left if this one is interrupted
        self._deliver()
        return unsent

    def lead(self, future: JobFuture, timeout: float | None) -> None:
        """Read the socket in the calling thread for a moment, until ``future`` is done."""
        if self._delivers():
            self._pump_nested(future.done, timeout)
            return
        spin_ns = SPIN_NS if timeout is None else min(SPIN_NS, int(timeout * 1e9))
        end = time.perf_counter_ns() + spin_ns
        try:
            while not (future.done() or self._closed or self._leading):
                with SHIELD:
                    self._spin(end)
                self._deliver()
                if self._core.events or time.perf_counter_ns() > end:
                    return
        except BaseException:  # interrupted: the IO thread delivers what has been read
            with self._lock:
                if not self._stopping:
                    self._wake()
            raise

    def _spin(self, end: int) -> None:
        """Read until something has come, or ``end`` has; the thread sleeps meanwhile."""
        fd, events = self._link.fd, self._core.events
        with self._lock:
            if self._stopping:
                return
            self._leading = True
            self._epoll.modify(fd, 0)
        try:
            while self._look() and not events and time.perf_counter_ns() < end:
                pass
        finally:
            with self._lock:
                self._leading = False
                if not self._stopping:
                    self._epoll.modify(fd, select.EPOLLIN)
                    if self._core.unsent or self._link.readable:
                        self._wake()

    def _look(self) -> bool:
        with self._lock:
            if self._stopping:
                return False
            # A look costs a fifth of a pump that finds nothing.
            if self._link.readable or self._core.unsent or self._core.outgoing:
                self._pump()
            return True

    def _pump_nested(self, over: Callable[[], bool], timeout: float | None) -> bool:
        # A callback waits for another result: nobody else may deliver now, so this thread goes on.
        end = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._link.fd, select.POLLIN)
        poll.register(self._link.monitor_fd, select.POLLIN)
        while not over():
            if self._stopping or (end is not None and time.monotonic() >= end):
                return False
            with SHIELD, self._lock:
                self._cancel_forgotten()
                self._pump()
                self._check_peer()
            self._deliver()
            if not over():
                poll.poll(20)  # ms; the edge may have been swallowed by another thread's send
        return True

    # -- the socket; the caller holds the lock ----------------------------------------------------

    def _connect(self, timeout_s: float) -> None:
        self._open_link(self._new_network())
        try:
            deadline = time.monotonic() + timeout_s
            while self._core.welcome is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._no_answer(timeout_s)
                if not self._link.wait(left):
                    continue
                self._read()
                if self._core.lost is not None:
                    raise self._core.lost
        except BaseException:
            self._drop_link()
            raise
        self._start_io()

    @staticmethod
    def _loss(error: Exception) -> Exception:
        return error

    def _new_lock(self) -> Any:
        return threading.Lock()

    def _new_room(self) -> Any:
        return threading.Condition(self._lock)

    def _new_event(self) -> Any:
        return threading.Event()

    def _new_network(self) -> Network:
        return Network()

    def _flush(self) -> None:
        with SHIELD:
            if self._send_out():
                self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._ring()
            self._woken = True

    def _ring(self) -> None:
        """Wake the IO thread; needs no lock."""
        try:
            self._bell.write(_ONE)
        except ValueError:
            pass  # closed: the client has ended, and every job with it

    # -- outcomes, outside the lock ---------------------------------------------------------------

    def _delivers(self) -> bool:
        """Whether this thread is in the middle of it, and called by what it applies."""
        return self._deliverer == threading.get_ident() and self._delivery.locked()

    def _deliver(self) -> None:
        if self._delivers():
            while self._core.events:
                apply(self._core.events.popleft())
        elif self._io == threading.get_ident():
            self._deliver_all()
        else:
            self._deliver_simple()
        if self._core.unsent <= self._pending_max:
            self._notify_idle()

    def _deliver_all(self) -> None:
        """In the IO thread, which nothing interrupts."""
        events = self._core.events
        while events or self._in_hand is not None:
            if not self._delivery.acquire(False):
                return  # whoever delivers looks again when it is through
            self._deliverer = self._io
            try:
                if self._in_hand is not None:  # of a thread that was interrupted
                    apply(self._in_hand)
                    self._in_hand = None
                while events:
                    apply(events.popleft())  # no name for it here: it must not outlive the call
            finally:
                self._delivery.release()

    def _deliver_simple(self) -> None:
        """In a thread that may be interrupted: only what comes out the same if it is done twice.

        That is outcomes of futures that nobody watches. The rest is left to the IO thread.
        """
        events = self._core.events
        while (events or self._in_hand is not None) and not self._delivery.locked():
            with self._delivery:
                self._deliverer = threading.get_ident()
                all_done = self._apply_simple()
            if not all_done:
                with self._lock:
                    if not self._stopping:
                        self._wake()
                return

    def _apply_simple(self) -> bool:
        """Apply what is simple; whether that is all."""
        events = self._core.events
        while events or self._in_hand is not None:
            event = self._in_hand or events[0]
            if not isinstance(event, Ended) or getattr(event.sink, "watched", True):
                return False
            if self._in_hand is None:
                self._in_hand = event
                events.popleft()
            del event
            apply(self._in_hand)
            self._in_hand = None
        return True

    def _notify_idle(self) -> None:
        if self._room._waiters:  # a look without the lock is enough
            with self._lock:
                self._room.notify_all()

    # -- the IO thread ---------------------------------------------------------------------------

    def _start_io(self) -> None:
        # As a file it knows when it is closed: a finalizer may ring at any time, and the number of
        # a closed descriptor may be another's.
        self._bell = io.FileIO(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), "r+")
        self._epoll = select.epoll()
        for fd in (self._bell.fileno(), self._link.fd, self._link.monitor_fd):
            self._epoll.register(fd, select.EPOLLIN)
        # What closes itself when the collector finds it is the thread's: the client may come back.
        owned = (self._bell, self._link, self._network, self._daemon)
        args = (weakref.ref(self), self._dropped, self._epoll, *owned)
        self._thread = threading.Thread(target=_serve, args=args, name="gmpd-io", daemon=True)
        self._ended = False
        self._thread.start()
        self._wake()  # what came together with the Welcome has used up its edge

    def _turn(self, ready: list[tuple[int, int]]) -> bool:
        """What there is to do now; False when the client is to end."""
        for fd, _ in ready:
            if fd == self._bell.fileno():
                self._bell.read(8)
        with self._lock:
            self._woken = False
            if self._stopping:
                return False
            if self._retry_at and time.monotonic() >= self._retry_at:
                self._retry_at = 0.0
                self._core.retry()
            self._cancel_forgotten()
            self._pump()
            self._check_peer()
            return True

    def _unwanted(self) -> bool:
        """It was dropped, and no job of it is left."""
        return bool(self._dropped) and not self._core.busy and not self._core.events

    def _until_retry(self) -> float | None:
        """Seconds until refused jobs are sent again; None when there are none."""
        retry_s = self._core.retry_s
        if not retry_s:
            self._retry_at = 0.0
            return None
        now = time.monotonic()
        self._retry_at = self._retry_at or now + retry_s
        return wait_s(self._retry_at - now)

    def _finish(self) -> None:
        """The end, in this thread: whoever waits for it may be interrupted and is not needed."""
        with self._lock:
            self._ended = True
            self._say_bye()
            self._epoll.close()
        while self._core.events or self._in_hand is not None:
            with self._delivery:  # whoever delivers just now
                pass
            self._deliver()
        self._bell.close()  # no stream rings it any more: all have ended
        _close_link(self._link, self._network, self._daemon)

    def _end_io(self) -> None:
        with SHIELD, self._lock:
            if not self._ended:
                self._stopping = True
                self._woken = False
                self._wake()
        if self._thread is not None and self._io != threading.get_ident():
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                warnings.warn(
                    f"the client did not end within {CLOSE_S:g} s, for a callback of one of its"
                    " futures has not returned: a callback must not block",
                    RuntimeWarning,
                    stacklevel=3,
                )

    # -- the end ---------------------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until every job has its outcome; False when ``timeout`` seconds are not enough."""
        core, timeout = self._core, checked(timeout)

        def idle() -> bool:
            return core.busy == 0 and not core.events and not self._delivery.locked()

        with self._lock:
            if not self._stopping:
                self._flush()
        if self._delivers():
            return self._pump_nested(lambda: core.busy == 0, timeout)
        with self._lock:
            return bool(self._room.wait_for(idle, timeout))

    def close(self, *, wait: bool = True, cancel: bool = False) -> None:
        """End: ``wait`` for all jobs, or let go of them; ``cancel`` what has not started first.

        Open streams are cancelled: one that nobody reads would never end. Who reads one in another
        thread gets what has come, then JobCancelled. As with any job, what is in a blocking call is
        waited for.
        Once or often: a close that was interrupted is finished by the next. Beside the jobs, it
        waits no longer than CLOSE_S, and then warns of the callback that it waited for.
        """
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closed = True
            self._room.notify_all()
        try:
            if cancel and not self._ended:
                self.cancel_pending()
            if wait and not self._ended:
                self._cancel(self._core.cancel_streams)
                self.drain()
        finally:
            self._end_io()

    def _say_bye(self) -> None:
        if self._core.lost is None:
            self._link.send(self._core.bye("closed"))
        self._core.lose(DaemonUnreachable("the client was closed before this job ended"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error nobody is there to want the results of what has not even started.
        self.close(wait=kind is None, cancel=kind is not None)

    def __dir__(self) -> list[str]:
        """For completion in a shell: what a user is meant to call."""
        return sorted({*super().__dir__()} - _FOR_GMPD)

    def __del__(self) -> None:
        """Nobody can use it any more, but its jobs may still have callbacks: its thread ends it."""
        if getattr(self, "_ended", True) or self._thread is None or self._pid != os.getpid():
            return
        if sys.is_finalizing():
            return
        text = f"unclosed {self!r}"  # as it was, not as its thread may leave it in a moment
        self._forgotten.append(None)  # whoever had a stream of it is gone, too
        self._dropped.append(self)
        self._ring()
        if self._warns:
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)


def _serve(
    ref: weakref.ref[Client],
    dropped: list[Client],
    epoll: select.epoll,
    bell: io.FileIO,
    *owned: Any,
) -> None:
    """A client's IO thread. No name here may keep the client while the thread sleeps."""
    client = ref()
    assert client is not None  # whoever makes it has it
    client._io = threading.get_ident()
    pause_s: float | None = None
    while True:
        del client
        ready = epoll.poll(pause_s)
        client = dropped[0] if dropped else ref()
        if client is None:  # it is being dropped just now, and comes in the next moment
            client = _await_drop(dropped)
        if client is None:
            epoll.close()
            bell.close()
            _close_link(*owned)
            return
        if dropped:
            _open_clients.add(client)  # the collector has taken it out
        more = client._turn(ready)
        if more:
            client._deliver()
        if not more or client._unwanted():
            break
        pause_s = client._until_retry()
    client._stopping = True
    client._finish()
    dropped.clear()


def _await_drop(dropped: list[Client]) -> Client | None:
    """None when its finalizer was interrupted at once (Ctrl-C): it will never come."""
    end = time.monotonic() + DROP_S
    while not dropped and time.monotonic() < end:
        time.sleep(0.001)  # another thread is between the end of its references and __del__
    return dropped[0] if dropped else None


def _close_link(link: Dealer, network: Network, daemon: PrivateDaemon | None) -> None:
    link.close(LINGER_MS)
    network.close()
    if daemon is not None:
        daemon.close()


_open_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _at_exit() -> None:
    """Who left a client open lets go of its jobs; a private daemon's files go with it."""
    for client in list(_open_clients):
        if not client._ended:
            client.close(wait=False)


atexit.register(_at_exit)


def _in_fork() -> None:
    """In a fork there are no threads: what was locked stays so, and the socket is the parent's."""
    for client in list(_open_clients):
        client._lock = client._new_lock()
        client._room = client._new_room()
        client._delivery = threading.Lock()
        client._closed = client._ended = client._stopping = True


os.register_at_fork(after_in_child=_in_fork)


class _CallSink:
    def __init__(self, over: Any) -> None:
        self.over = over
        self.ok = False
        self.value: Any = None

    def answered(self, ok: bool, value: Any) -> None:
        self.ok, self.value = ok, value
        self.over.set()
