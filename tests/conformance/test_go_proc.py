"""Programs after Go's own ``runtime/proc_test.go``, under their Go names, on one P."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import gmpd
from gmpd.runtime.go import this_loop
from gmpd.runtime.handoffs import hogs
from gmpd.runtime.run import run

#: However busy the machine is, these end long before.
DEADLINE_S = 40.0


def decorated(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Every function under it has the same code object."""

    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return fn(*args)

    return wrapper


def until(condition: Callable[[], bool]) -> None:
    """Spin: no wait, no yield."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("the others never ran")


def test_TestPreemption() -> None:
    """Goroutines of one function spin in turn: each waits for the one before to pass ``x`` on."""
    x = 0

    def spinner(number: int) -> None:
        nonlocal x
        for turn in range(3):
            until(lambda: x == 5 * turn + number)  # noqa: B023 - not kept
            x += 1

    async def main() -> None:
        for g in [gmpd.go(spinner, number) for number in range(5)]:
            await g

    run(main())
    assert x == 15


def test_TestPreemption_by_a_pair_behind_one_decorator() -> None:
    """Both spin; they are two functions with the same code object."""
    seen = []

    @decorated
    def ping() -> None:
        seen.append("ping")
        until(lambda: len(seen) == 2)

    @decorated
    def pong() -> None:
        seen.append("pong")
        until(lambda: len(seen) == 2)

    async def main() -> None:
        for g in [gmpd.go(ping), gmpd.go(pong)]:
            await g

    run(main())
    assert sorted(seen) == ["ping", "pong"]


def test_a_hog_behind_a_decorator_does_not_hold_another_function_back() -> None:
    """Known as a hog is what the decorator wraps, not the wrapper."""
    over = threading.Event()

    @decorated
    def hog() -> None:
        until(over.is_set)

    @decorated
    def short() -> str:
        return "ran"

    async def main() -> tuple[str, int]:
        loop = this_loop("the test")
        g = gmpd.go(hog)
        while not hogs(loop.p):
            await gmpd.sleep(0.001)
        said = await gmpd.go(short)
        deferred = len(loop.p.deferred)
        over.set()
        await g
        return str(said), deferred

    assert run(main()) == ("ran", 0)


@pytest.mark.parametrize("count", [3, 8])
def test_GCFairness2(count: int) -> None:
    """All of them count for ever, in one function; each must have begun before main may go on."""
    counts = [0] * count
    over = False

    def spin(number: int) -> None:
        end = time.monotonic() + DEADLINE_S
        while not over and time.monotonic() < end:
            counts[number] += 1

    async def main() -> None:
        nonlocal over
        gs = [gmpd.go(spin, number) for number in range(count)]
        end = time.monotonic() + DEADLINE_S
        while not all(counts) and time.monotonic() < end:
            await gmpd.sleep(0.001)
        over = True
        for g in gs:
            await g

    run(main())
    assert all(counts)


def test_GCFairness() -> None:
    """Goroutines that make system calls in a row, and never wait: main goes on after a yield."""
    writes = [0, 0]
    over = False

    def writer(number: int) -> None:
        with open("/dev/null", "wb", buffering=0) as sink:
            while not over:
                writes[number] += sink.write(b".")

    async def main() -> list[int]:
        nonlocal over
        gs = [gmpd.go(writer, number) for number in range(2)]
        end = time.monotonic() + DEADLINE_S
        while not all(writes) and time.monotonic() < end:
            await gmpd.sleep(0.01)
        await gmpd.gosched()
        seen = writes.copy()
        over = True
        for g in gs:
            await g
        return seen

    assert all(run(main())), "both wrote before main went on"


def test_PreemptionAfterSyscall() -> None:
    """Each comes back from a system call and computes at once; all of one function."""
    ended = 0

    def child() -> None:
        nonlocal ended
        time.sleep(0.001)  # the system call
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        ended += 1

    def watch() -> None:
        until(lambda: ended == 6)

    async def main() -> None:
        for g in [gmpd.go(watch), *[gmpd.go(child) for _ in range(6)]]:
            await g

    run(main())
    assert ended == 6


def test_TestGoroutineParallelism() -> None:
    """Four at a time meet at a barrier that they spin for."""
    x = 0
    lock = threading.Lock()

    def runner(expected: int) -> None:
        nonlocal x
        with lock:
            x += 1
        until(lambda: x >= expected)

    async def main() -> None:
        for round_ in range(3):
            for g in [gmpd.go(runner, 4 * round_ + 4) for _ in range(4)]:
                await g

    run(main())
    assert x == 12


def test_TestYieldProgress() -> None:
    """A G that only yields lets the others run; a plain function yields by sleeping."""

    async def main() -> int:
        turns = 0
        over = False

        async def yielder() -> None:
            nonlocal turns
            while not over:
                await gmpd.gosched()
                turns += 1

        def plain() -> None:
            while not over:
                time.sleep(0)

        gs = [gmpd.go(yielder), gmpd.go(plain)]
        end = time.monotonic() + DEADLINE_S
        while turns < 10 and time.monotonic() < end:
            await gmpd.sleep(0.001)
        over = True
        for g in gs:
            await g
        return turns

    assert run(main()) >= 10


def test_TestRecursiveDeadlock_lock_of_the_process() -> None:
    """Sync Gs that take turns at a lock of ``threading``, which gmpd does not know."""
    lock = threading.Lock()
    order = []

    def child(number: int) -> None:
        with lock:
            order.append(number)
            os.sched_yield()

    async def main() -> None:
        for g in [gmpd.go(child, number) for number in range(20)]:
            await g

    run(main())
    assert sorted(order) == list(range(20))
