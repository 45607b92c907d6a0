"""``Executor``: the whole contract of ``concurrent.futures.Executor`` on a daemon of its own.

Adds nothing to what ``Client`` can do; only the words of that contract: when submit is refused,
what ``shutdown`` waits for, and when the pool is broken.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Any

from gmpd.client.chunks import each, sendable
from gmpd.client.discovery import Target
from gmpd.client.futures import JobFuture
from gmpd.client.private import PrivateDaemon
from gmpd.client.sync import Client
from gmpd.codec import OrElse
from gmpd.config import Config
from gmpd.cpus import procs_max
from gmpd.errors import DaemonUnreachable

#: What the daemon's last word begins with when the initializer failed.
_INITIALIZER_FAILED = "initializer failed"

_executors: weakref.WeakSet[Executor] = weakref.WeakSet()


class Executor(concurrent.futures.Executor):
    """A pool of ``max_workers`` Ps that lives until ``shutdown``.

    ``max_workers``: default as many as the process may use cores. ``initializer(*initargs)`` runs
    in each worker first; when it fails, the executor is broken: futures and submit raise
    BrokenExecutor. ``client``: use this one instead of an own daemon; it is left open.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        client: Client | None = None,
    ) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._lock = threading.Lock()
        self._down = False
        self._own = client is None
        self._pending: weakref.WeakSet[JobFuture] = weakref.WeakSet()
        self._client = client or _PoolClient(target=_pool(max_workers, initializer, initargs))
        self._max_workers = max_workers or len(self._client.call("status").get("ps", ())) or 1
        _executors.add(self)

    @property
    def _broken(self) -> bool:
        """Whether the initializer failed, as the standard pools have it."""
        return isinstance(self._client._core.lost, BrokenExecutor)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> JobFuture:
        """Run ``fn(*args, **kwargs)`` in the pool; never blocks."""
        with self._lock:
            if self._down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            try:
                future = self._client.submit_with(None, fn, args, kwargs, wait=False)
            except DaemonUnreachable as error:
                raise (broken(error) or error) from None
            if not self._own:
                self._pending.add(future)
            return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **more: Any,
    ) -> Iterator[Any]:
        """As ``concurrent.futures.Executor.map``: results in order; takes all items at once.

        ``buffersize`` (where the running Python's executors know it) bounds how many.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout, **more)
        if len(iterables) == 1:
            chunks, run = _chunked(iter(iterables[0]), chunksize), _Chunk(fn)
        else:
            chunks, run = _chunked(zip(*iterables, strict=False), chunksize), _Rows(fn)
        lists = super().map(run, chunks, timeout=timeout, **more)
        return _flattened(lists)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; ``wait`` for what was taken; ``cancel_futures`` what has not begun."""
        with self._lock:
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

    def _leave_borrowed(self, wait: bool, cancel_futures: bool) -> None:
        pending = list(self._pending)
        if cancel_futures:
            for future in pending:
                future.cancel()
        if wait:
            concurrent.futures.wait(pending)

    def __del__(self) -> None:
        if getattr(self, "_down", True) is False and self._own:
            self.shutdown(wait=False)


class _PoolClient(Client):
    """Says BrokenExecutor when its daemon is gone because the initializer failed."""

    _warns = False  # the standard pools say nothing either

    @staticmethod
    def _loss(error: Exception) -> Exception:
        failed = broken(error)
        if failed is not None:
            # Where the standard pools say it too.
            logging.getLogger("concurrent.futures").critical("Exception in initializer: %s", error)
        return failed or error


class _Chunk:
    """Calls a function for each item of a chunk, in one job."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, chunk: list[Any]) -> OrElse:
        fn = self.fn
        return sendable([fn(item) for item in chunk], {})


class _Rows(_Chunk):
    """As ``_Chunk``, of a function with several arguments."""

    def __call__(self, chunk: list[tuple[Any, ...]]) -> OrElse:
        fn = self.fn
        return sendable([fn(*args) for args in chunk], {})


def broken(error: Exception) -> BrokenExecutor | None:
    """The pool's error for a daemon that ended because its initializer failed, else None."""
    if _INITIALIZER_FAILED in str(error):
        return BrokenExecutor(str(error))
    return None


def _pool(
    max_workers: int | None, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> Target:
    changes: dict[str, object] = {"http.enabled": False}
    if max_workers is not None:
        # At most so many, as the standard pools have it; more Ps than that would help nobody.
        changes["daemon.procs"] = min(max_workers, procs_max())
    config = Config.load().override(changes)
    daemon = PrivateDaemon(config, initializer, initargs)
    return Target(daemon.endpoint, config.client.connect_timeout, daemon)


def _chunked(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    from itertools import islice

    while chunk := list(islice(items, size)):
        yield chunk


def _flattened(chunks: Iterator[Any]) -> Iterator[Any]:
    for chunk in chunks:
        yield from each(chunk)


def _at_exit() -> None:
    """As the standard pools: the interpreter ends when the work is done."""
    for executor in list(_executors):
        executor.shutdown(wait=True)


atexit.register(_at_exit)
