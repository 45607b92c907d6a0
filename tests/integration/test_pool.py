"""gmpd.Pool beyond the standard pool's contract, which tests/conformance/test_cpython_pool.py has:
ends in the middle of work, user code that fails where that pool would hang, the running daemon,
and programs of libraries that take a pool.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import multiprocessing.pool
import operator
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gmpd
from gmpd.errors import JobCancelled, WorkerLost
from tests.support import wait_until

pytestmark = pytest.mark.usefixtures("no_daemon")


@pytest.fixture(scope="module")
def pool() -> Iterator[gmpd.Pool]:
    with gmpd.Pool(2) as made:
        yield made


def die(_: int) -> None:
    os._exit(3)


async def inverse(x: int) -> float:
    return 1 / x


def begin(path: str, seconds: float) -> None:
    Path(path).touch()
    time.sleep(seconds)


def test_a_worker_that_dies_in_a_map_is_an_error_that_names_the_function() -> None:
    with gmpd.Pool(2) as own:
        with pytest.raises(WorkerLost, match=r"die.*exit status 3"):
            own.map(die, [1, 2], chunksize=2)
        assert own.map(abs, [-1, 2]) == [1, 2]


def test_a_chunk_of_an_executor_has_the_name_of_its_function() -> None:
    with gmpd.Executor(1) as executor, pytest.raises(WorkerLost, match="die"):
        list(executor.map(partial(die), [1, 2], chunksize=2))


@pytest.mark.parametrize("chunksize", [1, 2, None])
def test_coroutines_are_awaited(pool: gmpd.Pool, chunksize: int | None) -> None:
    assert pool.map(inverse, [1, 2, 4], chunksize) == [1, 0.5, 0.25]
    assert list(pool.imap(inverse, [1, 2, 4], chunksize or 3)) == [1, 0.5, 0.25]
    with pytest.raises(ZeroDivisionError):
        pool.map(inverse, [1, 0], chunksize)


class Counted:
    """A callable that counts how often it is packed."""

    packed = 0

    def __call__(self, x: int) -> int:
        return -x

    def __reduce__(self) -> tuple[type[Counted], tuple[()]]:
        Counted.packed += 1
        return Counted, ()


@pytest.mark.parametrize("how", ["imap", "map", "executor"])
def test_the_function_of_chunks_is_packed_once(pool: gmpd.Pool, how: str) -> None:
    wanted = [-x for x in range(1000)]
    list(pool.imap(abs, [1]))
    before = Counted.packed
    match how:
        case "imap":
            assert list(pool.imap(Counted(), range(1000), 10)) == wanted
        case "map":
            assert pool.map(Counted(), range(1000), 10) == wanted
        case _:
            assert list(pool._executor.map(Counted(), range(1000), chunksize=10)) == wanted
    assert Counted.packed - before <= 2  # to send it, and to see whether it is steady


def test_a_source_of_few_chunks_needs_no_thread(pool: gmpd.Pool) -> None:
    results = pool.imap(abs, range(5000), 100)
    assert not pool._feeders
    assert list(results) == list(range(5000))


def test_after_an_items_error_imap_gives_the_next_one(pool: gmpd.Pool) -> None:
    results = pool.imap(partial(operator.truediv, 1), [1, 0, 4])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == [0.25]


def test_imap_reads_no_further_than_its_buffer(pool: gmpd.Pool) -> None:
    taken: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            taken.append(len(taken))
            yield len(taken)

    results = pool.imap(abs, endless(), buffersize=3)
    wait_until(lambda: len(taken) == 3, "the buffer is full")
    assert [next(results), next(results)] == [1, 2]
    wait_until(lambda: len(taken) == 5, "there was room for two")
    del results
    wait_until(lambda: not pool._feeders, "its thread has ended")
    assert len(taken) == 5
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        pool.imap(abs, [1], buffersize=0)


def test_imap_waits_for_a_result_as_long_as_it_is_told(pool: gmpd.Pool) -> None:
    for imap in (pool.imap, pool.imap_unordered):
        results = imap(time.sleep, [1.0])
        with pytest.raises(multiprocessing.TimeoutError, match=r"no result within 0\.01 s"):
            results.next(timeout=0.01)
        assert results.next(timeout=20) is None
        with pytest.raises(StopIteration):
            results.next(timeout=0.01)


def test_a_callback_that_raises_costs_no_result(
    pool: gmpd.Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """The standard pool's thread ends by it, and every later call waits for ever."""

    def fail(value: object) -> None:
        raise SystemExit(value)

    with caplog.at_level(logging.ERROR, "gmpd.pool"):
        assert pool.apply_async(abs, (-1,), callback=fail).get(20) == 1
        failed = pool.map_async(math.sqrt, [-1], error_callback=fail)
        with pytest.raises(ValueError, match="math"):
            failed.get(20)
    assert [record.getMessage() for record in caplog.records] == [
        "a callback of a pool raised; its result is there all the same"
    ] * 2
    assert failed.ready()
    assert not failed.successful()


def test_a_callback_may_use_its_pool_but_not_wait_for_its_end() -> None:
    told: list[Any] = []

    def again(value: int) -> None:
        told.append(own.apply_async(abs, (value - 1,)).get(20))
        own.close()
        try:
            own.join()
        except RuntimeError as error:
            told.append(str(error))

    own = gmpd.Pool(1)
    own.apply_async(abs, (-5,), callback=again).wait(20)
    own.join()
    assert told == [4, "join() in a callback of the pool would wait for this callback"]


def test_a_pool_that_was_closed_or_terminated_says_so() -> None:
    pool = gmpd.Pool(1)
    with pytest.raises(ValueError, match=r"still running: call close\(\) or terminate\(\)"):
        pool.join()
    result = pool.map_async(abs, [-1, -2])
    pool.close()
    for call in (pool.apply, pool.map, pool.imap):
        with pytest.raises(ValueError, match=r"Pool not running: close\(\) has ended it"):
            call(abs, [1])
    pool.join()
    assert result.get() == [1, 2]
    pool.terminate()
    with pytest.raises(ValueError, match=r"terminate\(\), or the end of its `with`"):
        pool.apply(abs, (1,))
    assert "state=TERMINATE pool_size=1" in repr(pool)
    with pytest.raises(NotImplementedError, match="cannot be passed between processes or pickled"):
        pickle.dumps(pool)


@pytest.mark.parametrize("closed", [False, True])
def test_terminate_ends_what_runs_and_what_waits(record: str, closed: bool) -> None:
    """Their results are errors; those of a standard pool never come."""
    pool = gmpd.Pool(1)
    runs = pool.apply_async(begin, (record, 600))
    waits = pool.map_async(time.sleep, [600] * 10)
    fed = pool.imap_unordered(time.sleep, iter([600] * 5000))
    wait_until(lambda: os.path.exists(record), "a call runs")
    pids = [worker.pid for worker in pool._pool]
    if closed:
        pool.close()
    pool.terminate()
    pool.join()
    for result in (runs, waits):
        with pytest.raises(JobCancelled, match="terminated before this call had ended"):
            result.get(20)
    with pytest.raises((JobCancelled, RuntimeError)):
        fed.next(20)
    wait_until(lambda: not any(map(os.path.exists, (f"/proc/{p}" for p in pids))), "workers end")


def test_an_initializer_that_raises_breaks_the_pool() -> None:
    """The standard pool starts workers for ever."""
    with gmpd.Pool(1, initializer=operator.truediv, initargs=(1, 0)) as pool:
        with pytest.raises(BrokenExecutor, match="initializer failed"):
            pool.apply(time.sleep, (60,))


def test_wrong_arguments_are_refused_by_name() -> None:
    with gmpd.Client() as client:
        with pytest.raises(ValueError, match="initializer is for a pool of its own"):
            gmpd.Pool(client=client, initializer=abs)
        with pytest.raises(ValueError, match="max_tasks_per_child is for a pool of its own"):
            gmpd.Pool(client=client, maxtasksperchild=1)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        gmpd.Pool(initializer=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Chunksize must be 1\+, not 0"), gmpd.Pool(1) as pool:
        pool.imap(abs, [1], chunksize=0)


def test_a_result_that_cannot_be_sent_is_the_standard_error_and_ours(pool: gmpd.Pool) -> None:
    for call in (partial(pool.apply, threading.Lock), partial(pool.map, lock_of, [1, 2])):
        with pytest.raises(gmpd.errors.Unserializable, match="cannot be pickled") as caught:
            call()
        assert isinstance(caught.value, multiprocessing.pool.MaybeEncodingError)  # type: ignore[attr-defined]
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def lock_of(x: int) -> Any:
    return threading.Lock()


def test_a_pool_on_a_client_keeps_to_its_processes_and_leaves_the_client_open() -> None:
    with gmpd.Client() as client:
        with gmpd.Pool(1, client=client) as pool:
            stamps = pool.map(nap, [0.05] * 4, chunksize=1)
            slow = pool.map_async(time.sleep, [0.5] * 20, chunksize=1)
        assert all(a[1] <= b[0] for a, b in zip(sorted(stamps), sorted(stamps)[1:], strict=False))
        with pytest.raises(JobCancelled):
            slow.get(20)
        assert client.submit(abs, -1).result(20) == 1


def nap(seconds: float) -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()


def test_a_dropped_pool_warns_and_finishes_its_calls() -> None:
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        result = gmpd.Pool(1).map_async(nap, [0.1, 0.1])
    assert len(result.get(20)) == 2


def run_program(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_program_may_end_with_its_pool_open() -> None:
    """It does not wait for calls that run, as with the standard pool."""
    program = """if True:
        import time, gmpd
        pool = gmpd.Pool(1)
        pool.apply_async(time.sleep, (600,))
        print("over")
    """
    assert run_program(program) == "over\n"


def test_emcee_samples_by_a_pool() -> None:
    pytest.importorskip("emcee", reason="emcee is not installed: pip install emcee")
    program = """if True:
        import emcee, gmpd, numpy as np

        def log_prob(theta):
            return -0.5 * float(np.sum(theta**2))

        if __name__ == "__main__":
            np.random.seed(42)
            start = np.random.randn(16, 3)
            chains = []
            with gmpd.Pool(2) as pool:
                for each in (pool, None):
                    np.random.seed(7)
                    sampler = emcee.EnsembleSampler(16, 3, log_prob, pool=each)
                    sampler.run_mcmc(start, 8)
                    chains.append(sampler.get_chain())
            print(np.array_equal(*chains))
    """
    assert run_program(program) == "True\n"


def test_scipy_searches_by_the_map_of_a_pool() -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: pip install scipy")
    program = """if True:
        import gmpd
        from scipy.optimize import differential_evolution, rosen

        if __name__ == "__main__":
            how = dict(seed=1, updating="deferred", maxiter=30, polish=False)
            with gmpd.Pool(2) as pool:
                found = differential_evolution(rosen, [(0, 2)] * 3, workers=pool.map, **how)
            alone = differential_evolution(rosen, [(0, 2)] * 3, **how)
            print(found.x.tolist() == alone.x.tolist(), found.nfev == alone.nfev)
    """
    assert run_program(program) == "True True\n"
