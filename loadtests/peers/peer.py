"""The interface of a peer: what its adapter gives, and what it says that it cannot give."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from loadtests.peers import tasks

#: Every peer, in the order of the table.
NAMES = (
    "gmpd", "processpool", "pool", "loky", "joblib", "mpire", "aiomultiprocess",
    "dask", "ray", "celery", "dramatiq", "rq", "taskiq", "asyncio", "uvloop",
)  # fmt: skip

Function = Callable[..., Any]


class Peer:
    """One peer with ``procs`` workers. Jobs are functions of ``tasks`` with one argument.

    ``start`` is told the mode of the workloads that follow. A peer whose documentation recommends
    other settings for one names it in ``modes``, and is then started anew: "io" (jobs that wait),
    "payload" (large values), "kill" (a worker dies).
    """

    #: As it is called in the table.
    title: ClassVar[str]
    #: What pip installs, and of which of them the version is shown.
    packages: ClassVar[tuple[str, ...]] = ()
    version_of: ClassVar[str] = ""
    #: The settings that differ from the defaults, in words.
    settings: ClassVar[str] = ""
    needs_redis: ClassVar[bool] = False
    #: Whether coroutines are jobs, so that a job that waits is ``nap`` rather than ``block``.
    coroutines: ClassVar[bool] = False
    modes: ClassVar[frozenset[str]] = frozenset()
    #: Workloads that it cannot do, each with the reason.
    cannot: ClassVar[Mapping[str, str]] = {}
    #: Workloads of which a reader must know more.
    notes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, procs: int) -> None:
        self.procs = procs

    # -- to be given ------------------------------------------------------------------------------

    def start(self, mode: str) -> None:
        """Start the workers. They need not be ready: the first job waits for them."""
        raise NotImplementedError

    def stop(self) -> None:
        """End what ``start`` began."""
        raise NotImplementedError

    def submit(self, fn: Function, arg: Any) -> Any:
        """One job, for ``result``."""
        raise NotImplementedError

    def result(self, handle: Any, timeout: float) -> Any:
        """The result of a submitted job; raises if there is none after ``timeout`` seconds."""
        raise NotImplementedError

    def map(self, fn: Function, items: Sequence[Any]) -> list[Any]:
        """All results, by the call for many items and with the chunks that the peer recommends."""
        raise NotImplementedError

    # -- with a default ---------------------------------------------------------------------------

    def submit_many(self, fn: Function, args: Sequence[Any]) -> list[Any]:
        """Each by a call of its own."""
        return [self.submit(fn, arg) for arg in args]

    def run_all(self, fn: Function, args: Sequence[Any], timeout: float) -> list[Any]:
        """Submit each by itself, then take all results."""
        ends = time.monotonic() + timeout
        handles = self.submit_many(fn, args)
        return [self.result(handle, max(0.1, ends - time.monotonic())) for handle in handles]

    def behind(self, n: int, seconds: float, timeout: float) -> float:
        """Seconds that a short job takes which is submitted after ``n`` that block a thread."""
        blocking = self.submit_many(tasks.block, [seconds] * n)
        began = time.perf_counter()
        self.result(self.submit(tasks.noop, 1), timeout)
        took = time.perf_counter() - began
        for handle in blocking:
            self.result(handle, timeout)
        return took

    def begin(self, fn: Function, args: Sequence[Any]) -> object:
        """Submit, and wait for none."""
        return self.submit_many(fn, args)

    def outcomes(self, fn: Function, args: Sequence[Any], timeout: float) -> Counter[str]:
        """How many jobs had a result ("done"), and which errors the others had."""
        seen: Counter[str] = Counter()
        ends = time.monotonic() + timeout
        handles = []
        for arg in args:
            try:
                handles.append(self.submit(fn, arg))
            except Exception as error:
                seen[type(error).__name__] += 1
        for handle in handles:
            left = ends - time.monotonic()
            try:  # one that has no answer must not hide the results of those behind it
                self.result(handle, max(0.02, left))
            except Exception as error:
                late = time.monotonic() >= ends - 0.05
                seen["no answer" if late else type(error).__name__] += 1
            else:
                seen["done"] += 1
        return seen

    def workers(self) -> list[int]:
        """Processes that run jobs."""
        return sorted(set(self.run_all(tasks.pid, range(16 * self.procs), 20.0)))

    def rest(self, seconds: float) -> None:
        """Do nothing for a time."""
        time.sleep(seconds)


#: What each operation with a default is made of.
MADE_OF = {
    "run_all": ("submit", "result"),
    "behind": ("submit", "result"),
    "begin": ("submit",),
    "outcomes": ("submit", "result"),
    "workers": ("run_all",),
    "rest": (),
}


def gives(peer: type[Peer], operation: str) -> bool:
    """Whether the adapter has it, by itself or by the default."""
    if getattr(peer, operation) is not getattr(Peer, operation):
        return True
    return operation in MADE_OF and all(gives(peer, part) for part in MADE_OF[operation])


def adapter(name: str) -> type[Peer]:
    """The class of a peer. Its module imports the peer itself when it starts, not before."""
    found: type[Peer] = importlib.import_module(f"loadtests.peers.adapters.on_{name}").Adapter
    return found


class OnExecutor(Peer):
    """``submit`` gives a future with ``result(timeout)``."""

    pool: Any

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.pool.submit(fn, arg)

    def result(self, handle: Any, timeout: float) -> Any:
        return handle.result(timeout)

    def chunk(self, items: Sequence[Any]) -> int:
        """Four chunks for each worker, as ``multiprocessing.Pool.map`` makes them."""
        return max(1, len(items) // (4 * self.procs))


class OnLoop(Peer):
    """The peer's calls are coroutines; they run in a loop of the main thread."""

    loop: asyncio.AbstractEventLoop

    def start(self, mode: str) -> None:
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def stop(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()

    async def call(self, fn: Function, arg: Any) -> Any:
        """One job, from submit to result."""
        raise NotImplementedError

    def submit(self, fn: Function, arg: Any) -> Any:
        return self.loop.create_task(self.call(fn, arg))

    def result(self, handle: Any, timeout: float) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(handle, timeout))

    def run_all(self, fn: Function, args: Sequence[Any], timeout: float) -> list[Any]:
        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*[self.call(fn, arg) for arg in args])

        return self.loop.run_until_complete(asyncio.wait_for(all_of_them(), timeout))

    def behind(self, n: int, seconds: float, timeout: float) -> float:
        async def seconds_of_short() -> float:
            blocking = [asyncio.ensure_future(self.call(tasks.block, seconds)) for _ in range(n)]
            await asyncio.sleep(0)
            began = time.perf_counter()
            await self.call(tasks.noop, 1)
            took = time.perf_counter() - began
            await asyncio.gather(*blocking)
            return took

        return self.loop.run_until_complete(asyncio.wait_for(seconds_of_short(), timeout))

    def begin(self, fn: Function, args: Sequence[Any]) -> object:
        handles = self.submit_many(fn, args)
        self.rest(0.5)
        return handles

    def rest(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))


class OnBroker(Peer):
    """Jobs go through Redis to workers, which are started by the peer's own command."""

    needs_redis = True
    #: The program of the workers.
    program: Any = None

    def command(self, mode: str) -> list[list[str]]:
        """The commands that start workers."""
        raise NotImplementedError

    def start(self, mode: str) -> None:
        import os
        import subprocess
        import sys
        from pathlib import Path

        import redis

        os.environ["PEERS_MODE"] = mode  # for the module of the application
        redis.Redis.from_url(os.environ["PEERS_REDIS"]).flushall()  # of workers before these
        home = Path(sys.executable).parent
        self.programs = [
            subprocess.Popen(
                [str(home / words[0]), *words[1:]],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for words in self.command(mode)
        ]  # fmt: skip

    def stop(self) -> None:
        for program in self.programs:
            program.terminate()
        for program in self.programs:
            try:
                program.wait(5.0)
            except Exception:
                program.kill()
                program.wait()
