"""The gevent face: ``Client`` on ``zmq.green``, for programs whose threads are greenlets.

Works with and without gevent's monkey patches. Whoever waits gives way to other greenlets; instead
of a thread, the hub watches the socket. It keeps a client only while jobs of it are out (see
``unclosed``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import gevent.queue

from gmpd.client.core import apply
from gmpd.client.futures import JobFuture
from gmpd.client.streams import Gone, Stream
from gmpd.client.sync import Client as _Client
from gmpd.client.unclosed import Belongings, Leash
from gmpd.codec import Blob, FunctionRef
from gmpd.netpoll import Network

#: libev's and libuv's flag for "readable".
_READ = 1


class Condition:
    """``threading.Condition`` for greenlets of one thread, which cannot interrupt each other."""

    def __init__(self) -> None:
        self._waiters: list[gevent.event.Event] = []

    def acquire(self, *_: object) -> bool:
        """Nothing to do: between two waits a greenlet has the thread to itself."""
        return True

    def release(self) -> None:
        """The counterpart of ``acquire``."""

    hold = acquire

    def __enter__(self) -> bool:
        return True

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self, timeout: float | None = None) -> bool:
        """Let others run until one notifies; False after ``timeout`` seconds."""
        event = gevent.event.Event()
        self._waiters.append(event)
        try:
            return bool(event.wait(timeout))
        finally:
            if event in self._waiters:
                self._waiters.remove(event)

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()``; its last value."""
        with gevent.Timeout(timeout, False):
            while not predicate():
                self.wait()
        return predicate()

    def notify_all(self) -> None:
        """Wake all that wait."""
        waiters, self._waiters = self._waiters, []
        for event in waiters:
            event.set()

    notify = notify_all


class GreenFuture(JobFuture):
    """A job's future on which greenlets wait."""

    def _new_condition(self) -> Any:
        return Condition()


class Client(_Client):
    """``gmpd.Client`` for greenlets. All of them in one thread."""

    def _new_future(self) -> JobFuture:
        return GreenFuture()

    def _new_network(self) -> Network:
        return Network(green=True)

    def _new_lock(self) -> Any:
        return Condition()  # nothing that the lock guards gives way to another greenlet

    def _new_room(self) -> Any:
        return Condition()

    def _new_event(self) -> Any:
        return gevent.event.Event()

    def new_queue(self) -> Any:
        """A queue on which greenlets may wait."""
        return gevent.queue.Queue()

    def lead(self, future: JobFuture, timeout: float | None) -> None:
        """Nothing: a greenlet that spins would keep the others from running."""

    def _deliver(self) -> None:
        events = self._core.events
        while events:
            apply(events.popleft())
        self._notify_idle()

    def _take_in(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, sink: Any, wait: bool
    ) -> None:
        super()._take_in(ref, options, blob, sink, wait)
        self._leash.client = self

    def stream_with(self, *what: Any) -> Stream:
        """As the blocking face's."""
        stream = super().stream_with(*what)
        self._leash.client = self
        return stream

    def _start_io(self) -> None:
        hub = gevent.get_hub()
        watchers = [hub.loop.io(fd, _READ) for fd in (self._link.fd, self._link.monitor_fd)]

        def unhook() -> None:
            for watcher in watchers:
                watcher.stop()
                watcher.close()

        def there(fn: Callable[[], None]) -> bool:
            if hub.dead or hub.loop is None:
                return False
            # In a greenlet of its own: the hub's must not wait for anything.
            hub.loop.run_callback_threadsafe(gevent.spawn, fn)
            return True

        self._there = there
        self._leash = Leash(self, Client._wake)
        self._belongings = Belongings(self, self._link, self._network, self._daemon, unhook, there)
        for watcher in watchers:
            watcher.start(self._leash)
        self._wake()

    def _wake(self) -> None:
        # A greenlet of its own, for callbacks may wait; one at a time, or a busy socket makes many.
        if not self._woken:
            self._woken = True
            gevent.spawn(self._turn_green)

    def _ring(self) -> None:
        if not self._stopping:
            self._there(self._leash)

    def _watch_bell(self, stream: Stream) -> Gone:
        return Gone(stream, lambda _: self._ring())

    def _turn_green(self) -> None:
        self._woken = False
        if self._stopping:
            return
        self._cancel_forgotten()
        self._pump()
        self._check_peer()
        self._deliver()
        if not self._core.busy:
            self._leash.client = None
        if self._core.retry_s and not self._retry_at:
            self._retry_at = time.monotonic() + self._core.retry_s
            gevent.spawn_later(self._core.retry_s, self._try_again)

    def _try_again(self) -> None:
        self._retry_at = 0.0
        self._core.retry()
        self._turn_green()

    def _end_io(self) -> None:
        if self._ended:
            return
        self._stopping = self._ended = True
        self._say_bye()
        self._deliver()
        self._leash.client = None
        self._belongings.end(None)
        if self._daemon is not None:
            self._daemon.close()
