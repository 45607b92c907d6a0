"""Jobs of handoff_figures.py: jobs that block, jobs that hog, jobs beside them."""

from __future__ import annotations

import asyncio
import os
import time
import types
import urllib.request
from collections.abc import Callable
from typing import Any

#: A G blocks for this long: twice a slice, so that sysmon finds it.
BLOCK_S = 0.02
#: The server takes this long for a page.
PAGE_S = 0.05


def short(n: int) -> int:
    """Nothing: what is measured is how long it waits."""
    return n


def nap(seconds: float) -> None:
    """Block the thread, as an old database driver does."""
    time.sleep(seconds)


def fetch(url: str) -> int:
    """A blocking HTTP client."""
    with urllib.request.urlopen(url, timeout=60) as got:
        return len(got.read())


def hog(seconds: float) -> int:
    """Pure Python, without a pause, for so much time; in which process."""
    rounds, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        rounds += 1
    return os.getpid()


async def serve(port: int) -> int:
    """An aiohttp server in a worker, until a request for /stop; how many pages it served."""
    from aiohttp import web

    over, served = asyncio.Event(), 0

    async def page(_request: web.Request) -> web.Response:
        nonlocal served
        await asyncio.sleep(PAGE_S)
        served += 1
        return web.Response(text="here")

    async def stop(_request: web.Request) -> web.Response:
        over.set()
        return web.Response()

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/stop", stop)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    await over.wait()
    await runner.cleanup()
    return served


async def handoffs(kind: str, times: int) -> list[int]:
    """Nanoseconds from a sync G's blocking to the first step of a coroutine that it has just
    started, ``times`` times: P is handed off, and comes to the thread of coroutines.

    ``unknown``: the function has never been seen to block, so sysmon has to find out. ``learned``:
    it has. ``known``: it says so itself, by receiving from a channel.
    """
    from gmpd.runtime.chan import Chan
    from gmpd.runtime.go import go

    seen: list[int] = []
    began = 0
    answers = Chan[None]()
    followers: list[Any] = []

    def sleeper() -> None:
        nonlocal began
        followers.append(go(behind))
        began = time.monotonic_ns()
        time.sleep(BLOCK_S)

    def receiver() -> None:
        nonlocal began
        followers.append(go(behind))
        began = time.monotonic_ns()
        answers.sync.recv()

    async def behind() -> None:
        seen.append(time.monotonic_ns() - began)
        if kind == "known":
            await answers.send(None)

    for number in range(times + 1):
        blocker = receiver if kind == "known" else sleeper
        if kind == "unknown":
            blocker = stranger(sleeper, number)
        await go(blocker)
        await followers.pop()
    return seen[1:]  # the first one started the threads


def stranger(fn: types.FunctionType | Callable[[], None], number: int) -> Callable[[], None]:
    """The same function as a new one: no worker has learned of it."""
    assert isinstance(fn, types.FunctionType)
    code = fn.__code__.replace(co_name=f"{fn.__name__}_{number}")
    return types.FunctionType(code, fn.__globals__, code.co_name, None, fn.__closure__)
