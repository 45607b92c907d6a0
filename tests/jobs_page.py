"""Jobs that the tests of the live page run: some that fail, and some whose children are stolen."""

from __future__ import annotations

import time

import gmpd


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
