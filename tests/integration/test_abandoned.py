"""Clients and streams dropped without a close: the collector frees them anywhere, nothing hangs."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.client import discovery
from gmpd.errors import DaemonUnreachable, JobCancelled
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")


def endless() -> Iterator[int]:
    while True:
        yield 1


def streams(client: gmpd.Client) -> Iterator[Any]:
    return client.stream(endless)


def maps(client: gmpd.Client) -> Iterator[Any]:
    return client.map(abs, itertools.count())


class Cycle:
    """Only the collector frees it, and what it holds."""

    def __init__(self, held: Iterator[Any]) -> None:
        self.me = self
        self.held = held


@pytest.mark.timeout(60)
@pytest.mark.parametrize("begin", [streams, maps])
def test_the_collector_frees_one_while_this_thread_has_the_lock(
    begin: Callable[[gmpd.Client], Iterator[Any]],
) -> None:
    with gmpd.Client() as client:
        for _ in range(3):
            next(Cycle(begin(client)).held)
            with client._core_lock:
                gc.collect()
        wait_until(lambda: client._core.busy == 0, "nothing is left of what was dropped")
        assert client.submit(abs, -2).result(20) == 2


@pytest.mark.parametrize("begin", [streams, maps])
def test_one_that_outlives_its_client_is_freed_in_silence(
    begin: Callable[[gmpd.Client], Iterator[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    with gmpd.Client() as client:
        left = begin(client)
        next(left)
        client.close(wait=False)
    del left
    gc.collect()
    assert capsys.readouterr().err == ""


def slow_to_begin() -> Iterator[int]:
    time.sleep(0.5)
    return endless()


async def slow_to_await() -> None:
    time.sleep(0.5)
    await asyncio.sleep(1000)


def slow_to_give() -> Any:
    time.sleep(0.5)
    return asyncio.sleep(1000)


def test_what_is_cancelled_while_it_begins_ends() -> None:
    """Until it has given a generator or a coroutine it cannot be stopped; then it can."""
    with gmpd.Client() as client:
        stream = client.stream(slow_to_begin)
        futures = [client.submit(slow_to_await), client.submit(slow_to_give)]
        wait_until(lambda: all(future.running() for future in futures), "they run")
        stream.close()
        for future in futures:
            future.cancel()
        wait_until(lambda: client._core.busy == 0, "nothing is left of them")
        assert all(future.cancelled() for future in futures)


async def parked() -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(1000)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("values", [endless, parked])
def test_closing_ends_a_stream_that_nobody_reads(values: Callable[[], Any]) -> None:
    """It lies in a cycle that the collector has not found; other jobs are waited for."""
    gc.disable()
    try:
        with gmpd.Client() as client:
            assert next(Cycle(client.stream(values)).held) == 1
            other = client.submit(time.sleep, 0.3)
        assert other.result(0) is None
    finally:
        gc.enable()


@pytest.mark.timeout(60)
def test_closing_ends_a_stream_that_another_thread_reads() -> None:
    said: list[object] = []

    def read(values: Iterator[int]) -> None:
        try:
            for value in values:
                said.append(value)
        except JobCancelled as error:
            said.append(error)

    with gmpd.Client() as client:
        reader = threading.Thread(target=read, args=[client.stream(endless)])
        reader.start()
        wait_until(lambda: len(said) > 100, "it reads")
    reader.join(20)
    assert isinstance(said.pop(), JobCancelled)
    assert set(said) == {1}


@pytest.mark.timeout(60)
def test_closing_ends_the_streams_of_an_async_client() -> None:
    async def main() -> None:
        async with gmpd.AsyncClient() as client:
            unread, waited = client.stream(endless), client.stream(parked)
            assert [await anext(unread), await anext(waited)] == [1, 1]
            reading = asyncio.ensure_future(anext(waited))
            other = client.submit(asyncio.sleep, 0.3)
        assert other.done()
        with pytest.raises(JobCancelled):
            await reading

    asyncio.run(main())


async def forever() -> None:
    await asyncio.sleep(1000)


def test_a_close_that_is_cancelled_leaves_nothing() -> None:
    async def main() -> tuple[gmpd.AsyncClient, str]:
        client = await gmpd.AsyncClient().connect()
        assert client._daemon is not None
        job = client.submit(forever)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.close(), 0.2)
        assert isinstance(job.exception(), DaemonUnreachable)
        return client, client._daemon.directory

    client, directory = asyncio.run(main())
    assert client._network.context.closed
    wait_until(lambda: not Path(directory).exists(), "the daemon has ended", timeout=20)


def test_a_close_that_waits_ends_with_one_that_does_not() -> None:
    async def main() -> None:
        client = await gmpd.AsyncClient().connect()
        job = client.submit(forever)
        waiting = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        await client.close(wait=False)
        assert isinstance(job.exception(), DaemonUnreachable)
        await asyncio.wait_for(waiting, 20)

    asyncio.run(main())


def test_a_connect_that_is_cancelled_ends_the_daemon_that_it_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, found = threading.Event(), []
    find = discovery.find

    def slow(endpoint: str | None, **more: Any) -> discovery.Target:
        begun.set()
        found.append(find(endpoint, **more))
        return found[0]

    monkeypatch.setattr(discovery, "find", slow)

    async def main() -> None:
        connecting = asyncio.ensure_future(gmpd.AsyncClient().connect())
        await asyncio.to_thread(begun.wait, 20)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        while not found:
            await asyncio.sleep(0)

    asyncio.run(main())
    daemon = found[0].daemon
    assert daemon is not None
    wait_until(lambda: not Path(daemon.directory).exists(), "it has ended", timeout=20)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # since 3.12
def test_a_fork_does_not_keep_the_daemon_from_its_end() -> None:
    client = gmpd.Client()
    assert client._daemon is not None
    process = client._daemon._process
    gate, hold = os.pipe()
    fork = os.fork()
    if not fork:
        os.close(hold)
        os.read(gate, 1)  # until the parent is through
        os._exit(0)
    try:
        client.close()
        assert process.returncode == 0, "it ended by itself, and was not killed"
    finally:
        os.close(hold)
        os.close(gate)
        os.waitpid(fork, 0)
