"""``AsyncClient``: the asyncio face. One loop, no threads, no locks.

The loop watches the socket; jobs submitted within one turn of the loop are sent together. It keeps
a client only while jobs of it are out (see ``finalize``).
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Self, TypeAlias

from gmpd import codec, pythons
from gmpd.client import discovery
from gmpd.client.aiofutures import AsyncDurableFuture, AsyncJobFuture
from gmpd.client.aiomap import AsyncMapping, Source
from gmpd.client.calls import Answer, check_client, prepare, refuse_durable
from gmpd.client.connection import PLAIN, ClientConnection, T
from gmpd.client.defer_signals import DEFER_SIGNALS
from gmpd.client.finalize import ClientResources, LoopCallback
from gmpd.client.liveness import Liveness
from gmpd.client.session import FLUSH_JOBS
from gmpd.client.stored import (
    AsyncStoredJob,
    Storable,
    ended,
    failed,
    prepare_storable,
    storable,
)
from gmpd.client.storing import Gathering, StoreBatch, storables, store_many
from gmpd.client.streams import Incoming, Sink
from gmpd.client.unpickle_threads import UnpickleThreads
from gmpd.client.views import Face, OptionsView
from gmpd.codec import Blob, FunctionRef
from gmpd.errors import DaemonUnreachable, GmpdError, NoAnswer
from gmpd.job_ids import parse_job_id
from gmpd.netpoll import Network
from gmpd.protocol import Outcome
from gmpd.submit.batch import Options
from gmpd.submit.events import ItemsReceived, JobDone, apply
from gmpd.timeouts import checked, wait_s

#: An AsyncClient seen through job options.
AsyncView: TypeAlias = OptionsView[AsyncJobFuture, AsyncIterator[Any], AsyncIterator[Any], Source]


class AsyncClient(
    ClientConnection, Face[AsyncJobFuture, AsyncIterator[Any], AsyncIterator[Any], Source]
):
    """``async with AsyncClient() as c: await c.submit(fn, x)``. Arguments as ``Client``'s."""

    #: Whether a link was opened.
    _hooked = False
    #: Once it is connected.
    unpickle_threads: UnpickleThreads

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        name: str = "",
        key: str | os.PathLike[str] | None = None,
        reconnect: float | None = None,
        cluster: str | None = None,
    ) -> None:
        pythons.welcome()
        check_client(name, reconnect=reconnect)
        self._where, self._reconnect = (endpoint, key, cluster), reconnect
        super().__init__("", name)
        self._closed = True
        #: Whether ``connect`` was called: a client has one session in its life.
        self._begun = False
        self._page_asked = False
        self._woken = False
        self._idle: asyncio.Event = asyncio.Event()
        self._gathering = Gathering()
        self._retry: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None

    async def connect(self) -> Self:
        """Find the daemon, or start a private one, and greet it. ``async with`` does it.

        RuntimeError the second time: a client has one session, so make another client.
        """
        if self._begun:
            state = "is closed" if self._closed else "is connected"
            raise RuntimeError(
                f"connect: this AsyncClient {state} already, and each has one session: make a new"
                " AsyncClient (in `async with`, which calls connect by itself)"
            )
        self._begun = True
        try:
            return await self._connect()
        except BaseException:
            if not self._hooked:
                self._begun = False  # nothing came of it: it may be tried again
            raise

    async def _connect(self) -> Self:
        finding = discovery.Search(*self._where)
        try:
            target = await asyncio.to_thread(finding.find)
        except asyncio.CancelledError:
            finding.give_up()
            raise
        self.endpoint, self._daemon, self._key = target.endpoint, target.daemon, target.key
        self._reconnect_s = target.reconnecting(self._reconnect).reconnect
        self._liveness = Liveness(target.liveness)
        self._loop = asyncio.get_running_loop()
        self._welcome: asyncio.Future[None] = self._loop.create_future()
        # Weakly: a client that is dropped ends at once, without a pass of the collector.
        self.unpickle_threads = UnpickleThreads(
            self._loop, LoopCallback(self, AsyncClient._look_idle)
        )
        self._open_link(Network())
        self._hooked = True
        self._closed = False
        self._hook_up()
        try:
            await asyncio.wait_for(self._welcome, target.connect_timeout)
        except TimeoutError:
            await self.close(wait=False)
            raise self._no_answer(target.connect_timeout) from None
        except BaseException:
            await self.close(wait=False)
            raise
        return self

    def _hook_up(self) -> None:
        loop, link = self._loop, self._link

        def unhook() -> None:
            if not loop.is_closed():
                for fd in (*link.fds, link.monitor_fd):
                    loop.remove_reader(fd)

        def there(fn: Callable[[], None]) -> bool:
            try:
                if loop.is_running():
                    loop.call_soon_threadsafe(fn)
                    return True
            except RuntimeError:  # it was closed just now
                pass
            return False

        self._loop_callback = LoopCallback(self, AsyncClient._turn)
        self._resources = ClientResources(
            self, self._link, self._network, self._daemon, unhook, there
        )
        self._watch_link()

    def _watch_link(self) -> None:
        for fd in (self._link.fd, self._link.monitor_fd):
            self._loop.add_reader(fd, self._loop_callback)
        self._loop.call_soon(self._loop_callback)

    def _watch_lane(self, fd: int) -> None:
        self._loop.add_reader(fd, self._loop_callback)

    def _relink(self) -> None:
        for fd in (*self._link.fds, self._link.monitor_fd):
            self._loop.remove_reader(fd)
        self._link.renew()
        self._watch_link()

    # -- jobs ------------------------------------------------------------------------------------

    def submit_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> AsyncJobFuture:
        """``submit`` with job options that override the function's."""
        ref, options, blob = prepare(fn, overrides, args, kwargs)
        if options is not None and "durable" in options:
            return self._submit_durable(storable(fn, overrides, ref, blob))
        return self._submit_ready(ref, options, blob)

    def _submit_durable(self, job: Storable) -> AsyncJobFuture:
        self._check_not_closed()
        future = AsyncDurableFuture(loop=self._loop)
        future._client = self
        future._name = job.ref.name
        future._awaiting = self._loop.create_task(self._await_durable(job, future))
        return future

    async def _await_durable(self, job: Storable, future: AsyncDurableFuture) -> None:
        try:
            future._id = await self._store(job)
            if future.is_unwanted:
                self.end_durable(future._id)
                return
            told = await self.ask_jobs("result", [future._id], None)
            event = ended(told) if told else failed(True, told, future._id)
        except Exception as error:  # noqa: BLE001 - whatever it is, the future gets it
            event = JobDone(Outcome.LOST, b"", (), 0, {"error": error})
        future.ended(event)

    def end_durable(self, job_id: bytes) -> None:
        """Cancel a durable job by force, without waiting for the daemon's answer."""
        if not self._closed:
            self._ask(lambda sink: self._core.ask_jobs("force", [job_id], sink), "force", int)

    async def enqueue_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> str:
        """``enqueue`` with job options that override the function's."""
        return (await self._store(prepare_storable(fn, overrides, args, kwargs))).hex()

    def job(self, job_id: str) -> AsyncStoredJob:
        """A durable job by its id, enqueued by any client. Raises ValueError for what is no id."""
        return AsyncStoredJob(parse_job_id(job_id), self.ask_jobs, self.call)

    async def _store(self, job: Storable) -> bytes:
        """Have a job stored, together with others of this turn of the loop; the id that counts."""
        self._check_storable(job)
        return await self._gathering.store(self, job)

    async def enqueue_many_with(
        self, overrides: Options | None, fn: Callable[..., Any], iterables: tuple[Any, ...]
    ) -> list[str]:
        """``enqueue_many`` with job options that override the function's."""
        calls = storables(fn, overrides, zip(*iterables, strict=False), self._check_storable)
        return await store_many(calls, self._store_batch)

    async def _store_batch(self, batch: StoreBatch) -> list[str]:
        return batch.hex_ids(await self._request(self._to_store(batch), "enqueue", None))

    def _submit_ready(
        self, ref: FunctionRef, options: Options | None, blob: Blob
    ) -> AsyncJobFuture:
        self._check_open()
        future = AsyncJobFuture(loop=self._loop)
        future._client = self
        future._name = ref.name
        future._seq = self._enqueue(self._core.submit, ref, options, blob, future)
        return future

    def _enqueue(
        self,
        take: Callable[[FunctionRef, Blob, Options | None, Any], int],
        ref: FunctionRef,
        options: Options | None,
        blob: Blob,
        sink: Any,
    ) -> int:
        self._check_open()
        self._core.check(ref, blob, options)
        with DEFER_SIGNALS:  # a signal handler may submit, too
            seq = take(ref, blob, options, sink)
            self._expect()
            if self._core.unsent >= FLUSH_JOBS or self._core.in_flight == 0:
                self._flush()
            else:
                self._wake()
        return seq

    def map_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        iterables: tuple[Source, ...],
        **how: Any,
    ) -> AsyncIterator[Any]:
        """``map`` with job options that override the function's."""
        return AsyncMapping(
            self._submit_ready, self._in_thread, overrides, fn, iterables, **how
        ).run()

    async def _in_thread(self, open_it: Callable[[], T]) -> T:
        return await self.unpickle_threads.opened(open_it)

    async def stream_with(
        self,
        overrides: dict[str, Any] | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> AsyncIterator[Any]:
        """``stream`` with job options that override the function's."""
        ref, options, blob = prepare(fn, overrides, args, kwargs)
        refuse_durable(options, "stream")
        arrivals: asyncio.Queue[ItemsReceived | JobDone] = asyncio.Queue()
        incoming = Incoming(ref.name)
        seq = self._enqueue(self._core.begin_stream, ref, options, blob, Sink(arrivals.put_nowait))
        try:
            while incoming or not incoming.over:
                if not incoming:
                    event, job_id = await arrivals.get(), self.job_id(seq)
                    take = partial(incoming.take, event, job_id)
                    if isinstance(event, JobDone) and event.outcome is Outcome.ERROR:
                        await self._in_thread(take)
                    else:
                        take()
                    continue
                item = incoming.pop()
                if n := incoming.due():
                    self.pull_items(seq, n)
                data, buffers = item
                if codec.is_plain(data) and not buffers:
                    yield codec.decode(data)
                    continue
                nbytes = len(data) + sum(map(len, buffers))
                decode = partial(codec.decode, *item)
                yield await self.unpickle_threads.opened(decode, ref.name, nbytes)
        finally:
            self.cancel_seqs([seq])

    async def _request(
        self,
        put: Callable[[Answer], None],
        what: str,
        timeout: float | None,
        late: type[Exception] = NoAnswer,
    ) -> Any:
        left_s = checked(timeout)
        told = asyncio.Event()
        answer = self._ask(put, what, told.set)
        try:
            await asyncio.wait_for(told.wait(), left_s)
        except TimeoutError:
            pass  # the answer says so
        except BaseException:
            self._do(lambda: self._core.forget_call(answer))
            raise
        return self._take_answer(answer, left_s, late)

    def _ask_page(self) -> str | None:
        if not self._page_asked:
            self._page_asked = True
            with suppress(GmpdError, RuntimeError):  # gone, or closed
                self._ask(lambda sink: self._core.call("page", {}, sink), "page", lambda: None)
        return None

    def cancel_seqs(self, seqs: list[int], *, force: bool = False) -> None:
        """Cancel jobs by number, without waiting for the daemon's answer."""
        with DEFER_SIGNALS:
            self._core.cancel(seqs, force=force)
            if not self._closed:
                self._wake()

    # -- the socket ------------------------------------------------------------------------------

    def _check_not_closed(self) -> None:
        if not self._hooked:
            self._refuse_fork()
            raise RuntimeError(
                "this AsyncClient is not connected yet: use it inside `async with`, or await its"
                " connect() first"
            )
        super()._check_not_closed()

    def _do(self, step: Callable[[], T]) -> T:
        with DEFER_SIGNALS:  # a signal handler may submit, too
            done = step()
            if not self._closed and not self._loop.is_closed():
                if self._core.waits:
                    self._expect()
                self._flush()
                if self._core.events or self._core.wants_link:
                    self._wake()
        return done

    def _flush(self) -> None:
        if self._send_out():
            self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._woken = False
        if self._closed:
            return
        with DEFER_SIGNALS:
            self._pump()
            self._check_peer()
            self._look_for_daemon()
        self._settle()
        core = self._core
        self._look_idle()
        if not core.waits:
            self._loop_callback.client = None
        else:
            self._set_tick()
        if core.retry_s and self._retry is None:
            self._retry = self._loop.call_later(core.retry_s, self._try_again)
        if not self._welcome.done():
            if core.lost is not None:
                self._welcome.set_exception(core.lost)
            elif core.welcome is not None:
                self._liveness.pid = core.welcome.info.pid
                self._open_lane()
                self._forced = PLAIN if core.is_plain else None
                self._welcome.set_result(None)

    def _look_idle(self) -> None:
        if not (self._core.busy or self.unpickle_threads.busy):
            self._idle.set()

    def _expect(self) -> None:
        """An answer is due: the loop keeps this client, and checks that the daemon lives."""
        self._loop_callback.client = self
        self._set_tick()

    def _set_tick(self) -> None:
        if self._outage is None:
            if self._tick is None:
                self._tick = self._loop.call_later(self._liveness.tick_s, _tick, weakref.ref(self))
            return
        if self._tick is not None:
            self._tick.cancel()
        due_s = wait_s(self._outage.next_s(time.monotonic()))
        self._tick = self._loop.call_later(due_s, _tick, weakref.ref(self))

    def _settle(self) -> None:
        """Deliver arrived outcomes. If a signal handler raises, the rest stay queued."""
        events = self._core.events
        while events:
            event = events[0]
            try:
                apply(event)
            except BaseException:
                self._wake()
                raise
            with DEFER_SIGNALS:
                if events and events[0] is event:  # else a handler has gone on from there
                    events.popleft()

    def check_liveness(self) -> None:
        """A tick has passed. The last timer comes once nothing is waited for."""
        self._tick = None
        core = self._core
        verdict = self._liveness.tick(core.heard, waits=core.waits)
        if self._closed:
            return
        with DEFER_SIGNALS:
            self._judge(verdict)
        self._turn()

    def _try_again(self) -> None:
        self._retry = None
        self._core.retry()
        self._turn()

    def unfinished(self) -> int:
        """Jobs that have no outcome yet, or one that is being unpickled."""
        return super().unfinished() + (self.unpickle_threads.busy if self._hooked else 0)

    async def drain(self, timeout: float | None = None) -> bool:
        left_s = checked(timeout)
        try:
            await asyncio.wait_for(self._until_idle(), left_s)
        except TimeoutError:
            return False
        return True

    async def _until_idle(self) -> None:
        while self.unfinished() and not self._loop.is_closed():
            self._idle.clear()
            await self._idle.wait()

    async def close(self, *, wait: bool = True, cancel: bool = False) -> None:
        if self._closed:
            return
        try:
            self._begin_close(wait=wait, cancel=cancel)
            if wait:
                await self._until_idle()
        finally:  # also when cancelled: an open socket blocks the end of its context
            ending = self._let_go()
        if ending is not None:
            await asyncio.shield(ending)

    def _let_go(self) -> asyncio.Future[None] | None:
        """End everything but the waiting; returns what is still to be awaited, if anything."""
        if self._closed:  # by another close, meanwhile
            return None
        self._closed = True
        self._idle.set()  # for those closes that wait
        for timer in (self._tick, self._retry):
            if timer is not None:
                timer.cancel()
        bye = self._core.bye("closed") if self._core.lost is None else None
        self._core.lose(DaemonUnreachable("the client was closed before this job ended"))
        if not self._loop.is_closed():  # else no task awaits them
            self._settle()
        self._loop_callback.client = None
        self._resources.end(bye)
        if self._daemon is None:
            return None
        # From here on the thread ends it, awaited or not.
        return asyncio.get_running_loop().run_in_executor(None, self._daemon.close)

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # After an error no caller wants the results of jobs that have not started.
        await self.close(wait=kind is None, cancel=kind is not None)


def _tick(ref: weakref.ref[AsyncClient]) -> None:
    client = ref()
    if client is not None:
        client.check_liveness()
