"""Coroutines, callbacks and timers of a P run on one thread, plain Gs on others; neither kind
starves the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, TypeVar

import pytest

import gmpd
from gmpd.cli.app import App
from gmpd.cli.private import private_client
from gmpd.client.sync import Client
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import current_m
from tests import jobs_of_home

T = TypeVar("T")


def beside_blocking(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``test()`` while plain Gs block, and others that do not, come and go on the same P."""

    async def main() -> T:
        over = False

        async def load() -> None:
            while not over:
                blocking = [gmpd.go(time.sleep, 0.012) for _ in range(3)]
                await gmpd.go(int)
                for g in blocking:
                    await g

        loading = asyncio.create_task(load())
        try:
            return await test()
        finally:
            over = True
            await loading

    return gmpd.run(main())


class Threads:
    """Which threads were seen."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def note(self) -> None:
        self.seen.add(threading.get_ident())


def test_all_that_asyncio_calls_is_on_the_main_thread() -> None:
    async def test() -> set[int]:
        loop, threads = asyncio.get_running_loop(), Threads()
        readable, writable = os.pipe()

        def told(future: asyncio.Future[None]) -> None:
            threads.note()
            if not future.done():
                future.set_result(None)

        def told_of(future: asyncio.Future[None], _child: object) -> None:
            told(future)

        async def values() -> AsyncIterator[int]:
            try:
                for n in range(20):
                    threads.note()
                    await asyncio.sleep(0.002)
                    yield n
            finally:
                threads.note()

        async for n in values():
            if n == 10:
                break
        for how in ("soon", "later", "thread", "reader", "child"):
            future = loop.create_future()
            if how == "soon":
                loop.call_soon(told, future)
            elif how == "later":
                loop.call_later(0.005, told, future)
            elif how == "thread":
                await gmpd.go(loop.call_soon_threadsafe, told, future)
            elif how == "reader":
                loop.add_reader(readable, told, future)
                await gmpd.go(os.write, writable, b"x")
            else:
                gmpd.go(time.sleep, 0.015).add_done_callback(partial(told_of, future))
            await future
        loop.remove_reader(readable)
        os.close(readable)
        os.close(writable)
        return threads.seen

    assert beside_blocking(test) == {threading.main_thread().ident}


def test_coroutines_that_come_out_of_plain_functions_are_there_too() -> None:
    async def test() -> set[int]:
        threads = Threads()

        async def inner() -> None:
            threads.note()
            await asyncio.sleep(0.015)
            threads.note()

        def wrapper() -> Coroutine[Any, Any, None]:
            assert threading.current_thread() is not threading.main_thread()
            return inner()

        for _ in range(5):
            await gmpd.go(wrapper)
        return threads.seen

    assert beside_blocking(test) == {threading.main_thread().ident}


def test_plain_gs_are_never_on_the_main_thread() -> None:
    async def test() -> set[int]:
        threads = Threads()
        for _ in range(50):
            for g in [gmpd.go(threads.note) for _ in range(20)]:
                await g
        return threads.seen

    assert threading.main_thread().ident not in beside_blocking(test)


def test_what_libraries_keep_in_a_thread_is_still_there_after_an_await() -> None:
    async def test() -> Any:
        local, lock = threading.local(), threading.RLock()
        local.value = "mine"
        database = sqlite3.connect(":memory:")
        database.execute("create table t (a)")
        with lock:
            for n in range(20):
                database.execute("insert into t values (?)", (n,))
                await asyncio.sleep(0.003)
                assert local.value == "mine"
        total = database.execute("select count(*) from t").fetchone()
        database.close()
        return total

    assert beside_blocking(test) == (20,)


def test_a_greenlet_that_waits_goes_on_in_its_thread() -> None:
    greenlet = pytest.importorskip("greenlet")

    async def test() -> str:
        """As SQLAlchemy's async engine: blocking code in a greenlet, which its parent awaits."""
        inner = greenlet.greenlet(
            lambda: [greenlet.getcurrent().parent.switch(0.003) for _ in range(20)]
        )
        pause = inner.switch()
        while not inner.dead:
            await asyncio.sleep(pause)
            pause = inner.switch(None)
        return "through"

    assert beside_blocking(test) == "through"


def test_signal_handlers_can_be_set_by_a_coroutine() -> None:
    async def test() -> list[int]:
        heard: list[int] = []
        before = signal.signal(signal.SIGUSR1, lambda number, _frame: heard.append(number))
        try:
            await gmpd.go(os.kill, os.getpid(), signal.SIGUSR1)
            while not heard:
                await asyncio.sleep(0.001)
        finally:
            signal.signal(signal.SIGUSR1, before)
        return heard

    assert beside_blocking(test) == [signal.SIGUSR1]


GUEST = """
import asyncio, time, trio, gmpd

async def guest():
    for _ in range(20):
        await trio.sleep(0.003)
    return "through"

async def main():
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    trio.lowlevel.start_guest_run(
        guest,
        run_sync_soon_threadsafe=loop.call_soon_threadsafe,
        done_callback=lambda outcome: over.set_result(outcome.unwrap()),
        host_uses_signal_set_wakeup_fd=True,
    )
    while not over.done():
        await gmpd.go(time.sleep, 0.012)
    print(await over)

gmpd.run(main())
"""

SERVER = """
import asyncio, os, signal, time, uvicorn, gmpd

async def app(scope, receive, send):
    await gmpd.go(time.sleep, 0.015)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})

async def main():
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    for _ in range(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print((await reader.read()).splitlines()[-1].decode())
        writer.close()
    os.kill(os.getpid(), signal.SIGTERM)  # uvicorn's own handler ends it, and passes it on
    await serving

signal.signal(signal.SIGTERM, signal.SIG_IGN)
gmpd.run(main())
"""

SQLALCHEMY = """
import asyncio, time, gmpd
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

async def use():
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.begin() as connection:
        await connection.execute(text("create table t (a int)"))
        for n in range(20):
            await connection.execute(text("insert into t values (:a)"), {"a": n})
            await asyncio.sleep(0.001)
        print((await connection.execute(text("select count(*) from t"))).scalar())
    await engine.dispose()

async def main():
    using = asyncio.ensure_future(use())
    while not using.done():
        await gmpd.go(time.sleep, 0.012)
    await using

gmpd.run(main())
"""


@pytest.mark.parametrize(
    ("program", "needs", "says"),
    [
        (GUEST, ("trio",), "through"),
        (SERVER, ("uvicorn",), "served"),
        (SQLALCHEMY, ("sqlalchemy", "aiosqlite"), "20"),
    ],
    ids=["trio as a guest", "uvicorn", "SQLAlchemy's async engine"],
)
def test_libraries_that_keep_to_a_thread(program: str, needs: tuple[str, ...], says: str) -> None:
    for name in needs:
        pytest.importorskip(name)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {says}


# ------------------------------------------------------------------------------------- in a worker


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with private_client(App(), 1, ["tests.jobs_of_home"]) as client:
        yield client


def test_jobs_of_a_worker_keep_their_thread_beside_blocking_ones(client: Client) -> None:
    blocking = [client.submit(jobs_of_home.block, 0.02) for _ in range(40)]
    threads = [client.submit(jobs_of_home.async_threads, 10) for _ in range(30)]
    plain = [client.submit(jobs_of_home.is_main) for _ in range(30)]
    assert {name for job in threads for name in job.result(60)} == {"MainThread"}
    assert {job.result(60) for job in plain} == {False}
    assert {job.result(60) for job in blocking} == {None}


def test_a_generator_of_a_worker_keeps_its_thread(client: Client) -> None:
    client.submit(jobs_of_home.block, 0.05)
    assert set(client.stream(jobs_of_home.async_names, 30)) == {"MainThread"}


def test_time_limits_are_kept_by_whichever_thread_has_p(client: Client) -> None:
    limited = client.options(timeout=0.1)
    for fn in (jobs_of_home.wait_for_ever, jobs_of_home.spin_for_ever):
        with pytest.raises(gmpd.errors.JobTimeout):
            limited.submit(fn).result(30)


# --------------------------------------------------------------- both kinds get through, in time


def on_p(test: Callable[[Loop], Coroutine[Any, Any, T]]) -> T:
    async def main() -> T:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        return await test(loop)

    return gmpd.run(main())


def test_p_changes_its_thread_for_a_kind_and_not_for_each_g(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred plain children and a hundred coroutines, in turn in the queue: few changes."""

    async def test(loop: Loop) -> int:
        changes = 0

        def counted(change: Callable[[Any], bool]) -> Callable[[Any], bool]:
            def count(m: Any) -> bool:
                nonlocal changes
                changes += 1
                return change(m)

            return count

        for change in ("leave_home", "go_home"):
            monkeypatch.setattr(loop.ms, change, counted(getattr(loop.ms, change)))
        ran: list[int] = []

        async def coroutine(n: int) -> None:
            ran.append(n)

        gs = [gmpd.go((ran.append, coroutine)[n % 2], n) for n in range(200)]
        for g in gs:
            await g
        assert sorted(ran) == list(range(200))
        return changes

    assert on_p(test) <= 40


@pytest.mark.parametrize("kind", ["coroutine", "callback"])
def test_a_plain_g_gets_p_beside_async_work_that_is_always_ready(kind: str) -> None:
    async def test(loop: Loop) -> float:
        over = False

        def again() -> None:
            if not over:
                loop.call_soon(again)

        async def spin() -> None:
            while not over:
                await gmpd.gosched()

        if kind == "callback":
            again()
        else:
            for _ in range(20):
                gmpd.go(spin)
        start = time.monotonic()
        for _ in range(20):
            await gmpd.go(int)
        over = True
        return time.monotonic() - start

    assert on_p(test) < 5  # 20 rounds of at most 4 ms


def test_a_coroutine_gets_p_beside_plain_gs_that_are_always_ready() -> None:
    async def test(loop: Loop) -> int:
        over = False

        def again() -> None:
            if not over:
                gmpd.go(again)
                gmpd.go(int)

        again()
        for _ in range(20):
            await gmpd.gosched()
            await asyncio.sleep(0)
            await gmpd.sleep(0.001)
        over = True
        return loop.p.stats.overruns

    assert on_p(test) == 0


def test_p_stays_on_one_thread_while_all_work_is_plain() -> None:
    def root() -> tuple[int, bool]:
        m = current_m()
        assert m is not None
        passed = 0
        for _ in range(300):
            child = gmpd.go(int)
            child.result()
            passed += m.p.owner is m.p.home
        return passed, threading.current_thread() is threading.main_thread()

    async def test(_loop: Loop) -> tuple[int, bool]:
        passed, main = await gmpd.go(root)
        return passed, main

    passed, main = on_p(test)
    assert not main
    assert passed < 30


def test_with_all_threads_in_use_coroutines_go_on() -> None:
    async def main(loop: Loop) -> int:
        release = threading.Event()
        blocked = [loop.call_sync(lambda: release.wait(60)) for _ in range(6)]
        while loop.p.owner is not loop.p.home or len(loop.p.detached) < 2:
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0.001)
        waits = loop.p.stats.max_ms_waits
        release.set()
        await asyncio.gather(*blocked)
        return waits

    with asyncio.Runner(loop_factory=lambda: Loop(max_ms=2)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        assert runner.run(main(loop)) > 0
