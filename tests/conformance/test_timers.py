"""Timers: Go's rules since 1.23 (rows 36 to 38 of the table), after Go's sleep_test.go and
tick_test.go.

A loop with a clock of its own runs them: time passes only when nothing can run, so no test waits.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gmpd.errors import Panic
from gmpd.runtime.chan import Chan
from gmpd.runtime.go import sleep
from gmpd.runtime.loop import Loop
from gmpd.runtime.select import recv, select, select_sync
from gmpd.runtime.timers import Ticker, Timer, TimerChan, after, after_func

Run = Callable[[Coroutine[Any, Any, Any]], Any]

DEADLINE_S = 20.0


class FakeTime(asyncio.SelectorEventLoop):
    """A plain loop whose clock jumps to the next timer when nothing is ready."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        scheduled = [handle for handle in self._scheduled if not handle._cancelled]  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, min(handle._when for handle in scheduled))
        super()._run_once()  # type: ignore[misc]

    def armed(self) -> int:
        """How many timers it has that may still fire."""
        return sum(not handle._cancelled for handle in self._scheduled)  # type: ignore[attr-defined]


def fake(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=FakeTime) as runner:
        return runner.run(main)


def clock() -> FakeTime:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, FakeTime)
    return loop


def channel(timer: Timer) -> Chan[float]:
    assert timer.c is not None
    return timer.c


async def parked(task: asyncio.Task[Any]) -> None:
    while not task.done() and task._fut_waiter is None:  # type: ignore[attr-defined]
        await asyncio.sleep(0)


# ---- Timer


def test_a_timer_sends_its_time_once() -> None:
    async def main() -> None:
        start = clock().time()
        timer = Timer(5)
        assert await channel(timer).recv() == start + 5
        assert clock().time() == start + 5
        assert await select(recv(timer.c), default=True) == (-1, None, False)
        assert not timer.stop()
        assert clock().armed() == 0

    fake(main())


def test_a_timer_channel_looks_unbuffered() -> None:
    async def main() -> None:
        timer = Timer(1)
        ch = channel(timer)
        assert (len(ch), ch.cap) == (0, 0)
        await asyncio.sleep(2)
        assert (len(ch), ch.cap) == (0, 0), "also when its value is due"
        assert await select(recv(ch), default=True) == (0, 1001.0, True)

    fake(main())


def test_no_stale_value_after_stop_or_reset() -> None:
    """Go 1.23: also when it had expired before, unreceived; stop then says that it stopped it."""

    async def main() -> None:
        timer = Timer(1)
        await asyncio.sleep(2)
        assert timer.stop(), "its value was not received: it counts as not fired"
        assert await select(recv(timer.c), default=True) == (-1, None, False)
        assert not timer.stop()
        assert not timer.reset(1)
        await asyncio.sleep(2)
        assert timer.reset(10)
        assert await select(recv(timer.c), default=True) == (-1, None, False)
        assert await channel(timer).recv() == clock().time() == 1014.0

    fake(main())


def test_stop_and_reset_reach_a_g_that_waits() -> None:
    async def main() -> None:
        timer = Timer(1)
        waiting = asyncio.create_task(channel(timer).recv())
        await parked(waiting)
        assert clock().armed() == 1
        assert timer.stop()
        assert clock().armed() == 0
        await asyncio.sleep(5)
        assert not waiting.done()
        assert not timer.reset(3)
        assert await waiting == 1008.0

    fake(main())


def test_the_loop_has_a_timer_only_while_somebody_waits() -> None:
    async def main() -> None:
        timers = [Timer(3600) for _ in range(10)]
        tickers = [Ticker(3600) for _ in range(10)]
        assert clock().armed() == 0
        quick: Chan[int] = Chan(1)
        chooser = asyncio.create_task(
            select(recv(quick), *(recv(t.c) for t in timers), *(recv(t.c) for t in tickers))
        )
        await parked(chooser)
        assert clock().armed() == 20
        await quick.send(1)
        assert clock().armed() == 0, "the losing cases took their timers along"
        await chooser
        waiting = asyncio.create_task(tickers[0].c.recv())
        await parked(waiting)
        assert clock().armed() == 1
        waiting.cancel()
        assert clock().armed() == 0
        await asyncio.gather(waiting, return_exceptions=True)

    fake(main())


def test_zero_and_negative_times_are_due_at_once_and_infinite_ones_never() -> None:
    async def main() -> None:
        for seconds in (0, -5, -1e300):
            assert (await select(recv(after(seconds)), default=True))[0] == 0
        never = asyncio.create_task(after(math.inf).recv())
        await parked(never)
        assert clock().armed() == 0
        never.cancel()
        await asyncio.gather(never, return_exceptions=True)
        with pytest.raises(ValueError, match="nan"):
            Timer(math.nan)

    fake(main())


def test_timers_fire_in_the_order_of_their_times() -> None:
    """Go's TestAfterQueuing."""

    async def main() -> None:
        slots = [5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0]
        results: Chan[tuple[int, float]] = Chan(len(slots))

        async def wait(slot: int) -> None:
            await results.send((slot, await after(slot).recv()))

        await asyncio.gather(*map(wait, slots))
        got = [await results.recv() for _ in slots]
        assert [slot for slot, _ in got] == sorted(slots)
        assert [when for _, when in got] == sorted(1000.0 + slot for slot in slots)

    fake(main())


def test_a_timeout_by_select() -> None:
    async def main() -> None:
        work: Chan[int] = Chan()
        assert await select(recv(work), recv(after(2))) == (1, 1002.0, True)

    fake(main())


def test_a_tick_handed_to_a_receiver_that_is_cancelled_is_due_again_unless_stopped() -> None:
    async def main(stop: bool) -> None:
        timer = Timer(1)
        ch = timer.c
        assert isinstance(ch, TimerChan)
        waiting = asyncio.create_task(ch.recv())
        await parked(waiting)
        clock().now += 1
        ch._fire()  # handed over; the receiver has not run
        if stop:
            assert not timer.stop()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        expected = (-1, None, False) if stop else (0, 1001.0, True)
        assert await select(recv(ch), default=True) == expected
        assert await select(recv(ch), default=True) == (-1, None, False)

    fake(main(stop=False))
    fake(main(stop=True))


def test_only_the_timer_sends_and_nobody_closes_its_channel() -> None:
    async def main() -> None:
        ch = after(1)
        with pytest.raises(Panic, match="receiving only"):
            await ch.send(1.0)
        with pytest.raises(Panic, match="stop the timer"):
            ch.close()

    fake(main())


# ---- Ticker


def test_a_ticker_ticks_at_its_period() -> None:
    async def main() -> None:
        ticker = Ticker(2)
        assert [await ticker.c.recv() for _ in range(3)] == [1002.0, 1004.0, 1006.0]
        ticker.reset(10)
        assert await ticker.c.recv() == 1016.0
        ticker.stop()
        assert await select(recv(ticker.c), recv(after(100))) == (1, 1116.0, True)

    fake(main())


def test_a_slow_receiver_misses_ticks_and_the_phase_stays() -> None:
    async def main() -> None:
        ticker = Ticker(2)
        await asyncio.sleep(7)
        assert await ticker.c.recv() == 1002.0, "one tick waits for it"
        assert await select(recv(ticker.c), default=True) == (-1, None, False), "the others do not"
        assert await ticker.c.recv() == 1008.0

    fake(main())


def test_a_ticker_without_a_positive_period_panics() -> None:
    async def main() -> None:
        with pytest.raises(Panic, match="non-positive interval for NewTicker"):
            Ticker(0)
        ticker = Ticker(1)
        with pytest.raises(Panic, match=r"non-positive interval for Ticker\.Reset"):
            ticker.reset(-1)

    fake(main())


def test_a_stopped_ticker_gives_nothing_stale_and_starts_again() -> None:
    async def main() -> None:
        ticker = Ticker(1)
        await asyncio.sleep(3)
        ticker.stop()
        assert await select(recv(ticker.c), default=True) == (-1, None, False)
        ticker.reset(1)
        assert await ticker.c.recv() == 1004.0

    fake(main())


# ---- after_func


def test_after_func_calls_in_a_g_of_its_own() -> None:
    async def main() -> None:
        done: Chan[float] = Chan()

        async def call(value: int, *, times: int) -> None:
            await done.send(clock().time() + value * times)

        timer = after_func(3, call, 10, times=2)
        assert timer.c is None
        assert await done.recv() == 1023.0
        assert not timer.stop()
        assert not timer.reset(4), "it runs again"
        assert await done.recv() == 1027.0

    fake(main())


def test_stop_prevents_a_call_that_has_not_started_and_waits_for_none() -> None:
    async def main() -> None:
        calls = []
        gate: Chan[None] = Chan()

        async def call() -> None:
            calls.append(clock().time())
            await gate.recv()

        timer = after_func(1, call)
        assert timer.stop()
        await asyncio.sleep(5)
        assert calls == []
        timer.reset(1)
        await asyncio.sleep(2)
        assert calls == [1006.0]
        assert not timer.stop(), "started: neither stopped nor waited for"
        gate.close()

    fake(main())


def test_a_blocking_function_of_after_func_delays_no_other_timer() -> None:
    async def main() -> None:
        gate: Chan[None] = Chan()
        done: Chan[str] = Chan()

        async def blocks() -> None:
            await gate.recv_ok()
            await done.send("blocked")

        async def quick() -> None:
            await done.send("quick")

        after_func(1, blocks)
        after_func(1, quick)
        assert await done.recv() == "quick"
        gate.close()
        assert await done.recv() == "blocked"

    fake(main())


# ---- random use against a model


@pytest.mark.parametrize("seed", range(20))
def test_random_stops_resets_and_receives_follow_the_rules(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        timer = Timer(5)
        when: float | None = clock().time() + 5
        for _ in range(200):
            match rng.randrange(4):
                case 0:
                    await asyncio.sleep(rng.randrange(8))
                case 1:
                    assert timer.stop() == (when is not None)
                    when = None
                case 2:
                    seconds = rng.randrange(8)
                    assert timer.reset(seconds) == (when is not None)
                    when = clock().time() + seconds
                case _:
                    index, value, _ = await select(recv(timer.c), default=True)
                    if when is not None and when <= clock().time():
                        assert (index, value) == (0, when)
                        when = None
                    else:
                        assert index == -1

    fake(main())


# ---- on a P, with the real clock


def on_p(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(asyncio.wait_for(main, DEADLINE_S))


def test_sleep_is_never_early_and_does_not_yield_for_nothing() -> None:
    """Go's TestSleep; row 36."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ran: list[int] = []
        loop.call_soon(ran.append, 1)
        for seconds in (0, -1, -math.inf):
            await sleep(seconds)
        assert ran == [], "no time to sleep: no yield"
        for _ in range(5):
            start = loop.time()
            await sleep(0.002)
            assert loop.time() - start >= 0.002

    on_p(main())


def test_a_timer_is_never_early() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(5):
            when = loop.time() + 0.002
            assert await after(0.002).recv() >= when
            assert loop.time() >= when

    on_p(main())


def test_sync_gs_use_timers() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)

        def use() -> list[Any]:
            timer = Timer(0.005)
            quiet: Chan[int] = Chan()
            assert timer.c is not None
            first = timer.c.sync.recv()
            assert not timer.reset(3600)
            assert timer.stop()
            chosen = select_sync(recv(quiet), recv(after(0.005)), recv(timer.c))
            called: Chan[str] = Chan()
            after_func(0.001, called.sync.send, "called")
            return [first <= loop.time(), chosen[0], called.sync.recv()]

        assert await loop.call_sync(use) == [True, 1, "called"]

    on_p(main())
