"""Users' code beside the client's own threads: callbacks, unpickling, finalizers, bad functions."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import as_completed, wait
from typing import Any

import pytest

import gmpd
from gmpd.client.session import Session
from gmpd.errors import DaemonUnreachable, Unserializable
from tests import jobs_hostile
from tests.daemon_process import ROOT
from tests.support import go_on, stop, wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")

DEADLINE_S = 20.0


@pytest.fixture
def client() -> Iterator[gmpd.Client]:
    with gmpd.Client() as made:
        yield made


class Bare(BaseException):
    pass


RAISED = [
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
    Bare(),
]


def test_whatever_a_callback_raises_the_client_goes_on(client: gmpd.Client) -> None:
    def callback(error: BaseException) -> Any:
        def call(_: object) -> None:
            raise error

        return call

    called = threading.Event()
    for error in RAISED:
        client.submit(abs, -1).add_done_callback(callback(error))
    client.submit(asyncio.sleep, 0.05).add_done_callback(lambda _: called.set())
    assert called.wait(DEADLINE_S)
    assert client.submit(abs, -2).result(DEADLINE_S) == 2


class Unprintable(Exception):
    def __str__(self) -> str:
        raise Bare

    __repr__ = __str__


def test_a_callback_raises_what_cannot_even_be_printed(client: gmpd.Client) -> None:
    def call(_: object) -> None:
        raise Unprintable

    client.submit(asyncio.sleep, 0.05).add_done_callback(call)
    client.drain(DEADLINE_S)
    assert client.submit(abs, -2).result(DEADLINE_S) == 2


@pytest.mark.parametrize("error", RAISED, ids=lambda e: type(e).__name__)
def test_whatever_unpickling_raises_is_that_jobs_alone(
    client: gmpd.Client, error: BaseException
) -> None:
    bad = client.submit(jobs_hostile.unpickles_with, type(error))
    good = client.submit(abs, -2)
    assert good.result(DEADLINE_S) == 2
    assert len(wait([bad, good], DEADLINE_S).done) == 2
    assert set(as_completed([bad, good], DEADLINE_S)) == {bad, good}
    for _ in range(2):
        with pytest.raises(BaseException) as info:  # noqa: PT011 - its class is asked for next
            bad.result(DEADLINE_S)
        assert type(error).__name__ in f"{info.type.__name__}: {info.value}"
    assert client.submit(abs, -3).result(DEADLINE_S) == 3


def test_whatever_unpickling_raises_an_async_client_goes_on() -> None:
    async def main() -> None:
        async with gmpd.AsyncClient() as client:
            for kind in (GeneratorExit, asyncio.CancelledError, Bare):
                bad = client.submit(jobs_hostile.unpickles_with, kind)
                assert await client.submit(abs, -2) == 2
                await asyncio.wait([bad], timeout=DEADLINE_S)
                assert bad.done()

    asyncio.run(main())


def test_a_slow_value_holds_up_no_loop() -> None:
    """Neither its timers nor the values of other jobs; and close() waits for it."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        async with gmpd.AsyncClient() as client:
            warm = "import time, tests.jobs_hostile; time.sleep(0.1)"
            await asyncio.gather(*(client.submit(exec, warm) for _ in range(4)))
            slow = [client.submit(jobs_hostile.unpickles_in, 1.5) for _ in range(2)]
            dropped = client.submit(jobs_hostile.unpickles_in, 1.5)
            late, ticks = 0.0, 0
            while not all(future.done() for future in slow):
                due = loop.time() + 0.05
                assert await client.submit(abs, -2) == 2
                assert await client.submit(complex, ticks) == ticks
                await asyncio.sleep(due - loop.time())
                late, ticks = max(late, loop.time() - due), ticks + 1
                if ticks == 5:
                    dropped.cancel()
            assert (late < 1.0, ticks > 5, dropped.cancelled()) == (True, True, True)
            slow.append(client.submit(jobs_hostile.unpickles_in, 0.5))
        return [future.result() for future in slow]

    assert len(asyncio.run(main())) == 3


async def _seen(values: AsyncIterator[Any]) -> list[Any]:
    """Values, and the error that ends them."""
    seen: list[Any] = []
    try:
        async for value in values:
            seen.append(value)
    except Exception as error:
        seen.append(error)
    return seen


def test_values_of_streams_and_chunks_are_unpickled_beside_the_loop() -> None:
    """Until their function is known to be quick; errors always. In order."""

    async def main() -> None:
        async with gmpd.AsyncClient() as client:
            one, noting, error = await _seen(client.stream(jobs_hostile.yield_noting))
            fails = functools.partial(jobs_hostile.fail_noting_at, 2)
            *some, bad = await _seen(client.map(fails, range(4), chunksize=4))
            items = client.map(jobs_hostile.noting_beside_unsendable, range(2), chunksize=2)
            part, refusal = await _seen(items)
        assert (one, some, type(refusal)) == (1, [0, 1], Unserializable)
        for each, kind in (
            (noting, jobs_hostile.NotesThread), (error, jobs_hostile.ErrorNotesThread),
            (bad, jobs_hostile.ErrorNotesThread), (part, jobs_hostile.NotesThread),
        ):  # fmt: skip
            assert type(each) is kind
            assert each.opened_by not in (0, threading.get_ident())

    asyncio.run(main())


def test_a_slow_value_holds_up_nobody_else(client: gmpd.Client) -> None:
    slow = client.submit(jobs_hostile.unpickles_in, 2.0)
    readers = [threading.Thread(target=slow.result) for _ in range(2)]
    for thread in readers:
        thread.start()
    wait_until(slow.done, "the slow value has come")
    began = time.monotonic()
    assert [client.submit(abs, -i).result(DEADLINE_S) for i in range(5)] == list(range(5))
    assert list(client.map(abs, range(50))) == list(range(50))
    assert time.monotonic() - began < 1.9
    for thread in readers:
        thread.join()
    assert slow.result(0) is slow.result(0)


def test_a_callback_may_do_what_any_thread_may() -> None:
    done: dict[str, Any] = {}
    with gmpd.Client(pending_max=50) as client:

        def call(_: object) -> None:
            done["thread"] = threading.current_thread()
            done["many"] = wait([client.submit(abs, -i) for i in range(3000)]).not_done
            done["stream"] = list(client.stream(range, 200))
            done["map"] = sum(client.map(abs, range(100)))
            done["unordered"] = sum(client.map(abs, range(100), ordered=False))
            done["call"] = "unfinished" in client.call("ping")
            done["cancel"] = client.submit(asyncio.sleep, 60).cancel()
            done["drain"] = client.drain(DEADLINE_S)
            client.close()
            done["closed"] = True

        client.submit(asyncio.sleep, 0.05).add_done_callback(call)
        wait_until(lambda: "closed" in done, "the callback ends", timeout=DEADLINE_S)
    assert done.pop("thread") is not threading.main_thread()
    assert done == {
        "many": set(),
        "stream": list(range(200)),
        "map": 4950,
        "unordered": 4950,
        "call": True,
        "cancel": True,
        "drain": True,
        "closed": True,
    }


def test_a_callback_that_blocks_holds_up_no_result(client: gmpd.Client) -> None:
    go_on = threading.Event()
    client.submit(asyncio.sleep, 0.01).add_done_callback(lambda _: go_on.wait(DEADLINE_S))
    time.sleep(0.1)
    assert [client.submit(abs, -i).result(20) for i in range(50)] == list(range(50))
    assert sum(client.map(abs, range(100), ordered=False)) == 4950
    go_on.set()


def test_a_submit_that_raises_half_way_leaves_no_debt(client: gmpd.Client) -> None:
    def named() -> int:
        return 1

    named.__qualname__ = named.__name__ = "na\ud800me"
    with pytest.raises(Unserializable, match="ud800"):
        client.submit(named)
    with pytest.raises((Unserializable, TypeError, ValueError)):
        client.options(name="\ud800").submit(abs, 1)
    with pytest.raises((TypeError, UnicodeError)):
        client.call("\ud800")
    with pytest.raises((TypeError, UnicodeError)):
        client.call("ping", x=object())
    assert client.submit(abs, -1).result(DEADLINE_S) == 1
    assert client.drain(DEADLINE_S)
    assert not client._core.waits


@pytest.mark.kills_daemon
def test_when_the_threads_end_everybody_hears_why(monkeypatch: pytest.MonkeyPatch) -> None:
    client = gmpd.Client()
    futures = [client.submit(asyncio.sleep, 60) for _ in range(3)]
    stream = client.stream(jobs_hostile.endless)
    next(stream)

    def broken(self: Session) -> None:
        if self is client:
            raise MemoryError("as if none were left")

    monkeypatch.setattr(Session, "_check_liveness", broken)
    client._notify()
    for future in futures:
        with pytest.raises(DaemonUnreachable, match="own thread ended by MemoryError"):
            future.result(DEADLINE_S)
    with pytest.raises(DaemonUnreachable, match="own thread ended"):
        list(stream)
    for use in (
        lambda: client.submit(abs, 1),
        lambda: client.call("ping"),
        lambda: list(client.map(abs, [1])),
    ):
        with pytest.raises((DaemonUnreachable, RuntimeError)):
            use()
    client.close()


class Finalized:
    """Only the collector frees it; then it uses the client wherever that is."""

    def __init__(self, do: Any) -> None:
        self.me = self
        self.do = do

    def __del__(self) -> None:
        self.do()


def test_a_finalizer_in_the_middle_of_the_client_may_submit_and_is_refused_to_wait(
    client: gmpd.Client,
) -> None:
    out: list[Any] = []

    def use() -> None:
        out.append(client.submit(abs, -4))
        out.append(out[0].cancel())
        for wait_for in (out[0].result, client.drain, lambda: client.call("ping")):
            try:
                wait_for()
            except RuntimeError as error:
                out.append("itself" in str(error))

    Finalized(use)
    with client._core_lock:
        gc.collect()
    assert out[1:] == [False, True, True, True]
    wait([out[0]], DEADLINE_S)
    assert out[0].done()


STOPPED = """
import asyncio, sys, threading, time
import gmpd
from gmpd.errors import DaemonUnreachable
from tests import support

def blocking(told):
    client = gmpd.Client()
    out = [client.submit(time.sleep, 60), client.submit(asyncio.sleep, 60)]
    stop(client)
    waiters = [lambda: out[0].result(), lambda: client.drain() and out[1].result(0),
               lambda: list(client.map(abs, [1])), lambda: client.call("status", timeout=None),
               lambda: list(client.stream(range, 3))]
    threads = [threading.Thread(target=heard, args=(w, told)) for w in waiters]
    for t in threads: t.start()
    for t in threads: t.join()
    end(client)
    client.close()

async def on_loop(told):
    client = await gmpd.AsyncClient().connect()
    future = client.submit(asyncio.sleep, 60)
    stop(client)
    for what in (future, client.call("status", timeout=None)):
        try:
            await what
        except DaemonUnreachable: told.append(1)
    end(client)
    await client.close()

def pool(told):
    executor = gmpd.Executor(1)
    future = executor.submit(time.sleep, 60)
    stop(executor._client)
    heard(future.result, told)
    end(executor._client)
    executor.shutdown()

def stop(client):
    time.sleep(0.2)
    support.stop(client._daemon.pid)

def end(client):
    support.go_on(client._daemon.pid)

def heard(wait, told):
    try:
        wait()
    except DaemonUnreachable as error:
        assert "has not answered" in str(error), error
        told.append(1)

told = []
began = time.monotonic()
globals()[sys.argv[1]](told) if sys.argv[1] != "on_loop" else asyncio.run(on_loop(told))
print(len(told), time.monotonic() - began < 12)
"""


@pytest.mark.parametrize(("face", "told"), [("blocking", 5), ("on_loop", 2), ("pool", 1)])
def test_whoever_waits_on_a_stopped_daemon_is_told(face: str, told: int) -> None:
    env = {**os.environ, "GMPD_CLIENT__LIVENESS": "1s"}
    ran = subprocess.run(
        [sys.executable, "-c", STOPPED, face],
        capture_output=True, text=True, timeout=60, env=env, cwd=ROOT,
    )  # fmt: skip
    assert ran.stdout.split() == [str(told), "True"], ran.stderr


def test_a_client_that_was_stopped_itself_does_not_blame_the_daemon() -> None:
    script = (
        "import gmpd, time, asyncio\n"
        "with gmpd.Client() as client:\n"
        "    job = client.submit(asyncio.sleep, 2, 'late')\n"
        "    print('ready', flush=True)\n"
        "    print(job.result(), flush=True)\n"
    )
    env = {**os.environ, "GMPD_CLIENT__LIVENESS": "500ms"}
    ran = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=env
    )
    assert ran.stdout is not None
    assert ran.stdout.readline() == "ready\n"
    stop(ran.pid)
    time.sleep(1.2)
    go_on(ran.pid)
    assert ran.communicate(timeout=30)[0] == "late\n"


def test_a_client_left_open_says_what_it_drops() -> None:
    script = (
        "import gmpd, time\n"
        "client = gmpd.Client()\n"
        "for _ in range(3): client.submit(time.sleep, 60)\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0
    assert "drops 3 jobs" in ran.stderr
    assert "close()" in ran.stderr


def test_an_async_client_says_when_it_is_used_too_early_or_too_late() -> None:
    async def main() -> None:
        client = gmpd.AsyncClient()
        with pytest.raises(RuntimeError, match="not connected yet"):
            client.submit(abs, 1)
        with pytest.raises(RuntimeError, match="not connected yet"):
            await client.call("ping")
        with pytest.raises(RuntimeError, match="not connected yet"):
            [v async for v in client.map(abs, [1])]
        async with client:
            with pytest.raises(RuntimeError, match="is connected already"):
                await client.connect()
        with pytest.raises(RuntimeError, match="closed"):
            client.submit(abs, 1)
        with pytest.raises(RuntimeError, match="is closed already"):
            async with client:
                pass
        await client.close()

    asyncio.run(main())
