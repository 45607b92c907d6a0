"""In which order Gs run: rules that a program can see, under a seed and without one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

import gmpd
from gmpd.runtime.go import this_loop
from gmpd.runtime.handoffs import hogs
from gmpd.runtime.run import run

SEEDS = [None, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_TestYieldLocked_the_first_gosched_of_a_program_yields(seed: int | None) -> None:
    async def main() -> list[str]:
        order: list[str] = []
        gmpd.go(order.append, "child")
        await gmpd.gosched()
        order.append("main")
        return order

    assert run(main(), deterministic_seed=seed) == ["child", "main"]


@pytest.mark.parametrize("seed", SEEDS)
def test_TestPingPongHog_a_pair_leaves_turns_to_one_that_yields(seed: int | None) -> None:
    """At the end of its slice it stands behind Gs that have yielded, in the global queue."""

    async def main() -> int:
        there, back, over, turns = gmpd.Chan[int](), gmpd.Chan[int](), False, 0

        async def ping() -> None:
            while not over:
                await there.send(1)
                await back.recv()
            there.close()

        async def pong() -> None:
            async for _ in there:
                await back.send(1)

        async def yields() -> None:
            nonlocal turns, over
            end = time.monotonic() + 20
            while turns < 5 and time.monotonic() < end:
                await gmpd.gosched()
                turns += 1
            over = True

        await asyncio.gather(gmpd.go(ping), gmpd.go(pong), gmpd.go(yields))
        return turns

    assert run(main(), deterministic_seed=seed) == 5


def test_closechan_readies_the_last_receiver_first() -> None:
    """So the one that has waited longest is in ``runnext``, the youngest comes next."""

    async def main() -> list[int]:
        ch, order = gmpd.Chan[int](), []

        async def waits(number: int) -> None:
            await ch.recv_ok()
            order.append(number)

        gs = [gmpd.go(waits, number) for number in range(5)]
        await asyncio.sleep(0)  # they run as 4, 0, 1, 2, 3
        ch.close()
        for g in gs:
            await g
        return order

    assert run(main(), deterministic_seed=1) == [4, 3, 2, 1, 0]


def test_closechan_ends_a_select_with_one_channel_twice_once() -> None:
    async def main() -> list[Any]:
        ch = gmpd.Chan[int]()
        gs = [gmpd.go(gmpd.select, gmpd.recv(ch), gmpd.recv(ch)) for _ in range(50)]
        await asyncio.sleep(0)
        ch.close()
        return [await g for g in gs]

    chosen = run(main())
    assert {(value, ok) for _, value, ok in chosen} == {(None, False)}
    assert {index for index, _, _ in chosen} == {0, 1}


@pytest.mark.parametrize("send", [False, True])
def test_TestSelectFairness_of_one_channel_in_several_cases(send: bool) -> None:
    """Not the first of them always: Go queues up in shuffled order."""

    async def main() -> Counter[int]:
        chosen: Counter[int] = Counter()
        ch = gmpd.Chan[int]()
        for _ in range(600):
            cases = [gmpd.send(ch, n) if send else gmpd.recv(ch) for n in range(3)]
            g = gmpd.go(gmpd.select, *cases)
            await gmpd.gosched()
            if send:
                assert await ch.recv() in range(3)
            else:
                await ch.send(1)
            chosen[(await g)[0]] += 1
        return chosen

    chosen = run(main(), deterministic_seed=1)
    assert all(chosen[index] > 120 for index in range(3)), chosen


def sleepers(order: list[int]) -> Any:
    async def sleeps(number: int) -> None:
        await gmpd.sleep(0.5)
        order.append(number)

    return [gmpd.go(sleeps, number) for number in range(6)]


def timers(order: list[int]) -> Any:
    loop = asyncio.get_running_loop()
    for number in range(6):
        loop.call_at(0.5, order.append, number)
    return [gmpd.go(gmpd.sleep, 1)]


def tickers(order: list[int]) -> Any:
    async def waits(number: int) -> None:
        await gmpd.after(0.5).recv()
        order.append(number)

    return [gmpd.go(waits, number) for number in range(6)]


@pytest.mark.parametrize("make", [sleepers, timers, tickers])
def test_timers_of_one_instant_come_in_an_order_that_the_seed_gives(
    make: Callable[[list[int]], Any],
) -> None:
    async def main() -> tuple[int, ...]:
        order: list[int] = []
        for g in make(order):
            await g
        return tuple(order)

    orders = [run(main(), deterministic_seed=seed) for seed in range(8)]
    assert len(set(orders)) > 3
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert [run(main(), deterministic_seed=seed) for seed in range(8)] == orders


def test_timers_of_different_instants_keep_their_order_under_a_seed() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def sleeps(number: int) -> None:
            await gmpd.sleep(number / 10)
            order.append(number)

        gs = [gmpd.go(sleeps, number) for number in (3, 1, 2, 5, 4)]
        for g in gs:
            await g
        return order

    assert run(main(), deterministic_seed=3) == [1, 2, 3, 4, 5]


def test_stacks_say_running_of_a_function_that_computes_beside_p() -> None:
    async def main() -> str:
        over = False

        def hog() -> None:
            while not over:
                pass

        g = gmpd.go(hog)
        loop = this_loop("the test")
        while not hogs(loop.p):
            await gmpd.sleep(0.001)
        text = gmpd.stacks()
        over = True
        await g
        return text

    (header,) = [line for line in run(main()).splitlines() if line.startswith("goroutine 2 ")]
    assert "[running" in header
