"""``Executor``: the whole contract of ``concurrent.futures.Executor`` on a daemon of its own.

Adds to ``Client`` only the rules of that contract: when submit is refused, which jobs ``shutdown``
waits for, and when the pool is broken.
"""

from __future__ import annotations

import atexit
import collections
import concurrent.futures
import contextlib
import inspect
import logging
import operator
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from gmpd import pythons
from gmpd.client.chunks import Results, run_items_async, run_rows_async, runs_of, sendable
from gmpd.client.discovery import Target
from gmpd.client.futures import JobFuture
from gmpd.client.mapping import checked_buffersize
from gmpd.client.private import PrivateDaemon
from gmpd.client.sync import Client, View
from gmpd.client.views import OptionsView
from gmpd.codec import OrElse, describe_function, own_error
from gmpd.config import Config
from gmpd.cpus import procs_max
from gmpd.errors import DaemonUnreachable, Unserializable
from gmpd.job import ATTRIBUTE, DEFAULTS, options_of
from gmpd.timeouts import checked

if TYPE_CHECKING:
    from gmpd.client.broken import BrokenPool

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


class Executor(concurrent.futures.Executor):
    """A pool of ``max_workers`` Ps that lives until ``shutdown``.

    ``max_workers``: default as many as the process may use cores. ``initializer(*initargs)`` runs
    in each worker first; when it fails, the executor is broken: futures and submit raise
    BrokenExecutor. Hosts of a cluster that the settings name have workers besides, with the
    initializer; ConfigError if that needs this machine. ``client``: use this one, or its
    ``options(...)``, instead of an own daemon; it is left open.

    At most ``max_workers`` plain calls run at once, one per worker, as in a process pool;
    ``max_concurrent`` allows more of them in all. Coroutines run thousands at once, beside them.
    ``max_tasks_per_child``: a worker that has begun this many calls is replaced by a new one.
    ``env``: variables of the environment of its workers, besides this program's.
    """

    #: Until all is there.
    _down = True

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        client: Client | View | None = None,
        max_concurrent: int | None = None,
        max_tasks_per_child: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        pythons.welcome()
        max_workers = None if max_workers is None else operator.index(max_workers)
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_concurrent is not None and max_concurrent <= 0:
            raise ValueError("max_concurrent must be greater than 0")
        if max_tasks_per_child is not None and not isinstance(max_tasks_per_child, int):
            raise TypeError("max_tasks_per_child must be an integer")
        if max_tasks_per_child is not None and max_tasks_per_child <= 0:
            raise ValueError("max_tasks_per_child must be >= 1")
        if client is not None and (max_concurrent or max_tasks_per_child):
            name = "max_concurrent" if max_concurrent else "max_tasks_per_child"
            raise ValueError(f"{name} is for a pool of its own: client= has its daemon's limits")
        if client is not None and (initializer is not None or env is not None):
            name = "env" if initializer is None else "initializer"
            raise ValueError(f"{name} is for a pool of its own: workers of client= have begun")
        self._own = client is None
        self._overrides: dict[str, Any] | None = None
        if isinstance(client, OptionsView):
            whole, self._overrides = client.whole
            client = cast("Client", whole)
        self._pending: weakref.WeakSet[JobFuture] = weakref.WeakSet()
        if client is None:
            changes: dict[str, object] = {"limits.worker_calls": max_tasks_per_child or 0}
            target = _pool(max_workers, initializer, initargs, max_concurrent, changes, env)
            client = _PoolClient(target=target)
        self._client: Client = client
        self._down = False
        self._max_workers = max_workers or len(self._client.call("status").get("ps", ())) or 1
        _executors.add(self)

    @property
    def _broken(self) -> bool:
        """Whether the initializer failed, as the standard pools have it."""
        return isinstance(self._client._core.lost, BrokenExecutor)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture:
        """Run ``fn(*args, **kwargs)`` in the pool; never blocks."""
        # No lock: a signal handler may shut the pool down in the middle of this.
        if self._down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if not threading.main_thread().is_alive():  # as the standard pools: in atexit handlers, too
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        try:
            future = self._client.submit_with(self._overrides, fn, args, kwargs, wait=False)
        except Unserializable as error:  # where the standard pools have it
            future = JobFuture()
            future.set_exception(own_error(error))
        except RuntimeError:
            if self._down:  # just now
                raise RuntimeError("cannot schedule new futures after shutdown") from None
            raise
        if not self._own:
            self._pending.add(future)
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """As ``concurrent.futures.Executor.map`` of Python 3.14: results in order.

        Takes all items at once; ``buffersize`` bounds the tasks that are out or have results that
        were not taken. A task is an item, or ``chunksize`` of them.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        checked_buffersize(buffersize)
        left_s = checked(timeout)
        end = None if left_s is None else time.monotonic() + left_s
        if chunksize == 1:
            return _results(self, fn, zip(*iterables, strict=False), end, buffersize)
        rows = len(iterables) != 1 or inspect.iscoroutinefunction(fn)
        items = zip(*iterables, strict=False) if rows else iter(iterables[0])
        run = chunk_caller(fn, rows=rows)
        chunks = ((chunk,) for chunk in chunked(items, chunksize))
        return Results.of(_flattened(_results(self, run, chunks, end, buffersize)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs. ``wait``: for those accepted; ``cancel_futures``: not begun."""
        first, self._down = not self._down, True
        if not self._own:
            self._leave_borrowed(wait, cancel_futures)
        elif wait:
            if cancel_futures:
                self._client.cancel_pending()
            self._client.close()
        elif first:
            if cancel_futures:
                self._client.cancel_pending()
            client = self._client
            threading.Thread(target=client.close, name="gmpd-shutdown").start()

    def terminate_workers(self) -> None:
        """End the pool and its running jobs now: SIGTERM to each worker. As in Python 3.14."""
        self._end_workers(signal.SIGTERM, "terminate_workers")

    def kill_workers(self) -> None:
        """As ``terminate_workers``, by SIGKILL."""
        self._end_workers(signal.SIGKILL, "kill_workers")

    def _end_workers(self, number: signal.Signals, name: str) -> None:
        if not self._own:
            raise RuntimeError(
                f"{name}() is for a pool of its own: workers of client= serve others, too; use"
                " shutdown(wait=False, cancel_futures=True)"
            )
        if not self._down:
            self._end_now(number, _broken(f"the workers of the pool were ended by {name}()"))

    def _end_now(self, number: signal.Signals, error: Exception) -> None:
        """End the pool of its own: jobs that have begun end with ``error``, others are cancelled,
        workers get the signal. Not after ``shutdown``."""
        self._down = True
        client = self._client
        try:
            workers = [p["pid"] for p in client.call("status")["ps"] if p["pid"]]
            client.lose(error)
            if client._daemon is not None:  # before its workers, whose deaths are no failures then
                client._daemon.let_end()
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        finally:
            client.close(wait=False)

    def _leave_borrowed(self, wait: bool, cancel_futures: bool) -> None:
        pending = list(self._pending)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            # Not ``concurrent.futures.wait``: a handler that waits inside of it holds the futures'
            # own locks against the thread that is to settle them.
            for future in pending:
                future.wait_over(None)

    def __del__(self) -> None:
        if getattr(self, "_down", True) is False and self._own:
            self.shutdown(wait=False)


class _PoolClient(Client):
    """Says BrokenPool when its daemon has ended otherwise than by ``shutdown``."""

    _warns = False  # the standard pools say nothing either

    @staticmethod
    def _loss(error: Exception) -> Exception:
        code = getattr(error, "code", "")
        if code == "initializer":
            # Where the standard pools say it too.
            logging.getLogger("concurrent.futures").critical("Exception in initializer: %s", error)
        return _broken(str(error), error) if code else error

    def _gone(self) -> DaemonUnreachable:
        return _broken(str(super()._gone()))

    def _silence(self) -> DaemonUnreachable:
        return _broken(str(super()._silence()))


class _Chunk:
    """Calls a function for each item of a chunk, in one job, which has that function's name."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn
        named: Any = fn
        while isinstance(named, partial):
            named = named.func
        qualname, module = (getattr(named, each, None) for each in ("__qualname__", "__module__"))
        if isinstance(qualname, str) and isinstance(module, str):
            vars(self).update(__qualname__=qualname, __module__=module)

    def __call__(self, chunk: list[Any]) -> OrElse:
        fn = self.fn
        return sendable([fn(item) for item in chunk], {})


class _Rows(_Chunk):
    """As ``_Chunk``, of a function with several arguments."""

    def __call__(self, chunk: list[tuple[Any, ...]]) -> OrElse:
        fn = self.fn
        return sendable([fn(*args) for args in chunk], {})


def chunk_caller(fn: Callable[..., Any], *, rows: bool) -> Any:
    """A function that calls ``fn`` for the items of a list, as one job with the options of ``fn``;
    it can only be submitted. ``rows``: items are the arguments of a call each.

    It is described here, once, as for ``Client.map``: by value that takes longer than the rest of
    what a chunk costs. One that cannot be is described again with each chunk, whose error it is.
    """
    run: Callable[[list[Any]], Any]
    if inspect.iscoroutinefunction(fn):
        run = partial(run_rows_async, fn) if rows else partial(run_items_async, fn)
    else:
        run = _Rows(fn) if rows else _Chunk(fn)
    if (declared := options_of(fn)) is not DEFAULTS:
        setattr(run, ATTRIBUTE, declared)
    elif isinstance(run, _Chunk):  # of partials the client reads options, too
        with contextlib.suppress(Unserializable):
            return describe_function(run)
    return run


def _broken(text: str, cause: Exception | None = None) -> BrokenPool:
    from gmpd.client.broken import BrokenPool

    failed = BrokenPool(text)
    failed.__cause__ = cause
    return failed


def _pool(
    max_workers: int | None,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
    max_concurrent: int | None,
    changes: dict[str, object],
    env: Mapping[str, str] | None,
) -> Target:
    changes["http.enabled"] = False
    each = 1 if max_concurrent is None else -(-max_concurrent // (max_workers or procs_max()))
    changes["limits.plain_calls"] = each
    # As large as memory allows, as standard pools have it: it serves this program alone.
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    changes["limits.value_bytes"] = memory
    changes["limits.queue_bytes"] = max(memory, Config.load().limits.queue_bytes)
    if max_workers is not None:
        # An upper bound, as in the standard pools; more Ps than the machine can use do not help.
        changes["daemon.procs"] = min(max_workers, procs_max())
    config = Config.load().override(changes)
    daemon = PrivateDaemon(config, initializer, initargs, env=env)
    return Target.of(daemon.endpoint, config, daemon)


def _results(
    executor: Executor,
    fn: Callable[..., Any],
    calls: Iterator[tuple[Any, ...]],
    end: float | None,
    buffersize: int | None,
) -> Iterator[Any]:
    """Submits the first ``buffersize`` calls, or all; one more for each result that is taken."""
    out = collections.deque(executor.submit(fn, *args) for args in islice(calls, buffersize))
    more = calls if buffersize is not None else iter(())
    # A weak reference: an executor without other references ends and takes no more.
    return _in_order(weakref.ref(executor), fn, out, more, end)


def _in_order(
    ref: weakref.ref[Executor],
    fn: Callable[..., Any],
    out: collections.deque[JobFuture],
    more: Iterator[tuple[Any, ...]],
    end: float | None,
) -> Iterator[Any]:
    try:
        while out:
            executor = ref()
            if executor is not None and (args := next(more, None)) is not None:
                out.append(executor.submit(fn, *args))
            del executor
            left = None if end is None else end - time.monotonic()
            yield _take(out, left)
    finally:
        for future in out:
            future.cancel()


def _take(out: collections.deque[JobFuture], timeout: float | None) -> Any:
    """The result of the first, which is not kept beyond that."""
    result = out[0].result(timeout)
    out.popleft()
    return result


def chunked(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Lists of ``size`` items, the last one of what is left."""
    while chunk := list(islice(items, size)):
        yield chunk


def _flattened(chunks: Iterator[Any]) -> Generator[Iterator[Any], None, None]:
    for chunk in chunks:
        yield from runs_of(chunk)


def _at_exit() -> None:
    """As the standard pools: the interpreter ends when the work is done."""
    for executor in list(_executors):
        executor.shutdown(wait=True)


atexit.register(_at_exit)


def _in_fork() -> None:
    """In a fork no thread receives outcomes: none is waited for."""
    for executor in list(_executors):
        executor._pending = weakref.WeakSet()


os.register_at_fork(after_in_child=_in_fork)
