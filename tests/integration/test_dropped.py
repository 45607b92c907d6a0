"""Clients that are not closed: the garbage collector ends them, their jobs come first."""

from __future__ import annotations

import asyncio
import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gmpd
from gmpd.client import finalize
from tests.rawclient import DEADLINE_S, Boot
from tests.support import wait_until


def io_threads() -> int:
    return sum(thread.name == "gmpd-io" for thread in threading.enumerate())


def test_a_dropped_client_leaves_its_daemon(boot: Boot) -> None:
    """At once, without a pass of the collector: nothing of it refers to itself."""
    daemon, raw = boot()
    client = gmpd.Client(daemon.endpoint)
    assert client.submit(pow, 2, 3).result(DEADLINE_S) == 8
    assert raw.call("status")["sessions"] == 2
    with pytest.warns(ResourceWarning, match=r"unclosed <gmpd\.Client open .*, 0 jobs>"):  # noqa: PT031 - its thread may be the last to let go
        del client
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_jobs_of_a_dropped_client_are_not_lost(boot: Boot) -> None:
    """Their callbacks come; then it ends."""
    daemon, raw = boot()
    got: list[object] = []
    client = gmpd.Client(daemon.endpoint)
    for _ in range(20):
        client.submit(time.sleep, 0.3).add_done_callback(lambda f: got.append(f.exception()))
    del client
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - its thread may be the last to let go
        gc.collect()
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: len(got) == 20, "all callbacks have come", timeout=DEADLINE_S)
    assert got == [None] * 20
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_a_future_keeps_its_client(boot: Boot) -> None:
    """A waiter for a result needs the client that brings it."""
    daemon, _ = boot()
    client = gmpd.Client(daemon.endpoint)
    gone = weakref.ref(client)
    future = client.submit(time.sleep, 0.2)
    del client
    gc.collect()
    assert gone() is not None
    assert future.result(DEADLINE_S) is None
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - its thread may be the last to let go
        del future
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)


def test_a_dropped_private_daemon_ends(no_daemon: None) -> None:
    """That nothing of it is left is checked after every test."""
    client = gmpd.Client()
    assert client.submit(pow, 2, 3).result(DEADLINE_S) == 8
    with pytest.warns(ResourceWarning, match="private"):  # noqa: PT031 - its thread may be the last to let go
        del client
        wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)
    wait_until(lambda: io_threads() == 0, "its thread ends", timeout=DEADLINE_S)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_many_clients_are_dropped_while_they_work(boot: Boot) -> None:
    """Each at another moment of its life; none keeps its thread, none its session."""
    daemon, raw = boot()
    for i in range(30):
        client = gmpd.Client(daemon.endpoint)
        for _ in range(i % 4):
            client.submit(pow, 2, i)
        del client
        if i % 3 == 0:
            gc.collect()
    gc.collect()
    wait_until(lambda: io_threads() == 0, "all threads end", timeout=DEADLINE_S)
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_a_closed_client_says_nothing(boot: Boot, recwarn: pytest.WarningsRecorder) -> None:
    daemon, _ = boot()
    client = gmpd.Client(daemon.endpoint)
    client.close()
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    assert not recwarn.list


def endless() -> Iterator[int]:
    while True:
        yield 1


async def connected(endpoint: str | None = None) -> gmpd.AsyncClient:
    client = await gmpd.AsyncClient(endpoint).connect()
    assert await client.submit(pow, 2, 3) == 8
    await asyncio.sleep(0)  # the future that woke a task lives as long as its step
    return client


async def soon(fact: Callable[[], bool]) -> None:
    """As ``wait_until``, in a loop that goes on meanwhile."""
    end = time.monotonic() + DEADLINE_S
    while not fact():
        assert time.monotonic() < end, "the deadline passed"
        await asyncio.sleep(0.005)


def test_a_dropped_async_client_leaves_its_loop_and_its_daemon(boot: Boot) -> None:
    """At once, without a pass of the collector."""
    daemon, raw = boot()

    async def main() -> None:
        client = await connected(daemon.endpoint)
        fds, context = (client._link.fd, client._link.monitor_fd), client._network.context
        with pytest.warns(ResourceWarning, match=r"unclosed <gmpd\.AsyncClient ipc://"):
            del client
        await soon(lambda: context.closed)
        assert not any(map(asyncio.get_running_loop().remove_reader, fds))

    asyncio.run(main())
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_jobs_of_a_dropped_async_client_are_not_lost(boot: Boot) -> None:
    """Their callbacks come; then it ends."""
    daemon, raw = boot()

    async def main() -> list[object]:
        got: list[object] = []
        client = await connected(daemon.endpoint)
        context = client._network.context
        for _ in range(20):
            client.submit(asyncio.sleep, 0.2).add_done_callback(lambda f: got.append(f.result()))
        with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - when it ends
            del client
            gc.collect()
            await soon(lambda: len(got) == 20)
            await soon(lambda: context.closed)
        return got

    assert asyncio.run(main()) == [None] * 20
    raw.until(lambda: raw.call("status")["sessions"] == 1)


def test_a_dropped_async_client_ends_its_private_daemon(no_daemon: None) -> None:
    """That nothing of it is left is checked after every test."""

    async def main() -> str:
        client = await connected()
        assert client._daemon is not None
        directory = client._daemon.directory
        with pytest.warns(ResourceWarning, match="private"):
            del client
        return directory

    directory = asyncio.run(main())
    wait_until(lambda: not Path(directory).exists(), "the daemon has ended", timeout=DEADLINE_S)


@pytest.mark.parametrize("busy", [False, True])
def test_an_async_client_may_be_dropped_after_its_loop(busy: bool, no_daemon: None) -> None:
    """Also with jobs out, of which no caller can hear any more."""

    async def main() -> gmpd.AsyncClient:
        client = await connected()
        if busy:
            client.submit(asyncio.sleep, 1000)
        return client

    client = asyncio.run(main())
    assert client._daemon is not None
    directory, context = client._daemon.directory, client._network.context
    with pytest.warns(ResourceWarning, match="private"):  # noqa: PT031 - which of them ends it
        del client
        gc.collect()
    assert context.closed
    wait_until(lambda: not Path(directory).exists(), "the daemon has ended", timeout=DEADLINE_S)


def test_an_async_client_may_be_closed_after_its_loop(no_daemon: None) -> None:
    async def main() -> gmpd.AsyncClient:
        client = await connected()
        client.submit(asyncio.sleep, 1000)
        return client

    client = asyncio.run(main())
    asyncio.run(client.close())
    assert client._network.context.closed


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_async_client_is_dropped_by_a_thread_of_another_kind(boot: Boot) -> None:
    """The collector may run anywhere; what is the loop's is done in its thread."""
    daemon, raw = boot()

    async def main() -> None:
        held = [await connected(daemon.endpoint)]
        context = held[0]._network.context
        await asyncio.to_thread(held.clear)
        await soon(lambda: context.closed)

    asyncio.run(main())
    raw.until(lambda: raw.call("status")["sessions"] == 1)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_many_async_clients_are_dropped_while_they_work(boot: Boot) -> None:
    """Each at another moment of its life, some with a stream or a map half read."""
    daemon, raw = boot()

    async def main() -> None:
        for i in range(20):
            client = await gmpd.AsyncClient(daemon.endpoint).connect()
            for _ in range(i % 3):
                client.submit(pow, 2, i)
            if i % 4 == 1:
                await anext(client.map(abs, itertools.count()))
            if i % 4 == 2:
                await anext(client.stream(endless))
            del client
            await asyncio.sleep(0)
            if i % 3 == 0:
                gc.collect()
        gc.collect()
        await soon(lambda: not finalize._all)

    asyncio.run(main())
    raw.until(lambda: raw.call("status")["sessions"] == 1)


LEFT_OPEN = """
import asyncio, gmpd
kept = []
async def main():
    client = await gmpd.AsyncClient().connect()
    kept.append(client)
    {more}
    print(client._daemon.directory, flush=True)
if __name__ == "__main__":
    {run}
"""


@pytest.mark.parametrize("more", ["pass", "client.submit(asyncio.sleep, 1000)"])
@pytest.mark.parametrize(
    "run", ["asyncio.run(main())", "asyncio.new_event_loop().run_until_complete(main())"]
)
def test_an_async_client_that_is_kept_hangs_no_interpreter(
    more: str, run: str, no_daemon: None
) -> None:
    text = LEFT_OPEN.format(more=more, run=run)
    ran = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert ran.returncode == 0, ran.stderr
    assert not Path(ran.stdout.strip()).exists()


GREEN = """
import gevent, gc, os, time, sys
from gmpd.client.green import Client
from gmpd.client.finalize import _all

def until(fact):
    end = time.monotonic() + 50
    while not fact():
        assert time.monotonic() < end, "the deadline passed"
        gevent.sleep(0.005)

def drop_idle():
    c = Client()
    assert c.submit(pow, 2, 3).result(50) == 8
    return c._daemon.directory

def drop_busy():
    c = Client()
    got = []
    for _ in range(20):
        c.submit(time.sleep, 0.2).add_done_callback(lambda f: got.append(f.exception()))
    directory = c._daemon.directory
    del c
    gc.collect()
    until(lambda: len(got) == 20)
    assert got == [None] * 20
    return directory

def drop_stream():
    c = Client()
    s = c.stream(forever)
    assert next(s) == 1
    return c._daemon.directory

def forever():
    while True:
        yield 1

def drop_elsewhere():
    held = [Client()]
    directory = held[0]._daemon.directory
    gevent.get_hub().threadpool.spawn(held.clear).get()
    return directory

if __name__ == "__main__":
    for drop in (drop_idle, drop_busy, drop_stream, drop_elsewhere):
        directory = drop()
        gc.collect()
        until(lambda: not _all)
        until(lambda: not os.path.exists(directory))
    kept = Client()
    kept.submit(time.sleep, 1000)
    print(kept._daemon.directory)
"""


@pytest.mark.parametrize("patch", ["", "import gevent.monkey; gevent.monkey.patch_all()"])
def test_dropped_gevent_clients(patch: str, no_daemon: None) -> None:
    """Idle, with jobs, with a stream, in another thread; and one that is kept to the end."""
    pytest.importorskip("gevent")
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", patch + GREEN],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("ResourceWarning: unclosed <gmpd.Client ipc:") == 4, ran.stderr
    assert not Path(ran.stdout.strip()).exists()
