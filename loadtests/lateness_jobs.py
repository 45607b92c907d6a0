"""Jobs of lateness.py: loads that keep a P busy, and probes to get through beside them."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import gmpd
from gmpd.runtime.loop import Loop
from gmpd.runtime.m import current_loop

#: How long a thread sleeps, again and again: what it sleeps longer is its lateness.
PAUSE_S = 0.01
#: Coroutines, or pairs, of a load.
MANY = 50

#: (late by the wall's clock, CPU time that the process used meanwhile), in ms.
Late: TypeAlias = tuple[float, float]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


def sleeper(until: float) -> list[Late]:
    """Sleep again and again, at least once; how late each sleep ended."""
    lates: list[Late] = []
    while not lates or time.monotonic() < until:
        began, cpu = time.monotonic(), time.process_time()
        time.sleep(PAUSE_S)
        late = time.monotonic() - began - PAUSE_S
        lates.append((late * 1e3, (time.process_time() - cpu) * 1e3))
    return lates


class Busy:
    """Loads without an end in sight; each stops at ``until``."""

    def __init__(self, until: float):
        self.until = until
        self.done = 0

    def on(self) -> bool:
        self.done += 1
        return time.monotonic() < self.until

    async def coroutines(self) -> None:
        async def spin() -> None:
            while self.on():
                await asyncio.sleep(0)

        await asyncio.gather(*[spin() for _ in range(MANY)])

    async def children(self) -> None:
        async def spin() -> None:
            while self.on():
                await gmpd.gosched()

        for child in [gmpd.go(spin) for _ in range(MANY)]:
            await child

    async def callbacks(self) -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def again() -> None:
            if self.on():
                loop.call_soon(again)
            else:
                over.set_result(None)

        again()
        await over

    async def channels(self) -> None:
        x, y = gmpd.Chan[int](0), gmpd.Chan[int](0)

        async def pong() -> None:
            async for value in x:
                await y.send(value)

        other = gmpd.go(pong)
        while self.on():
            await x.send(1)
            await y.recv()
        x.close()
        await other

    async def timers(self) -> None:
        async def spin() -> None:
            while self.on():
                await gmpd.sleep(1e-5)

        for child in [gmpd.go(spin) for _ in range(MANY)]:
            await child

    async def sockets(self) -> None:
        loop = asyncio.get_running_loop()

        async def echo(mine: socket.socket) -> None:
            with mine:
                while self.on():
                    await loop.sock_sendall(mine, b"x")
                    await loop.sock_recv(mine, 10)

        both = [each for _ in range(8) for each in socket.socketpair()]
        for each in both:
            each.setblocking(False)
        await asyncio.gather(*map(echo, both))

    async def plain(self) -> None:
        def child() -> None:
            self.done += 1

        while self.on():
            for g in [gmpd.go(child) for _ in range(100)]:
                await g

    async def nothing(self) -> None:
        await asyncio.sleep(max(0.0, self.until - time.monotonic()))


def watch(until: float) -> dict[str, Any]:
    """As a plain G, beside a thread of its own, until then: how late both were, and sysmon."""
    loop = current_loop()
    assert isinstance(loop, Loop)
    passes, began = loop.sysmon.passes, time.monotonic()
    of_thread: list[Late] = []
    thread = threading.Thread(target=lambda: of_thread.extend(sleeper(until)), name="bystander")
    thread.start()
    of_g = sleeper(until)
    thread.join()
    looks = (loop.sysmon.passes - passes) / (time.monotonic() - began)
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "thread": summary(of_thread),
        "g": summary(of_g),
        "sysmon_looks_per_s": round(looks),
    }


def summary(lates: list[Late]) -> dict[str, float]:
    """Percentiles of lateness. The least of wall and CPU time is what this process is to blame for:
    on a busy machine the rest is that of others.
    """
    wall = [late for late, _ in lates]
    own = [min(late, cpu) for late, cpu in lates]
    return {
        "p50_ms": round(percentile(wall, 0.5), 2),
        "p99_ms": round(percentile(wall, 0.99), 2),
        "max_ms": round(max(wall), 2),
        "own_p95_ms": round(percentile(own, 0.95), 2),
        "own_p99_ms": round(percentile(own, 0.99), 2),
        "own_max_ms": round(max(own), 2),
        "count": len(lates),
    }


async def busy(load: str, until: float) -> int:
    """Keep the P busy until then; how much was done."""
    busy = Busy(until)
    run: Callable[[], Awaitable[None]] = getattr(busy, load)
    await run()
    return busy.done


async def under_run(load: str, seconds: float) -> dict[str, Any]:
    """For ``gmpd.run``: the load and the probes, on one P."""
    until = time.monotonic() + seconds
    seen = gmpd.go(watch, until)
    began = time.monotonic()
    done = await busy(load, until)
    result: dict[str, Any] = await seen
    result["per_s"] = round(done / (time.monotonic() - began))
    return result


def no_op(x: int) -> int:
    return x


async def async_no_op(x: int) -> int:
    return x
