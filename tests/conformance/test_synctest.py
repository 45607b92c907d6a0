"""Parts of Go's ``testing/synctest`` in a seeded run: waiting for all others, and its clock."""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
import time
from typing import Any

import pytest

import gmpd
from gmpd.errors import Panic
from gmpd.runtime.run import run


def test_TestWait_sees_what_the_others_have_done_and_no_time_passes() -> None:
    async def main() -> list[object]:
        seen: list[object] = []
        done, ch = [], gmpd.Chan[int]()

        async def child(number: int) -> None:
            for _ in range(number):
                await gmpd.gosched()
            done.append(number)
            await ch.recv_ok()
            done.append(-number)

        def plain() -> None:
            done.append(10)
            ch.sync.recv_ok()

        for number in range(3):
            gmpd.go(child, number)
        gmpd.go(plain)
        gmpd.go(gmpd.sleep, 5)
        await gmpd.synctest_wait()
        seen += [sorted(done), asyncio.get_running_loop().time()]
        ch.close()
        await gmpd.synctest_wait()
        seen += [len(done), asyncio.get_running_loop().time()]
        return seen

    assert run(main(), deterministic_seed=1) == [[0, 1, 2, 10], 0.0, 7, 0.0]


def test_TestWait_twice_at_once_panics_and_a_cancelled_one_is_forgotten() -> None:
    async def main() -> None:
        other = gmpd.go(gmpd.synctest_wait)
        await gmpd.gosched()
        with pytest.raises(Panic, match="wait already in progress"):
            await gmpd.synctest_wait()
        other.cancel()
        await gmpd.synctest_wait()

    run(main(), deterministic_seed=1)


def test_it_needs_a_seeded_run() -> None:
    with pytest.raises(RuntimeError, match="needs a seeded run"):
        run(gmpd.synctest_wait())


def test_TestNow_plain_functions_sleep_and_measure_by_the_clock_of_the_run() -> None:
    def naps() -> tuple[float, float, float]:
        began = time.monotonic(), time.perf_counter()
        time.sleep(3600)
        return began[0], time.monotonic() - began[0], time.perf_counter() - began[1]

    async def main() -> list[object]:
        gs = [gmpd.go(naps) for _ in range(3)]
        await gmpd.go(time.sleep, 1800)
        seen: list[object] = [time.monotonic(), time.monotonic_ns()]
        seen += [await g for g in gs]
        time.sleep(60)  # in a coroutine: all others stand still
        return [*seen, time.monotonic(), asyncio.get_running_loop().time()]

    real = time.sleep, time.monotonic
    start = time.monotonic()
    seen = run(main(), deterministic_seed=1, fake_time=True)
    assert time.monotonic() - start < 20
    assert seen == [1800.0, 1800_000_000_000, *[(0.0, 3600.0, 3600.0)] * 3, 3660.0, 3660.0]
    assert (time.sleep, time.monotonic) == real


def test_TestNow_other_threads_and_other_runs_have_the_real_time() -> None:
    async def main() -> float:
        measured = []

        def outside() -> None:
            start = time.monotonic()
            time.sleep(0.01)
            measured.append(time.monotonic() - start)

        thread = threading.Thread(target=outside)
        thread.start()
        while thread.is_alive():
            await gmpd.sleep(0.001)
        return measured[0]

    assert run(main(), deterministic_seed=1, fake_time=True) >= 0.01

    async def nap() -> float:
        time.sleep(0.01)
        return asyncio.get_running_loop().time()

    assert run(nap(), deterministic_seed=1) == 0.0
    with pytest.raises(ValueError, match="needs a deterministic_seed"):
        run(nap_not_begun := nap(), fake_time=True)
    nap_not_begun.close()


def test_a_thread_that_runs_a_function_of_time_alone_has_the_real_one() -> None:
    async def main() -> float:
        ended = threading.Event()
        failed: list[object] = []
        hook, sys.unraisablehook = sys.unraisablehook, failed.append
        try:
            bare: list[tuple[Any, tuple[Any, ...]]] = [(time.sleep, (0.01,)), (time.monotonic, ())]
            for fn, args in bare:
                _thread.start_new_thread(fn, args)
            threading.Timer(0.05, ended.set).start()
            await asyncio.to_thread(ended.wait)
        finally:
            sys.unraisablehook = hook
        assert failed == []
        return asyncio.get_running_loop().time()

    run(main(), deterministic_seed=1, fake_time=True)
