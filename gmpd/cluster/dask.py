"""The engine of ``gmpd[dask]``: each Dask worker is a host, with its threads for cores.

The first exchange is one task for one worker: bound to it, so Dask does not steal it, and it
secedes, so it uses none of the worker's threads while it waits. It registers a handler in the
worker, as Dask's own shuffle does. Further exchanges call that over a connection to the worker, at
a fifth of a task's CPU time, if one can be made within ``DIRECT_S``; else they are tasks too. One
task stays at the worker meanwhile: so to Dask, which scales idle clusters down, it is in use.
Dask's security, its addresses and its scheduler file are used as they are configured there.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedTooLong
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

from distributed import Client, WorkerPlugin, get_worker, secede

from gmpd.cluster import agent
from gmpd.cluster.port import Answered, ClusterError, Host
from gmpd.timeouts import wait_s

T = TypeVar("T")

#: Exchanges go before other tasks that wait for the same worker.
PRIORITY = 100
#: A worker in another state takes no tasks, or is about to end.
RUNNING = "running"
#: Its status until it serves; then it is looked at again after this long (seconds).
COMES, COMES_S = "init", 0.02
#: The client's farewell to its scheduler (seconds).
CLOSE_S = 1.0
#: A worker that is called directly answers the first call within this (seconds).
DIRECT_S = 2.0
#: Where `dask worker` has its handlers of signals.
SIGNALS_OF_DASK = "distributed._signals"
#: Why a host leaves.
RETIRED = "Dask ends its worker there"
#: Events of the scheduler after which it has other workers.
EVENTS = frozenset({"add-worker", "remove-worker", "retire-workers"})
#: Exchanges that wait in a worker at once, those of all its bridges together.
WAITING_MAX = 64


class DaskEngine:
    """One client of a scheduler, on a loop of its own. Raises ClusterError when none answers."""

    frame_bytes = 64 << 20
    forks = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._timeout_s: float = settings["timeout_s"]
        self._where: str = settings["address"] or settings["scheduler_file"]
        if not self._where:
            raise ClusterError(
                "cluster.address names no Dask scheduler: set it to its address, tcp://head:8786,"
                " or cluster.scheduler_file to its file"
            )
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        #: Hosts that are called directly, and those where that is being tried; in each, the task
        #: that stays.
        self._direct: set[str] = set()
        self._asked: set[str] = set()
        self._stays: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="dask", daemon=True)
        self._thread.start()
        #: A worker has come or gone; whether the scheduler is asked to tell.
        self._changed = threading.Event()
        self._listens = False
        self._client: Client | None = None
        try:
            self._client = self._wait(self._open(settings))
        except ClusterError:
            self._stop()
            raise

    def _run(self) -> None:
        """The life of the loop: the watcher makes an engine again and again while the scheduler is
        away, so nothing of one may stay."""
        loop = self._loop
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CLOSE_S))
        loop.close()

    async def _open(self, settings: Mapping[str, Any]) -> Client:
        to = {"address": settings["address"]} if settings["address"] else {}
        if not to:
            to = {"scheduler_file": settings["scheduler_file"]}
        client = Client(
            **to, asynchronous=True, set_as_default=False, timeout=self._timeout_s, name="gmpd"
        )
        opened: Client = await client
        return opened

    def _wait(self, what: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(what, self._loop)
        try:
            return future.result(self._timeout_s + CLOSE_S)
        except (WaitedTooLong, TimeoutError):
            future.cancel()
            why = f"within cluster.timeout = {self._timeout_s:g} s"
        except (OSError, ValueError, RuntimeError) as error:
            why = f"({error})"
        raise ClusterError(
            f"no Dask scheduler answers at {self._where} {why}: is `dask scheduler` running there?"
        )

    def hosts(self) -> list[Host]:
        """The workers of the scheduler. It tells of one that comes, but not when that one runs."""
        workers = self._wait(self._identity())["workers"]
        seen = {address: worker.get("status", RUNNING) for address, worker in workers.items()}
        if COMES in seen.values():
            self._loop.call_soon_threadsafe(self._loop.call_later, COMES_S, self._changed.set)
        return [
            Host(address, workers[address]["nthreads"], status != RUNNING)
            for address, status in seen.items()
            if status != COMES
        ]

    async def _identity(self) -> Any:
        assert self._client is not None
        scheduler: Any = self._client.scheduler
        if scheduler is None or self._client.status != "running":
            raise OSError("the connection to it is lost")
        return await asyncio.wait_for(scheduler.identity(n_workers=-1), wait_s(self._timeout_s))

    def await_change(self, timeout_s: float) -> None:
        """By the scheduler's events."""
        if not self._listens:
            self._listens = True
            self._loop.call_soon_threadsafe(self._listen)
        self._changed.wait(wait_s(timeout_s))
        self._changed.clear()

    def _listen(self) -> None:
        assert self._client is not None
        self._client.subscribe_topic("all", self._heard)

    def _heard(self, event: tuple[float, Mapping[str, Any]]) -> None:
        if event[1].get("action") in EVENTS:
            self._changed.set()

    def send(self, host: str, batch: bytes, answered: Answered) -> None:
        """As one task, bound to the worker."""
        self._loop.call_soon_threadsafe(self._start, host, batch, answered)

    def _start(self, host: str, batch: bytes, answered: Answered) -> None:
        task = self._loop.create_task(self._exchange(host, batch, answered))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _exchange(self, host: str, batch: bytes, answered: Answered) -> None:
        directly = host in self._direct
        try:
            if directly:
                answer = await self._call(host, batch)
            else:
                answer = await self._submit(host, exchange, batch)
        except BaseException as error:  # noqa: BLE001 - whatever Dask makes of it
            self._direct.discard(host)
            answered(error)
            return
        answered(answer)
        if not directly and host not in self._asked:
            self._asked.add(host)
            await self._introduce(host)

    def _submit(self, host: str, function: Callable[..., Any], *args: bytes) -> Any:
        """A task that only this worker runs: its future."""
        assert self._client is not None
        return self._client.submit(
            function, *args, key=f"gmpd-{secrets.token_hex(12)}", workers=[host],
            allow_other_workers=False, retries=0, pure=False, priority=PRIORITY,
        )  # fmt: skip

    async def _call(self, host: str, batch: bytes) -> bytes:
        assert self._client is not None
        answer: bytes | None = await self._client.rpc(host).gmpd_exchange(batch=batch)
        if answer is None:  # Dask's answer for a handler that it cancels
            raise ClusterError(RETIRED)
        return answer

    async def _introduce(self, host: str) -> None:
        """See whether the worker can be called from here: it may be behind a tunnel."""
        try:
            await asyncio.wait_for(self._call(host, b""), DIRECT_S)
        except Exception:  # noqa: BLE001 - whatever Dask makes of it: the tasks remain
            return
        finally:
            self._asked.discard(host)
        self._direct.add(host)
        if host not in self._stays:
            self._stays[host] = self._submit(host, stay)

    def close(self) -> None:
        """Tasks on their way are cancelled with the client."""
        if self._client is not None:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        self._stop()

    async def _close(self) -> None:
        assert self._client is not None
        if self._listens:  # or the scheduler logs that it could not tell this client of its end
            with suppress(ValueError):  # it does not listen yet
                self._client.unsubscribe_topic("all")
        try:
            await asyncio.wait_for(self._client.close(), CLOSE_S)
        finally:
            self._loop.stop()

    def _stop(self) -> None:
        if self._client is None:
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2 * CLOSE_S)


class AgentPlugin(WorkerPlugin):  # type: ignore[misc]
    """Takes exchanges in a worker, and drains its daemons before it ends."""

    name = "gmpd"

    def setup(self, worker: Any) -> None:
        """The worker has it."""
        self._threads = ThreadPoolExecutor(WAITING_MAX, "gmpd-exchange")
        worker.handlers["gmpd_exchange"] = self.exchange
        self._signals = DrainFirst(worker.loop.asyncio_loop)

    async def exchange(self, batch: bytes) -> bytes:
        """A bridge calls. Nothing to exchange: it asks whether it can."""
        if not batch:
            return b""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, agent.exchange, batch)

    async def teardown(self, worker: Any) -> None:
        """The worker ends: it was retired, has reached its lifetime, or its nanny had a signal.
        Dask waits for this, and the worker still answers."""
        self._signals.undo()
        await asyncio.to_thread(agent.drain_all, RETIRED)
        worker.handlers.pop("gmpd_exchange", None)
        await asyncio.to_thread(agent.close_all)
        self._threads.shutdown(wait=False)


class DrainFirst:
    """Drains the daemons of a worker without a nanny before Dask answers SIGTERM or SIGINT, at
    which it ends the process without closing the worker. The second signal is Dask's alone. Where
    other handlers than Dask's are set, they stay."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._drains = False
        self._task: asyncio.Task[None] | None = None
        #: Dask's handlers, by signal.
        self._before: dict[int, Callable[[int, FrameType | None], object]] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler) and getattr(handler, "__module__", "") == SIGNALS_OF_DASK:
                self._before[number] = handler
                signal.signal(number, self._caught)

    def _caught(self, number: int, _frame: FrameType | None) -> None:
        if not self._drains and agent.has_any():
            self._drains = True
            self._loop.call_soon_threadsafe(self._drain, number)
            return
        self._pass_on(number)

    def _drain(self, number: int) -> None:
        self._task = self._loop.create_task(self._drained(number))

    async def _drained(self, number: int) -> None:
        await asyncio.to_thread(agent.drain_all, f"its worker had {signal.Signals(number).name}")
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        before = self._before.get(number)
        self.undo()
        if before is not None:  # else a second signal came, and was passed on
            before(number, None)

    def undo(self) -> None:
        """Dask's handlers are in place again."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._caught:
                signal.signal(number, before)
        self._before.clear()


def exchange(batch: bytes) -> bytes:
    """Runs as a task in a worker."""
    worker = get_worker()
    if AgentPlugin.name not in worker.plugins:
        worker.loop.add_callback(worker.plugin_add, AgentPlugin(), name=AgentPlugin.name)
    secede()
    return agent.exchange(batch)


def stay() -> None:
    """Runs as a task in a worker for as long as there are daemons."""
    secede()
    agent.await_none()
