"""The executor and the other faces, on real private daemons."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import operator
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import BrokenExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.client.futures import JobFuture
from gmpd.client.session import Session
from gmpd.config import Config
from gmpd.errors import DaemonUnreachable, Unserializable, WorkerLost
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")


@pytest.fixture
def executor() -> Iterator[gmpd.Executor]:
    with gmpd.Executor(2) as pool:
        yield pool


@pytest.fixture
def client() -> Iterator[gmpd.Client]:
    with gmpd.Client() as made:
        yield made


def test_submit_map_wait_as_completed(executor: gmpd.Executor) -> None:
    futures = [executor.submit(operator.add, i, 1) for i in range(500)]
    assert wait(futures, 20).not_done == set()
    assert [f.result() for f in futures] == list(range(1, 501))
    assert list(executor.map(abs, range(-9, 9))) == [abs(i) for i in range(-9, 9)]
    assert list(executor.map(pow, range(9), [2] * 9, chunksize=4)) == [i * i for i in range(9)]
    more = {executor.submit(operator.neg, i) for i in range(20)}
    assert {f.result() for f in as_completed(more, 20)} == {-i for i in range(20)}
    with pytest.raises(TimeoutError):
        list(executor.map(time.sleep, [2.0], timeout=0.05))


async def inverse(x: int, y: int = 1) -> float:
    await asyncio.sleep(0)
    return y / x


def test_map_awaits_async_functions_in_chunks_too(executor: gmpd.Executor) -> None:
    assert list(executor.map(inverse, [1, 2, 4], chunksize=2)) == [1, 0.5, 0.25]
    assert list(executor.map(inverse, [1, 2, 4], [2] * 3, chunksize=3)) == [2, 1, 0.5]
    failing = executor.map(inverse, [1, 0, 4], chunksize=3)
    assert next(failing) == 1
    with pytest.raises(ZeroDivisionError):
        next(failing)


@gmpd.job(timeout=1)
def hurried(s: float) -> None:
    time.sleep(s)


@gmpd.job(timeout=1)
async def hurried_async(s: float) -> None:
    await asyncio.sleep(s)


@pytest.mark.parametrize("fn", [hurried, hurried_async])
def test_options_of_a_job_are_those_of_its_chunks(
    executor: gmpd.Executor, fn: Callable[[float], object]
) -> None:
    with pytest.raises(gmpd.errors.JobTimeout):
        list(executor.map(fn, [0.0, 3.0], chunksize=2))


def test_after_shutdown_nothing_is_taken(executor: gmpd.Executor) -> None:
    future = executor.submit(time.sleep, 0.1)
    executor.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    executor.shutdown()


def test_a_failing_initializer_breaks_the_pool() -> None:
    pool = gmpd.Executor(1, initializer=operator.truediv, initargs=(1, 0))
    wait_until(lambda: pool._client._core.lost, "the pool is known to be broken")
    with pytest.raises(BrokenExecutor, match="initializer failed"):
        pool.submit(abs, 1)
    pool.shutdown()


@pytest.mark.parametrize("when", ["before Hello", "in a turn"])
def test_a_slow_program_is_told_why_its_pool_is_broken(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its daemon has ended before the client looks whether the link still stands."""
    method = "_connect" if when == "before Hello" else "_check_peer"
    real = getattr(Session, method)

    def slow(self: Session, *args: Any) -> None:
        time.sleep(0.5)
        real(self, *args)

    monkeypatch.setattr(Session, method, slow)
    began = time.monotonic()
    with pytest.raises(BrokenExecutor, match="initializer failed: ZeroDivisionError"):
        gmpd.Executor(1, initializer=operator.truediv, initargs=(1, 0)).submit(abs, 1).result(60)
    assert time.monotonic() - began < Config().client.connect_timeout


@pytest.mark.kills_daemon
@pytest.mark.parametrize("how", ["exit", "kill"])
def test_a_pool_that_is_gone_is_a_broken_process_pool(how: str) -> None:
    """For programs that catch what the standard pool raises; True is a number, as NumPy's are."""
    pool = gmpd.Executor(True, initializer=partial(os._exit, 7) if how == "exit" else None)
    with contextlib.suppress(BrokenExecutor):
        future = pool.submit(time.sleep, 60)
        if how == "kill":
            os.kill(pool._client._daemon.pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(BrokenProcessPool) as caught:
            future.result(20)
        assert isinstance(caught.value, DaemonUnreachable)
    wait_until(lambda: pool._broken, "the pool is broken")
    with pytest.raises(BrokenProcessPool):
        pool.submit(abs, 1)
    pool.shutdown()


def test_run_in_executor(executor: gmpd.Executor) -> None:
    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(executor, operator.add, 1, 2)

    assert asyncio.run(main()) == 3


class Tracked:
    pass


def test_neither_arguments_nor_results_stay(executor: gmpd.Executor) -> None:
    value = Tracked()
    gone = weakref.ref(value)
    future = executor.submit(id, value)
    assert future.result(20)
    del value
    assert wait_until(lambda: gone() is None, "the argument is freed")
    result = executor.submit(Tracked).result(20)
    gone = weakref.ref(result)
    del result
    assert wait_until(lambda: gone() is None, "the result is freed")


def test_what_cannot_be_sent_fails_at_submit(client: gmpd.Client) -> None:
    with pytest.raises(Unserializable, match="lock"):
        client.submit(abs, threading.Lock())
    assert client.submit(lambda x: x + 1, 1).result(20) == 2


def test_an_error_is_itself_with_cause_and_note(client: gmpd.Client) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        client.submit(lambda: 1 / 0).result(20)
    assert "attempt 1" in caught.value.__notes__[0]
    # A built-in function has no frame there, and gmpd's own are not shown.
    assert "ZeroDivisionError: division by zero" in str(caught.value.__cause__)


def test_sys_exit_ends_the_job_and_is_raised_where_its_result_is_asked_for(
    executor: gmpd.Executor,
) -> None:
    """As ProcessPoolExecutor does; the worker goes on."""
    future = executor.submit(sys.exit, 4)
    wait([future], 20)
    error = future.exception()
    assert isinstance(error, SystemExit)
    assert error.code == 4
    assert executor.submit(abs, -5).result(20) == 5
    assert not any(p["restarts"] for p in executor._client.call("status")["ps"])


def _raise_stop() -> None:
    raise StopIteration(5)


def test_stop_iteration_reaches_an_async_client() -> None:
    """No asyncio future takes one: it would be left waiting."""

    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            with pytest.raises(RuntimeError, match=r"StopIteration\(5\)") as caught:
                await asyncio.wait_for(c.submit(_raise_stop), 20)
            assert isinstance(caught.value.__cause__, StopIteration)

    asyncio.run(main())


def test_a_dead_worker_costs_its_job_alone(client: gmpd.Client) -> None:
    with pytest.raises(WorkerLost, match="SIGKILL"):
        client.submit(lambda: os.kill(os.getpid(), signal.SIGKILL)).result(20)
    assert client.submit(abs, -1).result(20) == 1


def test_an_endless_source_is_taken_from_by_the_window(client: gmpd.Client) -> None:
    taken = itertools.count()
    results = client.map(abs, taken)
    assert list(itertools.islice(results, 5000)) == list(range(5000))
    results.close()  # type: ignore[attr-defined]
    assert next(taken) < 1_000_000


def test_map_unordered_and_with_errors_in_place(client: gmpd.Client) -> None:
    assert sorted(client.map(abs, range(3000), ordered=False)) == list(range(3000))
    results = client.map(lambda x: 6 // (x - 3), range(6), chunksize=3)
    assert [next(results) for _ in range(3)] == [-2, -3, -6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_outcomes_that_gathered_leave_when_the_rest_is_stolen(client: gmpd.Client) -> None:
    # The other P takes away what was to carry them along: it happens every tenth time or so.
    for _ in range(60):
        assert sorted(client.map(abs, range(1500), ordered=False)) == list(range(1500))


def test_whatever_an_item_raises_its_neighbours_in_the_chunk_are_kept(
    client: gmpd.Client,
) -> None:
    def picky(x: int) -> int:
        if x == 2:
            raise StopIteration  # must not look like the end of the chunk
        return -x

    async def picky_async(x: int) -> int:
        await asyncio.sleep(0)
        return 6 // (x - 2)

    results = client.map(picky, range(4), chunksize=4)
    assert [next(results), next(results)] == [0, -1]
    with pytest.raises(RuntimeError, match="StopIteration"):
        next(results)
    results = client.map(picky_async, range(4), chunksize=4)
    assert [next(results), next(results)] == [-3, -6]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(client.map(pow, range(5), itertools.repeat(2), chunksize=3)) == [0, 1, 4, 9, 16]


def test_streams_sync_and_async(client: gmpd.Client) -> None:
    def numbers(n: int) -> Iterator[int]:
        yield from range(n)

    async def slowly(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            yield i

    assert list(client.stream(numbers, 300)) == list(range(300))
    assert list(client.stream(slowly, 300)) == list(range(300))
    with client.stream(numbers, 10**12) as endless:
        assert [next(endless), next(endless)] == [0, 1]
    assert wait_until(lambda: client._core.busy == 0, "the stream's job is over")


def test_cancel_what_runs_and_what_waits_on_itself(client: gmpd.Client) -> None:
    sleeping = client.submit(asyncio.sleep, 60)
    wait_until(sleeping.running, "the coroutine runs")
    wait_until(sleeping.cancel, "its worker has heard of it")
    assert sleeping.cancelled()
    blocked = client.submit(time.sleep, 0.5)
    wait_until(blocked.running, "the blocking job runs")
    assert not blocked.cancel()
    assert blocked.result(20) is None


def test_a_callback_may_wait_for_another_result(client: gmpd.Client) -> None:
    seen: list[int] = []

    def again(_: object) -> None:
        seen.append(client.submit(abs, -5).result(20))

    client.submit(time.sleep, 0.05).add_done_callback(again)
    assert wait_until(lambda: seen, "the callback's own job") == [5]


def test_close_does_not_wait_for_ever_for_a_callback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmpd.client.session.CLOSE_S", 0.2)
    stuck, entered = threading.Event(), threading.Event()
    client = gmpd.Client()

    def callback(_: object) -> None:
        entered.set()
        stuck.wait()

    client.submit(asyncio.sleep, 0.05).add_done_callback(callback)
    assert entered.wait(20)
    with pytest.warns(RuntimeWarning, match=r"did not end within 0\.2 s, because a callback"):
        client.close(wait=False)
    monkeypatch.undo()
    stuck.set()
    client.close()
    assert client._thread is not None
    assert not client._thread.is_alive()


def test_a_callback_may_close_its_client() -> None:
    client = gmpd.Client()
    late = client.submit(asyncio.sleep, 0.3, "late")
    client.submit(asyncio.sleep, 0.05).add_done_callback(lambda _: client.close())
    assert late.result(20) == "late"
    assert client._thread is not None
    client._thread.join(20)
    assert not client._thread.is_alive()


SCRIPT = """
import gmpd
if __name__ == "__main__":
    client = gmpd.Client()
    client.submit(print, "printed", flush=True).result(20)
    print(client._daemon.directory)
"""


def test_jobs_print_where_the_program_does_and_a_client_left_open_leaves_nothing() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=50)
    printed, directory = ran.stdout.split()
    assert (ran.returncode, printed, ran.stderr) == (0, "printed", "")
    assert not os.path.exists(directory)


@pytest.mark.kills_daemon
def test_when_the_daemon_dies_everybody_hears() -> None:
    client = gmpd.Client()
    assert client._daemon is not None
    futures: list[JobFuture] = [client.submit(time.sleep, 60) for _ in range(4)]
    os.kill(client._daemon.pid, signal.SIGKILL)
    for future in futures:
        with pytest.raises(DaemonUnreachable):
            future.result(20)
    with pytest.raises(DaemonUnreachable):
        client.submit(abs, 1)
    client.close()


FORKS_BESIDE_THREADS = pytest.mark.filterwarnings(  # since 3.12
    "ignore:.*use of fork:DeprecationWarning"
)


@FORKS_BESIDE_THREADS
def test_a_fork_is_told_so(client: gmpd.Client) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            client.submit(abs, 1)
        except RuntimeError as error:
            os._exit(0 if "fork" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@FORKS_BESIDE_THREADS
def test_a_fork_waits_for_no_lock_and_no_outcome(client: gmpd.Client) -> None:
    """No thread of the parent is there to release a lock that it held at the fork."""
    pool = gmpd.Executor(client=client)
    pending = pool.submit(asyncio.sleep, 0.5)
    stream = client.stream(range, 10)
    assert next(stream) == 0
    client._core_lock._lock.acquire()  # as another thread would have it
    try:
        pid = os.fork()
    except BaseException:
        client._core_lock._lock.release()  # else nothing in this process ends any more
        raise
    if pid == 0:
        signal.alarm(20)  # ends it, should it wait
        told = 0
        for use in (
            lambda: client.submit(abs, 1),
            lambda: pool.submit(abs, 1),
            lambda: client.stream(range, 1),
            lambda: list(client.map(abs, [1])),
            lambda: client.call("status"),
        ):
            try:
                use()
            except RuntimeError as error:
                told += "fork" in str(error)
        stream.close()
        client.cancel_pending()
        client.close()
        pool.shutdown()
        os._exit(told)
    client._core_lock._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert list(stream) == [*range(1, 10)]
    assert pending.result(20) is None


def test_asyncio() -> None:
    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            assert await c.submit(operator.add, 1, 2) == 3
            values = await asyncio.gather(*[c.submit(abs, -i) for i in range(300)])
            assert values == list(range(300))
            assert [x async for x in c.map(abs, range(-5, 0))] == [5, 4, 3, 2, 1]
            with pytest.raises(ZeroDivisionError):
                await c.submit(operator.truediv, 1, 0)
            late = c.submit(asyncio.sleep, 60)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
            late = c.submit(asyncio.sleep, 60)
            assert not await c.drain(0.05)
            assert c.unfinished() == 1
            assert "unfinished" in await c.call("ping")
            with pytest.raises(gmpd.errors.GmpdError, match="no such question"):
                await c.call("nonsense")
            await c.close(cancel=True)
            assert late.cancelled()
            with pytest.raises(RuntimeError, match="client is closed"):
                await c.call("ping")

    asyncio.run(main())


def test_async_map_is_lazy_in_order_or_as_completed_and_from_async_sources() -> None:
    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            taken = itertools.count()
            results = c.map(abs, taken)
            got = [await anext(results) for _ in range(5000)]
            await results.aclose()  # type: ignore[attr-defined]
            assert got == list(range(5000))
            assert next(taken) < 1_000_000
            assert [x async for x in c.map(pow, range(9), [2] * 9, chunksize=4)] == [
                i * i for i in range(9)
            ]
            rest = [x async for x in c.map(abs, range(3000), ordered=False)]
            assert sorted(rest) == list(range(3000))
            said: list[tuple[int, int | None]] = []
            both = c.map(pow, _slowly(10), [2] * 10, progress=lambda n, of: said.append((n, of)))
            assert [x async for x in both] == [i * i for i in range(10)]
            assert said[-1] == (10, 10)
            view = c.options(retries=1)
            assert [x async for x in view.map(abs, [-1, -2])] == [1, 2]
            assert [x async for x in view.stream(_count, 3)] == [0, 1, 2]

    asyncio.run(main())


async def _slowly(n: int) -> AsyncIterator[int]:
    for i in range(n):
        await asyncio.sleep(0)
        yield i


def _count(n: int) -> Iterator[int]:
    yield from range(n)


def test_async_map_does_not_wait_for_a_source_to_give_what_is_done() -> None:
    async def stuck(ended: list[str]) -> AsyncIterator[int]:
        yield -1
        try:
            await asyncio.sleep(600)
        finally:
            ended.append("source")

    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            for ordered in (True, False):
                ended: list[str] = []
                results = c.map(abs, stuck(ended), ordered=ordered)
                assert await asyncio.wait_for(anext(results), 20) == 1
                await results.aclose()  # type: ignore[attr-defined]
                assert ended == ["source"]
            with pytest.raises(TimeoutError):
                async for _ in c.map(time.sleep, [2.0], timeout=0.05):
                    pass
            failing = c.map(lambda x: 6 // (x - 3), range(6), chunksize=3)
            assert [await anext(failing) for _ in range(3)] == [-2, -3, -6]
            with pytest.raises(ZeroDivisionError):
                await anext(failing)
            parked = c.map(asyncio.sleep, [0.0] + [60.0] * 20)
            assert await anext(parked) is None
            await parked.aclose()  # type: ignore[attr-defined]
            while c._core.busy:  # each is cancelled
                await asyncio.sleep(0.01)
            with pytest.raises(ValueError, match="chunksize=0"):
                c.map(abs, [1], chunksize=0)

    asyncio.run(main())


GREEN = """
import gevent, operator, time
from gmpd.client.green import Client
if __name__ == "__main__":
    with Client() as c:
        began = time.monotonic()
        waits = [gevent.spawn(lambda: c.submit(time.sleep, 0.5).result(20)) for _ in range(20)]
        gevent.joinall(waits, raise_error=True)
        assert time.monotonic() - began < 8  # of 10 s
        assert sorted(c.map(abs, range(-3, 3), ordered=False)) == [0, 1, 1, 2, 2, 3]
        print(c.submit(operator.add, 1, 2).result(20))
"""


@pytest.mark.parametrize("patch", ["", "import gevent.monkey; gevent.monkey.patch_all()"])
def test_gevent(patch: str) -> None:
    pytest.importorskip("gevent")
    ran = subprocess.run(
        [sys.executable, "-c", patch + GREEN], capture_output=True, text=True, timeout=50
    )
    assert (ran.returncode, ran.stdout) == (0, "3\n"), ran.stderr


def test_the_blocking_client_names_the_one_for_gevent() -> None:
    pytest.importorskip("gevent")
    source = "import gevent.monkey; gevent.monkey.patch_all(); import gmpd; gmpd.Client()"
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=50)
    assert ran.returncode == 1
    assert "RuntimeError: gevent" in ran.stderr
    assert "gmpd.client.green" in ran.stderr


class Grim:
    """A function whose third item (2) does as it is told."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __call__(self, x: int) -> Any:
        if x == 2:
            if self.how == "exit":
                sys.exit("leaves")
            if self.how == "interrupt":
                raise KeyboardInterrupt("leaves")
            return threading.Lock()
        return -x


async def _grim(x: int) -> Any:
    await asyncio.sleep(0)
    return Grim("lock" if x % 2 else "exit")(x)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("exit", SystemExit, "leaves"),
        ("interrupt", KeyboardInterrupt, "leaves"),
        ("lock", Unserializable, "lock"),
    ],
)
def test_an_item_of_a_chunk_fails_alone(
    client: gmpd.Client, how: str, error: type[BaseException], text: str
) -> None:
    """The items before it arrive, and the text knows no chunk."""
    results = client.map(Grim(how), range(4), chunksize=4)
    assert [next(results), next(results)] == [0, -1]
    with pytest.raises(error, match=text) as raised:
        next(results)
    assert "[2]" not in str(raised.value)
    alone = client.map(Grim(how), [2], chunksize=4)
    with pytest.raises(error) as single:
        next(alone)
    assert str(single.value) == str(raised.value), "the same with and without neighbours"


def test_an_item_of_an_async_chunk_fails_alone(client: gmpd.Client) -> None:
    results = client.map(_grim, range(4), chunksize=4)
    assert [next(results), next(results)] == [0, -1]
    with pytest.raises(SystemExit):
        next(results)


def _five() -> Iterator[int]:
    yield from range(5)
    raise LookupError("no sixth")


async def _five_slowly() -> AsyncIterator[int]:
    for i in _five():
        await asyncio.sleep(0)
        yield i


@pytest.mark.parametrize("chunksize", ["auto", 1, 3, 64])
@pytest.mark.parametrize("ordered", [True, False])
def test_what_a_source_gave_before_it_raised_comes_first(
    client: gmpd.Client, chunksize: Any, ordered: bool
) -> None:
    """As with builtin map; in both faces, from both kinds of source."""
    got: list[int] = []
    with pytest.raises(LookupError, match="no sixth"):
        got.extend(client.map(operator.neg, _five(), chunksize=chunksize, ordered=ordered))
    assert sorted(got, reverse=True) == [0, -1, -2, -3, -4]

    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            for source in (_five(), _five_slowly()):
                got: list[int] = []
                results = c.map(operator.neg, source, chunksize=chunksize, ordered=ordered)
                for _ in range(5):
                    got.append(await anext(results))
                with pytest.raises(LookupError, match="no sixth"):
                    await anext(results)
                assert sorted(got, reverse=True) == [0, -1, -2, -3, -4]

    asyncio.run(main())


def seeded(i: int) -> float:
    random.seed(i)
    time.sleep(0.01)
    return random.random()


async def napping() -> int:
    await asyncio.sleep(0.1)
    return 1


def child_of(x: int) -> int:
    return int(gmpd.go(operator.add, x, 1).result())


def test_plain_calls_of_a_pool_run_one_per_worker_and_coroutines_beside_them() -> None:
    with gmpd.Executor(2) as pool:
        expected = []
        for i in range(40):
            random.seed(i)
            expected.append(random.random())
        assert list(pool.map(seeded, range(40))) == expected
        # A long one keeps none but its own worker; its own children run.
        long = pool.submit(time.sleep, 3)
        began = time.monotonic()
        wait([pool.submit(time.sleep, 0.05) for _ in range(6)], 20)
        assert sum(f.result(20) for f in [pool.submit(napping) for _ in range(500)]) == 500
        assert pool.submit(child_of, 1).result(20) == 2
        assert not long.done(), time.monotonic() - began


def test_a_pool_may_be_told_to_run_more_at_once() -> None:
    with gmpd.Executor(1, max_concurrent=20) as pool:
        pool.submit(abs, 1).result(20)
        began = time.monotonic()
        wait([pool.submit(time.sleep, 0.5) for _ in range(20)], 20)
        assert time.monotonic() - began < 8, "of 10 s"
    for bad in (0, -1):
        with pytest.raises(ValueError, match="max_concurrent"):
            gmpd.Executor(1, max_concurrent=bad)


def test_an_argument_that_cannot_be_sent_is_the_futures_error(executor: gmpd.Executor) -> None:
    future = executor.submit(abs, threading.Lock())
    assert isinstance(future.exception(0), Unserializable)
    assert isinstance(future.exception(0), pickle.PicklingError)


def test_an_executor_has_the_options_of_its_view(client: gmpd.Client) -> None:
    with gmpd.Executor(client=client.options(timeout=0.2)) as pool:
        assert isinstance(pool.submit(asyncio.sleep, 30).exception(20), TimeoutError)


def test_a_constructor_that_fails_leaves_no_noise() -> None:
    script = (
        "import gmpd, gc\n"
        "for kw in ({'max_workers': 0}, {'initializer': 5}, {'max_concurrent': -1}):\n"
        "    try: gmpd.Executor(**kw)\n"
        "    except (ValueError, TypeError): pass\n"
        "gc.collect()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (ran.returncode, ran.stderr) == (0, "")


def open_gate(path: str) -> None:
    with open(path, "w") as gate:
        gate.write("open")


def wait_at_gate(path: str) -> str:
    with open(path) as gate:  # a fifo: until the other side opens it
        return gate.read()


def test_what_waits_in_a_worker_keeps_no_coroutine_from_it(tmp_path: Any) -> None:
    """A second plain call waits there for the first: as a lease it must not use up the credit of
    those that may run."""
    gates = [str(tmp_path / name) for name in ("one", "two")]
    for gate in gates:
        os.mkfifo(gate)
    with gmpd.Executor(1) as pool:
        blocked = [pool.submit(wait_at_gate, gate) for gate in gates]
        try:
            wait_until(blocked[0].running, "the first to block")
            assert pool.submit(inverse, 2).result(20) == 0.5
            assert not blocked[1].running()
        finally:
            for gate in gates:
                open_gate(gate)
        assert [each.result(20) for each in blocked] == ["open", "open"]


class Refuses:
    """Its own methods raise, in whichever process it is pickled or unpickled."""

    def __init__(self, packs: type[Exception] | None = None, unpacks: bool = False) -> None:
        self.packs, self.unpacks = packs, unpacks

    def __getstate__(self) -> Any:
        if self.packs is not None:
            raise self.packs("as it was told to")
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["unpacks"]:
            raise pickle.UnpicklingError("as it was told to")
        self.__dict__.update(state)


@pytest.mark.parametrize(
    "kind", [ValueError, KeyError, pickle.UnpicklingError, NotImplementedError]
)
def test_errors_of_getstate_keep_their_class(
    executor: gmpd.Executor, kind: type[Exception]
) -> None:
    error = executor.submit(abs, Refuses(kind)).exception(20)
    assert type(error) is kind
    assert any("argument" in note for note in error.__notes__)  # which one
    assert type(executor.submit(Refuses, kind).exception(20)) is kind
    with pytest.raises(kind):
        list(executor.map(Refuses, [kind] * 4, chunksize=2))


def test_a_users_unpickling_error_keeps_its_class(executor: gmpd.Executor) -> None:
    assert type(executor.submit(id, Refuses(None, True)).exception(20)) is pickle.UnpicklingError
    assert type(executor.submit(Refuses, None, True).exception(20)) is pickle.UnpicklingError


def give_proxy(value: Tracked) -> Any:
    return Weakly(weakref.ref(value))


async def give_proxy_later(value: Tracked) -> Any:
    ref = weakref.ref(value)
    del value
    await asyncio.sleep(0)
    return Weakly(ref)


class Weakly:
    """Is pickled as what it refers to."""

    def __init__(self, ref: weakref.ref[Tracked]) -> None:
        self.ref = ref

    def __reduce__(self) -> Any:
        return type, (self.ref(),)


def test_arguments_live_until_the_result_is_encoded(executor: gmpd.Executor) -> None:
    for fn in (give_proxy, give_proxy_later):
        assert executor.submit(fn, Tracked()).result(20) is Tracked


def test_values_in_a_pool_have_no_limit_but_memory() -> None:
    # In a process of its own: the first large argument starts a thread of pyzmq, which stays.
    script = (
        "import gmpd\n"
        "with gmpd.Executor(1) as pool:\n"
        "    assert len(pool.submit(bytes, 5 << 20).result(20)) == 5 << 20\n"
        "    assert pool.submit(len, bytes(5 << 20)).result(20) == 5 << 20\n"
    )
    small = {"GMPD_LIMITS__VALUE_BYTES": "1MiB", "GMPD_LIMITS__QUEUE_BYTES": "2MiB"}
    subprocess.run([sys.executable, "-c", script], check=True, timeout=50, env=os.environ | small)


def test_a_map_of_what_waits_has_it_wait_together_or_as_told(client: gmpd.Client) -> None:
    together = client.map(asyncio.sleep, [0, *[60] * 4000])  # four windows of old
    assert next(together) is None
    wait_until(
        lambda: sum(p.get("started", 0) for p in client.call("status")["ps"]) == 4000,
        "all of them wait together",
        timeout=40,
    )
    together.close()  # type: ignore[attr-defined]
    taken = itertools.count()
    results = client.map(asyncio.sleep, (next(taken) * 0 for _ in range(100)), buffersize=4)
    assert next(results) is None
    assert next(taken) <= 5  # four out, and the one that was given

    async def main() -> None:
        async with gmpd.AsyncClient() as c:
            some = itertools.count()
            more = c.map(abs, some, buffersize=4)
            assert await anext(more) == 0
            assert next(some) <= 5
            await more.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


@pytest.mark.parametrize("verb", ["terminate_workers", "kill_workers"])
def test_the_workers_of_a_pool_can_be_ended(verb: str, client: gmpd.Client) -> None:
    pool = gmpd.Executor(2)
    running = pool.submit(time.sleep, 60)
    waiting = [pool.submit(time.sleep, 60) for _ in range(5)]
    wait_until(running.running, "the first to run")
    getattr(pool, verb)()
    with pytest.raises(BrokenExecutor, match=verb):
        running.result(20)
    for future in waiting:  # one of them runs, in the other worker
        if not future.cancelled():
            assert isinstance(future.exception(20), BrokenExecutor)
    assert sum(future.cancelled() for future in waiting) >= 4
    getattr(pool, verb)()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)
    with gmpd.Executor(client=client) as borrowed:
        with pytest.raises(RuntimeError, match="serve others"):
            getattr(borrowed, verb)()
        assert borrowed.submit(abs, -1).result(20) == 1


@pytest.mark.parametrize("verb", ["terminate_workers", "kill_workers"])
def test_workers_that_are_ended_on_purpose_are_no_failures(
    verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor are those that have not come up yet; the daemon writes on the program's stderr."""
    pool = gmpd.Executor(2)
    daemon = pool._client._daemon
    assert daemon is not None
    getattr(pool, verb)()
    daemon._process.wait(20)
    assert capfd.readouterr().err == ""


def _own_pid(_n: int) -> int:
    return os.getpid()


def test_a_worker_is_replaced_after_as_many_tasks_as_it_may_have() -> None:
    with gmpd.Executor(1, max_tasks_per_child=3) as pool:
        pids = [future.result(40) for future in [pool.submit(_own_pid, n) for n in range(7)]]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), ("3", TypeError)])
def test_a_bad_number_of_tasks_is_refused(wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_tasks_per_child must be"):
        gmpd.Executor(1, max_tasks_per_child=wrong)


AT_EXIT = """
import atexit, gmpd
pool = gmpd.Executor(1)
assert pool.submit(abs, -1).result(30) == 1
def late():
    try:
        pool.submit(abs, -2)
    except RuntimeError as error:
        print(error)
atexit.register(late)
"""


def test_a_pool_takes_nothing_once_the_interpreter_shuts_down() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=50, check=False
    )
    said = "cannot schedule new futures after interpreter shutdown\n"
    assert (done.returncode, done.stdout) == (0, said), done.stderr


LOCKS = """
import multiprocessing, sys, gmpd
held = None
def init(lock):
    global held
    held = lock
def use():
    with held:
        return True
if __name__ == "__main__":
    lock = multiprocessing.get_context(sys.argv[1]).RLock()
    with gmpd.Executor(2, initializer=init, initargs=(lock,)) as pool:
        with lock:
            future = pool.submit(use)
            try:
                future.result(0.3)
            except TimeoutError:
                print("waits")
        print(future.result(30))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_locks_of_multiprocessing_go_to_an_initializer(tmp_path: Path, method: str) -> None:
    """As tqdm's ``process_map`` hands one on, of the default context: fork before Python 3.14."""
    script = tmp_path / "locks.py"
    script.write_text(LOCKS)
    done = subprocess.run(
        [sys.executable, str(script), method],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "waits\nTrue\n"), done.stderr


LENT = """
import multiprocessing, threading, gmpd
from functools import partial
lent = {}
def init(**objects):
    lent.update(objects)
def use(i):
    with lent["value"].get_lock():
        lent["value"].value += 1
    with lent["rlock"], lent["rlock"], lent["semaphore"], lent["condition"]:
        lent["condition"].notify_all()
    lent["array"][0] += 1
    lent["array"][1:3] = [7, 8]
    lent["queue"].put((i, lent["event"].wait(5), len(lent["array"]), list(lent["array"])[1:]))
    lent["simple"].put(i)
def release():
    try:
        lent["semaphore"].release()  # no job holds it now
    except ValueError:
        return "too often"
def hold():
    lent["connection"].send("holds")
    with lent["rlock"]:
        return True
if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    reader, writer = fork.Pipe(duplex=False)
    objects = {
        "value": fork.Value("i", 0), "array": fork.Array("i", 4, lock=True), "rlock": fork.RLock(),
        "semaphore": fork.BoundedSemaphore(2), "condition": fork.Condition(),
        "event": fork.Event(), "queue": fork.Queue(), "simple": fork.SimpleQueue(),
        "connection": writer,
    }
    objects["event"].set()
    with gmpd.Executor(2, initializer=partial(init, **objects)) as pool:
        print(set(pool.map(use, range(10))), pool.submit(release).result())
        last = sorted(objects["queue"].get() for _ in range(10))[9]
        print(objects["value"].value, objects["array"][1], last)
        print(sorted(objects["simple"].get() for _ in range(10)) == list(range(10)))
        with objects["rlock"]:
            waits = pool.submit(hold)
            print(reader.recv())
        print(waits.result(30))
    objects["queue"].close()
    ours = [t for t in threading.enumerate() if t.name.startswith("gmpd")]
    for thread in ours: thread.join(20)  # one may just be ending
    print([t.name for t in ours if t.is_alive()])
"""


def test_what_multiprocessing_shares_by_fork_goes_to_an_initializer(tmp_path: Path) -> None:
    """Values, queues, pipes, events: the program keeps them, workers use them through it."""
    script = tmp_path / "lent.py"
    script.write_text(LENT)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=False
    )
    said = "{None} too often\n10 7 (9, True, 4, [7, 8, 0])\nTrue\nholds\nTrue\n[]\n"
    assert (done.returncode, done.stdout) == (0, said), done.stderr
