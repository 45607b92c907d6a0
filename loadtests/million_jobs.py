"""Jobs of ``million.py``: one job parks a million Gs, another wakes them."""

from __future__ import annotations

import asyncio
import resource
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gmpd

#: Children that the root spawns before it lets others run: about 2 ms of work.
SLICE = 1000
#: Among the parts of a G: what is its user's.
USERS = "the user's coroutine"
#: How often the root looks whether all have woken (seconds).
LOOK_S = 0.02


class State:
    """Of the one experiment that a worker runs at a time."""

    gate: gmpd.Chan[None] | None = None
    woken = 0
    closed_at = 0.0


state = State()


async def receive(gate: gmpd.Chan[None]) -> None:
    """One G: waits until the channel is closed."""
    try:
        await gate.recv()
    except gmpd.ChanClosed:
        state.woken += 1


async def sleep_until(when: float) -> None:
    """One G: sleeps until a time of its loop's clock."""
    await gmpd.sleep(when - asyncio.get_running_loop().time())
    state.woken += 1


async def park(n: int, sleep_s: float | None) -> AsyncIterator[dict[str, Any]]:
    """Spawn ``n`` Gs that wait for a channel, or sleep; tell when all are parked, and all awake."""
    state.gate, state.woken = gmpd.Chan(), 0
    loop = asyncio.get_running_loop()
    before, began = resident_bytes(), time.monotonic()
    when = None if sleep_s is None else loop.time() + sleep_s
    for at in range(0, n, SLICE):
        for _ in range(min(SLICE, n - at)):
            if when is None:
                gmpd.go(receive, state.gate)
            else:
                gmpd.go(sleep_until, when)
        await gmpd.gosched()
    await gmpd.gosched()
    parked = time.monotonic()
    yield {
        "gs": gmpd.num_g(),
        "spawn_and_park_s": parked - began,
        "early": state.woken,
        "bytes_per_g": (resident_bytes() - before) / n,
        "parts": parts_of_one_g(),
    }
    while state.woken < n:
        await gmpd.sleep(LOOK_S)
    woke = state.closed_at if when is None else when
    yield {"woken": state.woken, "wake_s": loop.time() - woke}


def close_gate() -> float:
    """Wake all that receive; how long that held P, in seconds."""
    assert state.gate is not None
    state.closed_at = time.monotonic()
    state.gate.close()
    return time.monotonic() - state.closed_at


def resident_bytes() -> int:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def parts_of_one_g() -> dict[str, int]:
    """Bytes of the objects of one parked G, as Python counts them."""
    loop: Any = asyncio.get_running_loop()
    g = next(
        g for g in loop.p.gs.some(10) if g.get_coro() is not None and g._fut_waiter is not None
    )
    coro = g.get_coro()
    found = {
        "G": g,
        "context": g.get_context(),
        "number": g.id,
        USERS: coro,
        "recv or sleep": coro.cr_await,
        "sudog": g._fut_waiter,
    }
    sizes = {name: sys.getsizeof(part) for name, part in found.items()}
    sizes["its place in the queue"] = struct.calcsize("P")
    sizes["its share of the sets of all Gs"] = sys.getsizeof(g._among) // len(g._among)
    return sizes
