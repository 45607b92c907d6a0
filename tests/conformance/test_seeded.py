"""The same seed gives the same steps: in another process, with other hashes, at another speed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gmpd
from gmpd.errors import Deadlock
from gmpd.runtime.go import this_loop
from gmpd.sched.g import GEvent
from tests.conformance.seeded import Program

#: More with ``python tests/conformance/seeded.py FIRST LAST``.
SEEDS = 60


def test_random_programs_do_the_same_in_every_process() -> None:
    started = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("seeded.py"), "0", str(SEEDS)],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hashes in ("1", "2")
    ]
    try:
        one, two = (process.communicate(timeout=100)[0].splitlines() for process in started)
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert len(one) == SEEDS
    assert one == two


def test_the_programs_are_worth_their_while() -> None:
    said = [Program(seed).run() for seed in range(30)]
    assert sum(map(len, said)) > 3000
    words = [word for steps in said for step in steps if isinstance(step, tuple) for word in step]
    assert words.count("select") > 20
    assert words.count("cancelled") > 5
    assert words.count("delay") > 5


def test_how_long_a_sync_g_takes_changes_nothing() -> None:
    """Beside callbacks that wait for the end of a batch."""

    def steps(seconds: float) -> list[str]:
        said: list[str] = []

        def work(n: int) -> None:
            time.sleep(seconds)
            said.append(f"G {n}")

        async def main() -> None:
            loop = asyncio.get_running_loop()
            for n in range(100):
                gmpd.go(work, n)
            for n in range(100):
                await gmpd.gosched()
                loop.call_soon(said.append, f"callback {n}")

        gmpd.run(main(), deterministic_seed=1)
        return said

    assert steps(0.0) == steps(0.002)


def test_a_sync_g_that_has_waited_goes_on_when_it_is_its_turn() -> None:
    """Not beside the Gs that run, on a thread of its own."""

    async def main() -> list[str]:
        said: list[str] = []
        ch = gmpd.Chan[int]()

        def waits(name: str) -> None:
            said.append(f"{name} got {ch.sync.recv()}")
            said.append(f"{name} ends")

        gs = [gmpd.go(waits, name) for name in ("a", "b")]
        await gmpd.sleep(1)
        for n in (1, 2):
            await ch.send(n)
            said.append(f"sent {n}")
            time.sleep(0.01)  # time enough for a thread
        for g in gs:
            await g
        return said

    # b began first: the last that is started runs next.
    assert gmpd.run(main(), deterministic_seed=1) == [
        "sent 1", "sent 2", "a got 2", "a ends", "b got 1", "b ends",
    ]  # fmt: skip


def test_a_seeded_program_whose_sync_gs_wait_for_ever_is_dead() -> None:
    async def main() -> None:
        ch = gmpd.Chan[int]()
        g = gmpd.go(ch.sync.recv)
        await gmpd.sleep(1000)
        await g

    with pytest.raises(Deadlock, match="chan receive"):
        gmpd.run(main(), deterministic_seed=1)


def test_a_g_that_is_woken_in_the_step_in_which_it_parks_can_be_traced() -> None:
    async def cancels_itself(ch: gmpd.Chan[int]) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ch.recv()

    async def main() -> list[GEvent]:
        tracer = this_loop("the test").start_trace()
        g = gmpd.go(cancels_itself, gmpd.Chan[int]())
        await asyncio.wait([asyncio.ensure_future(g)])
        return [event.event for event in tracer.events if event.g == g.id]

    e = GEvent
    assert gmpd.run(main()) == [e.CREATE, e.START, e.BLOCK, e.UNBLOCK, e.START, e.END]


def test_time_passes_beside_an_idle_thread_of_the_executor() -> None:
    async def main() -> float:
        assert await asyncio.to_thread(lambda: 1) == 1
        async with asyncio.timeout(20):
            await gmpd.sleep(0.05)
            await asyncio.sleep(0.05)
        return asyncio.get_running_loop().time()

    assert 0.0999 < gmpd.run(main(), deterministic_seed=1) < 20


def test_time_passes_beside_a_socket_on_which_nothing_comes() -> None:
    async def main() -> None:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(here, 1), 0.05)
            reads = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(here, 1))
            await asyncio.sleep(0)
            there.send(b"x")
            assert await reads == b"x"

    gmpd.run(main(), deterministic_seed=1)
