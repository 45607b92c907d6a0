"""Results of a ``Pool``, with the interface of those of ``multiprocessing.pool``.

A call without callbacks has no part in any thread of this process: its result is the future's.
"""

from __future__ import annotations

import logging
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Self

from gmpd.client.chunks import each
from gmpd.client.futures import JobFuture, Waiters
from gmpd.errors import JobCancelled, RemoteTraceback, Unserializable
from gmpd.timeouts import checked

log = logging.getLogger("gmpd.pool")

Callback = Callable[[Any], object]


class AsyncResult:
    """The result of ``apply_async``."""

    def __init__(
        self,
        futures: list[JobFuture],
        callback: Callback | None,
        error_callback: Callback | None,
    ) -> None:
        self._futures = futures
        #: Value and exception, once they were asked for.
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._callbacks = callback, error_callback
        #: Set once the callbacks have returned; without any there is none.
        self._delivered: threading.Event | None = None
        if callback is not None or error_callback is not None:
            self._delivered = threading.Event()
            self._lock, self._left = threading.Lock(), len(futures)
            for future in list(futures):
                future.add_done_callback(self._one_ended)
            if not futures:
                self._deliver()

    def ready(self) -> bool:
        """Whether it has ended, and its callback has returned."""
        if self._delivered is not None:
            return self._delivered.is_set()
        return all(future.done() for future in self._futures)

    def successful(self) -> bool:
        """Whether it ended without an exception. Raises ValueError if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready: wait() or get() wait for its end")
        return self._collect()[1] is None

    def wait(self, timeout: float | None = None) -> None:
        """Until it is ready, or ``timeout`` seconds."""
        timeout = checked(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        for future in list(self._futures):
            if not future.ended_within(_left(end)):
                return
        if self._delivered is not None:
            self._delivered.wait(_left(end))

    def get(self, timeout: float | None = None) -> Any:
        """Its value; its exception is raised. Raises ``multiprocessing.TimeoutError`` if it is not
        ready after ``timeout`` seconds."""
        self.wait(timeout)
        if not self.ready():
            raise _late(timeout)
        value, error = self._collect()
        if error is None:
            return value
        try:
            raise error
        finally:
            del error, self  # no cycle through a traceback

    def _collect(self) -> tuple[Any, BaseException | None]:
        """Value and exception: all has ended. The futures are released then."""
        if self._outcome is None:
            self._outcome = self._gather()
            self._futures = []
        return self._outcome

    def _gather(self) -> tuple[Any, BaseException | None]:
        (future,) = self._futures
        error = _error_of(future)
        return (future.result(0), None) if error is None else (None, error)

    def _one_ended(self, _: object) -> None:
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            self._deliver()

    def _deliver(self) -> None:
        assert self._delivered is not None
        try:
            value, error = self._collect()
            callback, error_callback = self._callbacks
            if error is None and callback is not None:
                callback(value)
            elif error is not None and error_callback is not None:
                error_callback(error)
        except BaseException:  # the user's code, whatever it raises: it costs no call its result
            log.exception("a callback of a pool raised; its result is there all the same")
        finally:
            self._callbacks = None, None
            self._delivered.set()

    def __class_getitem__(cls, item: Any) -> types.GenericAlias:
        return types.GenericAlias(cls, item)


#: The other name of the standard class.
ApplyResult = AsyncResult


class MapResult(AsyncResult):
    """The result of ``map_async``: of several chunks."""

    def _gather(self) -> tuple[Any, BaseException | None]:
        values: list[Any] = []
        failed: BaseException | None = None
        for future in self._futures:
            error = _error_of(future)
            if error is None and failed is None:
                try:
                    values.extend(each(future.result(0)))
                except Exception as of_item:  # noqa: BLE001 - one whose result could not be sent
                    error = _as_of_pool(of_item)
            failed = failed or error
        return (values, None) if failed is None else (None, failed)


class Tasks:
    """The tasks of an ``imap``, between the thread that submits and the one that takes results."""

    def __init__(self) -> None:
        #: Those whose results are given next, in this order.
        self.due: deque[JobFuture] = deque()
        #: How many may be out, or have results that were not taken. None: any number.
        self.most: int | None = None
        self.added = self.taken = 0
        self.source_error: BaseException | None = None
        self.waiters = Waiters()
        self._stopped = self._ended = False

    @property
    def is_over(self) -> bool:
        """Whether all results were taken."""
        return self._ended and self.taken == self.added

    def await_room(self) -> bool:
        """Until one more may be added; False: no more are to be."""
        most = self.most
        if most is not None:
            self.waiters.wait_for(lambda: self.added - self.taken < most or self._stopped)
        return not self._stopped

    def add(self, future: JobFuture) -> None:
        """The next task."""
        self.added += 1
        self.due.append(future)
        self.waiters.notify_all()

    def take(self) -> JobFuture:
        """The next that is due. Raises IndexError if there is none."""
        future = self.due.popleft()
        self.taken += 1
        self.waiters.notify_all()
        return future

    def end(self) -> None:
        """There are no more tasks."""
        self._ended = True
        self.waiters.notify_all()

    def stop(self) -> None:
        """No more tasks are to be added."""
        self._stopped = True
        self.waiters.notify_all()


class UnorderedTasks(Tasks):
    """Tasks that are due when they have ended."""

    def add(self, future: JobFuture) -> None:
        """The next task."""
        self.added += 1
        with future._condition:
            if not future.done():
                future._waiters.append(self)  # type: ignore[arg-type]
                return
        self.add_result(future)

    def add_result(self, future: JobFuture) -> None:
        """As a waiter of ``concurrent.futures``: told by the thread that settles the future."""
        self.due.append(future)
        self.waiters.notify_all()

    add_exception = add_cancelled = add_result


class IMapIterator:
    """The results of ``imap``. After the exception of an item, ``next`` gives the next one."""

    def __init__(self, tasks: Tasks, chunked: bool) -> None:
        self._tasks, self._chunked = tasks, chunked
        #: Results of the chunk that was taken last.
        self._items: Iterator[Any] = iter(())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        for item in self._items:  # of a chunk, most of the time
            return item
        return self.next()

    def __del__(self) -> None:
        """Tasks with a bound are not added any more: there would never be room again."""
        if self._tasks.most is not None:
            self._tasks.stop()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. Raises ``multiprocessing.TimeoutError`` if it is not there after
        ``timeout`` seconds, StopIteration after the last one."""
        timeout = checked(timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            for item in self._items:
                return item
            self._await_due(end, timeout)
            try:
                future = self._tasks.take()
            except IndexError:  # over, or another thread has it
                if self._tasks.is_over:
                    self._raise_end()
                continue
            error = _error_of(future)
            if error is not None:
                try:
                    raise error
                finally:
                    del error, future, self
            value = future.result(0)
            del future
            if not self._chunked:
                return value
            self._items = each(value)

    def _await_due(self, end: float | None, timeout: float | None) -> None:
        """Until a task is due and has ended, or there is none any more."""
        tasks, left = self._tasks, _left(end)
        if not tasks.waiters.wait_for(lambda: tasks.due or tasks.is_over, left):
            raise _late(timeout)
        try:
            first = tasks.due[0]
        except IndexError:
            return
        if not first.ended_within(_left(end)):
            raise _late(timeout)

    def _raise_end(self) -> NoReturn:
        error, self._tasks.source_error = self._tasks.source_error, None
        raise StopIteration if error is None else error


#: Why a call of a pool has no result.
TERMINATED = (
    "the pool was terminated before this call had ended: by terminate(), the end of its `with` or"
    " the end of the program; get() the results before that, or close() and join() the pool"
)


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def failed_future(error: BaseException) -> JobFuture:
    """A future that has ended with an error of this process."""
    future = JobFuture()
    future.set_exception(error)
    return future


def _late(timeout: float | None) -> Exception:
    from multiprocessing import TimeoutError as Late  # 5 ms that most programs do without

    return Late(f"no result within {timeout:g} s: it may come yet, get() or next() wait for it")


def _error_of(future: JobFuture) -> BaseException | None:
    """The exception of a call when it has ended, as the standard pool has it."""
    future.wait_over(None)
    if future.cancelled():
        return JobCancelled(TERMINATED)
    error = future.exception(0)
    return error if error is None else _as_of_pool(error)


def _as_of_pool(error: BaseException) -> BaseException:
    cause = error.__cause__
    if isinstance(cause, RemoteTraceback):
        from gmpd.client import broken  # as in ``_late``

        error.__cause__ = broken.traceback_of(str(cause))
        if isinstance(error, Unserializable):  # of a result: one of an argument has no such cause
            return broken.UnsentResult.of(error)
    return error
