"""``Client``: the blocking face. Any thread may use it.

All use of the socket and the core is under one lock. One daemon thread sleeps on the socket's
descriptor, on the monitor's and on an eventfd by which others wake it. A thread that waits for a
result leads for a moment instead: it reads the socket itself, spinning, since the answer to a short
job comes sooner than a sleeping thread wakes. Outcomes are applied outside the lock, by one thread
at a time, so callbacks may use the client.

Each call on the socket may swallow the edge of its descriptor (see ``netpoll``): whoever gives the
lock away without having read to the end wakes the thread.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from gmpd.client.core import (
    STREAM_WINDOW,
    apply,
    wire_options,
)
from gmpd.client.discovery import Target, find
from gmpd.client.futures import JobFuture
from gmpd.client.mapping import Mapping
from gmpd.client.private import PrivateDaemon
from gmpd.client.progress import Report
from gmpd.client.streams import Stream
from gmpd.client.wire import Wire
from gmpd.codec import Blob, FunctionRef, describe_function, encode_call
from gmpd.errors import DaemonUnreachable, GmpdError, QueueFull
from gmpd.job import ATTRIBUTE, JobOptions
from gmpd.netpoll import Network

#: Gathered jobs that are sent by the submitting thread itself; fewer are left to the IO thread.
FLUSH_JOBS = 64
#: How long a waiting thread spins before it sleeps: a little over a round trip through coordinator
#: and worker (0.38 ms; 0.7 ms when it spins for less than that and then sleeps).
SPIN_NS = 500_000
#: How long cancel() waits for the daemon's word, seconds.
CANCEL_WAIT_S = 0.25
#: Jobs that may wait in the client for the daemon's window before submit waits.
PENDING_MAX = 100_000
#: Milliseconds that the last messages get to leave when a client closes.
LINGER_MS = 500


class Client(Wire):
    """A connection to a daemon: ``submit``, ``map``, ``stream``, ``call``.

    ``endpoint`` is an address or a runtime directory; without one the running daemon is found, and
    when none runs a private one starts and ends with this client. ``on_full``: "wait", or "raise"
    QueueFull, when more than ``pending_max`` jobs wait here for the daemon.

    Raises DaemonUnreachable when nobody answers, ProtocolError for a daemon of another version.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        name: str = "",
        on_full: str = "wait",
        pending_max: int = PENDING_MAX,
        target: Target | None = None,
    ) -> None:
        if on_full not in ("wait", "raise"):
            raise ValueError(f"on_full={on_full!r}: must be 'wait' or 'raise'")
        self._closed = True  # until all is there: close() of a half-made client has nothing to do
        self._on_full, self._pending_max = on_full, pending_max
        self._lock = self._new_lock()
        self._room = self._new_room()
        self._leader = threading.Lock()
        self._delivery = threading.Lock()
        self._deliverer = 0
        self._woken = False
        self._stopping = False
        target = target or find(endpoint)
        self._daemon: PrivateDaemon | None = target.daemon
        super().__init__(target.endpoint, name)
        self._core.explain = self._loss
        try:
            self._connect(target.connect_timeout)
        except BaseException:
            if self._daemon is not None:
                self._daemon.close()
            raise
        self._closed = False

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
        ref = describe_function(fn)
        options, plain = None, False
        if overrides or hasattr(fn, ATTRIBUTE) or hasattr(fn, "func"):
            options, plain = wire_options(fn, overrides)
        blob = encode_call(ref.name, args, kwargs, fn=fn, plain=plain)
        return self.submit_ref(ref, options, blob, wait=wait)

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
            if self._closed or self._pid != os.getpid():
                self._refuse()
            if core.unsent > self._pending_max and wait:
                self._await_room()
            sink._seq = core.submit(ref, blob, options, sink)
            if core.unsent >= FLUSH_JOBS or core.in_flight == 0:
                self._flush()
            elif not self._woken:
                self._wake()

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
        return self._map(
            None,
            fn,
            iterables,
            ordered=ordered,
            chunksize=chunksize,
            timeout=timeout,
            progress=progress,
        )

    def _map(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        **how: Any,
    ) -> Iterator[Any]:
        return Mapping(self, overrides, fn, iterables, **how).run()

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Stream:
        """The values that the generator function ``fn`` yields, as they come."""
        return self._stream(None, fn, args, kwargs)

    def _stream(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Stream:
        ref = describe_function(fn)
        options, plain = wire_options(fn, overrides)
        blob = encode_call(ref.name, args, kwargs, fn=fn, plain=plain)
        stream = Stream(self, ref.name)
        sink = stream.sink()
        self._take_in(ref, {**(options or {}), "stream": STREAM_WINDOW}, blob, sink, True)
        stream._seq = sink._seq
        return stream

    def pull_items(self, seq: int, n: int) -> None:
        """Room for ``n`` more items of a stream."""
        with self._lock:
            if not self._closed:
                self._core.pull(seq, n)
                self._flush()

    def new_queue(self) -> Any:
        """A queue on which this face's threads may wait."""
        return queue.SimpleQueue()

    def options(self, **options: Any) -> OptionsView:
        """A view of this client that submits with job options (see ``gmpd.job``)."""
        JobOptions().merged(**options)
        return OptionsView(self, options)

    def call(self, method: str, /, *, timeout: float | None = 30.0, **params: Any) -> Any:
        """Ask the daemon an administrative question; its answer. GmpdError with what it says."""
        sink = _CallSink(self._new_event())
        with self._lock:
            if self._closed or self._pid != os.getpid():
                self._refuse()
            self._core.call(method, params, sink)
            self._flush()
        if not sink.over.wait(timeout):
            raise DaemonUnreachable(
                f"the daemon at {self.endpoint} did not answer {method!r} within {timeout:g} s"
            )
        if not sink.ok:
            raise sink.value if isinstance(sink.value, Exception) else GmpdError(str(sink.value))
        return sink.value

    def _new_future(self) -> JobFuture:
        return JobFuture()

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
        with self._lock:
            unsent = self._core.cancel([future._seq])
            if not self._stopping:
                self._flush()
        if unsent:
            future.finish_cancelled()
            self._notify_idle()
            return True
        if self._deliverer == threading.get_ident():
            return future.cancelled()  # who brings outcomes cannot wait for one
        condition = future._condition
        with condition:
            condition.wait_for(lambda: future.done() or future._kept, CANCEL_WAIT_S)
        return future.cancelled()

    def cancel_pending(self) -> int:
        """Cancel everything that has not started; how many were cancelled before they were sent."""
        return self.cancel_seqs(None)

    def cancel_jobs(self, futures: list[JobFuture]) -> None:
        """Cancel these; does not wait for what the daemon says."""
        if futures:
            self.cancel_seqs([future._seq for future in futures])

    def cancel_seqs(self, seqs: list[int] | None) -> int:
        """Cancel jobs by number, or all; how many had not been sent."""
        with self._lock:
            unsent = self._core.cancel_all() if seqs is None else self._core.cancel(seqs)
            if not self._stopping:
                self._flush()
        for sink in unsent:
            sink.finish_cancelled()
        self._notify_idle()
        return len(unsent)

    def lead(self, future: JobFuture, timeout: float | None) -> None:
        """Read the socket in the calling thread for a moment, until ``future`` is done."""
        if self._deliverer == threading.get_ident():
            self._pump_nested(future, timeout)
            return
        if self._closed or not self._leader.acquire(False):
            return
        fd = self._link.fd
        spin_ns = SPIN_NS if timeout is None else min(SPIN_NS, int(timeout * 1e9))
        try:
            self._epoll.modify(fd, 0)
            end = time.perf_counter_ns() + spin_ns
            while not future.done():
                with self._lock:
                    if self._stopping:
                        return
                    self._pump()
                self._deliver()
                if time.perf_counter_ns() > end:
                    return
        finally:
            with self._lock:
                if not self._stopping:
                    self._epoll.modify(fd, select.EPOLLIN)
                    if self._core.unsent or self._link.readable:
                        self._wake()
            self._leader.release()

    def _pump_nested(self, future: JobFuture, timeout: float | None) -> None:
        # A callback waits for another result: nobody else may deliver now, so this thread goes on.
        end = None if timeout is None else time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._link.fd, select.POLLIN)
        poll.register(self._link.monitor_fd, select.POLLIN)
        while not future.done() and (end is None or time.monotonic() < end):
            with self._lock:
                self._pump()
                self._check_peer()
            self._deliver()
            if not future.done():
                poll.poll(20)  # ms; the edge may have been swallowed by another thread's send

    # -- the socket; the caller holds the lock ----------------------------------------------------

    def _connect(self, timeout_s: float) -> None:
        self._open_link(self._new_network())
        try:
            deadline = time.monotonic() + timeout_s
            while self._core.welcome is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._link.wait(int(left * 1000) + 1):
                    raise self._no_answer(timeout_s)
                self._read()
                if self._core.lost is not None:
                    raise self._core.lost
        except BaseException:
            self._drop_link()
            raise
        self._start_io()

    def _loss(self, error: Exception) -> Exception:
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
        if self._send_out():
            self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            os.eventfd_write(self._eventfd, 1)

    # -- outcomes, outside the lock ---------------------------------------------------------------

    def _deliver(self) -> None:
        events, me = self._core.events, threading.get_ident()
        while events:
            nested = self._deliverer == me
            if not nested and not self._delivery.acquire(False):
                return  # whoever delivers looks again when it is through
            self._deliverer = me
            try:
                while events:
                    apply(events.popleft())  # no name for it here: it must not outlive the call
            finally:
                if not nested:
                    self._deliverer = 0
                    self._delivery.release()
        if self._core.unsent <= self._pending_max:
            self._notify_idle()

    def _notify_idle(self) -> None:
        if self._room._waiters:  # a look without the lock is enough
            with self._lock:
                self._room.notify_all()

    # -- the IO thread ---------------------------------------------------------------------------

    def _start_io(self) -> None:
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        for fd in (self._eventfd, self._link.fd, self._link.monitor_fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="gmpd-io", daemon=True)
        self._thread.start()
        self._wake()  # what came together with the Welcome has used up its edge

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._eventfd:
                    os.eventfd_read(fd)
            with self._lock:
                self._woken = False
                if self._stopping:
                    return
                self._pump()
                self._check_peer()
            self._deliver()

    def _stop_io(self) -> None:
        with self._lock:
            self._stopping = True
            self._woken = False
            self._wake()
        if self._thread is not threading.current_thread():
            self._thread.join()
            with self._leader:  # nobody spins on what is closed next
                self._epoll.close()
                os.close(self._eventfd)

    # -- the end ---------------------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> bool:
        """Wait until every job has its outcome; False when ``timeout`` seconds are not enough."""
        core = self._core

        def idle() -> bool:
            return core.busy == 0 and not core.events and self._deliverer == 0

        with self._lock:
            if not self._stopping:
                self._flush()
            return bool(self._room.wait_for(idle, timeout))

    def close(self, *, wait: bool = True, cancel: bool = False) -> None:
        """End: ``wait`` for all jobs, or let go of them; ``cancel`` what has not started first."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._room.notify_all()
        try:
            if cancel:
                self.cancel_pending()
            if wait:
                self.drain()
        finally:
            self._shut()

    def _shut(self) -> None:
        self._stop_io()
        with self._lock:
            if self._core.lost is None:
                self._link.send(self._core.bye("closed"))
            self._core.lose(DaemonUnreachable("the client was closed before this job ended"))
            self._link.close(LINGER_MS)
        self._deliver()
        self._network.close()
        if self._daemon is not None:
            self._daemon.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error nobody is there to want the results of what has not even started.
        self.close(wait=kind is None, cancel=kind is not None)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "lost" if self._core.lost else "open"
        own = " (private)" if self._daemon is not None else ""
        return f"<gmpd.{type(self).__name__} {state} {self.endpoint}{own}, {self._core.busy} jobs>"


class OptionsView:
    """A client seen through job options; shares everything else with it."""

    def __init__(self, client: Client, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options

    def options(self, **options: Any) -> OptionsView:
        """More options on top."""
        return self._client.options(**{**self._options, **options})

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture:
        """As ``Client.submit``."""
        return self._client.submit_with(self._options, fn, args, kwargs)

    def map(
        self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **how: Any
    ) -> Iterator[Any]:
        """As ``Client.map``."""
        return self._client._map(self._options, fn, iterables, **how)

    def stream(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Stream:
        """As ``Client.stream``."""
        return self._client._stream(self._options, fn, args, kwargs)


class _CallSink:
    def __init__(self, over: Any) -> None:
        self.over = over
        self.ok = False
        self.value: Any = None

    def answered(self, ok: bool, value: Any) -> None:
        self.ok, self.value = ok, value
        self.over.set()
