"""Jobs of the test that compares numbers: each kind of end, and work that moves between Ps."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import gmpd


def spin(seconds: float) -> None:
    """Compute for as much CPU time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def steady(n: int) -> int:
    """It ends well."""
    return -n


def fail(n: int) -> None:
    """It raises."""
    raise ValueError(f"job {n} fails")


def flaky(log: str, times: int) -> int:
    """It raises so often; ``log`` has a byte for each attempt."""
    attempt = _again(log)
    if attempt <= times:
        raise ValueError(f"attempt {attempt} fails")
    return attempt


def deadly(log: str, times: int) -> int:
    """It ends its worker so often."""
    attempt = _again(log)
    if attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def _again(log: str) -> int:
    with Path(log).open("ab") as file:
        file.write(b".")
    return Path(log).stat().st_size


def block(seconds: float) -> None:
    """It blocks its thread."""
    time.sleep(seconds)


def wait_for_child(seconds: float) -> None:
    """It waits for a child, which is known to block."""
    gmpd.go(asyncio.sleep, seconds).result()


async def wait(seconds: float) -> None:
    """It waits."""
    await asyncio.sleep(seconds)


async def family(n: int, seconds: float) -> int:
    """Children that compute, all made by one worker."""
    for child in [gmpd.go(spin, seconds) for _ in range(n)]:
        await child
    return n
