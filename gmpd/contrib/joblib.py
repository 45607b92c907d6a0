"""A backend for joblib: ``import gmpd.contrib.joblib``, then ``joblib.parallel_config("gmpd")``.

Batches of joblib travel as bytes that joblib's own reducers made, so large arrays are files that
workers map, as with loky. A pool of workers serves one Parallel after the other, and ends after
``idle_worker_timeout`` seconds without any. With ``client=``, another daemon's workers run them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import count
from multiprocessing import current_process
from typing import Any, NamedTuple

import cloudpickle
import joblib
from joblib._memmapping_reducer import (
    TemporaryResourcesManager,
    get_memmapping_reducers,
)
from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

import gmpd
from gmpd.bykey import Limit
from gmpd.client.futures import JobFuture
from gmpd.codec import diagnose
from gmpd.errors import Unserializable
from gmpd.runtime.log_records import worker_p

#: Seconds after which a pool that no Parallel uses ends, as loky's.
IDLE_S = 300.0

_numbers = count(1)


class GmpdBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """``joblib.parallel_config("gmpd")``: tasks of ``Parallel`` are jobs.

    ``client``: a ``gmpd.Client``, or its ``options(...)``, whose daemon runs them: at most
    ``n_jobs`` batches at once. By default a pool of ``n_jobs`` workers does.
    ``idle_worker_timeout``: seconds after its last use when that pool ends. ``initializer``,
    ``initargs``: run in each of its workers first.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    parallel: Any = None

    def __init__(
        self,
        client: Any = None,
        idle_worker_timeout: float = IDLE_S,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **others: Any,
    ) -> None:
        if others:
            raise TypeError(
                f"the gmpd backend of joblib has no parameter {', '.join(map(repr, others))}: it"
                " has client, idle_worker_timeout, initializer and initargs"
            )
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._client = client
        self._idle_s = idle_worker_timeout
        self._initializer = initializer, initargs
        self._pool: _Pool | None = None
        self._submit: Callable[..., JobFuture] | None = None
        self._files: Any = None
        self._pickler: Any = cloudpickle.Pickler
        #: Those of the present call that have not ended.
        self._out: set[JobFuture] = set()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches run at once. Below another Parallel it is 1: the cores are busy."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        if self.nesting_level:
            if n_jobs != 1 and not worker_p():
                text = "gmpd-backed parallel loops cannot be nested below others, setting n_jobs=1"
                warnings.warn(text, stacklevel=3)
            return 1
        if n_jobs < 0:
            return max(1, self._cores() + 1 + n_jobs)
        return n_jobs

    def _cores(self) -> int:
        if self._client is None:
            return int(joblib.cpu_count())
        return len(_whole(self._client).call("status")["ps"])

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: Any = None,
        require: Any = None,
        temp_folder: str | None = None,
        max_nbytes: float | None = 1e6,
        mmap_mode: str | None = "r",
        verbose: int = 0,
        context: object = None,
        idle_worker_timeout: float | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **others: Any,
    ) -> int:
        """See ``ParallelBackendBase``: called at the beginning of each Parallel. ``context``,
        of multiprocessing, means nothing here."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        if others:
            raise TypeError(f"the gmpd backend of joblib has no parameter {', '.join(others)}")
        self.parallel = parallel
        self._files = TemporaryResourcesManager(temp_folder, context_id=parallel._id)
        reducers, _ = get_memmapping_reducers(
            temp_folder_resolver=self._files.resolve_temp_folder_name,
            max_nbytes=max_nbytes,
            mmap_mode=mmap_mode,
            verbose=verbose,
            unlink_on_gc_collect=False,  # workers do not share loky's tracker of resources
        )
        self._pickler = _pickler(reducers)
        run: Callable[..., Any] = _run
        first = self._initializer if initializer is None else (initializer, initargs)
        if self._client is None:
            idle_s = self._idle_s if idle_worker_timeout is None else idle_worker_timeout
            key = _Key(n_jobs, tuple(sorted(self._prepare_worker_env(n_jobs).items())), *first)
            self._pool = _take(key, idle_s)
            submit = self._pool.executor.submit
        elif first[0] is not None:
            raise ValueError("initializer is for a pool of its own: workers of client= have begun")
        else:
            limit = Limit(f"joblib {os.getpid()}.{next(_numbers)}", at_once=n_jobs)
            submit = self._client.options(limit=limit).submit
            threads = self.inner_max_num_threads or max(1, self._cores() // n_jobs)
            run = functools.partial(_run_limited, threads)
        self._submit = functools.partial(submit, run)
        return n_jobs

    def submit(self, func: Any, callback: Callable[[Any], object] | None = None) -> JobFuture:
        """Run a batch; the future of its results, packed."""
        assert self._submit is not None
        try:
            # Proxies of managers, which are pickled without it, need it in workers of this program.
            key = b"" if self._pool is None else bytes(current_process().authkey)
            future = self._submit(_dumps(func, self._pickler), key)
        except Exception as error:  # noqa: BLE001 - joblib's thread of callbacks must not see it
            future = JobFuture()
            future.set_exception(_unsendable(func, error))
        else:
            self._out.add(future)
            future.add_done_callback(self._out.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: JobFuture) -> Any:
        """The results of a batch that has ended."""
        return cloudpickle.loads(out.result())

    def terminate(self) -> None:
        """A Parallel is over."""
        if self._files is not None:
            self._files._clean_temporary_resources(context_id=self.parallel._id, force=False)
        self._let_go()
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A task failed, or the caller wants no more: what runs ends with its worker, unless it is
        a daemon's of others; what waits does not begin."""
        if self._pool is not None:
            self._pool.end()
        for future in list(self._out):
            future.cancel()
        self._out.clear()
        if self._files is not None:
            self._files._clean_temporary_resources(force=True, allow_non_empty=True)
        self._let_go()
        if ensure_ready:
            kwargs = self.parallel._backend_kwargs
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **kwargs)

    def _let_go(self) -> None:
        pool, self._pool = self._pool, None
        self._submit = self._files = None
        if pool is not None:
            _give_back(pool)


# -- pools that one Parallel leaves to the next ----------------------------------------------------


class _Key(NamedTuple):
    """Parallels that agree in this share a pool."""

    n_jobs: int
    env: tuple[tuple[str, str], ...]
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]


class _Pool:
    """Workers, and how many Parallels use them."""

    def __init__(self, key: _Key, idle_s: float) -> None:
        self.key = key
        self.idle_s = idle_s
        self.users = 0
        self.timer: threading.Timer | None = None
        self.executor = gmpd.Executor(
            key.n_jobs, None, key.initializer, key.initargs, env=dict(key.env)
        )

    def end(self) -> None:
        """Now, with what runs, unless another Parallel uses it."""
        with _lock:
            if self.users > 1:
                return
            _forget(self)
        self.executor.kill_workers()


_lock = threading.RLock()
#: The one that is free to be used again, or is in use.
_kept: list[_Pool] = []


def _take(key: _Key, idle_s: float) -> _Pool:
    with _lock:
        for pool in _kept:
            if pool.key == key and not pool.executor._broken:
                break
            if not pool.users:  # at most one waits for its next use
                _end_idle(pool)
        else:
            pool = _Pool(key, idle_s)
            _kept.append(pool)
        pool.users += 1
        pool.idle_s = idle_s
        if pool.timer is not None:
            pool.timer.cancel()
            pool.timer = None
        return pool


def _give_back(pool: _Pool) -> None:
    with _lock:
        pool.users -= 1
        if pool.users or pool not in _kept:
            return
        pool.timer = threading.Timer(pool.idle_s, _end_idle, [pool])
        pool.timer.daemon = True
        pool.timer.start()


def _end_idle(pool: _Pool) -> None:
    with _lock:
        if pool.users or pool not in _kept:
            return
        _forget(pool)
    pool.executor.shutdown(wait=False)


def _forget(pool: _Pool) -> None:
    if pool.timer is not None:
        pool.timer.cancel()
    if pool in _kept:
        _kept.remove(pool)


def _whole(client: Any) -> Any:
    return client if hasattr(client, "call") else client.whole[0]


# -- on the way, and in workers --------------------------------------------------------------------


def _pickler(reducers: dict[type, Callable[..., Any]]) -> Any:
    """A pickler with further reducers, which it reads from its class."""
    table = ChainMap(reducers, cloudpickle.Pickler.dispatch_table)
    return type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})


def _dumps(value: Any, pickler: Any) -> bytes:
    file = BytesIO()
    pickler(file).dump(value)
    return file.getvalue()


def _unsendable(func: Any, error: Exception) -> Exception:
    """In joblib's words: a PicklingError, with the path to what cannot be sent."""
    if isinstance(error, gmpd.errors.GmpdError) and not isinstance(error, Unserializable):
        return error
    try:
        why = diagnose.explain(getattr(func, "items", func), "tasks", error)
    except Exception:  # noqa: BLE001 - of the user's value
        why = f"{type(error).__name__}: {error}"
    told = Unserializable(f"Could not pickle the task to send to the workers. {why}")
    told.__cause__ = error
    return told


def _run(batch: bytes, authkey: bytes) -> bytes:
    """A batch, in a worker. ``authkey``: of multiprocessing in its program."""
    if authkey:
        current_process().authkey = authkey
    return _results(cloudpickle.loads(batch))


def _results(call: Callable[[], object]) -> bytes:
    return _dumps(call(), _back())


@functools.cache
def _back() -> Any:
    """The pickler of results: none of them becomes a file."""
    return _pickler(get_memmapping_reducers(max_nbytes=None)[1])


def _run_limited(threads: int, batch: bytes, _: bytes) -> bytes:
    """The same in a daemon of others, whose environment says nothing of threads: of the libraries
    that the batch brings, not of those that its functions import themselves."""
    call = cloudpickle.loads(batch)
    with _threads(threads):
        return _results(call)


@contextlib.contextmanager
def _threads(most: int) -> Iterator[None]:
    try:
        import threadpoolctl
    except ImportError:
        yield
        return
    with threadpoolctl.threadpool_limits(limits=most):
        yield


joblib.register_parallel_backend("gmpd", GmpdBackend)
