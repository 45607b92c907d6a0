"""``Pool``: the interface of ``multiprocessing.Pool``, on an ``Executor``.

Differs from that pool where it would hang: a worker that dies ends its calls with WorkerLost, an
initializer that fails breaks the pool, and results that a terminated pool owes are errors.
The items of ``imap`` come from a thread of their own, unless they are few and there already.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import count, islice
from typing import Any, NamedTuple, NoReturn, Self

from gmpd.bykey import Limit
from gmpd.client.executor import Executor, chunk_caller, chunked
from gmpd.client.futures import JobFuture
from gmpd.client.mapping import checked_buffersize
from gmpd.client.pool_results import (
    TERMINATED,
    AsyncResult,
    Callback,
    IMapIterator,
    MapResult,
    Tasks,
    UnorderedTasks,
    failed_future,
)
from gmpd.client.sync import Client, View
from gmpd.errors import GmpdError, JobCancelled
from gmpd.job import DEFAULTS, options_of

#: The states, by the names that ``multiprocessing.pool`` has for them.
INIT, RUN, CLOSE, TERMINATE = "INIT", "RUN", "CLOSE", "TERMINATE"
#: Tasks of one ``imap`` that have not ended, at most: its source is read no faster.
WINDOW_TASKS = 1024
#: Chunks of a ``map`` for each worker, as the standard pool has them.
CHUNKS_EACH = 4

#: Sources whose items are there: to take them runs no user's code.
_PLAIN_SOURCES = (list, tuple, range)
_numbers = count(1)
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class PoolWorker(NamedTuple):
    """A worker process of a pool, as ``Pool._pool`` lists them."""

    pid: int

    def is_alive(self) -> bool:
        """Whether there is a process of this number."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class Pool:
    """A pool of ``processes`` workers with the interface of ``multiprocessing.Pool``.

    ``processes``: default as many as the process may use cores. ``initializer(*initargs)`` runs in
    each worker first; when it fails the pool is broken, and calls raise BrokenExecutor.
    ``maxtasksperchild``: a worker that has begun this many tasks is replaced. ``context`` changes
    nothing: workers are fresh interpreters, as with "spawn".
    ``client``: use this one, or its ``options(...)``, instead of an own daemon; it is left open.
    Then at most ``processes`` tasks run at once in its daemon, if given.

    Raises ValueError and TypeError for wrong arguments, DaemonUnreachable.
    """

    _state = INIT

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        *,
        client: Client | View | None = None,
    ) -> None:
        if processes is not None and processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None:
            whole: object = maxtasksperchild
            if not isinstance(whole, int) or whole <= 0:
                raise ValueError("maxtasksperchild must be a positive int or None")
        if client is not None and processes is not None:
            client = _limited(client, processes)
        self._own = client is None
        self._pid = os.getpid()
        self._executor = Executor(
            processes,
            initializer=initializer,
            initargs=tuple(initargs),
            client=client,
            max_tasks_per_child=maxtasksperchild,
        )
        self._processes = processes or self._executor._max_workers
        #: Threads that take items for ``imap``.
        self._feeders: dict[threading.Thread, Tasks] = {}
        self._closer: threading.Thread | None = None
        #: Held by the thread that ends the executor; for good, so that no other one does.
        self._ending = threading.Lock()
        self._state = RUN
        _pools.add(self)

    # -- calls -----------------------------------------------------------------------------------

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Mapping[str, Any] = {}
    ) -> Any:
        """``func(*args, **kwds)`` in a worker; its value."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Mapping[str, Any] = {},
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> AsyncResult:
        """As ``apply``, without the wait. ``callback`` gets the value, ``error_callback`` the
        exception, in a thread of their own, before the result is ready."""
        self._check_running()
        future = self._submit(func, *args, **kwds)
        return AsyncResult([future], callback, error_callback)

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """``func(item)`` for all items, in chunks; the list of their results, once all chunks have
        ended. Raises the exception of the first that failed."""
        return self.map_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """As ``map``, of ``func(*item)``."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult:
        """As ``map``, without the wait; callbacks as those of ``apply_async``."""
        return self._map(func, iterable, chunksize, callback, error_callback, rows=False)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callback | None = None,
        error_callback: Callback | None = None,
    ) -> MapResult:
        """As ``starmap``, without the wait; callbacks as those of ``apply_async``."""
        return self._map(func, iterable, chunksize, callback, error_callback, rows=True)

    def imap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapIterator:
        """The results of ``func(item)`` in order, as an iterator whose ``next(timeout)`` raises
        ``multiprocessing.TimeoutError``. Items are taken at once, by a thread if need be;
        ``buffersize`` bounds the tasks whose results were not taken yet, as in Python 3.15."""
        return self._imap(Tasks(), func, iterable, chunksize, buffersize)

    def imap_unordered(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> IMapIterator:
        """As ``imap``, each result as soon as it is there."""
        return self._imap(UnorderedTasks(), func, iterable, chunksize, buffersize)

    # -- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Take no more calls. The workers end when those taken have ended."""
        if self._state == RUN:
            self._state = CLOSE
            self._closer = threading.Thread(target=self._finish, name="gmpd-pool", daemon=True)
            self._closer.start()

    def terminate(self) -> None:
        """End the pool now, and the calls that run, with their workers. Results that it owes raise
        JobCancelled. Of a pool on a ``client=``: calls that have not begun, and coroutines."""
        if self._state in (INIT, TERMINATE) or self._pid != os.getpid():
            return
        self._state = TERMINATE
        for tasks in list(self._feeders.values()):
            tasks.stop()
        if not self._ending.acquire(blocking=False):
            return  # close() is done with its calls, and ends the workers
        if not self._own:
            self._executor.shutdown(wait=False, cancel_futures=True)
            return
        with suppress(GmpdError):  # a daemon that has gone leaves nothing to end
            self._executor._end_now(signal.SIGTERM, JobCancelled(TERMINATED))

    def join(self) -> None:
        """Wait for the end of the workers, after ``close`` or ``terminate``. Raises ValueError if
        neither was called, RuntimeError in a callback of the pool, which would wait for itself."""
        if self._state == RUN:
            raise ValueError("Pool is still running: call close() or terminate() before join()")
        closer = self._closer
        if closer is None or closer is threading.current_thread():
            return
        if self._executor._client._delivery.here:
            raise RuntimeError("join() in a callback of the pool would wait for this callback")
        closer.join()

    def __enter__(self) -> Self:
        self._check_running()
        return self

    def __exit__(self, *_: object) -> None:
        self.terminate()

    def __del__(self) -> None:
        """Calls that it has taken run on; their results are in the results' own objects."""
        if self._state != RUN or getattr(self, "_pid", 0) != os.getpid() or sys.is_finalizing():
            return
        # The words by which the standard pool's warning is filtered.
        text = f"unclosed running multiprocessing pool {self!r}"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
        self._executor.shutdown(wait=False)

    def __reduce__(self) -> NoReturn:
        raise NotImplementedError(
            "pool objects cannot be passed between processes or pickled: a job reaches the pool's"
            " daemon by gmpd.go, or by a Client of its own"
        )

    def __repr__(self) -> str:
        size = getattr(self, "_processes", 0)
        cls = type(self)
        return f"<{cls.__module__}.{cls.__qualname__} state={self._state} pool_size={size}>"

    @property
    def _pool(self) -> list[PoolWorker]:
        """The workers, as programs ask the standard pool for them."""
        if self._state != RUN:
            return []
        rows = self._executor._client.call("status")["ps"]
        return [PoolWorker(row["pid"]) for row in rows if row["pid"]]

    # -- inside ----------------------------------------------------------------------------------

    def _check_running(self) -> None:
        if self._state != RUN:
            how = "close()" if self._state == CLOSE else "terminate(), or the end of its `with`,"
            raise ValueError(f"Pool not running: {how} has ended it; make a new Pool")

    def _submit(self, func: Callable[..., Any], /, *args: Any, **kwds: Any) -> JobFuture:
        return self._executor.submit(func, *args, **kwds)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Callback | None,
        error_callback: Callback | None,
        *,
        rows: bool,
    ) -> MapResult:
        self._check_running()
        items: Any = iterable if hasattr(iterable, "__len__") else list(iterable)
        if chunksize is None:
            chunksize = self._chunksize(func, len(items))
        run, source = chunk_caller(func, rows=rows), iter(items)
        futures: list[JobFuture] = []
        try:
            while chunk := list(islice(source, max(1, chunksize))):
                futures.append(self._submit(run, chunk))
        except Exception as error:  # noqa: BLE001 - of the source: it is the result's, as there
            futures.append(failed_future(error))
        return MapResult(futures, callback, error_callback)

    def _chunksize(self, func: Callable[..., Any], items: int) -> int:
        if options_of(func) is not DEFAULTS:  # time limits and retries are those of a call
            return 1
        return -(-items // (self._processes * CHUNKS_EACH))

    def _imap(
        self,
        tasks: Tasks,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int,
        buffersize: int | None,
    ) -> IMapIterator:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        checked_buffersize(buffersize)
        tasks.most = buffersize
        source = iter(iterable)
        calls: Iterator[tuple[Any, ...]] = ((item,) for item in source)
        run = func
        if chunksize > 1:
            run = chunk_caller(func, rows=False)
            calls = ((chunk,) for chunk in chunked(source, chunksize))
        results = IMapIterator(tasks, chunksize > 1)
        most = (buffersize or WINDOW_TASKS) * chunksize
        if isinstance(iterable, _PLAIN_SOURCES) and len(iterable) <= most:
            self._feed(tasks, run, calls)
        else:
            feed = (tasks, run, calls)
            feeder = threading.Thread(target=self._feed, args=feed, name="gmpd-imap", daemon=True)
            self._feeders[feeder] = tasks
            feeder.start()
        return results

    def _feed(
        self, tasks: Tasks, run: Callable[..., Any], calls: Iterator[tuple[Any, ...]]
    ) -> None:
        """Submit the tasks of an ``imap``. Errors of its source are results, in their place."""
        out: deque[JobFuture] = deque()
        try:
            while tasks.await_room() and (args := next(calls, None)) is not None:
                future = self._submit(run, *args)
                tasks.add(future)
                out.append(future)
                while out and (out[0].done() or len(out) >= WINDOW_TASKS):
                    out.popleft().ended_within(None)
        except BaseException as error:  # noqa: BLE001 - of the user's source, whatever it is
            tasks.source_error = error
        finally:
            tasks.end()
            self._feeders.pop(threading.current_thread(), None)

    def _finish(self) -> None:
        """In a thread, after ``close``: wait for all calls, and end the workers."""
        for feeder in list(self._feeders):
            feeder.join()
        if self._own:
            self._executor._client.drain()
        if self._ending.acquire(blocking=False):
            self._executor.shutdown(wait=True)


def _limited(client: Client | View, processes: int) -> View:
    """A client that runs at most ``processes`` tasks of the pool at once, unless it has a limit."""
    if not isinstance(client, Client) and client.whole[1].get("limit") is not None:
        return client
    key = f"pool {os.getpid()}.{next(_numbers)}"
    return client.options(limit=Limit(key, at_once=processes))


def _at_exit() -> None:
    """As the standard pool: it ends with the program, whatever it has to do."""
    for pool in list(_pools):
        pool.terminate()


atexit.register(_at_exit)
