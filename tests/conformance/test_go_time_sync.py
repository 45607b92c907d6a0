"""Programs after Go's own tests of ``time``, ``sync`` and ``runtime/sema``, under Go's names."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import gmpd
from gmpd.errors import Panic
from gmpd.runtime.run import run

# ---- time/sleep_test.go, time/tick_test.go ------------------------------------------------------


def test_TestAfterFunc_chain() -> None:
    """Each arms the next; the last one tells."""

    async def main() -> int:
        left, done = 10, gmpd.Chan[int](1)

        def fires() -> None:
            nonlocal left
            left -= 1
            if left:
                gmpd.after_func(0.001, fires)
            else:
                done.sync.send(left)

        gmpd.after_func(0, fires)
        return await done.recv()

    assert run(main()) == 0


def test_TestAfterStop() -> None:
    async def main() -> list[bool]:
        ran: list[int] = []
        gmpd.after_func(0.1, ran.append, 1)
        stopped = gmpd.after_func(0.001, ran.append, 0)
        timer = gmpd.Timer(0.1)
        seen = [timer.stop(), stopped.stop(), timer.stop(), stopped.stop()]
        while not ran:
            await gmpd.sleep(0.01)
        assert ran == [1]
        assert (await gmpd.select(gmpd.recv(timer.c), default=True))[0] == -1
        return seen

    assert run(main(), deterministic_seed=1) == [True, True, False, False]


def test_TestAfterQueuing() -> None:
    """They come in the order of their times, however they were armed."""

    async def main() -> list[int]:
        slots, order = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0], gmpd.Chan[int](20)

        async def waits(slot: int) -> None:
            await gmpd.after(slot * 0.05).recv()
            await order.send(slot)

        for slot in slots:
            gmpd.go(waits, slot)
        return [await order.recv() for _ in slots]

    got = run(main(), deterministic_seed=1)
    assert got == sorted(got)


@pytest.mark.parametrize("seed", [None, 1])
def test_TestReset(seed: int | None) -> None:
    async def main() -> None:
        timer = gmpd.Timer(0.05)
        await gmpd.sleep(0.01)
        assert timer.reset(0.1) is True
        assert timer.c is not None
        start = asyncio.get_running_loop().time()
        await timer.c.recv()
        assert asyncio.get_running_loop().time() - start >= 0.05
        assert timer.reset(0.001) is False
        await timer.c.recv()

    run(main(), deterministic_seed=seed)


def test_TestTimerStopStress() -> None:
    """Ones that are stopped in time never call."""

    async def main() -> None:
        async def arms(_n: int) -> None:
            timer = gmpd.after_func(2, pytest.fail, "it was stopped")
            await gmpd.sleep(1)
            timer.stop()

        gs = [gmpd.go(arms, n) for n in range(100)]
        for g in gs:
            await g
        await gmpd.sleep(5)

    run(main(), deterministic_seed=1)


def test_TestSleepZeroDeadlock() -> None:
    """Sleeps of nothing, beside timers that come and go."""

    async def main() -> tuple[int, int]:
        slept = stopped = 0

        async def sleeps() -> None:
            nonlocal slept
            for _ in range(100):
                await gmpd.sleep(0)
                slept += 1

        g = gmpd.go(sleeps)
        for _ in range(100):
            stopped += gmpd.Timer(10).stop()
            await gmpd.gosched()
        await g
        return slept, stopped

    assert run(main()) == (100, 100)


def test_TestZeroTimer() -> None:
    async def main() -> None:
        for _ in range(200):
            await gmpd.after(0).recv()
            ticker = gmpd.Timer(0)
            assert ticker.c is not None
            await ticker.c.recv()
            ticker.reset(0)
            await ticker.c.recv()

    run(main())


def test_TestTicker_teardown() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        for _ in range(3):
            ticker = gmpd.Ticker(0.1)
            await ticker.c.recv()
            ticker.stop()
        ticker = gmpd.Ticker(0.1)
        start = loop.time()
        for _ in range(5):
            await ticker.c.recv()
        took = loop.time() - start
        ticker.reset(10)
        assert (await gmpd.select(gmpd.recv(ticker.c), default=True))[0] == -1
        ticker.stop()
        await gmpd.sleep(30)
        assert (await gmpd.select(gmpd.recv(ticker.c), default=True))[0] == -1
        for wrong in (lambda: gmpd.Ticker(-1), lambda: ticker.reset(0)):
            with pytest.raises(Panic, match="non-positive interval"):
                wrong()
        return took

    assert run(main(), deterministic_seed=1) == pytest.approx(0.5)


def test_TestLongAdjustTimers() -> None:
    """Thousands of timers, most of them stopped: a short one is not late for it."""

    async def main() -> float:
        timers = [gmpd.after_func(60 + n / 1000, print) for n in range(5000)]
        start = time.monotonic()
        waits = gmpd.go(gmpd.sleep, 0.05)
        for timer in timers:
            timer.stop()
        await waits
        return time.monotonic() - start

    assert 0.05 <= run(main()) < 5


# ---- sync ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
def test_TestMutex_hammer(plain: bool) -> None:
    async def main() -> int:
        mutex, total = gmpd.Mutex(), 0

        async def hammers() -> None:
            nonlocal total
            for n in range(100):
                if not n % 3 and mutex.try_lock():
                    mutex.unlock()
                async with mutex:
                    before = total
                    await gmpd.gosched()
                    total = before + 1

        def hammers_sync() -> None:
            nonlocal total
            for _ in range(100):
                with mutex.sync:
                    before = total
                    time.sleep(0)
                    total = before + 1

        for g in [gmpd.go(hammers_sync if plain else hammers) for _ in range(6)]:
            await g
        return total

    assert run(main()) == 600


def test_TestMutexFairness() -> None:
    """One holds the lock for long and takes it again at once; another gets it nevertheless."""

    async def main() -> tuple[int, int]:
        mutex, over = gmpd.Mutex(), False
        locked = waited = 0

        async def greedy() -> None:
            nonlocal locked
            while not over:
                async with mutex:
                    locked += 1
                    await gmpd.sleep(0.0001)

        g = gmpd.go(greedy)
        async with asyncio.timeout(20):
            for _ in range(10):
                await gmpd.sleep(0.0001)
                waited += mutex.locked()
                async with mutex:
                    pass
        over = True
        await g
        return locked, waited

    locked, waited = run(main())
    assert locked > 1, "it took the lock again"
    assert waited, "it had the lock when the other wanted it"


def test_TestSemaHandoff() -> None:
    """A lock that is handed to a waiter is not overtaken by the one that unlocked it."""

    async def main() -> int:
        semaphore, handed = gmpd.Semaphore(1), 0
        for _ in range(50):
            await semaphore.acquire()

            async def waits() -> None:
                nonlocal handed
                await semaphore.acquire()
                handed += 1
                semaphore.release()

            g = gmpd.go(waits)
            await gmpd.gosched()
            semaphore.release()
            handed -= semaphore.try_acquire()  # it has been given to the one that waits
            await g
        return handed

    assert run(main()) == 50


def test_TestRWMutex() -> None:
    """Readers together, a writer alone."""

    async def main() -> int:
        rw, readers, writers, most = gmpd.RWMutex(), 0, 0, 0

        async def reads() -> None:
            nonlocal readers, most
            for _ in range(30):
                async with rw.rlocker():
                    readers += 1
                    most = max(most, readers)
                    assert not writers
                    await gmpd.gosched()
                    readers -= 1

        async def writes() -> None:
            nonlocal writers
            for _ in range(30):
                async with rw:
                    writers += 1
                    assert (writers, readers) == (1, 0)
                    await gmpd.gosched()
                    writers -= 1

        for g in [gmpd.go(fn) for fn in (reads, writes, reads, writes, reads)]:
            await g
        return most

    assert run(main()) > 1


@pytest.mark.parametrize("plain", [False, True])
def test_TestWaitGroup(plain: bool) -> None:
    async def main() -> None:
        for n in (0, 1, 7):
            one, two, exited = gmpd.WaitGroup(), gmpd.WaitGroup(), gmpd.Chan[int](n + 1)
            one.add(n)
            two.add(n)

            async def child(one: Any = one, two: Any = two, exited: Any = exited) -> None:
                one.done()
                await two.wait()
                await exited.send(1)

            for _ in range(n):
                gmpd.go(child)
            await (gmpd.go(one.sync.wait) if plain else one.wait())
            assert len(exited) == 0
            two.add(-n)
            for _ in range(n):
                await exited.recv()

    run(main())


def test_TestWaitGroupGo() -> None:
    async def main() -> int:
        seen: list[int] = []
        group = gmpd.WaitGroup()
        group.go(seen.append, 1)
        group.go(gmpd.sleep, 0.001)
        await group.wait()
        with pytest.raises(Panic, match="negative WaitGroup counter"):
            group.done()
        return len(seen)

    assert run(main()) == 1


def test_TestOncePanic() -> None:
    async def main() -> list[int]:
        once, calls = gmpd.Once(), []

        async def fails() -> None:
            calls.append(1)
            raise LookupError

        with pytest.raises(LookupError):
            await once.do(fails)
        await once.do(fails)
        return calls

    assert run(main()) == [1]


def test_TestCondSignalGenerations() -> None:
    """The longest waiter is woken first, generation after generation."""

    async def main() -> list[int]:
        mutex, awake, n = gmpd.Mutex(), gmpd.Chan[int](100), 50
        cond = gmpd.Cond(mutex)
        running = gmpd.Chan[bool](n)

        async def waits(number: int) -> None:
            async with mutex:
                await running.send(True)
                await cond.wait()
                await awake.send(number)

        order = []
        for number in range(n):
            gmpd.go(waits, number)
            if number:
                order.append(await awake.recv())
            await running.recv()
            async with mutex:
                cond.signal()
        return order

    assert run(main()) == list(range(49))


def test_TestCondBroadcast() -> None:
    async def main() -> int:
        mutex, n = gmpd.Mutex(), 50
        cond, awake = gmpd.Cond(mutex), 0

        async def waits() -> None:
            nonlocal awake
            async with mutex:
                await cond.wait()
                awake += 1

        gs = [gmpd.go(waits) for _ in range(n)]
        await gmpd.gosched()
        async with mutex:
            cond.broadcast()
        for g in gs:
            await g
        return awake

    assert run(main()) == 50
