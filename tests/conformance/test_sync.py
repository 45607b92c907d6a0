"""WaitGroup, Mutex, RWMutex, Cond, Once, Group: Go's rules (row 50 and the library semantics),
after Go's own tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gmpd.errors import Panic
from gmpd.runtime.chan import Chan
from gmpd.runtime.go import sleep
from gmpd.runtime.group import Group
from gmpd.runtime.loop import Loop
from gmpd.runtime.sync import Cond, Mutex, Once, RWMutex, WaitGroup
from tests.on_loops import Run, parked, run_p, spawn


async def until(fact: Callable[[], bool]) -> None:
    while not fact():
        await asyncio.sleep(0)


def in_sync_g(fn: Callable[[], Any]) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop.call_sync(fn)


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


# ---- WaitGroup


def test_wait_returns_when_the_counter_is_zero(run: Run) -> None:
    async def main() -> None:
        wg, other = WaitGroup(), WaitGroup()
        n = 16
        wg.add(n)
        other.add(n)
        passed = []

        async def member() -> None:
            wg.done()
            await other.wait()
            passed.append(1)

        members = [spawn(member()) for _ in range(n)]
        await wg.wait()
        await parked(*members)
        for _ in range(n):
            assert passed == []
            other.done()
        await asyncio.gather(*members)
        assert len(passed) == n
        await wg.wait()  # at zero it does not wait

    run(main())


def test_a_negative_counter_panics(run: Run) -> None:
    async def main() -> None:
        wg = WaitGroup()
        wg.add(1)
        wg.done()
        with pytest.raises(Panic, match="sync: negative WaitGroup counter"):
            wg.done()

    run(main())


def test_reuse_before_wait_returned_panics_in_the_waiter(run: Run) -> None:
    async def main() -> None:
        wg = WaitGroup()
        wg.add(1)
        waiter = spawn(wg.wait())
        await parked(waiter)
        assert "[sync.WaitGroup.Wait]" in repr(waiter)
        wg.done()
        wg.add(1)
        with pytest.raises(Panic, match="WaitGroup is reused before previous Wait has returned"):
            await waiter

    run(main())


def test_go_counts_its_child_in_and_out_also_when_it_fails(run: Run) -> None:
    async def main() -> None:
        wg = WaitGroup()
        seen = []

        async def child(value: int) -> None:
            await asyncio.sleep(0)
            seen.append(value)

        def plain(value: int) -> None:
            seen.append(value)

        async def fails() -> None:
            raise ValueError("mine")

        wg.go(child, 1)
        wg.go(plain, value=2)
        failing = wg.go(fails)
        await wg.wait()
        assert sorted(seen) == [1, 2]
        with pytest.raises(ValueError, match="mine"):
            await failing

    run(main())


def test_sync_gs_are_counted_and_wait() -> None:
    async def main() -> None:
        wg = WaitGroup()
        wg.add(3)
        order = []

        def waiter() -> None:
            wg.sync.wait()
            order.append("all done")

        waiting = [in_sync_g(waiter) for _ in range(2)]
        await until(lambda: len(wg._queue) == 2)

        def member() -> None:
            time.sleep(
                0.03
            )  # blocks: P goes elsewhere, and done() is sent home from an M without P
            order.append("member")
            wg.done()

        for _ in range(3):
            in_sync_g(member)
        await asyncio.gather(*waiting)
        assert order == ["member"] * 3 + ["all done"] * 2

    run_p(main())


# ---- Mutex


def test_a_mutex_excludes(run: Run) -> None:
    """Go's HammerMutex."""

    async def main() -> None:
        mutex = Mutex()
        inside = total = 0

        async def hammer() -> None:
            nonlocal inside, total
            for step in range(100):
                if step % 3 == 0 and mutex.try_lock():
                    assert inside == 0
                    mutex.unlock()
                async with mutex:
                    inside += 1
                    assert inside == 1
                    await asyncio.sleep(0)
                    inside -= 1
                    total += 1

        await asyncio.gather(*(hammer() for _ in range(10)))
        assert total == 1000
        assert not mutex.locked()

    run(main())


def test_unlock_of_an_unlocked_mutex_panics(run: Run) -> None:
    async def main() -> None:
        mutex = Mutex()
        with pytest.raises(Panic, match="sync: unlock of unlocked mutex"):
            mutex.unlock()
        await mutex.lock()
        assert not mutex.try_lock()
        mutex.unlock()
        assert mutex.try_lock()
        mutex.unlock()
        with pytest.raises(Panic, match="sync: unlock of unlocked mutex"):
            mutex.unlock()

    run(main())


def test_a_g_that_holds_the_mutex_most_of_the_time_does_not_starve_another(run: Run) -> None:
    """Go's TestMutexFairness."""

    async def main() -> None:
        mutex = Mutex()
        stop = False
        locked = waited = 0

        async def greedy() -> None:
            nonlocal locked
            while not stop:
                await mutex.lock()
                locked += 1
                await asyncio.sleep(0.0001)
                mutex.unlock()

        hog = spawn(greedy())
        for _ in range(10):
            await asyncio.sleep(0.0001)
            waited += mutex.locked()
            await mutex.lock()
            mutex.unlock()
        stop = True
        await hog
        assert locked > 1, "it took the lock again"
        assert waited, "it had the lock when the other wanted it"

    run(main())


def test_a_newcomer_may_take_the_lock_before_a_woken_waiter_but_not_from_a_starving_one(
    run: Run,
) -> None:
    async def main() -> None:
        mutex = Mutex()
        await mutex.lock()
        waiter = spawn(mutex.lock())
        await parked(waiter)
        assert "[sync.Mutex.Lock]" in repr(waiter)
        mutex.unlock()
        assert mutex.try_lock(), "normal mode: who runs takes it"
        spin(0.002)  # the waiter starves from now on
        await parked(waiter)
        await until(lambda: mutex._starving)
        mutex.unlock()
        assert not mutex.try_lock(), "starvation mode: handed to the waiter"
        await waiter
        assert not mutex._starving, "it was the last: back to normal"
        mutex.unlock()
        assert not mutex.locked()

    run(main())


def test_starving_waiters_are_served_first_come_first_served(run: Run) -> None:
    async def main() -> None:
        mutex = Mutex()
        await mutex.lock()
        order = []

        async def waiter(name: int) -> None:
            async with mutex:
                order.append(name)
                spin(0.0005)

        waiters = [spawn(waiter(name)) for name in range(8)]
        await parked(*waiters)
        spin(0.002)
        mutex.unlock()
        await asyncio.gather(*waiters)
        assert order == list(range(8))

    run(main())


@pytest.mark.parametrize("starving", [False, True])
def test_a_lock_given_to_a_cancelled_waiter_is_passed_on(run: Run, starving: bool) -> None:
    async def main() -> None:
        mutex = Mutex()
        await mutex.lock()
        first, second = spawn(mutex.lock()), spawn(mutex.lock())
        await parked(first, second)
        if starving:
            mutex.unlock()
            assert mutex.try_lock()
            spin(0.002)
            await until(lambda: mutex._starving)
        mutex.unlock()
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        mutex.unlock()
        assert mutex.try_lock()

    run(main())


def test_the_last_starving_waiter_may_give_up(run: Run) -> None:
    async def main() -> None:
        mutex = Mutex()
        await mutex.lock()
        waiter = spawn(mutex.lock())
        await parked(waiter)
        mutex.unlock()
        assert mutex.try_lock()
        spin(0.002)
        await until(lambda: mutex._starving)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        mutex.unlock()
        await mutex.lock()

    run(main())


def test_a_mutex_excludes_sync_gs_and_async_gs_from_each_other() -> None:
    async def main() -> None:
        mutex = Mutex()
        inside: list[str] = []
        total = 0

        def by_thread() -> None:
            nonlocal total
            for _ in range(30):
                with mutex.sync:
                    inside.append("sync")
                    assert len(inside) == 1
                    time.sleep(0)
                    total += 1
                    inside.pop()

        async def by_loop() -> None:
            nonlocal total
            for _ in range(30):
                async with mutex:
                    inside.append("async")
                    assert len(inside) == 1
                    await asyncio.sleep(0)
                    total += 1
                    inside.pop()

        await asyncio.gather(
            *(in_sync_g(by_thread) for _ in range(3)), *(by_loop() for _ in range(3))
        )
        assert total == 180
        assert not mutex.locked()

    run_p(main())


# ---- RWMutex


def test_readers_share_and_writers_exclude(run: Run) -> None:
    """Go's HammerRWMutex: the activity is n for n readers and 10,000 for a writer."""

    async def main() -> None:
        rw = RWMutex()
        activity = 0

        async def reader() -> None:
            nonlocal activity
            for _ in range(60):
                await rw.rlock()
                activity += 1
                assert 1 <= activity < 10_000
                await asyncio.sleep(0)
                activity -= 1
                rw.runlock()

        async def writer() -> None:
            nonlocal activity
            for _ in range(60):
                await rw.lock()
                activity += 10_000
                assert activity == 10_000
                await asyncio.sleep(0)
                activity -= 10_000
                rw.unlock()

        await asyncio.gather(
            writer(), *(reader() for _ in range(5)), writer(), *(reader() for _ in range(5))
        )
        assert rw.try_lock()

    run(main())


def test_a_waiting_writer_keeps_new_readers_out_and_they_go_before_the_next_writer(
    run: Run,
) -> None:
    async def main() -> None:
        rw = RWMutex()
        order = []

        async def write(name: str) -> None:
            async with rw:
                order.append(name)
                await asyncio.sleep(0)

        async def read(name: str) -> None:
            async with rw.rlocker():
                order.append(name)

        await rw.rlock()
        tasks = [spawn(write("w1")), spawn(write("w2")), spawn(read("r1")), spawn(read("r2"))]
        await parked(*tasks)
        assert "[sync.RWMutex.Lock]" in repr(tasks[0])
        assert "[sync.RWMutex.RLock]" in repr(tasks[2])
        assert not rw.try_rlock()
        assert not rw.try_lock()
        rw.runlock()
        await asyncio.gather(*tasks)
        assert order == ["w1", "r1", "r2", "w2"]

    run(main())


def test_wrong_unlocks_of_a_rwmutex_panic(run: Run) -> None:
    async def main() -> None:
        rw = RWMutex()
        with pytest.raises(Panic, match="sync: Unlock of unlocked RWMutex"):
            rw.unlock()
        with pytest.raises(Panic, match="sync: RUnlock of unlocked RWMutex"):
            rw.runlock()
        await rw.rlock()
        with pytest.raises(Panic, match="sync: Unlock of unlocked RWMutex"):
            rw.unlock()
        rw.runlock()
        await rw.lock()
        with pytest.raises(Panic, match="sync: RUnlock of unlocked RWMutex"):
            rw.runlock()
        rw.unlock()

    run(main())


def test_a_writer_that_gives_up_lets_the_readers_in(run: Run) -> None:
    async def main() -> None:
        rw = RWMutex()
        await rw.rlock()
        writer, reader, second = spawn(rw.lock()), spawn(rw.rlock()), spawn(rw.lock())
        await parked(writer, reader, second)
        writer.cancel()
        await reader
        with pytest.raises(asyncio.CancelledError):
            await writer
        rw.runlock()
        rw.runlock()
        await second
        rw.unlock()
        assert rw.try_lock()

    run(main())


def test_a_lock_granted_to_a_cancelled_writer_or_reader_is_given_back(run: Run) -> None:
    async def main() -> None:
        rw = RWMutex()
        await rw.rlock()
        writer = spawn(rw.lock())
        await parked(writer)
        rw.runlock()  # granted
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await rw.lock()
        reader = spawn(rw.rlock())
        await parked(reader)
        rw.unlock()  # granted
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert rw.try_lock()

    run(main())


def test_sync_gs_use_a_rwmutex() -> None:
    async def main() -> None:
        rw = RWMutex()
        await rw.rlock()
        order = []

        def write() -> None:
            with rw.sync:
                order.append("w")

        def read() -> None:
            with rw.rlocker().sync:
                order.append("r")

        writer = in_sync_g(write)
        await until(lambda: rw._drain is not None)
        reader = in_sync_g(read)
        await until(lambda: len(rw._queue) == 1)
        rw.runlock()
        await asyncio.gather(writer, reader)
        assert order == ["w", "r"]
        assert rw.try_lock()

    run_p(main())


# ---- Cond


def test_signal_wakes_one_in_order_and_broadcast_all(run: Run) -> None:
    """Go's TestCondSignal, TestCondSignalGenerations and TestCondBroadcast."""

    async def main() -> None:
        mutex = Mutex()
        cond = Cond(mutex)
        woken = []

        async def waiter(name: int) -> None:
            async with mutex:
                await cond.wait()
                assert mutex.locked()
                woken.append(name)

        waiters = [spawn(waiter(name)) for name in range(6)]
        await parked(*waiters)
        assert "[sync.Cond.Wait]" in repr(waiters[0])
        for name in range(3):
            async with mutex:
                cond.signal()
            await waiters[name]
            assert woken == list(range(name + 1))
        cond.broadcast()
        await asyncio.gather(*waiters)
        assert sorted(woken) == list(range(6))
        cond.signal()  # no waiter: it is not remembered
        late = spawn(waiter(9))
        await parked(late)
        assert not late.done()
        cond.broadcast()
        await late

    run(main())


def test_a_cancelled_cond_waiter_holds_the_lock_again_and_passes_its_signal_on(run: Run) -> None:
    async def main() -> None:
        mutex = Mutex()
        cond = Cond(mutex)
        held = []

        async def waiter() -> None:
            async with mutex:
                try:
                    await cond.wait()
                except asyncio.CancelledError:
                    held.append(mutex.locked())
                    raise

        first, second = spawn(waiter()), spawn(waiter())
        await parked(first, second)
        cond.signal()  # for the first ...
        first.cancel()  # ... which gives up
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert held == [True]
        assert mutex.try_lock()

    run(main())


def test_a_wait_without_the_lock_leaves_nothing_behind(run: Run) -> None:
    """A Panic; the queue empty, and the lock free."""

    async def main() -> None:
        mutex = Mutex()
        cond = Cond(mutex)
        with pytest.raises(Panic):
            await cond.wait()
        with pytest.raises(Panic):
            await asyncio.to_thread(cond.sync.wait)
        assert not cond._queue
        assert not mutex.locked()

    run(main())


def test_a_sync_g_waits_for_a_condition() -> None:
    async def main() -> None:
        mutex = Mutex()
        cond = Cond(mutex)
        ready = False

        def waiter() -> bool:
            with mutex.sync:
                while not ready:
                    cond.sync.wait()
                return mutex.locked()

        waiting = in_sync_g(waiter)
        await until(lambda: len(cond._queue) == 1)
        async with mutex:
            ready = True
            cond.signal()
        assert await waiting
        assert not mutex.locked()

    run_p(main())


# ---- Once


def test_once_calls_once_and_every_caller_returns_after_it(run: Run) -> None:
    async def main() -> None:
        once = Once()
        calls = []

        async def slow(value: int) -> None:
            await asyncio.sleep(0)
            calls.append(value)

        async def caller(value: int) -> None:
            await once.do(slow, value)
            assert calls == [0]

        await asyncio.gather(*(caller(value) for value in range(10)))
        await once.do(calls.append, 1)
        assert calls == [0]

    run(main())


def test_a_call_that_raised_was_made_but_one_that_was_cancelled_was_not(run: Run) -> None:
    async def main() -> None:
        once = Once()
        with pytest.raises(ZeroDivisionError):
            await once.do(lambda: 1 // 0)
        calls: list[int] = []
        await once.do(calls.append, 1)
        assert calls == []
        once = Once()
        forever: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def wait_for_ever() -> None:
            await forever

        first, second = spawn(once.do(wait_for_ever)), spawn(once.do(calls.append, 2))
        await parked(first, second)
        first.cancel()
        await second
        assert calls == [2]
        assert first.cancelled()

    run(main())


def test_sync_gs_share_a_once() -> None:
    async def main() -> None:
        once = Once()
        calls: list[int] = []

        def slow() -> None:
            time.sleep(0.02)
            calls.append(1)

        await asyncio.gather(*(in_sync_g(lambda: once.sync.do(slow)) for _ in range(4)))
        await once.do(slow)
        assert calls == [1]

    run_p(main())


# ---- Group (errgroup)


def test_the_first_error_wins_and_cancels_the_others(run: Run) -> None:
    """Go's TestWithContext."""

    async def main() -> None:
        group = Group()
        cancelled = []

        async def fails(after: int, error: Exception) -> None:
            for _ in range(after):
                await asyncio.sleep(0)
            raise error

        async def long() -> None:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(1)
                raise

        await group.go(long)
        await group.go(fails, 3, ValueError("first"))
        await group.go(fails, 30, ValueError("second"))
        with pytest.raises(ValueError, match="first"):
            await group.wait()
        assert cancelled == [1]
        assert str(group.error) == "first"

    run(main())


def test_a_zero_group_lets_the_others_run_on(run: Run) -> None:
    """Go's TestZeroGroup."""

    async def main() -> None:
        group = Group(cancel=False)
        done = []

        async def fails() -> None:
            raise ValueError("mine")

        async def long() -> None:
            for _ in range(20):
                await asyncio.sleep(0)
            done.append(1)

        await group.go(fails)
        await group.go(long)
        with pytest.raises(ValueError, match="mine"):
            await group.wait()
        assert done == [1]

    run(main())


def test_no_error_gives_none_and_empty_groups_do_not_wait(run: Run) -> None:
    async def main() -> None:
        await Group().wait()
        got: list[int] = []
        async with Group() as group:
            for value in range(5):
                group.go(got.append, value)
        assert sorted(got) == list(range(5))

    run(main())


def test_room_in_a_group_is_awaited_once() -> None:
    """By two, only one would be told."""

    async def main() -> None:
        group, end = Group(), Chan[None]()
        group.set_limit(1)
        group.go(end.recv)

        async def wait_for(admission: Awaitable[None]) -> None:
            await admission

        admission = group.go(sleep, 0)
        first = spawn(wait_for(admission))
        await parked(first)
        with pytest.raises(RuntimeError, match="await it once"):
            await admission
        await end.send(None)
        await first
        await admission  # it has started: nothing to wait for
        await group.wait()

    run_p(main())


def test_a_limit_holds_callers_back(run: Run) -> None:
    """Go's TestGoLimit, and TestTryGo."""

    async def main() -> None:
        group = Group()
        group.set_limit(2)
        gate: asyncio.Event = asyncio.Event()
        active, most, started = 0, 0, []

        async def work(value: int) -> None:
            nonlocal active, most
            active += 1
            most = max(most, active)
            started.append(value)
            await gate.wait()
            active -= 1

        await group.go(work, 0)
        await group.go(work, 1)
        assert not group.try_go(work, 99)
        with pytest.raises(Panic, match="errgroup: modify limit while 2 goroutines"):
            group.set_limit(3)

        async def caller(value: int) -> None:
            await group.go(work, value)

        third = spawn(caller(2))
        await parked(third)
        assert not third.done()
        assert "[chan send]" in repr(third)
        for value in range(3, 10):
            group.go(work, value)  # not awaited: it queues up by itself
        gate.set()
        await group.wait()
        await third
        assert most == 2
        assert sorted(started) == list(range(10))
        assert group.try_go(work, 10)
        await group.wait()

    run(main())


def test_limit_zero_refuses_all_and_a_negative_one_none(run: Run) -> None:
    async def main() -> None:
        group = Group()
        group.set_limit(0)
        assert not group.try_go(print)
        group.set_limit(-1)
        seen: list[int] = []
        for value in range(100):
            assert group.try_go(seen.append, value)
        await group.wait()
        assert sorted(seen) == list(range(100))

    run(main())


def test_a_caller_that_gives_up_waiting_for_room_never_starts_its_call(run: Run) -> None:
    async def main() -> None:
        group = Group()
        group.set_limit(1)
        gate = asyncio.Event()
        calls: list[int] = []
        await group.go(gate.wait)

        async def caller() -> None:
            await group.go(calls.append, 1)

        task = spawn(caller())
        await parked(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        await group.wait()
        assert calls == []

    run(main())


def test_an_exception_inside_the_block_cancels_and_leaves_nothing_running(run: Run) -> None:
    async def main() -> None:
        begun: list[int] = []
        ended: list[int] = []

        async def long() -> None:
            begun.append(1)
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(1)

        async def broken() -> None:
            async with Group() as group:
                await group.go(long)
                await group.go(long)
                await until(lambda: len(begun) == 2)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await broken()
        assert ended == [1, 1]

        async def block() -> None:
            async with Group() as group:
                await group.go(long)

        task = spawn(block())
        await until(lambda: len(begun) == 3)
        await parked(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [1, 1, 1]

    run(main())


def test_sync_gs_fill_a_group_and_wait_for_it() -> None:
    async def main() -> None:
        group = Group()
        group.set_limit(2)
        seen = []

        async def work(value: int) -> None:
            await asyncio.sleep(0.001)
            seen.append(value)

        def boss() -> int:
            for value in range(10):
                group.sync.go(work, value)
            group.sync.wait()
            return len(seen)

        assert await in_sync_g(boss) == 10

        async def fails() -> None:
            raise ValueError("mine")

        def boss_of_a_failure() -> None:
            group.sync.go(fails)
            group.sync.wait()

        with pytest.raises(ValueError, match="mine"):
            await in_sync_g(boss_of_a_failure)

    run_p(main())
