"""Jobs that the tests of the live page run: some that fail, some whose children are stolen or wait,
and one that does not let others run."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

import gmpd

#: Children that are made before they may begin.
BATCH = 500


def spin(seconds: float) -> None:
    """Compute for as much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def fail() -> None:
    """It raises."""
    raise ValueError("the image has no pixels")


async def family(n: int, seconds: float) -> None:
    """Children that compute, all made by one worker."""
    for child in [gmpd.go(spin, seconds) for _ in range(n)]:
        await child


async def parked(n: int) -> None:
    """Children that wait for a value that does not come: they begin here, so none is stolen."""
    ch = gmpd.Chan[int]()
    gs: list[Any] = []
    for _ in range(0, n, BATCH):
        gs += [gmpd.go(receive, ch) for _ in range(min(BATCH, n - len(gs)))]
        await gmpd.gosched()
    try:
        for g in gs:
            await g
    finally:
        ch.close()


async def receive(ch: gmpd.Chan[int]) -> None:
    """Wait for one."""
    with suppress(gmpd.ChanClosed):
        await ch.recv()


def block(path: str) -> None:
    """Until the file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)


async def hold(path: str) -> None:
    """The same, as a coroutine should not."""
    block(path)
