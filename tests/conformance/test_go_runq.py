"""Rows 1 to 20 of Go's scheduler table, on real Gs: what the dispatch order shows from outside.

Each test names its row. Rows that a single P cannot show (stealing between Ps, idle Ps) are the
coordinator's and are tested with its policy; ``gmpd/runtime/COMPATIBILITY.md`` lists where.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

import gmpd.runtime.go as gmpd
from gmpd.runtime.chan import Chan
from gmpd.runtime.deterministic import DeterministicLoop
from gmpd.runtime.g import G
from gmpd.runtime.loop import Loop
from gmpd.runtime.run import run
from gmpd.runtime.sudog import Sudog, park
from gmpd.runtime.syncg import SyncG

T = TypeVar("T")


def deterministic(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return run(main(), deterministic_seed=1)


def this_loop() -> Loop:
    return gmpd.this_loop("the test")


async def settle() -> None:
    """Let everything that is runnable run."""
    loop = this_loop()
    while loop.p.runq:
        await gmpd.gosched()


async def order_of(count: int, *, sync: bool = False, schedtick: int | None = None) -> list[int]:
    order: list[int] = []

    async def g(number: int) -> None:
        order.append(number)

    if schedtick is not None:
        this_loop().p.runq.schedtick = schedtick
    for number in range(count):
        gmpd.go(order.append if sync else g, number)
    await asyncio.sleep(0)
    await settle()
    return order


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("count", [1, 10, 256])
def test_row_2_the_last_spawned_runs_first_then_first_in_first_out(count: int, sync: bool) -> None:
    order = deterministic(lambda: order_of(count, sync=sync, schedtick=1))
    assert order == [count - 1, *range(count - 1)]


@pytest.mark.parametrize("sync", [False, True])
def test_rows_4_and_5_300_spawns_overflow_and_globals_surface_61_apart(sync: bool) -> None:
    order = deterministic(lambda: order_of(300, sync=sync, schedtick=1))
    assert order[:2] == [299, 128]
    assert (order[61], order[122]) == (0, 1)
    assert order[173:] == [*range(2, 128), 256]


def test_row_1_the_ring_holds_256_and_row_4_129_go_to_the_global_tail() -> None:
    async def main() -> tuple[int, int]:
        for _ in range(300):
            gmpd.go(lambda: None)
        runq = this_loop().p.runq
        return len(runq.ring), len(runq.global_)

    assert deterministic(main) == (170, 129)


def test_row_3_a_ping_pong_pair_inherits_its_slice() -> None:
    """Two Gs that wake each other through runnext hardly advance schedtick."""

    async def main() -> tuple[int, int]:
        loop = this_loop()
        there, back = Chan[int](), Chan[int]()
        done = Chan[None](1)

        async def pong() -> None:
            for _ in range(500):
                await back.send(await there.recv())

        async def ping() -> None:
            for number in range(500):
                await there.send(number)
                await back.recv()
            await done.send(None)

        before = loop.p.runq.schedtick, loop.p.runq.inherited
        gmpd.go(pong)
        gmpd.go(ping)
        await done.recv()
        return loop.p.runq.schedtick - before[0], loop.p.runq.inherited - before[1]

    ticks, inherited = deterministic(main)
    assert inherited >= 950
    assert ticks < 20


def test_row_3_a_chain_of_runnext_does_not_starve_the_others() -> None:
    """Only the end of the slice breaks a ping-pong pair up: another G on the P runs, too."""

    async def main() -> bool:
        loop = this_loop()
        ran = False

        def other() -> None:
            nonlocal ran
            ran = True

        async def respawn() -> None:
            if not ran:
                gmpd.go(respawn)

        gmpd.go(other)
        loop.p.runq.kick_runnext()
        gmpd.go(respawn)
        async with asyncio.timeout(20):
            while not ran:
                await asyncio.sleep(0)
        return ran

    assert deterministic(main)


def test_row_3_sysmon_ends_the_slice_of_a_chain_in_real_time() -> None:
    async def main() -> int:
        loop = this_loop()
        ran = 0

        def other() -> None:
            nonlocal ran
            ran += 1

        async def respawn() -> None:
            if not ran:
                gmpd.go(respawn)

        gmpd.go(other)
        loop.p.runq.kick_runnext()
        gmpd.go(respawn)
        async with asyncio.timeout(20):
            while not ran:
                await asyncio.sleep(0)
        return ran

    assert run(main()) == 1


def test_row_5_a_g_that_yielded_is_not_starved_by_a_respawning_pair() -> None:
    async def main() -> int:
        spawned = 0
        done = asyncio.Event()

        async def yielder() -> None:
            for _ in range(5):
                await gmpd.gosched()
            done.set()

        async def respawn() -> None:
            nonlocal spawned
            spawned += 1
            if not done.is_set():
                this_loop().p.runq.runqput(G(this_loop().p, respawn))

        gmpd.go(yielder)
        for _ in range(2):
            gmpd.go(respawn)
        await done.wait()
        return spawned

    assert deterministic(main) <= 6 * 61 * 2


@pytest.mark.parametrize(("queued", "procs", "taken"), [(400, 4, 101), (60, 4, 16), (400, 1, 128)])
def test_row_6_an_empty_ring_takes_a_batch_from_the_global_queue(
    queued: int, procs: int, taken: int
) -> None:
    async def main() -> int:
        loop = this_loop()
        seen: list[int] = []
        loop.p.runq.procs = procs
        loop.p.runq.schedtick = 1

        def g() -> None:
            seen.append(len(loop.p.runq.ring))

        for _ in range(queued):
            loop.p.runq.global_.append(SyncG(loop.p, g))
        await settle()
        return seen[0] + 1

    assert deterministic(main) == taken


def test_row_9_a_thief_gets_the_older_half_rounded_up_and_no_started_g() -> None:
    async def main() -> tuple[list[int], list[int]]:
        loop = this_loop()
        ran: list[int] = []

        async def yielder() -> None:
            await gmpd.gosched()

        gmpd.go(yielder)
        await asyncio.sleep(0)
        for number in range(10):
            loop.p.runq.runqput(SyncG(loop.p, ran.append, (number,)))
        runq = loop.p.runq
        taken = loop.fresh.grab_if((len(loop.fresh) + 1) // 2, lambda g: not runq.is_started(g))
        await settle()
        return [g.args[0] for g in taken if isinstance(g, SyncG)], ran

    assert deterministic(main) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


def test_row_16_gosched_goes_behind_local_and_global_gs() -> None:
    """A yields with B local and C global: B before C before A."""

    async def main() -> list[str]:
        loop = this_loop()
        order: list[str] = []

        async def a() -> None:
            loop.p.runq.runqput(SyncG(loop.p, order.append, ("B",)))
            loop.p.runq.global_.append(SyncG(loop.p, order.append, ("C",)))
            await gmpd.gosched()
            order.append("A")

        loop.p.runq.schedtick = 1
        await gmpd.go(a)
        return order

    assert deterministic(main) == ["B", "C", "A"]


def test_row_17_a_g_that_is_made_ready_runs_next_on_the_wakers_p() -> None:
    async def main() -> list[str]:
        loop = this_loop()
        order: list[str] = []
        wait = Sudog(loop, loop)

        async def waiter() -> None:
            await park(wait)
            order.append("woken")

        async def waker() -> None:
            loop.p.runq.runqput(SyncG(loop.p, order.append, ("queued before",)))
            g, wait.g, wait.ok = wait.g, None, True
            assert g is not None
            g.ready(wait)
            order.append("waker ends")

        gmpd.go(waiter)
        await asyncio.sleep(0)
        gmpd.go(waker)
        await asyncio.sleep(0)
        await settle()
        return order

    assert deterministic(main) == ["waker ends", "woken", "queued before"]


def test_row_18_what_the_netpoller_finds_goes_to_the_tail_not_to_runnext() -> None:
    async def main() -> list[str]:
        loop = this_loop()
        order: list[str] = []
        gmpd.go(order.append, "spawned")
        loop.call_soon(order.append, "from the netpoller")
        assert loop.p.runq.runnext is not None
        await settle()
        await asyncio.sleep(0)
        return order

    assert sorted(deterministic(main)) == ["from the netpoller", "spawned"]


def test_row_19_ids_are_unique_and_grow() -> None:
    async def main() -> list[int]:
        return [gmpd.go(asyncio.sleep, 0).id for _ in range(40)]

    ids = deterministic(main)
    assert ids == sorted(set(ids))


def test_asyncio_callbacks_keep_asyncios_order_however_many() -> None:
    """The replacement for rows 2 and 4 where asyncio promises an order: 1,000 callbacks, first in
    first out.
    """

    async def main() -> list[int]:
        order: list[int] = []
        for number in range(1000):
            this_loop().call_soon(order.append, number)
        await asyncio.sleep(0)
        return order

    assert deterministic(main) == list(range(1000))


def test_the_same_seed_gives_the_same_trace() -> None:
    async def main() -> list[str]:
        loop = this_loop()
        assert isinstance(loop, DeterministicLoop)
        tracer = loop.start_trace()

        async def g(number: int) -> None:
            await gmpd.sleep(loop.rng.random())
            child = gmpd.go(lambda: number)
            await gmpd.gosched()
            await child

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(g(number))
        return tracer.lines()

    one, two = deterministic(main), deterministic(main)
    assert len(one) > 200
    assert one == two
    assert run(main(), deterministic_seed=2) != one


def test_callbacks_that_are_always_ready_leave_gs_their_share() -> None:
    """Each round wakes 64 more, and runs more than the one that its first look is good for."""

    async def main() -> float:
        loop = this_loop()
        ran = rounds = 0

        def child() -> None:
            nonlocal ran
            ran += 1

        def again() -> None:
            nonlocal rounds
            rounds += 1
            for _ in range(64):
                gmpd.go(child)
            if rounds < 200:
                loop.call_soon(again)

        again()
        while rounds < 200:
            await asyncio.sleep(0)
        return ran / rounds

    assert run(main(), deterministic_seed=1) >= 8


def test_the_fake_clock_jumps_when_all_gs_are_parked() -> None:
    async def main() -> float:
        loop = this_loop()
        start = loop.time()
        await asyncio.gather(gmpd.sleep(3600), asyncio.sleep(86400))
        return loop.time() - start

    assert deterministic(main) == 86400
