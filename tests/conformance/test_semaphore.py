"""``gmpd.Semaphore`` after Go's ``x/sync/semaphore/semaphore_test.go``, under its names."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import gmpd
from gmpd.errors import Panic
from tests.on_loops import Run, parked, run_p, spawn


def test_TestWeighted(run: Run) -> None:
    """Never more than there are, however many each takes."""
    n, most, held = 4, 0, 0

    async def main() -> int:
        semaphore = gmpd.Semaphore(n)

        async def hammer(takes: int) -> None:
            nonlocal held, most
            for _ in range(20):
                await semaphore.acquire(takes)
                held += takes
                most = max(most, held)
                await asyncio.sleep(0)
                held -= takes
                semaphore.release(takes)

        await asyncio.gather(*[hammer(1 + number % n) for number in range(12)])
        return semaphore.free

    assert run(main()) == n
    assert most == n


def test_TestWeightedPanic(run: Run) -> None:
    async def main() -> None:
        semaphore = gmpd.Semaphore(1)
        with pytest.raises(Panic, match="released more than held"):
            semaphore.release()
        for wrong in (lambda: gmpd.Semaphore(-1), lambda: semaphore.try_acquire(-1)):
            with pytest.raises(ValueError, match="counts from 0 up"):
                wrong()

    run(main())


def test_TestWeightedTryAcquire(run: Run) -> None:
    async def main() -> list[bool]:
        semaphore = gmpd.Semaphore(2)
        await semaphore.acquire()
        tries = [semaphore.try_acquire(), semaphore.try_acquire()]
        semaphore.release(2)
        tries.append(semaphore.try_acquire())
        await semaphore.acquire()
        tries.append(semaphore.try_acquire())
        return tries

    assert run(main()) == [True, False, True, False]


def test_TestWeightedDoesntBlockIfTooBig(run: Run) -> None:
    """A G that wants more than there are waits for ever, and delays no other."""

    async def main() -> None:
        semaphore = gmpd.Semaphore(2)
        greedy = spawn(semaphore.acquire(3))
        await parked(greedy)
        for _ in range(5):
            await semaphore.acquire(1)
            semaphore.release(1)
        greedy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await greedy
        assert semaphore.free == 2
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await semaphore.acquire(3)

    run(main())


def test_TestLargeAcquireDoesntStarve(run: Run) -> None:
    """Many that take one in turn do not keep the one out that wants them all."""

    async def main() -> None:
        n, over, taken = 5, False, 0
        semaphore = gmpd.Semaphore(n)

        async def small() -> None:
            nonlocal taken
            while not over:
                await semaphore.acquire()
                taken += 1
                await asyncio.sleep(0)
                semaphore.release()

        gs = [spawn(small()) for _ in range(n)]
        while taken < 2 * n:
            await asyncio.sleep(0)
        assert not semaphore.try_acquire(n), "some are taken"
        await semaphore.acquire(n)
        over = True
        semaphore.release(n)
        await asyncio.gather(*gs)

    run(main())


@pytest.mark.parametrize("who", ["first", "second"])
def test_TestAllocCancelDoesntStarve(run: Run, who: str) -> None:
    """The cancelled first one lets those behind it go on with what is left."""

    async def main() -> None:
        semaphore = gmpd.Semaphore(10)
        await semaphore.acquire(1)
        first = spawn(semaphore.acquire(10))
        await parked(first)
        second = spawn(semaphore.acquire(1))
        await parked(second)
        assert not semaphore.try_acquire()  # in turn
        if who == "first":
            first.cancel()
            await second
            assert semaphore.free == 8
        else:
            second.cancel()
            semaphore.release()
            await first
            assert semaphore.free == 0

    run(main())


def test_TestWeightedReleaseUnacquired_served_and_cancelled_before_it_ran(run: Run) -> None:
    async def main() -> None:
        semaphore = gmpd.Semaphore(2)
        await semaphore.acquire(2)
        taker = spawn(semaphore.acquire(2))
        await parked(taker)
        semaphore.release(2)
        taker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taker
        assert semaphore.free == 2

    run(main())


def test_from_plain_functions_and_as_a_context() -> None:
    most, held = 0, 0
    lock = threading.Lock()

    async def main() -> int:
        semaphore = gmpd.Semaphore(2)

        def plain() -> None:
            nonlocal most, held
            for _ in range(20):
                with semaphore.sync:
                    with lock:
                        held += 1
                        most = max(most, held)
                    with lock:
                        held -= 1
            semaphore.sync.acquire(2)
            assert not semaphore.sync.try_acquire()
            semaphore.sync.release(2)

        gs: list[Any] = [gmpd.go(plain) for _ in range(4)]
        async with semaphore:
            await asyncio.sleep(0)
        for g in gs:
            await g
        return semaphore.free

    assert run_p(main()) == 2
    assert 1 <= most <= 2
