"""``Client``: the blocking face. Any thread may use it, signal handlers and callbacks included.

How it is done is in ``session``; here are the verbs.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self, TypeAlias

from gmpd import pythons
from gmpd.client.calls import Answer, check_client, prepare, refuse_durable
from gmpd.client.discovery import Target, find, private_cluster
from gmpd.client.futures import JobFuture
from gmpd.client.iothread import open_sessions
from gmpd.client.mapping import Mapping
from gmpd.client.session import Session
from gmpd.client.stored import (
    DurableFuture,
    Storable,
    StoredJob,
    accepted,
    prepare_storable,
    storable,
)
from gmpd.client.storing import WINDOW_JOBS, StoreBatch, batches, note_stored, storables
from gmpd.client.streams import Stream
from gmpd.client.views import Face, OptionsView
from gmpd.codec import Blob, FunctionRef
from gmpd.errors import GmpdError, NoAnswer
from gmpd.job_ids import parse_job_id
from gmpd.timeouts import checked

#: Seconds that a gateway may take to start.
PAGE_S = 10.0
#: Jobs that may wait in the client for the daemon's window before submit waits.
PENDING_MAX = 100_000

#: A client seen through job options.
View: TypeAlias = OptionsView[JobFuture, Iterator[Any], Stream, Iterable[Any]]


class Client(Session, Face[JobFuture, Iterator[Any], Stream, Iterable[Any]]):
    """A connection to a daemon: ``submit``, ``map``, ``stream``, ``call``.

    ``endpoint``: an address or a runtime directory. Without one the client finds the running
    daemon; if none runs, it starts a private one, which ends with the client.
    ``key``: for a daemon on another machine (``tcp://host:7411``), the path of this client's key or
    the key itself. Its jobs call registered functions, with plain values unless the key allows
    others.
    ``cluster``: start a private daemon that uses the hosts of this engine beside the cores of this
    machine: ``dask://head:8786``, or ``dask:PATH`` of a scheduler file (``gmpd[dask]``);
    ``ray://head:10001``, or on a node of a Ray cluster ``ray:auto`` (``gmpd[ray]``).
    ``name``: shown by ``gmpd status``.
    ``on_full``: what happens when the daemon has no room, or more than ``pending_max`` jobs are
    queued in the client. "wait": ``submit`` blocks, and the client sends refused jobs again.
    "raise": QueueFull, from ``submit`` or as a job's outcome, with the room and a fair wait in
    seconds.
    ``reconnect``: seconds for which the client looks for a daemon after its own has gone, while it
    waits for durable jobs or has questions about them (``client.reconnect``, 60); 0: not at all.
    Then they end with DaemonUnreachable; the jobs continue. Other jobs end at once.

    A context manager; thread-safe. Raises DaemonUnreachable if no daemon answers, ProtocolError if
    the daemon's version does not fit.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        name: str = "",
        on_full: str = "wait",
        pending_max: int = PENDING_MAX,
        target: Target | None = None,
        key: str | os.PathLike[str] | None = None,
        reconnect: float | None = None,
        cluster: str | None = None,
    ) -> None:
        pythons.welcome()
        if on_full not in ("wait", "raise"):
            raise ValueError(f"on_full={on_full!r}: must be 'wait' or 'raise'")
        check_client(name, pending_max, reconnect)
        if cluster is not None:
            target = private_cluster(cluster, endpoint)
        target = (target or find(endpoint, key=key)).reconnecting(reconnect)
        super().__init__(target, name, on_full=on_full, pending_max=pending_max)

    # -- jobs ------------------------------------------------------------------------------------

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
        ref, options, blob = prepare(fn, overrides, args, kwargs)
        if options is not None and "durable" in options:
            return self._submit_durable(storable(fn, overrides, ref, blob))
        return self.submit_ref(ref, options, blob, wait=wait)

    def submit_ref(
        self, ref: FunctionRef, options: dict[str, Any] | None, blob: Blob, *, wait: bool
    ) -> JobFuture:
        """Submit a call that is packed for the wire."""
        future = self._new_future()
        future._owner = self
        future._fn_name = ref.name
        self._enqueue(ref, options, blob, future, wait)
        return future

    def map_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
        **how: Any,
    ) -> Iterator[Any]:
        """``map`` with job options that override the function's."""
        return Mapping(self, overrides, fn, iterables, **how).run()

    def stream_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Stream:
        """``stream`` with job options that override the function's."""
        ref, options, blob = prepare(fn, overrides, args, kwargs)
        refuse_durable(options, "stream")
        stream = self._new_stream(ref.name)
        sink = stream.sink()
        self._admit(True)
        core = self._core
        core.check(ref, blob, options)
        with self._core_lock:
            # An interrupted caller either began no job or has a stream that ends it: a
            # generator without a reader would wait for ever.
            self._number()
            stream.begun(core.begin_stream(ref, blob, options, sink), sink)
            self._send_all()
        return stream

    def enqueue_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> str:
        """``enqueue`` with job options that override the function's."""
        return self._store(prepare_storable(fn, overrides, args, kwargs)).hex()

    def job(self, job_id: str) -> StoredJob:
        """A durable job by its id, enqueued by any client. Raises ValueError for what is no id."""
        return StoredJob(parse_job_id(job_id), self.ask_jobs, self.call)

    def _store(self, job: Storable) -> bytes:
        """Have a job stored; the id that counts."""
        self._check_storable(job)
        batch = StoreBatch(job)
        batch.add(job)
        answer = self._request(self._to_store(batch), "enqueue", None)
        return accepted(answer, job.id, job.options)

    def enqueue_many_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Iterable[Any], ...],
    ) -> list[str]:
        """``enqueue_many`` with job options that override the function's."""
        self.refuse_to_wait()
        calls = storables(fn, overrides, zip(*iterables, strict=False), self._check_storable)
        waiters, out, ids = self.new_waiters(), deque[tuple[StoreBatch, Answer]](), list[str]()

        def await_first() -> None:
            batch, answer = out[0]
            waiters.wait_for(lambda: answer.over)
            ids.extend(batch.hex_ids(answer.take(self.endpoint, None)))
            out.popleft()

        try:
            for batch in batches(calls):
                while sum(len(each) for each, _ in out) >= WINDOW_JOBS:
                    await_first()
                out.append((batch, self.ask_to_store(batch, waiters.notify_all)))
            while out:
                await_first()
        except BaseException as error:
            for _, answer in out:
                self._do(partial(self._core.forget_call, answer))
            note_stored(error, len(ids))
            raise
        return ids

    def _submit_durable(self, job: Storable) -> JobFuture:
        id_ = self._store(job)
        future = self._new_durable_future()
        future._owner = self
        future._fn_name = job.ref.name
        future._handle = StoredJob(id_, self.ask_jobs, self.call)
        self._do(lambda: self._core.ask_jobs("result", [id_], future))
        return future

    def _request(
        self,
        put: Callable[[Answer], None],
        what: str,
        timeout: float | None,
        late: type[Exception] = NoAnswer,
    ) -> Any:
        self.refuse_to_wait()
        timeout = checked(timeout)
        waiters = self.new_waiters()
        answer = self._ask(put, what, waiters.notify_all)
        waiters.wait_for(lambda: answer.over, timeout)
        return self._take_answer(answer, timeout, late)

    def _ask_page(self) -> str | None:
        try:
            url: str | None = self.call("page", timeout=PAGE_S)["url"]
        except (GmpdError, RuntimeError):  # gone, closed, or this thread may not wait
            return None
        return url

    def _new_future(self) -> JobFuture:
        return JobFuture()

    def _new_durable_future(self) -> DurableFuture:
        return DurableFuture()

    def _new_stream(self, name: str) -> Stream:
        return Stream(self, name)

    # -- the end ---------------------------------------------------------------------------------

    def drain(self, timeout: float | None = None) -> bool:
        self.refuse_to_wait()
        timeout = checked(timeout)
        self._flush()
        here = self._delivery.here

        def idle() -> bool:
            if self.unfinished() or self._unsettled:
                return False
            return here or self._delivery.idle or self._ended

        return bool(self._idle.wait_for(idle, timeout))

    def close(self, *, wait: bool = True, cancel: bool = False) -> None:
        """Close: ``wait`` for all jobs, or abandon them; ``cancel`` those that have not started.

        Open streams are cancelled, as a stream without a reader would never end. A reader in
        another thread gets the values that have arrived, then JobCancelled. A job in a blocking
        call is waited for.
        May be called again: that finishes a close that was interrupted. Besides the jobs, it waits
        at most CLOSE_S, and then warns about the callback that still runs. A callback may close its
        own client; a finalizer abandons the jobs.
        """
        if self._pid != os.getpid():
            return
        self._closed = True
        self._room.notify_all()
        try:
            if not self._ended and not self._cannot_wait():
                self._begin_close(wait=wait, cancel=cancel)
                if wait:
                    self.drain()
        finally:
            self._end_io()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error no caller wants the results of jobs that have not started.
        self.close(wait=kind is None, cancel=kind is not None)


def _at_exit() -> None:
    """Drop the jobs of clients left open, with a message; remove a private daemon's files."""
    for client in list(open_sessions):
        if isinstance(client, Client) and not client._ended and client._pid == os.getpid():
            if left := client.unfinished():
                _say_left(client, left)
            client.close(wait=False)


def _say_left(client: Client, left: int) -> None:
    jobs = "1 job that has" if left == 1 else f"{left:,} jobs that have"
    line = (
        f"gmpd: the program ends and drops {jobs} not ended, because {client!r} was left open:"
        " use `with gmpd.Client() as c:`, or call close(), which waits for them\n"
    )
    if sys.stderr is not None:
        sys.stderr.write(line)


atexit.register(_at_exit)
