"""The gevent face: ``Client`` on ``zmq.green``, for programs whose threads are greenlets.

Works with and without gevent's monkey patches. A waiting greenlet yields to the others; the
hub watches the socket, not a thread. It keeps a client only while the client has jobs out (see
``finalize``).
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event

from gmpd.client.finalize import ClientResources, LoopCallback
from gmpd.client.futures import JobFuture
from gmpd.client.stored import DurableFuture
from gmpd.client.streams import DropCallback, Stream
from gmpd.client.sync import Client as _Client
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

    def hold(self) -> bool:
        """Nothing to do, either."""
        return True

    def any(self) -> bool:
        """Whether one waits."""
        return bool(self._waiters)

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
        end = None if timeout is None else time.monotonic() + timeout
        while not (value := predicate()):
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return value

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


class GreenDurableFuture(DurableFuture):
    """A durable job's future on which greenlets wait."""

    def _new_condition(self) -> Any:
        return Condition()


class Client(_Client):
    """``gmpd.Client`` for greenlets. All of them in one thread."""

    _woken = False
    #: The greenlet that waits for the next turn, and until when.
    _timer: Any = None
    _timer_at = 0.0
    _watchers: list[Any]
    _unhook: Callable[[], None]

    def _new_future(self) -> JobFuture:
        return GreenFuture()

    def _new_durable_future(self) -> DurableFuture:
        return GreenDurableFuture()

    def _new_network(self) -> Network:
        return Network(green=True)

    def new_waiters(self) -> Any:
        return Condition()

    def _flush(self) -> None:
        with self._core_lock:
            self._send_all()

    def busy_poll(self, future: JobFuture, timeout: float | None) -> bool:
        """Nothing: a greenlet that spins would keep the others from running."""
        return True

    def _enqueue(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, sink: Any, wait: bool
    ) -> None:
        super()._enqueue(ref, options, blob, sink, wait)
        self._loop_callback.client = self

    def stream_with(self, *what: Any) -> Stream:
        """As the blocking face's."""
        stream = super().stream_with(*what)
        self._loop_callback.client = self
        return stream

    def call_back(self, future: JobFuture) -> None:
        """A greenlet of its own for each: callbacks may wait."""
        gevent.spawn(future.run_callbacks)

    def _start_io(self) -> None:
        hub = gevent.get_hub()
        watchers = self._watchers = []

        def unhook() -> None:
            while watchers:
                watcher = watchers.pop()
                watcher.stop()
                watcher.close()

        def there(fn: Callable[[], None]) -> bool:
            if hub.dead or hub.loop is None:
                return False
            # In a greenlet of its own: the hub's must not wait for anything.
            hub.loop.run_callback_threadsafe(gevent.spawn, fn)
            return True

        self._there = there
        self._loop_callback = LoopCallback(self, Client._wake)
        self._resources = ClientResources(
            self, self._link, self._network, self._daemon, unhook, there
        )
        self._unhook = unhook
        self._watch_link()
        self._open_lane()

    def _watch_link(self) -> None:
        for fd in (self._link.fd, self._link.monitor_fd):
            self._watch(fd)
        self._wake()

    def _watch(self, fd: int) -> None:
        watcher = gevent.get_hub().loop.io(fd, _READ)
        self._watchers.append(watcher)
        watcher.start(self._loop_callback)

    _watch_lane = _watch

    def _relink(self) -> None:
        self._unhook()
        self._link.renew()
        self._checked = None
        self._watch_link()

    def _wake(self) -> None:
        # A separate greenlet, because the hub's must not wait; one at a time, or a busy socket
        # spawns many.
        if not self._woken:
            self._woken = True
            gevent.spawn(self._turn_green)

    def _notify(self) -> None:
        if not self._stopping:
            self._there(self._loop_callback)

    def _watch_to_notify(self, stream: Stream) -> DropCallback:
        return DropCallback(stream, lambda _: self._notify())

    def _turn_green(self) -> None:
        self._woken = False
        if self._stopping or not self._turn([]):
            return
        wait_s = self._next_turn()
        if not self.unfinished():
            self._loop_callback.client = None
        if wait_s is not None and (self._timer is None or self._timer_at > time.monotonic()):
            if self._timer is not None:
                self._timer.kill(block=False)
            self._timer_at = time.monotonic() + wait_s
            self._timer = gevent.spawn_later(wait_s, _due, weakref.ref(self))

    def wake_due(self) -> None:
        """The time of the next turn has come."""
        self._timer = None
        self._wake()

    def _end_io(self) -> None:
        if self._ended:
            return
        self._stopping = self._ended = True
        with self._core_lock:
            self._say_bye()
            self._number()
            self._settle()
        if self._timer is not None:
            self._timer.kill(block=False)
        self._loop_callback.client = None
        self._resources.end(None)
        if self._daemon is not None:
            self._daemon.close()


def _due(ref: weakref.ref[Client]) -> None:
    client = ref()
    if client is not None:
        client.wake_due()
